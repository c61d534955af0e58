"""Leaf mathematics, lifted to trees in this one place.

A transformation is written for one array. `map_leaves` carries it over the updates and leaves alone
what is not an array: None (a leaf without a gradient, as Equinox makes them) and `optax.MaskedNode`
(a leaf that `optax.masked` or `optax.partition` took away).
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from decoupled_wd._check import check_float_dtype, concrete, is_array, is_narrow
from decoupled_wd._typing import NumberOrSchedule, Params, Updates


def is_absent(node: Any) -> bool:
    """Whether a node of a tree holds no array: None, or masked away."""
    return node is None or isinstance(node, optax.MaskedNode)


def path_name(path: tuple[Any, ...]) -> str:
    """Join a key path with slashes; a bare array's is the empty string."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def place(path: str) -> str:
    """Where a leaf stands, for errors: after the name of the argument."""
    return f" at {path!r}" if path else " (a bare array)"


def listed(paths: list[str]) -> str:
    """The first paths of a list, for errors."""
    return ", ".join(map(repr, paths[:8])) + (", ..." if len(paths) > 8 else "")


def difference(tree: Any, name: str, like: Any) -> str:
    """Say, as the predicate of a sentence, how a tree differs from `like`, which is called `name`.

    A leaf of `tree` may stand for all that is below it in `like`.
    """

    def paths(nodes: Any) -> list[str]:
        keyed = jax.tree_util.tree_leaves_with_path(nodes, is_leaf=is_absent)
        return [path_name(path) for path, _ in keyed]

    def covers(above: str, path: str) -> bool:
        return above in ("", path) or path.startswith(f"{above}/")

    here, there = paths(tree), paths(like)
    missing = [path for path in there if not any(covers(x, path) for x in here)]
    extra = [x for x in here if not any(covers(x, path) for path in there)]
    parts = [f"has nothing for {listed(missing)}"] * bool(missing)
    parts += [f"has {listed(extra)}, which `{name}` do not have"] * bool(extra)
    kinds = f"is a {type(tree).__name__} for a {type(like).__name__}, or a node of it is"
    return ", and ".join(parts) or kinds


def check_state(state: Any, field: str) -> None:
    """Require a state with a field that is read; a wrapper's may be of another class."""
    # Tuples and strings have a method `count`.
    if not hasattr(state, field) or inspect.isroutine(getattr(state, field)):
        raise TypeError(
            f"`state` holds a {type(state).__name__} where a state with the field {field!r} is "
            "needed. Pass what `init` returned, in this order: `update(updates, state, params)`."
        )


def check_params(params: Params | None) -> None:
    """Require parameters where a transformation reads them."""
    if params is None:
        raise ValueError(
            "`params` is None, and this transformation reads the parameters: call "
            "`update(updates, state, params)`."
        )


def is_leaf(node: Any) -> bool:
    """Absent, or an array. NNX Variables count as arrays, which takes their level out of paths:
    `init` sees them in the parameters, and `update` does not."""
    return is_absent(node) or is_array(node)


def flatten_arrays(tree: Any) -> Any:
    """Flatten a tree with its paths, down to what `is_leaf` says."""
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)


def check_like(name: str, tree: Any, params: Params) -> None:
    """Require in `tree` an array of the same shape for every array of the parameters.

    Where it has none that is not known to be wrong: the leaf may get no updates.
    """
    if not jax.tree.leaves(params):  # All masked away, or what `optax.tree.map_params` passes.
        return
    keyed, treedef = flatten_arrays(params)
    try:
        leaves = treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        raise ValueError(
            f"`{name}` and `params` must be trees of the same structure, and they differ: `{name}` "
            f"{difference(tree, 'params', params)}. Pass an array for every array of the parameters."
        ) from None
    for (path, parameter), leaf in zip(keyed, leaves, strict=True):
        if not is_inexact(parameter) or is_absent(leaf):
            continue
        at = f"`{name}`{place(path_name(path))}"
        if not is_array(leaf):
            raise TypeError(
                f"{at} is {leaf!r}, and an array of shape {jnp.shape(parameter)} is needed."
            )
        if jnp.shape(leaf) != jnp.shape(parameter):
            raise ValueError(
                f"{at} is of shape {jnp.shape(leaf)}, and the parameter there has shape "
                f"{jnp.shape(parameter)}. Pass `{name}` of the same shapes."
            )


def zeros_like(params: Params, name: str, dtype: Any) -> Any:
    """Zeros for a state, in the dtype that the argument `name` asks for; the parameters' if None."""
    if dtype is not None and _is_complex(dtype):
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not _is_complex(_dtype(leaf)):
                raise TypeError(
                    f"`{name}` is {dtype}, and the parameters{place(path_name(path))} are "
                    f"{_dtype(leaf)}: what is kept of a real leaf is real. Pass {name}=None, with "
                    "which every leaf keeps its own dtype, or a real dtype."
                )
    return optax.tree.zeros_like(params, dtype=dtype)


def _advice(name: str, of_state: bool) -> str:
    """What to do where updates do not fit what stands beside them: the user holds a whole state."""
    if of_state:
        return (
            f"`{name}` is in the `state`, which `init` made for other parameters: pass gradients like "
            "those parameters, or the state that `init` makes for these."
        )
    return f"Pass the `{name}` that the updates were computed for."


def _columns(
    updates: Updates, beside: dict[str, Any], of_state: bool
) -> tuple[Any, list[tuple[Any, ...]]]:
    """The structure of the updates, and each of their leaves with what stands beside it."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_absent)
    columns = [leaves]
    for name, tree in beside.items():
        try:
            columns.append(treedef.flatten_up_to(tree))
        except (ValueError, TypeError):
            raise ValueError(
                f"`updates` and `{name}` must be trees of the same structure, and they differ: "
                f"`{name}` {difference(tree, 'updates', updates)}. {_advice(name, of_state)}"
            ) from None
    return treedef, list(zip(*columns, strict=True))


def _check_column(
    updates: Updates, index: int, column: tuple[Any, ...], names: list[str], of_state: bool
) -> None:
    update, *rest = column
    shape = jnp.shape(update)
    inexact = is_inexact(update)
    if inexact and all(leaf is not None and jnp.shape(leaf) == shape for leaf in rest):
        return
    at = place(_path_of(updates, index))
    if not inexact:
        raise TypeError(
            f"`updates`{at} have dtype {_dtype(update)}, and floating or complex updates "
            "are needed. Take integer leaves out with `optax.masked` or `optax.partition`."
        )
    for name, leaf in zip(names, rest, strict=True):
        if leaf is None or jnp.shape(leaf) != shape:
            given = "missing" if leaf is None else f"of shape {jnp.shape(leaf)}"
            raise ValueError(
                f"`{name}`{at} is {given}, and the updates there have shape {shape}. "
                f"{_advice(name, of_state)}"
            )


def _check_memory(updates: Updates, index: int, update: Any, memory: dict[str, Any]) -> None:
    """Require of what is remembered of a leaf that it is there, and of a shape that broadcasts."""
    shape = jnp.shape(update)
    for name, leaf in memory.items():
        if not is_absent(leaf):
            sizes = zip(jnp.shape(leaf)[::-1], shape[::-1], strict=False)
            if all(size in (1, whole) for size, whole in sizes):
                continue
        given = "missing" if is_absent(leaf) else f"of shape {jnp.shape(leaf)}"
        raise ValueError(
            f"`{name}`{place(_path_of(updates, index))} is {given}, and the updates there have "
            f"shape {shape}. {_advice(name, of_state=True)}"
        )


def _check_no_part_is_lost(
    updates: Updates, index: int, column: tuple[Any, ...], names: list[str]
) -> None:
    """Refuse complex arrays beside real updates, which have no place for the imaginary part."""
    update, *rest = column
    if _is_complex(_dtype(update)):
        return
    for name, leaf in zip(names, rest, strict=True):
        if _is_complex(_dtype(leaf)):
            raise TypeError(
                f"`{name}`{place(_path_of(updates, index))} have dtype {_dtype(leaf)}, and the "
                f"updates there {_dtype(update)}, which would lose the imaginary part. Pass complex "
                f"updates for complex `{name}`."
            )


def _path_of(updates: Updates, index: int) -> str:
    keyed, _ = jax.tree_util.tree_flatten_with_path(updates, is_leaf=is_absent)
    return path_name(keyed[index][0])


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

    def leaf(u: Any, memory: dict[str, Any], *rest: Any) -> tuple[Any, dict[str, Any]]:
        return f(u, *rest), memory

    return map_leaves_with_memory(leaf, updates, {}, extra=extra, **beside)[0]


def map_leaves_with_memory(
    f: Callable[..., tuple[Any, dict[str, Any]]],
    updates: Updates,
    memory: dict[str, Any],
    *,
    extra: Any = None,
    **beside: Any,
) -> tuple[Updates, dict[str, Any]]:
    """Apply `f(update, memory, *beside[, extra]) -> (update, memory)` to every array of `updates`.

    `memory` has trees by name, with one array of any shape for every array of the updates; `f` is given
    them by name, widened, and what it gives back keeps their dtypes. The rest is as in `map_leaves`.

    Where something has 16 bits, an update of finite arrays that would overflow is the largest number.
    """
    names = list(beside)
    treedef, columns = _columns(
        updates, beside if extra is None else {**beside, "extra": extra}, of_state=False
    )
    _, remembered = _columns(updates, memory, of_state=True)
    rows = []
    for index, (column, (_, *old)) in enumerate(zip(columns, remembered, strict=True)):
        if is_absent(column[0]):
            rows.append((column[0], *old))
            continue
        arrays, rest = column[: len(names) + 1], column[len(names) + 1 :]
        _check_column(updates, index, arrays, names, of_state=False)
        _check_no_part_is_lost(updates, index, arrays, names)
        _check_memory(updates, index, arrays[0], dict(zip(memory, old, strict=True)))
        u, *others = map(widen, arrays)
        new, kept = f(u, dict(zip(memory, map(widen, old), strict=True)), *others, *rest)
        if any(is_narrow(_dtype(x)) for x in arrays):  # Finite arrays make finite updates.
            finite = functools.reduce(jnp.logical_and, map(jnp.isfinite, arrays))
            new = cut(new, float(jnp.finfo(_dtype(column[0])).max), finite)
        new_memory = (cast(kept[name], _dtype(x)) for name, x in zip(memory, old, strict=True))
        rows.append((cast(new, _dtype(column[0])), *new_memory))
    trees = [treedef.unflatten([row[i] for row in rows]) for i in range(1 + len(memory))]
    return trees[0], dict(zip(memory, trees[1:], strict=True))


def map_leaves_with_state(
    f: Callable[..., tuple[Any, ...]], updates: Updates, **states: Any
) -> tuple[Any, ...]:
    """Apply `f(update, *states) -> (update, *states)` to every array; all keep their dtypes."""

    def column(index: int, arrays: tuple[Any, ...]) -> list[jax.Array]:
        del index
        new = f(*map(widen, arrays))
        return [cast(x, _dtype(old)) for x, old in zip(new, arrays, strict=True)]

    return map_columns(column, updates, **states)


def map_columns(
    f: Callable[[int, tuple[Any, ...]], Any],
    updates: Updates,
    *,
    params: Params | None = None,
    partial: bool = False,
    **states: Any,
) -> tuple[Any, ...]:
    """Apply `f(index, (update, *states[, params])) -> (update, *states)` to every array, as it is.

    Nothing is widened or cast: for what depends on the dtypes. `index` is the leaf's in `paths`; where
    `partial`, a state may have a masked node for an array.
    """
    names = list(states)
    treedef, columns = _columns(updates, states, of_state=True)
    beside = {} if params is None else {"params": params}
    _, others = _columns(updates, beside, of_state=False)
    rows = []
    for index, (column, (update, *rest)) in enumerate(zip(columns, others, strict=True)):
        if is_absent(update):
            rows.append(column)
            continue
        _check_column(updates, index, (update, *rest), [*beside], of_state=False)
        held = {
            name: x
            for name, x in zip(names, column[1:], strict=True)
            if not (partial and isinstance(x, optax.MaskedNode))
        }
        _check_column(updates, index, (update, *held.values()), [*held], of_state=True)
        rows.append(f(index, (*column, *rest)))
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(1 + len(names)))


def paths(tree: Any) -> list[str]:
    """The path of every leaf, absent ones among them, in the order of `map_leaves`."""
    return [path_name(path) for path, _ in flatten_arrays(tree)[0]]


def _dtype(x: Any) -> Any:
    return x.dtype if isinstance(x, jax.Array) else jnp.result_type(x)


def is_inexact(x: Any) -> bool:
    """Whether a node is a number or an array of floating or complex dtype."""
    return is_array(x) and jnp.issubdtype(_dtype(x), jnp.inexact)


def _is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def cast(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` as `dtype`; itself if it is that already."""
    return x if x.dtype == dtype and not x.weak_type else x.astype(dtype)


def widen(x: Any) -> jax.Array:
    """`x` in the dtype its arithmetic is done in: float32 for what is narrower than 32 bits."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return x.astype(jnp.float32) if is_narrow(x.dtype) else x


def cut(x: jax.Array, largest: float, where: jax.Array) -> jax.Array:
    """Real numbers cut off at `largest` on both sides."""
    return jnp.where(where, jnp.clip(x, -largest, largest), x) if jnp.isrealobj(x) else x


def like(number: Any, x: jax.Array) -> Any:
    """A number that multiplies `x` without changing its dtype: a Python number as it is."""
    return number if type(number) in (int, float) else cast(jnp.asarray(number), x.dtype)


def scalar(
    name: str, value: NumberOrSchedule, count: jax.Array, *, minimum: float = 0.0
) -> jax.Array:
    """The value of a number or schedule at step `count`, in the default float dtype.

    A number and a schedule that returns it become the same bits here, so that either may stand in
    for the other. `minimum` is asked of what a schedule returns where that is concrete, so not under
    `jit`; a number was checked when it was given.
    """
    number = value(count) if callable(value) else value
    if number is None or jnp.ndim(number) or jnp.iscomplexobj(number):
        kind = "None"
        if number is not None:
            kind = f"an array of shape {jnp.shape(number)} and dtype {jnp.result_type(number)}"
        raise TypeError(f"`{name}` returned {kind}, and a schedule must return a real scalar.")
    check_float_dtype(name, number)
    known = concrete(number) if callable(value) else None
    if known is not None and known < minimum:
        raise ValueError(
            f"`{name}` returned {known:g}, and a schedule must return {minimum:g} or more."
        )
    return jnp.asarray(number, default_float())


def default_float() -> Any:
    """float32, or float64 under `jax_enable_x64`."""
    return jax.dtypes.canonicalize_dtype(float)
