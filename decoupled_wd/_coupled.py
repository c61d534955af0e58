"""Place A: the penalty's gradient is added to the loss's, and goes through the moments with it."""

from typing import NamedTuple

import jax
import optax

from decoupled_wd._add_penalty import add_penalty
from decoupled_wd._typing import Mask, NumberOrSchedule, Params


class AddL2ToGradState(NamedTuple):
    """State of `add_l2_to_grad`."""

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """The coefficient of the last step (before the first: of step 0), float32, before the mask."""


def add_l2_to_grad(
    weight_decay: NumberOrSchedule, mask: Mask = None, *, toward: Params | None = None
) -> optax.GradientTransformation:
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
        toward: $\theta_{ref}$, a tree like the parameters; zero if None.

    Returns:
        A transformation with state `AddL2ToGradState(count, weight_decay)`. It reads `params` and
        gives back the dtype of the updates.

    Raises:
        TypeError: `weight_decay` is neither number nor callable or has 16 bits, `mask` is a scalar,
            `toward` is no tree of arrays, complex parameters have real updates.
        ValueError: `weight_decay` is negative, trees differ, or the mask leaves nothing to decay.

    Example:
        >>> import jax.numpy as jnp
        >>> l2 = add_l2_to_grad(0.5)
        >>> theta = jnp.array([4.0])
        >>> g, state = l2.update(jnp.array([1.0]), l2.init(theta), theta)
        >>> float(g[0])  # 1 + 0.5 * 4
        3.0

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithms 1 and 2, line 6.
    """
    return add_penalty(weight_decay, mask, toward, AddL2ToGradState)
