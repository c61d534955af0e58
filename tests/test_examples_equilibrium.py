"""The example of equilibrium, shorter and with more decay: where the prediction holds, and where not."""

import pathlib

import jax
import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from tests.helpers import load_script

example = load_script(pathlib.Path(__file__).parents[1] / "examples" / "equilibrium.py")
*HIDDEN, HEAD = example.LAYERS


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """Root mean squares over the last half of the steps, by learning rate and seed."""
    folder = tmp_path_factory.mktemp("equilibrium")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])  # Two runs fill no eight.
        patch.setattr(example, "RATES", (2**-9, 2**-7))
        for name, value in {"DECAY": 0.004, "STEPS": 1600, "PIECE": 800, "SEEDS": 2}.items():
            patch.setattr(example, name, value)
        late = example.main()
    assert (folder / "equilibrium.png").stat().st_size > 10_000
    return late


def ratio(late, quantity, layer):
    return late[f"{quantity}/{layer}"] / late[f"{quantity}_equilibrium/{layer}"]


@pytest.mark.parametrize("layer", HIDDEN)
def test_normalized_layers_turn_and_grow_as_predicted(late, layer):
    np.testing.assert_allclose(ratio(late, "rotation", layer), 1, atol=0.1)
    np.testing.assert_allclose(ratio(late, "norm", layer), 1, atol=0.15)


@pytest.mark.parametrize("layer", HIDDEN)
def test_the_learning_rate_moves_the_norm_and_not_the_rotation(late, layer):
    low, high = late[f"rotation/{layer}"]
    np.testing.assert_allclose(high / low, 1, atol=0.05)
    low, high = late[f"norm/{layer}"]
    np.testing.assert_allclose(high / low, 4, rtol=0.15)


def test_the_head_turns_less_and_is_longer_than_noise_would_make_it(late):
    assert np.all(ratio(late, "rotation", HEAD) < 0.9)
    assert np.all(ratio(late, "norm", HEAD) > 1.2)
