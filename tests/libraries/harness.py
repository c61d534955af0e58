"""Fifty float64 steps on given gradients, here and there."""

import os
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.tolerances import RELATIVE

os.environ.setdefault("KERAS_BACKEND", "jax")

STEPS = 50
_RNG = np.random.default_rng(7)
SIZES = np.logspace(-9, 0, 10)
"""Gradients of nine orders of magnitude, so that eps matters in some coordinates and not in others."""
GRADIENTS = _RNG.normal(size=(STEPS, SIZES.size)) * SIZES
THETA0 = _RNG.normal(size=SIZES.size)
SCHEDULES = {
    "constant": np.ones(STEPS),
    "cosine": 0.55 + 0.45 * np.cos(np.pi * np.arange(STEPS) / STEPS),
    # From step to step up and down, which shows where the rate stands beside a buffer.
    "jumps": np.where(np.arange(STEPS) % 3 == 1, 0.2, 1.0),
    "warmup": np.minimum(np.arange(STEPS) / 8, 1.0),
    "zeros": np.where(np.arange(STEPS) // 10 == 2, 0.0, 1.0),
}
"""Multipliers of the learning rate; the first three are 1 at the first step and never 0."""
CONVERTIBLE = ("constant", "cosine", "jumps")
"""Those for which conversions are compared."""


def multiplier(eta: np.ndarray) -> Callable[[Any], Any] | None:
    """A schedule for `like`; None where it is constant."""
    return None if np.all(eta == 1) else lambda step: jnp.asarray(eta)[step]


def our_paths(
    build: Callable[[Callable[[Any], Any]], optax.GradientTransformation],
    gradients: np.ndarray = GRADIENTS,
    theta0: np.ndarray = THETA0,
) -> np.ndarray:
    """Parameters after every step of `build(schedule)`, for every schedule along the leading axis.

    All is built and runs in float64, with one compilation.
    """

    def path(eta: jax.Array) -> jax.Array:
        tx = build(lambda step: eta[step])

        def step(carry: Any, gradient: jax.Array) -> Any:
            theta, state = carry
            updates, state = tx.update(gradient, state, theta)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), theta

        theta = jnp.asarray(theta0)
        return jax.lax.scan(step, (theta, tx.init(theta)), jnp.asarray(gradients))[1]

    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(path))(jnp.asarray(np.stack(list(SCHEDULES.values())))))


def our_path(make: Callable[[], optax.GradientTransformation]) -> np.ndarray:
    """Parameters after every step of what has its schedule, or needs none."""
    return our_paths(lambda schedule: make())[0]


def deviation(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two paths, relative to the largest parameter."""
    return float(np.max(np.abs(one - other)) / np.max(np.abs(THETA0)))


def assert_same_path(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Require the same parameters after every step, to rounding."""
    chex.assert_equal_shape([ours, theirs])
    assert deviation(ours, theirs) <= RELATIVE["reference"], (
        f"deviation {deviation(ours, theirs):.1e}"
    )
