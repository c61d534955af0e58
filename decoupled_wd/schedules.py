r"""Schedules: functions of the 0-based step count, closed forms in integer arithmetic.

The paper's $\eta_t$ multiplies learning rate and decay alike. The schedules without `weight_decay` in
their name are multipliers, with values between `eta_min` and `eta_max`; the learning rate stays a
number of its own. Those with it give the decay itself, for the argument `weight_decay`; so do Optax's
own (`optax.linear_schedule`, `optax.cosine_decay_schedule`), which are not repeated here. Steps before
0 count as 0, since `optax.join_schedules` asks for them.
"""

import functools
import operator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from decoupled_wd import _check, _tree, hyperparams
from decoupled_wd._typing import Number, NumberOrSchedule, Schedule

__all__ = [
    "cosine_warm_restarts_schedule",
    "normalized_weight_decay_schedule",
    "log_time_weight_decay_schedule",
    "cyclical_schedule",
]

CyclicalMode = Literal["triangular", "triangular2", "exp_range"]


def cosine_warm_restarts_schedule(
    period: Number,
    period_mult: Number = 1,
    *,
    eta_min: Number = 0.0,
    eta_max: Number = 1.0,
    warmup: Number = 0,
    peak_decay: Number = 1.0,
) -> Schedule:
    r"""Anneal by a half cosine, and start again; each cycle `period_mult` times as long.

    $$\eta_t = \eta_{min} + \tfrac12 (\eta_{max} p^i - \eta_{min})(1 + \cos(\pi T_{cur} / T_i)),
    \quad T_i = \text{period} \cdot \text{period\_mult}^i$$

    where $i$ counts the restarts so far and $T_{cur}$ the steps since the last. Both are found in
    integer arithmetic, so every restart falls on its step exactly, as long as steps fit their
    integer dtype (2^31 for int32), under `jit` and with traced arguments; the program is as long for
    a thousand cycles as for one.

    Args:
        period: $T_0$, length of the first cycle, in steps; an integer, 1 or more.
        period_mult: $T_{mult}$, growth of the cycles; an integer, 1 or more.
        eta_min: value that each cycle falls to; 0 or more.
        eta_max: value that the first cycle starts from; 0 or more.
        warmup: steps of linear warm-up before the first cycle, which it shifts: step t has
            `eta_max * (t + 1) / warmup`. It happens once.
        peak_decay: $p$, what `eta_max` is multiplied by at each restart; 0 or more.

    Returns:
        A function of the integer step (scalar or array), with values in the default float dtype. Steps
        before 0 count as 0.

    Raises:
        TypeError: a period or step that is not an integer, a callable where a number is meant.
        ValueError: a period or multiplier below 1, a negative value elsewhere, an `eta_min` above
            `eta_max` unless `peak_decay` raises that.

    Example:
        >>> import decoupled_wd as dwd
        >>> schedule = dwd.cosine_warm_restarts_schedule(2, 2)  # cycles of 2, 4, 8, ... steps
        >>> [round(float(schedule(step)), 3) for step in range(7)]
        [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]

    Source: Loshchilov and Hutter, "SGDR", arXiv 1608.03983; "Decoupled Weight Decay
    Regularization", arXiv 1711.05101, appendix B.2.
    """
    _check.check_integer("period", period, minimum=1)
    _check.check_integer("period_mult", period_mult, minimum=1)
    _check.check_integer("warmup", warmup, minimum=0)
    _check.check_number("eta_min", eta_min, minimum=0.0)
    _check.check_number("eta_max", eta_max, minimum=0.0)
    _check.check_number("peak_decay", peak_decay, minimum=0.0)
    growth = _check.concrete(peak_decay)
    if growth is not None and growth <= 1:
        _check_range(eta_min, eta_max)

    def schedule(step: jax.Array) -> jax.Array:
        count = _integer_step(step)
        shift = jnp.asarray(warmup, count.dtype)
        cycle = _restart_cycle(jnp.maximum(count - shift, 0), period, period_mult)
        low, high, decay = (_float(x) for x in (eta_min, eta_max, peak_decay))
        peak = high * jnp.power(decay, _float(cycle.index))
        annealed = _between(low, peak, 0.5 * (1 + jnp.cos(jnp.pi * cycle.progress)))
        warm = high * (_float(count) + 1) / _float(jnp.maximum(shift, 1))
        return jnp.where(count < shift, warm, annealed)

    return schedule


def normalized_weight_decay_schedule(
    normalized_weight_decay: Number,
    *,
    batch_size: Number,
    dataset_size: Number,
    period: Number,
    period_mult: Number = 1,
    warmup: Number = 0,
) -> Schedule:
    r"""Give the decay of the restart cycle that a step is in: the longer the cycle, the smaller.

    $$\lambda = \lambda_{norm} \sqrt{\frac{b}{B T_i}}$$

    for batch size b, B training points, and a cycle of $T_i$ epochs. The result is the paper's
    decay, per step at multiplier 1.

    Args:
        normalized_weight_decay: $\lambda_{norm}$, the decay if one batch were all there is; 0 or
            more. The paper found 0.025 to 0.05 best.
        batch_size: b, an integer.
        dataset_size: B, an integer.
        period: $T_0$ in epochs of ceil(B / b) steps; an integer, 1 or more.
        period_mult: $T_{mult}$; an integer, 1 or more.
        warmup: epochs before the first cycle; they have its decay.

    Returns:
        A function of the integer step, with values in the default float dtype. Steps before 0
        count as 0.

    Raises:
        TypeError: a size or period that is not an integer, a callable where a number is meant.
        ValueError: a size, period or multiplier below 1, a negative decay.

    Example:
        >>> import decoupled_wd as dwd
        >>> schedule = dwd.normalized_weight_decay_schedule(
        ...     0.1, batch_size=1, dataset_size=4, period=1, period_mult=4)
        >>> [round(float(schedule(step)), 4) for step in (0, 3, 4, 19)]  # 0.1/2, then 0.1/4
        [0.05, 0.05, 0.025, 0.025]

    Source: arXiv 1711.05101, appendix B.1.
    """
    _check.check_number("normalized_weight_decay", normalized_weight_decay, minimum=0.0)
    _check.check_integer("period", period, minimum=1)
    _check.check_integer("period_mult", period_mult, minimum=1)
    _check.check_integer("warmup", warmup, minimum=0)
    epoch = hyperparams.steps_per_epoch(batch_size, dataset_size)
    first, shift = (_check.as_integer(x) * epoch for x in (period, warmup))
    _check.check_integer("period", first, minimum=1)
    _check.check_integer("warmup", shift, minimum=0)

    def schedule(step: jax.Array) -> jax.Array:
        count = _integer_step(step)
        cycle_step = jnp.maximum(count - jnp.asarray(shift, count.dtype), 0)
        cycle = _restart_cycle(cycle_step, first, period_mult)
        epochs = cycle.length / _float(epoch)
        lam = _float(normalized_weight_decay)
        return jnp.asarray(hyperparams.decay_of_budget(lam, batch_size, dataset_size, epochs))

    return schedule


def log_time_weight_decay_schedule(weight_decay: Number, timescale: Number) -> Schedule:
    r"""Let the decay fall as one over the time since the start: the same in each octave of time.

    $$\lambda_t = \frac{\lambda}{1 + t / \tau}$$

    What the steps from t to 2t remove together does not depend on t, once t is large: the weights
    remember a part of the run so far, and not a number of steps.

    Args:
        weight_decay: $\lambda$, the decay at step 0, in the unit of the place that the schedule is
            passed to; per step at multiplier 1 under `coupling="schedule"`, where the step's decay is
            $\eta_t \lambda_t$. 0 or more.
        timescale: $\tau$, the steps after which half of the decay is left; positive.

    Returns:
        A function of the integer step (scalar or array), with values in the default float dtype. Steps
        before 0 count as 0.

    Raises:
        TypeError: a step that is not an integer, a callable where a number is meant.
        ValueError: a negative decay, a timescale of 0 or less.

    Example:
        >>> import decoupled_wd as dwd
        >>> schedule = dwd.log_time_weight_decay_schedule(0.5, 100)
        >>> [float(schedule(step)) for step in (0, 100, 300)]
        [0.5, 0.25, 0.125]

    Source: Ferbach et al., arXiv 2602.05298 (ADANA), with `coupling="schedule"`. Read in its abstract
    and in code of a third party.
    """
    _check.check_number("weight_decay", weight_decay, minimum=0.0)
    _check.check_positive("timescale", timescale)

    def schedule(step: jax.Array) -> jax.Array:
        t = _float(_integer_step(step))
        return _float(weight_decay) / (1 + t / _float(timescale))

    return schedule


def cyclical_schedule(
    step_size: Number,
    *,
    mode: CyclicalMode = "triangular",
    eta_min: Number = 0.0,
    eta_max: Number = 1.0,
    gamma: Number | None = None,
) -> Schedule:
    r"""Rise from `eta_min` to `eta_max` and fall back, each over `step_size` steps, for ever.

    $$\eta_t = \eta_{min} + (\eta_{max} - \eta_{min}) \, h_t \, k_t, \quad
    h_t = 1 - \left| t / s - 2 c - 1 \right|, \quad c = \lfloor t / 2s \rfloor$$

    with $k_t = 1$ (`"triangular"`), $2^{-c}$ (`"triangular2"`), or $\gamma^t$ (`"exp_range"`).

    Args:
        step_size: s, half a cycle, in steps; an integer, 1 or more. Smith advises 2 to 8 epochs.
        mode: how the peaks change from cycle to cycle.
        eta_min: lowest value; 0 or more.
        eta_max: highest value; 0 or more.
        gamma: decay of the peaks per step, in (0, 1]; for `"exp_range"`, and only there.

    Returns:
        A function of the integer step (scalar or array), with values in the default float dtype. Steps
        before 0 count as 0.

    Raises:
        TypeError: a step size that is not an integer, a callable where a number is meant.
        ValueError: a step size below 1, `eta_min` above `eta_max`, an unknown mode, a `gamma`
            missing or out of place.

    Example:
        >>> import decoupled_wd as dwd
        >>> schedule = dwd.cyclical_schedule(2, mode="triangular2")
        >>> [float(schedule(step)) for step in range(8)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv 1506.01186.
    """
    _check.check_integer("step_size", step_size, minimum=1)
    _check.check_option("mode", mode, ("triangular", "triangular2", "exp_range"))
    _check.check_number("eta_min", eta_min, minimum=0.0)
    _check.check_number("eta_max", eta_max, minimum=0.0)
    _check_range(eta_min, eta_max)
    if (mode == "exp_range") != (gamma is not None):
        raise ValueError(
            f"`gamma` is {gamma} and `mode` is {mode!r}: 'exp_range' needs a `gamma` in (0, 1], "
            "and the other modes use none."
        )
    decay = 1.0 if gamma is None else gamma
    _check.check_number("gamma", decay, minimum=0.0)
    known = _check.concrete(decay)
    if known is not None and not 0 < known <= 1:
        raise ValueError(f"`gamma` is {gamma}, and a number in (0, 1] is needed.")

    def schedule(step: jax.Array) -> jax.Array:
        count = _integer_step(step)
        half = jnp.asarray(step_size, count.dtype)
        cycle = count // half // 2
        from_peak = jnp.abs(count - (2 * cycle * half) - half)
        height = _float(half - from_peak) / _float(half)
        if mode == "triangular2":
            height = jnp.ldexp(height, -cycle)
        elif mode == "exp_range":
            height = height * jnp.power(_float(decay), _float(count))
        return _between(_float(eta_min), _float(eta_max), height)

    return schedule


def product(**factors: NumberOrSchedule | None) -> Schedule:
    """Multiply numbers and schedules, given by name, into one schedule; None counts as 1."""

    def schedule(step: jax.Array) -> jax.Array:
        values = [_tree.scalar(name, x, step) for name, x in factors.items() if x is not None]
        return functools.reduce(operator.mul, values)

    return schedule


def _check_range(eta_min: Number, eta_max: Number) -> None:
    low, high = _check.concrete(eta_min), _check.concrete(eta_max)
    if low is not None and high is not None and low > high:
        raise ValueError(
            f"`eta_min` is {eta_min} and `eta_max` is {eta_max}, and `eta_min` must not be above "
            "`eta_max`: pass the smaller number as `eta_min`."
        )


class _Cycle(NamedTuple):
    index: jax.Array  # restarts so far, integer
    length: jax.Array  # steps of this cycle, float: it may exceed the integers
    progress: jax.Array  # the part of it that is over, in [0, 1)


def _restart_cycle(step: jax.Array, period: Number, period_mult: Number) -> _Cycle:
    """Locate `step` among cycles of period, period * period_mult, period * period_mult^2, ... steps.

    Cycle i starts at period * S_i, where S_i = (period_mult^i - 1) / (period_mult - 1), so i is the
    largest with S_i <= n = step // period. A float logarithm guesses it to within one, which is not
    good enough; so one is taken off the guess, and integers put back what is too little: S_{i+1} =
    period_mult * S_i + 1 <= n just when S_i <= (n - 1) // period_mult, which cannot overflow, nor
    can a power that is below S_i.
    """
    period = jnp.asarray(period, step.dtype)
    period_mult = jnp.asarray(period_mult, step.dtype)
    n = jax.lax.div(step, period)
    grown = jnp.maximum(period_mult, 2)  # Division by zero is no answer where all cycles are alike.
    guess = jnp.log(_float(n) * _float(grown - 1) + 1) / jnp.log(_float(grown))
    index = jnp.maximum(guess.astype(step.dtype) - 1, 0)
    power = _integer_power(grown, index)
    start = jax.lax.div(power - 1, grown - 1)
    length = _float(period) * _float(power)
    last = (n - 1) // grown
    for _ in range(2):
        begun = start <= last
        start = jnp.where(begun, grown * start + 1, start)
        length = jnp.where(begun, _float(grown) * length, length)
        index = index + begun.astype(step.dtype)
    alike = period_mult == 1
    index = jnp.where(alike, n, index)
    start = jnp.where(alike, n, start)
    length = jnp.where(alike, _float(period), length)
    return _Cycle(index, length, _float(step - period * start) / length)


def _integer_power(base: jax.Array, exponent: jax.Array) -> jax.Array:
    """base^exponent by repeated squaring, for a result that fits: exponents below 64."""
    power = jnp.ones_like(exponent)
    for bit in range(jnp.iinfo(exponent.dtype).bits.bit_length() - 1):
        power = jnp.where(exponent & (1 << bit), power * base, power)
        base = base * base
    return power


def _integer_step(step: jax.Array) -> jax.Array:
    """`step` as a signed integer array, and 0 for what is before it.

    `optax.join_schedules` asks all its schedules about every step, counted from where each begins,
    and throws away what is before; so a negative step gets an answer and no error.
    """
    widest = jax.dtypes.canonicalize_dtype(jnp.int64)
    last = jnp.iinfo(widest).max
    if not isinstance(step, Tracer) and np.max(np.asarray(step), initial=0) > last:
        raise ValueError(
            f"the step is {step}, and at most {last} is needed: steps are counted in {widest}."
        )
    count = jnp.asarray(step)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        raise TypeError(
            f"the step is {step!r}, and an integer is needed: count whole steps, not epochs."
        )
    wide = jnp.iinfo(count.dtype).max > jnp.iinfo(jnp.int32).max
    return jnp.maximum(count.astype(widest if wide else jnp.int32), 0)


def _float(x: Number) -> jax.Array:
    return jnp.asarray(x, _tree.default_float())


def _between(low: jax.Array, high: jax.Array, part: jax.Array) -> jax.Array:
    # Not low + part * (high - low): that misses `high` by a rounding at part = 1.
    return high * part + low * (1 - part)
