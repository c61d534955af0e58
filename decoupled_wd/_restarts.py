"""The transformation that multiplies by a cosine with warm restarts."""

import optax

from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd._typing import Number
from decoupled_wd.schedules import cosine_warm_restarts_schedule


def cosine_warm_restarts(
    period: Number,
    period_mult: Number = 1,
    *,
    eta_min: Number = 0.0,
    eta_max: Number = 1.0,
    warmup: Number = 0,
    peak_decay: Number = 1.0,
) -> optax.GradientTransformation:
    r"""Multiply the updates by a cosine that restarts: the $\times\eta_t$ of AdamWR and SGDWR.

    $$u \leftarrow \eta_t u$$

    What stands before it in the chain is scheduled, what stands after it is not: with the decay
    before it, decay follows the schedule as in the paper. Moments are kept over a restart.

    Args:
        period: as in `cosine_warm_restarts_schedule`, in steps.
        period_mult: as there.
        eta_min: as there.
        eta_max: as there.
        warmup: as there.
        peak_decay: as there.

    Returns:
        A transformation with state `optax.ScaleByScheduleState(count)`. It gives back the dtype of
        the updates and does not read `params`.

    Raises:
        TypeError: a period that is not an integer, a callable where a number is meant.
        ValueError: a period or multiplier below 1, a negative value elsewhere.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> restarts = dwd.cosine_warm_restarts(2)
        >>> u = jnp.array([8.0])
        >>> state = restarts.init(u)
        >>> for _ in range(3):
        ...     scaled, state = restarts.update(u, state)
        ...     print(round(float(scaled[0]), 5))
        8.0
        4.0
        8.0

    Source: Loshchilov and Hutter, arXiv 1608.03983 and 1711.05101, appendix B.2.
    """
    return scale_by_schedule(
        cosine_warm_restarts_schedule(
            period,
            period_mult,
            eta_min=eta_min,
            eta_max=eta_max,
            warmup=warmup,
            peak_decay=peak_decay,
        )
    )
