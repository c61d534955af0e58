"""Leaf mathematics, lifted to trees in this one place.

A transformation is written for one array. `map_leaves` carries it over the updates and leaves alone
what is not an array: None (a leaf without a gradient, as Equinox makes them) and `optax.MaskedNode`
(a leaf that `optax.masked` or `optax.partition` took away).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd._check import check_float_dtype
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


class _Leaves(NamedTuple):
    """The leaves of the updates, what stands beside each, and how to put a tree back together."""

    paths: list[str]
    columns: list[tuple[Any, ...]]
    unflatten: Callable[[list[Any]], Any]


def _flatten(updates: Updates, named: dict[str, Any]) -> _Leaves:
    keyed, treedef = jax.tree_util.tree_flatten_with_path(updates, is_leaf=is_absent)
    columns = [[leaf for _, leaf in keyed]]
    for name, tree in named.items():
        try:
            columns.append(treedef.flatten_up_to(tree))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`updates` and `{name}` must be trees of the same structure, and they differ: "
                f"{error}. Pass the `{name}` that the updates were computed for."
            ) from None
    return _Leaves([path_name(path) for path, _ in keyed], list(zip(*columns, strict=True)),
                   treedef.unflatten)  # fmt: skip


def _check_leaf(path: str, update: Any, **beside: Any) -> None:
    if not jnp.issubdtype(jnp.result_type(update), jnp.inexact):
        raise TypeError(
            f"`updates` at {path!r} have dtype {jnp.result_type(update)}, and floating or complex "
            "updates are needed. Take integer leaves out with `optax.masked` or `optax.partition`."
        )
    for name, leaf in beside.items():
        if leaf is None or jnp.shape(leaf) != jnp.shape(update):
            given = "missing" if leaf is None else f"of shape {jnp.shape(leaf)}"
            raise ValueError(
                f"`{name}` at {path!r} is {given}, and the updates there have shape "
                f"{jnp.shape(update)}. Pass the `{name}` that the updates were computed for."
            )


def map_leaves(
    f: Callable[..., Any], updates: Updates, *, extra: Any = None, **beside: Any
) -> Updates:
    """Apply `f(update, *beside, extra)` to every array of `updates`, and give its dtype back.

    Args:
        f: the mathematics of one array; it sees what `widen` makes of it.
        updates: the tree whose arrays are mapped; None and masked nodes stay as they are.
        extra: None, or a tree with one value of any kind a leaf.
        **beside: trees of arrays of the same shapes, by the name that errors call them.
    """
    trees = beside if extra is None else {**beside, "extra": extra}
    leaves = _flatten(updates, trees)

    def one(path: str, update: Any, *rest: Any) -> Any:
        if is_absent(update):
            return update
        _check_leaf(path, update, **dict(zip(beside, rest, strict=False)))
        arrays = [widen(leaf) for leaf in rest[: len(beside)]]
        return f(widen(update), *arrays, *rest[len(beside) :]).astype(jnp.result_type(update))

    return leaves.unflatten(
        [one(path, *column) for path, column in zip(leaves.paths, leaves.columns, strict=True)]
    )


def map_leaves_with_state(
    f: Callable[..., tuple[Any, ...]], updates: Updates, **states: Any
) -> tuple[Any, ...]:
    """Apply `f(update, *states) -> (update, *states)` to every array; all keep their dtypes."""
    leaves = _flatten(updates, states)

    def one(path: str, *column: Any) -> tuple[Any, ...]:
        update, *state = column
        if is_absent(update):
            return column
        _check_leaf(path, update, **dict(zip(states, state, strict=True)))
        new = f(*[widen(leaf) for leaf in column])
        return tuple(x.astype(jnp.result_type(old)) for x, old in zip(new, column, strict=True))

    rows = [one(path, *column) for path, column in zip(leaves.paths, leaves.columns, strict=True)]
    return tuple(
        leaves.unflatten([row[i] for row in rows]) for i in range(1 + len(states))
    )


def widen(x: Any) -> jax.Array:
    """`x` in the dtype its arithmetic is done in: float32 for what is narrower than 32 bits."""
    x = jnp.asarray(x)
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if narrow else x


def scalar(name: str, value: NumberOrSchedule, count: jax.Array) -> jax.Array:
    """The value of a number or schedule at step `count`, in the default float dtype.

    A number and a schedule that returns it become the same bits here, so that either may stand in
    for the other.
    """
    value = value(count) if callable(value) else value
    check_float_dtype(name, value)
    return jnp.asarray(value, default_float())


def default_float() -> Any:
    """float32, or float64 under `jax_enable_x64`."""
    return jax.dtypes.canonicalize_dtype(float)
