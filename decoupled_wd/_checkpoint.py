"""What a checkpoint holds: the shapes of its arrays, without reading Orbax's arrays."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from decoupled_wd import _tree
from decoupled_wd._typing import Params

_MARK = "_METADATA"  # In the directory of every tree that Orbax saved.
_UNFINISHED = ".orbax-checkpoint-tmp"  # In the name of a directory that Orbax still writes.


def read_shapes(checkpoint: str) -> tuple[Any, str]:
    """The tree of a checkpoint, with a `jax.ShapeDtypeStruct` for every array and None for the rest.

    With it a sentence that says which, where the directory that is given only holds it.

    Raises:
        ValueError: there is none, or several, or it is neither from Orbax nor a Flax msgpack file.
        ImportError: Orbax or Flax is not installed.
    """
    path = Path(checkpoint).absolute()
    if not path.exists():
        raise ValueError(f"`checkpoint` is {checkpoint!r}, and there is no such file or directory.")
    if not path.is_dir():
        return jax.tree.map(_shape, _msgpack(path)), ""
    directory = _tree_directory(path)
    found = "" if directory == path else f"Checkpoint {str(directory.relative_to(path))!r}. "
    return jax.tree.map(_shape, _orbax(directory)), found


def subtree(tree: Any, path: str | None) -> tuple[Any, str]:
    """The part of a tree at `path`, and a sentence that says which.

    None is `params`, where a Flax TrainState has its parameters, or everything if there is no such part.
    """
    whole = "All of the checkpoint."
    if path is None:
        path = "params" if isinstance(tree, dict) and "params" in tree else ""
    for name in filter(None, path.split("/")):
        children = _children(tree)
        if name not in children:
            has = f"it holds {_tree.listed(list(children))}" if children else "it is an array"
            raise ValueError(
                f"`subtree` is {path!r}, and {name!r} is not in the checkpoint: {has}."
            )
        beside = [other for other in children if other != name]
        tree, whole = children[name], f"Subtree {path!r} of the checkpoint"
        whole += f"; beside it: {_tree.listed(beside)}." if beside else "."
    return _without_variables(tree), whole


def _children(tree: Any) -> dict[str, Any]:
    if isinstance(tree, dict):
        return {str(name): child for name, child in tree.items()}
    return (
        {str(i): child for i, child in enumerate(tree)} if isinstance(tree, (list, tuple)) else {}
    )


def _tree_directory(path: Path) -> Path:
    """The one directory of a tree, at `path` or below: a CheckpointManager has step/item/_METADATA."""
    trees = _trees(path)
    if not trees:
        raise ValueError(
            f"`checkpoint` is the directory {str(path)!r}, and no Orbax checkpoint: it has no {_MARK}. "
            "Pass the directory of a tree that Orbax saved, or a Flax msgpack file."
        )
    if len(trees) > 1:
        raise ValueError(
            f"`checkpoint` is {str(path)!r}, which holds several checkpoints: "
            f"{_tree.listed([str(tree.relative_to(path)) for tree in trees])}. Pass the directory of "
            f"one, such as {str(trees[-1])!r}."
        )
    return trees[0]


def _trees(path: Path) -> list[Path]:
    """The directories of trees, `path` itself or some levels below, in the order of their numbers."""
    if (path / _MARK).exists():
        return [path]
    below = [mark.parent for depth in (1, 2, 3) for mark in path.glob("*/" * depth + _MARK)]
    names = {str(tree.relative_to(path)): tree for tree in below}
    return [names[name] for name in sorted(names, key=_numbers_in_order) if _UNFINISHED not in name]


def _numbers_in_order(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _orbax(path: Path) -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            "An Orbax checkpoint is read by Orbax: pip install orbax-checkpoint."
        ) from error
    found = ocp.PyTreeCheckpointer().metadata(path).item_metadata
    if found is None:
        raise ValueError(
            f"`checkpoint` is {str(path)!r}, whose metadata Orbax cannot read: it is damaged, or not "
            "saved to its end."
        )
    return found.tree


def _msgpack(path: Path) -> Any:
    try:
        from flax import serialization
    except ImportError as error:
        raise ImportError("A msgpack checkpoint is read by Flax: pip install flax.") from error
    try:
        return serialization.msgpack_restore(path.read_bytes())
    except Exception as error:
        raise ValueError(
            f"`checkpoint` is the file {str(path)!r}, which is no Flax msgpack file "
            f"({type(error).__name__}: {error}). Pass one, or the directory of an Orbax checkpoint."
        ) from error


def _shape(leaf: Any) -> jax.ShapeDtypeStruct | None:
    leaf = np.asarray(leaf) if isinstance(leaf, (int, float, complex)) else leaf
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    return None if shape is None or dtype is None else jax.ShapeDtypeStruct(shape, dtype)


def _without_variables(tree: Params) -> Params:
    """Without the level `value` that an NNX state has in a file, and neither in rules nor in tables."""
    keyed, _ = jax.tree_util.tree_flatten_with_path(tree)
    if not all(_tree.path_name(path).endswith("/value") for path, _ in keyed):
        return tree

    def is_variable(node: Any) -> bool:
        return isinstance(node, dict) and "value" in node and not isinstance(node["value"], dict)

    return jax.tree.map(lambda node: node["value"], tree, is_leaf=is_variable)
