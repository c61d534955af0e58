"""The catalogue: every row holds, every mutant is caught, and the tables say so."""

import dataclasses
import functools
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import decoupled_wd.equivalence as eq
from decoupled_wd import __main__ as command
from tests.helpers import load_script
from tests.tolerances import RELATIVE

ROOT = pathlib.Path(__file__).parents[1]
EQUALITIES = [row for row in eq.CATALOGUE if row.verdict in ("bitwise", "rounding")]
SEPARATIONS = [row for row in eq.CATALOGUE if row.verdict == "never"]
LIMITS = [row for row in eq.CATALOGUE if row.verdict == "limit"]
ALL = [*eq.CATALOGUE, *eq.PROPERTIES]
NAMES = [row.name for row in eq.CATALOGUE]
QUICK = [row for row in ALL if row.quick]
REQUIRED = """
a1 a2 b1 b2 b3 b4 b5 b6 b7 b8 b9 b-nesterov b-sgds c1 c2 c3 c4 d1 d2 e1 e2 e3 e4 e5 e6 e7-adamw e7-sgdw
f1 f2 f3 g1 g2 g3 g4 g5 g6 g7 h1 h2 i1 i1-lion i2 i3-signum i3-qhm i4-linf i4-l2 i4-spectral j k1 k2
l1 l2 l3 m1 m2 m3 m4 m5 n1 n2 o p1 p2 p3 p4 p5
N1 N1' N2 N3 N4 N5 N6 N7 N8 N9 N10-l2 N10-eps N10-rotation N11 N12-adam N12-pytorch
N12-paper N13 N14 N14-root N15-subgradient N15-order N16 N17 N18 N19
adam-bound adam-bound-spike adam-bound-kingma amsgrad-adam-stuck amsgrad-adam-synthetic amsgrad-synthetic
bf16-noop bf16-moves bf16-share float32-noop float32-decay equilibrium-adamw equilibrium-sgdw
equilibrium-lion equilibrium-adamw-norm equilibrium-sgdw-norm equilibrium-lion-norm adam-large-eps
k1-nadamw g3-nadamw nesterov-two-sequences b-nesterov-scheduled schedule-free schedule-free-decay rmsprop
rmsprop-uncorrected clip-loss-scale clip-adamw frozen-weight start-size-sgdw start-size-adamw
multisteps-schedule adam-variance ema-weights loss-scale muon-rotation muon-scale-free adagrad-limit
mean-decay nesterov-optax rmsprop-vs-adam average-after-adam clip-adamw-naive frozen-weight-adamw
multisteps-schedule-inside ema-weights-zero-buffer ema-weights-closed-loop muon-adamw
elastic-net-l2 elastic-net-l1 huber-l2 power-l2 elastic-net-prox adamprox proximal-explicit
proximal-limit
adamprox-limit explicit-after pwd pwd-vs-l1 ista-vs-subgradient ista-lasso ista-zeros
""".split()
"""The ids of the facts, sections A, B, C and F; a short one may stand for several rows."""


@functools.cache
def neighbours(start):
    """Trajectories of the relations from `start` on that are run together."""
    rows = eq.CATALOGUE[start : start + 16]
    return dict(zip((row.name for row in rows), eq.trajectories(rows), strict=True))


def paths_of(row):
    """A row's trajectories; a worker that runs some of the rows runs their neighbours alone."""
    return neighbours(NAMES.index(row.name) // 16 * 16)[row.name]


def test_the_catalogue_is_complete_and_its_names_unique():
    names = [row.name for row in ALL]
    assert len(names) == len(set(names)) >= 110
    assert len(SEPARATIONS) >= 30
    assert len(QUICK) >= 30
    covered = set(names) | {name.split("-")[0] for name in names}
    assert set(REQUIRED) <= covered


@pytest.mark.parametrize("row", EQUALITIES, ids=lambda row: row.name)
def test_both_sides_agree_and_the_mutant_does_not(row):
    left, right, mutant = paths_of(row)
    chex.assert_equal_shape([left, right, mutant])
    chex.assert_tree_all_finite((left, right, mutant))
    size = np.abs(left).max()
    assert row.tolerance <= RELATIVE["relation"]
    allowed = 0.0 if row.verdict == "bitwise" else row.tolerance * size
    chex.assert_trees_all_close(left, right, rtol=0, atol=allowed)
    assert np.abs(left - mutant).max() > RELATIVE["mutant"] * size
    assert np.abs(np.diff(left, axis=1)).max() > RELATIVE["mutant"] * size, "nothing moves"


@pytest.mark.parametrize("row", SEPARATIONS, ids=lambda row: row.name)
def test_the_gap_on_the_witness_is_the_one_stated(row):
    left, right, _ = paths_of(row)
    chex.assert_tree_all_finite((left, right))
    gap = np.abs(left - right).max(axis=(1, 2)).min()
    if row.gap_is_bound:
        assert gap >= row.gap
    else:
        chex.assert_trees_all_close(gap, np.float64(row.gap), rtol=0, atol=RELATIVE["relation"])
    assert row.gap > RELATIVE["separation"]


@pytest.mark.parametrize("row", [*LIMITS, *eq.PROPERTIES], ids=lambda row: row.name)
def test_limits_are_reached_at_their_rates_and_properties_measured_as_stated(row):
    (report,) = eq.check_relations([row])
    assert report.holds, eq.text_table([row], [report])


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_a_row_says_what_it_claims_and_why(row):
    assert row.statement
    assert row.why
    assert row.source
    separation = isinstance(row, eq.Relation) and row.verdict == "never"
    assert (row.mutant is None) == separation
    if isinstance(row, eq.Relation):
        assert (row.gap is not None) == separation
        assert (row.limit is not None) == (row.verdict == "limit")
        assert ("≠" in row.statement) == separation


def test_the_checker_fails_what_is_false():
    true = eq.relation("k1")
    swallowed = dataclasses.replace(true, mutant=eq.Mutant("nothing", lambda r: {}))
    wrong = dataclasses.replace(true, map=lambda h: {"lam": h["lam"]})
    exaggerated = dataclasses.replace(eq.relation("N3"), gap=0.06)
    bound = dataclasses.replace(eq.relation("N3"), gap=0.06, gap_is_bound=True)
    equal = dataclasses.replace(eq.relation("N3"), right=eq.relation("N3").left)
    nan = dataclasses.replace(true, map=lambda h: {"lam": h["lam"] * np.nan})
    inexact = dataclasses.replace(eq.relation("c1"), verdict="bitwise")
    rows = [true, swallowed, wrong, exaggerated, bound, equal, nan, inexact]
    reports = eq.check_relations(rows)
    assert [report.holds for report in reports] == [True, *[False] * 7]


def test_the_checker_fails_a_limit_with_another_rate():
    row = LIMITS[0]
    steeper = dataclasses.replace(row, limit=row.limit._replace(rate=2 * row.limit.rate))
    assert [r.holds for r in eq.check_relations([row, steeper])] == [True, False]


def test_the_checker_fails_a_property_that_is_not_as_stated():
    row = eq.Property(
        "p", "the decay is 0.02", lambda h: h["lam"], 0.02, "as given", "none",
        mutant=eq.Mutant("lam 1.01 times", lambda h: {"lam": 1.01 * h["lam"]}),
    )  # fmt: skip
    wrong = dataclasses.replace(row, expected=0.021)
    exceeded = dataclasses.replace(row, expected=0.0199, tolerance=0.01, at_most=True)
    harmless = dataclasses.replace(row, mutant=eq.Mutant("nothing", lambda h: {}))
    reports = eq.check_relations([row, wrong, exceeded, harmless])
    assert [report.holds for report in reports] == [True, False, False, False]


def test_float32_is_measured_beside_the_verdict():
    """Not under x64: the backend's own float32, in units in the last place."""
    (report,) = eq.check_relations([eq.relation("c1")], float32=True)
    assert report.holds
    assert 0.5 < report.float32_ulps < 100
    assert jnp.zeros(()).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


def test_an_unknown_row_is_an_error_that_lists_the_rows():
    with pytest.raises(KeyError, match="b1-outside"):
        eq.relation("b99")


def test_the_readme_and_the_docs_are_what_the_rows_say():
    script = load_script(ROOT / "docs/relations.py")
    for file, text in script.pages().items():
        assert (ROOT / file).read_text() == text, f"{file} is old: run `python docs/relations.py`."
    drawn = Image.open(ROOT / "docs/relations.png").text["Description"]
    assert drawn == str(script.drawn()), "The picture is old: run `python docs/relations.py`."


def test_the_command_prints_rows_and_fails_on_unknown_ones(capsys):
    assert command.main(["relations", "k1", "N1"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 hold" in printed
    assert "weight_decay = λ/α" in printed
    assert command.main(["relations", "b99"]) == 2
    assert "b99" in capsys.readouterr().err
    assert command.main(["explain", "b99"]) == 2


def test_the_command_explains_a_row(capsys):
    assert command.main(["explain", "b3"]) == 0
    printed = capsys.readouterr().out
    row = eq.relation("b3")
    for part in (row.statement, row.source, row.mutant.change, "log-cosh regression", "holds"):
        assert part in printed
    assert row.why.split(".")[0] in " ".join(printed.split())


def test_the_command_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "decoupled_wd", "relations", "N13"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "1 of 1 hold" in done.stdout


@pytest.mark.parametrize("rows", ["a1", [3], eq.relation("a1")], ids=["name", "number", "row"])
@pytest.mark.parametrize("run", [eq.check_relations, eq.trajectories])
def test_what_is_no_list_of_rows_is_refused(run, rows):
    with pytest.raises(
        TypeError, match=r"`relations` is or holds .{,20}, and a list of rows is needed"
    ):
        run(rows)
