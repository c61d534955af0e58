"""PyTorch's own optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
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

CALLS = run.calls("pytorch")
RECORDS = {c.title: c for c in CONVENTIONS if c.library == "pytorch"}


@pytest.fixture
def float64():
    """What PyTorch keeps beside the parameters, such as NAdam's product, is in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def optimizer(record):
    return getattr(torch.optim, record.name.rpartition(".")[2])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CALLS)
def test_the_same_parameters_after_every_step(name):
    record, call = CALLS[name]
    run.assert_like(record, call, lambda p: optimizer(record)(p, **call))


@pytest.mark.parametrize("title", RECORDS)
def test_the_defaults_are_pytorchs(title):
    record = RECORDS[title]
    run.assert_defaults(record, optimizer(record), besides=set(), not_known={"maximize"})


@pytest.mark.parametrize("name", ["pytorch.Adafactor", "pytorch.Muon"])
def test_the_decay_of_a_weight_without_gradient(name):
    record = RECORDS[name]
    numbers = {"lr": RATE, "weight_decay": run.weight_decay(record)}
    theta0 = THETA0.reshape(2, 5)
    run.assert_decays_alone(record, lambda p: optimizer(record)(p, **numbers), theta0)


def test_maximize_turns_the_gradient_before_all_else():
    call = {"lr": RATE, "weight_decay": 0.1}
    ours = run.like_paths("pytorch.Adam", -GRADIENTS, **call)["jumps"]
    theirs = run.torch_path(
        lambda p: torch.optim.Adam(p, maximize=True, **call), SCHEDULES["jumps"]
    )
    assert_same_path(ours, theirs)


def test_asgd_decays_although_weight_decay_is_0_and_follows_a_change_of_the_rate_one_step_late():
    """Its own rate is made of `lr` at the end of each step, for the next."""
    lr, lambd, alpha = 0.1, 0.01, 0.75
    eta = SCHEDULES["jumps"]
    steps = np.arange(1, STEPS)
    rates = np.append(lr, lr * eta[:-1] / (1 + lambd * lr * eta[:-1] * steps) ** alpha)
    path = run.torch_path(
        lambda p: torch.optim.ASGD(p, lr=lr, lambd=lambd, alpha=alpha),
        eta,
        np.zeros_like(GRADIENTS),
    )
    kept = np.cumprod(1 - lambd * rates)
    # PyTorch keeps that rate in float32.
    np.testing.assert_allclose(path, kept[:, None] * THETA0, rtol=RELATIVE["a float32 rate"])


def test_nadam_keeps_the_product_of_its_momenta_in_float32_for_float64_parameters():
    record, call = CALLS["pytorch.NAdam(decoupled_weight_decay=True)-0"]
    ours = run.like_paths(record.name, **call)["constant"]
    theirs = run.torch_path(lambda p: torch.optim.NAdam(p, **call), SCHEDULES["constant"])
    gap = deviation(ours, theirs)
    assert RELATIVE["reference"] < gap < RELATIVE["a float32 rate"]


# PyTorch's own schedulers, and the multipliers that are theirs


SCHEDULERS = {
    "CosineAnnealingWarmRestarts": (
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 7, 2),
        dwd.cosine_warm_restarts_schedule(7, 2),
    ),
    "LambdaLR, a warm-up from 0": (
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(t / 8, 1)),
        lambda step: jnp.minimum(step / 8, 1),
    ),
    "CosineAnnealingLR": (
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
        optax.cosine_decay_schedule(1.0, STEPS),
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_pytorch_is_the_schedule_of_like(name):
    make, schedule = SCHEDULERS[name]
    call = {"lr": RATE, "weight_decay": 0.3}
    theta = torch.nn.Parameter(torch.tensor(THETA0))
    adamw = torch.optim.AdamW([theta], **call)
    scheduler, theirs = make(adamw), []
    for gradient in GRADIENTS:
        theta.grad = torch.tensor(gradient)
        adamw.step()
        scheduler.step()
        theirs.append(theta.detach().numpy().copy())
    ours = our_path(lambda: dwd.like("pytorch.AdamW", schedule=schedule, **call))
    assert_same_path(ours, np.stack(theirs))


# What one would take for PyTorch's rule, and is another.


def test_w_is_not_per_step():
    theirs = run.torch_path(
        lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.004), SCHEDULES["constant"]
    )
    naive = our_path(lambda: dwd.adamw(RATE, weight_decay=0.004))
    assert deviation(naive, theirs) > RELATIVE["separation"]


def test_optaxs_amsgrad_is_not_pytorchs():
    spike = np.where(np.arange(STEPS) == 3, 1e3, 1.0)[:, None] * GRADIENTS
    call = {"lr": RATE, "betas": (0.9, 0.9), "weight_decay": 0.0}
    theirs = run.torch_path(
        lambda p: torch.optim.Adam(p, amsgrad=True, **call), SCHEDULES["constant"], spike
    )
    same = run.like_paths("pytorch.Adam(amsgrad=True)", spike, **call)["constant"]
    assert_same_path(same, theirs)
    naive = _path(optax.amsgrad(RATE, 0.9, 0.9), spike)
    assert deviation(naive, theirs) > RELATIVE["separation"]


def test_optaxs_nadam_and_radam_are_not_pytorchs():
    for name, theirs in (("NAdam", optax.nadam), ("RAdam", optax.radam)):
        ours = run.like_paths(f"pytorch.{name}", lr=0.1, eps=1e-5)["constant"]
        assert deviation(_path(theirs(0.1, eps=1e-5), GRADIENTS), ours) > RELATIVE["separation"]


def _path(tx, gradients):
    with jax.enable_x64(True):
        theta = jnp.asarray(THETA0)
        state, path = tx.init(theta), []
        update = jax.jit(tx.update)
        for gradient in gradients:
            updates, state = update(jnp.asarray(gradient), state, theta)
            theta = optax.apply_updates(theta, updates)
            path.append(np.asarray(theta))
    return np.stack(path)
