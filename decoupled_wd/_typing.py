"""The types that signatures speak of."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from jax.typing import ArrayLike
from jaxtyping import PyTree

Params: TypeAlias = PyTree
Updates: TypeAlias = PyTree
Number: TypeAlias = ArrayLike
"""A Python number, a 0-d array, or a tracer of one."""
Schedule: TypeAlias = Callable[[Any], ArrayLike]
"""A function of the 0-based step count; the first update sees `schedule(0)`."""
NumberOrSchedule: TypeAlias = Number | Schedule
Mask: TypeAlias = PyTree | Callable[[Params], PyTree] | None
"""One bool or multiplier a leaf (or a prefix of that tree), a function of the parameters that gives
it, or rules and presets as `decoupled_wd.masks` makes them."""
DType: TypeAlias = Any
Rounding: TypeAlias = Literal["stochastic", "compensated"]
"""How 16-bit parameters are rounded, once a step."""
