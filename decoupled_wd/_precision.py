"""What 16 bits do to moments."""

import warnings
from typing import Any

import jax

from decoupled_wd import _tree


def warn_of_narrow_moments(**moments: Any) -> None:
    """Say which moments are stored in 16 bits, where an average with slow decay stands still."""
    narrow = [
        f"`{name}`"
        for name, tree in moments.items()
        if any(_tree.is_narrow(leaf.dtype) for leaf in jax.tree.leaves(tree))
    ]
    if narrow:
        warnings.warn(
            f"{' and '.join(narrow)} will be stored in 16 bits and rounded to nearest. An average "
            "that moves by less than half a unit in the last place a step then stands still: with "
            "b2 = 0.999 a bfloat16 `nu` stays where it is. Pass mu_dtype='float32' and "
            "nu_dtype='float32' to keep the moments in float32.",
            UserWarning,
            stacklevel=2,
        )
