"""pytorch_optimizer's optimizers, with `weight_decouple` and `fixed_decay`."""

import numpy as np
import pytest

from decoupled_wd.conventions import CONVENTIONS
from tests.libraries import torch_harness as run
from tests.libraries.harness import GRADIENTS, SCHEDULES, STEPS, THETA0, assert_same_path
from tests.libraries.torch_harness import RATE

torch = run.torch
pytorch_optimizer = pytest.importorskip(
    "pytorch_optimizer",
    reason="see tests/libraries/requirements.txt",
)

CALLS = run.calls("pytorch_optimizer")
RECORDS = {c.title: c for c in CONVENTIONS if c.library == "pytorch_optimizer"}
RANGER21 = {
    # All that it does beside the step and the decay.
    "num_warm_up_iterations", "num_warm_down_iterations", "warm_down_min_lr", "disable_lr_scheduler",
    "agc_clipping_value", "agc_eps", "centralize_gradients", "normalize_gradients", "use_softplus",
    "beta_softplus", "lookahead_merge_time", "lookahead_blending_alpha", "norm_loss_factor", "beta0",
}  # fmt: skip
NOT_KNOWN = {"maximize", "kwargs", "kahan_sum", "ams_bound", "max_grad_norm", *RANGER21}


def optimizer(record):
    return getattr(pytorch_optimizer, record.name.rpartition(".")[2])


@pytest.mark.parametrize("name", CALLS)
def test_the_same_parameters_after_every_step(name):
    record, call = CALLS[name]
    run.assert_like(record, call, lambda p: optimizer(record)(p, **call))


@pytest.mark.parametrize("title", RECORDS)
def test_the_defaults_are_pytorch_optimizers(title):
    record = RECORDS[title]
    run.assert_defaults(record, optimizer(record), besides={"normalized"}, not_known=NOT_KNOWN)


# What its users should know.


def first_step(make, size=1.0, theta0=THETA0):
    gradient = np.full((1, *theta0.shape), size)
    return run.torch_path(make, np.ones(STEPS), gradient, theta0)[0]


def test_a_group_with_a_rate_of_its_own_is_corrected_by_the_optimizers():
    """It decays by (a²/A) w with the optimizer's A: here four times what its own would make."""
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    groups = [{"params": [theta], "lr": 4 * RATE, "normalized": True}]
    adamc = pytorch_optimizer.AdamC(groups, lr=RATE, weight_decay=0.1)
    theta.grad = torch.zeros_like(theta)
    adamc.step()
    np.testing.assert_allclose(1 - float(theta.detach()), 16 * RATE * 0.1, rtol=1e-9)


@pytest.mark.parametrize("fixed", [False, True])
def test_adams_divides_its_decay_by_the_size_of_the_gradients(fixed):
    d, size = 1e-6, 1e-3
    w = d if fixed else d / RATE
    with_decay, without = (
        first_step(
            lambda p, w=w: pytorch_optimizer.AdamS(p, lr=RATE, weight_decay=w, fixed_decay=fixed),
            size,
        )
        for w in (w, 0.0)
    )
    removed = d / (size + 1e-8)
    np.testing.assert_allclose(without - with_decay, removed * THETA0, rtol=1e-9)


@pytest.mark.parametrize("n", [16, 400])
def test_ranger21s_decay_of_small_gradients_grows_as_the_root_of_how_many_weights_there_are(n):
    call = {
        "num_iterations": 10, "lr": RATE, "disable_lr_scheduler": True, "norm_loss_factor": 0.0,
        "centralize_gradients": False, "normalize_gradients": False,
    }  # fmt: skip
    theta0 = np.linspace(1.0, 2.0, n)
    with_decay, without = (
        first_step(
            lambda p, w=w: pytorch_optimizer.Ranger21(p, weight_decay=w, **call), 1e-12, theta0
        )
        for w in (1e-3, 0.0)
    )
    removed = RATE * 1e-3 * np.sqrt(n)
    np.testing.assert_allclose(without - with_decay, removed * theta0, rtol=1e-9)


def test_ranger21_without_weight_decouple_does_not_decay_at_all():
    call = {"num_iterations": 100, "lr": RATE, "weight_decouple": False}
    one, other = (
        run.torch_path(
            lambda p, w=w: pytorch_optimizer.Ranger21(p, weight_decay=w, **call),
            SCHEDULES["constant"],
        )
        for w in (0.5, 0.0)
    )
    np.testing.assert_array_equal(one, other)


def test_stableadamws_decay_of_a_weight_without_gradient():
    path = run.torch_path(
        lambda p: pytorch_optimizer.StableAdamW(p, lr=RATE, weight_decay=0.1),
        SCHEDULES["cosine"], np.zeros_like(GRADIENTS),
    )  # fmt: skip
    kept = np.cumprod(1 - 0.1 * RATE * SCHEDULES["cosine"])
    assert_same_path(path, kept[:, None] * THETA0)
