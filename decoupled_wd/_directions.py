"""Steps of other libraries that Optax has not."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number, Params, Updates


class ScaleByNadamState(NamedTuple):
    """Adam's, and the product of the momenta so far, in place of a power of b1."""

    count: jax.typing.ArrayLike
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
        return ScaleByNadamState(
            jnp.zeros([], jnp.int32), mu, nu, jnp.ones([], _tree.default_float())
        )

    def momentum(count: Any) -> Any:
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
    """AdaMax with eps inside the maximum, as PyTorch and Optax have it, or beside it, as Keras has.

    `optax.scale_by_adamax` promotes dtypes silently.
    """

    def leaf(g: jax.Array, m: jax.Array, n: jax.Array, t: Any) -> tuple[jax.Array, ...]:
        m, size = _moments.moving_average(g, m, b1), jnp.abs(g)
        least = _tree.like(eps, size)
        n = jnp.maximum(
            _tree.like(b2, size) * _moments.real_part(n), size + least if eps_in_max else size
        )
        largest = n if eps_in_max else n + least
        return m / _correction(b1, t, m) / _tree.cast(largest, m.dtype), m, n

    return _with_two_moments(b1, b2, leaf)


def scale_by_adagrad(
    initial_accumulator_value: Number, eps: Number, eps_in_sqrt: bool
) -> optax.GradientTransformation:
    """`optax.scale_by_rss`, or with eps beside the root, as PyTorch has it."""
    if eps_in_sqrt:
        return optax.scale_by_rss(initial_accumulator_value, eps)

    def init(params: Params) -> optax.ScaleByRssState:
        return optax.ScaleByRssState(optax.tree.full_like(params, initial_accumulator_value))

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.ScaleByRssState]:
        del params
        _tree.check_state(state, "sum_of_squares")

        def leaf(g: jax.Array, total: jax.Array) -> tuple[jax.Array, ...]:
            total = _moments.real_part(total) + _moments.squared_norm(g)
            return _moments.adam_ratio(g, total, eps, 0.0), total

        updates, total = _tree.map_leaves_with_state(
            leaf, updates, sum_of_squares=state.sum_of_squares
        )
        return updates, optax.ScaleByRssState(total)

    return optax.GradientTransformation(init, update)


def _with_two_moments(
    b1: Number, b2: Number, leaf: Callable[..., tuple[jax.Array, ...]]
) -> optax.GradientTransformation:
    """Adam's state, by `leaf(g, m, v, t) -> (u, m, v)` at step t = 1, 2, ..."""
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
        t = optax.safe_increment(state.count)
        at_step = functools.partial(leaf, t=t)
        updates, mu, nu = _tree.map_leaves_with_state(at_step, updates, mu=state.mu, nu=state.nu)
        return updates, optax.ScaleByAdamState(t, mu, nu)

    return optax.GradientTransformation(init, update)


def _scale_by_moments(
    b1: Number,
    b2: Number,
    direction: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array],
) -> optax.GradientTransformation:
    """`direction(g, m, v, t)` of Adam's moments."""

    def leaf(g: jax.Array, m: jax.Array, v: jax.Array, t: Any) -> tuple[jax.Array, ...]:
        m = _moments.moving_average(g, m, b1)
        v = _moments.moving_average(_moments.squared_norm(g), _moments.real_part(v), b2)
        return direction(g, m, v, t), m, v

    return _with_two_moments(b1, b2, leaf)


def _correction(b: Number, t: Any, x: jax.Array) -> jax.Array:
    return _tree.cast(_moments.bias_correction(b, t), x.dtype)


def scale_by_nadamw(b1: Number, b2: Number, eps: Number) -> optax.GradientTransformation:
    """timm's NAdamW: m one step ahead, and both of its terms corrected alike."""

    def direction(g: jax.Array, m: jax.Array, v: jax.Array, t: Any) -> jax.Array:
        ahead = _moments.moving_average(g, m, b1) / _correction(b1, t, m)
        return _moments.adam_ratio(ahead, v / _correction(b2, t, v), eps, 0.0)

    return _scale_by_moments(b1, b2, direction)


def scale_by_floored_adam(b1: Number, b2: Number, eps: Number) -> optax.GradientTransformation:
    """HeavyBall's Adam: eps is the least that the root may be, and is not added to it."""

    def direction(g: jax.Array, m: jax.Array, v: jax.Array, t: Any) -> jax.Array:
        del g
        root = jnp.sqrt(v / _correction(b2, t, v))
        floored = jnp.maximum(root, _tree.like(eps, root))
        return m / _correction(b1, t, m) / _tree.cast(floored, m.dtype)

    return _scale_by_moments(b1, b2, direction)


def scale_by_radam(
    b1: Number, b2: Number, eps: Number, eps_placement: str
) -> optax.GradientTransformation:
    """RAdam, arXiv 1908.03265; Optax's has eps after the bias correction alone."""
    rho_inf = 2 / (1 - b2) - 1

    def direction(g: jax.Array, m: jax.Array, v: jax.Array, t: Any) -> jax.Array:
        del g
        m_hat, correction = m / _correction(b1, t, m), _moments.bias_correction(b2, t)
        rho = rho_inf - 2 * jnp.asarray(t, correction.dtype) * (1 - correction) / correction
        known = jnp.where(rho > 5, rho, 5.0)  # Below 4 the root may be imaginary.
        r = jnp.sqrt((known - 4) * (known - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * known))
        if eps_placement == "before":
            r, v_hat = r * jnp.sqrt(correction), v
        else:
            v_hat = v / _tree.cast(correction, v.dtype)
        adaptive = _tree.cast(r, m.dtype) * _moments.adam_ratio(m_hat, v_hat, eps, 0.0)
        return jnp.where(rho > 5, adaptive, m_hat)

    return _scale_by_moments(b1, b2, direction)


class ScaleByAdanState(NamedTuple):
    """Moments of the gradient, of its change, and of both squared; and the last gradient."""

    count: jax.typing.ArrayLike
    mu: Updates
    change: Updates
    nu: Updates
    gradient: Updates


def scale_by_adan(b1: Number, b2: Number, b3: Number, eps: Number) -> optax.GradientTransformation:
    """Adan, arXiv 2208.06677, Algorithm 1 with 1 - beta for each beta.

    `optax.scale_by_adan` multiplies the change by 1 - b2 where this, as the paper, does by b2.
    """
    for name, b in (("b1", b1), ("b2", b2), ("b3", b3)):
        _check.check_beta(name, b)

    def init(params: Params) -> ScaleByAdanState:
        zeros = (_tree.zeros_like(params, "mu", None) for _ in range(4))
        return ScaleByAdanState(jnp.zeros([], jnp.int32), *zeros)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdanState]:
        del params
        _tree.check_state(state, "change")
        t = optax.safe_increment(state.count)

        def leaf(
            g: jax.Array, m: jax.Array, v: jax.Array, n: jax.Array, before: jax.Array
        ) -> tuple[jax.Array, ...]:
            change = jnp.where(state.count == 0, jnp.zeros_like(g), g - before)
            m, v = _moments.moving_average(g, m, b1), _moments.moving_average(change, v, b2)
            squared = _moments.squared_norm(_moments.momentum(g, change, b2))
            n = _moments.moving_average(squared, _moments.real_part(n), b3)
            ahead = _moments.momentum(m / _correction(b1, t, m), v / _correction(b2, t, v), b2)
            return _moments.adam_ratio(ahead, n / _correction(b3, t, n), eps, 0.0), m, v, n, g

        updates, *of_state = _tree.map_leaves_with_state(
            leaf, updates, mu=state.mu, change=state.change, nu=state.nu, gradient=state.gradient
        )
        return updates, ScaleByAdanState(t, *of_state)

    return optax.GradientTransformation(init, update)
