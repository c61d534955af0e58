"""optimi's optimizers, with all their couplings."""

import numpy as np
import pytest

from decoupled_wd.conventions import CONVENTIONS
from tests.libraries import torch_harness as run
from tests.libraries.harness import GRADIENTS, SCHEDULES, STEPS, THETA0, assert_same_path, deviation
from tests.libraries.torch_harness import RATE
from tests.tolerances import RELATIVE

torch = run.torch
optimi = pytest.importorskip("optimi", reason="see tests/libraries/requirements.txt")

CALLS = run.calls("optimi")
RECORDS = {c.title: c for c in CONVENTIONS if c.library == "optimi"}
STABLE = [title for title in RECORDS if "StableAdamW" in title]


def optimizer(record):
    return getattr(optimi, record.name.rpartition(".")[2])


@pytest.mark.parametrize("name", CALLS)
def test_the_same_parameters_after_every_step(name):
    record, call = CALLS[name]
    run.assert_like(record, call, lambda p: optimizer(record)(p, **call))


@pytest.mark.parametrize("title", RECORDS)
def test_the_defaults_are_optimis(title):
    record = RECORDS[title]
    run.assert_defaults(record, optimizer(record), besides=set(), not_known={"kahan_sum"})


@pytest.mark.parametrize("title", STABLE)
def test_the_decay_of_stableadamw_follows_its_clipped_step(title):
    """A gradient ten times the last: RMS² = 100/(b2 1 + (1 - b2) 100), of the debiased b2."""
    record = RECORDS[title]
    call = {**record.options, "lr": RATE, "betas": (0.9, 0.99), "eps": 1e-12}
    w = 0.05 * RATE if record.options["decouple_lr"] else 0.05
    gradients = np.concatenate([np.ones((1, 10)), np.full((1, 10), 10.0)])
    with_decay, without = (
        run.torch_path(
            lambda p, w=w: optimi.StableAdamW(p, weight_decay=w, **call), np.ones(STEPS), gradients
        )
        for w in (w, 0.0)
    )
    b2 = 0.99 * (1 - 0.99) / (1 - 0.99**2)
    clip = np.sqrt(100 / (b2 + (1 - b2) * 100))
    d1, d2 = 0.05 * RATE, 0.05 * RATE / clip
    assert clip > 1.3
    expected = np.stack([-d1 * THETA0, (1 - d2) * with_decay[0] - without[0]])
    gap = with_decay - without
    np.testing.assert_allclose(gap, expected, atol=RELATIVE["reference"])


@pytest.mark.parametrize("coupling", [{"decouple_wd": True}, {"decouple_lr": True}])
def test_rangers_lookahead_takes_half_of_the_decay_back(coupling):
    d = run.DECAY
    w = d if "decouple_lr" in coupling else d / RATE
    path = run.torch_path(
        lambda p: optimi.Ranger(p, lr=RATE, weight_decay=w, **coupling),
        SCHEDULES["constant"], np.zeros_like(GRADIENTS),
    )  # fmt: skip
    round_of_six = (1 + (1 - d) ** 6) / 2
    steps = np.arange(1, STEPS + 1)
    kept = round_of_six ** (steps // 6) * (1 - d) ** (steps % 6)
    assert_same_path(path, kept[:, None] * THETA0)


def test_adan_ignores_adam_wd():
    """The argument is kept and never passed on, so that the decay stays proximal."""
    call = {"lr": RATE, "weight_decay": 0.1}
    one, other = (
        run.torch_path(lambda p, x=x: optimi.Adan(p, adam_wd=x, **call), SCHEDULES["cosine"])
        for x in (True, False)
    )
    np.testing.assert_array_equal(one, other)
    assert_same_path(run.like_paths("optimi.Adan", adam_wd=True, **call)["cosine"], one)


def test_a_group_with_a_rate_of_its_own_decays_by_the_ratio_of_the_two():
    """Its w is per step of the optimizer's rate: here four times the number."""
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    other = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    groups = [{"params": [theta]}, {"params": [other], "lr": 4 * RATE}]
    adamw = optimi.AdamW(groups, lr=RATE, weight_decay=1e-4, decouple_lr=True)
    theta.grad = other.grad = torch.zeros_like(theta)
    adamw.step()
    removed = [1 - float(x) for x in (theta.detach(), other.detach())]
    np.testing.assert_allclose(removed, [1e-4, 4e-4], rtol=1e-9)


def test_its_defaults_are_not_pytorchs():
    """b2 = 0.99 and eps = 1e-6: the same call is another optimizer."""
    ours = run.like_paths("optimi.AdamW", lr=RATE)["constant"]
    pytorchs = run.like_paths("pytorch.AdamW", lr=RATE)["constant"]
    assert deviation(ours, pytorchs) > RELATIVE["separation"]
