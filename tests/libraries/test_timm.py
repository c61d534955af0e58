"""timm's optimizers, by their classes and by its factory."""

import numpy as np
import optax
import pytest

from decoupled_wd.conventions import CONVENTIONS
from tests.libraries import torch_harness as run
from tests.libraries.harness import (
    GRADIENTS,
    SCHEDULES,
    STEPS,
    THETA0,
    assert_same_path,
    deviation,
    our_path,
)
from tests.libraries.torch_harness import RATE
from tests.tolerances import RELATIVE

torch = run.torch
try:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
except RuntimeError:
    # Its kernels are built for another PyTorch; importing it, which timm does, needs their names.
    for kernel in ("nms", "qnms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{kernel}", schema)
timm = pytest.importorskip("timm.optim", reason="see tests/libraries/requirements.txt")

CALLS = run.calls("timm")
RECORDS = {c.title: c for c in CONVENTIONS if c.library == "timm"}
OWN = [title for title, c in RECORDS.items() if c.direction == "own" and c.unit is not None]
NOT_KNOWN = {"maximize", "caution", "clipping_threshold", "momentum_dtype"}


def name_of(record):
    return record.name.rpartition(".")[2]


def by_factory(record):
    return name_of(record).islower()


def maker(record, call):
    if not by_factory(record):
        return lambda p: getattr(timm, name_of(record))(p, **call)
    # A model's parameters of one dimension would not decay.
    return lambda p: timm.create_optimizer_v2(p, opt=name_of(record), **call)


@pytest.mark.parametrize("name", CALLS)
def test_the_same_parameters_after_every_step(name):
    record, call = CALLS[name]
    run.assert_like(record, call, maker(record, call))


@pytest.mark.parametrize("title", OWN)
def test_the_decay_of_a_weight_without_gradient(title):
    record = RECORDS[title]
    call = {**record.options, "lr": RATE, "weight_decay": run.weight_decay(record)}
    run.assert_decays_alone(record, maker(record, call))


@pytest.mark.parametrize("title", [t for t, c in RECORDS.items() if not by_factory(c)])
def test_the_defaults_are_timms(title):
    record = RECORDS[title]
    function = getattr(timm, name_of(record))
    run.assert_defaults(record, function, besides=set(), not_known=NOT_KNOWN)


@pytest.mark.parametrize("title", [t for t, c in RECORDS.items() if by_factory(c)])
def test_the_defaults_of_the_factory_are_timms(title):
    record = RECORDS[title]
    optimizer = timm.create_optimizer_v2([torch.nn.Parameter(torch.ones(1))], name_of(record))
    (group,) = optimizer.param_groups
    assert record.defaults == {k: group[k] for k in record.defaults}


# What its users should know.


def test_a_group_with_a_rate_of_its_own_is_corrected_by_the_optimizers():
    """It decays by (a²/A) w with the optimizer's A: here four times what its own would make."""
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    other = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    groups = [{"params": [theta]}, {"params": [other], "lr": 4 * RATE}]
    optimizer = timm.AdamWLegacy(groups, lr=RATE, weight_decay=0.1, corrected_weight_decay=True)
    theta.grad = other.grad = torch.zeros_like(theta)
    optimizer.step()
    removed = [1 - float(x) for x in (theta.detach(), other.detach())]
    np.testing.assert_allclose(removed, [RATE * 0.1, 16 * RATE * 0.1], rtol=1e-9)


def test_lambs_decay_inside_the_trust_ratio_forgets_its_number():
    """A weight without gradient loses lr of itself whatever `weight_decay` is."""
    for decay in (0.1, 1e-4):
        path = run.torch_path(
            lambda p, w=decay: timm.Lamb(p, lr=RATE, weight_decay=w),
            SCHEDULES["constant"], np.zeros_like(GRADIENTS),
        )  # fmt: skip
        assert_same_path(path, (1 - RATE) ** np.arange(1, STEPS + 1)[:, None] * THETA0)


def test_a_model_given_to_the_factory_has_no_decay_of_what_has_one_dimension():
    model = torch.nn.Linear(2, 2)
    optimizer = timm.create_optimizer_v2(model, "adamw", weight_decay=0.1)
    decays = {
        p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert decays == {1: 0.0, 2: 0.1}


def test_optaxs_adan_is_not_timms():
    """Optax takes 1 - b2 for the paper's factor, which is b2 in its own words: 0.08 for 0.92."""
    theirs = run.torch_path(lambda p: timm.Adan(p, lr=RATE, eps=1e-5), SCHEDULES["constant"])
    assert_same_path(run.like_paths("timm.Adan", lr=RATE, eps=1e-5)["constant"], theirs)
    naive = our_path(lambda: optax.adan(RATE, eps=1e-5, weight_decay=0.0))
    assert deviation(naive, theirs) > RELATIVE["separation"]


def test_timms_nadamw_is_not_optaxs():
    call = {"lr": 0.1, "eps": 1e-5, "weight_decay": 0.0}
    ours = run.like_paths("timm.NAdamW", **call)["constant"]
    naive = our_path(lambda: optax.nadamw(0.1, eps=1e-5, weight_decay=0.0))
    assert deviation(naive, ours) > RELATIVE["separation"]
