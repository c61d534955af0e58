"""L2 regularization whose coefficient follows the loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd import _check, _tree, masks
from decoupled_wd._add_penalty import Axes, add_penalty
from decoupled_wd._typing import Mask, Number, NumberOrSchedule, Params, Updates

_FACTOR = 10.0
_WORST = float(np.finfo(np.float32).max)


class AutoL2State(NamedTuple):
    """State of `add_auto_l2_to_grad`.

    Example:
        A loss that stays 1 shows in the third measurement, that of step 2:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx, theta = dwd.add_auto_l2_to_grad(0.5, measure_every=1), jnp.array([2.0])
        >>> state = tx.init(theta)
        >>> for _ in range(3):
        ...     _, state = tx.update(theta, state, theta, value=1.0)
        >>> int(state.drops), int(state.dropped_at), round(float(state.weight_decay), 6)
        (1, 2, 0.05)
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """The coefficient of the last step (before the first: of step 0), float32, before the mask."""
    drops: jax.Array
    """How often the coefficient was divided by 10, int32."""
    dropped_at: jax.Array
    """The step of the last division (before the first: 0), int32."""
    previous: jax.Array
    """The loss at the last measurement, float32; the largest number before."""
    best: jax.Array
    """The least loss of the measurements before that one, float32; the largest number without."""


def add_auto_l2_to_grad(
    weight_decay: NumberOrSchedule = 0.1,
    mask: Mask = None,
    *,
    measure_every: Number = 10,
    refractory: Number = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of an L2 penalty that is divided by 10 when the loss stalls: AutoL2.

    $$g \leftarrow g + \lambda'_t \theta, \qquad \lambda'_t = \lambda' / 10^{k_t}$$

    $k_t$ grows by 1 at a measurement (steps 0, n, 2n, ... with n `measure_every`) if neither it nor the
    one before is below the best before these two, and if more than `refractory` $/ \lambda'_t$ steps
    have passed since $k_t$ last grew (or step 0). A measurement is the loss without penalty on the
    batch of its step, as it is in the source; this step has the new coefficient already. A loss that is
    NaN is no measurement.

    $\lambda'$ is per unit of gradient: the penalty is $\tfrac{\lambda'}{2} |\theta|^2$.

    Args:
        weight_decay: $\lambda'$, 0 or more; a number, traced or not, or a callable of the step.
        mask: which leaves; as in `add_l2_to_grad`.
        measure_every: n, steps between measurements, an integer, 1 or more.
        refractory: 0 or more, in units of steps times $\lambda'_t$; a period in epochs times learning
            rate is to be multiplied by the steps of an epoch and divided by the learning rate.

    Returns:
        A transformation whose `update` needs the loss as an extra argument:
        `update(updates, state, params, value=loss)`. Its state is `AutoL2State`. It gives back the
        dtype of the updates.

    Raises:
        TypeError: a callable or a 16-bit array where a number is meant, `mask` is a scalar.
        ValueError: a number out of range, no `value`, trees differ, or nothing is left to decay.

    Example:
        The loss is 1 all the time, which shows in the third measurement:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx, theta = dwd.add_auto_l2_to_grad(0.5, measure_every=1), jnp.array([2.0])
        >>> state = tx.init(theta)
        >>> for _ in range(3):
        ...     g, state = tx.update(jnp.array([0.0]), state, theta, value=1.0)
        ...     print(g)
        [1.]
        [1.]
        [0.1]

    Source: Lewkowycz and Gur-Ari, arXiv 2006.08643, and their google/autol2. Theirs too: 0.1, 10, n, the
    period in steps (its flag says epochs times learning rate). Theirs alone: a stalled training error
    drops it too; the penalty has no 1/2, so their 0.1 is 0.2 here.
    """
    _check.check_number_or_schedule("weight_decay", weight_decay, minimum=0.0)
    masks.check_mask(mask)
    _check.check_integer("measure_every", measure_every, minimum=1)
    _check.check_number("refractory", refractory, minimum=0.0)

    def rate_at(count: jax.Array, drops: jax.Array) -> jax.Array:
        rate = _tree.scalar("weight_decay", weight_decay, count)
        return rate / jnp.asarray(_FACTOR, rate.dtype) ** drops.astype(rate.dtype)

    def measure(state: Any, value: jax.Array) -> Any:
        now = (state.count % _check.as_integer(measure_every) == 0) & ~jnp.isnan(value)
        period = jnp.asarray(refractory, _tree.default_float()) / rate_at(state.count, state.drops)
        # In float32 0.1 / 0.001 is 99.99999: a period of 100 steps must not end with the 100th.
        rested = (state.count - state.dropped_at).astype(period.dtype) > period * (1 + 1e-6)
        # False while there is no best, as no loss is that large.
        stalls = state.best <= jnp.minimum(state.previous, value)
        drop = now & rested & stalls
        return state._replace(
            drops=state.drops + drop.astype(jnp.int32),
            dropped_at=jnp.where(drop, state.count, state.dropped_at),
            previous=jnp.where(now, value, state.previous),
            best=jnp.where(now, jnp.minimum(state.best, state.previous), state.best),
        )

    def init(params: Params) -> optax.OptState:
        def first(count: jax.Array, rate: jax.Array) -> AutoL2State:
            # Each an array of its own, for donation, and varying over devices as the rate does.
            drops, dropped_at = (jnp.zeros_like(rate, jnp.int32) for _ in range(2))
            previous, best = (jnp.full_like(rate, _WORST) for _ in range(2))
            return AutoL2State(count, rate, drops, dropped_at, previous, best)

        return add_penalty(weight_decay, mask, Axes(), first).init(params)

    def update(
        updates: Updates,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[Updates, optax.OptState]:
        del extra_args
        _tree.check_state(state, "dropped_at")
        measured = measure(state, _as_loss(value))
        penalty = add_penalty(
            rate_at(state.count, measured.drops),
            mask,
            Axes(),
            lambda count, rate: measured._replace(count=count, weight_decay=rate),
        )
        return penalty.update(updates, state, params)

    return optax.GradientTransformationExtraArgs(init, update)


def _as_loss(value: Any) -> jax.Array:
    if value is None:
        raise ValueError(
            "`value` is None, and this transformation reads the loss: call "
            "`update(updates, state, params, value=loss)`. Flax's `TrainState.apply_gradients` cannot "
            "hand it on: call `tx.update(grads, state.opt_state, state.params, value=loss)`, and put "
            "what it gives into the TrainState. `nnx.Optimizer.update(model, grads, value=loss)` works."
        )
    if jnp.ndim(value):
        raise ValueError(
            f"`value` has shape {jnp.shape(value)}, and the loss is needed, a scalar. Pass its mean."
        )
    return jnp.minimum(jnp.asarray(value, jnp.float32), _WORST / 2)
