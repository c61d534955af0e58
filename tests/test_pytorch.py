"""PyTorch's AdamW, Adam, SGD and AMSGrad, step by step in float64.

A job of its own: `pip install torch` and run this file. Without PyTorch it is skipped, and says so.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from tests.tolerances import RELATIVE

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

STEPS, D = 300, 6
RNG = np.random.default_rng(3)
# Nine orders of magnitude, so that eps matters in some coordinates and not in others.
GRADIENTS = RNG.normal(size=(STEPS, D)) * np.logspace(-9, 0, D)
THETA0 = RNG.normal(size=D)
RATE, LAM = 1e-2, 0.1
SCHEDULES = {
    "constant": np.ones(STEPS),
    "cosine": 0.5 + 0.5 * np.cos(np.pi * np.arange(STEPS) / STEPS),
}

adamw, adam, sgd = torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD
PAIRS = {
    "AdamW": (
        lambda p: adamw(p, lr=RATE, weight_decay=LAM),
        lambda eta: dwd.adamw(RATE, weight_decay=LAM, schedule=eta, coupling="learning_rate"),
    ),
    "AdamW(amsgrad)": (
        lambda p: adamw(p, lr=RATE, betas=(0.9, 0.9), weight_decay=LAM, amsgrad=True),
        lambda eta: dwd.amsgradw(
            RATE, b2=0.9, weight_decay=LAM, schedule=eta, coupling="learning_rate",
            variant="pytorch",
        ),
    ),
    "AdamW in the paper's unit": (
        lambda p: adamw(p, lr=RATE, weight_decay=LAM),
        lambda eta: dwd.adamw(RATE, weight_decay=RATE * LAM, schedule=eta),
    ),
    "Adam": (
        lambda p: adam(p, lr=RATE, weight_decay=LAM),
        lambda eta: dwd.adam_l2(RATE, weight_decay=LAM, schedule=eta),
    ),
    "Adam(amsgrad)": (
        lambda p: adam(p, lr=RATE, betas=(0.9, 0.9), weight_decay=LAM, amsgrad=True),
        lambda eta: dwd.amsgrad_l2(
            RATE, b2=0.9, weight_decay=LAM, schedule=eta, variant="pytorch"
        ),
    ),
    "SGD": (
        lambda p: sgd(p, lr=RATE, momentum=0.9, weight_decay=LAM),
        lambda eta: dwd.sgd_l2(
            RATE, 0.9, weight_decay=LAM, schedule=eta, learning_rate_in_buffer=False
        ),
    ),
    "SGD(nesterov)": (
        lambda p: sgd(p, lr=RATE, momentum=0.9, weight_decay=LAM, nesterov=True),
        lambda eta: dwd.sgd_l2(
            RATE, 0.9, nesterov=True, weight_decay=LAM, schedule=eta, learning_rate_in_buffer=False
        ),
    ),
    "SGD without momentum": (
        lambda p: sgd(p, lr=RATE, weight_decay=LAM),
        lambda eta: dwd.sgdw(
            RATE, momentum=None, weight_decay=LAM, schedule=eta, coupling="learning_rate"
        ),
    ),
}  # fmt: skip


def pytorch_path(make, eta):
    theta = torch.nn.Parameter(torch.tensor(THETA0))
    optimizer = make([theta])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: eta[min(step, STEPS - 1)])
    path = []
    for gradient in GRADIENTS:
        theta.grad = torch.tensor(gradient)
        optimizer.step()
        scheduler.step()
        path.append(theta.detach().numpy().copy())
    return np.stack(path)


def our_path(tx):
    def step(carry, gradient):
        theta, state = carry
        updates, state = tx.update(gradient, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    theta0 = jnp.asarray(THETA0)
    return np.asarray(jax.lax.scan(step, (theta0, tx.init(theta0)), jnp.asarray(GRADIENTS))[1])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PAIRS)
def test_the_same_parameters_after_every_step(name, schedule):
    theirs, ours = PAIRS[name]
    eta = SCHEDULES[schedule]
    with jax.enable_x64(True):
        path = our_path(ours(lambda count: jnp.asarray(eta)[count]))
    chex.assert_trees_all_close(
        path, pytorch_path(theirs, eta), rtol=0, atol=RELATIVE["reference"] * np.abs(THETA0).max()
    )


def test_optaxs_amsgrad_is_not_pytorchs():
    with jax.enable_x64(True):
        ours = our_path(dwd.amsgrad_l2(RATE, b2=0.9, weight_decay=LAM, variant="optax"))
    theirs = pytorch_path(PAIRS["Adam(amsgrad)"][0], SCHEDULES["constant"])
    assert np.abs(ours - theirs).max() > 1e-3
