"""The records of the catalogue: relations between two optimizers, and properties of one."""

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
Read: TypeAlias = Callable[[Hyper, jax.Array], jax.Array]
Verdict = Literal["bitwise", "rounding", "limit", "never"]


class Interval(NamedTuple):
    """Where a number is drawn from, the ends included: by its logarithm if both are positive.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> eq.DOMAINS["beta"]
        Interval(low=0.0, high=0.95)
    """

    low: float
    high: float


class Problem(NamedTuple):
    """Stochastic gradients: what an optimizer is run on.

    Example:
        A gradient of theta - x on batches of one x, two steps of one micro-step each:

        >>> import numpy as np
        >>> from decoupled_wd import equivalence as eq
        >>> x = np.array([[[1.0]], [[3.0]]])
        >>> problem = eq.Problem("mean", lambda theta, x: theta - x, x, theta0=np.array([5.0]))
        >>> problem.steps, problem.gradient(problem.theta0, problem.batches[0, 0])
        (2, array([4.]))
    """

    name: str
    gradient: Callable[[jax.Array, Any], jax.Array]
    """The gradient at `theta`, shape (d,), on one batch."""
    batches: Any
    """What `gradient` is given, step by step: leading axes (steps, micro-steps)."""
    theta0: np.ndarray
    """The start, shape (d,)."""

    @property
    def steps(self) -> int:
        """How many steps there are batches for."""
        return jax.tree.leaves(self.batches)[0].shape[0]

    def first(self, steps: int) -> "Problem":
        """The same, stopped after so many steps."""
        return self._replace(batches=jax.tree.map(lambda x: x[:steps], self.batches))


class Mutant(NamedTuple):
    """A wrong map: the right one with one constant changed.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> mutant = eq.relation("k1").mutant
        >>> mutant.change, mutant.apply({"lam": 1.0})
        ('lam times 1.01', {'lam': 1.01})
    """

    change: str
    """What was changed, as printed."""
    apply: Callable[[Hyper], Hyper]
    """The right side's numbers, changed."""


class Limit(NamedTuple):
    """A number on its way to where two optimizers meet.

    Example:
        With a growing eps Adam becomes SGD, and the gap falls as 1 / eps:

        >>> from decoupled_wd import equivalence as eq
        >>> eq.relation("adam-large-eps").limit
        Limit(name='eps', values=(1000.0, 10000.0, 100000.0), rate=-1.0)
    """

    name: str
    values: tuple[float, ...]
    rate: float
    """The gap goes like the number to this power."""


def _same(hyper: Hyper) -> Hyper:
    del hyper
    return {}


def _as_it_is(hyper: Hyper, x: jax.Array) -> jax.Array:
    del hyper
    return x


@dataclasses.dataclass(frozen=True)
class Relation:
    """Two chains, the map between them, and whether they move the parameters alike.

    The verdicts: `"bitwise"` is equality to the last bit, `"rounding"` equality up to `tolerance` of
    the largest parameter, both for all numbers that `condition` allows (where training is unstable
    rounding grows with everything else: numbers are drawn where it is not); `"limit"` a gap that goes
    to zero with a number, at a measured rate; `"never"` a separation. A separation names a witness: the
    problem, the numbers, and the gap that can be worked out by hand; where `family` is given, no
    member of it does better.

    Example:
        From the paper's decay, per step, to Optax's, per unit of learning rate:

        >>> from decoupled_wd import equivalence as eq
        >>> row = eq.relation("k1")
        >>> row.verdict, row.map({"alpha": 0.5, "lam": 0.25})  # 0.25 / 0.5
        ('rounding', {'lam': 0.5})
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
    parameters: Read = _as_it_is
    """From the right side's parameters to the left's: there its gradient is taken and pulled back,
    and there the two are compared."""
    read_left: Read = _as_it_is
    """What is compared of the left side's path, shape (steps, d): itself, or say its direction."""
    read_right: Read = _as_it_is
    """What is compared of the right side's path, after `parameters`."""
    values: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    """Numbers in place of the checker's."""
    right_sees_whole_batch: bool = False
    """Whether the right side takes the micro-steps' batches as one."""
    constant_schedule: bool = False
    """Whether the relation is stated for a constant schedule alone."""
    condition: str = ""
    """What is asked of the numbers beyond their usual domains, as printed."""
    domain: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    """Where numbers are drawn from, in place of, or besides, the checker's usual domains."""
    outside: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    """Where the condition is broken, and the equality with it."""
    tolerance: float = 1e-10
    """What counts as equal, relative to the largest parameter; 0 for `"bitwise"`."""
    mutant: Mutant | None = None
    """For an equality or a limit: a change that the checker must catch."""
    gap: float | None = None
    """For a separation: the largest distance of the parameters on the witness."""
    gap_is_bound: bool = False
    """Whether the gap was found to be at least `gap`, and not worked out by hand."""
    family: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """For a separation: values of the right side's numbers, of which the closest counts."""
    limit: Limit | None = None
    """For a limit: the number that goes, and the rate that is claimed."""
    quick: bool = False
    """Whether `relations --quick` runs it."""


@dataclasses.dataclass(frozen=True)
class Property:
    """A number that an optimizer is claimed to have, measured, and where the claim ends.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> bound = eq.relation("bf16-noop")
        >>> bound.statement
        'up to this λ per step, 2^-9, decay moves no bfloat16 weight at all'
        >>> bound.expected * 2**9
        1.0
    """

    name: str
    statement: str
    measure: Callable[[Hyper], jax.Array]
    """The number, from the numbers by name; it runs in float64 under `jit`."""
    expected: float
    why: str
    source: str
    tolerance: float = 1e-10
    """How far the measured number may be off, relative to `expected`."""
    at_most: bool = False
    """Whether `expected` is a bound from above that is attained to within `tolerance`."""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    condition: str = ""
    mutant: Mutant | None = None
    """Numbers changed, for which the claim must fail."""
    quick: bool = False
