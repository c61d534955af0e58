"""Leaf mathematics, lifted to trees in this one place.

A transformation is written for one array. `map_leaves` carries it over the updates and leaves alone
what is not an array: None (a leaf without a gradient, as Equinox makes them) and `optax.MaskedNode`
(a leaf that `optax.masked` or `optax.partition` took away).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from decoupled_wd._check import check_float_dtype, is_narrow
from decoupled_wd._typing import NumberOrSchedule, Params, Updates


def is_absent(node: Any) -> bool:
    """Whether a node of a tree holds no array: None, or masked away."""
    return node is None or isinstance(node, optax.MaskedNode)


def path_name(path: tuple[Any, ...]) -> str:
    """Join a key path with slashes; a bare array's is the empty string."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_params(params: Params | None) -> None:
    """Require parameters where a transformation reads them."""
    if params is None:
        raise ValueError(
            "`params` is None, and this transformation reads the parameters: call "
            "`update(updates, state, params)`."
        )


def _columns(updates: Updates, beside: dict[str, Any]) -> tuple[Any, list[tuple[Any, ...]]]:
    """The structure of the updates, and each of their leaves with what stands beside it."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_absent)
    columns = [leaves]
    for name, tree in beside.items():
        try:
            columns.append(treedef.flatten_up_to(tree))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`updates` and `{name}` must be trees of the same structure, and they differ: "
                f"{error}. Pass the `{name}` that the updates were computed for."
            ) from None
    return treedef, list(zip(*columns, strict=True))


def _check_column(updates: Updates, index: int, column: tuple[Any, ...], names: list[str]) -> None:
    update, *rest = column
    shape = jnp.shape(update)
    inexact = jnp.issubdtype(_dtype(update), jnp.inexact)
    if inexact and all(leaf is not None and jnp.shape(leaf) == shape for leaf in rest):
        return
    keyed, _ = jax.tree_util.tree_flatten_with_path(updates, is_leaf=is_absent)
    path = path_name(keyed[index][0])
    if not inexact:
        raise TypeError(
            f"`updates` at {path!r} have dtype {_dtype(update)}, and floating or complex updates "
            "are needed. Take integer leaves out with `optax.masked` or `optax.partition`."
        )
    for name, leaf in zip(names, rest, strict=True):
        if leaf is None or jnp.shape(leaf) != shape:
            given = "missing" if leaf is None else f"of shape {jnp.shape(leaf)}"
            raise ValueError(
                f"`{name}` at {path!r} is {given}, and the updates there have shape {shape}. Pass "
                f"the `{name}` that the updates were computed for."
            )


def map_leaves(
    f: Callable[..., Any], updates: Updates, *, extra: Any = None, **beside: Any
) -> Updates:
    """Apply `f(update, *beside)`, or `f(update, *beside, extra)`, to every array of `updates`.

    Args:
        f: the mathematics of one array; it sees what `widen` makes of the arrays, and its result
            gets the update's dtype back.
        updates: the tree whose arrays are mapped; None and masked nodes stay as they are.
        extra: None, or a tree with one value of any kind a leaf.
        **beside: trees of arrays of the same shapes, by the name that errors call them.
    """
    names = list(beside)
    treedef, columns = _columns(updates, beside if extra is None else {**beside, "extra": extra})
    new = []
    for index, column in enumerate(columns):
        if is_absent(column[0]):
            new.append(column[0])
            continue
        arrays, rest = column[: len(names) + 1], column[len(names) + 1 :]
        _check_column(updates, index, arrays, names)
        new.append(cast(f(*map(widen, arrays), *rest), _dtype(column[0])))
    return treedef.unflatten(new)


def map_leaves_with_state(
    f: Callable[..., tuple[Any, ...]], updates: Updates, **states: Any
) -> tuple[Any, ...]:
    """Apply `f(update, *states) -> (update, *states)` to every array; all keep their dtypes."""
    names = list(states)
    treedef, columns = _columns(updates, states)
    rows = []
    for index, column in enumerate(columns):
        if is_absent(column[0]):
            rows.append(column)
            continue
        _check_column(updates, index, column, names)
        new = f(*map(widen, column))
        rows.append([cast(x, _dtype(old)) for x, old in zip(new, column, strict=True)])
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(1 + len(names)))


def _dtype(x: Any) -> Any:
    return x.dtype if isinstance(x, jax.Array) else jnp.result_type(x)


def cast(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` as `dtype`; itself if it is that already."""
    return x if x.dtype == dtype and not x.weak_type else x.astype(dtype)


def widen(x: Any) -> jax.Array:
    """`x` in the dtype its arithmetic is done in: float32 for what is narrower than 32 bits."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return x.astype(jnp.float32) if is_narrow(x.dtype) else x


def like(number: Any, x: jax.Array) -> Any:
    """A number that multiplies `x` without changing its dtype: a Python number as it is."""
    return number if type(number) in (int, float) else cast(jnp.asarray(number), x.dtype)


def scalar(name: str, value: NumberOrSchedule, count: jax.Array) -> jax.Array:
    """The value of a number or schedule at step `count`, in the default float dtype.

    A number and a schedule that returns it become the same bits here, so that either may stand in
    for the other.
    """
    value = value(count) if callable(value) else value
    if value is None or jnp.ndim(value):
        given = "None" if value is None else f"an array of shape {jnp.shape(value)}"
        raise TypeError(f"`{name}` returned {given}, and a schedule must return a scalar.")
    check_float_dtype(name, value)
    return jnp.asarray(value, default_float())


def default_float() -> Any:
    """float32, or float64 under `jax_enable_x64`."""
    return jax.dtypes.canonicalize_dtype(float)
