"""What a decay amounts to per step, under each coupling."""

import math
import warnings
from typing import Literal

from decoupled_wd import _check
from decoupled_wd._typing import NumberOrSchedule, Schedule
from decoupled_wd.schedules import product

Coupling = Literal["schedule", "learning_rate", "none", "corrected"]
COUPLINGS = ("schedule", "learning_rate", "none", "corrected")
_MUCH = 0.005


def decay_per_step(
    weight_decay: NumberOrSchedule,
    learning_rate: NumberOrSchedule | None,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
) -> Schedule:
    """The part of a weight that a step removes: lambda in the unit of place D."""
    check_rate(weight_decay, learning_rate, schedule, coupling)
    return product(*_factors(weight_decay, learning_rate, schedule, coupling))


def _factors(
    weight_decay: NumberOrSchedule,
    learning_rate: NumberOrSchedule | None,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
) -> tuple[NumberOrSchedule | None, ...]:
    return {
        "schedule": (weight_decay, schedule),
        "learning_rate": (weight_decay, learning_rate, schedule),
        "none": (weight_decay,),
        "corrected": (weight_decay, learning_rate, schedule, schedule),
    }[coupling]


def check_rate(
    weight_decay: NumberOrSchedule,
    learning_rate: NumberOrSchedule | None,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
) -> None:
    """Check the four together: their types, and that a step does not remove too much of a weight.

    A callable schedule is taken to peak at 1.
    """
    _check.check_option("coupling", coupling, COUPLINGS)
    _check.check_number_or_schedule("weight_decay", weight_decay, minimum=0.0)
    if schedule is not None:
        _check.check_number_or_schedule("schedule", schedule, minimum=0.0)
    if learning_rate is not None:
        if callable(learning_rate) and coupling in ("schedule", "corrected"):
            raise TypeError(
                f"`learning_rate` is a callable, and coupling={coupling!r} needs a number: whether "
                "the decay follows the schedule must be said. Pass learning_rate=peak, "
                "schedule=multiplier; or coupling='learning_rate', which is what optax.adamw does."
            )
        _check.check_number_or_schedule("learning_rate", learning_rate, minimum=0.0)

    peak = 1.0 if schedule is None or callable(schedule) else schedule
    factors = _factors(weight_decay, learning_rate, peak, coupling)
    decay, rate = _check.concrete(weight_decay), _check.concrete(learning_rate)
    known = [x for x in map(_check.concrete, factors) if x is not None]
    removed = math.prod(known)
    if decay is None or len(known) < len(factors) or removed < _MUCH:
        return
    says = (
        f"`weight_decay` is {decay:g}, which with coupling={coupling!r} removes {removed:.2%} of "
        "every decayed weight per step at the peak of the schedule."
    )
    if coupling in ("schedule", "none"):
        other = "optax.adamw, torch.optim.AdamW and Keras multiply it by the learning rate"
        value = "weight_decay * learning_rate" if rate is None else f"weight_decay={decay * rate:g}"
        advice = f"pass coupling='learning_rate', or {value} with this coupling"
    else:
        other = "the paper does not multiply it by the learning rate"
        value = "weight_decay / learning_rate" if not rate else f"weight_decay={decay / rate:g}"
        advice = f"pass coupling='schedule', or {value} with this coupling"
    message = f"{says} If the number comes from elsewhere: {other}; {advice}."
    if removed >= 1:
        raise ValueError(message)
    warnings.warn(message, UserWarning, stacklevel=4)  # At the call of the optimizer.
