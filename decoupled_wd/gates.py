r"""When a weight decays: conditions on a step, for `gate=`.

A gate is a record and no function, so `optax.inject_hyperparams` leaves it alone. Its condition is a
function of one leaf: what it sees (`Seen`) has the sign of gradients, whatever the sign of the updates
where the decay stands.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number

__all__ = [
    "Seen",
    "Gate",
    "cautious",
    "above_norm",
    "every",
    "selective",
]


class Seen(NamedTuple):
    """What a gate or a strength may look at: one leaf, in float32 or wider.

    Example:
        Decay only the weights that the step moves:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> moved = dwd.gates.Gate("moved", lambda seen: seen.update != 0)
        >>> decay, theta = dwd.decoupled_weight_decay(0.5, gate=moved), jnp.array([2.0, 2.0])
        >>> print(decay.update(jnp.array([0.0, 1.0]), decay.init(theta), theta)[0])
        [0. 2.]
    """

    update: jax.Array
    """The update without the decay, of a gradient's sign: the weight is about to move against it."""
    parameter: jax.Array
    """The weight before the step."""
    distance: jax.Array
    """The weight less the reference: the weight itself where there is none."""
    landing: jax.Array | None
    """The distance where the step without decay ends; known last in a chain alone, elsewhere None."""
    gradient: jax.Array | None
    """The gradient of the loss, where it is known: in `add_l2_to_grad` and its kin, or handed on by
    `informed_chain`; else None."""
    count: jax.Array
    """0-based step."""


@dataclasses.dataclass(frozen=True)
class Gate:
    """A condition under which a leaf's weights decay.

    Example:
        Decay only what is below 1 in size:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> small = dwd.gates.Gate("small", lambda seen: abs(seen.parameter) < 1)
        >>> decay = dwd.decoupled_weight_decay(0.5, gate=small)
        >>> theta = jnp.array([0.5, 4.0])
        >>> u, _ = decay.update(jnp.zeros(2), decay.init(theta), theta)
        >>> print(u)
        [0.25 0.  ]
    """

    name: str
    condition: Callable[[Seen], Any]
    """Gives bools: one, or one for each weight."""

    def __repr__(self) -> str:
        return f"gates.{self.name}"


def cautious() -> Gate:
    r"""Decay a weight only where the step moves it the way the decay does.

    $$1(u_i x_i \ge 0)$$

    with $u$ of the gradient's sign (the weight moves against it) and $x$ the weight's distance from the
    reference. Where either is 0 the weight decays. The sign is the step's: momentum counts.

    Returns:
        A gate, for `gate=`.

    Example:
        The first weight moves towards 0, the second away from it, the third not at all:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.5, gate=dwd.gates.cautious())
        >>> theta = jnp.array([2.0, 2.0, 2.0])
        >>> u, _ = decay.update(jnp.array([1.0, -1.0, 0.0]), decay.init(theta), theta)
        >>> print(u)
        [ 2. -1.  1.]

    Source: Chen et al. 2025, "Cautious Weight Decay", arXiv 2510.12402, Algorithm 1.
    """

    def condition(seen: Seen) -> jax.Array:
        # By signs: the product of two small numbers is 0.
        pull = (jnp.sign(seen.update) * jnp.conj(jnp.sign(seen.distance))).real
        return pull >= 0

    return Gate("cautious()", condition)


def above_norm(threshold: Number) -> Gate:
    r"""Decay a leaf only while its distance from the reference is long.

    $$1(\lVert x \rVert_2 > c)$$

    Under `jit` the norm is that of the whole leaf, however it is sharded; inside `shard_map`, of the
    shard.

    Args:
        threshold: c, in units of the parameters; 0 or more.

    Returns:
        A gate, for `gate=`.

    Raises:
        TypeError: `threshold` is no number.
        ValueError: it is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.5, gate=dwd.gates.above_norm(4.0))
        >>> theta = {"long": jnp.array([3.0, 4.0]), "short": jnp.array([0.0, 4.0])}
        >>> u, _ = decay.update(theta, decay.init(theta), theta)
        >>> print(u["long"], u["short"])
        [4.5 6. ] [0. 4.]
    """
    _check.check_number("threshold", threshold, minimum=0.0)

    def condition(seen: Seen) -> jax.Array:
        norm = _moments.norm(seen.distance)
        return norm > _tree.like(threshold, norm)

    return Gate(f"above_norm({threshold})", condition)


def every(steps: Number) -> Gate:
    r"""Decay at steps 0, n, 2n, ... only.

    $$1(t \equiv 0 \mod n)$$

    Args:
        steps: n, an integer, 1 or more.

    Returns:
        A gate, for `gate=`.

    Raises:
        TypeError: `steps` is no integer.
        ValueError: it is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay, theta = dwd.decoupled_weight_decay(0.5, gate=dwd.gates.every(2)), jnp.array([2.0])
        >>> state = decay.init(theta)
        >>> for _ in range(3):
        ...     u, state = decay.update(jnp.array([0.0]), state, theta)
        ...     print(u)
        [1.]
        [0.]
        [1.]
    """
    _check.check_integer("steps", steps, minimum=1)
    return Gate(f"every({steps})", lambda seen: seen.count % _check.as_integer(steps) == 0)


def selective() -> Gate:
    r"""Decay a leaf only while the gradient would lead it towards the reference: SPD.

    $$1(\langle g, x \rangle > 0)$$

    with the raw gradient, handed on by `informed_chain`. With `strengths.deviation_growth` it is
    selective projection decay, which acts where momentum carries a leaf away against its gradient.

    Returns:
        A gate, for `gate=`.

    Raises:
        ValueError: in `update`, no gradient is handed on.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.informed_chain(dwd.decoupled_weight_decay(0.5, gate=dwd.gates.selective()))
        >>> theta = {"back": jnp.array([2.0]), "away": jnp.array([2.0])}
        >>> g = {"back": jnp.array([1.0]), "away": jnp.array([-1.0])}
        >>> u, _ = decay.update(g, decay.init(theta), theta)
        >>> print(u["back"], u["away"])
        [2.] [-1.]

    Source: Tian et al. 2024, arXiv 2411.01713, equation 3. A port has the sign the other way round.
    """

    def condition(seen: Seen) -> jax.Array:
        gradient = check_handed_on("gates.selective", seen.gradient)
        return jnp.sum((jnp.conj(gradient) * seen.distance).real) > 0

    return Gate("selective()", condition)


def check_condition(gate: Gate, seen: Seen) -> jax.Array:
    """The gate's condition, which is to be one bool, or one for each weight."""
    condition = jnp.asarray(gate.condition(seen))
    shape = jnp.shape(seen.update)
    if condition.dtype != bool or condition.shape not in ((), shape):
        raise TypeError(
            f"`gate` is {gate}, whose condition gave an array of dtype {condition.dtype} and shape "
            f"{condition.shape}. It is to give bools, of shape () or that of the leaf, {shape}."
        )
    return condition


def check_handed_on(reader: str, gradient: Any) -> Any:
    """Require the gradient of the loss, which `reader` reads, and give it back."""
    if gradient is None:
        raise ValueError(
            f"`gradient` is missing: {reader} reads the gradient of the loss, which what stands behind "
            "the moments does not see. Chain with `informed_chain` in place of `optax.chain`."
        )
    return gradient


def check_gate(value: Any) -> None:
    """Require a gate, or None."""
    if value is None or isinstance(value, Gate):
        return
    _check.check_called("gate", value, (cautious, above_norm, every, selective), "gates")
    raise TypeError(
        f"`gate` is {value!r}, and a gate is needed: gates.cautious(), gates.above_norm(...), "
        "gates.every(...), or gates.Gate(name, condition) with a function of what it sees."
    )
