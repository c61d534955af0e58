"""Decay of embedding tables: a row that a step leaves alone is not written, and catches up later."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _check, _tree, masks
from decoupled_wd._typing import Mask, NumberOrSchedule, Params, Updates


class LazyDecayState(NamedTuple):
    """State of `lazy_decay`.

    Example:
        Row 0 has waited for two steps of 1/2, and 3/4 of it are yet to go; row 1 was updated:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx, theta = dwd.lazy_decay(0.5), jnp.array([8.0, 8.0])
        >>> state = tx.init(theta)
        >>> for _ in range(2):
        ...     _, state = tx.update(jnp.array([0.0, 1.0]), state, theta)
        >>> print(state.pending)
        [0.75 0.  ]
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """d of the last step (before the first: of step 0), float32, before the mask."""
    pending: Params
    """A tree like the parameters: for each row the part that the steps since its last update have yet
    to remove, 1 - prod(1 - d_s), float32 (float64 beside 64-bit parameters)."""


def lazy_decay(weight_decay: NumberOrSchedule, mask: Mask = None) -> optax.GradientTransformation:
    r"""Decay a row only in steps that update it, then by all that it missed: decay for embeddings.

    $$\text{row touched:}\quad u \leftarrow u + \Big(1 - \prod_{s=t_0+1}^{t} (1 - d_s)\Big) \theta,
    \qquad \text{else } u \leftarrow 0$$

    $t_0$ is the step of the row's last update. A row is an entry of the leading axis (of a vector a
    number; a scalar is one row), and it is touched if any of its updates *as they arrive here* is not
    exactly 0. Under momentum or Adam a row moves on after its gradient is gone, and so is touched.
    In `shard_map`, rows may be split over devices and columns may not: each device judges by what it has
    of a row. Under `jit` both may.

    d is per step (place D): it stands after the learning rates, before the final multiplication by -1.
    Never after a finished optimizer such as `optax.sgd(0.1)`: its updates have the sign of a step, and
    the weights would grow. Write it out, the sign last and not in `scale_by_learning_rate`:
    `chain(scale_by_learning_rate(0.1, flip_sign=False), lazy_decay(d), scale(-1.0))`.
    A touched row is where `decoupled_weight_decay` would have brought it, up to rounding, as long as
    no gradient, and nothing in front in the chain, reads rows that wait. What reads them takes
    `caught_up(params, state)` instead.

    Args:
        weight_decay: d, 0 or more, and less than 1 where it is a number that is not traced; or a
            callable of the step.
        mask: which leaves; as in `decoupled_weight_decay`.

    Returns:
        A transformation with state `LazyDecayState(count, weight_decay, pending)`, 4 bytes a row. It
        reads `params` and gives back the dtype of the updates.

    Raises:
        TypeError: `weight_decay` is neither number nor callable or has 16 bits, `mask` is a scalar,
            complex parameters have real updates.
        ValueError: `weight_decay` is negative, or 1 or more; trees differ, or the mask leaves nothing
            to decay.

    Example:
        Row 0 has a gradient in the second step only, and halves twice there; row 1 in each:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> tx = optax.chain(optax.scale(0.5), dwd.lazy_decay(0.5), optax.scale(-1.0))
        >>> theta = jnp.array([8.0, 8.0])
        >>> state = tx.init(theta)
        >>> for g in (jnp.array([0.0, 2.0]), jnp.array([2.0, 2.0])):
        ...     u, state = tx.update(g, state, theta)
        ...     theta = optax.apply_updates(theta, u)
        ...     print(theta)
        [8. 3.]
        [1.  0.5]

    Source: row l1 of this library's catalogue: steps without gradient multiply to one product.
    """
    _check.check_number_or_schedule("weight_decay", weight_decay, minimum=0.0)
    removed = _check.concrete(weight_decay)
    if removed is not None and removed >= 1:
        raise ValueError(
            f"`weight_decay` is {removed:g}, which removes {removed:.2%} of every decayed weight per "
            "step. If the number comes from elsewhere: optax.adamw, torch.optim.AdamW and Keras "
            "multiply it by the learning rate, and here it is per step; pass weight_decay * "
            "learning_rate."
        )
    masks.check_mask(mask)

    def rate_at(count: jax.Array) -> jax.Array:
        return _tree.scalar("weight_decay", weight_decay, count)

    def init(params: Params) -> LazyDecayState:
        masks.check_decays_something(mask, params)
        count = jnp.zeros([], jnp.int32)
        pending = jax.tree.map(lambda theta: jnp.zeros_like(_touched(theta)), params)
        return LazyDecayState(count, rate_at(count).astype(jnp.float32), pending)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, LazyDecayState]:
        _tree.check_params(params)
        _tree.check_state(state, "pending")
        rate = rate_at(state.count)

        def decay_of_rows(touched: jax.Array, multiplier: Any = True) -> jax.Array:
            strength = _tree.cast(rate, touched.dtype) * _tree.like(multiplier, touched)
            return strength * jnp.ones_like(touched)

        def settle(
            touched: jax.Array, decay: jax.Array, pending: jax.Array
        ) -> tuple[jax.Array, ...]:
            # As what is removed and not as what is left: 1 - (1 - d) has few digits of a small d.
            touched, decay = (_tree.cast(x, pending.dtype) for x in (touched, decay))
            owed = pending + decay * (1 - pending)
            return touched * owed, decay, (1 - touched) * owed

        def remove(u: jax.Array, theta: jax.Array, owed: jax.Array) -> jax.Array:
            owed = jnp.expand_dims(_tree.cast(owed, u.dtype), range(jnp.ndim(owed), jnp.ndim(u)))
            return jnp.where(owed == 0, u, u + owed * _tree.cast(theta, u.dtype))

        touched = jax.tree.map(_touched, updates)
        multipliers = None if mask is None else masks.multipliers(mask, params)
        decays = _tree.map_leaves(decay_of_rows, touched, extra=multipliers)
        owed, _, pending = _tree.map_leaves_with_state(
            settle, touched, decay=decays, pending=state.pending
        )
        updates = _tree.map_leaves(remove, updates, extra=owed, params=params)
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, LazyDecayState(count, rate.astype(jnp.float32), pending)

    return optax.GradientTransformation(init, update)


def caught_up(params: Params, state: Any) -> Params:
    r"""Give the parameters as they would be if no row were waiting for its decay.

    $$\theta \prod_{s=t_0+1}^{t} (1 - d_s)$$

    For evaluation, for export, and for a loss that reads rows which the step does not update. There
    take the gradient *at* these parameters, `jax.grad(loss)(caught_up(params, state))`: the chain rule
    through `caught_up` would make it smaller. Training goes on from `params` themselves: with these
    in their place, what is pending would be removed twice.

    Args:
        params: the parameters that `state` goes with.
        state: the state of any chain or wrapper that holds `lazy_decay`.

    Returns:
        A tree like `params`, of the same dtypes.

    Raises:
        ValueError: the state holds no `LazyDecayState`, or one of other parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx = dwd.lazy_decay(0.5)
        >>> theta = jnp.array([8.0, 4.0])
        >>> _, state = tx.update(jnp.array([0.0, 1.0]), tx.init(theta), theta)
        >>> print(dwd.caught_up(theta, state))  # row 1 was touched, and nothing of it is pending
        [4. 4.]
    """

    def is_state(node: Any) -> bool:
        return isinstance(node, LazyDecayState)

    found = [node for node in jax.tree.leaves(state, is_leaf=is_state) if is_state(node)]
    if not found:
        raise ValueError(
            "`state` holds no LazyDecayState, so no row of `params` waits for its decay. Pass the "
            "state of an optimizer with `lazy_decay`; in Flax, `train_state.opt_state`."
        )

    for node in found:
        try:
            params = jax.tree.map(_catch_up, node.pending, params, is_leaf=_tree.is_leaf)
        except ValueError:
            raise ValueError(
                "`params` are not those that `state` goes with: they differ in structure or in the "
                "length of their leading axes. Pass parameters and state of the same step."
            ) from None
    return params


def _catch_up(pending: Any, theta: Any) -> Any:
    """One leaf; in an NNX state the array in each is in a Variable."""
    if _tree.is_absent(pending):
        return theta
    (owed,) = jax.tree.leaves(pending)

    def leaf(x: Any) -> jax.Array:
        if jnp.shape(x)[: owed.ndim] != owed.shape:
            raise ValueError
        kept = _tree.cast(1 - owed, _tree.widen(x).dtype)
        kept = jnp.expand_dims(kept, range(kept.ndim, jnp.ndim(x)))
        return _tree.cast(_tree.widen(x) * kept, jnp.result_type(x))

    return jax.tree.map(leaf, theta)


def _touched(u: Any) -> jax.Array:
    """1 for the rows that are not all 0, and 0 for the others, in at least float32."""
    dtype = jnp.finfo(_tree.widen(u).dtype).dtype if _tree.is_inexact(u) else jnp.float32
    return jnp.any(u != 0, axis=tuple(range(1, jnp.ndim(u)))).astype(dtype)
