"""The catalogue: every row holds, every mutant is caught, and the tables say so."""

import dataclasses
import pathlib
import subprocess
import sys

import chex
import numpy as np
import pytest

import decoupled_wd.equivalence as eq
from decoupled_wd import __main__ as command
from tests.tolerances import RELATIVE

README = pathlib.Path(__file__).parents[1] / "README.md"
EQUALITIES = [row for row in eq.CATALOGUE if row.verdict == "equal"]
SEPARATIONS = [row for row in eq.CATALOGUE if row.verdict == "different"]
REQUIRED = [
    "a1",
    "a2",
    "b1",
    "b2",
    "b3",
    "b4",
    "b7",
    "c1",
    "c3",
    "d1",
    "d2",
    "e1",
    "e2",
    "f1",
    "h1",
    "i1",
    "j",
    "k1",
    "k2",
    "l1",
    "n1",
    "o",
    "p3",
    "p5",
    "N1",
    "N3",
    "N4",
    "N5",
    "N6",
    "N13",
    "N14",
    "N16",
]


@pytest.fixture(scope="module")
def paths():
    """Trajectories of every row, run once."""
    return dict(zip((row.name for row in eq.CATALOGUE), eq.trajectories(eq.CATALOGUE), strict=True))


def test_the_catalogue_is_complete_and_its_names_unique():
    names = [row.name for row in eq.CATALOGUE]
    assert set(REQUIRED) <= set(names)
    assert len(names) == len(set(names)) >= 32


@pytest.mark.parametrize("row", EQUALITIES, ids=lambda row: row.name)
def test_both_sides_agree_and_the_mutant_does_not(row, paths):
    left, right, mutant = paths[row.name]
    chex.assert_shape([left, right, mutant], (1 if row.constant_schedule else 5, 300, 6))
    chex.assert_tree_all_finite((left, right, mutant))
    size = np.abs(left).max()
    chex.assert_trees_all_close(left, right, rtol=0, atol=RELATIVE["relation"] * size)
    assert np.abs(left - mutant).max() > RELATIVE["mutant"] * size


@pytest.mark.parametrize("row", SEPARATIONS, ids=lambda row: row.name)
def test_the_gap_on_the_witness_is_the_one_stated(row, paths):
    left, right, _ = paths[row.name]
    gaps = np.abs(left - right).max(axis=(1, 2))
    chex.assert_trees_all_close(gaps.min(), np.float64(row.gap), rtol=0, atol=RELATIVE["relation"])
    assert row.gap > 0.01


@pytest.mark.parametrize("row", eq.CATALOGUE, ids=lambda row: row.name)
def test_a_row_says_what_it_claims_and_why(row):
    assert row.statement
    assert row.why
    assert row.source
    assert (row.mutant is None) == (row.verdict == "different") == (row.gap is not None)


def test_the_checker_fails_what_is_false():
    true = eq.relation("k1")
    swallowed = dataclasses.replace(true, mutant=eq.Mutant("nothing", lambda r: {}))
    wrong = dataclasses.replace(true, map=lambda h: {"lam": h["lam"]})
    exaggerated = dataclasses.replace(eq.relation("N3"), gap=0.06)
    equal = dataclasses.replace(eq.relation("N3"), right=eq.relation("N3").left)
    nan = dataclasses.replace(true, map=lambda h: {"lam": h["lam"] * np.nan})
    reports = eq.check_relations([true, swallowed, wrong, exaggerated, equal, nan])
    assert [report.holds for report in reports] == [True, False, False, False, False, False]


def test_an_unknown_row_is_an_error_that_lists_the_rows():
    with pytest.raises(KeyError, match="b1-outside"):
        eq.relation("b99")


def test_the_readme_has_the_table_of_the_rows():
    assert eq.markdown_table(eq.CATALOGUE) in README.read_text(), (
        "README.md's table is not the catalogue's: paste what "
        "`python -c 'import decoupled_wd.equivalence as e; print(e.markdown_table(e.CATALOGUE))'` "
        "prints."
    )


def test_the_command_prints_rows_and_fails_on_unknown_ones(capsys):
    assert command.main(["relations", "k1", "N1"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 hold" in printed
    assert "weight_decay = λ/α" in printed
    assert command.main(["relations", "b99"]) == 2
    assert "b99" in capsys.readouterr().err


def test_the_command_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "decoupled_wd", "relations", "N13"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "1 of 1 hold" in done.stdout
