"""Where the state of an optimizer lives: spread over devices that hold the same parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from decoupled_wd import _tree
from decoupled_wd._typing import Params


def optimizer_state_sharding(
    tx: optax.GradientTransformation,
    params: Params,
    mesh: Mesh | AbstractMesh,
    axis_name: str = "data",
) -> Any:
    r"""Spread an optimizer's state over the data axis, as ZeRO-1 does: a sharding for each array of it.

    $$\text{shape on a device} = (s_1, \ldots, s_i / n, \ldots, s_k)$$

    n is the size of the axis, and i the first dimension that n divides and that the parameter's own
    sharding leaves free. Replicated, the state is n times on the devices along the axis; spread, once.
    The state's structure is that of `jax.eval_shape(tx.init, params)`, so that no array is made here:

        sharding = dwd.optimizer_state_sharding(tx, params, mesh)
        state = jax.jit(tx.init, out_shardings=sharding)(params)
        step = jax.jit(step, out_shardings=(params_sharding, sharding), donate_argnums=(0, 1))

    The step is the one for a single device: told where its results live, the compiler lets each device
    update its part and gathers the new parameters. Without `out_shardings` on the step it may as well
    spread the parameters.

    Args:
        tx: any Optax transformation. What it keeps of a parameter in the parameter's shape is sharded as
            the parameter is, and over `axis_name` besides; any other array (factored moments, rows,
            flattened trees) over `axis_name` alone. Scalars, and what n does not divide, are replicated.
        params: the tree that `tx.init` gets: arrays, or `jax.ShapeDtypeStruct`s. Those with a
            `NamedSharding`, such as tensor parallelism gives, have it on `mesh`; all others count as
            replicated. Where one is spread over `axis_name` itself, its state is too, and no further.
        mesh: the mesh of the devices.
        axis_name: its axis along which the parameters are replicated.

    Returns:
        A tree of `jax.sharding.NamedSharding` like `tx.init(params)`. The numbers stay those of one
        device, up to the rounding of sums over a whole leaf.

    Raises:
        TypeError: `tx` is no transformation, or `mesh` no mesh.
        ValueError: the mesh has no such axis, or a parameter is on another mesh.

    Example:
        Over 4 devices a kernel's moments are cut along their columns, as 4 does not divide 3:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> mesh = jax.sharding.AbstractMesh((4,), ("data",))
        >>> params = {"bias": jnp.zeros(3), "kernel": jnp.zeros((3, 8))}
        >>> moments, *_ = dwd.optimizer_state_sharding(dwd.adamw(1e-3), params, mesh)
        >>> moments.mu["kernel"].shard_shape((3, 8)), moments.mu["bias"].shard_shape((3,))
        ((3, 2), (3,))

    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
    2020, stage P_os; Xu et al., "Automatic Cross-Replica Sharding of Weight Update in Data-Parallel
    Training", 2020, which lets XLA derive it.
    """
    if not hasattr(tx, "init"):  # `optax.MultiSteps` is no `GradientTransformation`.
        raise TypeError(
            f"`tx` is a {type(tx).__name__}, and an Optax gradient transformation is needed, as its "
            "maker gives it: `optax.adam(1e-3)`."
        )
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise TypeError(
            f"`mesh` is a {type(mesh).__name__}, and a mesh is needed: "
            '`jax.make_mesh((jax.device_count(),), ("data",))`.'
        )
    if axis_name not in mesh.axis_names:
        axes = ", ".join(map(repr, mesh.axis_names))
        raise ValueError(
            f"`axis_name` is {axis_name!r}, and the axes of `mesh` are {axes}. Pass the one along which "
            "the parameters are replicated."
        )
    own = {
        path: (jnp.shape(x), _own_spec(x, path, mesh))
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }

    def sharding(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> NamedSharding:
        # A tree like the parameters ends in their paths, wherever it stands; the longest is meant.
        ends = (path[start:] for start in range(len(path) + 1))
        shape, spec = next((own[end] for end in ends if end in own), (None, PartitionSpec()))
        spec = spec if shape == x.shape else PartitionSpec()
        return NamedSharding(mesh, _spread(x.shape, spec, axis_name, mesh.shape[axis_name]))

    return jax.tree_util.tree_map_with_path(sharding, jax.eval_shape(tx.init, params))


def _own_spec(parameter: Any, path: tuple[Any, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    sharding = getattr(parameter, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return PartitionSpec()
    # The type of a traced array has the abstract mesh.
    if sharding.mesh not in (mesh, mesh.abstract_mesh):
        raise ValueError(
            f"`params`{_tree.place(_tree.path_name(path))} are on {sharding.mesh}, and `mesh` is "
            f"{mesh}. Pass the mesh that the parameters are on."
        )
    return sharding.spec


def _spread(shape: tuple[int, ...], spec: PartitionSpec, axis: str, size: int) -> PartitionSpec:
    """`spec` with an axis of the mesh put on the first free dimension that its size divides."""
    taken = [*spec, *[None] * (len(shape) - len(spec))]
    if any(axis == names or (isinstance(names, tuple) and axis in names) for names in taken):
        return spec
    for dimension, (length, names) in enumerate(zip(shape, taken, strict=True)):
        if names is None and length % size == 0:
            return PartitionSpec(*taken[:dimension], axis, *spec[dimension + 1 :])
    return spec
