"""Decay over time: schedules of `weight_decay`, independent of the learning rate's."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from tests.helpers import ARGUMENTS, apply, gradients, public_transformations, small_params, take
from tests.reference import schedules as reference
from tests.tolerances import RELATIVE

STEPS = 50
T = np.arange(STEPS)
# A power of two, as is the length of the linear schedule: Optax computes that in float32 under x64 too.
PEAK, ALPHA = 2.0**-8, 0.25
RESTARTS = [
    (length, eta)
    for _, _, length, eta in itertools.islice(reference.cosine_warm_restarts(8, 2), STEPS)
]

SCHEDULES = {
    "constant": (optax.constant_schedule(PEAK), np.full(STEPS, PEAK)),
    "linear": (optax.linear_schedule(PEAK, 0.0, 32), PEAK * np.maximum(1 - T / 32, 0)),
    "cosine": (
        optax.cosine_decay_schedule(PEAK, STEPS),
        PEAK * (0.5 + 0.5 * np.cos(np.pi * T / STEPS)),
    ),
    "warm restarts": (
        dwd.cosine_warm_restarts_schedule(8, 2, eta_max=PEAK),
        PEAK * np.array([eta for _, eta in RESTARTS]),
    ),
    "normalized": (
        dwd.normalized_weight_decay_schedule(
            PEAK, batch_size=2, dataset_size=8, period=2, period_mult=2
        ),
        [reference.normalized_weight_decay(PEAK, 2, 8, length / 4) for length, _ in RESTARTS],
    ),
    "log-time": (dwd.log_time_weight_decay_schedule(PEAK, 7), PEAK / (1 + T / 7)),
}
"""As they are passed, and counted in NumPy."""

ETA = 1 / (1 + 0.1 * T)
PER_STEP = {
    "schedule": ETA,
    "learning_rate": ALPHA * ETA,
    "none": np.ones(STEPS),
    "corrected": ALPHA * ETA**2,
}
"""Decay of a step over lambda_t."""
OF_ITS_PLACE = {**dict.fromkeys(PER_STEP, np.ones(STEPS)), "corrected": ETA}
"""Decay in the unit of its place over lambda_t."""


def eta(step):
    return 1 / (1 + 0.1 * step)


def trajectory(tx, params):
    """What decay adds to each step's updates, as a part of the parameters, and the rate logged."""
    plain = optax.chain(dwd.scale_by_adam(), optax.scale_by_schedule(lambda t: -ALPHA * eta(t)))

    def step(carry, gradient):
        params, state, plain_state = carry
        updates, state = tx.update(gradient, state, params)
        without, plain_state = plain.update(gradient, plain_state, params)
        removed = (without - updates) / params
        rate = dwd.applied_weight_decay(state)
        return (optax.apply_updates(params, updates), state, plain_state), (removed, rate)

    start = (params, tx.init(params), plain.init(params))
    return jax.lax.scan(step, start, gradients(params, STEPS))[1]


@pytest.mark.parametrize("coupling", PER_STEP)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_removes_the_schedules_value_times_what_its_place_is_multiplied_by(name, coupling):
    schedule, lam = SCHEDULES[name]
    with jax.enable_x64(True):
        tx = dwd.adamw(ALPHA, weight_decay=schedule, schedule=eta, coupling=coupling)
        params = 64 * jnp.sign(small_params("float64")["bias"])
        removed, rates = jax.jit(functools.partial(trajectory, tx))(params)
    expected = lam * PER_STEP[coupling]
    atol = RELATIVE["reference"] * np.max(expected)
    for entry in np.asarray(removed).T:
        np.testing.assert_allclose(entry, expected, rtol=0, atol=atol)
    logged = np.float32(lam * OF_ITS_PLACE[coupling])
    np.testing.assert_allclose(rates, logged, rtol=2.0**-23)  # rounded once


@pytest.mark.parametrize("coupling", PER_STEP)
def test_the_first_update_sees_the_schedule_at_zero(coupling):
    tx = dwd.adamw(0.5, weight_decay=lambda t: 2.0**-8 * (t == 0), coupling=coupling)
    params, state = jnp.ones(()), tx.init(jnp.ones(()))
    per_step = 2.0**-8 * (0.5 if coupling in ("learning_rate", "corrected") else 1)
    for expected in (1 - per_step, 1 - per_step):
        params, state = apply(tx, (params, state), jnp.zeros(()))
        assert float(params) == expected


# AdamC


def adamc(params, gradients, learning_rates, weight_decay, b1=0.9, b2=0.999, eps=1e-8):
    """Defazio 2025, arXiv 2506.02285: decay a_t^2 lambda / alpha, alpha the largest of a_t."""
    m, v = np.zeros_like(params), np.zeros_like(params)
    for t, (g, a) in enumerate(zip(gradients, learning_rates, strict=True), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        params = params - a * u - a**2 / max(learning_rates) * weight_decay * params
    return params


def test_corrected_decay_is_that_of_adamc():
    with jax.enable_x64(True):
        start = small_params("float64")
        tx = dwd.adamw(ALPHA, weight_decay=0.01, schedule=eta, coupling="corrected")
        carry, given = (start, tx.init(start)), gradients(start, STEPS)
        step = jax.jit(functools.partial(apply, tx))
        for t in range(STEPS):
            carry = step(carry, take(given, t))
    for name, x in start.items():
        expected = adamc(np.asarray(x), np.asarray(given[name]), ALPHA * ETA, 0.01)
        scale = RELATIVE["reference"] * np.max(np.abs(expected))
        np.testing.assert_allclose(carry[0][name], expected, rtol=0, atol=scale)


# Log-time decay


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_log_time_decay_is_its_formula_however_it_is_called(x64):
    lam, tau = 0.1, 12.5
    with jax.enable_x64(x64):
        schedule = dwd.log_time_weight_decay_schedule(lam, tau)

        def traced(lam, tau, step):
            return dwd.log_time_weight_decay_schedule(lam, tau)(step)

        expected = lam / (1 + T / tau)
        values = schedule(T)
        assert values.dtype == ("float64" if x64 else "float32")
        eps = 4 * float(jnp.finfo(values.dtype).eps)
        np.testing.assert_allclose(values, expected, rtol=eps)
        np.testing.assert_allclose(jax.jit(traced)(lam, tau, T), expected, rtol=eps)
        over_times = jax.vmap(traced, (None, 0, None))(lam, jnp.array([1.0, tau]), T[-1])
        np.testing.assert_allclose(over_times, [lam / STEPS, expected[-1]], rtol=eps)


def test_log_time_decay_forgets_as_much_from_each_octave_to_the_next():
    lam, tau = 1e-3, 100
    with jax.enable_x64(True):
        values = np.asarray(dwd.log_time_weight_decay_schedule(lam, tau)(np.arange(2**18)))
    octaves = [values[2**k : 2 ** (k + 1)].sum() for k in (15, 16, 17)]
    np.testing.assert_allclose(octaves, lam * tau * np.log(2), rtol=tau / 2**15)


# A constant and a constant schedule

DECAY = ARGUMENTS["weight_decay"]
DECAYING = [tx for tx in public_transformations() if tx.takes("weight_decay")]


def test_introspection_finds_what_decays():
    assert len(DECAYING) >= 10


def pairs(tx):
    """With a constant and with a constant schedule, as they are and injected."""
    for way in (lambda function: function, optax.inject_hyperparams):
        build = functools.partial(way(tx.function), **tx.arguments)
        yield [build(weight_decay=x) for x in (DECAY, optax.constant_schedule(DECAY))]


def two_steps(tx, params, step):
    carry = (params, tx.init(params))
    for gradient in gradients(params, 2):
        carry = step(tx, carry, gradient)
    return carry[0], dwd.applied_weight_decay(carry[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tx", DECAYING, ids=str)
@pytest.mark.parametrize("step", [apply, jax.jit(apply, static_argnums=0)], ids=["eager", "jit"])
def test_a_constant_is_a_constant_schedule_to_the_last_bit(tx, dtype, step):
    with jax.enable_x64(dtype == "float64"):
        params = small_params(dtype)["kernel"]
        for pair in pairs(tx):
            number, schedule = (two_steps(built, params, step) for built in pair)
            chex.assert_trees_all_equal(number, schedule)
            chex.assert_trees_all_equal(np.asarray(number[1]), np.float32(DECAY))
