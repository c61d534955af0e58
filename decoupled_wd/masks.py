"""Which leaves decay, and how strongly: one multiplier a leaf.

A mask is a tree of bools or numbers like the parameters, a prefix of such a tree, or a function of
the parameters that gives one. True is 1, False is 0; a leaf with 0 never moves through decay.
"""

from typing import Any

import jax
import numpy as np
import optax

from decoupled_wd import _check, _tree
from decoupled_wd._typing import Mask, Params


def check_mask(mask: Mask) -> None:
    """Refuse a bare scalar, which is what `optax.inject_hyperparams` makes of a callable mask."""
    if isinstance(mask, (bool, int, float, np.generic, np.ndarray, jax.Array)):
        raise TypeError(
            f"`mask` is the bare scalar {mask!r}, and a tree, a prefix of one, or a function of "
            "the parameters is needed. To decay every leaf pass mask=None. Under "
            "`optax.inject_hyperparams`, which calls every callable on the step count, pass the "
            "tree that your function gives, or name it in `static_args='mask'`."
        )


def multipliers(mask: Mask, params: Params) -> Any:
    """Spread `mask` over `params`: a tree with one multiplier a leaf.

    Raises:
        ValueError: the mask does not fit the parameters, or leaves nothing of them to decay.
        TypeError: a leaf of the mask is neither a bool nor a number.
    """
    if jax.tree.leaves(params):
        # An Equinox module is callable too, and as a mask it is a tree.
        function = callable(mask) and jax.tree_util.all_leaves([mask])
        tree = _call(mask, params) if function else mask
        if not (function and jax.tree_util.all_leaves([params])):  # One array has one multiplier.
            check_mask(tree)
    else:
        tree = True
    try:
        spread = jax.tree.broadcast(tree, params, is_leaf=_tree.is_absent)
    except ValueError:
        raise ValueError(
            "`mask` must be a tree like the parameters, or a prefix of one, and it is not: it "
            f"{_tree.difference(tree, 'params', params)}."
        ) from None
    keyed = jax.tree_util.tree_leaves_with_path(params, is_leaf=_tree.is_absent)
    leaves = jax.tree.leaves(spread, is_leaf=_tree.is_absent)
    for (path, parameter), leaf in zip(keyed, leaves, strict=True):
        if not (isinstance(leaf, bool) or _tree.is_absent(parameter)):
            _check_multiplier(_tree.path_name(path), leaf)
    return spread


def check_decays_something(mask: Mask, params: Params) -> None:
    """Refuse a mask that is zero on every leaf there is.

    A tree that `optax.masked` or `optax.partition` took leaves from is exempt, and so is an empty
    one: there the mask may well have nothing left to do.
    """
    if mask is None:
        return
    keyed = jax.tree_util.tree_leaves_with_path(params)
    nodes = jax.tree.leaves(params, is_leaf=_tree.is_absent)
    if not keyed or any(isinstance(node, optax.MaskedNode) for node in nodes):
        return
    if all(is_zero(leaf) for leaf in jax.tree.leaves(multipliers(mask, params))):
        paths = [_tree.path_name(path) for path, _ in keyed]
        raise ValueError(
            "`mask` leaves nothing to decay: it is False or 0 for every leaf "
            f"({_tree.listed(paths)}). Mark the leaves to decay with True, or take the decay out of "
            "the chain."
        )


def is_zero(multiplier: Any) -> bool:
    """Whether a multiplier is known to be 0."""
    return _check.concrete(multiplier) == 0


def _call(mask: Any, params: Params) -> Any:
    try:
        return mask(params)
    except Exception as error:
        raise TypeError(
            f"`mask` is a function that raised {type(error).__name__} ({error}). It is called once, "
            "with the whole tree of parameters, and gives a tree. Pass, for example, "
            "mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)."
        ) from error


def _check_multiplier(path: str, leaf: Any) -> None:
    if isinstance(leaf, (bool, np.bool_)):
        return
    if isinstance(leaf, (np.ndarray, jax.Array)) and leaf.ndim == 0 and leaf.dtype == bool:
        return
    _check.check_number(
        "mask",
        leaf,
        at=_tree.place(path),
        minimum=0.0,
        hint="Each leaf of a mask is True, False or one number that multiplies the decay.",
    )
