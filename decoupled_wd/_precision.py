"""What 16 bits do to moments."""

from typing import Any

import jax

from decoupled_wd._check import is_narrow, warn


def warn_of_narrow_moments(**moments: Any) -> None:
    """Say which moments are stored in 16 bits, where an average with slow decay stands still."""
    narrow = [
        name
        for name, tree in moments.items()
        if any(is_narrow(leaf.dtype) for leaf in jax.tree.leaves(tree))
    ]
    if narrow:
        named = " and ".join(f"`{name}`" for name in narrow)
        wide = " and ".join(f"{name}_dtype='float32'" for name in narrow)
        frozen = ": with b2 = 0.999 a bfloat16 `nu` stays where it is" if "nu" in narrow else ""
        warn(
            f"{named} will be stored in 16 bits and rounded to nearest. An average that moves by "
            f"less than half a unit in the last place a step then stands still{frozen}. Pass {wide} "
            "to keep averages in float32."
        )
