"""Diagnostics against NumPy in float64, hand-worked numbers, and simulated equilibria."""

import functools
import math

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import decoupled_wd as dwd
from decoupled_wd import diagnostics, hyperparams
from tests.helpers import apply, gradients, small_params, take

FLOAT32 = 1e-5
"""Sums of up to ten thousand float32 products, in XLA's order: measured, 1e-6."""
SIMULATED = 0.02
"""Means over 1024 coordinates and 30 to 60 memory lengths: chance alone is 0.5 %."""


def a_step(dtype=np.float32, shape=(100, 100), seed=0):
    """Parameters and an update a hundredth their size, each in float64 too."""
    rng = np.random.default_rng(seed)
    theta, u = rng.normal(size=(2, *shape))
    if np.issubdtype(dtype, np.complexfloating):
        theta, u = theta + 1j * u, u - 1j * theta[::-1]
    theta, u = jnp.asarray(theta, dtype), jnp.asarray(u / 100, dtype)
    wide = np.complex128 if jnp.iscomplexobj(theta) else np.float64
    return theta, u, np.asarray(theta).astype(wide), np.asarray(u).astype(wide)


def real_vector(x):
    x = np.ravel(x)
    return np.concatenate([x.real, x.imag]) if np.iscomplexobj(x) else x


def angle(x, y):
    """The angle of two vectors by the halves of their sum and difference, accurate at any size."""
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return 2 * np.arctan2(np.linalg.norm(x - y), np.linalg.norm(x + y))


# One step


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.complex64, np.float64])
def test_a_step_against_numpy(dtype):
    with jax.enable_x64(dtype == np.float64):
        theta, u, theta64, u64 = a_step(dtype)
        got = diagnostics.scalars({"w": theta}, {"w": u}, weight_decay=0.004)
        x, y = real_vector(theta64), real_vector(u64)
        expected = {
            "norm/w": np.linalg.norm(x),
            "cosine/w": x @ y / np.linalg.norm(x) / np.linalg.norm(y),
            "rotation/w": angle(x, x + y),
            "decay/w": 0.004,
            "decay_to_update/w": 0.004 * np.linalg.norm(x) / np.linalg.norm(y),
            "timescale/w": 250.0,
            "half_life/w": math.log(0.5) / math.log(0.996),
        }
        assert set(got) == set(expected)
        rtol = 1e-12 if dtype == np.float64 else FLOAT32
        for name, value in expected.items():
            # A cosine of some 0.01 is a sum of products that nearly cancel.
            atol = rtol if name == "cosine/w" else 0.0
            np.testing.assert_allclose(got[name], value, rtol=rtol, atol=atol, err_msg=name)
            assert got[name].dtype == (np.float64 if dtype == np.float64 else np.float32)
            chex.assert_shape(got[name], ())


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("unit", [1.0, 2.0**-30, 2.0**30])
def test_a_small_angle_keeps_its_digits_in_float32(size, unit):
    theta, u, theta64, u64 = a_step()
    theta64, u64 = theta64.ravel(), u64.ravel()
    size = np.float32(100 * size)
    leaf = diagnostics.leaf_statistics(unit * theta, unit * size * u)[""]
    expected = angle(theta64, theta64 + float(size) * u64)
    np.testing.assert_allclose(diagnostics.rotation(leaf), expected, rtol=FLOAT32)


def test_a_large_angle():
    theta = jnp.array([1.0, 0.0])
    for u, expected in [
        ([-1.0, 1.0], math.pi / 2),
        ([-2.0, 0.0], math.pi),
        ([-2, 1], 3 * math.pi / 4),
    ]:
        leaf = diagnostics.leaf_statistics(theta, jnp.array(u, jnp.float32))[""]
        np.testing.assert_allclose(diagnostics.rotation(leaf), expected, rtol=FLOAT32)


def test_a_parallel_update_turns_by_less_than_rounding():
    theta = a_step()[0]
    leaf = diagnostics.leaf_statistics(theta, -0.01 * theta)[""]
    assert float(diagnostics.rotation(leaf)) <= 1e-3 * 0.01
    np.testing.assert_allclose(diagnostics.cosine(leaf), -1, rtol=FLOAT32)


@pytest.mark.parametrize("theta", [0.0, 1.0])
@pytest.mark.parametrize("u", [0.0, 1.0])
def test_a_leaf_of_zeros_gives_zeros_and_no_nan(theta, u):
    theta, u = jnp.full(3, theta), jnp.full(3, u)
    with jax.debug_nans(True):
        got = diagnostics.scalars(theta, u, weight_decay=0.5)
    if not (theta.any() and u.any()):
        assert (got["cosine"], got["rotation"]) == (0, 0)
    if not u.any():
        assert got["decay_to_update"] == 0


# Effective decay

MASK = {"bias": False, "kernel": True}
HALF = optax.constant_schedule(0.5)
DECAYS = {
    "adamw": (dwd.adamw(0.1, weight_decay=0.004, schedule=HALF), 0.002),
    "adamw per rate": (
        dwd.adamw(0.1, weight_decay=0.01, schedule=HALF, coupling="learning_rate"), 5e-4,
    ),
    "adamw per step": (dwd.adamw(0.1, weight_decay=0.004, schedule=HALF, coupling="none"), 0.004),
    "adamw corrected": (
        dwd.adamw(0.1, weight_decay=0.01, schedule=HALF, coupling="corrected"), 2.5e-4,
    ),
    "sgdw": (dwd.sgdw(0.1, weight_decay=0.004), 0.004),
    "lionw": (dwd.lionw(0.1, weight_decay=0.004), 0.004),
    "extended": (dwd.extend_with_decoupled_weight_decay(optax.rmsprop(0.1), 0.004), 0.004),
    "optax.adamw": (optax.adamw(0.1, weight_decay=0.01), 1e-3),
    "optax.lion": (optax.lion(0.1, weight_decay=0.01), 1e-3),
    "injected": (optax.inject_hyperparams(optax.adamw)(0.1, weight_decay=0.01), 1e-3),
    "sgd_l2": (dwd.sgd_l2(0.1, weight_decay=0.02), 2e-3),
    "without decay": (optax.adam(0.1), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", DECAYS)
def test_effective_decay_is_what_a_weight_without_gradient_loses(name):
    tx, expected = DECAYS[name]
    params = small_params()
    decay = diagnostics.effective_decay(tx, take(gradients(params), 0), tx.init(params), params)
    none = jax.tree.map(jnp.zeros_like, params)
    shrunk, _ = apply(tx, (params, tx.init(params)), none)
    for path, theta in params.items():
        np.testing.assert_allclose(decay[path], expected, rtol=FLOAT32, atol=1e-9)
        np.testing.assert_allclose(shrunk[path], (1 - expected) * theta, rtol=FLOAT32)


def test_effective_decay_sees_the_mask_the_schedule_and_the_state():
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.25})
    tx = dwd.adamw(0.1, weight_decay=0.004, mask=MASK, schedule=schedule)
    params = small_params()
    state, found = tx.init(params), []
    for g in (take(gradients(params), i) for i in range(2)):
        found.append(diagnostics.effective_decay(tx, g, state, params))
        params, state = apply(tx, (params, state), g)
    np.testing.assert_allclose([d["kernel"] for d in found], [0.004, 0.001], rtol=FLOAT32)
    assert [float(d["bias"]) for d in found] == [0, 0]


def test_effective_decay_under_multi_steps_is_zero_between_the_steps():
    tx = optax.MultiSteps(optax.adamw(0.1, weight_decay=0.01), 2)
    params = small_params()
    g, state, found = take(gradients(params), 0), tx.init(params), []
    for _ in range(2):
        found.append(diagnostics.effective_decay(tx, g, state, params)["kernel"])
        _, state = tx.update(g, state, params)
    np.testing.assert_allclose(found, [0, 1e-3], rtol=FLOAT32)


# Equilibrium

RATE, STRONG, COORDINATES = 1e-3, 0.02, 1024
EVERY_STEP = optax.constant_schedule(STRONG)
"""A number of this size would be warned of: it is strong so that a balance is reached soon."""
PREDICTED = {
    "adamw": (
        dwd.adamw(RATE, weight_decay=EVERY_STEP),
        lambda leaf: diagnostics.adamw_equilibrium(leaf.weight_decay, RATE, leaf.size),
    ),
    "adamw without momentum": (
        dwd.adamw(RATE, 0.0, weight_decay=EVERY_STEP),
        lambda leaf: diagnostics.adamw_equilibrium(leaf.weight_decay, RATE, leaf.size, 0.0),
    ),
    "sgdw": (
        dwd.sgdw(RATE, weight_decay=EVERY_STEP),
        lambda leaf: diagnostics.sgdw_equilibrium(leaf.weight_decay, RATE, leaf.squared_gradient),
    ),
    "lionw": (
        dwd.lionw(RATE, weight_decay=EVERY_STEP),
        lambda leaf: diagnostics.lionw_equilibrium(leaf.weight_decay, RATE, leaf.size),
    ),
    "signum": (
        dwd.lionw(RATE, 0.9, 0.9, weight_decay=EVERY_STEP),
        lambda leaf: diagnostics.lionw_equilibrium(leaf.weight_decay, RATE, leaf.size, 0.9, 0.9),
    ),
    "signs": (
        dwd.lionw(RATE, 0.0, weight_decay=EVERY_STEP),
        lambda leaf: diagnostics.lionw_equilibrium(leaf.weight_decay, RATE, leaf.size, 0.0),
    ),
}


def random_walk(name, steps=2000):
    """Diagnostics of noise on a scale-invariant loss: g stands on theta, and is as long as 1/|theta|."""
    tx, equilibrium = PREDICTED[name]
    key = jax.random.key(0)

    def step(carry, index):
        theta, state = carry
        g = jax.random.normal(jax.random.fold_in(key, index), theta.shape)
        length = jnp.linalg.norm(theta)
        g = (g - theta * jnp.vdot(theta, g) / length**2) / length
        u, new = tx.update(g, state, theta)
        log = diagnostics.scalars(theta, u, weight_decay=STRONG, grads=g, equilibrium=equilibrium)
        return (theta + u, new), log

    # SGDW's norm falls with the fourth root of time from above: start it near.
    length = 0.5 if name == "sgdw" else 0.2
    theta = jax.random.normal(key, (COORDINATES,)) * length / math.sqrt(COORDINATES)
    _, log = jax.jit(lambda: jax.lax.scan(step, (theta, tx.init(theta)), jnp.arange(steps)))()
    return {path: np.asarray(x[steps // 2 :], np.float64) for path, x in log.items()}


@pytest.mark.parametrize("name", PREDICTED)
def test_a_scale_invariant_leaf_settles_where_predicted(name):
    log = random_walk(name)
    for quantity in ("rotation", "norm"):
        measured, predicted = (
            np.sqrt(np.mean(log[key] ** 2)) for key in (quantity, f"{quantity}_equilibrium")
        )
        np.testing.assert_allclose(measured, predicted, rtol=SIMULATED, err_msg=quantity)


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_equilibria_tend_to_the_forms_of_the_literature(b1):
    lam, a, size, squared_gradient = 1e-7, 0.002, 50, 4.0
    adam = diagnostics.adamw_equilibrium(lam, a, size, b1)
    sgd = diagnostics.sgdw_equilibrium(lam, a, squared_gradient, b1)
    turn = math.sqrt(2 * lam * (1 - b1) / (1 + b1))
    norms = [
        a * math.sqrt(size / (2 * lam)),
        a / (1 - b1) * math.sqrt(squared_gradient / (2 * lam)),
    ]
    for got, norm in zip((adam, sgd), norms, strict=True):
        np.testing.assert_allclose(got, (turn, norm), rtol=1e-4)


def test_the_form_for_lion_in_the_literature_lacks_a_part_of_the_sign():
    lam, v = 1e-7, 0.01 + 0.81 * 0.01 / 1.99
    default = diagnostics.lionw_equilibrium(lam, 1.0, 1)
    np.testing.assert_allclose(default.rotation, math.sqrt(math.pi * lam * v), rtol=0.01)
    without = diagnostics.lionw_equilibrium(lam, 1.0, 1, b1=0.0)
    np.testing.assert_allclose(without.rotation, math.sqrt(2 * lam), rtol=1e-4)
    assert math.sqrt(math.pi * lam) / without.rotation > 1.25


def test_lions_persistence_is_the_sum_of_its_arcsines():
    b1, b2, lam = 0.9, 0.95, 0.003
    impulse = np.concatenate([[1 - b1], b1 * (1 - b2) * b2 ** np.arange(2000)])
    lags = np.array([impulse[k:] @ impulse[: len(impulse) - k] for k in range(1, 1500)])
    signs = 2 / np.pi * np.arcsin(lags / (impulse @ impulse))
    persistence = 1 + 2 * np.sum((1 - lam) ** np.arange(1, 1500) * signs)
    got = diagnostics.lionw_equilibrium(lam, 1.0, 1, b1, b2).norm
    np.testing.assert_allclose(got, math.sqrt(persistence / (lam * (2 - lam))), rtol=1e-3)


def test_without_decay_there_is_no_equilibrium():
    for got in (
        diagnostics.adamw_equilibrium(0.0, 0.1, 1),
        diagnostics.sgdw_equilibrium(0.0, 0.1, 1.0),
        diagnostics.lionw_equilibrium(0.0, 0.1, 1),
    ):
        assert (float(got.rotation), float(got.norm)) == (0, math.inf)


# Noise


def test_gradient_variance_against_numpy():
    rng = np.random.default_rng(0)
    # Noise a thousandth of the gradient: a difference of squares would lose it.
    grads = {
        "w": np.float32(1 + 1e-3 * rng.normal(size=(5, 3, 4))),
        "b": np.float32(rng.normal(size=(5,))),
        "none": None,
    }
    expected = sum(
        np.var(g.astype(np.float64), axis=0, ddof=1).sum() for g in (grads["w"], grads["b"])
    )
    np.testing.assert_allclose(diagnostics.gradient_variance(grads), expected, rtol=FLOAT32)
    quiet = diagnostics.gradient_variance({"w": grads["w"]})
    expected = np.var(grads["w"].astype(np.float64), axis=0, ddof=1).sum()
    np.testing.assert_allclose(quiet, expected, rtol=1e-3)  # 2**-24 of 1 in noise of 1e-3.


def test_the_two_constants_against_least_squares_however_the_points_arrive():
    rng = np.random.default_rng(0)
    losses = np.float32(rng.uniform(1, 3, 20))
    variances = np.float32(5 + 2 * losses + rng.normal(size=20))
    slope, intercept = np.polyfit(np.float64(losses), np.float64(variances), 1)
    at_once = diagnostics.fit_noise(losses, variances)
    in_two = diagnostics.fit_noise(
        losses[7:], variances[7:], diagnostics.fit_noise(losses[:7], variances[:7])
    )

    def step(fit, point):
        fit = diagnostics.fit_noise(*point, fit)
        return fit, (fit.slope, fit.intercept)

    one_by_one, over_time = jax.lax.scan(
        step, diagnostics.fit_noise([], []), (jnp.asarray(losses), jnp.asarray(variances))
    )
    for fit in (at_once, in_two, one_by_one):
        np.testing.assert_allclose(fit.slope, slope, rtol=FLOAT32)
        np.testing.assert_allclose(fit.intercept, intercept, rtol=FLOAT32)
        assert fit.count == 20
    # One point is no line: a horizontal one through it.
    assert over_time[0][0] == 0
    np.testing.assert_allclose(over_time[1][0], variances[0], rtol=FLOAT32)


def test_noise_of_a_quadratic_is_within_the_theorem():
    """f_i = h_i x^2 / 2 with h in {1, 3}: f = x^2, variance 2 x^2, and 2 L = 6."""
    h = jnp.array([1.0, 3.0])

    def microbatch(x, h):
        return h * x**2 / 2

    fit = diagnostics.fit_noise([], [])
    for x in (0.5, 1.0, 2.0):
        losses, grads = jax.vmap(jax.value_and_grad(microbatch), (None, 0))(x, h)
        fit = diagnostics.fit_noise(losses.mean(), diagnostics.gradient_variance(grads), fit)
    np.testing.assert_allclose(fit.slope, 2, rtol=FLOAT32)
    np.testing.assert_allclose(fit.intercept, 0, atol=1e-5)
    assert fit.slope <= 2 * h.max()


# AMSGrad's quantity


def two_states(tx, gs=(4.0, 0.0)):
    theta = {"w": jnp.array([1.0, 1.0])}
    states = [tx.init(theta)]
    for g in gs:
        # The second coordinate's gradient does not fall.
        _, state = tx.update({"w": jnp.array([g, 4.0])}, states[-1], theta)
        states.append(state)
    return tuple(states[-2:])


def test_gamma_by_hand():
    """v = (8, 8), then (4, 12); with rates 1/2 and 1/4, Gamma = 4 sqrt(v') - 2 sqrt(v)."""
    states = two_states(dwd.scale_by_adam(b2=0.5))
    gamma = diagnostics.amsgrad_gamma(states, (0.5, 0.25))["w"]
    values = 4 * np.sqrt([4, 12]) - 2 * np.sqrt([8, 8])
    np.testing.assert_allclose(gamma.mean, values.mean(), rtol=FLOAT32)
    np.testing.assert_allclose(gamma.minimum, values.min(), rtol=FLOAT32)
    gamma = diagnostics.amsgrad_gamma(states, (0.5, 0.5))["w"]
    values = 2 * np.sqrt([4, 12]) - 2 * np.sqrt([8, 8])
    np.testing.assert_allclose(gamma, [values.mean(), values.min(), 0.5], rtol=FLOAT32)


def test_gamma_with_bias_correction():
    """v / (1 - b2^t) = (16, 16), then (4, 12) / (3/4)."""
    states = two_states(dwd.scale_by_adam(b2=0.5))
    gamma = diagnostics.amsgrad_gamma(states, (1.0, 1.0), b2=0.5)["w"]
    values = np.sqrt([16 / 3, 16]) - 4
    np.testing.assert_allclose(gamma.minimum, values.min(), rtol=FLOAT32)
    np.testing.assert_allclose(gamma.mean, values.mean(), rtol=1e-4)


@pytest.mark.parametrize("variant", ["paper", "pytorch", "optax"])
def test_gamma_of_amsgrad_is_never_negative_at_a_constant_rate(variant):
    tx = dwd.amsgradw(0.1, b2=0.5, variant=variant)
    gs = np.random.default_rng(0).normal(size=6)
    for n in range(2, 7):
        gamma = diagnostics.amsgrad_gamma(two_states(tx, gs[:n]), (0.1, 0.1))["w"]
        assert gamma.negative == 0
        assert gamma.minimum >= 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(optax.clip(1e9), tx),
        lambda tx: optax.masked(tx, {"w": True}),
        lambda tx: optax.partition({"a": tx, "b": optax.adam(0.1)}, {"w": "a"}),
        lambda tx: optax.apply_if_finite(tx, 1),
    ],
)
def test_gamma_is_found_in_chains_and_wrappers(wrap):
    plain = dwd.adamw(0.1, b2=0.5)
    expected = diagnostics.amsgrad_gamma(two_states(plain), (0.1, 0.1))
    got = diagnostics.amsgrad_gamma(two_states(wrap(plain)), (0.1, 0.1))
    chex.assert_trees_all_equal(got, expected)


# All of it


def everything(params, dtype=jnp.float32):
    """A step with all diagnostics: (params, state, fit), index -> the next, scalars."""
    tx = dwd.adamw(0.01, b2=0.9, weight_decay=0.004, mask=dict.fromkeys(params, True))

    def step(carry, g):
        params, state, fit = carry
        decay = diagnostics.effective_decay(tx, g, state, params)
        updates, new = tx.update(g, state, params)
        variance = diagnostics.gradient_variance(jax.tree.map(lambda x: jnp.stack([x, 2 * x]), g))
        fit = diagnostics.fit_noise(optax.tree.norm(params).astype(dtype), variance, fit)
        log = diagnostics.scalars(
            params, updates, weight_decay=decay, grads=g, steps_per_epoch=4,
            equilibrium=lambda leaf: diagnostics.adamw_equilibrium(
                leaf.weight_decay, 0.01, leaf.size
            ),
            states=(state, new), learning_rates=(0.01, 0.01), b2=0.9,
            gradient_variance=variance, noise=fit,
        )  # fmt: skip
        return (optax.apply_updates(params, updates), new, fit), log

    return step, (params, tx.init(params), diagnostics.fit_noise([], []))


OF_A_LEAF = {
    "norm", "cosine", "rotation", "decay", "decay_to_update", "timescale", "half_life",
    "timescale_epochs", "half_life_epochs", "norm_equilibrium", "rotation_equilibrium",
    "gamma_mean", "gamma_minimum", "gamma_negative",
}  # fmt: skip
OF_ALL = {"noise_variance", "noise_intercept", "noise_slope"}


def test_names():
    step, carry = everything(small_params())
    _, log = step(carry, take(gradients(small_params()), 0))
    expected = {f"{name}/{path}" for name in OF_A_LEAF for path in ("bias", "kernel")} | OF_ALL
    assert set(log) == expected
    np.testing.assert_allclose(log["timescale_epochs/bias"], 1 / 0.004 / 4, rtol=FLOAT32)
    np.testing.assert_allclose(
        log["half_life_epochs/bias"], hyperparams.half_life(0.004, 4), rtol=FLOAT32
    )


def test_a_bare_array_has_no_path():
    log = diagnostics.scalars(jnp.ones(2), jnp.ones(2))
    assert set(log) == {"norm", "cosine", "rotation"}


def test_nested_paths():
    params = {"layer": [{"w": jnp.ones(2)}, {"w": jnp.ones(3)}]}
    assert set(diagnostics.leaf_statistics(params, params)) == {"layer/0/w", "layer/1/w"}


def test_scan_jit_and_vmap_agree_with_eager():
    params = small_params()
    step, start = everything(params)
    given, carry, eager = gradients(params), start, []
    for index in range(3):
        carry, log = step(carry, take(given, index))
        eager.append(log)
    eager = jax.tree.map(lambda *x: jnp.stack(x), *eager)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), start)
    runs = jax.jit(jax.vmap(lambda start: jax.lax.scan(step, start, given)[1]))(both)
    # `jit` contracts and reorders, and Gamma and the fit's slope come from differences.
    chex.assert_trees_all_close(take(runs, 1), eager, rtol=1e-3, atol=1e-5)
    chex.assert_trees_all_equal_dtypes(runs, eager)


def test_a_scan_in_float64_gives_float64():
    with jax.enable_x64(True):
        params = small_params("float64")
        step, start = everything(params, "float64")
        log = jax.eval_shape(lambda: jax.lax.scan(step, start, gradients(params))[1])
        assert {x.dtype.name for x in log.values()} == {"float64"}
        assert {x.shape for x in log.values()} == {(3,)}


def test_nnx_state_and_equinox_modules():
    tx = dwd.adamw(0.1, weight_decay=0.004)
    linear = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
    module = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    for params, paths in ((linear, {"bias", "kernel"}), (module, {"bias", "weight"})):
        ones = jax.tree.map(jnp.ones_like, params)
        state = tx.init(params)
        decay = diagnostics.effective_decay(tx, ones, state, ones)
        updates, _ = tx.update(ones, state, params)
        got = diagnostics.leaf_statistics(params, updates, weight_decay=decay)
        assert set(got) == paths
        np.testing.assert_allclose([x.weight_decay for x in got.values()], 0.004, rtol=FLOAT32)


def test_leaves_that_are_absent_frozen_or_no_floats_are_passed_over():
    node = optax.MaskedNode()
    params = {"w": jnp.ones(2), "none": None, "masked": node, "frozen": jnp.ones(2), "count": 3}
    updates = {"w": jnp.ones(2), "none": None, "masked": node, "frozen": None, "count": None}
    for decay in (0.1, {**updates, "w": 0.1}, {**params, "w": 0.1, "frozen": 0.2, "count": 0.1}):
        got = diagnostics.scalars(params, updates, weight_decay=decay)
        assert {name.partition("/")[2] for name in got} == {"w"}
        np.testing.assert_allclose(got["decay/w"], 0.1)


def test_effective_decay_keeps_absent_leaves():
    tx = optax.chain(optax.scale(-1.0), dwd.decoupled_weight_decay(0.1), optax.scale(-1.0))
    params = {"w": jnp.ones(2), "none": None, "masked": optax.MaskedNode(), "count": jnp.int32(3)}
    grads = {**params, "count": None}
    decay = diagnostics.effective_decay(tx, grads, tx.init(params), params)
    np.testing.assert_allclose(decay["w"], 0.1, rtol=FLOAT32)
    assert (decay["none"], decay["masked"], decay["count"]) == (None, optax.MaskedNode(), None)
    assert set(diagnostics.leaf_statistics(params, grads, weight_decay=decay)) == {"w"}


def test_a_prefix_of_decays():
    params = {"a": {"x": jnp.ones(2), "y": jnp.ones(2)}, "b": jnp.ones(2)}
    got = diagnostics.leaf_statistics(params, params, weight_decay={"a": 0.25, "b": 0.5})
    decays = {path: float(leaf.weight_decay) for path, leaf in got.items()}
    assert decays == {"a/x": 0.25, "a/y": 0.25, "b": 0.5}


def test_what_decays_rotates_and_noise_does_run_under_strict_promotion():
    params = small_params()
    step, carry = everything(params)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.jit(step)(carry, take(gradients(params), 0))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params = {"w": jnp.ones(2, jnp.float32), "v": jnp.ones(2, jnp.float64)}
        decay, state = jnp.float32(0.1), dwd.scale_by_adam().init(params)

        def all_but_the_optimizer():
            diagnostics.scalars(params, params, weight_decay=decay, steps_per_epoch=3)
            diagnostics.gradient_variance(params)
            diagnostics.amsgrad_gamma((state, state), (np.float32(0.1), 0.1), b2=0.9)

        jax.eval_shape(all_but_the_optimizer)


def test_a_diverged_run_is_logged_and_no_error():
    theta = jnp.array([jnp.nan])
    got = diagnostics.scalars(
        theta,
        theta,
        weight_decay=jnp.float32(jnp.nan),
        grads=theta,
        equilibrium=lambda leaf: diagnostics.sgdw_equilibrium(
            leaf.weight_decay, 0.1, leaf.squared_gradient
        ),
    )
    assert all(np.isnan(x) for x in got.values())


@pytest.mark.skipif(
    jax.__version_info__ < (0, 10, 2), reason="JAX 0.10.0's CPU compiler stores the products"
)
def test_no_array_of_a_leafs_size_is_made():
    theta = jax.ShapeDtypeStruct((1 << 16,), jnp.float32)
    program = jax.jit(functools.partial(diagnostics.scalars, weight_decay=0.1)).lower(theta, theta)
    memory = program.compile().memory_analysis()
    assert memory.temp_size_in_bytes < theta.size


# Hyperparameters


def test_timescale_and_half_life():
    assert float(hyperparams.timescale(0.0)) == float(hyperparams.half_life(0)) == math.inf
    np.testing.assert_allclose(hyperparams.timescale(1e-4, 50), 200, rtol=1e-6)
    np.testing.assert_allclose(0.99 ** float(hyperparams.half_life(0.01)), 0.5, rtol=1e-6)
    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(hyperparams.timescale)(rates), [10, 5], rtol=1e-6)


# Errors

THETA = {"w": jnp.ones(2), "b": jnp.ones(1)}
BARE = jnp.ones(2)
STATE = optax.adam(0.1).init(THETA)
TWICE = optax.chain(optax.scale_by_adam(), optax.scale_by_rms()).init(THETA)
RMS = optax.scale_by_rms().init(THETA)
STATISTICS = diagnostics.leaf_statistics(BARE, BARE)[""]

BAD = {
    "no params": (lambda: diagnostics.scalars(None, BARE), ValueError, "`params` is None"),
    "params of text": (lambda: diagnostics.scalars("theta", BARE), TypeError, "`params` is 'theta'"),
    "other updates": (
        lambda: diagnostics.scalars(THETA, {"w": BARE}), ValueError, "`updates` and `params`",
    ),
    "other shapes": (
        lambda: diagnostics.scalars(THETA, {"w": BARE, "b": BARE}), ValueError, "`updates` at 'b'",
    ),
    "other gradients": (
        lambda: diagnostics.scalars(THETA, THETA, grads=BARE), ValueError, "`grads` and `params`",
    ),
    "decay of text": (
        lambda: diagnostics.scalars(BARE, BARE, weight_decay="0.1"), TypeError,
        "`weight_decay` (a bare array) is '0.1'",
    ),
    "negative decay": (
        lambda: diagnostics.scalars(THETA, THETA, weight_decay={"w": -0.1, "b": 0.1}), ValueError,
        "`weight_decay` at 'w' is -0.1",
    ),
    "decay of 16 bits": (
        lambda: diagnostics.scalars(BARE, BARE, weight_decay=jnp.bfloat16(0.1)), TypeError,
        "`weight_decay` (a bare array) is bfloat16",
    ),
    "decay of another tree": (
        lambda: diagnostics.scalars(THETA, THETA, weight_decay={"x": 0.1}), ValueError,
        "`weight_decay` must be a number, or a tree",
    ),
    "two leaves of a path": (
        lambda: diagnostics.scalars(*2 * ({"a/b": BARE, "a": {"b": BARE}},)), ValueError,
        "`params` has two leaves of the path 'a/b'",
    ),
    "ratio without decay": (
        lambda: diagnostics.decay_to_update(STATISTICS), ValueError, "pass `weight_decay`",
    ),
    "sgdw without gradients": (
        lambda: diagnostics.scalars(
            BARE, BARE, weight_decay=0.1,
            equilibrium=lambda leaf: diagnostics.sgdw_equilibrium(
                leaf.weight_decay, 0.1, leaf.squared_gradient
            ),
        ), TypeError, "`squared_gradient` is None",
    ),
    "adamw without decay": (
        lambda: diagnostics.scalars(
            BARE, BARE,
            equilibrium=lambda leaf: diagnostics.adamw_equilibrium(leaf.weight_decay, 0.1, 2),
        ), TypeError, "`weight_decay` is None",
    ),
    "rate": (
        lambda: diagnostics.adamw_equilibrium(0.1, -1.0, 2), ValueError, "`learning_rate` is -1.0",
    ),
    "size": (lambda: diagnostics.lionw_equilibrium(0.1, 0.1, 2.5), TypeError, "`size` is 2.5"),
    "b1": (lambda: diagnostics.adamw_equilibrium(0.1, 0.1, 2, 1.0), ValueError, "`b1` is 1.0"),
    "b2": (
        lambda: diagnostics.lionw_equilibrium(0.1, 0.1, 2, 0.9, 1.0), ValueError, "`b2` is 1.0",
    ),
    "momentum": (
        lambda: diagnostics.sgdw_equilibrium(0.1, 0.1, 2.0, 1.0), ValueError, "`momentum` is 1.0",
    ),
    "one microbatch": (
        lambda: diagnostics.gradient_variance({"w": jnp.ones((1, 2))}), ValueError,
        "`grads` at 'w' has 1 microbatches",
    ),
    "uneven microbatches": (
        lambda: diagnostics.gradient_variance({"w": jnp.ones(2), "v": jnp.ones(3)}), ValueError,
        "`grads` at 'w' has 2 microbatches",
    ),
    "no microbatches": (
        lambda: diagnostics.gradient_variance({}), ValueError, "`grads` has no leaves",
    ),
    "uneven points": (
        lambda: diagnostics.fit_noise([1.0, 2.0], [1.0]), ValueError, "`variances` has shape (1,)",
    ),
    "points of text": (
        lambda: diagnostics.fit_noise("one", 1.0), TypeError, "`losses` is 'one'",
    ),
    "one state": (
        lambda: diagnostics.amsgrad_gamma(3, (0.1, 0.1)), TypeError, "`states` is 3",
    ),
    "states without nu": (
        lambda: diagnostics.amsgrad_gamma(2 * (optax.sgd(0.1).init(THETA),), (0.1, 0.1)),
        ValueError, "`states` hold no second moment",
    ),
    "states with two nu": (
        lambda: diagnostics.amsgrad_gamma((TWICE, TWICE), (0.1, 0.1)), ValueError,
        "`states` hold two second moments for",
    ),
    "two optimizers": (
        lambda: diagnostics.amsgrad_gamma((STATE, optax.adam(0.1).init(BARE)), (0.1, 0.1)),
        ValueError, "`states` are of two different",
    ),
    "a count that is not there": (
        lambda: diagnostics.amsgrad_gamma((RMS, RMS), (0.1, 0.1), b2=0.9), ValueError,
        "`b2` is given, and ScaleByRmsState has no count",
    ),
    "one rate": (
        lambda: diagnostics.amsgrad_gamma((STATE, STATE), 0.1), TypeError,
        "`learning_rates` is 0.1",
    ),
    "a rate of 0": (
        lambda: diagnostics.amsgrad_gamma((STATE, STATE), (0.0, 0.1)), ValueError,
        "`learning_rates[0]` is 0",
    ),
    "states alone": (
        lambda: diagnostics.scalars(THETA, THETA, states=(STATE, STATE)), ValueError,
        "`states` is given and `learning_rates` is not",
    ),
    "rates alone": (
        lambda: diagnostics.scalars(THETA, THETA, learning_rates=(0.1, 0.1)), ValueError,
        "`learning_rates` is given and `states` is not",
    ),
    "epochs alone": (
        lambda: diagnostics.scalars(THETA, THETA, steps_per_epoch=3), ValueError,
        "`steps_per_epoch` is given and `weight_decay` is not",
    ),
    "an epoch of 0 steps": (
        lambda: diagnostics.scalars(THETA, THETA, weight_decay=0.1, steps_per_epoch=0), ValueError,
        "`steps_per_epoch` is 0",
    ),
    "half-life of 1": (lambda: hyperparams.half_life(1.0), ValueError, "`weight_decay` is 1.0"),
    "timescale of no epoch": (
        lambda: hyperparams.timescale(0.1, 0), ValueError, "`steps_per_epoch` is 0",
    ),
}  # fmt: skip


def test_state_and_params_in_each_others_place_are_named():
    tx, params = dwd.adamw(0.1), small_params()
    with pytest.raises(ValueError, match=r"`state` is a tree like the gradients.*in this order"):
        diagnostics.effective_decay(tx, params, params, tx.init(params))


def test_the_rounding_of_a_decay_that_cancels_is_0():
    # Adam's first step is the sign of the gradient, whatever the penalty adds to it.
    params = {"w": jnp.array([1.0, -0.3, 0.7])}
    grads = {"w": jnp.array([0.1, 0.37, -0.9])}
    for eps in (0.0, 1e-8):
        tx = dwd.adam_l2(1e-3, weight_decay=1e-2, eps=eps)
        assert diagnostics.effective_decay(tx, grads, tx.init(params), params)["w"] == 0


@pytest.mark.parametrize("decay", [1e-4, 1e-10, 1e-20])
def test_a_small_decay_of_a_small_update_is_no_rounding(decay):
    tx, params = dwd.sgdw(decay, None, weight_decay=decay), {"w": jnp.array([1.0, -0.5])}
    found = diagnostics.effective_decay(tx, params, tx.init(params), params)["w"]
    np.testing.assert_allclose(found, decay, rtol=1e-6)


@pytest.mark.parametrize(("name", "low"), [("timescale", 100), ("decay", 400)])
def test_a_plot_of_what_is_constant_shows_no_rounding(name, low):
    plots = pytest.importorskip("decoupled_wd.plots")
    values = np.float32([692.8, 692.8001, 692.7999])
    axes = plots.quantity({f"{name}/w": values}, name)
    bottom, top = axes.get_ylim()
    plots.plt.close(axes.figure)
    assert bottom < low < 1000 < top


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, kind, said = BAD[case]
    with pytest.raises(kind) as error:
        call()
    message = str(error.value)
    assert said in message
    assert message.endswith(".") or "differ" in message or "it is not:" in message
