"""Choosing the number: inverses, what each rule keeps, and what `suggest` shows."""

import inspect
import math
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd import __main__ as command
from decoupled_wd import hyperparams
from tests.helpers import as_arrays, assert_close
from tests.tolerances import RELATIVE, ULPS

REFERENCE = RELATIVE["reference"]
FLOAT32 = ULPS["float32"] * 2.0**-23

ARGUMENTS = {
    "steps_per_epoch": {"batch_size": 128, "dataset_size": 50_000},
    "normalized_weight_decay": {
        "normalized_weight_decay": 0.025, "batch_size": 128, "dataset_size": 50_000, "epochs": 100,
    },
    "normalize_weight_decay": {
        "weight_decay": 1e-4, "batch_size": 128, "dataset_size": 50_000, "epochs": 100,
    },
    "timescale": {"weight_decay": 0.1, "steps_per_epoch": 391, "learning_rate": 1e-3},
    "weight_decay_of_timescale": {"timescale": 5.0, "steps_per_epoch": 391, "learning_rate": 1e-3},
    "half_life": {"weight_decay": 0.1, "steps_per_epoch": 391, "learning_rate": 1e-3},
    "weight_decay_of_half_life": {"half_life": 5.0, "steps_per_epoch": 391, "learning_rate": 1e-3},
    "weight_decay_at_learning_rate": {
        "weight_decay": 0.1, "from_learning_rate": 1e-3, "to_learning_rate": 3e-3,
    },
    "weight_decay_at_batch_size": {
        "weight_decay": 0.1, "from_batch_size": 256, "to_batch_size": 768,
    },
    "weight_decay_at_dataset_size": {
        "weight_decay": 0.1, "from_dataset_size": 50_000, "to_dataset_size": 1_280_000,
    },
    "weight_decay_at_width": {"weight_decay": 0.1, "from_width": 256, "to_width": 768},
    "learning_rate_at_width": {"learning_rate": 1e-3, "from_width": 256, "to_width": 768},
    "timescale_at_tokens_per_parameter": {
        "timescale": 0.25, "from_tokens_per_parameter": 20.0, "to_tokens_per_parameter": 100.0,
    },
}  # fmt: skip
BETWEEN_RUNS = [name for name in ARGUMENTS if "_at_" in name]
RUN = {
    "learning_rate": 0.002, "batch_size": 64, "dataset_size": 10_000, "epochs": 8, "tokens": 4e9,
    "parameters": 1e8, "timescale_coefficient": 2.0, "width": 1024, "base_width": 256,
    "base_weight_decay": 0.1, "base_coupling": "learning_rate",
}  # fmt: skip
COUNTED = ("batch_size", "dataset_size")


def test_every_function_is_here():
    found = {
        name
        for name, value in vars(hyperparams).items()
        if inspect.isfunction(value)
        and value.__module__ == hyperparams.__name__
        and not name.startswith("_")
    }
    shared = {"decay_of_budget", "times_of_decay"}  # of numbers that are checked already
    assert found - shared - {"suggest"} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_traced_numbers_give_the_same_and_promote_nothing(name):
    function, arguments = getattr(hyperparams, name), ARGUMENTS[name]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        traced = jax.jit(lambda numbers: function(**numbers))(as_arrays(arguments))
    assert_close(np.asarray(traced), np.asarray(function(**arguments), traced.dtype))


# Inverses

positive = st.floats(1e-4, 1e4)
INVERSES = {
    "normalized decay": (
        lambda x, n, alpha: dwd.normalize_weight_decay(x, 1, n, alpha),
        lambda x, n, alpha: dwd.normalized_weight_decay(x, 1, n, alpha),
    ),
    "timescale": (
        lambda x, n, alpha: dwd.timescale(x, n, learning_rate=alpha),
        lambda x, n, alpha: dwd.weight_decay_of_timescale(x, n, learning_rate=alpha),
    ),
    "half-life": (
        lambda x, n, alpha: dwd.half_life(x, n, learning_rate=alpha),
        lambda x, n, alpha: dwd.weight_decay_of_half_life(x, n, learning_rate=alpha),
    ),
}


@pytest.mark.parametrize("name", INVERSES)
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@hypothesis.given(steps=st.floats(2, 1e7), n=st.integers(1, 10_000), alpha=positive)
def test_a_function_of_its_inverse_is_the_number(name, x64, steps, n, alpha):
    function, inverse = INVERSES[name]
    epochs = steps / n  # A timescale is more than a step.
    with jax.enable_x64(x64):
        back = function(inverse(epochs, n, alpha), n, alpha)
        np.testing.assert_allclose(back, epochs, rtol=REFERENCE if x64 else FLOAT32)


@pytest.mark.parametrize("name", BETWEEN_RUNS)
@hypothesis.given(st.tuples(positive, positive, positive, positive))
def test_swapping_the_runs_is_the_inverse_and_steps_between_runs_compose(name, numbers):
    x, first, second, third = numbers
    carry = getattr(hyperparams, name)
    there = carry(x, first, second)
    np.testing.assert_allclose(carry(there, second, first), x, rtol=REFERENCE)
    np.testing.assert_allclose(carry(there, second, third), carry(x, first, third), rtol=REFERENCE)
    assert carry(x, first, first) == x


# What each rule keeps


def test_the_decay_of_an_epoch_is_kept_over_batch_and_dataset_size():
    decay = hyperparams.weight_decay_at_dataset_size(
        hyperparams.weight_decay_at_batch_size(0.1, 64, 256), 10_240, 40_960
    )
    before, after = dwd.timescale(0.1, 10_240 / 64), dwd.timescale(decay, 40_960 / 256)
    np.testing.assert_allclose(after, before, rtol=FLOAT32)
    assert hyperparams.weight_decay_at_batch_size(0.1, 64, 256) == 0.4


def test_the_rules_of_width_keep_the_largest_singular_value_or_the_decay_per_step():
    def singular_value(learning_rate, weight_decay, width):  # arXiv 2510.15262, abstract
        return (learning_rate / weight_decay) ** 0.5 * width**0.75

    to_rate = hyperparams.learning_rate_at_width(0.01, 128, 1024)
    root = hyperparams.weight_decay_at_width(0.1, 128, 1024, coupling="learning_rate")
    kept = hyperparams.weight_decay_at_learning_rate(0.1, 0.01, to_rate)
    np.testing.assert_allclose(
        singular_value(to_rate, root, 1024), singular_value(0.01, 0.1, 128), rtol=REFERENCE
    )
    np.testing.assert_allclose(to_rate * kept, 0.01 * 0.1, rtol=REFERENCE)
    np.testing.assert_allclose([0.01 / to_rate, root / 0.1, kept / 0.1], [8, 8**0.5, 8])


@pytest.mark.filterwarnings("ignore:`weight_decay` is .*per step")
def test_the_root_of_the_width_removes_the_same_in_both_units():
    with jax.enable_x64(True):
        rate = hyperparams.learning_rate_at_width(0.01, 512, 2048)
        left = [
            retained(1, rate, weight_decay=hyperparams.weight_decay_at_width(
                start, 512, 2048, coupling=coupling), coupling=coupling)
            for start, coupling in ((0.5, "schedule"), (0.5 / 0.01, "learning_rate"))
        ]  # fmt: skip
        np.testing.assert_allclose(left, 0.75, rtol=REFERENCE)  # 1 - 0.5 sqrt(512 / 2048)
    # The default is the unit of this library's optimizers.
    default = inspect.signature(hyperparams.weight_decay_at_width).parameters["coupling"].default
    assert default == inspect.signature(dwd.adamw).parameters["coupling"].default
    np.testing.assert_allclose(hyperparams.weight_decay_at_width(3e-5, 512, 2048), 1.5e-5)


def test_the_law_of_the_timescale_is_a_line_of_slope_minus_0_527_through_its_coefficient():
    ratios = np.array([1, 2, 20, 1e3])
    taus = [hyperparams.timescale_at_tokens_per_parameter(3.0, 1, float(r)) for r in ratios]
    expected = math.log(3) - 0.527 * np.log(ratios)
    np.testing.assert_allclose(np.log(taus), expected, rtol=REFERENCE, atol=REFERENCE)


DATA, BATCH, EPOCHS = 4096, 16, 2.0


def retained(steps, learning_rate, **decay):
    """The part of a weight that is left after so many steps of the optimizer without gradient."""
    tx = dwd.adamw(learning_rate, **decay)

    def step(carry, _):
        updates, state = tx.update(jnp.zeros(()), carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    start = jnp.ones(())
    return float(jax.lax.scan(step, (start, tx.init(start)), length=steps)[0][0])


def decay_of_an_epoch(batch, weight_decay):
    """-log of what an epoch leaves, decay per step, and per unit of a learning rate ~ root of batch."""
    root = 0.01 * (batch / BATCH) ** 0.5
    per_rate = hyperparams.weight_decay_at_learning_rate(weight_decay / 0.01, 0.01, root)
    steps = dwd.steps_per_epoch(batch, DATA)
    return [
        -math.log(retained(steps, 0.01, weight_decay=weight_decay)),
        -math.log(retained(steps, root, weight_decay=per_rate, coupling="learning_rate")),
    ]


@pytest.mark.parametrize("batch", [BATCH, 2 * BATCH])
def test_an_epoch_forgets_one_over_the_timescale_at_every_batch_size(batch):
    with jax.enable_x64(True):
        found = float(dwd.weight_decay_of_timescale(EPOCHS, dwd.steps_per_epoch(BATCH, DATA)))
        decay = hyperparams.weight_decay_at_batch_size(found, BATCH, batch)
        # -n log(1 - d) is n d = 1 / tau, and at most a part d more.
        low, high = 1 / EPOCHS, (1 + decay) / EPOCHS
        assert all(low < forgotten < high for forgotten in decay_of_an_epoch(batch, decay))
        if batch != BATCH:  # And without the rule it is another part.
            assert all(2 * x < high for x in decay_of_an_epoch(batch, found))


@pytest.mark.parametrize("batch", [BATCH, 2 * BATCH])
def test_after_the_half_life_a_half_is_left_at_every_batch_size(batch):
    with jax.enable_x64(True):
        steps = dwd.steps_per_epoch(batch, DATA)
        decay = float(dwd.weight_decay_of_half_life(EPOCHS, steps))
        left = retained(round(EPOCHS * steps), 0.01, weight_decay=decay)
        np.testing.assert_allclose(left, 0.5, rtol=REFERENCE)


# Suggestions

STEPS = 157  # ceil(10_000 / 64)
EXPECTED = {  # decay per step, what it was read in
    "normalized decay of 0.025": (0.025 * math.sqrt(64 / 80_000), "source"),
    "normalized decay of 0.05": (0.05 * math.sqrt(64 / 80_000), "source"),
    "timescale of one epoch, the shortest": (1 / STEPS, "abstract"),
    "timescale of all epochs, the longest": (1 / (STEPS * 8), "abstract"),
    "timescale by tokens per parameter": (40**0.527 / (2 * STEPS * 8), "secondary source"),
    "root of the width": (0.002 * 0.1 * 2, "abstract"),
    "decay per step kept over width": (0.002 * 0.1 * 4, "abstract"),
    "1e-4, independent": (1e-4, "memory"),
}
"""For `RUN`, worked out by hand from the published rules."""
NEEDS = [
    (rule, way.split(", "))
    for rule, why in hyperparams.suggest().left_out
    for way in re.fullmatch(r"needs (.*)", why)[1].split("; or ")
]
STEPS_OF_RUN = {**{k: v for k, v in RUN.items() if k not in COUNTED}, "steps": STEPS * 8}
"""The same run, its steps given and not counted."""


def by_rule(suggestions):
    return {row.rule: row for row in suggestions.rows}


def test_every_rule_gives_its_number_with_how_sure_it_is():
    rows = by_rule(dwd.suggest(**RUN))
    assert {rule: row.read_in for rule, row in rows.items()} == {
        rule: read_in for rule, (_, read_in) in EXPECTED.items()
    }
    for rule, row in rows.items():
        np.testing.assert_allclose(row.per_step, EXPECTED[rule][0], rtol=REFERENCE)
        own = {"schedule": row.per_step, "learning_rate": row.per_learning_rate}
        assert row.weight_decay == own[row.coupling]


@pytest.mark.parametrize("rule", EXPECTED)
@pytest.mark.filterwarnings("ignore:`weight_decay` is .*per step")
def test_a_suggestion_removes_what_it_says_under_every_coupling(rule):
    row = by_rule(dwd.suggest(**RUN))[rule]
    numbers = dict.fromkeys(("schedule", "none"), row.per_step)
    numbers |= dict.fromkeys(("learning_rate", "corrected"), row.per_learning_rate)
    with jax.enable_x64(True):
        for coupling, number in numbers.items():
            left = retained(1, RUN["learning_rate"], weight_decay=number, coupling=coupling)
            np.testing.assert_allclose(1 - left, EXPECTED[rule][0], rtol=REFERENCE)
        left = retained(round(row.half_life), 1.0, weight_decay=row.per_step)
        np.testing.assert_allclose(left, 0.5, rtol=row.per_step)  # one step more or less


@pytest.mark.parametrize(("rule", "names"), NEEDS)
def test_a_rule_asks_for_just_what_it_needs(rule, names):
    run = STEPS_OF_RUN if "steps" in names else RUN
    inputs = {"base_coupling": "learning_rate", **{name: run[name] for name in names}}
    alone, among = (by_rule(dwd.suggest(**given))[rule] for given in (inputs, run))
    assert alone.per_step == among.per_step
    for name in names:
        without = dwd.suggest(**{k: v for k, v in inputs.items() if k != name})
        assert name in re.split(", |; or |needs ", dict(without.left_out)[rule])
        assert rule not in by_rule(without)


def test_every_input_is_needed_by_some_rule():
    assert {name for _, names in NEEDS for name in names} | {"base_coupling"} == {*RUN, "steps"}
    assert set(inspect.signature(dwd.suggest).parameters) == {*RUN, "steps"}


def test_steps_that_are_given_serve_as_those_that_are_counted():
    counted, given = (by_rule(dwd.suggest(**run)) for run in (RUN, STEPS_OF_RUN))
    assert set(given) == set(EXPECTED)
    # The source's budget counts the part of an epoch that a short last batch is: 156.25 steps.
    ratio = {name: (156.25 / STEPS) ** 0.5 for name in EXPECTED if name.startswith("normalized")}
    for rule, row in given.items():
        np.testing.assert_allclose(
            row.per_step / counted[rule].per_step, ratio.get(rule, 1), rtol=REFERENCE
        )


def test_a_way_that_needs_more_than_another_is_not_told():
    counted = {"learning_rate": 0.1, "batch_size": 1, "dataset_size": 8, "epochs": 2}
    for run in (counted, {"learning_rate": 0.1, "steps": 16}):
        left_out = dict(dwd.suggest(**run, parameters=1).left_out)
        expected = "needs tokens, timescale_coefficient"
        assert left_out["timescale by tokens per parameter"] == expected


def test_a_base_per_step_is_that_base_per_unit_of_its_learning_rate():
    base_rate = RUN["learning_rate"] * 4  # at a width of 256, a quarter of 1024
    per_step = {**RUN, "base_weight_decay": base_rate * 0.1, "base_coupling": "schedule"}
    units = [by_rule(dwd.suggest(**run)) for run in (RUN, per_step)]
    for rule in ("root of the width", "decay per step kept over width"):
        one, other = (rows[rule].per_step for rows in units)
        np.testing.assert_allclose(one, other, rtol=REFERENCE)
    del per_step["base_coupling"]  # the default
    assert by_rule(dwd.suggest(**per_step)) == units[1]
    expected = hyperparams.weight_decay_at_width(base_rate * 0.1, 256, 1024)
    np.testing.assert_allclose(units[1]["root of the width"].per_step, expected, rtol=REFERENCE)


def test_the_command_prints_the_table(capsys):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in RUN.items()]
    assert command.main(["suggest", *words]) == 0
    assert capsys.readouterr().out == f"{dwd.suggest(**RUN)}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--learning-rte 0.1", "'learning_rte'.*Did you mean 'learning_rate'"),
        ("--learning-rate x", "`learning_rate` is 'x', and a number is needed"),
        ("--batch-size 10 --dataset-size 9", "a batch is at most the dataset"),
        ("0.1", "stands by itself"),
    ],
)
def test_the_command_says_what_is_wrong(words, says, capsys):
    assert command.main(["suggest", *words.split()]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_the_table_has_a_line_for_every_rule():
    given = {name: x for name, x in RUN.items() if name != "tokens"}
    text = str(dwd.suggest(**given))
    line = next(line for line in text.splitlines() if line.startswith("root of the width"))
    cells = re.split(r"  +", line)
    assert cells == [
        "root of the width", "0.0004", "0.2*", "1733", "abstract", "Fan et al., arXiv 2510.15262",
    ]  # fmt: skip
    assert "Left out, timescale by tokens per parameter: needs tokens." in text
    assert "half-life: after so many steps" in text
    assert all(rule in text for rule in EXPECTED)
    no_rate = str(dwd.suggest(batch_size=1, dataset_size=100, epochs=1))
    assert re.search(r"normalized decay of 0.05 +0\.005\* +needs learning_rate +138", no_rate)


def test_what_would_remove_a_whole_weight_is_left_out():
    full_batch = dwd.suggest(learning_rate=0.1, batch_size=100, dataset_size=100, epochs=2)
    assert dict(full_batch.left_out)["timescale of one epoch, the shortest"].startswith("gives 1 ")
    assert "timescale of all epochs, the longest" in by_rule(full_batch)


def test_a_run_may_be_traced():
    def per_step(run):
        return [row.per_step for row in dwd.suggest(**run).rows]

    numbers = {name: x for name, x in RUN.items() if name != "base_coupling"}
    traced = jax.jit(lambda run: per_step({**run, "base_coupling": "learning_rate"}))(
        as_arrays(numbers)
    )
    expected = [number for number, _ in EXPECTED.values()]
    np.testing.assert_allclose(traced, expected, rtol=FLOAT32)


# Errors


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: dwd.weight_decay_of_timescale(0.5),
            r"`timescale` is 0\.5, .*steps_per_epoch=1 is 0\.5 steps.*more than one",
        ),
        (lambda: dwd.weight_decay_of_timescale(0.25, 4), "1 steps, and more than one is needed"),
        (
            lambda: dwd.half_life(2000.0, learning_rate=1e-3),
            r"`weight_decay` is 2000\.0, and less than 1000 is needed",
        ),
        (lambda: dwd.timescale(4, learning_rate=0.25), "`weight_decay` is 4, and less than 4 is"),
        (lambda: dwd.timescale(0.1, learning_rate=0), "`learning_rate` is 0, and a positive"),
        (lambda: hyperparams.weight_decay_at_width(0.1, 0, 4), "`from_width` is 0, and a positive"),
        (
            lambda: hyperparams.timescale_at_tokens_per_parameter(0, 1, 4),
            "`timescale` is 0, and a positive",
        ),
        (
            lambda: dwd.steps_per_epoch(50_000, 128),
            "`batch_size` is 50000 and `dataset_size` is 128, and a batch is at most the dataset",
        ),
        (lambda: dwd.normalized_weight_decay(0.1, 9, 8, 1), "a batch is at most the dataset"),
        (lambda: dwd.suggest(batch_size=9, dataset_size=8), "a batch is at most the dataset"),
        (
            lambda: dwd.suggest(steps=4, batch_size=2, dataset_size=8, epochs=1),
            "`steps` is 4, and .* say the steps of the run too. Leave out `steps`, or `epochs`",
        ),
        (
            lambda: hyperparams.weight_decay_at_width(0.1, 2, 4, coupling="none"),
            "`coupling` is 'none', and one of 'schedule', 'learning_rate'",
        ),
        (lambda: dwd.suggest(base_coupling="none"), "`base_coupling` is 'none', and one of"),
        (lambda: dwd.suggest(epochs=0.5), r"`epochs` is 0\.5, and 1 or more is needed"),
        (lambda: dwd.suggest(base_weight_decay=0), "`base_weight_decay` is 0, and a positive"),
        (lambda: dwd.log_time_weight_decay_schedule(0.1, 0), "`timescale` is 0, and a positive"),
    ],
)
def test_a_number_that_means_nothing_is_refused_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("name", BETWEEN_RUNS)
def test_what_is_no_number_is_refused_by_name_between_runs(name):
    for argument in ARGUMENTS[name]:
        for wrong, error in ((None, TypeError), ("1", TypeError), (-1, ValueError)):
            with pytest.raises(error, match=f"`{argument}` is {wrong!r}"):
                getattr(hyperparams, name)(**{**ARGUMENTS[name], argument: wrong})
