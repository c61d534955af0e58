"""The record of a relation between two optimizers, and the problems it is tried on."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
import optax

from decoupled_wd._typing import Number

Hyper: TypeAlias = Mapping[str, Any]
"""Numbers by name: `alpha`, `lam`, `beta`, ..., `eta` (the schedule, one value a step), `theta0`."""
Chain: TypeAlias = Callable[[Hyper], optax.GradientTransformation]
Verdict = Literal["equal", "different"]


class Problem(NamedTuple):
    """Stochastic gradients: what an optimizer is run on."""

    name: str
    gradient: Callable[[jax.Array, Any], jax.Array]
    """The gradient at `theta`, shape (d,), on one batch."""
    batches: Any
    """What `gradient` is given, step by step: leading axes (steps, micro-steps)."""
    theta0: np.ndarray
    """The start, shape (d,)."""


class Mutant(NamedTuple):
    """A wrong map: the right one with one constant changed."""

    change: str
    """What was changed, as printed."""
    apply: Callable[[Hyper], Hyper]
    """The right side's numbers, changed."""


def _same(hyper: Hyper) -> Hyper:
    del hyper
    return {}


def _as_it_is(hyper: Hyper, phi: jax.Array) -> jax.Array:
    del hyper
    return phi


@dataclasses.dataclass(frozen=True)
class Relation:
    """Two chains, the map between them, and whether they move the parameters alike.

    An equality holds for all values of the numbers. A separation names a witness: the problem, the
    numbers, and the gap that can be worked out by hand; where `family` is given, no member of it
    does better.
    """

    name: str
    """The row's name in the literature of this library, such as `b1`."""
    statement: str
    """Left side == or != right side, in a line."""
    left: Chain
    right: Chain
    verdict: Verdict
    why: str
    """The derivation, in a few sentences."""
    source: str
    problem: Problem
    map: Callable[[Hyper], Hyper] = _same
    """The right side's numbers where they differ from the left's."""
    map_text: str = "identical"
    start: Callable[[Hyper], Hyper] = _same
    """The right side's initial state where it is not what `init` gives: `theta0`, `trace`."""
    start_text: str = "from `init`"
    parameters: Callable[[Hyper, jax.Array], jax.Array] = _as_it_is
    """From the right side's parameters to the left's, in which the two are compared."""
    values: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    """Numbers in place of the checker's."""
    right_sees_whole_batch: bool = False
    """Whether the right side takes the micro-steps' batches as one."""
    constant_schedule: bool = False
    """Whether the relation is stated for a constant schedule alone."""
    mutant: Mutant | None = None
    """For an equality: a change that the checker must catch."""
    gap: float | None = None
    """For a separation: the largest distance of the parameters on the witness."""
    family: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """For a separation: values of the right side's numbers, of which the closest counts."""
