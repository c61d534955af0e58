"""Sixteen bits: the one rounding of a step, last in its chain, and what they do to moments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _rounding, _tree
from decoupled_wd._check import check_integer, check_option, is_narrow, warn
from decoupled_wd._typing import Number, Params, Rounding, Updates


class StochasticRoundingState(NamedTuple):
    """State of `stochastic_rounding`.

    Example:
        Last in the state of an optimizer that rounds; a copy of it replays the same random bits:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> state = dwd.adamw(0.1, rounding="stochastic").init(jnp.ones(3, jnp.bfloat16))
        >>> state[-1]
        StochasticRoundingState(count=Array(0, dtype=int32))
    """

    count: jax.Array
    """Steps taken, int32."""


class CompensatedRoundingState(NamedTuple):
    """State of `compensated_rounding`.

    Example:
        Half a step to the next bfloat16 number is no step, and is kept; a float32 leaf keeps nothing:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> params = {"b": jnp.ones(1), "w": jnp.ones(1, jnp.bfloat16)}
        >>> tx, u = dwd.compensated_rounding(), {"b": jnp.zeros(1), "w": jnp.full(1, 2.0**-9)}
        >>> u, state = tx.update(u, tx.init(params), params)
        >>> print(u["w"], 2**9 * state.residual["w"], state.residual["b"])
        [0.] [1] MaskedNode()
    """

    residual: Any
    """What the roundings so far took from the parameters, in their dtype; `optax.MaskedNode` for
    leaves of 32 bits or more, which lose nothing here."""


def to_float32() -> optax.GradientTransformation:
    r"""Widen 16-bit updates to float32: first in a chain that rounds last.

    $$u \leftarrow \text{float32}(u)$$

    Without it, transformations give back the dtype of the gradients, and a 16-bit update cannot take a
    16-bit parameter where rounding meant it to go. Updates of 32 bits or more pass as they are.

    It is for chains of this library's transformations; Optax's Adam changes the dtype of its moments
    behind it, so round other optimizers by `with_rounding`. `optax.apply_if_finite` goes inside, after
    it and around the rest, because skipped and taken steps must be of one dtype. `optax.MultiSteps`
    goes around the whole chain: between its real steps the updates are zero.

    Returns:
        A transformation with `optax.EmptyState()`, no bytes. It does not read `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> widen = dwd.to_float32()
        >>> u, _ = widen.update(jnp.array([0.5], jnp.bfloat16), widen.init(None))
        >>> u
        Array([0.5], dtype=float32)

    Source: of this library.
    """

    def init(params: Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        del params
        return jax.tree.map(_tree.widen, updates), state

    return optax.GradientTransformation(init, update)


def stochastic_rounding(seed: Number = 0) -> optax.GradientTransformation:
    r"""Choose one of the two nearest 16-bit parameters at random, right on average: last in a chain.

    $$u \leftarrow q - \theta, \quad q = \lfloor \theta + u \rfloor_{16} \text{ or }
    \lceil \theta + u \rceil_{16}, \quad \mathbb{E}\, q = \theta + u$$

    Rounded to nearest, a bfloat16 weight stays where it is under steps below 1/512 of it, decay among
    them. Here the steps add up on average. The update is in float32, and `optax.apply_updates` (so
    Flax's `TrainState` and `nnx.Optimizer`) lands on q exactly; `eqx.apply_updates` would make the
    parameters float32. Nothing may follow: what moves the sum off q has it rounded to nearest again.

    The bits are a hash of seed, step, the leaf's path and the element's index: no key to thread, and
    the same under `jit` with any sharding, and under `pmap` and `shard_map` for replicated leaves. A
    leaf that is sharded inside `shard_map` has local indices, so that its shards share bits (a `seed`
    with the device's index in it separates them); so do members of a `vmap`, and elements 2**32 apart.

    Args:
        seed: an integer, 0 or more, traced or not: runs with other seeds round differently.

    Returns:
        A transformation with state `StochasticRoundingState(count)`. It reads `params`, rounds where
        they are narrower than 32 bits, and gives back the dtype of the updates. Beyond the largest
        finite number it rounds as a cast; subnormal numbers of bfloat16 XLA may take for zero.

    Raises:
        TypeError: `seed` is no integer, or updates of 16-bit parameters have 16 bits themselves.
        ValueError: `seed` is negative, or trees differ.

    Example:
        A step a quarter of the way to the next bfloat16 number. A quarter of the weights take it:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta = jnp.ones(100_000, jnp.bfloat16)
        >>> tx = dwd.stochastic_rounding()
        >>> u, _ = tx.update(jnp.full(100_000, 2.0**-9), tx.init(theta), theta)
        >>> print(jnp.unique(u) * 2**7, round(float(jnp.mean(u != 0)), 2))
        [0. 1.] 0.25

    Source: Gupta et al., "Deep Learning with Limited Numerical Precision", arXiv 1502.02551.
    """
    check_integer("seed", seed, minimum=0)

    def init(params: Params) -> StochasticRoundingState:
        del params
        return StochasticRoundingState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, StochasticRoundingState]:
        _tree.check_params(params)
        _tree.check_state(state, "count")

        paths = _tree.paths(updates)

        def leaf(index: int, column: tuple[Any, ...]) -> tuple[jax.Array]:
            (u, p), path = column, paths[index]
            if not _is_rounded(path, u, p):
                return (u,)
            step, theta = u.astype(jnp.float32), p.astype(jnp.float32)
            bits = _rounding.random_bits(seed, state.count, f"params:{path}", p.shape)
            q = _rounding.round_stochastically(theta + step, p.dtype, bits)
            return (_rounding.landing_step(theta, step, q.astype(jnp.float32)).astype(u.dtype),)

        (updates,) = _tree.map_columns(leaf, updates, params=params)
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, StochasticRoundingState(count)

    return optax.GradientTransformation(init, update)


def compensated_rounding() -> optax.GradientTransformation:
    r"""Round to the nearest 16-bit parameter and carry what that took to the next step: last in a chain.

    $$u \leftarrow q - \theta, \quad q = \text{nearest}_{16}(\theta + (u + c)), \quad
    c \leftarrow \theta + (u + c) - q$$

    Parameter and residual together hold 16 bits of a bfloat16 weight and 22 of a float16 one (of a small
    one, multiples of 2**-24): steps too small for the parameter add up, without randomness. What is too
    small for the residual is lost: alone, a decay of less than 2**-18 (4e-6) per step of bfloat16
    weights does nothing, and from 2**-15 on it is right to 2 %. `stochastic_rounding` has no such limit
    before that of float32.

    The update is in float32, and `optax.apply_updates` lands on q exactly. Nothing may follow, as with
    `stochastic_rounding`.

    Returns:
        A transformation with state `CompensatedRoundingState(residual)`, 2 bytes a 16-bit parameter. It
        reads `params`, rounds where they are narrower than 32 bits, and gives back the dtype of the
        updates. A parameter that is not finite, or overflows, leaves no residual.

    Raises:
        TypeError: updates of 16-bit parameters have 16 bits themselves.
        ValueError: trees differ.

    Example:
        Each step is a quarter of the way to the next bfloat16 number. The second is a tie, which goes
        away from zero; the next two pay it back:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> theta = jnp.ones(1, jnp.bfloat16)
        >>> tx = dwd.compensated_rounding()
        >>> state = tx.init(theta)
        >>> for _ in range(4):
        ...     u, state = tx.update(jnp.full(1, 2.0**-9), state, theta)
        ...     theta = optax.apply_updates(theta, u)
        ...     print(2**7 * (theta - 1), 2**7 * state.residual)
        [0] [0.25]
        [1] [-0.5]
        [1] [-0.25]
        [1] [0]

    Source: Kahan, "Further remarks on reducing truncation errors", CACM 8(1), 1965; for training,
    Zamirai et al., "Revisiting BFloat16 Training", arXiv 2010.06192.
    """

    def init(params: Params) -> CompensatedRoundingState:
        residual = jax.tree.map(
            lambda p: jnp.zeros_like(p) if is_narrow(p.dtype) else optax.MaskedNode(), params
        )
        return CompensatedRoundingState(residual)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, CompensatedRoundingState]:
        _tree.check_params(params)
        _tree.check_state(state, "residual")

        paths = _tree.paths(updates)

        def leaf(index: int, column: tuple[Any, ...]) -> tuple[jax.Array, Any]:
            (u, c, p), path = column, paths[index]
            narrow = _is_rounded(path, u, p)
            if narrow == _tree.is_absent(c):
                given = "missing" if narrow else "there"
                raise ValueError(
                    f"`residual`{_tree.place(path)} is {given}, and the parameters there have dtype "
                    f"{p.dtype}: the `state` was made for others. Pass the state that `init` makes for "
                    "these; in Equinox, apply updates with `optax.apply_updates`, since "
                    "`eqx.apply_updates` makes 16-bit parameters float32."
                )
            if not narrow:
                return u, c
            step, theta = u.astype(jnp.float32), p.astype(jnp.float32)
            step = jnp.where(c == 0, step, step + c.astype(jnp.float32))  # -0 + 0 is 0.
            exact = theta + step
            q = _nearest(exact, p.dtype).astype(jnp.float32)
            lost = exact - q
            lost = _nearest(jnp.where(jnp.isfinite(lost), lost, 0), c.dtype)
            return _rounding.landing_step(theta, step, q).astype(u.dtype), lost

        updates, residual = _tree.map_columns(
            leaf, updates, params=params, partial=True, residual=state.residual
        )
        return updates, CompensatedRoundingState(residual)

    return optax.GradientTransformation(init, update)


def _nearest(x: jax.Array, dtype: Any) -> jax.Array:
    return _rounding.round_stochastically(x, dtype, _rounding.NEAREST)


def round_last(rounding: Rounding) -> optax.GradientTransformation:
    """The rounding that an optimizer's argument names."""
    check_option("rounding", rounding, ("stochastic", "compensated"))
    return stochastic_rounding() if rounding == "stochastic" else compensated_rounding()


def in_float32(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` on float32 copies of 16-bit parameters, beside float32 updates."""
    tx = optax.with_extra_args_support(tx)

    def wide(params: Params) -> Params:
        return jax.tree.map(_tree.widen, params)

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, Any]:
        return tx.update(updates, state, wide(params), **extra)

    return optax.GradientTransformationExtraArgs(lambda params: tx.init(wide(params)), update)


def with_rounding(
    tx: optax.GradientTransformation,
    rounding: Rounding | optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Round the 16-bit parameters of any finished optimizer once a step, at its end.

    $$u \leftarrow \text{round}_{16}(\theta + u) - \theta, \quad
    u = \texttt{tx}(\text{float32}(g), \text{float32}(\theta))$$

    `tx` sees float32 gradients and float32 copies of the parameters, so that its moments are float32,
    too. It is for optimizers that have no argument `rounding`, Optax's among them, and for wrappers that
    belong inside, such as `optax.apply_if_finite`. With this library's own, `rounding=` keeps moments in
    16 bits, too.

    Args:
        tx: an optimizer as `optax.adam(1e-3)` makes it.
        rounding: `"stochastic"`, `"compensated"`, or the transformation: `stochastic_rounding(seed=1)`.

    Returns:
        A finished optimizer, whose float32 updates `optax.apply_updates` applies; nothing may come
        after it.

    Raises:
        TypeError: `tx` or `rounding` is something else.
        ValueError: an unknown rounding.

    Example:
        A step of 1/1000 is lost on a bfloat16 weight of 1, and not on average when rounded at random:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.ones(100_000, jnp.bfloat16), jnp.ones(100_000, jnp.bfloat16)
        >>> for tx in (optax.sgd(0.001), dwd.with_rounding(optax.sgd(0.001), "stochastic")):
        ...     u, _ = tx.update(g, tx.init(theta), theta)
        ...     end = optax.apply_updates(theta, u).astype(jnp.float32)
        ...     print(round(float(jnp.mean(1 - end)), 4))
        0.0
        0.001

    Source: of this library.
    """
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(
            f"`tx` is {type(tx).__name__}, not an optax.GradientTransformation: pass an optimizer such "
            "as optax.adam(1e-3). optax.MultiSteps goes around the result."
        )
    if not isinstance(rounding, optax.GradientTransformation):
        rounding = round_last(rounding)
    return optax.chain(to_float32(), in_float32(tx), rounding)


def _is_rounded(path: str, update: jax.Array, parameter: jax.Array) -> bool:
    """Whether the parameter is narrow. Refuse updates that were rounded before they got here."""
    narrow = is_narrow(parameter.dtype)
    if narrow and (is_narrow(update.dtype) or jnp.iscomplexobj(update)):
        raise TypeError(
            f"`updates`{_tree.place(path)} have dtype {update.dtype} beside {parameter.dtype} "
            "parameters, and float32 updates are needed: what was rounded before cannot be rounded "
            "well. Put `to_float32()` first in the chain."
        )
    return narrow


def warn_of_narrow_moments(**moments: Any) -> None:
    """Say which moments are stored in 16 bits, where an average with slow decay stands still."""
    narrow = [
        name
        for name, tree in moments.items()
        if any(is_narrow(leaf.dtype) for leaf in jax.tree.leaves(tree))
    ]
    if narrow:
        named = " and ".join(f"`{name}`" for name in narrow)
        wide = " and ".join(f"{name}_dtype='float32'" for name in narrow)
        frozen = ": with b2 = 0.999 a bfloat16 `nu` stays where it is" if "nu" in narrow else ""
        warn(
            f"{named} will be stored in 16 bits and rounded to nearest. An average that moves by "
            f"less than half a unit in the last place a step then stands still{frozen}. Pass {wide} "
            "to keep averages in float32, or rounding='stochastic' to round them at random, right on "
            "average (moment_rounding='stochastic' in a transformation alone)."
        )
