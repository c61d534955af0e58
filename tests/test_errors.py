"""Bad input: an error that names the argument, says what was given, and what to do.

The table of bad values is made from the signatures, so that an argument added later is in it.
"""

import functools
import types
import typing
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd._typing import Number, NumberOrSchedule
from tests.helpers import (
    ARGUMENTS,
    options,
    parameters,
    public_functions,
    public_transformations,
    small_params,
)

each_own = pytest.mark.parametrize(
    "tx", [tx for tx in public_transformations() if not tx.takes("tx")], ids=str
)
each_looking = pytest.mark.parametrize(
    "tx",
    [
        tx
        for tx in public_transformations()
        if not tx.takes("tx") and tx.function is not dwd.to_float32  # It only widens.
    ],
    ids=str,
)
each_reader = pytest.mark.parametrize(
    "tx", [tx for tx in public_transformations() if tx.takes("mask")], ids=str
)

# Bad values, by what a parameter takes

NOT_A_NUMBER = {
    "a string": "0.1",
    "None": None,
    "a complex number": 1j,
    "a bool": True,
    "a list": [0.1],
    "a vector": np.ones(2),
    "a complex array": jnp.complex64(1),
    "a bool array": jnp.array(True),
    "a bfloat16": jnp.bfloat16(0.5),
    "a float16": np.float16(0.5),
    "a callable": lambda step: 0.1,
}
NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "a nan array": np.float32("nan")}
NEGATIVE = {"negative": -0.1, "a negative array": jnp.float32(-0.1)}
NOT_A_BETA = {**NEGATIVE, "1": 1.0, "above 1": 1.5}
NOT_AN_INTEGER = {"a float": 2.0, "a float array": jnp.float32(2)}
NOT_POSITIVE = {"0": 0, "negative": -1, "a negative array": jnp.int32(-1), "above int32": 2**31}
NOT_A_BOOL = {"a string": "yes", "a number": 1, "None": None, "an array": jnp.array(True)}
NOT_A_DTYPE = {
    "an integer dtype": "int32",
    "no name": "bfloat",
    "a number": 3,
    "an array": np.ones(1),
}
NOT_A_TREE = {
    "a bool": True,
    "a bool array": np.array([True]),
    "a string": "0.1",
    "a string array": np.array("0.1"),
    "a callable": lambda params: params,
    "a type": dict,
}
NOT_A_RECORD = {
    "a bool": True,
    "a number": 0.5,
    "a string": "L1",
    "an array": np.ones(2),
    "a callable": lambda seen: True,
    "a function that makes one": dwd.gates.cautious,
}
RECORDS = ("penalty", "gate", "strength")
NOT_AN_OPTION = {"None": None, "a number": 3, "an array": np.ones(2), "a callable": len}

INTEGERS = (
    "batch_size",
    "dataset_size",
    "measure_every",
    "period",
    "period_mult",
    "seed",
    "step_size",
    "warmup",
)
BETAS = ("average", "b1", "b2", "decay", "momentum")


def bad_values(function, name):
    """Description -> (value, error) for one parameter."""
    annotation, accepted = parameters(function)[name].annotation, {}
    if takes(annotation, Number):
        errors = dict.fromkeys(NOT_A_NUMBER, TypeError)
        accepted = numbers_that_are_fine(function, name, annotation)
        if name in INTEGERS:
            values = {**NOT_A_NUMBER, **NOT_AN_INTEGER, **NOT_POSITIVE}
            errors |= dict.fromkeys(NOT_POSITIVE, ValueError)
            errors |= dict.fromkeys(NOT_AN_INTEGER, TypeError)
        else:
            ranged = NOT_A_BETA if name in BETAS else NEGATIVE
            values = {**NOT_A_NUMBER, **NOT_FINITE, **ranged}
            errors |= dict.fromkeys({**NOT_FINITE, **ranged}, ValueError)
        return {k: (v, errors[k]) for k, v in values.items() if k not in accepted}
    if annotation is bool:
        return {k: (v, TypeError) for k, v in NOT_A_BOOL.items()}
    if options(annotation):
        wrong = {k: (v, TypeError) for k, v in NOT_AN_OPTION.items()}
        if type(None) in typing.get_args(annotation):
            del wrong["None"]
        return wrong | {"a word": ("nonsense", ValueError)}
    if name in RECORDS:
        return {k: (v, TypeError) for k, v in NOT_A_RECORD.items()}
    if name == "toward":
        words = {"a string": ("0.1", ValueError)}
        return {k: (v, TypeError) for k, v in NOT_A_TREE.items()} | words
    if name.endswith("_dtype"):
        return {k: (v, TypeError) for k, v in NOT_A_DTYPE.items()}
    return {}


def takes(annotation, kind):
    return set(typing.get_args(kind)) <= set(typing.get_args(annotation))


def numbers_that_are_fine(function, name, annotation):
    fine = set()
    if type(None) in typing.get_args(annotation):
        fine.add("None")
    if takes(annotation, NumberOrSchedule):
        fine.add("a callable")
    if name in ("seed", "warmup"):
        fine.add("0")
    if function is dwd.scale_by_schedule:
        fine |= set(NEGATIVE)
    if function is dwd.suggest:  # Tokens, in powers of ten.
        fine |= {*NOT_AN_INTEGER, "above int32"}
    return fine


GOOD = {
    **ARGUMENTS, "params": small_params(), "epochs": 2, "gamma": 0.5, "mode": "exp_range",
    "half_life": 8, "timescale": 8, "decay": 0.5, "delta": 0.5, "p": 1.5, "penalty": dwd.L1,
}  # fmt: skip
FIXED = {
    "cyclical_schedule": ("gamma", "mode"),
    "extend_with_decoupled_weight_decay": ("coupling", "learning_rate"),
}
"""Optional arguments that must be given for the others to be looked at."""


def good_arguments(name, function):
    given = {"coupling": "learning_rate"} if name.startswith("extend") else {}
    return given | {
        parameter: GOOD[parameter]
        for parameter, p in parameters(function).items()
        if parameter in GOOD
        and (p.default is p.empty or parameter in ("weight_decay", *FIXED.get(name, ())))
    }


CHECKED = {
    name: function
    for name, function in public_functions().items()
    # `convert` and `like` have other libraries' arguments: see tests/test_conventions.py. A sharding
    # has no numbers: see tests/test_sharding.py.
    if name not in ("applied_weight_decay", "caught_up", "convert", "informed_chain", "like")
    and name != "optimizer_state_sharding"
    and parameters(function)
}
TABLE = [
    pytest.param(name, parameter, id=f"{name}-{parameter}")
    for name, function in CHECKED.items()
    for parameter in parameters(function)
    if bad_values(function, parameter)
]


@pytest.mark.parametrize("name", CHECKED)
def test_the_good_arguments_are_good(name):
    CHECKED[name](**good_arguments(name, CHECKED[name]))


def test_the_table_reaches_the_arguments():
    assert len(TABLE) > 100
    assert {row.values[0] for row in TABLE} == set(CHECKED)


def refusal(function, arguments):
    """The error that a call raises, or None."""
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        return error
    return None


@pytest.mark.parametrize(("name", "parameter"), TABLE)
def test_bad_values_are_refused_at_construction_by_name(name, parameter):
    function = CHECKED[name]
    wrong = {}
    for kind, (value, expected) in bad_values(function, parameter).items():
        error = refusal(function, good_arguments(name, function) | {parameter: value})
        if type(error) is not expected or f"`{parameter}`" not in str(error):
            wrong[kind] = error
    assert not wrong


def rows(**table):
    return pytest.mark.parametrize(
        ("make", "error", "says"), table.values(), ids=[key.replace("_", " ") for key in table]
    )


@rows(
    beta=(lambda: dwd.adamw(0.1, b1=1.0), ValueError, "`b1` is 1.0, and less than 1 is needed"),
    option=(
        lambda: dwd.adamw(0.1, coupling="learningrate"), ValueError,
        "`coupling` is 'learningrate'.*Did you mean 'learning_rate'",
    ),
    scheduled_rate=(
        lambda: dwd.adamw(lambda step: 0.1), TypeError,
        "`learning_rate` is a callable.*learning_rate=peak, schedule=multiplier",
    ),
    scheduled_rate_corrected=(
        lambda: dwd.sgdw(lambda step: 0.1, coupling="corrected"), TypeError,
        "`learning_rate` is a callable.*learning_rate=peak, schedule=multiplier",
    ),
    rate_that_may_be_no_callable=(
        lambda: dwd.adamw("1e-3"), TypeError, r"`learning_rate` is '1e-3'.*Pass a number\.$",
    ),
    rate_that_may_be_a_callable=(
        lambda: dwd.adamw("1e-3", coupling="none"), TypeError, r"or a callable of the step\.$",
    ),
    no_rate=(lambda: dwd.adamw(None), TypeError, "`learning_rate` is None"),
    range_upside_down=(
        lambda: dwd.cosine_warm_restarts_schedule(2, eta_min=2.0), ValueError,
        r"`eta_min` is 2\.0 and `eta_max` is 1\.0.*not be above",
    ),
    cyclical_range_upside_down=(
        lambda: dwd.cyclical_schedule(2, eta_min=2.0), ValueError, "`eta_min` is 2.*not be above",
    ),
    vector_elsewhere=(
        lambda: dwd.half_life(np.ones(3)), TypeError, "`weight_decay` has shape.*makes this call",
    ),
    nesterov_without_momentum=(
        lambda: dwd.sgdw(0.1, None, True), ValueError, "`momentum` is None.*`nesterov`",
    ),
    dtype_without_momentum=(
        lambda: dwd.sgd_l2(0.1, None, accumulator_dtype="float32"), ValueError,
        "`momentum` is None.*`accumulator_dtype`",
    ),
    gamma_missing=(
        lambda: dwd.cyclical_schedule(2, mode="exp_range"), ValueError, "`gamma` is None.*needs",
    ),
    gamma_out_of_place=(
        lambda: dwd.cyclical_schedule(2, gamma=0.9), ValueError, "`gamma` is 0.9.*use none",
    ),
    gamma_zero=(
        lambda: dwd.cyclical_schedule(2, mode="exp_range", gamma=0.0), ValueError, "`gamma`",
    ),
    gamma_above_one=(
        lambda: dwd.cyclical_schedule(2, mode="exp_range", gamma=1.001), ValueError, "`gamma`",
    ),
    no_epochs=(
        lambda: dwd.normalized_weight_decay(0.1, 1, 4, 0), ValueError, "`epochs` is 0",
    ),
    vector=(
        lambda: dwd.adamw(np.ones(3)), TypeError, r"`learning_rate` has shape \(3,\).*jax.vmap",
    ),
    injected_dtype=(
        lambda: optax.inject_hyperparams(dwd.adamw)(0.1, mu_dtype=jnp.bfloat16).init(jnp.ones(1)),
        TypeError, "`mu_dtype` arrived as an array.*mu_dtype='bfloat16'",
    ),
    a_step_in_epochs=(
        lambda: dwd.cosine_warm_restarts_schedule(2)(0.5), TypeError, "step is 0.5.*integer",
    ),
    another_step_in_epochs=(
        lambda: dwd.cyclical_schedule(2)(jnp.float32(1)), TypeError, "integer is needed",
    ),
    one_of_the_steps_above_int32=(
        lambda: dwd.cosine_warm_restarts_schedule(2)(np.array([0, 2**32])), ValueError,
        "at most 2147483647 is needed",
    ),
    a_state_without_decay=(
        lambda: dwd.applied_weight_decay(optax.adam(0.1).init(jnp.ones(1))), ValueError,
        "`state` holds no DecoupledWeightDecayState",
    ),
    no_state=(lambda: dwd.applied_weight_decay(None), ValueError, "`state` holds no"),
)  # fmt: skip
def test_an_error_says_what_to_do(make, error, says):
    with pytest.raises(error, match=says):
        make()


# What only `update` can know


def test_a_range_that_the_peaks_grow_into_is_fine():
    dwd.cosine_warm_restarts_schedule(2, eta_min=2.0, peak_decay=3.0)
    jax.eval_shape(lambda low: dwd.cyclical_schedule(2, eta_min=low)(0), 2.0)


def state_and_params(tx):
    params = small_params()
    return tx().init(params), params


@each_reader
def test_update_without_params_is_refused(tx):
    state, params = state_and_params(tx)
    with pytest.raises(ValueError, match=r"`params` is None.*update\(updates, state, params\)"):
        tx().update(params, state)


MISMATCHED = {
    "a missing key": {"kernel": small_params()["kernel"]},
    "another key": small_params() | {"more": jnp.ones(1)},
    "another kind of tree": list(small_params().values()),
    "a shape that broadcasts": small_params() | {"bias": jnp.ones(1)},
    "a missing leaf": small_params() | {"bias": None},
}
each_mismatch = pytest.mark.parametrize("other", MISMATCHED.values(), ids=MISMATCHED)


@each_reader
@each_mismatch
def test_params_that_are_not_those_of_the_updates_are_refused(tx, other):
    state, params = state_and_params(tx)
    with pytest.raises(ValueError, match="`params`"):
        tx().update(params, state, other)


MOMENTS = [
    tx
    for tx in public_transformations()
    if not tx.takes("tx") and any(x.ndim for x in jax.tree.leaves(tx().init(small_params())))
]


@pytest.mark.parametrize("tx", MOMENTS, ids=str)
@each_mismatch
def test_a_state_that_is_not_that_of_the_updates_is_refused(tx, other):
    params = small_params()
    state = tx().init(other)
    if tx.takes("neuron_axis") and jax.tree.map(jnp.ndim, other) == jax.tree.map(jnp.ndim, params):
        return  # One norm a leaf tells nothing of its shape.
    with pytest.raises(ValueError, match=r"`(updates|mu|nu|trace|pending|params|norm)`"):
        tx().update(params, state, params)


@pytest.mark.parametrize("tx", MOMENTS, ids=str)
def test_gradients_of_another_shape_are_refused_by_what_the_user_holds(tx):
    state, params = state_and_params(tx)
    other = params | {"bias": jnp.ones(4)}
    # Before the moments the penalty looks at the parameters, as does what keeps norms.
    looks = str(tx).endswith("_l2") or tx.takes("neuron_axis")
    says = "`params` at 'bias'" if looks else "`init` made for other parameters"
    with pytest.raises(ValueError, match=says):
        tx().update(other, state, params)


def test_gradients_of_another_structure_are_told_in_one_sentence_each():
    tx, params = dwd.scale_by_adam(), small_params()
    with pytest.raises(ValueError, match="`mu` has 'bias', which `updates` do not have") as error:
        tx.update({"kernel": params["kernel"]}, tx.init(params))
    assert ".." not in str(error.value)


def test_a_bare_array_has_no_empty_path():
    tx = dwd.adamw(0.1)
    with pytest.raises(TypeError, match=r"`updates` \(a bare array\) have dtype int32"):
        tx.update(jnp.arange(3), tx.init(jnp.ones(3)), jnp.ones(3))


@each_looking
def test_state_and_params_in_each_others_place_are_refused(tx):
    state, params = state_and_params(tx)
    # Before either, Optax's chain counts the members of what it takes for its state.
    says = r"`state` holds a .*update\(updates, state, params\)|number of updates and states"
    with pytest.raises((TypeError, ValueError), match=says):
        tx().update(params, params, state)


def test_a_state_of_another_class_with_the_same_fields_is_fine():
    tx, params = dwd.scale_by_adam(), small_params()
    state = tx.init(params)
    updates, _ = tx.update(params, types.SimpleNamespace(**state._asdict()))
    chex.assert_trees_all_equal(updates, tx.update(params, state)[0])


@each_looking
def test_integer_updates_are_refused(tx):
    state, params = state_and_params(tx)
    integers = jax.tree.map(lambda x: x.astype(int), params)
    with pytest.raises(TypeError, match=r"`updates` at 'bias' have dtype int32.*optax\.masked"):
        tx().update(integers, state, params)


@each_reader
def test_a_schedule_that_returns_16_bits_is_refused(tx):
    if not tx.takes("weight_decay"):
        return
    with pytest.raises(TypeError, match="`weight_decay` is bfloat16"):
        tx(weight_decay=lambda step: jnp.bfloat16(0.001)).init(small_params())


REAL = {"bias": small_params("complex64")["bias"], "kernel": small_params()["kernel"]}
"""A tree with one real leaf, the kernel."""


@pytest.mark.parametrize(
    ("tx", "dtype"),
    [
        pytest.param(tx, name, id=f"{tx}-{name}")
        for tx in public_transformations()
        for name in parameters(tx.function)
        if name.endswith("_dtype")
    ],
)
def test_a_complex_moment_of_a_real_leaf_is_refused_at_init(tx, dtype):
    beside = {"momentum": 0.9} if tx.takes("momentum") else {}
    built = tx(**beside, **{dtype: "complex64"})
    says = f"`{dtype}` is complex64, and the parameters at 'kernel' are float32.*{dtype}=None"
    with pytest.raises(TypeError, match=says):
        built.init(REAL)
    built.init(small_params("complex64"))


@each_reader
def test_real_updates_of_complex_params_are_refused(tx):
    params = small_params()
    built = tx()
    with pytest.raises(
        TypeError, match="`params` at 'bias' have dtype complex64, and the updates there float32"
    ):
        built.update(params, built.init(params), REAL)


@pytest.mark.parametrize("decay", [dwd.decoupled_weight_decay, dwd.add_l2_to_grad])
def test_a_complex_anchor_of_real_params_is_refused(decay):
    tx, params = decay(0.5, toward=REAL), small_params()
    with pytest.raises(TypeError, match="`toward` at 'bias' have dtype complex64"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("decay", [dwd.decoupled_weight_decay, dwd.add_l2_to_grad])
def test_complex_updates_of_real_params_stay_whole(decay):
    tx, params = decay(0.5), jnp.array([4.0])
    updates, _ = tx.update(jnp.array([1 + 1j]), tx.init(params), params)
    chex.assert_trees_all_equal(updates, jnp.array([3 + 1j]))


# What schedules return

SCHEDULED = [
    pytest.param(tx, name, id=f"{tx}-{name}")
    for tx in public_transformations()
    for name, parameter in parameters(tx.function).items()
    if takes(parameter.annotation, NumberOrSchedule) and tx.function is not dwd.scale_by_schedule
]
each_scheduled = pytest.mark.parametrize(("tx", "name"), SCHEDULED)


def one_update(tx, name, schedule):
    """Updates under a schedule, in a place of the chain that takes one."""
    coupling = {"coupling": "learning_rate"} if tx.takes("coupling") else {}
    needed = {"learning_rate": 0.01} if tx.takes("tx") else {}
    built, params = tx(**{**coupling, **needed, name: schedule}), small_params()
    return built.update(params, built.init(params), params)[0]


def test_introspection_finds_the_scheduled_arguments():
    assert {row.values[1] for row in SCHEDULED} == {"weight_decay", "schedule", "learning_rate"}
    assert len(SCHEDULED) >= 15


@each_scheduled
def test_a_schedule_that_returns_a_negative_number_is_refused_by_name(tx, name):
    with pytest.raises(ValueError, match=rf"`{name}` returned -0\.25, and .* 0 or more"):
        one_update(tx, name, lambda step: -0.25 * (step + 1))


@each_scheduled
def test_what_a_schedule_returns_is_not_known_under_jit(tx, name):
    jax.jit(lambda: one_update(tx, name, lambda step: -0.25 * (step + 1)))()


@each_scheduled
def test_a_schedule_that_falls_to_zero_is_fine(tx, name):
    one_update(tx, name, lambda step: 0.001 * step)


@each_scheduled
@pytest.mark.parametrize("value", [1j, jnp.complex64(1)], ids=["Python", "array"])
def test_a_schedule_that_returns_a_complex_number_is_refused_by_name(tx, name, value):
    with pytest.raises(TypeError, match=f"`{name}` returned .*complex.*a real scalar"):
        one_update(tx, name, lambda step: value)


OF_STEPS = {
    "cosine": dwd.cosine_warm_restarts_schedule(3, 2, eta_min=0.25),
    "warm-up": dwd.cosine_warm_restarts_schedule(3, warmup=2),
    "normalized": dwd.normalized_weight_decay_schedule(
        0.1, batch_size=1, dataset_size=3, period=1, period_mult=2
    ),
    "triangular2": dwd.cyclical_schedule(3, mode="triangular2", eta_min=0.25),
    "exp_range": dwd.cyclical_schedule(3, mode="exp_range", gamma=0.5),
    "log-time": dwd.log_time_weight_decay_schedule(0.5, 3),
}
each_of_steps = pytest.mark.parametrize("schedule", OF_STEPS.values(), ids=OF_STEPS)


@each_of_steps
def test_before_the_first_step_a_schedule_is_what_it_is_there(schedule):
    before = np.array([-1, -2, -3, -7, -(2**31)], np.int32)
    first = np.full(5, schedule(0))
    chex.assert_trees_all_equal(np.asarray(schedule(before)), first)
    chex.assert_trees_all_equal(np.asarray(jax.jit(schedule)(before)), first)


@each_of_steps
def test_a_schedule_may_come_second_in_join_schedules(schedule):
    joined = optax.join_schedules([optax.constant_schedule(0.5), schedule], [5])
    expected = [np.float32(0.5)] * 5 + [schedule(step) for step in range(5)]
    chex.assert_trees_all_equal(np.stack([joined(step) for step in range(10)]), np.stack(expected))


@each_of_steps
@pytest.mark.parametrize(
    "step", [2**31, np.uint32(2**31 + 1), np.int64(2**32), jnp.uint32(2**31 + 1)], ids=repr
)
def test_a_step_above_int32_is_refused_or_in_64_bits_right(schedule, step):
    with pytest.raises(ValueError, match=f"step is {step}, and at most 2147483647 is needed"):
        schedule(step)
    with jax.enable_x64(True):
        wide = schedule(np.int64(step))
        for way in (schedule, jax.jit(schedule)):
            chex.assert_trees_all_equal(way(step), wide)
        with pytest.raises(ValueError, match=r"at most 9223372036854775807 is needed.*in int64"):
            schedule(np.uint64(2**63))


def test_a_multiplier_alone_may_turn_the_sign():
    updates, _ = (tx := dwd.scale_by_schedule(lambda step: -2.0)).update(
        jnp.ones(1), tx.init(jnp.ones(1))
    )
    chex.assert_trees_all_equal(updates, jnp.array([-2.0]))


# Decay that is too large

PER_STEP = {
    "schedule": lambda decay, alpha: decay,
    "learning_rate": lambda decay, alpha: decay * alpha,
    "none": lambda decay, alpha: decay,
    "corrected": lambda decay, alpha: decay * alpha,
}
OTHER = {
    "schedule": ("coupling='learning_rate'", lambda decay, alpha: decay * alpha),
    "learning_rate": ("coupling='schedule'", lambda decay, alpha: decay / alpha),
    "none": ("coupling='learning_rate'", lambda decay, alpha: decay * alpha),
    "corrected": ("coupling='schedule'", lambda decay, alpha: decay / alpha),
}
COUPLED = [
    tx
    for tx in public_transformations()
    if tx.takes("coupling") and tx.takes("weight_decay") and not tx.takes("tx")
]
each_coupled = pytest.mark.parametrize("tx", COUPLED, ids=str)
each_coupling = pytest.mark.parametrize("coupling", PER_STEP)


def test_introspection_finds_the_coupled_optimizers():
    assert len(COUPLED) >= 4


@each_coupled
@each_coupling
@pytest.mark.parametrize("removed", [0.5, 0.01])
@pytest.mark.parametrize("alpha", [0.125, 8.0])
def test_a_large_decay_is_a_warning_that_gives_the_number_of_the_convention_that_removes_less(
    tx, coupling, removed, alpha
):
    decay = removed / PER_STEP[coupling](1, alpha)
    option, number = OTHER[coupling]
    advice = f"{option}, or weight_decay={number(decay, alpha):g} with this coupling"
    if number(decay, alpha) > decay:
        advice = f"schedule. Below weight_decay={decay * 0.005 / removed:g} .* less than 0.5%"
    says = f"`weight_decay` is {decay:g}.*coupling={coupling!r} removes {removed:.2%}.*{advice}"
    with pytest.warns(UserWarning, match=says) as record:
        tx(learning_rate=alpha, weight_decay=decay, coupling=coupling)
    assert len(record) == 1


@each_coupled
@each_coupling
def test_the_two_ways_out_that_the_warning_gives_are_one(tx, coupling):
    alpha, decay, params = 0.125, 2**-4, jnp.ones(1)
    option, number = OTHER[coupling]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = tx(learning_rate=alpha, weight_decay=number(decay, alpha), coupling=coupling)
        there = tx(learning_rate=alpha, weight_decay=decay, coupling=option.split("'")[1])
    one, _ = here.update(0 * params, here.init(params), params)
    other, _ = there.update(0 * params, there.init(params), params)
    chex.assert_trees_all_equal(one, other)


@each_coupled
@each_coupling
@pytest.mark.parametrize("removed", [1.0, 1.5])
def test_a_decay_of_a_whole_weight_is_an_error(tx, coupling, removed):
    alpha = 0.125
    decay = removed / PER_STEP[coupling](1, alpha)
    with pytest.raises(ValueError, match=f"`weight_decay` is {decay:g}.*removes {removed:.2%}"):
        tx(learning_rate=alpha, weight_decay=decay, coupling=coupling)


@each_coupled
@each_coupling
def test_a_small_decay_is_silent(tx, coupling):
    tx(
        learning_rate=0.125,
        weight_decay=0.0049 / PER_STEP[coupling](1, 0.125),
        coupling=coupling,
    )


@each_coupled
def test_a_number_in_place_of_a_schedule_counts(tx):
    tx(weight_decay=0.008, schedule=0.5)
    with pytest.warns(UserWarning, match=r"removes 0\.80%"):
        tx(weight_decay=0.004, schedule=2.0)


@each_coupled
def test_what_is_not_known_is_not_warned_of(tx):
    tx(weight_decay=lambda step: 2.0)
    tx(learning_rate=lambda step: 1e-3, weight_decay=0.5, coupling="learning_rate")
    jax.eval_shape(lambda decay: tx(weight_decay=decay).init(jnp.ones(1)), 2.0)


@pytest.mark.parametrize("make", [dwd.adamwr, dwd.sgdwr])
@pytest.mark.parametrize(("decay", "expected"), [(0.02, UserWarning), (4.0, ValueError)])
def test_the_normalized_decay_is_the_one_that_is_named(make, decay, expected):
    build = functools.partial(make, 0.1, decay, batch_size=1, dataset_size=4, period=1)
    if expected is UserWarning:
        with pytest.warns(UserWarning, match="`normalized_weight_decay`"):
            build()
    else:
        with pytest.raises(ValueError, match="`normalized_weight_decay`"):
            build()


@pytest.mark.parametrize("make", [dwd.adamwr, dwd.sgdwr])
def test_a_short_cycle_is_the_reason_of_a_large_normalized_decay(make):
    says = r"removes 0\.89%.*root of the 7\.813 steps.*batch_size, dataset_size and period"
    with pytest.warns(UserWarning, match=says) as record:
        make(1e-3, 0.025, batch_size=128, dataset_size=1000, period=1)
    assert "learning_rate" not in str(record[0].message)


LARGE = {
    "adamw": lambda: dwd.adamw(0.1, weight_decay=0.01),
    "amsgradw": lambda: dwd.amsgradw(0.1, weight_decay=0.01),
    "lionw": lambda: dwd.lionw(0.1, weight_decay=0.01),
    "sgdw": lambda: dwd.sgdw(0.1, weight_decay=0.01),
    "sgdw-buffer": lambda: dwd.sgdw(0.1, weight_decay=0.01, learning_rate_in_buffer=False),
    "adamwr": lambda: dwd.adamwr(0.1, 0.02, batch_size=1, dataset_size=4, period=1),
    "sgdwr": lambda: dwd.sgdwr(0.1, 0.02, batch_size=1, dataset_size=4, period=1),
    "extend": lambda: dwd.extend_with_decoupled_weight_decay(optax.adam(0.1), 0.01),
    "injected": lambda: optax.inject_hyperparams(dwd.adamw, "weight_decay")(
        0.1, weight_decay=0.01
    ).init(jnp.ones(1)),
}


@pytest.mark.parametrize("build", LARGE.values(), ids=LARGE)
def test_the_warning_points_once_at_the_line_that_builds(build):
    with pytest.warns(UserWarning, match="of every decayed weight") as record:
        build()
    assert [warning.filename for warning in record] == [__file__]
    assert record[0].lineno in {line for *_, line in build.__code__.co_lines()}


ONLY_MU = "^`mu` will((?!nu).)* Pass mu_dtype='float32' to((?!nu).)*$"
NARROW_MOMENTS = {
    "mu": (functools.partial(dwd.adamw, nu_dtype="float32"), ONLY_MU),
    "nu": (
        functools.partial(dwd.adamw, mu_dtype="float32"),
        "^`nu` will.*`nu` stays.* Pass nu_dtype='",
    ),
    "both": (dwd.amsgradw, "^`mu` and `nu` .*`nu` stays .*mu_dtype='float32' and nu_dtype="),
    "lionw": (dwd.lionw, ONLY_MU),
}


@pytest.mark.parametrize(("make", "says"), NARROW_MOMENTS.values(), ids=NARROW_MOMENTS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_narrow_moments_are_warned_of_by_name_at_the_line_that_initializes(make, says, compiled):
    init = optax.chain(optax.clip(1.0), make(0.1, weight_decay=0.0)).init
    with pytest.warns(UserWarning, match=says) as record:
        (jax.jit(init) if compiled else init)(jnp.ones(1, "bfloat16"))
    assert [warning.filename for warning in record] == [__file__]


def test_extend_warns_and_refuses_as_the_optimizers_do():
    extend = functools.partial(dwd.extend_with_decoupled_weight_decay, optax.adam(0.1))
    with pytest.warns(UserWarning, match=r"removes 1\.00%.*coupling='learning_rate'"):
        extend(0.01)
    with pytest.raises(ValueError, match=r"removes 100\.00%"):
        extend(1.0)
    extend(0.01, coupling="learning_rate", learning_rate=0.1)
