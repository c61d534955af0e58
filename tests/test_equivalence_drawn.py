"""Equalities hold for any numbers inside their conditions, and fail outside where they say so."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import decoupled_wd.equivalence as eq
from decoupled_wd.equivalence import _check

STEPS = 30
EQUALITIES = [row for row in eq.CATALOGUE if row.verdict in ("bitwise", "rounding")]


def drawn(interval):
    if interval.low > 0:
        exponents = st.floats(np.log(interval.low), np.log(interval.high))
        return exponents.map(lambda x: float(np.clip(np.exp(x), *interval)))
    return st.floats(*interval)


def draws(row, domains):
    """Strategies for a row's numbers, and for the schedule where the row has none of its own."""
    strategies = {name: drawn(interval) for name, interval in domains.items()}
    if not row.constant_schedule and "eta" not in row.values:
        seeds = st.integers(0, 2**16)
        strategies["eta"] = seeds.map(lambda s: np.random.default_rng(s).uniform(0.5, 1.5, STEPS))
    return st.fixed_dictionaries(strategies)


def deviation_of(row):
    """A function from drawn numbers to the relative deviation; compiled once."""
    short = dataclasses.replace(row, problem=row.problem.first(STEPS), mutant=None)
    run = _check.program([short])
    fixed = {"eta": np.ones(STEPS), **_check.numbers_of(short)}

    def deviation(numbers):
        hyper = {**fixed, **{name: np.float64(x) for name, x in numbers.items()}}
        hyper["eta"] = hyper["eta"][:STEPS]
        left, right, _ = run([{name: np.asarray(x)[None] for name, x in hyper.items()}])[0]
        return _check.relative_deviation(np.asarray(left), np.asarray(right))

    return deviation


@pytest.mark.parametrize("row", EQUALITIES, ids=lambda row: row.name)
def test_no_counterexample_is_found_inside_the_conditions(row):
    deviation = deviation_of(row)
    tolerance = 0.0 if row.verdict == "bitwise" else row.tolerance

    @hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @hypothesis.given(draws(row, _check.domains(row)))
    def check(numbers):
        assert deviation(numbers) <= tolerance

    with _check.float64_on_cpu():
        check()


@pytest.mark.parametrize("row", [r for r in EQUALITIES if r.outside], ids=lambda row: row.name)
def test_a_counterexample_is_found_outside_the_conditions(row):
    deviation = deviation_of(row)
    strategy = draws(row, {**_check.domains(row), **row.outside})
    settings = hypothesis.settings(
        max_examples=50, deadline=None, derandomize=True, database=None,
        phases=[hypothesis.Phase.generate],  # Which counterexample does not matter.
    )  # fmt: skip
    with _check.float64_on_cpu():
        # Not `<=`: where the map has no value, the deviation is NaN.
        hypothesis.find(strategy, lambda n: not deviation(n) <= row.tolerance, settings=settings)


def test_what_is_tried_outside_is_a_condition_that_is_stated():
    assert all(row.condition for row in EQUALITIES if row.outside)
