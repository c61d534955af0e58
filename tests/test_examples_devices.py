"""The examples on several devices and processes, and of a run that is killed, show what they say."""

import re
from pathlib import Path

import pytest

from tests.helpers import load_script

EXAMPLES = Path(__file__).parents[1] / "examples"


def lines_of(name, tmp_path, capsys, **constants):
    """What a copy of an example with smaller constants prints; its processes are of the copy, too."""
    text = (EXAMPLES / name).read_text()
    for constant, value in constants.items():
        found = re.search(rf"^((?:\w+, )*{constant}\b.*) = (.*)$", text, re.MULTILINE)
        assert found
        names, values = found.groups()
        changed = values.split(", ")
        changed[names.split(", ").index(constant)] = str(value)
        text = text.replace(f"{names} = {values}", f"{names} = {', '.join(changed)}")
    (tmp_path / name).write_text(text)
    load_script(tmp_path / name).main()
    return capsys.readouterr().out.splitlines()


def test_every_way_trains_the_same_network(tmp_path, capsys):
    title, *lines = lines_of("data_parallel.py", tmp_path, capsys, STEPS=20)
    assert title.startswith("8 devices ")
    apart = {name: float(difference) for name, difference, _ in map(str.split, lines)}
    assert apart.keys() == {"one_device", "pmap", "shard_map", "jit"}
    assert max(apart.values()) < 1e-5  # Without a mean over devices, or with two: above 0.1.


def test_a_spread_state_takes_an_eighth(tmp_path, capsys):
    *_, replicated, spread = lines_of("sharded_state.py", tmp_path, capsys, STEPS=4)
    parameters, state, training, loss = map(float, replicated.split()[1:])
    assert state == pytest.approx(2 * parameters, rel=0.01)
    assert list(map(float, spread.split()[1:])) == [
        parameters,
        pytest.approx(state / 8, rel=0.02),
        pytest.approx(training / 2, rel=0.15),
        pytest.approx(loss, abs=2e-5),
    ]


def test_two_processes_train_the_network_of_one(tmp_path, capsys):
    _, *rows, difference = lines_of("multi_process.py", tmp_path, capsys, STEPS=5)
    assert [" ".join(row.split()[:7]) for row in rows] == [
        "0 of 2 4 of 8 64",
        "1 of 2 4 of 8 64",
        "0 of 1 8 of 8 128",
    ]
    *halves, whole = (float(row.split()[7]) for row in rows)
    assert halves == pytest.approx([whole / 2] * 2, rel=0.01)
    assert float(difference.split()[-1]) < 1e-5


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, capsys):
    killed, resumed, anew = lines_of(
        "checkpoint_resume.py", tmp_path, capsys, STEPS=200, EVERY=10, KILL_AT=30, PERIOD=20
    )
    assert "killed by signal 9" in killed
    assert 30 <= int(killed.split()[-1]) < 200
    assert resumed == "resumed  30 of 30 arrays have the same bits"
    assert anew == "anew      2 of 30 arrays have the same bits"
