"""The study of sparsity: what L1 does in each place, on reduced runs; its numbers and files."""

import json
import pathlib

import numpy as np
import pytest

from tests.helpers import load_script

PATH = pathlib.Path(__file__).parents[1] / "docs" / "sparsity.py"
ADAM = ("Adam, coupled", "Adam, decoupled", "Adam, proximal")


study = load_script(PATH)
REGRESSION, DIGITS = study.TASKS


def reduced(patch, regression=(-3, -1), digits=(-6, -3)):
    """One seed, and few lambdas."""
    patch.setattr(study, "SEEDS", 1)
    patch.setattr(study, "DRAWN", {0: ":", 1: "-"})
    tasks = tuple(
        task._replace(log2_weight_decays=np.array(lambdas, float))
        for task, lambdas in ((REGRESSION, regression), (DIGITS, digits))
    )
    patch.setattr(study, "TASKS", tasks)
    return tasks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The three places inside Adam: the folder written, and the rows by task, penalty and form."""
    folder = tmp_path_factory.mktemp("sparsity") / "made by the script"
    with pytest.MonkeyPatch.context() as patch:
        reduced(patch)
        patch.setattr(study, "FORMS", study.FORMS[:3])
        rows = study.main(["--steps", "3000", "--output", str(folder)])
    return folder, {(row["task"], row["penalty"], row["form"]): row for row in rows}


def l1(run, task, quantity):
    """A quantity of the three places, by lambda."""
    return [np.array(run[1][task.name, "L1", form]["grid"][quantity]) for form in ADAM]


# What L1 does in each place.


@pytest.mark.parametrize("penalty", study.L1_RATIOS)
@pytest.mark.parametrize("task", study.TASKS, ids=lambda task: task.name)
def test_coupled_inside_adam_no_weight_is_zero(run, task, penalty):
    assert run[1][task.name, penalty, "Adam, coupled"]["grid"]["zeros"] == [0, 0]


def test_only_the_proximal_step_makes_zeros(run):
    coupled, decoupled, proximal = l1(run, REGRESSION, "zeros")
    assert coupled.max() == decoupled.max() == 0
    assert proximal[1] > 0.25
    coupled, decoupled, proximal = l1(run, DIGITS, "zeros")
    assert decoupled.max() < 0.02
    assert proximal.min() > 0.05


def test_the_support_is_found_by_exact_zeros_alone_or_with_a_threshold_everywhere(run):
    coupled, decoupled, proximal = l1(run, REGRESSION, "f1")
    everything = 2 * 10 / (100 + 10)
    np.testing.assert_allclose([*coupled, *decoupled], everything)
    assert proximal[1] > 1.2 * everything
    coupled, decoupled, proximal = l1(run, REGRESSION, "f1_small")
    assert coupled[0] > 2 * everything
    assert min(decoupled[1], proximal[1]) > 1.8 * everything
    assert l1(run, REGRESSION, "recall")[2][1] == 1


def test_coupled_is_the_lasso_and_proximal_the_lasso_weighted_by_the_noise(run):
    coupled, decoupled, proximal = (run[1][REGRESSION.name, "L1", form] for form in ADAM)
    assert coupled["to_lasso"] < 0.05 < 0.3 < coupled["to_weighted_lasso"]
    for row in (decoupled, proximal):
        assert row["to_weighted_lasso"] < 0.06 < 0.08 < row["to_nearest_lasso"]


def test_a_weight_without_gradient_swings_by_alpha_by_lambda_alpha_or_not_at_all(run):
    coupled, decoupled, proximal = (run[1][DIGITS.name, "L1", form]["swing"] for form in ADAM)
    np.testing.assert_allclose(coupled[0], coupled[1], rtol=0.1)
    assert coupled[0] > 0.05
    assert 0 < decoupled[0] <= 2.0**-6
    assert 0 < decoupled[1] <= 2.0**-3
    assert proximal == [0, 0]


def test_without_noise_proximal_sgd_is_the_lasso_and_decoupled_adam_hardly_regularizes(monkeypatch):
    task, _ = reduced(monkeypatch, regression=(-3, -2))
    monkeypatch.setattr(study, "FORMS", (study.FORMS[2], study.FORMS[-1]))
    with study.tqdm(disable=True) as bar:
        rows = [x for x in study.run(task, 3000, 300, bar) if x["penalty"] == "L1"]
    lasso, adam, sgd = rows
    for quantity in ("zeros", "precision", "recall"):
        assert sgd["grid"][quantity] == lasso["grid"][quantity]
    assert sgd["to_lasso"] < 2e-3
    assert max(adam["grid"]["zeros"]) < 0.1 < 0.6 < min(lasso["grid"]["zeros"])


# The measures, where the answer is known.


def test_precision_recall_and_f1():
    weights = np.array([1.0, 1e-4, 0.0, 2.0])[:, None]
    support = np.array([True, False, True, False])[:, None]
    result = study.found(weights, support)
    assert (result["precision"], result["recall"], result["f1"]) == (1 / 3, 1 / 2, 2 / 5)
    assert (result["precision_small"], result["recall_small"]) == (1 / 2, 1 / 2)


def test_the_weighted_lasso_of_orthogonal_features_is_a_soft_threshold():
    x = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    y = x @ np.array([[3.0], [-2.0]]) + 5
    params = study.elastic_net((x, y), 0.5, 1.0, np.array([1.0, 2.0]))
    np.testing.assert_allclose(params["weights"], [[2.5], [-1.0]], rtol=1e-6)
    np.testing.assert_allclose(params["bias"], 5)


def test_the_largest_lambda_near_the_best_is_reported():
    task = REGRESSION._replace(log2_weight_decays=np.arange(4.0))
    error = np.array([[1.2, 1.0, 1.04, 1.06], [1.0, 2.0, 3.0, 4.0]])
    measures = {"held_out_error": error, "zeros": np.arange(8.0).reshape(2, 4)}
    rows = [study.make_row(task, penalty, "x", measures) for penalty in study.L1_RATIOS]
    assert [row["log2_weight_decay"] for row in rows] == [2, 0]
    assert [row["zeros"] for row in rows] == [2, 4]


# Files and options.


def test_picture_and_numbers_are_written(run):
    folder, rows = run
    assert (folder / "sparsity.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((folder / "sparsity.json").read_text())
    assert [(x["task"], x["penalty"], x["form"]) for x in written] == list(rows)
    for x in written:
        assert x["test_error"] == pytest.approx(
            rows[x["task"], x["penalty"], x["form"]]["test_error"], 1e-3
        )


def test_the_committed_numbers_are_those_of_the_docstring():
    rows = json.loads((PATH.parents[1] / "docs" / "sparsity.json").read_text())
    for row in rows:
        if (row["task"], row["penalty"]) == (REGRESSION.name, "L1"):
            (line,) = (
                x for x in str(study.__doc__).splitlines() if x.startswith(f"    {row['form']}  ")
            )
            assert f"  {row['zeros']:.1%}  {row['small']:.1%}  {row['test_error']:.3f}  " in line


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--steps", "150"], "`--steps` is 150, and a multiple of 100 is needed."),
        (["--batch", "0"], "`--batch` is 0, and at least 1 is needed."),
    ],
)
def test_a_bad_option_is_answered_with_a_sentence(options, sentence, capsys):
    with pytest.raises(SystemExit):
        study.main(options)
    assert sentence in capsys.readouterr().err
