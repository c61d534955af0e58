"""What 16 bits do to moments."""

import warnings
from typing import Any

import jax

from decoupled_wd._check import is_narrow


def warn_of_narrow_moments(**moments: Any) -> None:
    """Say which moments are stored in 16 bits, where an average with slow decay stands still."""
    narrow = [
        f"`{name}`"
        for name, tree in moments.items()
        if any(is_narrow(leaf.dtype) for leaf in jax.tree.leaves(tree))
    ]
    if narrow:
        wide = " and ".join(f"{name}_dtype='float32'" for name in moments)
        warnings.warn(
            f"{' and '.join(narrow)} will be stored in 16 bits and rounded to nearest. An average "
            "that moves by less than half a unit in the last place a step then stands still: with "
            f"b2 = 0.999 a bfloat16 `nu` stays where it is. Pass {wide} to keep averages in float32.",
            UserWarning,
            stacklevel=3,
        )
