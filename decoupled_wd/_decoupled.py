"""Places B, C and D: the decay reaches the weights without passing through the moments."""

from typing import Any, NamedTuple

import jax
import optax

from decoupled_wd import _tree
from decoupled_wd._add_penalty import Axes, DecayMemoryState, add_penalty
from decoupled_wd._auto_l2 import AutoL2State
from decoupled_wd._coupled import AddL2ToGradState, AddPenaltyToGradState
from decoupled_wd._lazy import LazyDecayState
from decoupled_wd._penalty import L2, Penalty, Tracking
from decoupled_wd._proximal import ProximalWeightDecayState
from decoupled_wd._typing import Mask, NumberOrSchedule
from decoupled_wd.gates import Gate
from decoupled_wd.strengths import Strength


class DecoupledWeightDecayState(NamedTuple):
    """State of `decoupled_weight_decay`.

    Example:
        A decay that halves with every step; before the first step the state has that of step 0:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay, theta = dwd.decoupled_weight_decay(lambda step: 0.5 ** (step + 1)), jnp.ones(3)
        >>> state = decay.init(theta)
        >>> for _ in range(3):
        ...     print(int(state.count), float(state.weight_decay))
        ...     _, state = decay.update(theta, state, theta)
        0 0.5
        1 0.5
        2 0.25
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """lambda_t of the last step (before the first: of step 0), float32, in the unit of its place,
    before the mask. It is there to be read; the arithmetic does not use it."""


def decoupled_weight_decay(
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    penalty: Penalty | Tracking = L2,
    toward: Any = None,
    gate: Gate | None = None,
    strength: Strength | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Add the decay of the weights to updates that still have the sign of the gradient.

    $$u \leftarrow u + \lambda_t s \, \partial\Omega(\theta - \theta_{ref})$$

    With nothing but $\lambda$ that is $u + \lambda_t \theta$. The other arguments combine freely:
    cautious decay of an elastic net towards the initial point is one call.

    Its place in the chain says what $\lambda$ is per:

    | place | chain | decay per step |
    |---|---|---|
    | B | ... `scale_by_adam`, **here**, times alpha, times eta_t, times -1 | alpha eta_t lambda |
    | C | ... `scale_by_adam`, times alpha, **here**, times eta_t, times -1 | eta_t lambda |
    | D | ... `scale_by_adam`, times alpha, times eta_t, **here**, times -1 | lambda |

    It does not know its place, so it cannot warn of a decay that 16-bit parameters are too coarse for,
    as the optimizers do.

    Never after a finished optimizer such as `optax.adam(1e-3)`: its updates have the sign of a step, and
    the term would make the weights grow. `extend_with_decoupled_weight_decay` is for those.

    Args:
        weight_decay: $\lambda$, 0 or more; a number, traced or not, or a callable of the step.
        mask: which leaves; bools or multipliers as a tree like the parameters, a prefix of one, a
            function of the parameters that gives one, or rules (`masks.by_path`) or a preset
            (`masks.matrices`). None is every leaf.
        penalty: $\Omega$: `L2`, `L1`, `elastic_net(...)`, `huber(...)`, `power(...)` or
            `huber_tracking(...)`.
        toward: $\theta_{ref}$: `"initial"`, the parameters at `init`; a tree like the parameters;
            `moving_average(...)` of them. None is zero.
        gate: when, of the module `gates`; None is always.
        strength: s, a rule of the module `strengths` that multiplies $\lambda$; None is 1.

    Returns:
        A transformation with state `DecoupledWeightDecayState(count, weight_decay)`, or
        `DecayMemoryState(count, weight_decay, memory)` where something is remembered: the initial
        point, an average, a norm. It reads `params` and gives back the dtype of the updates.

    Raises:
        TypeError: `weight_decay` is neither number nor callable or has 16 bits, `mask` is a scalar,
            `toward` is no tree of arrays, complex parameters have real updates; `penalty`, `gate` or
            `strength` is something else.
        ValueError: `weight_decay` is negative, trees differ, or the mask leaves nothing to decay.

    Example:
        The paper's AdamW, decay at place C. The weight 2 has no gradient; it decays by a tenth:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> adamw = optax.chain(
        ...     optax.scale_by_adam(), optax.scale(0.001), dwd.decoupled_weight_decay(0.1),
        ...     optax.scale(-1.0))
        >>> theta = jnp.array([2.0])
        >>> u, state = adamw.update(jnp.array([0.0]), adamw.init(theta), theta)
        >>> round(float(optax.apply_updates(theta, u)[0]), 6)
        1.8

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 2, line 12 (place C).
    """
    return add_penalty(
        weight_decay, mask, Axes(penalty, toward, gate, strength), DecoupledWeightDecayState
    )


def decay_finished_step(
    weight_decay: NumberOrSchedule, mask: Mask, axes: Axes
) -> optax.GradientTransformationExtraArgs:
    """`decoupled_weight_decay` at place D for updates whose sign is turned already: u - lambda theta.

    The same bits as between two multiplications by -1, without their trace and compilation.
    """
    return add_penalty(weight_decay, mask, axes, DecoupledWeightDecayState, "steps")


def applied_weight_decay(state: Any) -> Any:
    """Read the decay that the last update used from an optimizer's state, for logging.

    It is lambda_t as it was given, before what comes later in the chain: under `coupling="schedule"`
    a constant decay is logged as that constant, also when a cosine takes the steps to 0. The decay per
    step is `schedule(step) * applied_weight_decay(state)`, the first step being 0, under
    `"learning_rate"` times the learning rate as well; `diagnostics.effective_decay` measures it for
    each leaf under every coupling and mask.

    Args:
        state: the state of any chain or wrapper that holds one of this library's decays.

    Returns:
        A float32 scalar (batched as the state is), in the unit of the decay's place; before the
        first update, the value of step 0. With several decays, as under `optax.partition`, a
        dictionary from the place in the state to the value.

    Raises:
        ValueError: the state holds no decay of this library.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(lambda step: 0.5 ** (step + 1))
        >>> theta = jnp.array([2.0])
        >>> state = decay.init(theta)
        >>> _, state = decay.update(theta, state, theta)
        >>> _, state = decay.update(theta, state, theta)
        >>> float(dwd.applied_weight_decay(state))
        0.25

        Decay at place C, and a schedule that halves the steps:

        >>> schedule = lambda step: 0.5**step
        >>> tx = optax.chain(dwd.decoupled_weight_decay(0.5), optax.scale_by_schedule(schedule))
        >>> u, state = tx.update(jnp.array([0.0]), tx.init(theta), theta)
        >>> u, state = tx.update(jnp.array([0.0]), state, theta)
        >>> applied = float(dwd.applied_weight_decay(state))
        >>> applied, schedule(1) * applied
        (0.5, 0.25)
        >>> print(u / theta)
        [0.25]
    """
    kinds = (
        DecoupledWeightDecayState, ProximalWeightDecayState, DecayMemoryState, LazyDecayState,
        AddL2ToGradState, AddPenaltyToGradState, AutoL2State,
    )  # fmt: skip
    found = {
        # In an NNX optimizer the array is in a Variable.
        _tree.path_name(path): jax.tree.leaves(node.weight_decay)[0]
        for path, node in jax.tree_util.tree_leaves_with_path(
            state, is_leaf=lambda node: isinstance(node, kinds)
        )
        if isinstance(node, kinds)
    }
    if not found:
        raise ValueError(
            f"`state` holds no {', '.join(kind.__name__ for kind in kinds[:-1])} or "
            f"{kinds[-1].__name__}, so no decay of this library was applied. Pass the optimizer's "
            "state; in Flax, `train_state.opt_state`."
        )
    return next(iter(found.values())) if len(found) == 1 else found
