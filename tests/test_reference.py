"""Every optimizer against its NumPy float64 transcription, over 300 steps and four schedules."""

import itertools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from tests.reference import schedules
from tests.reference.algorithm_1_sgdw import sgd, sgd_rate_outside_the_buffer
from tests.reference.algorithm_2_adamw import adam
from tests.reference.amsgrad import amsgrad
from tests.reference.lion import lion
from tests.tolerances import FLOAT32_ULPS, RELATIVE

STEPS, D = 300, 6
ALPHA, LAM = 0.01, 0.002
RNG = np.random.default_rng(7)
X = RNG.normal(size=(STEPS, 4, D))
Y = (X @ RNG.normal(size=D)) + 0.3 * RNG.normal(size=(STEPS, 4))
THETA0 = RNG.normal(size=D)
GIVEN = np.float32(RNG.choice([-1, 1], (STEPS, D)) * RNG.uniform(0.5, 1.5, (STEPS, D)))

T = np.arange(STEPS)
SCHEDULES = {
    "constant": np.ones(STEPS),
    "cosine": 0.5 + 0.5 * np.cos(np.pi * T / STEPS),
    "restart": np.array(
        [eta for *_, eta in itertools.islice(schedules.cosine_warm_restarts(20, 2), STEPS)]
    ),
    "random": RNG.uniform(0.5, 1.5, STEPS),
}
# Lambda in the unit of each coupling -> the paper's, per step at multiplier 1.
PAPER_LAMBDA = {
    "schedule": lambda lam, alpha, eta: lam,
    "learning_rate": lambda lam, alpha, eta: alpha * lam,
    "none": lambda lam, alpha, eta: lam / np.maximum(eta, 1e-300),
    "corrected": lambda lam, alpha, eta: alpha * eta * lam,
}


def at(values):
    """A schedule from its values."""
    return lambda count: jnp.asarray(values)[count]


def closed_loop(t, theta):
    return np.tanh(X[t] @ theta - Y[t]) @ X[t] / 4


def open_loop(t, theta):
    del theta
    return np.float64(GIVEN[t])


def run(tx, dtype, closed=True):
    """The parameters after every step, in `dtype`."""
    theta0 = jnp.asarray(THETA0, dtype)
    x, y, given = (jnp.asarray(z, dtype) for z in (X, Y, GIVEN))

    def step(carry, t):
        theta, state = carry
        g = jnp.tanh(x[t] @ theta - y[t]) @ x[t] / 4 if closed else given[t]
        u, state = tx.update(g, state, theta)
        theta = optax.apply_updates(theta, u)
        return (theta, state), theta

    scan = jax.jit(lambda: jax.lax.scan(step, (theta0, tx.init(theta0)), jnp.arange(STEPS))[1])
    return np.asarray(scan())


def assert_agree(make, reference, *, closed=True):
    """Agree to rounding in float64 in closed loop, and to a few ulp in float32."""
    gradient = closed_loop if closed else open_loop
    with jax.enable_x64(True):
        chex.assert_trees_all_close(
            run(make(), jnp.float64, closed), reference(gradient), rtol=0,
            atol=RELATIVE["reference"] * np.abs(THETA0).max(),
        )  # fmt: skip
    # The same gradients on both sides: what is left is the rounding of the optimizer itself.
    exact = reference(open_loop)
    ulp = np.spacing(np.float32(np.abs(exact).max()))
    errors = (run(make(), jnp.float32, closed=False) - exact) / ulp
    chex.assert_trees_all_close(errors, 0 * errors, rtol=0, atol=FLOAT32_ULPS["300 steps"])
    steps = np.diff(errors, axis=0)
    chex.assert_trees_all_close(steps, 0 * steps, rtol=0, atol=FLOAT32_ULPS["a step"])


def decoupled(coupling):
    """Lambda to give the library, large enough to matter in its unit."""
    return LAM / ALPHA if coupling in ("learning_rate", "corrected") else LAM


@pytest.mark.parametrize("coupling", PAPER_LAMBDA)
@pytest.mark.parametrize("name", SCHEDULES)
def test_adamw_is_algorithm_2(name, coupling):
    eta = SCHEDULES[name]
    lam = decoupled(coupling)
    assert_agree(
        lambda: dwd.adamw(ALPHA, weight_decay=lam, schedule=at(eta), coupling=coupling),
        lambda gradient: adam(
            gradient, THETA0, ALPHA, 0.9, 0.999, 1e-8, eta,
            weight_decay=PAPER_LAMBDA[coupling](lam, ALPHA, eta),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("eps_placement", ["after", "before"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_adam_l2_is_algorithm_2(name, eps_placement):
    eta = SCHEDULES[name]
    assert_agree(
        lambda: dwd.adam_l2(
            ALPHA, eps=1e-3, weight_decay=0.1, schedule=at(eta), eps_placement=eps_placement
        ),
        lambda gradient: adam(
            gradient, THETA0, ALPHA, 0.9, 0.999, 1e-3, eta, l2=0.1,
            eps_hat=eps_placement == "before",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("in_buffer", [True, False])
@pytest.mark.parametrize("coupling", PAPER_LAMBDA)
@pytest.mark.parametrize("name", SCHEDULES)
def test_sgdw_is_algorithm_1(name, coupling, in_buffer):
    eta = SCHEDULES[name]
    lam = decoupled(coupling)
    algorithm = sgd if in_buffer else sgd_rate_outside_the_buffer
    assert_agree(
        lambda: dwd.sgdw(
            ALPHA, 0.9, weight_decay=lam, schedule=at(eta), coupling=coupling,
            learning_rate_in_buffer=in_buffer,
        ),
        lambda gradient: algorithm(
            gradient, THETA0, ALPHA, 0.9, eta,
            weight_decay=PAPER_LAMBDA[coupling](lam, ALPHA, eta),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("in_buffer", [True, False])
@pytest.mark.parametrize("name", SCHEDULES)
def test_sgd_l2_is_algorithm_1(name, in_buffer):
    eta = SCHEDULES[name]
    algorithm = sgd if in_buffer else sgd_rate_outside_the_buffer
    assert_agree(
        lambda: dwd.sgd_l2(
            ALPHA, 0.9, weight_decay=0.1, schedule=at(eta), learning_rate_in_buffer=in_buffer
        ),
        lambda gradient: algorithm(gradient, THETA0, ALPHA, 0.9, eta, l2=0.1),
    )


@pytest.mark.parametrize("variant", ["paper", "pytorch", "optax", "keras"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_amsgrad_is_its_algorithm(name, variant):
    eta = SCHEDULES[name]
    numbers = (THETA0, ALPHA, 0.9, 0.99, 1e-8, eta)
    assert_agree(
        lambda: dwd.amsgradw(ALPHA, b2=0.99, weight_decay=LAM, schedule=at(eta), variant=variant),
        lambda gradient: amsgrad(gradient, *numbers, variant=variant, weight_decay=LAM),
    )
    assert_agree(
        lambda: dwd.amsgrad_l2(ALPHA, b2=0.99, weight_decay=0.1, schedule=at(eta), variant=variant),
        lambda gradient: amsgrad(gradient, *numbers, variant=variant, l2=0.1),
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_lionw_is_its_algorithm(name):
    # Given gradients: in closed loop a rounding error can turn a sign.
    eta = SCHEDULES[name]
    assert_agree(
        lambda: dwd.lionw(ALPHA, weight_decay=LAM, schedule=at(eta)),
        lambda gradient: lion(gradient, THETA0, ALPHA, 0.9, 0.99, eta, weight_decay=LAM),
        closed=False,
    )


@pytest.mark.parametrize("period_mult", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamwr", "sgdwr"])
def test_restarts_and_normalized_decay_are_the_papers(optimizer, period_mult):
    """Batches of 3 from 10 points: 4 steps an epoch, first cycle 5 epochs, 20 steps."""
    b, n, period, norm = 3, 10, 5, 0.02
    cycles = itertools.islice(schedules.cosine_warm_restarts(4 * period, period_mult), STEPS)
    rows = [
        (eta, schedules.normalized_weight_decay(norm, b, n, length / 4))
        for _, _, length, eta in cycles
    ]
    eta, lam = np.array(rows).T
    assert len(set(lam)) == (1 if period_mult == 1 else 4)
    sizes = {"batch_size": b, "dataset_size": n, "period": period, "period_mult": period_mult}
    make = getattr(dwd, optimizer)

    def reference(gradient):
        if optimizer == "sgdwr":
            return sgd(gradient, THETA0, ALPHA, 0.9, eta, weight_decay=lam)
        return adam(gradient, THETA0, ALPHA, 0.9, 0.999, 1e-8, eta, weight_decay=lam)

    assert_agree(lambda: make(ALPHA, norm, **sizes), reference)


def test_the_reference_tells_the_couplings_apart():
    """A wrong unit of lambda is far outside the tolerances above."""
    eta = SCHEDULES["cosine"]
    with jax.enable_x64(True):
        ours = run(dwd.adamw(ALPHA, weight_decay=LAM, schedule=at(eta)), jnp.float64)
    wrong = adam(
        closed_loop, THETA0, ALPHA, 0.9, 0.999, 1e-8, eta,
        weight_decay=PAPER_LAMBDA["none"](LAM, ALPHA, eta),
    )  # fmt: skip
    assert np.abs(ours - wrong).max() > 1e-3


# Schedules.

PERIODS = (1, 2, 3, 10, 100, 999, 12_345, 2**20 + 1, 2**31 - 1)


@pytest.mark.parametrize("period_mult", [1, 2, 3, 5, 7, 10])
def test_restarts_are_exact_at_every_boundary(period_mult):
    """One compilation for all periods, in float32, with period and multiplier traced."""

    @jax.jit
    def value(period, mult, steps):
        return dwd.cosine_warm_restarts_schedule(period, mult)(steps)

    for period in PERIODS:
        begins = list(itertools.islice(schedules.restart_steps(period, period_mult, 2**31), 40))
        if period_mult == 1:  # the last ones too
            last = (2**31 - 1) // period
            begins += [(k * period, period) for k in range(max(last - 5, 0), last + 1)]
        padded = (begins * 46)[:46]  # one shape, one compilation
        steps = np.array([begin for begin, _ in padded], np.int32)
        first = value(period, period_mult, steps)
        assert np.all(first == 1.0), (period, steps[first != 1.0])
        # The step before a restart ends a cycle: cos(pi (T-1)/T).
        ends = [(begin - 1, length) for begin, length in _cycle_ends(padded, period, period_mult)]
        steps, lengths = np.array(ends, np.int64).T
        expected = 0.5 + 0.5 * np.cos(np.pi * (lengths - 1) / lengths)
        chex.assert_trees_all_close(
            value(period, period_mult, steps.astype(np.int32)), expected.astype(np.float32),
            rtol=0, atol=RELATIVE["float32 cosine"],
        )  # fmt: skip
    assert value._cache_size() == 1


def _cycle_ends(begins, period, period_mult):
    """(begin of the next cycle, length of the one that ends), padded to as many as there are."""
    ends = [(b, length // period_mult if b else 0) for b, length in begins if b]
    ends = ends or [(1, 1)] if period == 1 else ends or [(period, period)]
    return (ends * len(begins))[: len(begins)]


@hypothesis.given(period=st.integers(1, 200), mult=st.integers(1, 10), step=st.integers(0, 20_000))
def test_restarts_are_the_counted_ones(period, mult, step):
    *_, eta = next(itertools.islice(schedules.cosine_warm_restarts(period, mult), step, None))
    value = float(_restarts(period, mult, step))
    assert abs(value - eta) <= RELATIVE["float32 cosine"]


@jax.jit
def _restarts(period, mult, step):
    return dwd.cosine_warm_restarts_schedule(period, mult)(step)


def test_the_mean_over_a_cycle_is_half_and_a_bit():
    """sum_j eta_j = (T + 1) / 2 over a cycle of T steps."""
    values = dwd.cosine_warm_restarts_schedule(100, 2)(jnp.arange(700))
    for begin, length in [(0, 100), (100, 200), (300, 400)]:
        total = float(values[begin : begin + length].sum())
        assert abs(total - (length + 1) / 2) < 1e-3


def test_restart_options():
    schedule = dwd.cosine_warm_restarts_schedule(
        4, 2, eta_min=0.25, eta_max=0.75, warmup=3, peak_decay=0.5
    )
    values = np.asarray(schedule(jnp.arange(16)))
    np.testing.assert_allclose(values[:3], [0.25, 0.5, 0.75])  # (t+1)/3 of the peak
    assert values[3] == 0.75  # cycle 0 begins after the warm-up
    assert values[7] == 0.375  # the peak is halved, eta_min is not
    np.testing.assert_allclose(values[11], 0.5 * (0.25 + 0.375))  # half way down
    assert values[15] == np.float32(0.75 / 4)


def test_restarts_in_64_bit_steps_go_beyond_32():
    with jax.enable_x64(True):
        schedule = dwd.cosine_warm_restarts_schedule(1, 3)
        begin = (3**25 - 1) // 2  # about 4e11
        assert float(schedule(jnp.asarray(begin))) == 1.0
        assert float(schedule(jnp.asarray(begin - 1))) < 1e-9


def test_restart_program_is_as_long_for_many_cycles_as_for_one():
    def program(period, mult):
        return str(jax.make_jaxpr(dwd.cosine_warm_restarts_schedule(period, mult))(0)).count("\n")

    assert program(1, 1) == program(1000, 1) == program(7, 2) == program(1, 10)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclical_is_smiths(mode):
    gamma = 0.99 if mode == "exp_range" else None
    schedule = dwd.cyclical_schedule(7, mode=mode, eta_min=0.1, eta_max=0.9, gamma=gamma)
    expected = [schedules.cyclical(t, 7, 0.1, 0.9, mode, gamma or 1.0) for t in range(100)]
    chex.assert_trees_all_close(
        np.asarray(jax.jit(schedule)(jnp.arange(100))), np.float32(expected),
        rtol=RELATIVE["float32 power"], atol=0,
    )  # fmt: skip


def test_cyclical_is_exact_at_late_peaks():
    schedule = jax.jit(dwd.cyclical_schedule(1000))
    peak = (2**31 - 1) // 2000 * 2000 - 1000
    assert float(schedule(peak)) == 1.0
    assert float(schedule(peak + 1000)) == 0.0


@pytest.mark.parametrize(
    ("epochs", "expected"), [(100, 1.2649e-4), (1800, 2.9814e-5), (1, 1.2649e-3)]
)
def test_normalized_weight_decay_of_the_paper(epochs, expected):
    assert f"{dwd.normalized_weight_decay(0.025, 128, 50_000, epochs):.4e}" == f"{expected:.4e}"


def test_schedules_take_steps_not_epochs():
    for schedule in (dwd.cosine_warm_restarts_schedule(3), dwd.cyclical_schedule(3)):
        with pytest.raises(TypeError, match="an integer is needed"):
            schedule(jnp.asarray(0.5))


# Optax, to the last bit in float32 under jit.


def _bits(tx):
    return run(tx, jnp.float32)


LEARNING_RATES = {
    "constant": ALPHA,
    "cosine": optax.cosine_decay_schedule(ALPHA, STEPS),
    "warm-up": optax.warmup_cosine_decay_schedule(0.0, ALPHA, 30, STEPS),
}


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"eps_root": 1e-8}, {"b1": 0.0}])
@pytest.mark.parametrize("name", LEARNING_RATES)
def test_adamw_coupled_to_the_learning_rate_is_optax(name, options):
    rate = LEARNING_RATES[name]
    ours = dwd.adamw(rate, weight_decay=0.1, coupling="learning_rate", **options)
    chex.assert_trees_all_equal(_bits(ours), _bits(optax.adamw(rate, weight_decay=0.1, **options)))


def test_a_learning_rate_times_a_schedule_is_optax():
    rate, eta = LEARNING_RATES["cosine"], optax.linear_schedule(1.0, 0.3, STEPS)
    ours = dwd.adamw(rate, weight_decay=0.1, schedule=eta, coupling="learning_rate")
    optaxs = optax.adamw(lambda count: rate(count) * eta(count), weight_decay=0.1)
    chex.assert_trees_all_equal(_bits(ours), _bits(optaxs))


@pytest.mark.parametrize("decay", [0.1, lambda count: 0.1 / (1 + count)])
def test_a_decay_schedule_is_optax(decay):
    ours = dwd.adamw(ALPHA, weight_decay=decay, coupling="learning_rate")
    chex.assert_trees_all_equal(_bits(ours), _bits(optax.adamw(ALPHA, weight_decay=decay)))


PAIRS = {
    "scale_by_adam": (lambda: dwd.scale_by_adam(), lambda: optax.scale_by_adam()),
    "scale_by_adam nesterov": (
        lambda: dwd.scale_by_adam(nesterov=True, eps_root=1e-6),
        lambda: optax.scale_by_adam(nesterov=True, eps_root=1e-6),
    ),
    "scale_by_amsgrad": (lambda: dwd.scale_by_amsgrad(), lambda: optax.scale_by_amsgrad()),
    "scale_by_amsgrad paper": (
        lambda: dwd.scale_by_amsgrad(variant="paper"),
        lambda: optax.scale_by_amsgrad(bias_correction_mu=False, bias_correction_nu=False),
    ),
    "lion": (
        lambda: dwd.lionw(ALPHA, weight_decay=0.1, coupling="learning_rate"),
        lambda: optax.lion(ALPHA, weight_decay=0.1),
    ),
    "sgd": (
        lambda: dwd.sgd_l2(ALPHA, 0.9, weight_decay=0.1, learning_rate_in_buffer=False),
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(ALPHA, 0.9)),
    ),
    "adam": (
        lambda: dwd.adam_l2(ALPHA, weight_decay=0.1),
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.adam(ALPHA)),
    ),
    "decayed weights": (
        lambda: dwd.decoupled_weight_decay(0.1),
        lambda: optax.add_decayed_weights(0.1),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_counterparts_are_optax(name):
    ours, optaxs = PAIRS[name]
    chex.assert_trees_all_equal(_bits(ours()), _bits(optaxs()))


def test_adams_states_are_optaxs():
    theta = jnp.ones(3)
    for ours, optaxs in list(PAIRS.values())[:4]:
        chex.assert_trees_all_equal_shapes_and_dtypes(ours().init(theta), optaxs().init(theta))


def test_a_constant_and_a_constant_schedule_are_the_same_bits():
    def constant(value):
        return lambda count: value

    for coupling in PAPER_LAMBDA:
        numbers = dwd.adamw(ALPHA, weight_decay=LAM, schedule=0.7, coupling=coupling)
        schedule = dwd.adamw(
            ALPHA, weight_decay=constant(LAM), schedule=constant(0.7), coupling=coupling
        )
        chex.assert_trees_all_equal(_bits(numbers), _bits(schedule))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32])
def test_sizes_of_any_integer_dtype_count_the_same_steps(dtype):
    sizes = {"batch_size": dtype(128), "period": dtype(200), "period_mult": 2}
    narrow = dwd.normalized_weight_decay_schedule(0.025, dataset_size=50_000, **sizes)
    plain = dwd.normalized_weight_decay_schedule(
        0.025, batch_size=128, dataset_size=50_000, period=200, period_mult=2
    )
    step = 78_200  # the first restart
    assert float(narrow(step)) == float(plain(step)) < float(plain(step - 1))
    assert dwd.steps_per_epoch(dtype(128), np.uint32(50_000)) == 391


@pytest.mark.parametrize(("value", "given"), [(None, "None"), ([0.1, 0.5], "an array of shape")])
def test_a_schedule_that_returns_no_scalar_is_refused(value, given):
    tx = dwd.decoupled_weight_decay(lambda step: value and jnp.array(value))
    with pytest.raises(TypeError, match=f"`weight_decay` returned {given}"):
        tx.init(jnp.ones(2))
