"""Decoupled decay for any Optax optimizer."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd import _check
from decoupled_wd._decoupled import decay_finished_step
from decoupled_wd._rate import COUPLINGS, Coupling, check_decay, decay_per_step
from decoupled_wd._typing import Mask, NumberOrSchedule, Params

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
_EXAMPLE = {"kernel": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}


def extend_with_decoupled_weight_decay(
    tx: optax.GradientTransformation,
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    coupling: Coupling = "schedule",
    learning_rate: NumberOrSchedule | None = None,
    schedule: NumberOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Extend a finished Optax optimizer with decoupled weight decay.

    $$u \leftarrow u - d_t \theta$$

    where $d_t$ is $\eta_t \lambda$ under `"schedule"`, $\alpha \eta_t \lambda$ under
    `"learning_rate"`, $\lambda$ under `"none"`, $\alpha \eta_t^2 \lambda$ under `"corrected"`. `tx`
    has its sign and its learning rate inside; what is given here scales the decay alone. Under
    `"schedule"` pass the schedule of `tx`, divided by its peak, to have the paper's decay.

    Args:
        tx: an optimizer as `optax.adam(1e-3)` makes it.
        weight_decay: lambda, in the unit that `coupling` gives it; 0 or more; a number, traced or
            not, or a callable of the step.
        mask: which leaves decay; a tree of bools or multipliers, a prefix, or a function.
        coupling: what the decay is per; see `adamw`.
        learning_rate: alpha, which `"learning_rate"` and `"corrected"` need and only they use.
        schedule: eta_t, for all but `"none"`.

    Returns:
        A finished optimizer, whose decay has the state of place D: the decay per step.

    Raises:
        TypeError: `tx` is not an Optax transformation, or a number is not one.
        ValueError: `tx` decays already, or is a wrapper that the decay belongs inside of, or finds
            its own step size and the coupling needs one; at `init` where only then it shows. Decay
            is looked for in the first three steps: it is not seen where those have a rate of 0, in
            `optax.contrib.mechanize`, whose first steps are below rounding, in a `tx` built
            from traced numbers, and under a mask that looks at the size of leaves.

    Warns:
        UserWarning: `tx` reads the parameters (LAMB, LARS, Adafactor): the decay stands outside its
            trust ratio.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = extend_with_decoupled_weight_decay(optax.rmsprop(0.1), 0.004)
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
    check_decay(weight_decay, learning_rate, schedule, coupling)
    rate = decay_per_step(weight_decay, learning_rate, schedule, coupling)
    _check_optimizer(tx, _EXAMPLE, coupling)
    _warn_of_trust_ratio(tx)

    extended = optax.chain(tx, decay_finished_step(rate, mask))

    def init(params: Params) -> optax.OptState:
        _check_optimizer(tx, params, coupling)
        return extended.init(params)

    return optax.GradientTransformationExtraArgs(init, extended.update)


def _check_optimizer(tx: optax.GradientTransformation, params: Params, coupling: Coupling) -> None:
    """Refuse what decay must not be added to."""
    names = _state_names(tx, params)
    for name, reason in _OUTSIDE.items():
        if name in names:
            raise ValueError(f"`tx` holds a {name}: {reason}.")
    learned = sorted(names.intersection(_LEARNED_STEP))
    if learned and coupling in ("learning_rate", "corrected"):
        raise ValueError(
            f"`tx` holds a {learned[0]} and finds its own step size, so no `learning_rate` tells "
            f"what coupling={coupling!r} would multiply the decay by. Pass coupling='schedule', or "
            "the optimizer's own weight decay."
        )
    if _reads_params(tx, params, _without_gradient):
        raise ValueError(
            "`tx` decays the weights already: without a gradient, its update depends on them. "
            "Build it with weight_decay=0.0 (some, like optax.lion, decay by default)."
        )


def _warn_of_trust_ratio(tx: optax.GradientTransformation) -> None:
    learned = _state_names(tx, _EXAMPLE).intersection(_LEARNED_STEP)  # They may well read them.
    if not learned and _reads_params(tx, _EXAMPLE, lambda leaf: np.full(leaf.shape, False)):
        warnings.warn(
            "`tx` scales its step by the parameters (a trust ratio, as in LAMB, LARS and "
            "Adafactor). This decay stands outside of it: a step removes the same part of every "
            "weight, whatever the ratio.",
            UserWarning,
            stacklevel=3,
        )


def _state_names(tx: optax.GradientTransformation, params: Params) -> set[str]:
    """The names of all nodes of the optimizer's state."""
    names: set[str] = set()
    try:
        with jax.ensure_compile_time_eval():
            state = tx.init(jax.tree.map(_small, params))
    except Exception:
        return names  # A mask or label tree for other parameters; `init` looks at the real ones.
    jax.tree.leaves(state, is_leaf=lambda node: names.add(type(node).__name__) or False)
    return names


def _without_gradient(leaf: np.ndarray) -> np.ndarray:
    """All entries but the first: an optimizer that never sees a gradient may do nothing at all."""
    return (np.arange(leaf.size) > 0).reshape(leaf.shape) if leaf.size > 1 else leaf == leaf


def _small(leaf: Any) -> Any:
    """A concrete leaf of the same rank and dtype, at most two long in every direction."""
    shape = tuple(min(n, 2) for n in jnp.shape(leaf))
    # No two entries alike, so that no difference or ratio is 0 by chance.
    entries = np.linspace(0.7, 1.3, math.prod(shape)).reshape(shape)
    return np.asarray(entries, jnp.result_type(leaf))


def _reads_params(
    tx: optax.GradientTransformation, params: Params, silent: Callable[[np.ndarray], np.ndarray]
) -> bool:
    """Whether the first updates of some entries are seen to differ between two sets of parameters.

    That is tried on small parameters of the same structure. The entries are those that `silent`
    marks, and they have no gradient; where it marks none, all, and they have one.
    """
    try:
        with jax.ensure_compile_time_eval():  # `init` may run under jit.
            here = jax.tree.map(_small, params)
            marks = jax.tree.map(silent, here)
            gradients = jax.tree.map(lambda x, m: np.where(m, 0, 1).astype(x.dtype), here, marks)
            looked_at = jax.tree.map(lambda m: np.logical_or(m, not m.any()), marks)
            there = jax.tree.map(
                lambda x, m: np.where(m, -3 * x, x).astype(x.dtype), here, looked_at
            )
            first_updates = jax.jit(functools.partial(_first_updates, tx))
            pairs = zip(
                jax.tree.map(np.asarray, first_updates(here, gradients)),
                jax.tree.map(np.asarray, first_updates(there, gradients)),
                jax.tree.leaves(looked_at) * _STEPS,
                strict=True,
            )
            return any(not np.array_equal(a[m], b[m], equal_nan=True) for a, b, m in pairs)
    except Exception:
        # It cannot be tried: it wants what only training has, or a mask's own parameters, or it was
        # built from traced numbers.
        return False


def _first_updates(
    tx: optax.GradientTransformation, theta: Params, gradients: Params
) -> list[jax.Array]:
    """The updates of the first steps, the parameters standing still."""

    def loss(theta: Params, obj_fn: Any = None) -> jax.Array:
        """What has these gradients, for optimizers that look at the loss."""
        del obj_fn  # Line searches refuse a loss that does not take all that others are given.
        return jnp.asarray(optax.tree.vdot(gradients, theta))

    looks = {"value": loss(theta), "grad": gradients, "value_fn": loss, "obj_fn": loss}
    update = optax.with_extra_args_support(tx).update
    found, state = [], tx.init(theta)
    for _ in range(_STEPS):
        new, state = update(gradients, state, theta, **looks)
        found += jax.tree.leaves(new)
    return found
