"""A table of what decays, and by how much."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from decoupled_wd import _check, _tree, masks
from decoupled_wd._rate import Coupling, check_decay, check_step, decay_per_step
from decoupled_wd._typing import Mask, NumberOrSchedule, Params


class DecayRow(NamedTuple):
    """What decay does to one leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> (row,) = dwd.describe_decay({"kernel": jnp.ones((2, 3))}, weight_decay=0.004)
        >>> row.path, row.shape, round(row.decay_per_step, 6), round(row.half_life)  # ln 2 / 0.004
        ('kernel', (2, 3), 0.004, 173)
    """

    path: str
    """Names joined with slashes; empty for a bare array."""
    shape: tuple[int, ...]
    dtype: str
    multiplier: float
    """What the mask multiplies the decay by."""
    decay_per_step: float
    """The part of the leaf that a step removes."""
    half_life: float
    """Steps in which a weight without gradient loses half of its size; infinity without decay."""


@dataclasses.dataclass(frozen=True, repr=False)
class DecayTable:
    """What decay does to every leaf: rows to read, and text to print.

    Example:
        Which leaves do not decay?

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import masks
        >>> params = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
        >>> table = dwd.describe_decay(params, masks.matrices())
        >>> [row.path for row in table if not row.multiplier]
        ['bias']
    """

    rows: tuple[DecayRow, ...]
    by_rank: tuple[str, ...] = ()
    """Paths that decay because a preset counts their axes: no name and no `stacked` tells it."""

    def __iter__(self) -> Iterator[DecayRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        titles = ("path", "shape", "dtype", "multiplier", "decay per step", "half-life")
        lines = [
            titles,
            *([str(x) for x in row[:3]] + [f"{x:.4g}" for x in row[3:]] for row in self),
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if index < 3 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join(
            [*text, _total(self.rows), *([_doubt(self.by_rank)] if self.by_rank else [])]
        )


def describe_decay(
    params: Params,
    mask: Mask = None,
    *,
    weight_decay: NumberOrSchedule = 1e-4,
    learning_rate: NumberOrSchedule | None = None,
    schedule: NumberOrSchedule | None = None,
    coupling: Coupling = "schedule",
    step: int = 0,
) -> DecayTable:
    r"""Tabulate which leaves decay, and by how much: what an optimizer of the same arguments does.

    $$d_t = m \cdot \{\eta_t \lambda,\ \alpha \eta_t \lambda,\ \lambda,\ \alpha \eta_t^2 \lambda\},
    \quad h = \frac{\ln 2}{-\ln(1 - d_t)}$$

    with m the mask's multiplier of the leaf, and one of the four by `coupling`: `"schedule"`,
    `"learning_rate"`, `"none"`, `"corrected"`.

    Args:
        params: the parameters, or their shapes, as `jax.eval_shape` gives them; nothing is computed on
            them. Leaves that are no floating or complex arrays get no row. Of an NNX module with other
            variables than parameters, such as batch statistics, `nnx.state(module, nnx.Param)`.
        mask: which leaves decay; as in `adamw`.
        weight_decay: lambda, in the unit that `coupling` gives it; a number or a callable of the step.
        learning_rate: alpha, which `"learning_rate"` and `"corrected"` need.
        schedule: eta_t, a number or a callable of the step; None is 1, its peak.
        coupling: what lambda is per, as in `adamw`.
        step: t, at which callables are asked; an integer, 0 or more.

    Returns:
        A `DecayTable`, to iterate over or to print. A half-life of 0 says that a step removes all of the
        leaf or more. Below it stand leaves that a preset lets decay by rank alone: in stacked layers
        they may be vectors.

    Raises:
        TypeError: an argument of the wrong type, or a traced number, of which no text can be made.
        ValueError: as in `adamw`, a mask that does not fit, or a `learning_rate` that is needed and not
            given.

    Warns:
        UserWarning: a step removes 0.5 % or more of every decayed weight.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import masks
        >>> params = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
        >>> dwd.describe_decay(params, masks.by_path({"bias": 0}), weight_decay=0.004)
        path    shape   dtype    multiplier  decay per step  half-life
        bias    (3,)    float32           0               0        inf
        kernel  (2, 3)  float32           1           0.004      172.9
        Decayed: 6 of 9 parameters, in 1 of 2 leaves, 24 of 36 bytes.
    """
    _check.check_integer("step", step, minimum=0)
    check_step(0.0 if learning_rate is None else learning_rate, schedule, coupling)
    if learning_rate is None and coupling in ("learning_rate", "corrected"):
        raise ValueError(
            f"`learning_rate` is None, and coupling={coupling!r} multiplies the decay by it: pass the "
            "learning rate of the optimizer."
        )
    check_decay(weight_decay, learning_rate, schedule, coupling)
    masks.check_mask(mask)
    masks.check_decays_something(mask, params)
    rate = decay_per_step(weight_decay, learning_rate, schedule, coupling)
    with jax.ensure_compile_time_eval():
        # In int32, as the optimizer counts: 1 / step has the precision of its step.
        removed = _known("weight_decay", rate(jnp.asarray(step, jnp.int32)))
    multipliers = True if mask is None else masks.multipliers(mask, params)
    spread = jax.tree.broadcast(multipliers, params, is_leaf=_tree.is_absent)
    keyed, treedef = _tree.flatten_arrays(params)
    rows = []
    for (path, leaf), below in zip(keyed, treedef.flatten_up_to(spread), strict=True):
        if _tree.is_inexact(leaf):
            value = jax.tree.leaves(below)[0]  # An NNX Variable has a level more.
            multiplier = _known("mask", value)
            shape, dtype = jnp.shape(leaf), jnp.result_type(leaf).name
            decay = multiplier * removed
            rows.append(
                DecayRow(_tree.path_name(path), shape, dtype, multiplier, decay, _half_life(decay))
            )
    decayed = {row.path for row in rows if row.multiplier}
    by_rank = [path for path in masks.decided_by_rank(mask, params) if path in decayed]
    return DecayTable(tuple(rows), tuple(by_rank))


def _known(name: str, value: Any) -> float:
    number = _check.concrete(value)
    if number is None:
        raise TypeError(
            f"`{name}` is traced, and `describe_decay` writes numbers: call it outside of jax.jit with "
            "Python numbers."
        )
    return number


def _half_life(decay: float) -> float:
    if decay == 0:
        return math.inf
    return -math.log(2) / math.log1p(-decay) if decay < 1 else 0.0


def _total(rows: tuple[DecayRow, ...]) -> str:
    sizes = [math.prod(row.shape) for row in rows]
    bytes_ = [n * jnp.dtype(row.dtype).itemsize for n, row in zip(sizes, rows, strict=True)]
    decayed = [row.multiplier > 0 for row in rows]

    def part(numbers: list[int]) -> str:
        of = sum(n for n, on in zip(numbers, decayed, strict=True) if on)
        return f"{of:,} of {sum(numbers):,}"

    leaves = part([1] * len(rows))
    return f"Decayed: {part(sizes)} parameters, in {leaves} leaves, {part(bytes_)} bytes."


def _doubt(paths: tuple[str, ...]) -> str:
    return (
        f"By rank alone: {_tree.listed(list(paths))}. Where an axis stacks layers, say so with "
        "`stacked` of the preset; 0 for a path says that none does."
    )
