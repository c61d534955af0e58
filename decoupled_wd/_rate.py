"""What a decay amounts to per step, under each coupling."""

import math
from typing import Literal

from decoupled_wd import _check
from decoupled_wd._typing import Number, NumberOrSchedule, Schedule
from decoupled_wd.schedules import product

Coupling = Literal["schedule", "learning_rate", "none", "corrected"]
COUPLINGS = ("schedule", "learning_rate", "none", "corrected")
_RATE_IS_A_NUMBER = ("schedule", "corrected")
MUCH = 0.005
"""The part of a weight that a step removes from which on it is warned of."""


def decay_per_step(
    weight_decay: NumberOrSchedule,
    learning_rate: NumberOrSchedule | None,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
) -> Schedule:
    """The part of a weight that a step removes: lambda in the unit of place D."""
    if coupling == "none":
        return product(weight_decay=weight_decay)
    scheduled = product(weight_decay=weight_decay, schedule=schedule)
    if coupling == "schedule":
        return scheduled
    if coupling == "learning_rate":
        return product(weight_decay=scheduled, learning_rate=learning_rate)
    return product(weight_decay=scheduled, learning_rate=learning_rate, schedule=schedule)


def check_step(
    learning_rate: NumberOrSchedule,
    schedule: NumberOrSchedule | None,
    coupling: Coupling = "learning_rate",
) -> None:
    """Check the types and signs of alpha and eta_t."""
    _check.check_option("coupling", coupling, COUPLINGS)
    or_callable = "" if coupling in _RATE_IS_A_NUMBER else ", or a callable of the step"
    hint = f"Pass a number{or_callable}."
    _check.check_number_or_schedule("learning_rate", learning_rate, minimum=0.0, hint=hint)
    if schedule is not None:
        _check.check_number_or_schedule("schedule", schedule, minimum=0.0)


def check_decay(
    weight_decay: NumberOrSchedule,
    learning_rate: NumberOrSchedule | None,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
    *,
    normalized: Number | None = None,
) -> None:
    """Check that a step which `check_step` let pass does not remove too much.

    A callable schedule is taken to peak at 1. `normalized` is what the user gave where
    `weight_decay` was computed from it.
    """
    _check.check_number_or_schedule("weight_decay", weight_decay, minimum=0.0)
    if callable(learning_rate) and coupling in _RATE_IS_A_NUMBER:
        raise TypeError(
            f"`learning_rate` is a callable, and coupling={coupling!r} needs a number: whether the "
            "decay follows the schedule must be said. Pass learning_rate=peak, "
            "schedule=multiplier; or coupling='learning_rate', which is what optax.adamw does."
        )

    peak = 1.0 if schedule is None or callable(schedule) else schedule
    factors = {
        "schedule": (weight_decay, peak),
        "learning_rate": (weight_decay, peak, learning_rate),
        "none": (weight_decay,),
        "corrected": (weight_decay, peak, peak, learning_rate),
    }[coupling]
    known = [x for x in map(_check.concrete, factors) if x is not None]
    removed = math.prod(known)
    if len(known) < len(factors) or removed < MUCH:
        return
    name = "weight_decay" if normalized is None else "normalized_weight_decay"
    given = _check.concrete(normalized) or known[0]
    rate = _check.concrete(learning_rate)
    below = f"Below {name}={given * MUCH / removed:g} a step removes less than {MUCH:.1%}."
    if coupling in ("schedule", "none"):
        other = "optax.adamw, torch.optim.AdamW and Keras multiply it by the learning rate"
        there, factor = "learning_rate", rate
    else:
        other = "the paper does not multiply it by the learning rate"
        there, factor = "schedule", 1 / rate if rate else None
    message = (
        f"`{name}` is {given:g}, which with coupling={coupling!r} removes {removed:.2%} of every "
        "decayed weight per step at the peak of the schedule."
    )
    if normalized is not None:
        advice = (
            f"The number is divided by the root of the {(given / known[0]) ** 2:.4g} steps of the "
            f"first cycle, which are few: see that batch_size, dataset_size and period are those of "
            f"the run. {below}"
        )
    elif factor is None or factor < 1:
        here = f"{name} * learning_rate" if factor is None else f"{name}={given * factor:g}"
        advice = (
            f"If the number comes from elsewhere: {other}; pass coupling={there!r}, or {here} with "
            "this coupling."
        )
    else:  # The other convention would remove no less.
        advice = below
    if removed >= 1:
        raise ValueError(f"{message} {advice}")
    _check.warn(f"{message} {advice}")
