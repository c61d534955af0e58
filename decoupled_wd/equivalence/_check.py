"""The checker: runs both sides of relations, and measures how far apart they get."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd.equivalence._relation import Chain, Hyper, Problem, Relation

TOLERANCE = 1e-10
"""Relative deviation that counts as equal: float64 rounding over hundreds of steps stays below 1e-12,
and what a wrong constant does stays above 1e-6."""
_ROWS_A_PROGRAM = 8  # Compiled together they share most of the compiler's fixed costs.


class Trajectories(NamedTuple):
    """Parameters after every step, as float64 arrays of shape (runs, steps, d)."""

    left: np.ndarray
    right: np.ndarray
    """In the left side's parameters. One run a schedule; for a family, one a member."""
    mutant: np.ndarray | None
    """The right side with the wrong map."""


class Report(NamedTuple):
    """What was measured of a row."""

    name: str
    verdict: str
    deviation: float
    """Equality: largest deviation relative to the largest parameter. Separation: the gap."""
    mutant_deviation: float | None
    holds: bool
    """Whether the row says the truth and its mutant was caught."""


def check_relations(relations: Sequence[Relation]) -> list[Report]:
    """Run relations in float64 and report on each.

    An equality holds if the two sides deviate by at most 1e-10 of the largest parameter at every
    step of every run, and the mutant by more. A separation holds if the gap on its witness is the
    one stated, to 1e-10.

    Args:
        relations: rows, such as `CATALOGUE`.

    Returns:
        A report a row, in order. It raises nothing for a row that does not hold: see `holds`.
    """
    return [
        _report(row, paths) for row, paths in zip(relations, trajectories(relations), strict=True)
    ]


def trajectories(relations: Sequence[Relation]) -> list[Trajectories]:
    """Run relations in float64 on the present backend and give both sides' parameters."""
    found: list[Trajectories] = []
    with jax.enable_x64(True):
        for i in range(0, len(relations), _ROWS_A_PROGRAM):
            rows = relations[i : i + _ROWS_A_PROGRAM]
            hypers = [_runs(row) for row in rows]
            results = jax.jit(lambda hypers, rows=rows: list(map(_run_row, rows, hypers)))(hypers)
            found += [Trajectories(*jax.tree.map(np.asarray, result)) for result in results]
    return found


def _report(row: Relation, paths: Trajectories) -> Report:
    apart = np.abs(paths.left - paths.right).max(axis=(1, 2))
    if row.verdict == "different":
        gap = float(apart.min())
        holds = row.gap is not None and abs(gap - row.gap) <= TOLERANCE
        return Report(row.name, row.verdict, gap, None, holds)
    size = np.abs(paths.left).max()
    deviation = float(apart.max() / size)
    if paths.mutant is None:
        return Report(row.name, row.verdict, deviation, None, False)
    mutant = float(np.abs(paths.left - paths.mutant).max() / size)
    return Report(row.name, row.verdict, deviation, mutant, deviation <= TOLERANCE < mutant)


def _runs(row: Relation) -> Hyper:
    """The numbers of every run of a row, stacked along a leading axis."""
    steps = jax.tree.leaves(row.problem.batches)[0].shape[0]
    etas = _schedules(steps)
    chosen = [etas["constant"]] if row.constant_schedule else list(etas.values())
    if row.verdict == "different":
        chosen = [np.asarray(row.values["eta"])]
    theta0 = row.problem.theta0
    common = {**_NUMBERS, "theta0": theta0, **row.values}
    runs = [{**common, "eta": eta} for eta in chosen]
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

            return _run(row.right, numbers, row.problem, batches, view)

        mutant = None if row.mutant is None else right({**mapped, **row.mutant.apply(mapped)})
        return left, right(mapped), mutant

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
