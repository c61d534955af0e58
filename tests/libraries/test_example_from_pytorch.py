"""The example of moving from PyTorch, in float64, where what is left is not magnified rounding."""

import pathlib
import sys

import jax
import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from tests.helpers import load_example, load_script
from tests.tolerances import RELATIVE

PATH = pathlib.Path(__file__).parents[2] / "examples" / "from_pytorch.py"
STEPS = 100


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """Those of PyTorch, and those of the runs here by name."""
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    folder = tmp_path_factory.mktemp("from_pytorch")
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.chdir(folder)
        found = load_example("from_pytorch", patch, STEPS=STEPS, DTYPE="float64").main()
    assert (folder / "from_pytorch.png").stat().st_size > 10_000
    return found


@pytest.mark.parametrize(("name", "first"), [("from the start", 0), ("from half-way", STEPS // 2)])
def test_the_losses_here_are_pytorchs(losses, name, first):
    theirs, runs = losses
    assert theirs[-1] < theirs[0] / 2
    np.testing.assert_allclose(runs[name], theirs[first:], rtol=RELATIVE["reference"])


def test_without_the_state_training_goes_elsewhere(losses):
    theirs, runs = losses
    apart = np.abs(runs["from half-way, stateless"] - theirs[STEPS // 2 :])
    assert apart[0] < 1e-12 < 1e-3 < apart[1]


def test_a_missing_pytorch_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="not installed: pip install torch"):
        load_script(PATH)
