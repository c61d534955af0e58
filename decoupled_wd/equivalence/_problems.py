"""The problems that relations are run on: what the gradients are, and where the parameters start."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decoupled_wd.equivalence._relation import Problem

_STEPS, _D = 300, 6
_RNG = np.random.default_rng(1711_05101)
_THETA0 = _RNG.normal(size=_D)


def _log_cosh_gradient(theta: jax.Array, batch: Any) -> jax.Array:
    x, y = batch
    return jnp.tanh(x @ theta - y) @ x / x.shape[0]


def _regression(micro_steps: int) -> Problem:
    x = _RNG.normal(size=(_STEPS, micro_steps, 4, _D))
    y = x @ _RNG.normal(size=_D) + 0.3 * _RNG.normal(size=x.shape[:-1])
    return Problem("log-cosh regression", _log_cosh_gradient, (x, y), _THETA0)


def given(name: str, gradients: Any, theta0: Any) -> Problem:
    """Open loop: gradients that do not depend on the parameters, one a step."""
    batches = np.asarray(gradients, np.float64)[:, None]
    return Problem(name, lambda theta, batch: batch, batches, np.asarray(theta0, np.float64))


REGRESSION = _regression(micro_steps=1)
"""f_t = mean_i log cosh(x_i . theta - y_i) on fresh batches: stochastic, convex, not quadratic."""

MICRO_BATCHES = _regression(micro_steps=4)
"""The same in four micro-batches a step."""


def _scale_invariant_gradient(theta: jax.Array, batch: Any) -> jax.Array:
    length = jnp.linalg.norm(theta)
    direction = theta / length
    g = _log_cosh_gradient(direction, batch)
    return (g - direction * (direction @ g)) / length


SCALE_INVARIANT = Problem(
    "scale-invariant log-cosh regression",
    _scale_invariant_gradient,
    REGRESSION.batches,
    _THETA0,
)
"""f_t(theta) = mean_i log cosh(x_i . theta/|theta| - y_i): a loss behind a normalization."""

SILENT = given("zero gradient", np.zeros((_STEPS, _D)), _THETA0)

_SIGNS = np.sign(_RNG.normal(size=(_STEPS, _D)))
AWAY_FROM_ZERO = given(
    "given gradients in [0.5, 1.5]", _SIGNS * _RNG.uniform(0.5, 1.5, (_STEPS, _D)), _THETA0
)
"""A sign of such gradients cannot flip by rounding."""

GROWING = given(
    "given gradients of growing size",
    _SIGNS * np.cumsum(_RNG.uniform(0.0, 0.1, (_STEPS, _D)), axis=0),
    _THETA0,
)

STEADY_GROWTH = given(
    "given gradients that grow by 5 % a step",
    _SIGNS * 1.05 ** np.arange(_STEPS)[:, None] * np.linspace(0.5, 1.5, _D),
    _THETA0,
)


def witness(theta0: list[float], gradients: list[list[float]]) -> Problem:
    """A problem of a few numbers, for separations."""
    return given(f"{len(gradients)} given gradients", gradients, theta0)


def silent_micro_steps(theta0: list[float], micro_steps: int) -> Problem:
    """One step without gradient, in micro-steps."""
    zeros = np.zeros((1, micro_steps, len(theta0)))
    return Problem("zero gradient", lambda theta, batch: batch, zeros, np.asarray(theta0))
