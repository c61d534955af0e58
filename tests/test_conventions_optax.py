"""Records of Optax's optimizers against Optax itself."""

import functools
import inspect
import operator
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd._like import _OPTAX_ITSELF
from decoupled_wd.conventions import CONVENTIONS
from tests.libraries.harness import GRADIENTS, SCHEDULES, THETA0
from tests.tolerances import RELATIVE

RECORDS = {c.name.removeprefix("optax."): c for c in CONVENTIONS if c.name.startswith("optax.")}
PARTS = {"add_decayed_weights", "scale_by_novograd"}  # No optimizers, so no records.
WITHOUT_DECAY = {"adam", "sgd"}
NOT_HERE = {
    # Masks are `like`'s own argument; dtypes of the state are not carried from library to library.
    "mask", "weight_decay_mask", "trust_ratio_mask", "mu_dtype", "accumulator_dtype", "state_dtype",
    "dtype_momentum",
    "hessian_diagonal_fn",  # An object as default.
    "verbose", "print_win_rate_every_n_steps",
}  # fmt: skip
RATE, DECAY = 0.01, 0.1
MATRIX = (2, 5)
CHANGES = {
    "learning_rate": RATE, "weight_decay": DECAY, "weight_decay_rate": 4e-3, "b1": 0.8, "b2": 0.9,
    "b3": 0.95, "eps_root": 1e-10, "adam_weight_decay": 0.2, "gamma": 0.5, "scale": 0.5,
    "update_proj_gap": 7, "momentum": 0.8, "estim_lr0": 0.1, "base_optimizer": optax.sgd(RATE, 0.9),
}  # fmt: skip
"""What the records' arguments are given; else they have their defaults."""


def alias(name):
    return operator.attrgetter(name)(optax)


def arguments(record, **changes):
    given = {**CHANGES, **changes}
    return {name: given[name] for name in record.arguments if name in given}


def objective(theta):
    return jnp.sum(jnp.cos(theta) * jnp.arange(1, theta.size + 1).reshape(theta.shape))


EXTRA = {
    "contrib.sophia": {"obj_fn": objective},
    "contrib.momo": {"value": 1e6},  # So large that the learning rate bounds the step.
    "contrib.momo_adam": {"value": 1e6},
}
"""What `update` needs beside the parameters."""
NAN_UNDER_WARMUP = ("contrib.dadapt_adamw", "contrib.prodigy")
"""They divide by what a first step of rate 0 leaves 0."""


def paths(*makes, extra):
    """Parameters after every step, of every `make(schedule)`, for all schedules of the harness."""

    def path(make, eta):
        tx = make(lambda step: eta[step])

        def step(carry, gradient):
            theta, state = carry
            updates, state = tx.update(gradient, state, theta, **extra)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), theta

        theta0 = jnp.asarray(THETA0.reshape(MATRIX))
        gradients = jnp.asarray(GRADIENTS.reshape(-1, *MATRIX))
        return jax.lax.scan(step, (theta0, tx.init(theta0)), gradients)[1]

    def all_paths(eta):
        return [path(make, eta) for make in makes]

    return map(np.asarray, jax.jit(jax.vmap(all_paths))(jnp.asarray(list(SCHEDULES.values()))))


def at(name, steps, theta=None, **changes):
    """An alias, its state after some steps, and the parameters there, in float64."""
    tx = alias(name)(**arguments(RECORDS[name], **changes))
    tx = optax.with_extra_args_support(tx)
    theta = jnp.asarray(THETA0.reshape(MATRIX)) if theta is None else theta

    def step(carry, gradient):
        theta, state = carry
        updates, state = tx.update(gradient, state, theta, **EXTRA.get(name, {}))
        return (optax.apply_updates(theta, updates), state), None

    carry = theta, tx.init(theta)
    if steps:
        carry, _ = jax.lax.scan(step, carry, jnp.asarray(GRADIENTS[:steps].reshape(-1, *MATRIX)))
    return tx, carry[1], carry[0]


def test_every_alias_with_weight_decay_has_a_record():
    found = {
        f"{prefix}{name}"
        for prefix, module in (("", optax), ("contrib.", optax.contrib))
        for name, function in inspect.getmembers(module)
        if isinstance(function, (types.FunctionType, functools.partial))  # nadamw is a partial.
        and any("weight_decay" in x for x in inspect.signature(function).parameters)
    }
    assert found - PARTS == set(RECORDS) - WITHOUT_DECAY


@pytest.mark.parametrize("name", RECORDS)
def test_a_records_arguments_and_defaults_are_optaxs(name):
    record, parameters = RECORDS[name], inspect.signature(alias(name)).parameters
    assert {*record.arguments, *record.inert} <= set(parameters)
    assert set(parameters) - {*record.arguments, *record.inert} <= NOT_HERE
    for argument in record.arguments:
        default = parameters[argument].default
        if default is inspect.Parameter.empty or (argument, default) == ("learning_rate", None):
            assert argument not in record.defaults
        else:
            assert record.defaults[argument] == default


@pytest.mark.parametrize("name", sorted(set(RECORDS) - {"contrib.mechanize"}))
def test_like_is_optax(name):
    given = arguments(RECORDS[name])
    rate = given.pop("learning_rate")
    with jax.enable_x64(True):
        ours, theirs = paths(
            lambda eta: dwd.like(f"optax.{name}", learning_rate=rate, schedule=eta, **given),
            lambda eta: alias(name)(learning_rate=lambda step: rate * eta(step), **given),
            extra=EXTRA.get(name, {}),
        )
    finite = {eta: np.all(np.isfinite(path)) for eta, path in zip(SCHEDULES, theirs, strict=True)}
    assert [eta for eta in SCHEDULES if not finite[eta]] == ["warmup"] * (name in NAN_UNDER_WARMUP)
    bound = RELATIVE["reference"] * np.nanmax(np.abs(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


def corrections(t):
    return np.sqrt(1 - 0.999**t) / (1 - 0.9**t)


# d of the state that a step begins with: what is taken off a matrix, at a third of the peak.
ETA = 1 / 3
DECAYS = {
    "adafactor": lambda state: CHANGES["weight_decay_rate"],
    "contrib.muon": lambda state: RATE * ETA * DECAY,
    "contrib.momo": lambda state: RATE * ETA * DECAY / (1 + RATE * ETA * DECAY),
    "contrib.momo_adam": lambda state: RATE * ETA * DECAY / (1 + RATE * ETA * DECAY),
    "contrib.prodigy": lambda s: RATE * ETA * DECAY * s.estim_lr * corrections(s.count + 1),
    "contrib.dadapt_adamw": lambda s: RATE * ETA * DECAY * s.estim_lr * corrections(s.count + 1),
    "novograd": lambda state: RATE * ETA * DECAY,
}


@pytest.mark.parametrize("name", DECAYS)
def test_the_decay_of_a_step_is_what_the_record_says(name):
    with jax.enable_x64(True):
        changes = {"learning_rate": lambda step: RATE * jnp.where(step < 12, 1.0, ETA)}
        tx, state, theta = at(name, 12, **changes)
        word = "weight_decay_rate" if name == "adafactor" else "weight_decay"
        without, _, _ = at(name, 0, **changes, **{word: 0.0})
        g, extra = jnp.asarray(GRADIENTS[12].reshape(MATRIX)), EXTRA.get(name, {})
        both = jax.jit(lambda *now: [t.update(*now, **extra)[0] for t in (tx, without)])
        one, other = both(g, state, theta)
        np.testing.assert_allclose(other - one, DECAYS[name](state) * theta, rtol=1e-9)


COUPLED = [name for name, record in RECORDS.items() if record.form == "coupled"]


@pytest.mark.parametrize("name", COUPLED)
def test_a_penalty_is_a_term_of_the_gradient(name):
    with jax.enable_x64(True):
        tx, state, theta = at(name, 12)
        without, _, _ = at(name, 0, weight_decay=0.0)
        g = jnp.asarray(GRADIENTS[12].reshape(MATRIX))
        one, _ = tx.update(g, state, theta)
        other, _ = without.update(g + DECAY * theta, state, theta)
        chex.assert_trees_all_close(one, other, rtol=RELATIVE["reference"])


def test_lambs_decay_is_inside_the_trust_ratio():
    with jax.enable_x64(True):
        for decay in (1e-3, 10.0):
            tx, state, theta = at("lamb", 0, weight_decay=decay)
            updates, _ = tx.update(jnp.zeros(MATRIX), state, theta)
            np.testing.assert_allclose(updates, -RATE * theta, rtol=RELATIVE["reference"])


def test_muons_decay_of_what_adam_steps_is_an_argument_of_its_own():
    with jax.enable_x64(True):
        tx, state, theta = at("contrib.muon", 0, theta=jnp.asarray(THETA0))
        updates, _ = tx.update(jnp.zeros(THETA0.size), state, theta)
        decay = CHANGES["adam_weight_decay"]
        np.testing.assert_allclose(updates, -RATE * decay * theta, rtol=RELATIVE["reference"])


def test_novograds_momentum_multiplies_the_decay():
    with jax.enable_x64(True):
        tx, state, theta = at("novograd", 0, weight_decay=1e-3)

        def step(carry, _):
            theta, state = carry
            updates, state = tx.update(jnp.zeros(MATRIX), state, theta)
            return (optax.apply_updates(theta, updates), state), None

        (end, _), _ = jax.lax.scan(step, (theta, state), length=1000)
        per_step = -np.log(np.asarray(end / theta)) / 1000
    np.testing.assert_allclose(per_step, RATE * 1e-3 / (1 - CHANGES["b1"]), rtol=0.01)


def test_mechanizes_decay_does_not_reach_the_base_optimizer():
    with jax.enable_x64(True):
        states = [at("contrib.mechanize", 12, weight_decay=w)[1] for w in (0.0, 10.0)]
        chex.assert_trees_all_equal(*(state.base_optimizer_state for state in states))
        assert np.all(states[0].s != states[1].s)


@pytest.mark.parametrize("name", ["contrib.schedule_free_adamw", "contrib.schedule_free_sgd"])
def test_schedule_free_takes_the_decay_of_y_off_z(name):
    with jax.enable_x64(True):
        _, state, theta = at(name, 12)
        z = [
            at(name, 0, weight_decay=w)[0].update(jnp.zeros(MATRIX), state, theta)[1].z
            for w in (DECAY, 0.0)
        ]
        np.testing.assert_allclose(z[1] - z[0], RATE * DECAY * theta, rtol=1e-9)


def test_schedule_frees_averages_see_the_schedule_a_step_ahead():
    """Defect: the weight of the first average is the learning rate of the second step."""
    rates = jnp.array([1.0, 3.0])
    tx = optax.contrib.schedule_free_sgd(lambda step: rates[step])
    theta = jnp.ones(2)
    _, state = tx.update(jnp.ones(2), tx.init(theta), theta)
    np.testing.assert_array_equal(state.z, theta - 1.0)  # The step: rates[0].
    assert state.max_lr == rates[1]


def test_cocobs_learning_rate_cancels():
    with jax.enable_x64(True):
        ends = [at("contrib.cocob", 0, learning_rate=rate, weight_decay=0.0) for rate in (1.0, 7.0)]
        g = jnp.asarray(np.sign(GRADIENTS[0]).reshape(MATRIX))
        one, other = (tx.update(g, state, theta)[0] for tx, state, theta in ends)
        np.testing.assert_allclose(one, other, rtol=RELATIVE["reference"])


def test_a_decay_that_is_not_multiplied_by_the_learning_rate_is_another():
    """The naive reading of `optax.adamw`: w per step."""
    with jax.enable_x64(True):
        given = {"learning_rate": RATE, "weight_decay": 4e-3}
        ours, theirs = paths(
            lambda eta: dwd.adamw(**given, schedule=eta, coupling="none"),
            lambda eta: optax.adamw(lambda step: RATE * eta(step), weight_decay=4e-3),
            extra={},
        )
    assert np.max(np.abs(ours - theirs)) > RELATIVE["separation"]


def test_what_optax_builds_itself_takes_no_mask():
    for name in _OPTAX_ITSELF:
        with pytest.raises(ValueError, match="takes none of this library's masks"):
            dwd.like(name, learning_rate=RATE, mask=True)
