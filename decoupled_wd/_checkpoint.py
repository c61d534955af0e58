"""What a checkpoint holds: the shapes of its arrays, without reading Orbax's arrays."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from decoupled_wd import _tree
from decoupled_wd._typing import Params

_MARK = "_METADATA"  # In the directory of every tree that Orbax saved.


def read_shapes(checkpoint: str) -> Any:
    """The tree of a checkpoint, with a `jax.ShapeDtypeStruct` for every array and None for the rest.

    Raises:
        ValueError: there is none, or it is neither an Orbax directory nor a Flax msgpack file.
        ImportError: Orbax or Flax is not installed.
    """
    path = Path(checkpoint).absolute()
    if not path.exists():
        raise ValueError(f"`checkpoint` is {checkpoint!r}, and there is no such file or directory.")
    tree = _orbax(_tree_directory(path)) if path.is_dir() else _msgpack(path)
    return jax.tree.map(_shape, tree)


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
    """The directory of the one tree in an Orbax checkpoint, which a CheckpointManager nests."""
    if (path / _MARK).exists():
        return path
    trees = sorted(child for child in path.iterdir() if (child / _MARK).exists())
    if len(trees) == 1:
        return trees[0]
    if trees:
        raise ValueError(
            f"`checkpoint` is {str(path)!r}, which holds several trees: "
            f"{_tree.listed([child.name for child in trees])}. Pass the directory of one."
        )
    steps = sorted(
        (child for child in path.iterdir() if child.name.isdecimal()), key=lambda x: int(x.name)
    )
    if steps:
        raise ValueError(
            f"`checkpoint` is {str(path)!r}, which holds several steps: "
            f"{_tree.listed([child.name for child in steps])}. Pass the directory of one, such as "
            f"{str(steps[-1])!r}."
        )
    raise ValueError(
        f"`checkpoint` is the directory {str(path)!r}, and no Orbax checkpoint: it has no {_MARK}. Pass "
        "the directory of a tree that Orbax saved, or a Flax msgpack file."
    )


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
