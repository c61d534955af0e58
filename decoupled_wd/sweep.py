"""Grids of runs in one compiled program: learning rates x decays x seeds, on every device there is.

Every number of this library may be traced, so a training that takes its learning rate and decay as
arguments is one program for all of them:

    def train(learning_rate, weight_decay, seed):
        tx = dwd.adamw(learning_rate, weight_decay=weight_decay, schedule=cosine)
        ...
        return test_error

    errors = sweep.grid(
        train, learning_rate=2.0 ** np.arange(-11, -3), weight_decay=..., seed=np.arange(3)
    )
    plots.plane(errors.mean(axis=2), ...)

Checks of values do not see traced numbers: what `adamw(0.1, weight_decay=2.0)` refuses, a sweep runs.
What is random is best drawn before, in NumPy, and passed as an axis, such as a dict of initial
parameters and minibatches for `seed`: random draws take the compiler seconds.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from decoupled_wd._check import check_float_dtype

__all__ = ["grid"]


def grid(function: Callable[..., PyTree], /, *mapped: PyTree, **axes: PyTree) -> PyTree:
    r"""Call a function at every point of a grid, in one compiled program.

    $$\mathrm{out}[i, j, \ldots] = f(\mathrm{mapped}[i, j, \ldots]; a_i, b_j, \ldots)$$

    The runs are spread over all local devices, and do not communicate: one axis over them all, or
    several over some each, whatever leaves a device the fewest. What `function` does not get from an
    axis or from `mapped` (data, the minibatch of a seed) is held and computed once, not once a run. All
    runs are in memory together. The compilation is kept for the same `function` object: define it
    outside a loop, and again where a global that it reads has changed.

    Args:
        function: pure and traceable; takes a point's `mapped` by position and its values of `axes` by
            name.
        mapped: trees whose arrays have the axes in front, such as what an earlier call gave back: so
            a training advances in pieces, under a progress bar.
        axes: by name, the values along an axis: an array of one dimension, a list of numbers or, such
            as stacked initial parameters, a tree of arrays of one length. Python numbers become the
            default dtypes. Models that hold more than arrays go in as their arrays (`nnx.split`,
            `eqx.partition`), and a seed of `nnx.Rngs` as `jax.random.key(seed)`.

    Returns:
        What `function` returns, the axes in front of every array in the order in which they were given.

    Raises:
        TypeError: no axes, a list of arrays, values that are no numbers or have 16 bits.
        ValueError: an axis without values or whose arrays differ in length, or `mapped` without the
            axes in front.

    Example:
        A weight of 1 with a gradient of 1 ends at 1 - learning rate - decay:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import sweep
        >>> def step(learning_rate, weight_decay):
        ...     tx = dwd.sgdw(learning_rate, weight_decay=weight_decay)
        ...     theta = jnp.float32(1.0)
        ...     u, _ = tx.update(jnp.float32(1.0), tx.init(theta), theta)
        ...     return theta + u
        >>> print(sweep.grid(step, learning_rate=[0.25, 0.5], weight_decay=[0.0, 0.25, 0.5]))
        [[0.75 0.5  0.25]
         [0.5  0.25 0.  ]]
    """
    if not axes:
        raise TypeError("`axes` is empty. Name an axis and its values: `learning_rate=[0.1, 0.2]`.")
    axes = {name: _as_axis(name, values) for name, values in axes.items()}
    shape = tuple(_length(values) for values in axes.values())
    for leaf in jax.tree.leaves(mapped):
        if np.shape(leaf)[: len(shape)] != shape:
            raise ValueError(
                f"`mapped` has an array of shape {np.shape(leaf)}, and the axes {', '.join(axes)} "
                f"have lengths {shape}, which must stand in front. Pass what a call of `grid` with "
                "these axes gave back, and anything else inside `function` or as an axis."
            )
    names, values = tuple(axes), tuple(axes.values())
    return _run(function, names, tuple(jax.local_devices()), mapped, values)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    function: Callable[..., PyTree],
    names: tuple[str, ...],
    devices: Sequence[Any],
    mapped: tuple[PyTree, ...],
    axes: tuple[PyTree, ...],
) -> PyTree:
    def of_the_grid(mapped, axes):
        def at_a_point(mapped, *values):
            return function(*mapped, **dict(zip(names, values, strict=True)))

        # The innermost map is the last axis: each map puts its own in front.
        for i in reversed(range(len(names))):
            of_axes = (0 if i == j else None for j in range(len(names)))
            at_a_point = jax.vmap(at_a_point, (0, *of_axes))
        return at_a_point(mapped, *axes)

    shape = tuple(map(_length, axes))
    parts = _parts(shape, len(devices))
    filled = tuple(-(-length // n) * n for length, n in zip(shape, parts, strict=True))
    over = [f"axis {i}" for i in range(len(names))]
    out = jax.shard_map(
        of_the_grid,
        mesh=Mesh(np.reshape(devices, (*parts, -1)), (*over, "copies")),
        in_specs=(PartitionSpec(*over), tuple(map(PartitionSpec, over))),
        out_specs=PartitionSpec(*over),
        check_vma=False,  # Runs do not meet, so a carry that starts as a constant is right.
    )(_fit(mapped, filled), tuple(_fit(x, (n,)) for x, n in zip(axes, filled, strict=True)))
    return _fit(out, shape)


def _parts(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Into how many parts each axis is cut, for so many devices."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    cuts = itertools.product(divisors, repeat=len(shape))

    def runs_of_a_device(parts: tuple[int, ...]) -> int:
        return math.prod(-(-length // n) for length, n in zip(shape, parts, strict=True))

    return min((x for x in cuts if count % math.prod(x) == 0), key=runs_of_a_device)


def _fit(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    """Cut the axes in front to these lengths, or fill them up with their last run."""

    def fit(x: jax.Array) -> jax.Array:
        for axis, length in enumerate(shape):
            if x.shape[axis] != length:
                last = min(x.shape[axis], length) - 1
                x = x[(slice(None),) * axis + (np.minimum(np.arange(length), last),)]
        return x

    return jax.tree.map(fit, tree)


def _as_axis(name: str, values: PyTree) -> PyTree:
    if type(values) in (list, tuple, range):  # A NamedTuple is a tree.
        if any(np.ndim(x) or not jax.tree_util.all_leaves([x]) for x in values):
            raise TypeError(
                f"`{name}` is a {type(values).__name__} of arrays or trees, which may be points or "
                "parts of one tree. Stack the points (`jnp.stack`; `jax.tree.map` it for trees); a tree "
                "of stacked arrays may be a dict."
            )
        values = np.asarray(values)
    for leaf in jax.tree.leaves(values):
        if not isinstance(leaf, jax.Array) and np.asarray(leaf).dtype.kind not in "biufc":
            raise TypeError(
                f"`{name}` holds what is no number, {leaf!r}. An axis is of numbers, which can be "
                "traced; loop over anything else."
            )
    values = jax.tree.map(jnp.asarray, values)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(values)}
    if not lengths:
        raise ValueError(f"`{name}` has no arrays. Give it values, or leave it out.")
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            f"`{name}` has values of the lengths {sorted(lengths)}, and an axis needs arrays of one "
            "length, at least 1, along their first dimension. For a single value pass `[value]`."
        )
    for leaf in jax.tree.leaves(values):
        check_float_dtype(name, leaf)
    return values


def _length(values: PyTree) -> int:
    return jax.tree.leaves(values)[0].shape[0]
