"""Adaptive scaling: Adam and AMSGrad, with Optax's states, and multiplication by a schedule."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _check, _moments, _rounding, _tree
from decoupled_wd._precision import warn_of_narrow_moments
from decoupled_wd._typing import DType, Number, NumberOrSchedule, Params, Updates

EpsPlacement = Literal["after", "before"]
AMSGradVariant = Literal["paper", "pytorch", "optax", "keras"]
MomentRounding = Literal["stochastic"]

# Squares of the numbers between fit float32, and so do parts 1 - b2 of them, down to 2**-26.
_LARGEST, _SMALLEST = 2.0**63, 2.0**-50
_TO_NEAREST = ("updates", "nu_max")
"""A maximum that is rounded at random climbs to the upper neighbour, and stays there."""


def _check_moments(b1: Number, b2: Number, eps: Number, eps_root: Number) -> None:
    _check.check_beta("b1", b1)
    _check.check_beta("b2", b2)
    _check.check_number("eps", eps, minimum=0.0)
    _check.check_number("eps_root", eps_root, minimum=0.0)


def _check_moment_rounding(rounding: MomentRounding | None) -> None:
    if rounding is not None:
        _check.check_option("moment_rounding", rounding, ("stochastic",))


def _has_room_for_squares(dtype: Any) -> bool:
    return float(jnp.finfo(dtype).max) > _LARGEST**2


def _nu_dtype(nu_dtype: DType) -> Any:
    """The dtype that is meant, or None."""
    dtype = _check.canonical_dtype("nu_dtype", nu_dtype)
    if dtype is not None and not _has_room_for_squares(dtype):
        most = float(jnp.finfo(dtype).max)
        raise ValueError(
            f"`nu_dtype` is {dtype}, which ends at {most:g}, and squares of gradients soon are larger, "
            "or too small for it. Pass 'bfloat16', which has the range of float32, or 'float32'."
        )
    return dtype


def _zero_squares(params: Params, dtype: Any) -> Any:
    """Zeros for second moments: in float32 where the parameters' dtype has no room for squares."""

    def wide(x: jax.Array) -> jax.Array:
        narrow = _check.is_narrow(x.dtype) and not _has_room_for_squares(x.dtype)
        return _tree.widen(x) if narrow else x

    return jax.tree.map(wide, _tree.zeros_like(params, "nu_dtype", dtype))


def _map_moments(
    leaf: Callable[..., tuple[Any, ...]],
    updates: Updates,
    count: jax.Array,
    rounding: MomentRounding | None,
    **moments: Any,
) -> tuple[Any, ...]:
    """Apply `leaf(is_16_bits, update, *moments) -> (update, *moments)` to every array.

    All keep their dtypes; moments of 16 bits are rounded stochastically or to nearest.
    """
    paths = _tree.paths(updates) if rounding else []

    def stored(x: jax.Array, dtype: Any, name: str, index: int) -> jax.Array:
        if not (rounding and _check.is_narrow(dtype)) or name in _TO_NEAREST:
            return _tree.cast(x, dtype)
        bits = _rounding.random_bits(0, count, f"{name}:{paths[index]}", x.shape)
        return _rounding.round_stochastically(_tree.cast(x, jnp.float32), dtype, bits)

    def column(index: int, arrays: tuple[Any, ...]) -> list[jax.Array]:
        dtypes = [jnp.result_type(x) for x in arrays]
        narrow, wide = any(map(_check.is_narrow, dtypes)), [_tree.widen(x) for x in arrays]
        new = leaf(narrow, *wide)
        if narrow:  # What is finite stays finite. Each by itself: a predicate that several results
            # share, XLA computes in a pass of its own.
            largest = [float(jnp.finfo(dtype).max) for dtype in dtypes]
            new = [
                _tree.cut(x, most, jnp.isfinite(x)) for x, most in zip(new, largest, strict=True)
            ]
        named = zip(new, dtypes, ("updates", *moments), strict=True)
        return [stored(x, dtype, name, index) for x, dtype, name in named]

    return _tree.map_columns(column, updates, **moments)


def _with_room(narrow: bool, g: jax.Array, eps: Number) -> tuple[jax.Array, Any]:
    """Gradient and eps such that no square of a 16-bit leaf leaves the range of float32.

    Leaves of 32 bits are Optax's to the last bit, there too.
    """
    if not narrow:
        return g, eps
    return _tree.cut(g, _LARGEST, jnp.isfinite(g)), jnp.maximum(_moments.like(eps, g), _SMALLEST)


def scale_by_adam(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType = None,
    eps_placement: EpsPlacement = "after",
    moment_rounding: MomentRounding | None = None,
) -> optax.GradientTransformation:
    r"""Divide bias-corrected first moments by the root of second moments, as Adam does.

    $$m \leftarrow b_1 m + (1-b_1) g, \quad v \leftarrow b_2 v + (1-b_2) |g|^2, \quad
    u = \frac{m / (1-b_1^t)}{\sqrt{v / (1-b_2^t) + \text{eps\_root}} + \text{eps}}$$

    It is `optax.scale_by_adam` to the last bit in float32 and adds `nu_dtype` and `eps_placement`.
    No decay happens here: what is added to the gradient before it is divided with it, and what is
    added after it is not. That is the difference between L2 regularization and weight decay.

    Args:
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added to the root, in units of the gradient; 0 or more.
        eps_root: added inside the root, in units of the squared gradient; 0 or more.
        mu_dtype: dtype of the stored first moment; the parameters' if None.
        nesterov: look ahead by one step of the first moment (Dozat 2016), as in Optax.
        nu_dtype: dtype of the stored second moment, not float16, which has no room for squares; the
            parameters' if None, and float32 for those of float16.
        eps_placement: `"after"` adds `eps` to the bias-corrected root (the paper's Algorithm 2,
            PyTorch, Optax); `"before"` adds it to $\sqrt{v + \text{eps\_root}}$, and then corrects:
            Kingma's eps-hat (TensorFlow, Keras, the paper's Lua code), a larger eps in the first steps.
        moment_rounding: `"stochastic"` rounds moments of 16 bits at random, right on average; None
            to nearest, and then what moves them by less than half a unit in the last place is lost.

    Returns:
        A transformation with state `optax.ScaleByAdamState(count, mu, nu)`, 8 bytes a float32
        parameter. It gives back the dtype of the updates and does not read `params`. Where
        something has 16 bits, a gradient beyond 2**63 counts as that, and eps is 2**-50 or more:
        squares then stay in the range of float32, and steps finite.

    Raises:
        TypeError: a callable or a 16-bit array where a number is meant, a dtype that is none, a
            complex one for real parameters.
        ValueError: a beta outside [0, 1), a negative eps, an unknown `eps_placement`.

    Example:
        The first step has size 1 whatever the gradient:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> adam = dwd.scale_by_adam(eps=0.0)
        >>> g = jnp.array([0.5, -8.0])
        >>> u, state = adam.update(g, adam.init(g))
        >>> [round(float(x), 3) for x in u]
        [1.0, -1.0]

    Source: Kingma and Ba, "Adam", arXiv 1412.6980, Algorithm 1.
    """
    _check_moments(b1, b2, eps, eps_root)
    _check.check_bool("nesterov", nesterov)
    _check.check_option("eps_placement", eps_placement, ("after", "before"))
    _check_moment_rounding(moment_rounding)
    mu_dtype = _check.canonical_dtype("mu_dtype", mu_dtype)
    nu_dtype = _nu_dtype(nu_dtype)

    def init(params: Params) -> optax.ScaleByAdamState:
        mu = _tree.zeros_like(params, "mu_dtype", mu_dtype)
        nu = _zero_squares(params, nu_dtype)
        if moment_rounding is None:
            warn_of_narrow_moments(mu=mu, nu=nu)
        return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.ScaleByAdamState]:
        del params
        _tree.check_state(state, "nu")
        count = optax.safe_increment(state.count)
        correction1 = _moments.bias_correction(b1, count)
        correction2 = _moments.bias_correction(b2, count)
        correction1_ahead = correction1
        if nesterov:
            correction1_ahead = _moments.bias_correction(b1, optax.safe_increment(count))

        def leaf(narrow: bool, g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            g, eps_here = _with_room(narrow, g, eps)
            m = _moments.moving_average(g, m, b1)
            v = _moments.moving_average(_moments.squared_norm(g), _moments.real_part(v), b2)
            if nesterov:
                ahead = m / _tree.cast(correction1_ahead, m.dtype)
                m_hat = _moments.nesterov_average(g / _tree.cast(correction1, g.dtype), ahead, b1)
            else:
                m_hat = m / _tree.cast(correction1, m.dtype)
            if eps_placement == "after":
                v_hat = v / _tree.cast(correction2, v.dtype)
                u = _moments.adam_ratio(m_hat, v_hat, eps_here, eps_root)
            else:
                root = _tree.cast(jnp.sqrt(correction2), m.dtype)
                u = root * _moments.adam_ratio(m_hat, v, eps_here, eps_root)
            return u, m, v

        updates, mu, nu = _map_moments(
            leaf, updates, state.count, moment_rounding, mu=state.mu, nu=state.nu
        )
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def scale_by_amsgrad(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    *,
    variant: AMSGradVariant = "optax",
    nu_dtype: DType = None,
    moment_rounding: MomentRounding | None = None,
) -> optax.GradientTransformation:
    r"""Divide first moments by the root of the largest second moment so far, as AMSGrad does.

    With $m$ and $v$ as in `scale_by_adam`, and $\hat v_{max}$ elementwise the largest so far:

    | variant | maximum over | direction |
    |---|---|---|
    | `"paper"` | $v$ | $m / (\sqrt{v_{max}} + \text{eps})$, no bias correction |
    | `"pytorch"` | $v$ | $\hat m / (\sqrt{v_{max} / (1-b_2^t)} + \text{eps})$ |
    | `"optax"` | $v / (1-b_2^t)$ | $\hat m / (\sqrt{\hat v_{max}} + \text{eps})$ |
    | `"keras"` | $v$ | $\sqrt{1-b_2^t} \, \hat m / (\sqrt{v_{max}} + \text{eps})$ |

    `"keras"` is `"pytorch"` with the eps before the correction. The first three differ: after a
    spike in the gradient, `"optax"` remembers it longer than `"pytorch"`, and `"paper"` starts with
    steps of $(1-b_1)/\sqrt{1-b_2}$, 3.16 for the default betas.

    Args:
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added to the root, in units of the gradient; 0 or more.
        eps_root: added inside the root, in units of the squared gradient; 0 or more.
        mu_dtype: dtype of the stored first moment; the parameters' if None.
        variant: which of the four.
        nu_dtype: dtype of the stored second moment and of its maximum, not float16; the parameters'
            if None, and float32 for those of float16.
        moment_rounding: as in `scale_by_adam`; the maximum is rounded to nearest, or it would climb
            to the upper of the two neighbours and stay there.

    Returns:
        A transformation with state `optax.ScaleByAmsgradState(count, mu, nu, nu_max)`, 12 bytes a
        float32 parameter. It gives back the dtype of the updates and does not read `params`.

    Raises:
        TypeError: a callable or a 16-bit array where a number is meant, a dtype that is none, a
            complex one for real parameters.
        ValueError: a beta outside [0, 1), a negative eps, an unknown variant.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> g = jnp.array([4.0])
        >>> for variant in ("paper", "pytorch", "optax", "keras"):
        ...     amsgrad = dwd.scale_by_amsgrad(b1=0.5, b2=0.75, eps=0.0, variant=variant)
        ...     print(variant, float(amsgrad.update(g, amsgrad.init(g))[0][0]))
        paper 1.0
        pytorch 1.0
        optax 1.0
        keras 1.0
        >>> amsgrad = dwd.scale_by_amsgrad(b1=0.0, b2=0.75, eps=0.0, variant="paper")
        >>> float(amsgrad.update(g, amsgrad.init(g))[0][0])  # 1 / sqrt(1 - b2)
        2.0

    Source: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv 1904.09237,
    Algorithm 2 (`"paper"`); `torch.optim.Adam(amsgrad=True)`; `optax.scale_by_amsgrad`;
    `keras.optimizers.Adam(amsgrad=True)`.
    """
    _check_moments(b1, b2, eps, eps_root)
    _check.check_option("variant", variant, ("paper", "pytorch", "optax", "keras"))
    _check_moment_rounding(moment_rounding)
    mu_dtype = _check.canonical_dtype("mu_dtype", mu_dtype)
    nu_dtype = _nu_dtype(nu_dtype)

    def init(params: Params) -> optax.ScaleByAmsgradState:
        mu = _tree.zeros_like(params, "mu_dtype", mu_dtype)
        nu = _zero_squares(params, nu_dtype)
        if moment_rounding is None:
            warn_of_narrow_moments(mu=mu, nu=nu)
        # A buffer of its own: one buffer for nu and nu_max could not be donated.
        nu_max = _zero_squares(params, nu_dtype)
        return optax.ScaleByAmsgradState(jnp.zeros([], jnp.int32), mu, nu, nu_max)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.ScaleByAmsgradState]:
        del params
        _tree.check_state(state, "nu_max")
        count = optax.safe_increment(state.count)
        correction1 = _moments.bias_correction(b1, count)
        correction2 = _moments.bias_correction(b2, count)

        def leaf(
            narrow: bool, g: jax.Array, m: jax.Array, v: jax.Array, v_max: jax.Array
        ) -> tuple[jax.Array, ...]:
            g, eps_here = _with_room(narrow, g, eps)
            m = _moments.moving_average(g, m, b1)
            v = _moments.moving_average(_moments.squared_norm(g), _moments.real_part(v), b2)
            v_max = _tree.cast(_moments.real_part(v_max), v.dtype)
            m_hat = m / _tree.cast(correction1, m.dtype)
            correction = _tree.cast(correction2, v.dtype)
            if variant == "paper":
                m_hat = m
                v_max = v_hat = jnp.maximum(v_max, v)
            elif variant == "pytorch":
                v_max = jnp.maximum(v_max, v)
                v_hat = v_max / correction
            elif variant == "keras":
                m_hat = m_hat * _tree.cast(jnp.sqrt(correction2), m.dtype)
                v_max = v_hat = jnp.maximum(v_max, v)
            else:
                v_max = v_hat = jnp.maximum(v_max, v / correction)
            return _moments.adam_ratio(m_hat, v_hat, eps_here, eps_root), m, v, v_max

        moments = {"mu": state.mu, "nu": state.nu, "nu_max": state.nu_max}
        updates, mu, nu, nu_max = _map_moments(
            leaf, updates, state.count, moment_rounding, **moments
        )
        return updates, optax.ScaleByAmsgradState(count, mu, nu, nu_max)

    return optax.GradientTransformation(init, update)


def scale_by_lion(
    b1: Number,
    b2: Number,
    mu_dtype: DType,
    moment_rounding: MomentRounding | None = None,
) -> optax.GradientTransformation:
    """`optax.scale_by_lion` that leaves absent leaves' momentum alone, in float32 arithmetic."""
    _check.check_beta("b1", b1)
    _check.check_beta("b2", b2)
    mu_dtype = _check.canonical_dtype("mu_dtype", mu_dtype)

    def init(params: Params) -> optax.ScaleByLionState:
        mu = _tree.zeros_like(params, "mu_dtype", mu_dtype)
        if moment_rounding is None:
            warn_of_narrow_moments(mu=mu)
        return optax.ScaleByLionState(count=jnp.zeros([], jnp.int32), mu=mu)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.ScaleByLionState]:
        del params
        _tree.check_state(state, "mu")

        def leaf(narrow: bool, g: jax.Array, m: jax.Array) -> tuple[jax.Array, ...]:
            del narrow
            direction = jnp.sign(_moments.moving_average(g, m, b1))
            return direction, _moments.moving_average(g, m, b2)

        updates, mu = _map_moments(leaf, updates, state.count, moment_rounding, mu=state.mu)
        return updates, optax.ScaleByLionState(count=optax.safe_increment(state.count), mu=mu)

    return optax.GradientTransformation(init, update)


class CountedTraceState(NamedTuple):
    """Optax's, and the count that stochastic rounding draws by."""

    count: jax.typing.ArrayLike
    trace: Updates


def trace(
    decay: Number,
    nesterov: bool,
    accumulator_dtype: DType,
    moment_rounding: MomentRounding | None = None,
) -> optax.GradientTransformation:
    """`optax.trace` that leaves absent leaves' momentum alone, in float32 arithmetic."""
    _check.check_beta("momentum", decay)
    accumulator_dtype = _check.canonical_dtype("accumulator_dtype", accumulator_dtype)

    def init(params: Params) -> optax.TraceState | CountedTraceState:
        zeros = _tree.zeros_like(params, "accumulator_dtype", accumulator_dtype)
        if moment_rounding is None:
            return optax.TraceState(zeros)
        return CountedTraceState(jnp.zeros([], jnp.int32), zeros)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.TraceState | CountedTraceState]:
        del params
        _tree.check_state(state, "trace")

        def leaf(narrow: bool, g: jax.Array, m: jax.Array) -> tuple[jax.Array, ...]:
            g, _ = _with_room(narrow, g, 0.0)
            m = _moments.momentum(g, m, decay)
            return _moments.momentum(g, m, decay) if nesterov else m, m

        count = jnp.zeros([], jnp.int32) if moment_rounding is None else state.count
        updates, buffer = _map_moments(leaf, updates, count, moment_rounding, trace=state.trace)
        if moment_rounding is None:
            return updates, optax.TraceState(buffer)
        return updates, CountedTraceState(optax.safe_increment(count), buffer)

    return optax.GradientTransformation(init, update)


def scale_by_schedule(schedule: NumberOrSchedule | None) -> optax.GradientTransformation:
    r"""Multiply the updates by a number or by a schedule of the step.

    $$u \leftarrow s_t u$$

    These are the $\times\alpha$ and the $\times\eta_t$ of the chain. Unlike `optax.scale_by_schedule`
    it takes a number as well, with the same state, so that a checkpoint survives the change from one
    to the other; and it multiplies 16-bit updates in float32, where Optax rounds the multiplier to
    16 bits first, and what would overflow becomes the largest number.

    Args:
        schedule: a real number, traced or not, or a callable of the 0-based step count; None is 1.

    Returns:
        A transformation with state `optax.ScaleByScheduleState(count)`. It gives back the dtype of
        the updates and does not read `params`.

    Raises:
        TypeError: neither a number nor a callable, or a 16-bit number.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> halve = dwd.scale_by_schedule(lambda step: 0.5**step)
        >>> u = jnp.array([8.0])
        >>> state = halve.init(u)
        >>> for _ in range(3):
        ...     scaled, state = halve.update(u, state)
        ...     print(float(scaled[0]))
        8.0
        4.0
        2.0
    """
    multiplier = 1.0 if schedule is None else schedule
    _check.check_number_or_schedule("schedule", multiplier)

    def init(params: Params) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, optax.ScaleByScheduleState]:
        del params
        _tree.check_state(state, "count")
        value = _tree.scalar("schedule", multiplier, state.count, minimum=-math.inf)
        updates = _tree.map_leaves(lambda u: u * _tree.cast(value, u.dtype), updates)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
