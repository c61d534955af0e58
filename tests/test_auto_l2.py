"""AutoL2: when the coefficient drops, against a transcription of the authors' code."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import decoupled_wd as dwd
from tests.reference import autol2
from tests.tolerances import RELATIVE

THETA = jnp.array([2.0, -1.0])


def losses(steps):
    """Falls, stalls, falls and stalls again, with ripples; in eighths, exact in float32."""
    t = np.arange(steps)
    stairs = 64 - 8 * np.minimum(t // 40, 3) - np.minimum(t % 40, 20) / 4
    return np.round(8 * (stairs + np.cos(t))) / 8


def applied(tx, values):
    """The coefficient of every step, in one scan."""

    def step(state, value):
        _, state = tx.update(THETA, state, THETA, value=value)
        return state, dwd.applied_weight_decay(state)

    return jax.lax.scan(step, tx.init(THETA), jnp.asarray(values, jnp.float32))[1]


def test_a_loss_that_stalls_drops_the_coefficient_in_the_third_measurement():
    found = applied(dwd.add_auto_l2_to_grad(measure_every=1), [1.0, 1.0, 1.0, 1.0])
    chex.assert_trees_all_close(found, np.float32([0.1, 0.1, 0.01, 0.01]), rtol=RELATIVE["float32"])


@pytest.mark.parametrize("last_two", [[3.0, 1.0], [1.0, 3.0], [1.0, 1.0]])
def test_one_measurement_of_two_below_the_best_is_enough_to_go_on(last_two):
    found = applied(dwd.add_auto_l2_to_grad(measure_every=1), [2.0, *last_two])
    chex.assert_trees_all_equal(found, np.full(3, np.float32(0.1)))


def test_two_measurements_are_too_few_even_of_an_infinite_loss():
    tx = dwd.add_auto_l2_to_grad(measure_every=1, refractory=0.0)
    found = applied(tx, [np.inf] * 3)
    chex.assert_trees_all_close(found, np.float32([0.1, 0.1, 0.01]), rtol=RELATIVE["float32"])


def test_only_steps_of_measurements_count():
    values = np.where(np.arange(40) % 10 == 0, 40 - np.arange(40), 1000.0)
    found = applied(dwd.add_auto_l2_to_grad(), values)
    chex.assert_trees_all_equal(found, np.full(40, np.float32(0.1)))


def test_after_a_drop_the_coefficient_rests_for_a_tenth_of_its_inverse():
    drops = np.flatnonzero(np.diff(applied(dwd.add_auto_l2_to_grad(measure_every=1), [1.0] * 1200)))
    # Steps 2, then more than 10, 100 and 1000 steps later; `diff` counts from one before.
    chex.assert_trees_all_equal(drops + 1, np.array([2, 13, 114, 1115]))


@pytest.mark.parametrize("measure_every", [1, 3, 10])
@pytest.mark.parametrize("delay", [0.01, 0.1])
def test_the_coefficients_are_those_of_the_authors_code(measure_every, delay):
    values = losses(600)
    expected = autol2.coefficients(values, measure_every, delay=delay)
    assert len(np.unique(expected)) >= 3
    tx = dwd.add_auto_l2_to_grad(measure_every=measure_every, refractory=delay)
    chex.assert_trees_all_close(
        applied(tx, values), expected.astype(np.float32), rtol=RELATIVE["float32"]
    )


def quadratic(theta):
    """Its optimum is where the runs start, so that any penalty makes the loss worse."""
    value = 0.5 * np.array([1.0, 0.25]) @ (theta - 1) ** 2
    return value, np.array([1.0, 0.25]) * (theta - 1)


def test_a_run_in_float64_is_the_transcription():
    steps, alpha = 200, 0.1
    expected = autol2.sgd(quadratic, np.ones(2), alpha, steps, 2, initial=0.5)
    with jax.enable_x64(True):
        tx = optax.chain(
            dwd.add_auto_l2_to_grad(0.5, measure_every=2), optax.scale(alpha), optax.scale(-1.0)
        )
        theta = jnp.ones(2)

        def step(carry, _):
            theta, state = carry
            scale = jnp.array([1.0, 0.25])
            value = 0.5 * scale @ (theta - 1) ** 2
            updates, state = tx.update(scale * (theta - 1), state, theta, value=value)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), (theta, state[0].drops)

        path, drops = jax.jit(
            lambda: jax.lax.scan(step, (theta, tx.init(theta)), length=steps)[1]
        )()
    assert drops[-1] >= 2
    chex.assert_trees_all_close(path, expected, rtol=RELATIVE["reference"])


def test_traced_numbers_share_one_compilation():
    values = jnp.asarray(losses(100), jnp.float32)

    def final(weight_decay, measure_every, refractory):
        tx = dwd.add_auto_l2_to_grad(
            weight_decay, measure_every=measure_every, refractory=refractory
        )
        return applied(tx, values)[-1]

    grid = jnp.array([0.1, 0.2]), jnp.array([1, 5]), jnp.array([0.1, 0.01])
    batched = jax.jit(jax.vmap(final))(*grid)
    expected = [
        autol2.coefficients(losses(100), n, initial=lam, delay=delay)[-1]
        for lam, n, delay in [(0.1, 1, 0.1), (0.2, 5, 0.01)]
    ]
    chex.assert_trees_all_close(batched, np.float32(expected), rtol=RELATIVE["float32"])


def test_a_schedule_gives_the_coefficient_that_is_divided():
    tx = dwd.add_auto_l2_to_grad(lambda step: 0.5 ** (step + 1), measure_every=1)
    found = applied(tx, [1.0] * 3)
    chex.assert_trees_all_close(found, np.float32([0.5, 0.25, 0.0125]), rtol=RELATIVE["float32"])


def test_the_new_coefficient_is_in_the_update_that_finds_it():
    tx = dwd.add_auto_l2_to_grad(0.5, {"a": True, "b": False}, measure_every=1)
    params = {"a": jnp.array(2.0), "b": jnp.array(2.0)}
    state = tx.init(params)
    for expected in (1.0, 1.0, 0.1):
        g, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, value=1.0)
        chex.assert_trees_all_close(
            g, {"a": jnp.float32(expected), "b": jnp.float32(0)}, rtol=RELATIVE["float32"]
        )


@pytest.mark.parametrize(
    ("values", "drop"),
    [([1, 1, np.nan, 1, 1], 3), ([1, np.nan, 2, 2], 3), ([np.nan, 3, np.nan, 1, 2, 2], 5)],
)
def test_a_loss_that_is_not_a_number_is_no_measurement(values, drop):
    found = applied(dwd.add_auto_l2_to_grad(0.5, measure_every=1), values)
    expected = np.where(np.arange(len(values)) < drop, 0.5, 0.05)
    chex.assert_trees_all_close(found, np.float32(expected), rtol=RELATIVE["float32"])


def test_losses_that_are_not_numbers_leave_the_authors_coefficients():
    values = np.where(np.arange(600) % 7 < 3, np.nan, losses(600))
    expected = autol2.coefficients(values, 2, delay=0.01)
    assert len(np.unique(expected)) >= 3
    tx = dwd.add_auto_l2_to_grad(measure_every=2, refractory=0.01)
    chex.assert_trees_all_close(
        applied(tx, values), expected.astype(np.float32), rtol=RELATIVE["float32"]
    )


@pytest.mark.parametrize("k", [2, 3])
def test_under_multi_steps_a_measurement_is_the_loss_of_the_last_micro_batch(k):
    tx = optax.MultiSteps(dwd.add_auto_l2_to_grad(measure_every=2), k)
    real = np.array([2.0, 9.0, 1.0, 9.0, 2.0, 9.0, 3.0, 9.0])  # Odd steps are not measured.
    falling = -np.arange(float(k * real.size))
    values = np.where(np.arange(falling.size) % k == k - 1, np.repeat(real, k), falling)
    micro_steps = applied(tx, values)
    chex.assert_trees_all_close(
        micro_steps[k - 1 :: k], np.float32([0.1] * 6 + [0.01] * 2), rtol=RELATIVE["float32"]
    )


WRAPPED = {
    "chain": lambda tx: optax.chain(tx, optax.sgd(0.1)),
    "masked": lambda tx: optax.masked(tx, {"a": True}),
    "partition": lambda tx: optax.partition({"all": tx}, {"a": "all"}),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 1),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(dwd.add_auto_l2_to_grad)(
        measure_every=1
    ),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_the_loss_reaches_it_through_wrappers(wrap):
    tx = wrap(dwd.add_auto_l2_to_grad(measure_every=1))
    params = {"a": THETA}
    update = jax.jit(functools.partial(tx.update, value=1.0))
    state = tx.init(params)
    for _ in range(3):
        _, state = update(params, state, params)
    chex.assert_trees_all_close(
        dwd.applied_weight_decay(state), jnp.float32(0.01), rtol=RELATIVE["float32"]
    )
    with pytest.raises(ValueError, match=r"`value` is None.*value=loss\)"):
        tx.update(params, state, params)


def test_what_the_error_says_works_in_flax():
    tx, params = optax.chain(dwd.add_auto_l2_to_grad(), optax.sgd(0.1)), {"a": THETA}
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    with pytest.raises(ValueError, match=r"TrainState\.apply_gradients` cannot.*nnx") as error:
        state.apply_gradients(grads=params, value=1.0)
    call = re.search(r"`(tx\.update\(.*?\))`", str(error.value))[1]
    updates, _ = eval(call, {"tx": tx, "grads": params, "state": state, "loss": 1.0})
    chex.assert_trees_all_close(updates, {"a": -0.11 * THETA}, rtol=RELATIVE["float32"])

    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer, grads = nnx.Optimizer(model, tx, wrt=nnx.Param), nnx.state(model, nnx.Param)
    call = re.search(r"`nnx\.Optimizer(\.update\(.*?\))`", str(error.value))[1]
    names = {"optimizer": optimizer, "model": model, "grads": grads}
    eval("optimizer" + call, {**names, "loss": 1.0})
    found = dwd.applied_weight_decay(optimizer.opt_state)
    assert isinstance(found, jax.Array)
    assert found == np.float32(0.1)


def test_a_loss_of_each_example_is_refused():
    tx = dwd.add_auto_l2_to_grad()
    with pytest.raises(ValueError, match=r"`value` has shape \(2,\).*Pass its mean"):
        tx.update(THETA, tx.init(THETA), THETA, value=THETA)
