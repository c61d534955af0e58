r"""The one core transformation: add $\lambda_t m (\theta - \theta_{ref})$ to the updates.

$\lambda_t$ is how much (a number or a schedule), m is where (the mask's multiplier of the leaf), and
$\theta_{ref}$ is towards what. What the term *means* is decided by its place in the chain: before
the moments it is L2 regularization, after them weight decay.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from decoupled_wd import _check, _tree, masks
from decoupled_wd._typing import Mask, NumberOrSchedule, Params, Updates


def add_penalty(
    weight_decay: NumberOrSchedule,
    mask: Mask,
    toward: Params | None,
    make_state: Callable[[jax.Array, jax.Array], Any],
    sign: float = 1.0,
) -> optax.GradientTransformation:
    """Build the transformation; `make_state(count, weight_decay)` names the place in its state.

    `sign` is -1 where the updates have the sign of a step already.
    """
    _check.check_number_or_schedule("weight_decay", weight_decay, minimum=0.0)
    masks.check_mask(mask)
    _check.check_tree("toward", toward)

    def state_at(count: jax.Array) -> tuple[jax.Array, Any]:
        rate = _tree.scalar("weight_decay", weight_decay, count)
        return rate, make_state(count, rate.astype(jnp.float32))

    def init(params: Params) -> Any:
        masks.check_decays_something(mask, params)
        if toward is not None:
            _tree.check_like("toward", toward, params)
        # The rate of step 0 and not a zero: in a sweep under `shard_map` it varies over devices as
        # the rate does, which a constant would not.
        return state_at(jnp.zeros([], jnp.int32))[1]

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        _tree.check_params(params)
        _tree.check_state(state, "count")
        rate, used = state_at(state.count)
        signed = sign * rate

        def leaf(u: jax.Array, theta: jax.Array, *rest: Any) -> jax.Array:
            *reference, multiplier = rest if mask is not None else (*rest, True)
            if masks.is_zero(multiplier):
                return u
            distance = _tree.cast(theta, u.dtype)
            if reference:
                distance = distance - _tree.cast(reference[0], u.dtype)
            strength = _tree.cast(signed, u.dtype)
            if multiplier is True:
                return u + strength * distance
            decayed = u + strength * jnp.asarray(multiplier, u.dtype) * distance
            # A multiplier that is 0 leaves alone what is not finite, too.
            traced = isinstance(multiplier, Tracer)
            return jnp.where(multiplier == 0, u, decayed) if traced else decayed

        beside = {"params": params} if toward is None else {"params": params, "toward": toward}
        multipliers = None if mask is None else masks.multipliers(mask, params)
        updates = _tree.map_leaves(leaf, updates, extra=multipliers, **beside)
        return updates, used._replace(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
