"""The examples that compare optimizers find, on reduced runs, what they say they find."""

import functools
import pathlib

import jax
import numpy as np
import pytest

import decoupled_wd as dwd
from tests.helpers import load_example
from tests.tolerances import RELATIVE


@pytest.fixture
def reduced(monkeypatch, tmp_path):
    """Load a script with other constants, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # Two runs do not fill eight devices, which here share two cores.
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    return functools.partial(load_example, patch=monkeypatch)


def is_drawn(name):
    return pathlib.Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_decay_and_l2_keep_adam_from_learning_wrong_labels(reduced, capsys):
    decays = np.array([2.0**-6, 1.0])
    example = reduced(
        "adam_l2_against_adamw",
        STEPS=400, SEEDS=2, SIZES=(64, 32, 10), RATES=np.array([2.0**-6]),
        OPTIMIZERS={
            "Adam": (dwd.adam_l2, np.zeros(1)),
            "Adam + L2": (dwd.adam_l2, decays),
            "AdamW": (dwd.adamw, decays),
        },
    )  # fmt: skip
    best = example.main()
    (train, test), *decayed = (
        (x["train"][:, -1].mean(axis=0), x["test"][:, -1].mean(axis=0)) for x in best.values()
    )
    for loss_and_error, test_error in decayed:
        assert np.all(train < loss_and_error)
        assert test[1] > 1.3 * test_error[1]
    # And the better decay was chosen.
    assert "AdamW               0.01562  0.01562" in capsys.readouterr().out
    assert is_drawn("adam_l2_against_adamw")


def test_before_the_end_restarts_are_ahead_of_one_cosine_in_sgdw_and_behind_in_adamw(reduced):
    example = reduced(
        "warm_restarts",
        SEEDS=2, NORMALIZED=2.0 ** np.array([-5, -3, -1]),
        OPTIMIZERS={
            "AdamW": (dwd.adamwr, 2.0 ** np.array([-10])),
            "SGDW": (dwd.sgdwr, 2.0 ** np.array([-4, -2])),
        },
    )  # fmt: skip
    adamw, adamw_cosine, sgdw, cosine = (x.mean(axis=0) for x in example.main().values())
    ends = example.ENDS // example.EPOCHS_PER_TICK - 1
    assert sgdw[ends[1:3]].mean() < 0.9 * cosine[ends[1:3]].mean()
    assert np.all(adamw[ends[:2]] > 1.2 * adamw_cosine[ends[:2]])
    # A restart undoes it, for a while.
    assert sgdw[ends[1:3] + 1].mean() > 1.05 * sgdw[ends[1:3]].mean()
    assert is_drawn("warm_restarts")


def test_any_optimizer_extended_decays_by_what_is_asked_and_lion_needs_it(reduced):
    decays = np.array([0, 2.0**-8])
    example = reduced("extend_any_optimizer", SEEDS=2, DECAYS=decays)
    for name in ("Muon", "AdaBelief"):  # Which take long to compile.
        del example.OPTIMIZERS[name]
    for name, (make, rates) in example.OPTIMIZERS.items():
        example.OPTIMIZERS[name] = make, rates[-1:]
    grids = example.main()
    multiplier = (1 + np.cos(np.pi * np.arange(example.STEPS) / example.STEPS)) / 2
    asked = np.prod(1 - np.outer(multiplier, decays), axis=0)[:, None, None, None]
    for grid in grids.values():
        assert grid["left"].shape[-2:] == (example.UNLIT.sum(), 64)
        everywhere = np.broadcast_to(asked, grid["left"].shape)
        np.testing.assert_allclose(grid["left"], everywhere, 10 * RELATIVE["50 float32 steps"])
    without, decayed = grids["Lion"]["test"][0].mean(axis=1)
    assert decayed < 0.9 * without


def test_bfloat16_weights_decay_under_every_rounding_but_to_nearest(reduced):
    example = reduced("bfloat16_decay", STEPS=400, SEEDS=2, SIZES=(64, 64, 10))
    with pytest.warns(UserWarning, match="decay"):
        rows = example.main()
    left, loss = ({name: row[:, -1, i] for name, row in rows.items()} for i in (0, 1))
    exact = np.prod(1 - example.WEIGHT_DECAY * (1 + np.cos(np.pi * np.arange(400) / 400)) / 2)
    np.testing.assert_allclose(left["float32"], exact, 1e-4)
    np.testing.assert_allclose(left["to nearest"], 1, RELATIVE["bfloat16 retention"])
    for name in ("stochastic", "compensated"):
        np.testing.assert_allclose(left[name], exact, RELATIVE["bfloat16 retention"])
        assert np.all(loss["to nearest"] > 1.1 * loss[name])
    assert is_drawn("bfloat16_decay")


def test_only_the_proximal_step_of_l1_makes_zeros_and_a_threshold_finds_them_everywhere(reduced):
    example = reduced("sparsity", STEPS=1000, SEEDS=2, DECAYS=2.0 ** np.array([-6, -3]))
    coupled, decoupled, proximal = example.main().values()
    assert np.all(coupled["zeros"] == 0)
    assert np.all(decoupled["zeros"] < 0.02)
    assert np.all(proximal["zeros"] > 0.04)
    np.testing.assert_allclose(decoupled["small"], proximal["small"], atol=0.02)
    assert np.all(proximal["test"] < 0.1)
    assert is_drawn("sparsity")
