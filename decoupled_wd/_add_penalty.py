r"""The one core transformation: a penalty pulls the weights towards a reference, in the updates.

    u  <-  u + lambda_t m s dOmega(theta - theta_ref)    where the gate is open

It has four axes, which do not know of each other:

* how much: $\lambda_t$ (a number or a schedule), the mask's multiplier m of the leaf, a strength s that
  sees norms or moments;
* of what: the penalty $\Omega$;
* towards where: zero, a tree, the initial point, or a moving average of the parameters;
* when: a gate.

What the term *means* is decided by its place in the chain: before the moments it is regularization,
after them decay. Last in the chain it can be applied implicitly, as a proximal step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from decoupled_wd import _check, _moments, _tree, gates, masks, strengths
from decoupled_wd._penalty import L2, Penalty, Tracking, check_penalty
from decoupled_wd._typing import Mask, Number, NumberOrSchedule, Params, Updates
from decoupled_wd.gates import Gate, Seen
from decoupled_wd.strengths import Strength


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """A reference that follows the parameters, as `moving_average` makes it.

    Example:
        >>> import decoupled_wd as dwd
        >>> dwd.moving_average(0.75)
        moving_average(0.75)
        >>> dwd.moving_average(0.75).decay
        0.75
    """

    decay: Any

    def __repr__(self) -> str:
        return f"moving_average({self.decay})"


def moving_average(decay: Number) -> MovingAverage:
    r"""Decay towards an exponential moving average of the parameters.

    $$\theta_{ref} \leftarrow b \, \theta_{ref} + (1 - b) \, \theta$$

    after each step has used it, from $\theta_{ref} = \theta_0$; in float32 where parameters have 16
    bits, since there an average with slow decay would stand still.

    Args:
        decay: b, weight of the past, in [0, 1). b = 0 decays towards the parameters of the last step.

    Returns:
        A reference, for `toward=`.

    Raises:
        TypeError: `decay` is no number.
        ValueError: it is outside [0, 1).

    Example:
        The average is 1, where the weight began; the weight is 3 now:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.5, toward=dwd.moving_average(0.75))
        >>> state = decay.init(jnp.array([1.0]))
        >>> u, state = decay.update(jnp.array([0.0]), state, jnp.array([3.0]))
        >>> print(u, state.memory["toward"])  # 0.5 (3 - 1), and 0.75 * 1 + 0.25 * 3
        [1.] [1.5]
    """
    _check.check_beta("decay", decay)
    return MovingAverage(decay)


class DecayMemoryState(NamedTuple):
    """State of a decay that remembers something: an anchor, a norm, a multiplier.

    Example:
        `norm_control` remembers the norm of every leaf at `init`:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.5, strength=dwd.strengths.norm_control())
        >>> state = decay.init({"w": jnp.array([3.0, 4.0])})
        >>> type(state).__name__, float(state.memory["norm"]["w"])
        ('DecayMemoryState', 5.0)
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """lambda_t of the last step (before the first: of step 0), float32, in the unit of its place,
    before mask and strength."""
    memory: dict[str, Any]
    """By name: a tree like the parameters with what is remembered of each leaf, or a scalar."""


class Axes(NamedTuple):
    """Of what, towards where, when, and by which rule."""

    penalty: Penalty | Tracking = L2
    toward: Any = None
    gate: Gate | None = None
    strength: Strength | None = None


def add_penalty(
    weight_decay: NumberOrSchedule,
    mask: Mask,
    axes: Axes,
    make_state: Callable[[jax.Array, jax.Array], Any],
    updates_are: Literal["gradients", "directions", "steps", "last steps"] = "directions",
) -> optax.GradientTransformationExtraArgs:
    """Build the transformation; `make_state(count, weight_decay)` names the place in its state.

    Args:
        weight_decay: how much.
        mask: where.
        axes: the rest.
        make_state: used where nothing is to be remembered, else `DecayMemoryState`.
        updates_are: gradients of the loss; something else of a gradient's sign; steps, with their sign
            turned; or steps that nothing follows, where the penalty acts at their end, by its proximal
            step.
    """
    penalty, toward, gate, strength = axes
    _check.check_number_or_schedule("weight_decay", weight_decay, minimum=0.0)
    masks.check_mask(mask)
    check_penalty(penalty)
    _check_toward(toward)
    gates.check_gate(gate)
    strengths.check_strength(strength)
    remembers = _remembers(axes)
    anchored = toward is not None and "toward" not in remembers
    whole = {} if strength is None else strength.remembers_whole
    looks = gate is not None or strength is not None
    last = updates_are == "last steps"
    turned = last or updates_are == "steps"

    def rate_at(count: jax.Array) -> jax.Array:
        return _tree.scalar("weight_decay", weight_decay, count)

    def state_of(count: jax.Array, rate: jax.Array, memory: dict[str, Any]) -> Any:
        used = rate.astype(jnp.float32)
        if remembers or whole:
            return DecayMemoryState(count, used, memory)
        return make_state(count, used)

    def init(params: Params) -> Any:
        masks.check_decays_something(mask, params)
        if anchored:
            _tree.check_like("toward", toward, params)
        memory = {name: jax.tree.map(f, params) for name, f in remembers.items()}
        # Like a norm of the parameters, which varies over devices as they do: see below.
        like = _moments.norm_of_all(params) if whole else 0.0
        memory |= {name: jnp.full_like(like, x, _tree.default_float()) for name, x in whole.items()}
        # The rate of step 0 and not a zero: in a sweep under `shard_map` it varies over devices as
        # the rate does, which a constant would not.
        count = jnp.zeros([], jnp.int32)
        return state_of(count, rate_at(count), memory)

    def update(
        updates: Updates,
        state: Any,
        params: Params | None = None,
        *,
        gradient: Any = None,
        moments: Any = None,
        **extra_args: Any,
    ) -> tuple[Updates, Any]:
        del extra_args
        _tree.check_params(params)
        _tree.check_state(state, "memory" if remembers or whole else "count")
        memory = state.memory if remembers or whole else {}
        if gradient is None and updates_are == "gradients":
            gradient = updates
        rate = rate_at(state.count)
        amount_of_all, by_whole = rate, {}
        if strength is not None and strength.whole is not None:
            told = strengths.SeenWhole(updates, params, gradient, moments, state.count)
            factor, by_whole = strength.of_whole(told, memory)
            amount_of_all = rate * _tree.cast(factor, rate.dtype)
        if updates_are == "steps":
            amount_of_all = -amount_of_all

        def leaf(
            u: jax.Array, memory: dict[str, jax.Array], theta: jax.Array, *rest: Any
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            *others, multiplier = rest if mask is not None else (*rest, True)
            if masks.is_zero(multiplier):
                return u, memory
            beside = dict(zip(beside_names, others, strict=True))
            theta = _tree.cast(theta, u.dtype)
            amount = _tree.cast(amount_of_all, u.dtype)
            if multiplier is not True:
                amount = amount * jnp.asarray(multiplier, u.dtype)
            anchor = beside.get("toward", memory.get("toward"))
            x = theta if anchor is None else theta - _tree.cast(anchor, u.dtype)
            landing = x + u if last else None
            omega, by_penalty = _omega(penalty, x, memory, state.count)
            kept = memory | _followed(toward, theta, memory) | by_penalty
            seen = None
            if looks:
                against = -u if turned else u
                seen = Seen(against, theta, x, landing, beside.get("gradient"), state.count)
            if seen and strength is not None and strength.leaf is not None:
                factor, by_strength = strength.of_leaf(seen, memory)
                amount = amount * _tree.cast(factor, u.dtype)
                kept |= by_strength
            if landing is None:
                decayed = u + amount * omega.gradient(x)
            else:
                decayed = _end(omega, landing, amount, x, may_push=strength is not None) - x
            # A multiplier that is 0, or a gate that is shut, leaves alone what is not finite, too.
            if isinstance(multiplier, Tracer):
                decayed = jnp.where(multiplier == 0, u, decayed)
            if seen and gate is not None:
                decayed = jnp.where(gates.check_condition(gate, seen), decayed, u)
            return decayed, kept

        beside = {"toward": toward} if anchored else {}
        if gradient is not None and looks:
            beside["gradient"] = gradient
        beside_names = list(beside)
        multipliers = None if mask is None else masks.multipliers(mask, params)
        of_leaves = {name: memory[name] for name in remembers}
        updates, of_leaves = _tree.map_leaves_with_memory(
            leaf, updates, of_leaves, extra=multipliers, params=params, **beside
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, state_of(count, rate, {**of_leaves, **by_whole})

    return optax.GradientTransformationExtraArgs(init, update)


def _end(
    omega: Penalty, landing: jax.Array, amount: jax.Array, x: jax.Array, *, may_push: bool
) -> jax.Array:
    """Where the penalty takes a step that ends at `landing`."""
    tau = jnp.real(amount)
    end = omega.prox(landing, tau, x)
    if not may_push:
        return end
    # A negative tau has no minimum to go to.
    return jnp.where(tau < 0, landing - amount * omega.gradient(landing), end)


def _omega(
    penalty: Penalty | Tracking, x: jax.Array, memory: dict[str, jax.Array], count: jax.Array
) -> tuple[Penalty, dict[str, jax.Array]]:
    """The penalty of this step."""
    if isinstance(penalty, Penalty):
        return penalty, {}
    tracked = penalty.follow(memory["tracked"], x, count)
    return penalty.at(tracked), {"tracked": tracked}


def _followed(toward: Any, theta: jax.Array, memory: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The reference that follows the parameters, one step on."""
    if not isinstance(toward, MovingAverage):
        return {}
    return {"toward": _moments.moving_average(theta, memory["toward"], toward.decay)}


def _remembers(axes: Axes) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """What is remembered of each leaf, by name: its value at `init`, from the parameter."""
    remembers = {}
    if isinstance(axes.toward, MovingAverage):
        remembers["toward"] = lambda theta: jnp.array(_tree.widen(theta))
    elif isinstance(axes.toward, str):
        # A copy: one buffer for parameter and anchor could not be donated.
        remembers["toward"] = jnp.array
    if isinstance(axes.penalty, Tracking):
        statistic = axes.penalty.statistic
        remembers["tracked"] = lambda theta: jnp.zeros_like(statistic(_tree.widen(theta)))
    return remembers | dict(axes.strength.remembers if axes.strength else {})


def _check_toward(toward: Any) -> None:
    if isinstance(toward, MovingAverage):
        return
    if isinstance(toward, str):
        if toward == "initial":
            return
        raise ValueError(
            f"`toward` is {toward!r}, and 'initial' is the one word it takes: the parameters as at "
            "`init`. Pass that, a tree of arrays like the parameters, or moving_average(...)."
        )
    _check.check_tree("toward", toward)
