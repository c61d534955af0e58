"""The solver: which numbers bring one optimizer closest to another, and how close that is.

Levenberg and Marquardt's least squares through the optimizers' own trajectories. It finds numbers and
not formulas, and what it does not find is evidence and no proof: that two optimizers are never equal
is said by the rows of the catalogue alone.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from decoupled_wd import _check
from decoupled_wd.equivalence._check import float64_on_cpu
from decoupled_wd.equivalence._problems import REGRESSION
from decoupled_wd.equivalence._relation import Problem

Family: TypeAlias = Callable[[Mapping[str, Any]], optax.GradientTransformation]
FitVerdict = Literal["equal", "a gap remains", "undecided"]

EQUAL = 1e-12
"""Largest relative gap of two equal trajectories."""
SETTLED = 1e-6
"""Largest stationarity of a minimum. Where costs cease to differ in float64, it is about 1e-8."""
SAME_GAP = 0.01
"""How far the gaps of two starts may differ and still be one result."""
ABOVE_ROUNDING = 1000.0
"""How many times the rounding floor a gap is that remains."""
_SAME_POINT = 1e-4  # Of the intervals: well above what minima with a gap are settled to.
_FLAT = 1e-10  # Of the largest singular value: below it a direction is not determined.
_COLUMNS = 4  # Of a printed table.


class Minimizer(NamedTuple):
    """Numbers at which the gap is smallest among their neighbours.

    Example:
        The target's rate, 0.25, is not among those that may be fitted; the nearest is an end:

        >>> import optax
        >>> from decoupled_wd import equivalence as eq
        >>> def family(h):
        ...     return optax.sgd(h["rate"])
        >>> found = eq.fit(family, optax.sgd(0.25), {"rate": (0.5, 1.0)}, steps=2)
        >>> [(best.values, best.at_bound) for best in found.minimizers]
        [({'rate': 0.5}, ('rate',))]
    """

    values: Mapping[str, float]
    """The free numbers, by name."""
    start_scale: float | None
    """c in n_0 = c theta_0, if it was free."""
    share: float
    """The share of the starts that ended here."""
    largest_gap: float
    """Largest deviation of a parameter at any step, relative to the target's largest parameter."""
    rms_gap: float
    """Root mean square of the same deviations: what was minimized."""
    stationarity: float
    """Largest cosine between the deviations and their derivative by a number that is not at a bound.
    Where the gap is rounding it has no meaning."""
    at_bound: tuple[str, ...]
    """The numbers at an end of their interval: outside of it the gap may be smaller."""
    singular_values: tuple[float, ...]
    """Of the Jacobian of the deviations (in the scale of `rms_gap`) by the coordinates of the search.
    A last one of 0 is a direction that the trajectories do not determine to first order: points
    that differ in it alone count as one minimizer."""
    iterations: int
    """The most that a start took to end here."""


class Fit(NamedTuple):
    """What `fit` found; `str` makes it a table.

    Example:
        >>> import optax
        >>> from decoupled_wd import equivalence as eq
        >>> def family(h):
        ...     return optax.sgd(h["rate"])
        >>> found = eq.fit(family, optax.sgd(0.25), {"rate": (0.1, 0.4)}, steps=2)
        >>> found.verdict, round(found.minimizers[0].values["rate"], 9), found.not_settled
        ('equal', 0.25, 0)
    """

    verdict: FitVerdict
    """`"equal"`: the largest gap is at most 1e-12. `"a gap remains"`: the smallest one is stationary,
    at least half of all starts agree with it to 1 % (rms), and it is at least 1000 times the rounding
    floor. `"undecided"`: neither."""
    minimizers: tuple[Minimizer, ...]
    """Every distinct one, from the smallest gap on; none if no start settled."""
    starts: int
    not_finite: int
    """Starts whose own trajectory, or its derivative, is not finite."""
    not_settled: int
    """Starts that ended neither stationary nor equal, as when iterations run out."""
    rounding_floor: float
    """Relative gap that the target gets from a change of theta_0 in the last bit; 2.2e-16 at least."""
    steps: int
    problem: str
    open_loop: bool

    def __str__(self) -> str:
        loop = "open" if self.open_loop else "closed"
        lines = [
            f"{self.verdict}: {self.problem}, {self.steps} steps, {loop} loop, float64",
            f"{self.starts} starts: {self.not_settled} not settled, {self.not_finite} not finite; "
            f"rounding floor {self.rounding_floor:.1e}",
        ]
        columns = [_column(found) for found in self.minimizers[:_COLUMNS]]
        for name in columns[0] if columns else ():
            lines.append(f"{name:<16}" + "".join(f"{column[name]:>24}" for column in columns))
        if len(self.minimizers) > _COLUMNS:
            lines.append(f"and {len(self.minimizers) - _COLUMNS} more, of larger gaps")
        return "\n".join(lines)


def _column(found: Minimizer) -> dict[str, str]:
    """A minimizer's column of the table."""
    numbers = dict(found.values)
    if found.start_scale is not None:
        numbers["start_scale"] = found.start_scale
    singular = found.singular_values
    flat = " flat" if singular[-1] <= _FLAT * singular[0] else ""
    return {
        **{
            name: f"{number:.12g}{' (bound)' if name in found.at_bound else ''}"
            for name, number in numbers.items()
        },
        "share of starts": f"{found.share:.0%}",
        "largest gap": f"{found.largest_gap:.1e}",
        "rms gap": f"{found.rms_gap:.1e}",
        "stationarity": f"{found.stationarity:.1e}",
        "iterations": str(found.iterations),
        "sing. max, min": f"{singular[0]:.1e}, {singular[-1]:.1e}{flat}",
    }


def fit(
    family: Family,
    target: optax.GradientTransformation | Family,
    free: Mapping[str, tuple[float, float]],
    *,
    values: Mapping[str, ArrayLike] | None = None,
    start_scale: tuple[float, float] | None = None,
    problem: Problem = REGRESSION,
    steps: int = 60,
    starts: int = 16,
    iterations: int = 200,
    open_loop: bool = False,
    seed: int = 0,
) -> Fit:
    r"""Find the numbers of a family of optimizers that bring it closest to a target.

    $$\min_{h, c} \; \operatorname{mean}_{t, i} \left( \frac{\theta_{t,i}(h, c) - \theta^*_{t,i}}
    {\max |\theta^*|} \right)^2, \qquad n_0 = c \, \theta_0$$

    with $\theta^*$ the target's trajectory and $\theta(h, c)$ the family's, in float64 on CPU. The
    derivative goes forward through the steps of the optimizer. All starts run side by side, in
    coordinates in which an interval inside (0, 1) is one of logits, another positive one is one of
    logarithms, and any other is itself. What a number is per, such as a decay, is the family's.
    A step of signs (Lion) has a derivative that does not see the signs change: expect "undecided".

    `family`, `target` and `problem.gradient` are compiled once: another call with the same function
    objects and other numbers reuses the programs.

    Args:
        family: from numbers by name, which are traced, to a transformation. It is called inside the
            float64 context.
        target: a transformation, or a function of `values` that makes one inside the float64 context.
            A transformation made outside keeps the arrays it was made with: a float32 0.1 is the
            number 0.10000000149, and what accumulates in float32 goes on doing so.
        free: the interval (low, high) of every free number, by the name that `family` reads.
        values: fixed numbers by name (or arrays, such as a schedule's values), for `family` and
            `target` alike; where `free` has the same name, the family gets the free number and the
            target the fixed one.
        start_scale: the interval of c, if the family's momentum buffer may start at n_0 = c theta_0;
            its state must have a field `trace`. The target starts from `init`.
        problem: gradients and the start; those of the catalogue's regression if not given.
        steps: T, at most the steps of the problem.
        starts: how many points of the intervals to search from, spread evenly over each.
        iterations: at most so many trial steps a start.
        open_loop: whether the family is given the target's gradients in place of its own. That is
            faster, and its minima are others: for first guesses.
        seed: of the starts.

    Returns:
        A `Fit`: the verdict, every distinct minimizer, and what they rest on.

    Raises:
        TypeError: `family` or `target` is no function that returns a transformation, or `steps`,
            `starts` or `iterations` is no integer.
        ValueError: `free` is empty, an interval is empty or not finite, a number that is read is in
            neither `free` nor `values`, there are fewer batches than `steps`, the target's gradients
            or parameters are not finite, or `start_scale` is asked of a family without a momentum
            buffer.

    Example:
        Which L2 coefficient makes plain SGD decay by 0.02 a step at a learning rate of 0.05?

        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import equivalence as eq
        >>> found = eq.fit(
        ...     lambda h: dwd.sgd_l2(h["alpha"], None, weight_decay=h["l2"]),
        ...     lambda h: dwd.sgdw(h["alpha"], None, weight_decay=h["lam"]),
        ...     free={"l2": (1e-3, 10.0)},
        ...     values={"alpha": 0.05, "lam": 0.02})
        >>> found.verdict
        'equal'
        >>> [round(best.values["l2"], 9) for best in found.minimizers]  # 0.02 / 0.05
        [0.4]

    Source: Levenberg 1944; Marquardt 1963; the increase of the damping as in Nielsen 1999.
    """
    problem = _checked_problem(problem, steps)
    for name, number in {"starts": starts, "iterations": iterations}.items():
        _check.check_integer(name, number, minimum=1)
    box = _checked_box(free, start_scale)
    with float64_on_cpu():
        fixed = {name: np.asarray(x, np.float64) for name, x in (values or {}).items()}
        nudge = np.array([[1.0], [1.0 + np.finfo(np.float64).eps]])
        paths, gradients = _target_paths(
            target, problem.gradient, fixed, nudge * problem.theta0, problem.batches
        )
        paths = np.asarray(paths)
        _check_finite(problem.name, np.asarray(gradients[0]), paths[0])
        if open_loop:
            problem = problem._replace(gradient=_as_given, batches=gradients[0])
        model = _Model(family, problem.gradient, tuple(free), box.kinds, start_scale is not None)
        ends = _search(
            model, box.spread(starts, seed), box.low, box.high, fixed,
            problem.theta0, problem.batches, paths[0], iterations,
        )  # fmt: skip
        ends = jax.tree.map(np.asarray, ends)
        found, not_settled = _minimizers(ends, model, box, paths[0])
    moved = float(np.abs(paths[1] - paths[0]).max() / np.abs(paths[0]).max())
    floor = max(moved, float(np.finfo(np.float64).eps))
    return Fit(
        verdict=_verdict(ends, found, floor),
        minimizers=found,
        starts=starts,
        not_finite=int(np.isinf(ends.cost).sum()),
        not_settled=not_settled,
        rounding_floor=floor,
        steps=steps,
        problem=problem.name,
        open_loop=open_loop,
    )


# Coordinates


class _Box(NamedTuple):
    """The intervals of the free numbers, in the coordinates of the search."""

    kinds: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray

    def spread(self, starts: int, seed: int) -> np.ndarray:
        """A Latin hypercube: every interval is covered evenly."""
        cells = np.tile(np.arange(starts), (self.low.size, 1))
        cells = np.random.default_rng(seed).permuted(cells, axis=1).T
        return self.low + (cells + 0.5) / starts * (self.high - self.low)


_TO_NUMBER: Mapping[str, Callable[[Any], Any]] = {
    "logit": jax.nn.sigmoid,
    "log": jnp.exp,
    "itself": lambda z: z,
}
_TO_COORDINATE: Mapping[str, Callable[[Any], Any]] = {
    "logit": lambda x: np.log(x) - np.log1p(-x),
    "log": np.log,
    "itself": lambda x: x,
}


def _kind(low: float, high: float) -> str:
    if low <= 0:
        return "itself"
    return "logit" if high < 1 else "log"


# Trajectories


class _Model(NamedTuple):
    """What the search compiles: two of the same functions share a program."""

    family: Family
    gradient: Callable[[jax.Array, Any], jax.Array]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    scaled: bool

    def numbers(self, z: Any) -> list[Any]:
        """The free numbers at a point of the search, and last, if it is free, the start's scale."""
        return [_TO_NUMBER[kind](z[i]) for i, kind in enumerate(self.kinds)]

    def path(self, z: jax.Array, fixed: Any, theta0: jax.Array, batches: Any) -> jax.Array:
        """The family's trajectory there."""
        numbers = self.numbers(z)
        scale = numbers.pop() if self.scaled else None
        tx = _make("family", self.family, {**fixed, **dict(zip(self.names, numbers, strict=True))})
        return _run(tx, self.gradient, theta0, batches, scale)[0]


def _make(side: str, make: Family, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    needed = "Pass a function from numbers by name to an `optax.GradientTransformation`."
    if not callable(make):
        raise TypeError(f"`{side}` is {make!r}. {needed}")
    try:
        tx = make(numbers)
    except KeyError as error:
        if error.args[0] in numbers:
            raise
        where = "`free` or `values`" if side == "family" else "`values`"
        raise ValueError(
            f"`{side}` reads {error.args[0]!r}, and the numbers there are {sorted(numbers)}. Pass it "
            f"in {where}."
        ) from None
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(f"`{side}` returns {tx!r}, and no transformation. {needed}")
    return tx


def _run(
    tx: optax.GradientTransformation,
    gradient: Callable[[jax.Array, Any], jax.Array],
    theta0: jax.Array,
    batches: Any,
    start_scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Parameters after every step, and the gradients of every step's micro-steps."""
    state = tx.init(theta0)
    if start_scale is not None:
        if not optax.tree.get_all_with_path(state, "trace"):
            raise ValueError(
                "`start_scale` is given, and the state of `family` has no field `trace` to start at "
                "that multiple of theta_0. Use a family with momentum (`optax.trace`), or leave "
                "`start_scale` out."
            )
        state = optax.tree.set(state, trace=start_scale * theta0)

    def step(carry: Any, batch: Any) -> tuple[Any, Any]:
        theta, state = carry
        g = jnp.asarray(gradient(theta, batch), theta.dtype)
        updates, state = tx.update(g, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), (theta, g)

    micro_steps = jax.tree.leaves(batches)[0].shape[1]
    in_a_row = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    thetas, gradients = jax.lax.scan(step, (theta0, state), in_a_row)[1]
    after = thetas[micro_steps - 1 :: micro_steps]
    return after, gradients.reshape(len(after), micro_steps, -1)


def _as_given(theta: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient of an open loop."""
    del theta
    return gradient


@functools.partial(jax.jit, static_argnums=(0, 1))
def _target_paths(target: Any, gradient: Any, fixed: Any, starts: Any, batches: Any) -> Any:
    """The target's trajectory and gradients from each of several starts."""
    tx = target
    if not isinstance(target, optax.GradientTransformation):
        tx = _make("target", target, fixed)
    return jax.vmap(lambda theta0: _run(tx, gradient, theta0, batches))(starts)


# Least squares


class _Search(NamedTuple):
    """One start's search: the best point so far, and the next one to try."""

    point: jax.Array
    deviations: jax.Array
    jacobian: jax.Array
    cost: jax.Array  # Infinite before the first trial, and for ever if that is not finite.
    stationarity: jax.Array
    trial: jax.Array
    damping: jax.Array
    increase: jax.Array
    count: jax.Array
    done: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _search(
    model: _Model, starts: Any, low: Any, high: Any, fixed: Any,
    theta0: Any, batches: Any, path: Any, iterations: Any,
) -> _Search:  # fmt: skip
    """Levenberg-Marquardt from every start, in the box."""

    def deviations(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = (model.path(z, fixed, theta0, batches) - path) / jnp.abs(path).max()
        found = found.ravel() / np.sqrt(found.size)
        return found, found

    def step(s: _Search) -> _Search:
        jacobian, here = jax.jacfwd(deviations, has_aux=True)(s.trial)
        better = (here @ here < s.cost) & jnp.isfinite(jacobian).all()
        best = s.trial, here, jacobian, here @ here
        best = jax.tree.map(functools.partial(jnp.where, better), best, tuple(s[:4]))
        point, here, jacobian, cost = best
        damping = jnp.where(better, jnp.maximum(s.damping / 5, 1e-20), s.damping * s.increase)
        increase = jnp.where(better, 2.0, 2 * s.increase)
        # What a bound holds back takes no part in the step, nor in what is called stationary.
        slope = jacobian.T @ here
        held = ((point <= low) & (slope > 0)) | ((point >= high) & (slope < 0))
        moving = jnp.where(held, 0.0, jacobian)
        norms = jnp.linalg.norm(moving, axis=0)
        norms = jnp.where(norms > 0, norms, 1.0)
        u, sigma, vt = jnp.linalg.svd(moving / norms, full_matrices=False)
        move = vt.T @ (sigma / (sigma**2 + damping) * (u.T @ here)) / norms
        trial = jnp.clip(point - move, low, high)
        count = s.count + 1
        done = (jnp.abs(trial - point) <= 1e-15 * (high - low)).all()
        stationarity = jnp.max(jnp.abs(moving.T @ here) / norms)
        stationarity /= jnp.sqrt(jnp.maximum(cost, jnp.finfo(cost.dtype).tiny))
        return _Search(
            point, here, jacobian, cost, stationarity, trial, damping, increase, count,
            done | (count >= iterations) | jnp.isinf(cost),
        )  # fmt: skip

    def descend(z: jax.Array) -> _Search:
        nothing = jnp.zeros(path.size)
        one, never = jnp.ones([]), jnp.array(False)
        start = _Search(
            z, nothing, jnp.zeros((path.size, z.size)), jnp.inf * one, jnp.inf * one, z,
            1e-2 * one, 2 * one, jnp.zeros([], int), never,
        )  # fmt: skip
        return jax.lax.while_loop(lambda s: ~s.done, step, start)

    return jax.vmap(descend)(starts)


# The report


def _minimizers(
    ends: _Search, model: _Model, box: _Box, path: np.ndarray
) -> tuple[tuple[Minimizer, ...], int]:
    """The distinct minimizers among the ends of the starts, and how many ends are none."""
    largest = np.abs(ends.deviations).max(axis=1) * np.sqrt(path.size)
    finite = np.isfinite(ends.cost)
    settled = finite & ((ends.stationarity <= SETTLED) | (largest <= EQUAL))
    left = [i for i in np.argsort(ends.cost) if settled[i]]
    names = (*model.names, "start_scale") if model.scaled else model.names
    found = []
    while left:
        best, point = left[0], ends.point[left[0]]
        _, sigma, vt = np.linalg.svd(ends.jacobian[best], full_matrices=False)
        # Where there are fewer deviations than numbers.
        missing = np.zeros(len(point) - len(sigma))
        determined = vt[sigma > _FLAT * sigma[0]]
        apart = (ends.point[left] - point) @ determined.T @ determined / (box.high - box.low)
        same = [i for i, d in zip(left, apart, strict=True) if np.abs(d).max() <= _SAME_POINT]
        left = [i for i in left if i not in same]
        numbers = [float(x) for x in model.numbers(point)]
        found.append(
            Minimizer(
                values=dict(zip(model.names, numbers[: len(model.names)], strict=True)),
                start_scale=numbers[-1] if model.scaled else None,
                share=len(same) / len(ends.point),
                largest_gap=float(largest[best]),
                rms_gap=float(np.sqrt(ends.cost[best])),
                stationarity=float(ends.stationarity[best]),
                at_bound=tuple(
                    name
                    for name, z, low, high in zip(names, point, box.low, box.high, strict=True)
                    if z in (low, high)
                ),
                singular_values=tuple(map(float, [*sigma, *missing])),
                iterations=int(ends.count[same].max()),
            )
        )
    return tuple(found), int((finite & ~settled).sum())


def _verdict(ends: _Search, found: tuple[Minimizer, ...], floor: float) -> FitVerdict:
    if not found:
        return "undecided"
    if found[0].largest_gap <= EQUAL:
        return "equal"
    gaps = np.sqrt(ends.cost)
    agree = np.abs(gaps - found[0].rms_gap) <= SAME_GAP * found[0].rms_gap
    lowest = gaps.min() >= (1 - SAME_GAP) * found[0].rms_gap  # Of those not settled, too.
    above = found[0].largest_gap >= ABOVE_ROUNDING * floor
    return "a gap remains" if agree.mean() >= 0.5 and lowest and above else "undecided"


# Checks


def _checked_problem(problem: Problem, steps: int) -> Problem:
    """The problem's first steps, in float64 on the host."""
    _check.check_integer("steps", steps, minimum=1)
    if steps > problem.steps:
        raise ValueError(
            f"`steps` is {steps}, and `problem` ({problem.name}) has batches for {problem.steps}. "
            "Pass fewer steps, or a problem with more batches."
        )
    batches = jax.tree.map(np.asarray, problem.first(steps).batches)
    return problem._replace(batches=batches, theta0=np.asarray(problem.theta0, np.float64))


def _checked_box(free: Mapping[str, Any], start_scale: tuple[float, float] | None) -> _Box:
    if not free:
        raise ValueError(
            "`free` is empty, and there is nothing to fit. Pass the interval of at least one number "
            "that `family` reads, such as free={'weight_decay': (1e-6, 1.0)}."
        )
    intervals = {f"free[{name!r}]": interval for name, interval in free.items()}
    if start_scale is not None:
        intervals["start_scale"] = start_scale
    for name, interval in intervals.items():
        if np.shape(interval) != (2,) or not -np.inf < interval[0] < interval[1] < np.inf:
            raise ValueError(
                f"`{name}` is {interval}, and an interval is needed: pass (low, high), two finite "
                "numbers with low < high."
            )
    kinds = tuple(_kind(*interval) for interval in intervals.values())
    low, high = np.array(
        [
            [_TO_COORDINATE[kind](np.float64(end)) for end in interval]
            for kind, interval in zip(kinds, intervals.values(), strict=True)
        ]
    ).T
    return _Box(kinds, low, high)


def _check_finite(problem: str, gradients: np.ndarray, path: np.ndarray) -> None:
    """Require of the target's trajectory that it can be met."""

    def first_bad(values: np.ndarray) -> int:
        finite = np.isfinite(values).reshape(len(path), -1).all(axis=1)
        return len(path) if finite.all() else int(np.argmin(finite))

    gradient, parameter = first_bad(gradients), first_bad(path)
    if gradient <= parameter < len(path):
        raise ValueError(
            f"`problem` ({problem}) has a gradient that is not finite on the target's trajectory, at "
            f"step {gradient + 1}. Pass a problem that is differentiable there, or fewer `steps`."
        )
    if parameter < len(path):
        raise ValueError(
            f"`target` arrives at parameters that are not finite, at step {parameter + 1}. Lower its "
            "learning rate, or pass fewer `steps`."
        )
