"""Arithmetic in float32 for 16-bit leaves."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _tree
from decoupled_wd._typing import Params, Updates


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


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with its arithmetic in float32 where updates or state are narrower.

    Updates and state keep the dtypes they came with. Without 16-bit leaves this is `inner` to the
    last bit.
    """

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        leaves = jax.tree.leaves((updates, state))
        if not any(_tree.is_narrow(jnp.result_type(leaf)) for leaf in leaves):
            return inner.update(updates, state, params)
        wide_updates, wide_state = jax.tree.map(_tree.widen, (updates, state))
        new_updates, new_state = inner.update(wide_updates, wide_state, params)
        return jax.tree.map(
            lambda new, old: _tree.cast(jnp.asarray(new), jnp.result_type(old)),
            (new_updates, new_state),
            (updates, state),
        )

    return optax.GradientTransformation(inner.init, update)
