"""The table of what decays, and the same of a checkpoint on the command line."""

import json
import shutil
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization
from flax.training import train_state

import decoupled_wd as dwd
from decoupled_wd import masks
from decoupled_wd.__main__ import main
from tests.helpers import small_params
from tests.tolerances import RELATIVE

MASK = masks.by_path({"bias": 0.25})


def eta(step):
    return 1 / (1 + step)


# What an optimizer does

COUPLINGS: dict[str, dict] = {
    "schedule": {"schedule": eta},
    "learning_rate": {"schedule": eta},
    "none": {},
    "corrected": {"schedule": eta},
}


@pytest.mark.parametrize(("coupling", "scheduled"), COUPLINGS.items(), ids=COUPLINGS)
@pytest.mark.parametrize("name", ["adamw", "amsgradw", "sgdw", "lionw"])
def test_the_table_is_what_the_optimizer_does_without_gradients(name, coupling, scheduled):
    with jax.enable_x64(True):
        params = small_params(jnp.float64)
        given = {"learning_rate": 0.5, "weight_decay": 0.004, "coupling": coupling, **scheduled}
        tx = getattr(dwd, name)(**given, mask=MASK)
        state, zeros = tx.init(params), jax.tree.map(jnp.zeros_like, params)
        for step in range(3):
            updates, state = tx.update(zeros, state, params)
            table = dwd.describe_decay(params, MASK, **given, step=step)
            assert [row.multiplier for row in table] == [0.25, 1.0]
            for row in table:
                expected = -row.decay_per_step * params[row.path]
                np.testing.assert_allclose(updates[row.path], expected, rtol=RELATIVE["relation"])
            params = optax.apply_updates(params, updates)


def test_a_half_life_is_the_steps_to_one_half():
    params = {name: jnp.ones(2) for name in "abcde"}
    multipliers = dict(zip("abcde", (0.0, 1.0, 150.0, 200.0, 400.0), strict=True))
    table = dwd.describe_decay(params, multipliers, weight_decay=0.004)
    none, slow, fast, *beyond = [row.half_life for row in table]
    assert none == np.inf
    np.testing.assert_allclose((1 - 0.004) ** slow, 0.5, rtol=1e-6)
    np.testing.assert_allclose((1 - 0.6) ** fast, 0.5, rtol=1e-6)
    np.testing.assert_allclose(beyond, [np.log(2) / -np.log(0.2), 0.0], rtol=1e-6)


# The table


def test_rows_name_paths_shapes_and_dtypes():
    params = {"b": jnp.ones(2, jnp.bfloat16), "a": [jnp.ones((2, 3)), jnp.ones((), jnp.complex64)]}
    table = dwd.describe_decay(params)
    assert [row[:4] for row in table] == [
        ("a/0", (2, 3), "float32", 1.0),
        ("a/1", (), "complex64", 1.0),
        ("b", (2,), "bfloat16", 1.0),
    ]
    assert list(table) == list(table.rows)
    assert len(table) == 3


def test_the_text_is_aligned_and_has_a_total():
    params = {"bias": jnp.ones(3, jnp.bfloat16), "kernel": jnp.ones((1000, 2))}
    table = dwd.describe_decay(params, {"bias": False, "kernel": 2.0}, weight_decay=2**-9)
    lines = (
        "path    shape      dtype     multiplier  decay per step  half-life",
        "bias    (3,)       bfloat16           0               0        inf",
        "kernel  (1000, 2)  float32            2        0.003906      177.1",
        "Decayed: 2,000 of 2,003 parameters, in 1 of 2 leaves, 8,000 of 8,006 bytes.",
    )
    assert str(table) == repr(table) == "\n".join(lines)


# Twelve layers in one array: by rank, A_log and the weight of n1 are matrices.
STACK = {
    "A_log": jnp.ones((12, 8)),
    "bias": jnp.ones((12, 8)),
    "kernel": jnp.ones((12, 8, 8)),
    "n1": {"bias": jnp.ones((12, 8)), "weight": jnp.ones((12, 8))},
    "out": {"bias": jnp.ones((12, 8)), "weight": jnp.ones((12, 8, 8))},
    "wte": jnp.ones((50, 8)),
    "x": jnp.ones(3),
}
DOUBTS = {
    "a preset": (masks.matrices(), ("A_log", "n1/weight")),
    "rules times a preset": (masks.by_path({"A_log": 2}, times=masks.matrices()),
                             ("A_log", "n1/weight")),
    "a rule of 0": (masks.by_path({"A_log": 0}, times=masks.matrices()), ("n1/weight",)),
    "one is stacked": (masks.matrices(stacked={"A_log": 1}), ("n1/weight",)),
    "one is not": (masks.matrices(stacked={"A_log": 0, "n1/.*": 1}), ()),
    "all are": (masks.matrices(stacked=1), ()),
    "rules": (MASK, ()),
    "no mask": (None, ()),
}  # fmt: skip


@pytest.mark.parametrize(("mask", "by_rank"), DOUBTS.values(), ids=DOUBTS)
def test_leaves_that_a_preset_decides_by_rank_alone_are_told(mask, by_rank):
    table = dwd.describe_decay(STACK, mask)
    assert table.by_rank == by_rank
    told = str(table).splitlines()[len(table) + 2 :]
    assert [line.split(". ")[0] for line in told] == [
        f"By rank alone: {', '.join(map(repr, by_rank))}" for _ in by_rank[:1]
    ]


def test_a_bare_array_is_in_no_doubt():
    assert dwd.describe_decay(jnp.ones((2, 2)), masks.matrices()).by_rank == ()


def test_of_many_leaves_by_rank_eight_are_listed():
    params = {f"odd_{i}": jnp.ones((2, 2)) for i in range(9)}
    table = dwd.describe_decay(params, masks.matrices())
    assert len(table.by_rank) == 9
    assert "'odd_7', ...." in str(table)
    assert "odd_8" not in str(table).splitlines()[-1]


@pytest.mark.parametrize("layers", [eqx.nn.MLP, nnx.MultiHeadAttention])
def test_of_the_usual_layers_none_is_decided_by_rank_alone(layers):
    if layers is eqx.nn.MLP:
        params = eqx.nn.MLP(8, 8, 8, 2, key=jax.random.key(0))
    else:
        params = nnx.state(nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0)), nnx.Param)
    assert dwd.describe_decay(params, masks.matrices()).by_rank == ()


@pytest.mark.parametrize("mask", [None, MASK, masks.matrices(), {"bias": 0, "kernel": 1}])
def test_shapes_are_enough(mask):
    shapes = jax.eval_shape(small_params)
    assert dwd.describe_decay(shapes, mask) == dwd.describe_decay(small_params(), mask)


def test_what_cannot_decay_has_no_row():
    model = eqx.nn.MLP(2, 2, 2, 1, use_bias=False, use_final_bias=False, key=jax.random.key(0))
    paths = [row.path for row in dwd.describe_decay(model)]
    assert paths == ["layers/0/weight", "layers/1/weight"]
    rest = {"count": jnp.zeros((), jnp.int32), "none": None, "masked": optax.MaskedNode()}
    assert [row.path for row in dwd.describe_decay({**rest, "w": jnp.ones(2)})] == ["w"]


@pytest.mark.parametrize("as_state", [False, True], ids=["module", "state"])
def test_an_nnx_model_has_no_level_of_variables(as_state):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    params = nnx.state(model) if as_state else model
    table = dwd.describe_decay(params, masks.matrices())
    assert [(row.path, row.multiplier) for row in table] == [("bias", 0), ("kernel", 1)]


REFUSED = {
    "no learning rate": ({"coupling": "learning_rate"}, ValueError, "`learning_rate` is None"),
    "a negative step": ({"step": -1}, ValueError, "`step` is -1"),
    "a mask that does not fit": ({"mask": {"kernel": True}}, ValueError, "`mask` must be a tree"),
    "a bare scalar": ({"mask": True}, TypeError, "`mask` is the bare scalar"),
    "nothing to decay": ({"mask": masks.by_path({".*": 0})}, ValueError, "nothing to decay"),
    "a rule without leaf": ({"mask": masks.by_path({"x": 0})}, ValueError, "of no path"),
    "all of a weight": ({"weight_decay": 1.0}, ValueError, "`weight_decay` is 1"),
    "a callable rate": ({"learning_rate": eta}, TypeError, "`learning_rate` is a callable"),
}


@pytest.mark.parametrize(("arguments", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_no_optimizer_takes_is_not_described(arguments, error, says):
    with pytest.raises(error, match=says):
        dwd.describe_decay(small_params(), **arguments)


@pytest.mark.parametrize("name", ["weight_decay", "mask"])
def test_a_traced_number_is_refused(name):
    def describe(x):
        given = (
            {"weight_decay": x} if name == "weight_decay" else {"mask": {"bias": x, "kernel": 1}}
        )
        return len(dwd.describe_decay(small_params(), **given))

    with pytest.raises(TypeError, match=f"`{name}` is traced.*outside of jax.jit"):
        jax.jit(describe)(0.001)


def test_a_large_decay_warns_as_in_the_optimizer():
    with pytest.warns(UserWarning, match=r"`weight_decay` is 0\.1.*removes 10\.00%"):
        dwd.describe_decay(small_params(), weight_decay=0.1)


# Checkpoints on the command line

NETWORK = {"dense": small_params(), "norm": {"scale": jnp.ones(3)}}
ROWS = """\
path          shape   dtype    multiplier  decay per step  half-life
dense/bias    (3,)    float32           0               0        inf
dense/kernel  (2, 3)  float32           1          0.0001       6931
norm/scale    (3,)    float32           0               0        inf
Decayed: 6 of 12 parameters, in 1 of 3 leaves, 24 of 48 bytes.
"""
IN_PARAMS = "Subtree 'params' of the checkpoint; beside it: 'opt_state', 'step'.\n"


def flax_state():
    return train_state.TrainState.create(apply_fn=None, params=NETWORK, tx=dwd.adamw(1e-3))


def save(kind, path):
    """Save in one of the ways there are, and give what to describe."""
    if kind == "msgpack":
        path.write_bytes(serialization.to_bytes(flax_state()))
    elif kind == "standard":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, flax_state())
    elif kind == "pytree":
        ocp.PyTreeCheckpointer().save(path, flax_state())
    else:
        items = {"state": ocp.args.StandardSave(flax_state()), "about": ocp.args.JsonSave({})}
        with ocp.CheckpointManager(path) as manager:
            for step in (9, 10):
                manager.save(step, args=ocp.args.Composite(**items))
        return path / "10"
    return path


def described(capsys, *arguments):
    status = main(["describe", *map(str, arguments)])
    return status, *capsys.readouterr()


@pytest.mark.parametrize("kind", ["msgpack", "standard", "pytree", "manager"])
def test_a_train_state_is_described_from_its_checkpoint(kind, tmp_path, capsys):
    path = save(kind, tmp_path / "saved")
    status, out, _ = described(capsys, path, "--preset", "matrices")
    found = "Checkpoint 'state'. " if kind == "manager" else ""
    assert (status, out) == (0, found + IN_PARAMS + ROWS)


def test_several_checkpoints_in_a_directory_are_listed_and_refused(tmp_path, capsys):
    save("standard", tmp_path / "std")
    step = save("manager", tmp_path / "mgr")
    (tmp_path / "mgr" / "11.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "mgr" / "11.orbax-checkpoint-tmp" / "state" / "_METADATA").touch()
    for given, holds in (
        (step.parent, "'9/state', '10/state'"),
        (tmp_path, "'mgr/9/state', 'mgr/10/state', 'std'"),
    ):
        status, out, err = described(capsys, given)
        assert (status, out) == (2, "")
        assert f"several checkpoints: {holds}. Pass the directory of one, such as " in err
    assert str(tmp_path / "std") in err


def test_the_only_checkpoint_below_a_directory_is_read_and_named(tmp_path, capsys):
    step = save("manager", tmp_path / "mgr")
    shutil.rmtree(tmp_path / "mgr" / "9")
    given = {"state": step, "10/state": step.parent, "mgr/10/state": tmp_path}
    for name, path in given.items():
        status, out, _ = described(capsys, path, "--preset", "matrices")
        assert (status, out) == (0, f"Checkpoint {name!r}. {IN_PARAMS}{ROWS}")


def test_a_damaged_checkpoint_is_refused(tmp_path, capsys):
    path = save("standard", tmp_path / "saved")
    for data in path.rglob("d/*"):
        data.unlink()
    status, _, err = described(capsys, path)
    assert status == 2
    assert "whose metadata Orbax cannot read" in err


def test_an_nnx_state_loses_its_level_of_variables(tmp_path, capsys):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", {"model": nnx.state(model), "loss": jnp.ones(2)})
    given = ("--subtree", "model", "--mask", json.dumps({"bias": 0}))
    status, out, _ = described(capsys, tmp_path / "saved", *given)
    assert status == 0
    assert out.startswith("Subtree 'model' of the checkpoint; beside it: 'loss'.\n")
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["bias", "kernel"]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.msgpack"
    path.write_bytes(serialization.to_bytes(NETWORK))
    return path


def test_coupling_and_rate_of_the_command_line_reach_the_table(saved, capsys):
    given = "--weight-decay 0.1 --learning-rate 0.001 --coupling learning_rate".split()
    status, out, err = described(capsys, saved, "--preset", "matrices", *given)
    assert (status, out, err) == (0, "All of the checkpoint.\n" + ROWS, "")


def test_rules_and_warnings_of_the_command_line(saved, capsys):
    rules = json.dumps({".*/(bias|scale)": False, r"(\d)/x|.*/kernel": 0.5})
    status, out, err = described(capsys, saved, "--mask", rules, "--weight-decay", "0.1")
    assert status == 0
    assert "dense/kernel  (2, 3)  float32         0.5            0.05" in out
    assert err.startswith("`weight_decay` is 0.1, which")


def test_a_preset_multiplies_the_rules_of_the_command_line(saved, capsys):
    rules = json.dumps({"dense/.*": 0.5})
    status, out, _ = described(capsys, saved, "--mask", rules, "--preset", "matrices")
    assert status == 0
    assert [line.split()[-3] for line in out.splitlines()[2:5]] == ["0", "0.5", "0"]


STACKED_ROWS = {"1": ["0", "0", "1"], '{"layers/.*": 1}': ["0", "0", "1"], "0": ["1", "0", "1"]}


@pytest.mark.parametrize(("stacked", "expected"), STACKED_ROWS.items(), ids=STACKED_ROWS)
def test_stacked_of_the_command_line_reaches_the_preset(stacked, expected, tmp_path, capsys):
    path = tmp_path / "saved.msgpack"
    path.write_bytes(
        serialization.to_bytes({"layers": {k: STACK[k] for k in ("A_log", "bias", "kernel")}})
    )
    for rules in ((), ("--mask", '{".*": 1}')):
        status, out, _ = described(
            capsys, path, "--preset", "matrices", "--stacked", stacked, *rules
        )
        assert status == 0
        assert [line.split()[-3] for line in out.splitlines()[2:5]] == expected
        assert ("By rank alone: 'layers/A_log'." in out) == (stacked == "0")


WRONG = {
    "no such file": (["nowhere"], "`checkpoint` is 'nowhere', and there is no such file"),
    "no checkpoint": ([__file__], "which is no Flax msgpack file"),
    "no tree": ([str(Path(json.__file__).parent)], "no Orbax checkpoint: it has no _METADATA"),
    "no JSON": (["SAVED", "--mask", "bias"], "`--mask` is 'bias', which is no JSON"),
    "no JSON of axes": (
        ["SAVED", "--preset", "matrices", "--stacked", "all"],
        "`--stacked` is 'all', which is no JSON",
    ),
    "no axes": (["SAVED", "--preset", "matrices", "--stacked", "[1]"], "`stacked` is [1]"),
    "axes without preset": (["SAVED", "--stacked", "1"], "no `--preset` is given"),
    "no mapping": (["SAVED", "--mask", "[1]"], "`rules` is [1]"),
    "no match": (["SAVED", "--mask", '{"bias": 0}'], "write '.*/bias'"),
    "no subtree": (["SAVED", "--subtree", "dence"], "it holds 'dense', 'norm'."),
    "no deeper subtree": (
        ["SAVED", "--subtree", "dense/bias/x"],
        "'x' is not in the checkpoint: it is an",
    ),
    "no coupling": (["SAVED", "--coupling", "rate"], "`coupling` is 'rate'"),
    "no rate": (["SAVED", "--coupling", "corrected"], "`learning_rate` is None"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_described_is_a_sentence(arguments, says, saved, capsys):
    given = [saved if argument == "SAVED" else argument for argument in arguments]
    status, out, err = described(capsys, *given)
    assert (status, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("module", "kind"), [("flax", "msgpack"), ("orbax", "standard")])
def test_a_missing_package_is_named(module, kind, tmp_path, capsys, monkeypatch):
    path = save(kind, tmp_path / "saved")
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    status, _, err = described(capsys, path)
    assert status == 2
    assert f"pip install {module}" in err
