"""Implicit decay: the penalty's proximal step, from where the step without decay ends."""

from typing import Any, NamedTuple

import jax
import optax

from decoupled_wd._add_penalty import Axes, add_penalty
from decoupled_wd._penalty import L2, Penalty, Tracking
from decoupled_wd._typing import Mask, NumberOrSchedule
from decoupled_wd.gates import Gate
from decoupled_wd.strengths import Strength


class ProximalWeightDecayState(NamedTuple):
    """State of `proximal_weight_decay`.

    Example:
        The decay is 1, by which a weight loses a half, 1 - 1 / (1 + 1):

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay, theta = dwd.proximal_weight_decay(1.0), jnp.array([4.0])
        >>> u, state = decay.update(jnp.array([0.0]), decay.init(theta), theta)
        >>> float(state.weight_decay), float((theta + u)[0])
        (1.0, 2.0)
    """

    count: jax.Array
    """Steps taken, int32."""
    weight_decay: jax.Array
    """lambda_t of the last step (before the first: of step 0), float32, per step, before the mask."""


def proximal_weight_decay(
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    penalty: Penalty | Tracking = L2,
    toward: Any = None,
    gate: Gate | None = None,
    strength: Strength | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Decay the weights where the step ends, implicitly: a proximal step of the penalty.

    $$\theta \leftarrow \theta_{ref} + \text{prox}_{\lambda_t \Omega}(\theta + u - \theta_{ref}), \quad
    \text{prox}_{\tau \Omega}(x) = \arg\min_y \tau \Omega(y) + \tfrac12 |y - x|^2$$

    It stands last in the chain, where the updates u are the step, with sign and learning rate: only
    rounding may follow. With `L2` it is $(\theta + u) / (1 + \lambda)$, which agrees with weight
    decay to first order and is stable for any lambda. With `L1` weights land on 0 exactly and stay,
    where a subgradient only makes them swing.

    A weight that `L1` puts on 0 is 0 exactly, after `stochastic_rounding` too; `compensated_rounding`
    first pays back its residual there. Nothing warns of 16-bit parameters that are too coarse for the
    decay, since what follows in the chain is not known here.

    Here $\lambda$ is per step. For a decay per unit of learning rate pass the product of the two,
    `lambda step: 0.1 * learning_rate(step)`.

    Args:
        weight_decay: $\lambda$, 0 or more; a number, traced or not, or a callable of the step.
        mask: which leaves; bools or multipliers as a tree like the parameters, a prefix of one, a
            function of the parameters that gives one, or rules (`masks.by_path`) or a preset
            (`masks.matrices`). None is every leaf.
        penalty: `L2`, `L1`, `elastic_net(...)`, `huber(...)`, `power(...)`, `huber_tracking(...)`, or
            `explicit(...)` of one, which takes a step along its gradient in place of the proximal one.
        toward: as in `decoupled_weight_decay`.
        gate: as there.
        strength: as there.

    Returns:
        A transformation with state `ProximalWeightDecayState(count, weight_decay)`, or
        `DecayMemoryState` where something is remembered. It reads `params` and gives back the dtype
        of the updates.

    Raises:
        TypeError, ValueError: as in `decoupled_weight_decay`.

    Example:
        The steps of SGD end at 0.75 and 0.25, and the threshold is 0.5:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> tx = optax.chain(optax.sgd(0.25), dwd.proximal_weight_decay(0.5, penalty=dwd.L1))
        >>> theta = jnp.array([1.0, 0.5])
        >>> u, state = tx.update(jnp.array([1.0, 1.0]), tx.init(theta), theta)
        >>> print(optax.apply_updates(theta, u))
        [0.25 0.  ]

    Source: Zhuang et al. 2022, "Understanding AdamW through Proximal Methods and Scale-Freeness", arXiv
    2202.00089 (`L2`: AdamProx, whose lambda is the paper's, times eta_t); Tibshirani 1996 and
    Outmezguine and Levi 2024, arXiv 2404.10824 (`L1`, `elastic_net`, `power`); Guo and Fan 2025, arXiv
    2511.14721 (`huber`).
    """
    axes = Axes(penalty, toward, gate, strength)
    return add_penalty(weight_decay, mask, axes, ProximalWeightDecayState, "last steps")
