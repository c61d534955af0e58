"""The checker of the catalogue: runs both sides of relations, and measures how far apart they get."""

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd.equivalence._relation import (
    Chain,
    Hyper,
    Interval,
    Limit,
    Problem,
    Property,
    Relation,
)

GAP_TOLERANCE = 1e-10
"""How well a separation's gap, worked out by hand, must be met."""
RATE_TOLERANCE = 0.1
"""How well the slope of log gap against log number must match a limit's rate."""
_OPTIMIZATION = "xla_backend_optimization_level"
_ROWS_A_PROGRAM = 8  # Compiled together they share most of the compiler's fixed costs.


class Trajectories(NamedTuple):
    """What is compared of the parameters, as float64 arrays of shape (runs, steps, d).

    Example:
        One run of two steps of one weight: it decays by 0.1, and by 0.1 times a schedule of 1, 1/2.

        >>> from decoupled_wd import equivalence as eq
        >>> (paths,) = eq.trajectories([eq.relation("N13")])
        >>> paths.left.shape, paths.left.ravel().round(3), paths.right.ravel().round(3)
        ((1, 2, 1), array([0.9 , 0.81]), array([0.9  , 0.855]))
    """

    left: np.ndarray
    right: np.ndarray
    """In the left side's parameters. One run a schedule; for a family or a limit, one a member."""
    mutant: np.ndarray | None
    """The right side with the wrong map."""


class Report(NamedTuple):
    """What was measured of a row.

    Example:
        A separation, with its gap:

        >>> from decoupled_wd import equivalence as eq
        >>> (report,) = eq.check_relations([eq.relation("N13")])
        >>> report.verdict, round(report.deviation, 9), report.holds
        ('never', 0.045, True)
    """

    name: str
    verdict: str
    deviation: float
    """Equality: largest deviation relative to the largest parameter. Separation: the gap. Limit: the
    rate. Property: the number."""
    mutant_deviation: float | None
    """The same of the mutant."""
    holds: bool
    """Whether the row says the truth and its mutant was caught."""
    float32_ulps: float | None = None
    """Equality: the largest deviation in float32 on the present backend, in units in the last place of
    the largest parameter."""


def check_relations(
    relations: Sequence[Relation | Property], *, float32: bool | None = None
) -> list[Report]:
    """Run rows of the catalogue in float64 on CPU, and report on each.

    An equality holds if the two sides deviate by at most the row's tolerance at every step of every
    run, and the mutant by more. A separation holds if the gap on its witness is the one stated, to
    1e-10. A limit holds if the gap goes to zero at the rate stated, to 0.1 in the exponent, and the
    mutant's does not. A property holds if the number measured is the one stated, to its tolerance,
    and the mutant's is not.

    Args:
        relations: rows, such as `CATALOGUE`.
        float32: whether to run equalities in float32 on the present backend as well; None does where
            that is not a CPU.

    Returns:
        A report a row, in order. It raises nothing for a row that does not hold: see `holds`.

    Raises:
        TypeError: `relations` is no list of rows.

    Example:
        SGD with L2 is SGD with weight decay at lambda / alpha, and not at lambda itself:

        >>> import dataclasses
        >>> from decoupled_wd import equivalence as eq
        >>> row = eq.relation("a1")
        >>> wrong = dataclasses.replace(row, map=lambda h: {"penalty": h["lam"]})
        >>> [report.holds for report in eq.check_relations([row, wrong])]
        [True, False]
    """
    _check_rows(relations, (Relation, Property))
    if float32 is None:
        float32 = jax.default_backend() != "cpu"
    rows = [row for row in relations if isinstance(row, Relation)]
    reports = list(map(_report, rows, trajectories(rows)))
    if float32:
        equal = [i for i, row in enumerate(rows) if row.verdict in ("bitwise", "rounding")]
        narrow = _in_groups(_run_group, [rows[i] for i in equal], contextlib.nullcontext)
        for i, paths in zip(equal, narrow, strict=True):
            reports[i] = reports[i]._replace(float32_ulps=_ulps(paths))
    measured = iter(_check_properties([row for row in relations if isinstance(row, Property)]))
    compared = iter(reports)
    return [next(compared if isinstance(row, Relation) else measured) for row in relations]


def trajectories(relations: Sequence[Relation]) -> list[Trajectories]:
    """Run relations in float64 on CPU and give both sides' parameters, after every step.

    Args:
        relations: rows of two sides, such as `CATALOGUE`.

    Returns:
        `Trajectories` a row, in order.

    Raises:
        TypeError: `relations` is no list of relations.

    Example:
        A separation's gap is the largest distance of the two:

        >>> import numpy as np
        >>> from decoupled_wd import equivalence as eq
        >>> (paths,) = eq.trajectories([eq.relation("N13")])
        >>> round(float(np.abs(paths.left - paths.right).max()), 9), eq.relation("N13").gap
        (0.045, 0.045)
    """
    _check_rows(relations, (Relation,))
    return _in_groups(_run_group, relations, float64_on_cpu)


def _check_rows(relations: Any, kinds: tuple[type, ...]) -> None:
    is_list = isinstance(relations, (list, tuple))
    strangers = [x for x in relations if not isinstance(x, kinds)] if is_list else [relations]
    if strangers:
        raise TypeError(
            f"`relations` is or holds {type(strangers[0]).__name__}, and a list of rows is needed. Pass "
            "`CATALOGUE`, or `[relation(name)]` for one."
        )


@contextlib.contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Compute in float64, on the CPU: not every accelerator has it."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def program(relations: Sequence[Relation]) -> Callable[[Sequence[Hyper]], list[tuple[Any, ...]]]:
    """Compile relations into one program: from each one's numbers, with a leading axis of runs, to
    each one's paths (left, right, mutant).

    The numbers are arguments, so that drawing others costs no compilation. On a CPU, where nearly all
    time goes to compilation, the compiler is asked not to optimize.
    """

    def run(hypers: Sequence[Hyper]) -> list[tuple[Any, ...]]:
        return [_run_row(row, hyper) for row, hyper in zip(relations, hypers, strict=True)]

    (device,) = jnp.zeros([]).devices()
    return jax.jit(run, compiler_options={_OPTIMIZATION: 0} if device.platform == "cpu" else None)


def domains(row: Relation) -> Mapping[str, Interval]:
    """Where a row claims to hold: the numbers that may be drawn, and from where."""
    usual = {name: interval for name, interval in DOMAINS.items() if name not in row.values}
    return {**usual, **row.domain}


def numbers_of(row: Relation) -> Hyper:
    """The numbers of a row that are not drawn: the checker's, and the row's own."""
    return {**_NUMBERS, "theta0": row.problem.theta0, **row.values}


def relative_deviation(left: np.ndarray, right: np.ndarray) -> float:
    """The largest deviation, relative to the largest number on the left; NaN if any is."""
    return float(np.abs(left - right).max() / np.abs(left).max())


def _in_groups(
    run: Callable[[Sequence[Any]], list[Any]],
    rows: Sequence[Any],
    context: Callable[[], contextlib.AbstractContextManager[None]],
) -> list[Any]:
    """`run` on a few rows at a time, two at once: while one is traced another is compiled."""

    def one(group: Sequence[Any]) -> list[Any]:
        with context():  # What JAX's contexts set holds for their own thread alone.
            return run(group)

    groups = [rows[i : i + _ROWS_A_PROGRAM] for i in range(0, len(rows), _ROWS_A_PROGRAM)]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as threads:
        return [found for group in threads.map(one, groups) for found in group]


def _run_group(rows: Sequence[Relation]) -> list[Trajectories]:
    results = program(rows)([_runs(row) for row in rows])
    return [Trajectories(*jax.tree.map(np.asarray, result)) for result in results]


def _report(row: Relation, paths: Trajectories) -> Report:
    if row.verdict == "never":
        gap = float(np.abs(paths.left - paths.right).max(axis=(1, 2)).min())
        stated = np.nan if row.gap is None else row.gap
        holds = gap >= stated if row.gap_is_bound else abs(gap - stated) <= GAP_TOLERANCE
        return Report(row.name, row.verdict, gap, None, bool(holds))
    if paths.mutant is None:
        return Report(row.name, row.verdict, np.nan, None, False)
    if row.limit is not None:
        rate, wrong = (_rate(row.limit, paths.left, x) for x in (paths.right, paths.mutant))
        holds = abs(rate - row.limit.rate) <= RATE_TOLERANCE < abs(wrong - row.limit.rate)
        return Report(row.name, row.verdict, rate, wrong, bool(holds))
    deviation = relative_deviation(paths.left, paths.right)
    mutant = relative_deviation(paths.left, paths.mutant)
    tolerance = 0.0 if row.verdict == "bitwise" else row.tolerance
    return Report(row.name, row.verdict, deviation, mutant, deviation <= tolerance < mutant)


def _rate(limit: Limit, left: np.ndarray, right: np.ndarray) -> float:
    """The slope of log gap against log number: of all pairs of neighbours, the one farthest off."""
    gaps = np.abs(left - right).max(axis=(1, 2)) / np.abs(left).max(axis=(1, 2))
    with np.errstate(divide="ignore"):
        slopes = np.diff(np.log(gaps)) / np.diff(np.log(limit.values))
    return float(slopes[np.argmax(np.abs(slopes - limit.rate))])


def _ulps(paths: Trajectories) -> float:
    unit = np.spacing(np.float32(np.abs(paths.left).max()))
    return float(np.abs(paths.left - paths.right).max() / unit)


def _check_properties(rows: Sequence[Property]) -> list[Report]:
    reports = []
    for row, measured in zip(rows, _in_groups(_measure, rows, float64_on_cpu), strict=True):
        right, wrong = map(float, measured)
        holds = _as_stated(row, right) and not _as_stated(row, wrong)
        reports.append(Report(row.name, "property", right, wrong, holds))
    return reports


def _measure(rows: Sequence[Property]) -> list[list[jax.Array]]:
    given = [{**_NUMBERS, **row.values} for row in rows]
    changed = [
        {**h, **row.mutant.apply(h)} if row.mutant else h
        for row, h in zip(rows, given, strict=True)
    ]
    both = [
        jax.tree.map(lambda *x: np.stack(x), *pair) for pair in zip(given, changed, strict=True)
    ]
    measure = jax.jit(
        lambda hypers: [jax.lax.map(r.measure, h) for r, h in zip(rows, hypers, strict=True)]
    )
    return measure(both)


def _as_stated(row: Property, measured: float) -> bool:
    off = abs(measured - row.expected) <= row.tolerance * abs(row.expected)
    return off and (measured <= row.expected * (1 + 1e-12) or not row.at_most)


def _runs(row: Relation) -> Hyper:
    """The numbers of every run of a row, stacked along a leading axis."""
    etas = _schedules(row.problem.steps)
    chosen = [etas["constant"]] if row.constant_schedule else list(etas.values())
    common = dict(numbers_of(row))
    if "eta" in common:
        chosen = [np.asarray(common.pop("eta"))]
    runs = [{**common, "eta": eta} for eta in chosen]
    if row.limit is not None:
        runs = [
            {**run, row.limit.name: np.float64(v)} for run in runs[:1] for v in row.limit.values
        ]
    if row.family:
        members = range(len(next(iter(row.family.values()))))
        runs = [{**runs[0], **{k: v[i] for k, v in row.family.items()}} for i in members]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *runs)


def _run_row(row: Relation, hypers: Hyper) -> tuple[Any, ...]:
    def one(hyper: Hyper) -> tuple[Any, ...]:
        mapped = {**hyper, **row.map(hyper), **row.start(hyper)}
        batches = row.problem.batches
        left = _run(row.left, hyper, row.problem, batches, lambda theta: theta)
        if row.right_sees_whole_batch:
            batches = jax.tree.map(lambda x: x.reshape(x.shape[0], 1, -1, *x.shape[3:]), batches)

        def right(numbers: Hyper) -> jax.Array:
            def view(phi: jax.Array) -> jax.Array:
                return row.parameters(numbers, phi)

            return row.read_right(numbers, _run(row.right, numbers, row.problem, batches, view))

        mutant = None if row.mutant is None else right({**mapped, **row.mutant.apply(mapped)})
        return row.read_left(hyper, left), right(mapped), mutant

    return jax.vmap(one)(hypers)


def _run(chain: Chain, hyper: Hyper, problem: Problem, batches: Any, view: Any) -> jax.Array:
    """Parameters after every step; `view` shows them to the problem and to the comparison."""
    tx = chain(hyper)
    theta = jnp.asarray(hyper["theta0"])
    state = tx.init(theta)
    if "trace" in hyper:
        state = optax.tree.set(state, trace=jnp.asarray(hyper["trace"]))

    def micro_step(carry: Any, batch: Any) -> tuple[Any, None]:
        theta, state = carry
        seen, pull_back = jax.vjp(view, theta)
        (gradient,) = pull_back(problem.gradient(seen, batch))
        updates, state = tx.update(gradient, state, theta)
        return (optax.apply_updates(theta, updates), state), None

    def step(carry: Any, batches: Any) -> tuple[Any, jax.Array]:
        carry, _ = jax.lax.scan(micro_step, carry, batches)
        return carry, view(carry[0])

    return jax.lax.scan(step, (theta, state), batches)[1]


_NUMBERS: Hyper = {
    "alpha": np.float64(0.05),
    "lam": np.float64(0.02),
    "beta": np.float64(0.9),
    "b1": np.float64(0.9),
    "b2": np.float64(0.99),
    "eps": np.float64(1e-3),
    "eps_root": np.float64(0.0),
}
DOMAINS: Mapping[str, Interval] = {  # Where training is stable, and rounding does not grow.
    "alpha": Interval(1e-3, 0.1),
    "lam": Interval(1e-5, 0.1),
    "beta": Interval(0.0, 0.95),
    "b1": Interval(0.0, 0.95),
    "b2": Interval(0.5, 0.9999),
    "eps": Interval(1e-8, 1.0),
    "eps_root": Interval(0.0, 0.1),
}


def _schedules(steps: int) -> dict[str, np.ndarray]:
    """The five multipliers that relations are tried under; all positive, as some maps divide."""
    t = np.arange(steps)
    period = max(steps // 3, 1)
    return {
        "constant": np.ones(steps),
        "cosine": 0.05 + 0.475 * (1 + np.cos(np.pi * t / steps)),
        "restarts": 0.05 + 0.475 * (1 + np.cos(np.pi * (t % period) / period)),
        "warm-up": np.minimum((t + 1) / period, 1.0),
        "random": np.random.default_rng(0).uniform(0.5, 1.5, steps),
    }
