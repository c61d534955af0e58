"""Steps of other libraries that Optax has not."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number, Params, Updates


class ScaleByNadamState(NamedTuple):
    """Adam's, and the product of the momenta so far, in place of a power of b1."""

    count: jax.Array
    mu: Updates
    nu: Updates
    momenta: jax.Array


def scale_by_nadam(
    b1: Number, b2: Number, eps: Number, momentum_decay: Number
) -> optax.GradientTransformation:
    """Dozat's NAdam with its rising momentum, as PyTorch and Keras have it, and Optax has not."""
    _check.check_beta("b1", b1)
    _check.check_beta("b2", b2)

    def init(params: Params) -> ScaleByNadamState:
        mu, nu = _tree.zeros_like(params, "mu", None), _tree.zeros_like(params, "nu", None)
        return ScaleByNadamState(jnp.zeros([], jnp.int32), mu, nu, jnp.ones([], _tree.default_float()))

    def momentum(count: jax.Array) -> jax.Array:
        return b1 * (1 - 0.5 * 0.96 ** (jnp.asarray(count, _tree.default_float()) * momentum_decay))

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, ScaleByNadamState]:
        del params
        _tree.check_state(state, "momenta")
        count = optax.safe_increment(state.count)
        now, ahead = momentum(count), momentum(optax.safe_increment(count))
        momenta = state.momenta * now
        correction2 = _moments.bias_correction(b2, count)

        def leaf(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m = _moments.moving_average(g, m, b1)
            v = _moments.moving_average(_moments.squared_norm(g), _moments.real_part(v), b2)
            part_m = _tree.cast(ahead / (1 - momenta * ahead), m.dtype)
            part_g = _tree.cast((1 - now) / (1 - momenta), g.dtype)
            v_hat = v / _tree.cast(correction2, v.dtype)
            return _moments.adam_ratio(part_m * m + part_g * g, v_hat, eps, 0.0), m, v

        updates, mu, nu = _tree.map_leaves_with_state(leaf, updates, mu=state.mu, nu=state.nu)
        return updates, ScaleByNadamState(count, mu, nu, momenta)

    return optax.GradientTransformation(init, update)


def scale_by_adamax(
    b1: Number, b2: Number, eps: Number, eps_in_max: bool
) -> optax.GradientTransformation:
    """`optax.scale_by_adamax`, or with eps beside the largest gradient, as Keras has it."""
    if eps_in_max:
        return optax.scale_by_adamax(b1, b2, eps)
    _check.check_beta("b1", b1)
    _check.check_beta("b2", b2)

    def init(params: Params) -> optax.ScaleByAdamState:
        mu, nu = _tree.zeros_like(params, "mu", None), _tree.zeros_like(params, "nu", None)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), mu, nu)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.ScaleByAdamState]:
        del params
        _tree.check_state(state, "nu")
        count = optax.safe_increment(state.count)
        correction = _moments.bias_correction(b1, count)

        def leaf(g: jax.Array, m: jax.Array, n: jax.Array) -> tuple[jax.Array, ...]:
            m = _moments.moving_average(g, m, b1)
            n = jnp.maximum(_tree.like(b2, n) * n, jnp.abs(g))
            m_hat = m / _tree.cast(correction, m.dtype)
            return m_hat / (n + _tree.like(eps, n)), m, n

        updates, mu, nu = _tree.map_leaves_with_state(leaf, updates, mu=state.mu, nu=state.nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_rmsprop(
    decay: Number, eps: Number, eps_in_sqrt: bool, centered: bool
) -> optax.GradientTransformation:
    """Optax's two, by the argument that RMSprop has in other libraries."""
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return scale(decay, eps, eps_in_sqrt=eps_in_sqrt)
