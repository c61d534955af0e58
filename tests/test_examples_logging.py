"""The example of logging: what it writes is what was applied."""

import csv

import numpy as np
import pytest

from tests.helpers import load_example
from tests.tolerances import RELATIVE

pytest.importorskip("sklearn")


def test_the_log_is_what_was_applied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # Over the restart at step 100, whose multiplier is not its neighbours'.
    example = load_example("log_applied_decay", monkeypatch, STEPS=120, EVERY=20, WIDTH=8)
    example.main()
    with open("log_applied_decay.csv") as file:
        rows = [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [19, 39, 59, 79, 99, 119]

    step = np.arange(120)
    eta = 0.5 * (1 + np.cos(np.pi * np.where(step < 100, step / 100, (step - 100) / 200)))
    decay = eta * (4e-3 - 3e-3 * step / 700)
    expected = {"learning_rate": 3e-3 * eta[19::20], "decay": decay[19::20]}
    for name, values in {**expected, "decay/hidden/kernel": expected["decay"]}.items():
        logged = [row[name] for row in rows]
        np.testing.assert_allclose(logged, values, rtol=RELATIVE["a float32 rate"], atol=1e-9)

    printed = capsys.readouterr().out.splitlines()
    *_, low, _, high = printed[-2].split()
    assert low == high == printed[-1].split()[-1] == f"{np.prod(1 - decay):.4f}"
