"""Place A: the penalty's gradient is added to the loss's, and goes through the moments with it."""

from typing import Any, NamedTuple

import jax
import optax

from decoupled_wd._add_penalty import Axes, add_penalty
from decoupled_wd._penalty import L1, L2, elastic_net
from decoupled_wd._typing import Mask, Number, NumberOrSchedule
from decoupled_wd.gates import Gate
from decoupled_wd.strengths import Strength


class AddL2ToGradState(NamedTuple):
    """State of `add_l2_to_grad`.

    Example:
        In `adam_l2` it stands first, before Adam's moments; Optax finds its numbers by name:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> state = dwd.adam_l2(0.1, weight_decay=0.5).init(jnp.ones(3))
        >>> isinstance(state[0], dwd.AddL2ToGradState), float(optax.tree.get(state, "weight_decay"))
        (True, 0.5)
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """The coefficient of the last step (before the first: of step 0), float32, before the mask."""


class AddPenaltyToGradState(NamedTuple):
    """State of `add_l1_to_grad` and `add_elastic_net_to_grad`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> l1, theta = dwd.add_l1_to_grad(lambda step: 0.5 / (1 + step)), jnp.ones(3)
        >>> state = l1.init(theta)
        >>> for _ in range(2):
        ...     _, state = l1.update(theta, state, theta)
        >>> int(state.count), float(state.weight_decay)  # two steps, the second with 0.5 / 2
        (2, 0.25)
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """The coefficient of the last step (before the first: of step 0), float32, before the mask."""


def add_l2_to_grad(
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    toward: Any = None,
    gate: Gate | None = None,
    strength: Strength | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of an L2 penalty to the gradient of the loss: L2 regularization.

    $$g \leftarrow g + \lambda' (\theta - \theta_{ref})$$

    It belongs first in the chain. What follows does to the penalty what it does to the loss: under
    Adam it is divided by the root of the second moment, so weights with large gradients hardly
    decay. For weight decay that reaches the weights as it is, see `decoupled_weight_decay`.

    Here $\lambda'$ is per unit of gradient: the penalty is $\tfrac{\lambda'}{2} |\theta|^2$.

    Args:
        weight_decay: $\lambda'$, 0 or more; a number, traced or not, or a callable of the step.
        mask: which leaves; bools or multipliers as a tree like the parameters, a prefix of one, a
            function of the parameters that gives one, or rules (`masks.by_path`) or a preset
            (`masks.matrices`). None is every leaf.
        toward: $\theta_{ref}$: `"initial"`, the parameters at `init` (L2-Init); a tree like the
            parameters (L2-SP); `moving_average(...)` of them. None is zero.
        gate: when, of the module `gates`; None is always.
        strength: a rule of the module `strengths` that multiplies $\lambda'$; None is 1.

    Returns:
        A transformation with state `AddL2ToGradState(count, weight_decay)`, or
        `DecayMemoryState(count, weight_decay, memory)` where something is remembered. It reads
        `params` and gives back the dtype of the updates.

    Raises:
        TypeError: `weight_decay` is neither number nor callable or has 16 bits, `mask` is a scalar,
            `toward` is no tree of arrays, complex parameters have real updates.
        ValueError: `weight_decay` is negative, trees differ, or the mask leaves nothing to decay.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> l2 = dwd.add_l2_to_grad(0.5)
        >>> theta = jnp.array([4.0])
        >>> g, state = l2.update(jnp.array([1.0]), l2.init(theta), theta)
        >>> float(g[0])  # 1 + 0.5 * 4
        3.0

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithms 1 and 2, line 6; towards a point Li et
    al. 2018, arXiv 1802.01483 (L2-SP), and Kumar et al. 2023, arXiv 2308.11958 (L2-Init, whose penalty
    has no 1/2 in the paper).
    """
    axes = Axes(L2, toward, gate, strength)
    return add_penalty(weight_decay, mask, axes, AddL2ToGradState, "gradients")


def add_l1_to_grad(
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    toward: Any = None,
    gate: Gate | None = None,
    strength: Strength | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of an L1 penalty to the gradient of the loss.

    $$g \leftarrow g + \lambda' \, \text{sign}(\theta - \theta_{ref})$$

    It makes no weight 0: at the kink it swings, and under Adam, which divides the penalty with the
    gradient, by as much as alpha. For zeros use `proximal_weight_decay(..., penalty=L1)`.

    Here $\lambda'$ is per unit of gradient: the penalty is $\lambda' |\theta|_1$.

    Args:
        weight_decay: $\lambda'$, 0 or more; a number, traced or not, or a callable of the step.
        mask: as in `add_l2_to_grad`.
        toward: as there.
        gate: as there.
        strength: as there.

    Returns:
        A transformation with state `AddPenaltyToGradState(count, weight_decay)`, or
        `DecayMemoryState` where something is remembered. It reads `params` and gives back the dtype
        of the updates.

    Raises:
        TypeError, ValueError: as in `add_l2_to_grad`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> l1 = dwd.add_l1_to_grad(0.5)
        >>> theta = jnp.array([4.0, -4.0, 0.0])
        >>> g, state = l1.update(jnp.ones(3), l1.init(theta), theta)
        >>> print(g)
        [1.5 0.5 1. ]

    Source: Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    axes = Axes(L1, toward, gate, strength)
    return add_penalty(weight_decay, mask, axes, AddPenaltyToGradState, "gradients")


def add_elastic_net_to_grad(
    weight_decay: NumberOrSchedule,
    l1_ratio: Number,
    mask: Mask = None,
    *,
    toward: Any = None,
    gate: Gate | None = None,
    strength: Strength | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of an elastic net, a mixture of L1 and L2, to the gradient of the loss.

    $$g \leftarrow g + \lambda' \left( r \, \text{sign}(x) + (1 - r) x \right), \quad
    x = \theta - \theta_{ref}$$

    Of zeros the same is to be said as in `add_l1_to_grad`.

    Here $\lambda'$ is per unit of gradient: the penalty is
    $\lambda' (r |x|_1 + \tfrac{1-r}{2} |x|_2^2)$.

    Args:
        weight_decay: $\lambda'$, 0 or more; a number, traced or not, or a callable of the step.
        l1_ratio: r, the part of L1, in [0, 1].
        mask: as in `add_l2_to_grad`.
        toward: as there.
        gate: as there.
        strength: as there.

    Returns:
        A transformation with state `AddPenaltyToGradState(count, weight_decay)`, or
        `DecayMemoryState` where something is remembered. It reads `params` and gives back the dtype
        of the updates.

    Raises:
        TypeError, ValueError: as in `add_l2_to_grad`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> penalty = dwd.add_elastic_net_to_grad(1.0, 0.5)
        >>> theta = jnp.array([4.0, -4.0, 0.0])
        >>> g, state = penalty.update(jnp.zeros(3), penalty.init(theta), theta)
        >>> print(g)
        [ 2.5 -2.5  0. ]

    Source: Zou and Hastie 2005, "Regularization and variable selection via the elastic net".
    """
    axes = Axes(elastic_net(l1_ratio), toward, gate, strength)
    return add_penalty(weight_decay, mask, axes, AddPenaltyToGradState, "gradients")
