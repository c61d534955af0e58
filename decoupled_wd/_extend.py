"""Decoupled decay for any Optax optimizer."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._decoupled import decay_finished_step
from decoupled_wd._rate import Coupling, decay_per_step
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
            its own step size and the coupling needs one; at `init` where only then it shows.

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
    rate = decay_per_step(weight_decay, learning_rate, schedule, coupling)
    _check_optimizer(tx, _EXAMPLE, coupling)
    _warn_of_trust_ratio(tx)

    extended = optax.chain(tx, decay_finished_step(rate, mask))

    def init(params: Params) -> optax.OptState:
        _check_optimizer(tx, params, coupling)
        return extended.init(params)

    return optax.GradientTransformationExtraArgs(init, extended.update)


def _check_optimizer(tx: optax.GradientTransformation, params: Params, coupling: Coupling) -> None:
    """Refuse what decay must not be added to.

    An optimizer decays already if, without a gradient, its update depends on the parameters. That
    is tried on small parameters of the same structure.
    """
    try:
        with jax.ensure_compile_time_eval():
            state = tx.init(jax.tree.map(_small, params))
    except Exception:
        return  # A mask or label tree made for other parameters; `init` looks at the real ones.
    names = {type(node).__name__ for node in _nodes(state)}
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
    if _depends_on_params(tx, params, gradient=0.0):
        raise ValueError(
            "`tx` decays the weights already: without a gradient, its update depends on them. "
            "Build it with weight_decay=0.0 (some, like optax.lion, decay by default)."
        )


def _warn_of_trust_ratio(tx: optax.GradientTransformation) -> None:
    if _depends_on_params(tx, _EXAMPLE, gradient=1.0):
        warnings.warn(
            "`tx` scales its step by the parameters (a trust ratio, as in LAMB, LARS and "
            "Adafactor). This decay stands outside of it: a step removes the same part of every "
            "weight, whatever the ratio.",
            UserWarning,
            stacklevel=3,
        )


def _small(leaf: Any) -> Any:
    """A concrete leaf of the same rank and dtype, at most two long in every direction."""
    shape = tuple(min(n, 2) for n in jnp.shape(leaf))
    # No two entries alike, so that no difference or ratio is 0 by chance.
    entries = np.linspace(0.7, 1.3, math.prod(shape)).reshape(shape)
    return np.asarray(entries, jnp.result_type(leaf))


def _nodes(tree: Any) -> list[Any]:
    """Every node of a tree, the inner ones too."""
    found: list[Any] = []
    jax.tree.leaves(tree, is_leaf=lambda node: found.append(node) or False)
    return found


def _depends_on_params(tx: optax.GradientTransformation, params: Params, gradient: float) -> bool:
    """Whether the first update is seen to differ between `params` and other parameters."""
    params = jax.tree.map(_small, params)
    updates = jax.tree.map(lambda x: np.full_like(x, gradient), params)

    def first_update(theta: Params) -> list[Any]:
        return jax.tree.leaves(tx.update(updates, tx.init(theta), theta)[0])

    try:
        with jax.ensure_compile_time_eval():  # `init` may run under jit.
            here, there = first_update(params), first_update(jax.tree.map(lambda x: -3 * x, params))
            here, there = jax.tree.map(np.asarray, (here, there))
        return any(
            not np.array_equal(a, b, equal_nan=True) for a, b in zip(here, there, strict=True)
        )
    except Exception:
        # It cannot be tried: it wants what only training has (a loss, a mask's own parameters), or
        # it was built from traced numbers.
        return False
