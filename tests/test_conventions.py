"""Records of conventions, `convert` between them and `like`, against NumPy; the libraries themselves
are in tests/libraries."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd.__main__ import main
from decoupled_wd.conventions import CONVENTIONS, NoCounterpart
from decoupled_wd.conventions._convert import convert
from decoupled_wd.conventions._record import DIRECTIONS
from tests.helpers import load_script
from tests.reference import conventions as reference
from tests.tolerances import RELATIVE

ROOT = pathlib.Path(__file__).parents[1]
T, D = 16, 5
RNG = np.random.default_rng(5)
THETA0, NOISE = RNG.normal(size=D), RNG.normal(size=(T, D))
CURVATURE = np.logspace(-2, 0, D)

WORDS = {
    "learning_rate": 0.05, "weight_decay": 0.2, "b1": 0.8, "b2": 0.9, "eps": 0.03, "eps_root": 0.0,
    "momentum": 0.7, "dampening": 0.0, "nesterov": False, "eps_placement": "after",
    "learning_rate_in_buffer": False, "variant": "pytorch",
}  # fmt: skip
"""What each argument is given, by this library's word; eps is large, so that its place shows."""
NORMALIZERS = {
    "batch_size": 4, "total_iterations": 100, "cycle_steps": 100, "trainSize": 25, "Te": 4,
}  # fmt: skip
ETAS = {
    "constant": np.ones(T),
    "schedule": 0.55 + 0.45 * np.cos(0.9 * np.arange(T)),
    "from zero": np.minimum(np.arange(T) / 4, 1),
    "zeros": np.where(np.arange(T) % 5 == 3, 0.0, 1.0),
}


def mathematics(convention):
    """All of a record that its numbers depend on, by which libraries are told apart here."""
    return str((
        convention.direction, convention.form, convention.unit, convention.first_step,
        sorted(map(str, convention.arguments.values())), sorted(convention.fixed.items()),
        convention.reference_argument, convention.normalizer_arguments,
    ))  # fmt: skip


KNOWN = list({
    mathematics(c): c for c in reversed(CONVENTIONS)
    # An eps of 1e-15 inside the root is another rule, and does not show here.
    if c.direction in reference.STEPS and (c.unit is not None or c.form == "coupled")
    and not c.fixed.get("eps_root")
}.values())  # fmt: skip
"""The records that NumPy runs, one for each rule."""


def arguments(convention, **changes):
    """A call of a library: every argument by its word."""
    values = {**WORDS, **changes}
    given = {
        argument: tuple(values[w] for w in word) if isinstance(word, tuple) else values[word]
        for argument, word in convention.arguments.items()
    }
    needed = {name: NORMALIZERS[name] for name in convention.normalizer_arguments}
    return {**given, **needed, **convention.options}


def closed_loop(t, theta):
    """Gradients of a noisy quadratic: a difference of the maps grows instead of hiding."""
    return CURVATURE * theta + NOISE[t]


def numpy_path(convention, given, eta):
    return reference.simulate(convention, given, eta, closed_loop, THETA0)


def schedule_of(convention, eta):
    """The same multipliers, by the convention's count of steps; None where constant."""
    if np.all(eta == 1):
        return None
    return lambda step: jnp.asarray(eta)[jnp.clip(step - convention.first_step, 0, T - 1)]


def table(value):
    """A schedule as one number a step."""
    if not callable(value):
        return value
    return np.broadcast_to(value(jnp.arange(T)), T)


def converted_path(conversion):
    """The target run in NumPy with what `convert` gave."""
    target = conversion.target
    given = {
        k: tuple(map(table, v)) if isinstance(v, tuple) else table(v)
        for k, v in conversion.arguments.items()
    }
    eta = 1.0 if conversion.schedule is None else conversion.schedule
    if callable(eta):
        eta = eta(jnp.arange(target.first_step, T + target.first_step))
    return numpy_path(target, given, np.broadcast_to(eta, T))


def deviation(one, other):
    return np.max(np.abs(one - other)) / np.max(np.abs(THETA0))


@pytest.mark.filterwarnings("ignore:`weight_decay` of")
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("convention", KNOWN, ids=lambda c: c.title)
def test_like_is_the_record_run_in_numpy(convention, eta):
    given = arguments(convention)
    with jax.enable_x64(True):
        tx = dwd.like(convention.name, schedule=schedule_of(convention, ETAS[eta]), **given)

        def step(carry, noise):
            theta, state = carry
            updates, state = tx.update(jnp.asarray(CURVATURE) * theta + noise, state, theta)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), theta

        theta0 = jnp.asarray(THETA0)
        path = jax.lax.scan(step, (theta0, tx.init(theta0)), jnp.asarray(NOISE))[1]
        path = np.asarray(path)
    assert deviation(path, numpy_path(convention, given, ETAS[eta])) <= RELATIVE["reference"]


def conversion_between(source, target, eta, **changes):
    """The conversion, and whether it is exact."""
    asked = {name: NORMALIZERS[name] for name in target.normalizer_arguments}
    call = ", ".join(f"{k}={v!r}" for k, v in {**target.options, **asked}.items())
    try:
        return convert(
            source.name, f"{target.name}({call})", schedule=schedule_of(source, eta),
            **arguments(source, **changes),
        ), True  # fmt: skip
    except NoCounterpart as error:
        return error.nearest, False


CHANGES = {
    "as it is": {},
    "without eps and momentum": {"eps": 0.0, "momentum": 0.0},
    "rate in the buffer": {"learning_rate_in_buffer": True, "eps_placement": "before"},
    "Nesterov, dampened": {"nesterov": True, "dampening": 0.3, "variant": "optax"},
    "Nesterov, rate in the buffer": {"nesterov": True, "learning_rate_in_buffer": True},
}


CASES = [
    *(("as it is", eta) for eta in ETAS),
    *((changes, "schedule") for changes in CHANGES if changes != "as it is"),
    *(("rate in the buffer", eta) for eta in ("from zero", "zeros")),
]


@pytest.mark.parametrize(("changes", "eta"), CASES)
@pytest.mark.parametrize("source", KNOWN, ids=lambda c: c.title)
def test_a_conversion_gives_the_same_path_just_when_it_is_exact(source, changes, eta):
    stands_still = np.any(ETAS[eta][1:] == 0)
    with jax.enable_x64(True):
        path = numpy_path(source, arguments(source, **CHANGES[changes]), ETAS[eta])
        for target in KNOWN:
            if target.direction != source.direction:
                continue
            conversion, exact = conversion_between(source, target, ETAS[eta], **CHANGES[changes])
            gap = deviation(converted_path(conversion), path)
            assert np.isfinite(gap), f"{target.title}\n{conversion}"
            if eta == "constant":
                assert source.name in str(conversion)
            if not (exact and conversion.needs_steps and stands_still):
                agree = gap <= RELATIVE["reference"]
                assert agree == exact, f"{target.title}: {gap:.1e}\n{conversion}"


def test_a_step_of_zero_that_cannot_be_carried_is_told():
    def convert_fixed(schedule):
        return dwd.convert(
            "tensorflow_addons.SGDW", "keras.SGD", learning_rate=0.1, weight_decay=0.01, momentum=0.0,
            schedule=schedule,
        )  # fmt: skip

    with pytest.raises(
        NoCounterpart, match=r"first step, where the schedule is 0\. The source decays"
    ):
        convert_fixed(lambda step: jnp.minimum(step / 4, 1))
    conversion = convert_fixed(lambda step: jnp.maximum(1 - step / 4, 0))
    assert conversion.needs_steps
    assert "while no step after the first has a multiplier of 0" in str(conversion)
    assert [float(conversion.arguments["weight_decay"](step)) for step in (0, 4)] == [
        pytest.approx(0.1), 0.0,
    ]  # fmt: skip


# What users write


def test_like_is_the_alias_to_the_last_bit():
    theta = jnp.asarray(THETA0, jnp.float32)
    ours = dwd.adamw(1e-3, weight_decay=0.1, coupling="learning_rate")
    theirs = dwd.like("pytorch.AdamW", lr=1e-3, weight_decay=0.1)
    for tx in (ours, theirs):
        assert jax.tree.structure(tx.init(theta)) == jax.tree.structure(ours.init(theta))
    one, other = (jax.jit(tx.update)(theta, tx.init(theta), theta)[0] for tx in (ours, theirs))
    np.testing.assert_array_equal(one, other)


def test_a_conversion_to_this_library_is_a_call_of_it():
    conversion = dwd.convert("pytorch.AdamW", "decoupled_wd", lr=1e-3, weight_decay=0.1)
    tx = dwd.adamw(**conversion.arguments)
    theta = jnp.asarray(THETA0, jnp.float32)
    like = dwd.like("pytorch.AdamW", lr=1e-3, weight_decay=0.1)
    one, other = (jax.jit(t.update)(theta, t.init(theta), theta)[0] for t in (tx, like))
    np.testing.assert_array_equal(one, other)


def test_a_conversion_prints_numbers_formulas_and_amounts():
    text = str(dwd.convert("pytorch.AdamW", "paper", lr=3e-4, weight_decay=0.1))
    for part in (
        "pytorch.AdamW(lr=0.0003", "d = a w", "paper.AdamW(learning_rate=0.0003", "weight_decay=3e-05",
        "d = η w", "decay per step 3e-05", "1000 such steps remove 2.9555%", "half-life 23105 steps",
        "timescale 33333 steps",
    ):  # fmt: skip
        assert part in text


def test_the_command_line_prints_the_same(capsys):
    words = "convert --from pytorch.AdamW --lr 3e-4 --weight-decay 0.1 --to paper"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == str(dwd.convert("pytorch.AdamW", "paper", lr=3e-4, weight_decay=0.1))


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("--from pytorch.AdamW --lr 1e-3 --to paper.Adam", 1, "Not exact. The nearest:"),
        ("--from pytorch.AdamW --amsgrad --lr=1e-3 --to pytorch", 0, "amsgrad=True"),
        ("--from pytorch.AdamW --betas 0.8 0.9 --to paper", 0, "b1=0.8, b2=0.9"),
        ("--from pytorch.AdamW --schedule cosine --to paper", 2, "in Python"),
        ("", 0, "pytorch.AdamW(amsgrad=True)"),
        ("--from pytorch.AdamW", 2, "Both --from and --to"),
        ("--from pytorch.AdmaW --to paper", 2, "Did you mean 'pytorch.AdamW'"),
        ("--from pytorch.AdamW --to paper 3", 2, "'3' stands by itself"),
    ],
)
def test_the_command_line_answers_in_sentences(words, status, says, capsys):
    assert main(["convert", *words.split()]) == status
    assert says in "".join(capsys.readouterr())


BAD = {
    "an unknown convention": (
        {"source": "torch.AdamW"},
        ValueError,
        "Did you mean 'pytorch.AdamW'",
    ),
    "a library as a source": ({"source": "pytorch"}, ValueError, "an optimizer is needed"),
    "no Python": ({"source": "pytorch.AdamW(amsgrad"}, ValueError, "cannot be read"),
    "positional options": ({"source": "pytorch.AdamW(1)"}, ValueError, "cannot be read"),
    "an option of no record": (
        {"source": "pytorch.AdamW(amsgrad=3)"},
        ValueError,
        "amsgrad=False",
    ),
    "another case": ({"source": "pytorch.adamw"}, ValueError, "Did you mean 'pytorch.AdamW'"),
    "the full name": ({"source": "torch.optim.AdamW"}, ValueError, "Did you mean 'pytorch.AdamW'"),
    "the optimizer alone": ({"source": "AdamW"}, ValueError, "or 'pytorch.AdamW'"),
    "initials": ({"wd": 0.1}, TypeError, "Did you mean `weight_decay`"),
    "a string": ({"lr": "3e-4"}, TypeError, "`lr` is '3e-4'"),
    "a misspelt argument": ({"weight_deacy": 0.1}, TypeError, "Did you mean `weight_decay`"),
    "a missing argument": ({"source": "paper.SGDW", "learning_rate": 0.1}, TypeError, "is missing"),
    "one beta": ({"betas": 0.9}, TypeError, "2 numbers are needed"),
    "a negative decay": ({"weight_decay": -0.1}, ValueError, "0 or more"),
    "a schedule that is none": ({"schedule": "cosine"}, TypeError, "callable of the step"),
}


@pytest.mark.parametrize("make", [dwd.like, lambda source, **a: dwd.convert(source, "paper", **a)])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_sentences(make, case):
    arguments, error, says = BAD[case]
    with pytest.raises(error, match=says):
        make(
            arguments.get("source", "pytorch.AdamW"),
            **{k: v for k, v in arguments.items() if k != "source"},
        )


@pytest.mark.parametrize(
    ("source", "target", "arguments", "chosen"),
    [
        ("pytorch.AdamW", "optimi", {}, "optimi.AdamW"),
        ("pytorch.AdamW", "keras", {"eps": 0.0}, "keras.AdamW"),
        ("pytorch.AdamW(amsgrad=True)", "decoupled_wd", {}, "decoupled_wd.amsgradw"),
        ("pytorch.SGD", "optax", {}, "optax.sgd"),
        # Constants, though an L2 penalty that varies from step to step is exact too.
        ("keras.SGD", "paper", {"momentum": 0.9, "weight_decay": 5e-3}, "paper.SGDW"),
        ("lion_pytorch.Lion", "decoupled_wd", {}, "decoupled_wd.lionw"),
        # An option leaves out the records that do not have it.
        ("pytorch.AdamW", "decoupled_wd(coupling='schedule')", {}, "decoupled_wd.adamw"),
        (
            "lion_pytorch.Lion",
            "pytorch_optimizer.Lion(fixed_decay=True)",
            {},
            "pytorch_optimizer.Lion",
        ),
    ],
)
def test_of_a_library_the_plainest_optimizer_is_chosen(source, target, arguments, chosen):
    assert dwd.convert(source, target, **arguments).target.name == chosen


def test_a_library_without_such_a_step_asks_for_a_name():
    with pytest.raises(
        ValueError, match=r"none of whose .* name the one that is meant: lion_pytorch"
    ):
        dwd.convert("pytorch.AdamW", "lion_pytorch")


def test_the_schedule_is_an_argument_of_this_librarys_optimizers():
    conversion = dwd.convert(
        "pytorch.AdamW", "decoupled_wd", lr=0.1, schedule=lambda step: 0.5**step
    )
    theta = jnp.ones(1)
    tx = dwd.adamw(**conversion.arguments)
    _, state = tx.update(0 * theta, tx.init(theta), theta)
    np.testing.assert_allclose(tx.update(0 * theta, state, theta)[0], -0.1 * 0.5 * 0.01, rtol=1e-6)


def test_an_optimizer_without_decay_takes_none():
    with pytest.raises(NoCounterpart, match=r"optax\.adam has none"):
        dwd.convert("optax.adamw", "optax.adam", learning_rate=0.1)


def test_a_target_takes_its_options_alone():
    with pytest.raises(TypeError, match="which follows from the source"):
        dwd.convert("pytorch.AdamW", "paper.AdamW(eps=1e-3)", lr=1e-3)


def test_a_callable_learning_rate_asks_for_its_peak():
    with pytest.raises(TypeError, match="pass the peak"):
        dwd.convert("pytorch.AdamW", "paper", lr=lambda step: 1e-3)
    with pytest.raises(TypeError, match="pass that"):
        dwd.like("paper.AdamW", learning_rate=lambda step: 1e-3, weight_decay=1e-4)


def test_what_is_missing_is_told_with_its_cost_and_the_nearest():
    with pytest.raises(NoCounterpart, match=r"31\.6 times as large at the first step") as caught:
        dwd.convert(
            "decoupled_wd.adamw(eps_placement='before', coupling='learning_rate')", "pytorch.AdamW",
            learning_rate=1e-3,
        )  # fmt: skip
    nearest = caught.value.nearest
    assert nearest.arguments["eps"] == 1e-8
    assert [part.part for part in nearest.missing] == [
        "ε, which is added before the bias correction"
    ]


def test_to_another_optimizer_the_decay_alone_is_carried():
    with pytest.raises(NoCounterpart, match=r"The step of pytorch\.SGD") as caught:
        dwd.convert("pytorch.SGD", "pytorch.AdamW", lr=0.1, momentum=0.75, weight_decay=0.125)
    # In the long run momentum makes four steps of one.
    assert caught.value.nearest.arguments["weight_decay"] == 0.5


def test_dampening_by_a_momentum_that_varies_has_no_counterpart():
    arguments = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    with pytest.raises(NoCounterpart, match="the target dampens by it"):
        dwd.convert(
            "keras.SGD", "optimi.SGD(dampening=True)", schedule=lambda step: 0.5**step, **arguments
        )


def test_a_large_decay_is_told_in_the_words_of_its_library():
    with pytest.warns(UserWarning, match=r"`weight_decay` of paper\.AdamW makes d = η w per step"):
        dwd.like("paper.AdamW", learning_rate=1e-3, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"removes 100\.00%"):
        dwd.like("paper.AdamW", learning_rate=1e-3, weight_decay=1.0)


def test_numbers_may_be_traced_in_conversion_and_optimizer():
    theta = jnp.ones(2)

    def decay(lr, w):
        given = dwd.convert("pytorch.AdamW", "paper", lr=lr, weight_decay=w).arguments
        tx = dwd.like("pytorch.AdamW", lr=lr, weight_decay=w)
        return given["weight_decay"], -tx.update(0 * theta, tx.init(theta), theta)[0][0]

    rates, decays = jnp.array([1e-3, 1e-2]), jnp.array([0.1, 0.2])
    given, removed = jax.jit(jax.vmap(decay))(rates, decays)
    np.testing.assert_allclose(given, rates * decays, rtol=1e-6)
    np.testing.assert_allclose(removed, rates * decays, rtol=1e-6)


def test_momentum_and_dampening_may_be_traced():
    theta = jnp.ones(2)

    def second_step(momentum, dampening):
        tx = dwd.like("pytorch.SGD", lr=1.0, momentum=momentum, dampening=dampening)
        _, state = tx.update(theta, tx.init(theta), theta)
        return -tx.update(theta, state, theta)[0][0]

    steps = jax.vmap(second_step)(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.25, 0.0]))
    np.testing.assert_array_equal(steps, [1.5, 1.25, 1.0])
    tx = optax.inject_hyperparams(
        lambda lr, momentum: dwd.like("pytorch.SGD", lr=lr, momentum=momentum)
    )(lr=1.0, momentum=0.0)
    jax.jit(tx.update)(theta, tx.init(theta), theta)


def test_records_are_whole():
    titles = [c.title for c in CONVENTIONS]
    assert len(titles) == len(set(titles))
    for c in CONVENTIONS:
        words = c.settable
        assert "learning_rate" in words | set(c.fixed), c.title
        assert c.source, c.title
        assert set(c.options) <= set(c.defaults), f"{c.title} has options without defaults"
        if c.unit is None and c.form != "coupled":
            assert c.note, f"{c.title} does not say what its decay reads"
        if c.direction in DIRECTIONS:
            assert words - {"learning_rate", "weight_decay"} <= set(
                DIRECTIONS[c.direction].defaults
            )
            assert set(c.fixed) <= set(DIRECTIONS[c.direction].defaults), c.title


def test_the_page_of_conventions_is_made_from_the_records():
    page = load_script(ROOT / "docs/conventions.py")
    assert page.FILE.read_text() == page.table(), "run `python docs/conventions.py`"
