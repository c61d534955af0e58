"""Decoupled decay for any Optax optimizer."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core

from decoupled_wd import _check
from decoupled_wd._add_penalty import Axes
from decoupled_wd._alias import finished, warning_of_lost_decay
from decoupled_wd._decoupled import decay_finished_step
from decoupled_wd._informed import informed_chain
from decoupled_wd._penalty import L2, Penalty, Tracking
from decoupled_wd._precision import in_float32
from decoupled_wd._rate import (
    COUPLINGS,
    Coupling,
    check_decay,
    check_step,
    decay_per_step,
)
from decoupled_wd._typing import Mask, NumberOrSchedule, Params, Rounding, Updates
from decoupled_wd.gates import Gate
from decoupled_wd.strengths import Strength

# By the name of the state: the wrappers that the decay must stand inside of, and what goes wrong.
_OUTSIDE = {
    "ScheduleFreeState": "a schedule-free wrapper averages its iterates, and decay outside it acts "
    "on the average: extend the optimizer inside, and wrap the result",
    "MultiStepsState": "decay outside optax.MultiSteps acts on every micro-step: extend the "
    "optimizer inside, and wrap the result",
    "ApplyIfFiniteState": "decay outside optax.apply_if_finite acts on skipped steps too: extend "
    "the optimizer inside, and wrap the result",
}
# By the name of the state: optimizers that find their own step size.
_LEARNED_STEP = (
    "COCOBState", "DAdaptAdamWState", "DoGState", "DoWGState", "MechanicState", "MomoAdamState",
    "MomoState", "ProdigyState", "ReduceLROnPlateauState", "ScaleByBacktrackingLinesearchState",
    "ScaleByZoomLinesearchState",
)  # fmt: skip

_STEPS = 3  # A warm-up begins with a rate of 0.
_LOOPS = {"cond", "scan", "while"}
_EXAMPLE = {"kernel": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}


def extend_with_decoupled_weight_decay(
    tx: optax.GradientTransformation,
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    coupling: Coupling = "schedule",
    learning_rate: NumberOrSchedule | None = None,
    schedule: NumberOrSchedule | None = None,
    penalty: Penalty | Tracking = L2,
    toward: Any = None,
    gate: Gate | None = None,
    strength: Strength | None = None,
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Extend a finished Optax optimizer with decoupled weight decay.

    $$u \leftarrow u - d_t s \, \partial\Omega(\theta - \theta_{ref})$$

    which is $u - d_t \theta$ with nothing else given, where $d_t$ is $\eta_t \lambda$ under
    `"schedule"`, $\alpha \eta_t \lambda$ under `"learning_rate"`, $\lambda$ under `"none"`, $\alpha
    \eta_t^2 \lambda$ under `"corrected"`. `tx` has its sign and its learning rate inside; what is
    given here scales the decay alone. Under `"schedule"` pass the schedule of `tx`, divided by its
    peak, to have the paper's decay.

    Args:
        tx: an optimizer as `optax.adam(1e-3)` makes it.
        weight_decay: lambda, in the unit that `coupling` gives it; 0 or more; a number, traced or
            not, or a callable of the step.
        mask: which leaves decay; a tree of bools or multipliers, a prefix, a function, or rules, as
            in `adamw`.
        coupling: what the decay is per; see `adamw`.
        learning_rate: alpha, which `"learning_rate"` and `"corrected"` need and only they use.
        schedule: eta_t, for all but `"none"`.
        penalty: of what; see `decoupled_weight_decay`.
        toward: towards where; see there.
        gate: when; see there. `gates.cautious()` looks at the step of `tx`.
        strength: s, by which rule; see there. It is told the gradient and the moments of `tx`, as by
            `informed_chain`.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `adamw`. `tx` then sees
            float32 copies of them, and its moments are float32.

    Returns:
        A finished optimizer, whose decay has the state of place D: the decay per step.

    Raises:
        TypeError: `tx` is not an Optax transformation, or a number is not one.
        ValueError: `tx` ascends, or decays or constrains the weights already, or is a wrapper that
            the decay belongs inside of, or finds its own step size and the coupling needs one, or a
            step would remove all of a weight; at `init` where only then it shows. Decay is looked
            for in the first three steps: it is not seen where those have a rate of 0, in
            `optax.contrib.mechanize`, whose first steps are below rounding, in a `tx` built from
            traced numbers, and under a mask that looks at the size of leaves. Ascent is looked for
            at construction alone.

    Warns:
        UserWarning: the step of `tx` depends on the size of the weights (LAMB, LARS, Adafactor,
            adaptive gradient clipping), and the decay stands outside of that; or a step removes
            0.5 % or more of a weight; at `init`, where lambda and the rates are numbers, a decay that
            16-bit parameters are too coarse for under this `rounding`.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> tx = dwd.extend_with_decoupled_weight_decay(optax.rmsprop(0.1), 0.004)
        >>> theta, g = jnp.array([1.0]), jnp.array([0.0])
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 6)
        -0.004

    Source: the base class of the same name in TensorFlow Addons, whose convention is `"none"`.
    """
    if not isinstance(tx, optax.GradientTransformation):
        advice = _OUTSIDE["MultiStepsState"] if isinstance(tx, optax.MultiSteps) else (
            "pass an optimizer such as optax.adam(1e-3)"
        )  # fmt: skip
        raise TypeError(
            f"`tx` is {type(tx).__name__}, not an optax.GradientTransformation: {advice}."
        )
    _check.check_option("coupling", coupling, COUPLINGS)
    scales_with_rate = coupling in ("learning_rate", "corrected")
    if scales_with_rate and learning_rate is None:
        raise ValueError(
            f"`learning_rate` is None, and coupling={coupling!r} multiplies the decay by it: pass "
            "the learning rate of `tx`, which cannot be read from it."
        )
    if learning_rate is not None and not scales_with_rate:
        raise ValueError(
            f"`learning_rate` is given, and coupling={coupling!r} does not use it: leave it out, or "
            "pass coupling='learning_rate'."
        )
    if schedule is not None and coupling == "none":
        raise ValueError(
            "`schedule` is given, and coupling='none' does not use it: leave it out, or pass "
            "coupling='schedule'."
        )
    check_step(0.0 if learning_rate is None else learning_rate, schedule, coupling)
    # What another penalty or a strength removes is not known from lambda.
    plain = penalty is L2 and strength is None
    removed = check_decay(weight_decay if plain else 0.0, learning_rate, schedule, coupling)
    rate = decay_per_step(weight_decay, learning_rate, schedule, coupling)
    seen = _check_optimizer(tx, _EXAMPLE, coupling)
    if seen.ascends and not seen.learns:  # Before it has learnt a step size, it may be rounding.
        raise ValueError(
            "`tx` ascends: its first updates have the sign of the gradient, and updates are added to "
            "the parameters. It is no finished optimizer: put optax.scale_by_learning_rate(alpha) at "
            "its end. To maximize, pass the gradients of minus the objective."
        )
    if seen.reads and not seen.learns:  # What learns its step size may well read the parameters.
        _check.warn(
            "The step of `tx` depends on the size of the weights (by a trust ratio, as in LAMB, LARS "
            "and Adafactor, or by adaptive gradient clipping). This decay stands outside of that: a "
            "step removes the same part of every weight, whatever its size."
        )

    inner = _uninformed(tx if rounding is None else in_float32(tx))
    decay = decay_finished_step(rate, mask, Axes(penalty, toward, gate, strength))
    extended = finished(inner, decay, rounding=rounding, chain=informed_chain)
    if plain:
        extended = warning_of_lost_decay(extended, removed, mask, rounding)

    def init(params: Params) -> optax.OptState:
        _check_optimizer(tx, params, coupling)
        return extended.init(params)

    return optax.GradientTransformationExtraArgs(init, extended.update)


def _uninformed(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` without what `informed_chain` tells its members: it may not take arguments of those names."""
    tx = optax.with_extra_args_support(tx)

    def update(
        updates: Updates,
        state: Any,
        params: Params | None = None,
        *,
        gradient: Any = None,
        moments: Any = None,
        **extra: Any,
    ) -> tuple[Updates, Any]:
        del gradient, moments
        return tx.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


class _Seen(NamedTuple):
    """What an optimizer is seen to do."""

    names: set[str]  # Of all nodes of its state.
    learns: str  # How it finds its own step size; empty if it does not.
    decays: bool  # Its updates depend on the parameters where there is no gradient.
    reads: bool  # They do anywhere.
    ascends: bool  # Every step has the direction of the gradient.


def _check_optimizer(tx: optax.GradientTransformation, params: Params, coupling: Coupling) -> _Seen:
    """Refuse what decay must not be added to."""
    seen = _look_at(tx, params)
    for name, reason in _OUTSIDE.items():
        if name in seen.names:
            raise ValueError(f"`tx` holds a {name}: {reason}.")
    if seen.learns and coupling in ("learning_rate", "corrected"):
        raise ValueError(
            f"`tx` {seen.learns} and finds its own step size, so no `learning_rate` tells what "
            f"coupling={coupling!r} would multiply the decay by. Pass coupling='schedule', or the "
            "optimizer's own weight decay."
        )
    if seen.decays:
        raise ValueError(
            "`tx` decays the weights already, or constrains them: without a gradient, its update "
            "depends on them. If that is its weight decay, build it with weight_decay=0.0 (some, "
            "like optax.lion, decay by default). A constraint, like optax.keep_params_nonnegative, "
            "goes after the extended optimizer in optax.chain. What shrinks the weights by design, "
            "like optax.fromage, needs no other decay."
        )
    return seen


def _look_at(tx: optax.GradientTransformation, params: Params) -> _Seen:
    """Try an optimizer on small parameters of the same structure, which masks by path look at.

    Numbers tell whether it decays, since a decay of 0 is none: two sets of parameters are compared,
    which differ where there is no gradient. For hundreds of leaves that is slow, so a trace is
    searched first for any way from the parameters to the updates. On the example, which has two leaves,
    they tell the sign of the steps too.
    """
    names: set[str] = set()
    by_loss = decays = reads = ascends = False
    try:
        with jax.ensure_compile_time_eval():  # `init` may run under jit.
            small = jax.tree.map(_small, params)
            silent = jax.tree.map(_without_gradient, small)
            here = jax.tree.map(jnp.asarray, small)
            there = jax.tree.map(
                lambda x, m: jnp.asarray(np.where(m, -3 * x, x), x.dtype), small, silent
            )
            gradients = jax.tree.map(
                lambda x, m: jnp.asarray(np.where(m, 0, 1), x.dtype), small, silent
            )
            step = _step_with(tx, gradients)

            def first_step(value: jax.Array, theta: Params) -> tuple[Updates, Any]:
                state = tx.init(theta)
                jax.tree.leaves(state, is_leaf=lambda n: names.add(type(n).__name__) or False)
                return step(value, theta, state)

            value = jnp.asarray(optax.tree.vdot(gradients, here))  # The same as `there`.
            traced, shapes = jax.make_jaxpr(first_step, return_shape=True)(value, here)
            of_value, *of_theta = traced.jaxpr.invars
            by_loss = any(_reached(traced.jaxpr, [of_value])[: len(jax.tree.leaves(shapes[0]))])
            reached = any(_reached(traced.jaxpr, of_theta))
            if reached or params is _EXAMPLE:
                # Compiling takes longest, but a loop would be compiled for every leaf.
                loops = _LOOPS.intersection(eqn.primitive.name for eqn in traced.jaxpr.eqns)
                tried = functools.partial(_first_updates, tx.init, step, value)
                tried = jax.jit(tried) if loops else tried
                first = tried(here)
                directions = jax.tree.leaves(gradients) * _STEPS
                along = [float(jnp.vdot(g, u).real) for g, u in zip(directions, first, strict=True)]
                ascends = bool(np.all(np.reshape(along, (_STEPS, -1)).sum(axis=1) > 0))
                pairs = zip(first, tried(there) if reached else first, strict=True)
                marks = jax.tree.leaves(silent) * _STEPS
                for (a, b), m in zip(jax.tree.map(np.asarray, list(pairs)), marks, strict=True):
                    reads |= not np.array_equal(a, b, equal_nan=True)
                    decays |= not np.array_equal(a[m], b[m], equal_nan=True)
    except Exception:
        # It cannot be tried: it wants what only training has, or a mask's own parameters, or it was
        # built from traced numbers.
        pass
    learned = sorted(names.intersection(_LEARNED_STEP))
    learns = (
        f"holds a {learned[0]}" if learned else "scales its step by the loss" if by_loss else ""
    )
    return _Seen(names, learns, decays, reads, ascends)


def _step_with(
    tx: optax.GradientTransformation, gradients: Params
) -> Callable[[jax.Array, Params, Any], tuple[Updates, Any]]:
    """A step that gives an optimizer all that it may look at."""

    def loss(theta: Params, obj_fn: Any = None) -> jax.Array:
        del obj_fn  # Line searches refuse a loss that does not take all that others are given.
        return jnp.asarray(optax.tree.vdot(gradients, theta))

    def step(value: jax.Array, theta: Params, state: Any) -> tuple[Updates, Any]:
        update = optax.with_extra_args_support(tx).update
        looks = {"value": value, "grad": gradients, "value_fn": loss, "obj_fn": loss}
        return update(gradients, state, theta, **looks)

    return step


def _first_updates(
    init: Callable, step: Callable, value: jax.Array, theta: Params
) -> list[jax.Array]:
    """The updates of the first steps, the parameters standing still."""
    found, state = [], init(theta)
    for _ in range(_STEPS):
        updates, state = step(value, theta, state)
        found += jax.tree.leaves(updates)
    return found


def _reached(jaxpr: core.Jaxpr, sources: Sequence[core.Var]) -> list[bool]:
    """Which outputs may depend on the sources: all of an equation's on all that goes into it."""
    found = set(sources)
    for eqn in jaxpr.eqns:
        if any(isinstance(v, core.Var) and v in found for v in eqn.invars):
            found.update(eqn.outvars)
    return [isinstance(v, core.Var) and v in found for v in jaxpr.outvars]


def _without_gradient(leaf: np.ndarray) -> np.ndarray:
    """All entries but the first: an optimizer that never sees a gradient may do nothing at all."""
    return (np.arange(leaf.size) > 0).reshape(leaf.shape) if leaf.size > 1 else leaf == leaf


def _small(leaf: Any) -> Any:
    """A concrete leaf of the same rank and dtype, at most two long in every direction."""
    shape = tuple(min(n, 2) for n in jnp.shape(leaf))
    # No two entries alike, so that no difference or ratio is 0 by chance.
    entries = np.linspace(0.7, 1.3, math.prod(shape)).reshape(shape)
    return np.asarray(entries, jnp.result_type(leaf))
