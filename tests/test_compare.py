"""The checker for users: what it calls rounding, what a difference, and what it refuses."""

import equinox as eqx
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd.equivalence._compare import _floor, assert_equivalent, check
from decoupled_wd.equivalence._problems import REGRESSION

STEPS = 30
THETA = {"bias": np.zeros(2), "kernel": np.linspace(-1, 1, 6).reshape(2, 3)}
W = {"w": np.linspace(-1, 1, 6)}
RISING = optax.linear_schedule(0.1, 0.2, 50)


def stairs(step):
    return 0.1 * 0.5 ** jnp.ceil(step.astype(float) / 5)


def updates(f):
    return optax.stateless(lambda g, p: jax.tree.map(f, g))


# The verdict


def test_one_optimizer_is_identical_to_itself():
    found = check(optax.adamw(0.01), optax.adamw(0.01), steps=STEPS)
    assert (found.verdict, found.deviation, found.ulps, found.step, found.path) == (
        "identical", 0.0, 0.0, None, None,
    )  # fmt: skip


def lion_in_another_order(learning_rate, b1=0.9, b2=0.99):
    """sign(m + (1 - b1)(g - m)) for sign(b1 m + (1 - b1) g)."""

    def update(g, m, params=None):
        del params
        u = jax.tree.map(lambda g, m: -learning_rate * jnp.sign(m + (1 - b1) * (g - m)), g, m)
        return u, jax.tree.map(lambda g, m: b2 * m + (1 - b2) * g, g, m)

    return optax.GradientTransformation(optax.tree.zeros_like, update)


def gradients_near_zero(b1=0.9, b2=0.99):
    """The second cancels the momentum that the first leaves, up to rounding."""
    first = np.random.default_rng(0).normal(size=(1, 64))
    return np.concatenate([first, -b1 * (1 - b2) / (1 - b1) * first])


def test_a_sign_that_rounding_flips_is_rounding():
    far = np.array([[1.0], [-0.0905]])  # Where the sign follows b1: 0.9 gives -, 0.901 gives +.
    options = {
        "params": {"far": np.zeros(1), "near": np.zeros(64)},
        "gradients": {"far": far, "near": gradients_near_zero()},
    }
    lion = optax.lion(0.1, weight_decay=0.0)
    found = check(lion, lion_in_another_order(0.1), **options)
    assert found.verdict == "rounding"
    assert found.deviation >= 0.1
    found = check(lion, lion_in_another_order(0.1, b1=0.901), **options)
    assert found.parted == (("far", 1),)


def logistic_map(theta, step):
    """With a rate of 1: theta <- 3.9 theta (1 - theta), where any gap doubles at almost each step."""
    del step
    return theta - 3.9 * theta * (1 - theta)


def test_a_gap_that_a_chaotic_loop_makes_of_rounding_is_rounding():
    options = {"params": np.full(4, 0.3), "problem": logistic_map, "steps": 100}
    in_two_parts = updates(lambda g: -0.3 * g - 0.7 * g)
    found = check(optax.sgd(1.0), in_two_parts, **options)
    assert found.verdict == "rounding"
    assert found.deviation > 0.1
    found = check(optax.sgd(1.0), optax.sgd(1 + 1e-9), **options)
    assert (found.verdict, found.step) == ("difference", 0)


def test_a_formula_that_cancels_inside_is_rounding_from_either_side():
    """1 - b2**t, as printed and without cancellation: b2 = 0.9999 costs four digits."""

    def corrected(power):
        def update(g, count, params=None):
            del params
            count = count + 1
            return jax.tree.map(lambda g: -0.1 * g / power(count), g), count

        return optax.GradientTransformation(lambda params: jnp.zeros([], int), update)

    printed = corrected(jax.jit(lambda t: 1 - 0.9999**t))
    stable = corrected(lambda t: -jnp.expm1(t * np.log(0.9999)))
    options = {"params": np.zeros(3), "gradients": np.ones((3, 3))}
    for sides in ((printed, stable), (stable, printed)):
        found = check(*sides, **options)
        assert found.verdict == "rounding"
        assert found.ulps > 100


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_is_that_of_optax(dtype):
    ours = dwd.adamw(0.01, coupling="learning_rate")
    found = check(optax.adamw(0.01), ours, params=W, steps=STEPS, dtype=dtype)
    assert (found.verdict, found.dtype) == ("identical", dtype)


def test_adamw_of_the_paper_is_mapped_to_that_of_optax():
    """A decay of 1e-6 per step at multiplier 1 is one of 1e-4 per unit of the rate 0.01."""
    found = check(optax.adamw(0.01), dwd.adamw(0.01, weight_decay=1e-6), steps=STEPS)
    assert found.verdict in ("identical", "rounding")
    assert found.ulps <= 8


def test_what_rounding_once_did_it_may_have_done_since():
    """A loop may forget in every noisy run what it keeps in the gap: the floor does not fall."""
    spread, size = np.array([[0.5], [0.0]]), np.array([[1.0], [1.0]])
    assert _floor(spread, size, np.array([2.0**-52])).tolist() == [[1.0], [1.0]]
    assert _floor(0 * spread, size, np.array([2.0**-52])).tolist() == [[2.0**-49]] * 2


DIFFERENCES = {
    "decoupled and L2": (dwd.adamw(0.01), dwd.adam_l2(0.01), 0),
    "a decay of 1e-4 and 1.0001e-4": (
        optax.adamw(0.01, weight_decay=1e-4), optax.adamw(0.01, weight_decay=1.0001e-4), 0,
    ),
    "an eps that is off by a millionth": (optax.adam(0.01), optax.adam(0.01, eps=1e-8 + 1e-14), 0),
    "a schedule that is off by one": (
        optax.sgd(optax.linear_schedule(0.1, 0.2, 50, 20)),
        optax.sgd(optax.linear_schedule(0.1, 0.2, 50, 19)), 20,
    ),
    "a slip after stairs, which noise on count / 5 must not blur": (
        optax.sgd(stairs),
        optax.sgd(lambda step: stairs(step) * jnp.where(step == 20, 1 + 1e-9, 1.0)), 20,
    ),
    "the rate inside and outside of the momentum": (
        dwd.sgdw(0.1, schedule=RISING), dwd.sgdw(0.1, schedule=RISING, learning_rate_in_buffer=False),
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_found_at_its_first_step(name):
    left, right, step = DIFFERENCES[name]
    found = check(left, right, params=W, steps=STEPS)
    assert (found.verdict, found.step) == ("difference", step)
    assert found.gap > 100 * found.floor
    assert dict(found.parted)[found.path] == step


def test_a_mask_that_forgets_a_leaf_is_found_there():
    mask = {"bias": True, "kernel": False}
    found = check(optax.adamw(0.01), optax.adamw(0.01, mask=mask), params=THETA, steps=STEPS)
    assert found.parted == (("kernel", 0),)
    assert "'kernel'" in str(found)


def test_a_narrow_moment_is_a_difference_and_no_rounding():
    right = optax.adam(0.01, mu_dtype="bfloat16")
    assert check(optax.adam(0.01), right, params=W, steps=STEPS).verdict == "difference"


# The report


def test_the_numbers_are_those_of_a_calculation_by_hand():
    """One step of gradient 1: 4 - 0.5 and 4 - 0.25, and 4 has ulp 2**-50 in float64."""
    options = {"params": {"a": np.array([4.0, 1.0])}, "gradients": {"a": np.ones((1, 2))}}
    found = check(optax.sgd(0.5), optax.sgd(0.25), **options)
    assert found.deviation == found.gap == 0.25
    assert found.relative == 0.25 / 3.5
    assert found.ulps == 0.25 / 2.0**-51  # 3.5 is below 4
    assert (found.steps, found.open_loop, found.dtype) == (1, True, "float64")
    assert (found.step, found.path, found.parted) == (0, "a", (("a", 0),))
    assert str(found).splitlines() == [
        "difference: they part at step 0 at 'a', where the gap is 2.5e-01 and rounding explains "
        f"{found.floor:.1e}",
        "largest deviation 2.5e-01, 7.1e-02 of the largest parameter, 5.63e+14 ulp",
        "1 steps, recorded gradients, open loop, float64",
    ]


def test_the_assertion_says_what_the_report_says():
    left, right = optax.sgd(0.5), optax.sgd(0.25)
    with pytest.raises(AssertionError) as error:
        assert_equivalent(left, right, steps=3)
    assert str(error.value) == str(check(left, right, steps=3))
    assert_equivalent(left, left, steps=3)


def test_arrays_narrower_than_the_run_are_told_of():
    rate = jnp.float32(0.1)
    found = check(optax.sgd(0.1), optax.sgd(rate), steps=3)
    assert found.verdict == "difference"
    assert any("right uses float32 arrays" in note for note in found.notes)
    made_inside = check(optax.sgd(0.1), lambda: optax.sgd(jnp.asarray(0.1)), steps=3)
    assert (made_inside.verdict, made_inside.notes) == ("identical", ())


# Trees and dtypes


class Model(eqx.Module):
    weight: jax.Array
    bias: jax.Array | None
    name: str = eqx.field(static=True)


TREES = {
    "FrozenDict": flax.core.freeze(THETA),
    "Equinox": Model(np.ones((2, 2)), None, "linear"),
    "None": {"w": np.ones(2), "frozen": None},
    "bare array": np.ones(3),
    "scalar": 1.0,
    "complex": {"w": np.ones(2), "z": np.array([1 + 2j, -1j])},
}


@pytest.mark.parametrize("name", TREES)
def test_trees_of_every_kind(name):
    options = {"params": TREES[name], "steps": 3}
    assert check(optax.sgd(0.1), updates(lambda g: -g / 10), **options).verdict != "difference"
    assert check(optax.sgd(0.1), optax.sgd(0.11), **options).step == 0


def test_as_given_every_leaf_keeps_its_dtype():
    dtypes = ("bfloat16", "complex64", "float16", "float32")
    params = {dtype: jnp.ones(2, dtype) for dtype in dtypes}
    found = check(optax.sgd(0.1, 0.9), optax.sgd(0.1, 0.9), params=params, steps=3, dtype=None)
    assert found.verdict == "identical"
    assert found.dtype == " and ".join(dtypes)
    wide = {"w": np.ones(2)}
    assert (
        check(optax.sgd(0.1), optax.sgd(0.1), params=wide, steps=1, dtype=None).dtype == "float64"
    )


def test_the_built_in_problem_bears_float16():
    params = {"w": jnp.ones(8, "float16")}
    adam = optax.adam(0.1, eps=1e-4)
    assert check(adam, adam, params=params, steps=3, dtype=None).verdict == "identical"


def test_rounding_updates_may_be_wider_than_16_bit_parameters():
    params = {"w": jnp.ones(4, "bfloat16")}
    wide = updates(lambda g: -0.1 * g.astype("float32"))
    assert check(optax.sgd(0.1), wide, params=params, steps=3, dtype=None).verdict != "difference"


# Loops, maps, extra arguments


def test_recorded_gradients_are_a_tree_or_a_sequence():
    stacked = {"bias": np.ones((4, 2)), "kernel": np.ones((4, 2, 3))}
    sequence = [jax.tree.map(lambda x: x[0], stacked)] * 4
    sides = optax.sgd(0.1), optax.sgd(0.2)
    found = check(*sides, params=THETA, gradients=stacked)
    assert (found.steps, found.step) == (4, 0)
    assert found == check(*sides, params=THETA, gradients=sequence)
    pair = [np.ones(2), np.ones(2)]
    assert check(*sides, params=pair, gradients=[pair] * 3).steps == 3


def test_a_problem_is_a_function_or_one_of_the_catalogue():
    sides = optax.sgd(0.5), optax.sgd(0.25)
    found = check(*sides, params={"w": 2.0}, problem=lambda params, step: params, steps=1)
    assert found.deviation == 0.5  # 2 - 1 and 2 - 0.5
    found = check(*sides, problem=REGRESSION.first(5))
    assert (found.steps, found.open_loop, found.problem) == (5, False, REGRESSION.name)


def test_parameters_are_mapped_and_gradients_pulled_back():
    """theta = 2 phi: phi moves by 2 alpha' g, so theta by 4 alpha' g."""
    options = {"parameters": lambda phi: jax.tree.map(lambda x: 2 * x, phi), "steps": 5}
    assert_equivalent(optax.sgd(0.1), optax.sgd(0.025), params=THETA, **options)
    assert check(optax.sgd(0.1), optax.sgd(0.1), params=THETA, **options).step == 0


def test_the_map_may_change_the_tree():
    """A weight as a product, at gradient 1: 2 * 3 and (2 - 0.3) * (3 - 0.2), against 6 - 0.1."""

    def product(phi):
        return {"w": phi["a"] * phi["b"]}

    found = check(
        optax.sgd(0.1), optax.sgd(0.1), params={"a": 2.0, "b": 3.0}, parameters=product,
        gradients={"w": np.ones(1)},
    )  # fmt: skip
    assert found.path == "w"
    assert abs(found.deviation - (5.9 - 1.7 * 2.8)) < 1e-14


def test_the_right_state_is_mapped():
    """A buffer that starts at the parameters adds 0.1 * 0.9 * theta to the first step."""
    sgd = optax.sgd(0.1, momentum=0.9)
    found = check(
        sgd, sgd, params={"w": 2.0}, gradients={"w": np.zeros(1)},
        state=lambda state, params: optax.tree.set(state, trace=params),
    )  # fmt: skip
    assert abs(found.deviation - 0.18) < 1e-15


def test_extra_arguments_reach_the_side_that_takes_them():
    def update(g, state, params=None, *, value):
        return jax.tree.map(lambda x: -0.25 * value * x, g), state

    by_value = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    assert_equivalent(
        optax.sgd(lambda step: 0.25 * (1 + step)), by_value, params=THETA, steps=3,
        extra_args=lambda params, step: {"value": 1.0 + step},
    )  # fmt: skip


# Bad input

SGD = optax.sgd(0.1)
ONES = {"params": {"w": np.ones(2)}}


def only_v(tree):
    return {"v": tree["w"]}


def late_nan(params, step):
    return {"w": jnp.where(step == 2, jnp.nan, params["w"])}


BAD = {
    "not a transformation": ((0.1, SGD), ONES, TypeError, r"`left` is 0.1, and an `optax.Gradient"),
    "the right one": ((SGD, (1, 2)), ONES, TypeError, r"`right` is \(1, 2\), and an `optax.Gradient"),
    "a function of something else": ((SGD, lambda: 3), ONES, TypeError, r"`right` is 3"),
    "no start": ((SGD, SGD), {"gradients": np.ones(3)}, ValueError, "`params` is None"),
    "both loops": (
        (SGD, SGD), {**ONES, "gradients": {"w": np.ones((3, 2))}, "problem": late_nan},
        ValueError, "`problem` and `gradients` are both given",
    ),
    "no problem": ((SGD, SGD), {**ONES, "problem": 3}, TypeError, "`problem` is 3, and a function"),
    "integers": (
        (SGD, SGD), {"params": {"n": np.arange(2)}}, TypeError, "`params` at 'n' is int64",
    ),
    "no arrays": ((SGD, SGD), {"params": {}}, ValueError, "`params` has no arrays"),
    "an activation function": (
        (SGD, SGD), {"params": {"f": jax.nn.relu}}, TypeError, "`params` at 'f' is .*eqx.filter",
    ),
    "no steps": ((SGD, SGD), {**ONES, "steps": 0}, ValueError, "`steps` is 0"),
    "no dtype": ((SGD, SGD), {**ONES, "dtype": "int32"}, TypeError, "`dtype` is int32"),
    "few gradients": (
        (SGD, SGD), {**ONES, "gradients": {"w": np.ones((3, 2))}, "steps": 4},
        ValueError, "`steps` is 4, and there are gradients for 3",
    ),
    "gradients without steps": (
        (SGD, SGD), {**ONES, "gradients": {"w": 1.0}}, ValueError, r"shape \(\) at 'w'.* \(0, 2\)",
    ),
    "no gradients": ((SGD, SGD), {**ONES, "gradients": []}, ValueError, "`gradients` has no steps"),
    "gradients of other paths": (
        (SGD, SGD), {**ONES, "gradients": {"v": np.ones((3, 2))}}, ValueError, "nothing at 'w'",
    ),
    "a gradient of another shape": (
        (SGD, SGD), {**ONES, "gradients": [{"w": np.ones(2)}, {"w": np.ones(3)}]},
        ValueError, r"`gradients` of step 1.*shape \(3,\) at 'w'.*\(2,\)",
    ),
    "a gradient in another container": (
        (SGD, SGD), {**ONES, "gradients": flax.core.freeze({"w": np.ones((3, 2))})},
        ValueError, "the same paths, in other containers",
    ),
    "recorded gradients in another dtype": (
        (SGD, SGD),
        {
            "params": {"w": jnp.ones(2, "bfloat16")}, "dtype": None,
            "gradients": {"w": np.ones((3, 2), np.float32)},
        },
        TypeError, "left: the gradient at 'w': the dtype is float32.* bfloat16",
    ),
    "a problem in another dtype": (
        (SGD, SGD), {**ONES, "problem": lambda p, t: jax.tree.map(lambda x: x.astype("float32"), p)},
        TypeError, "left: the gradient at 'w': the dtype is float32.* float64",
    ),
    "a problem with another tree": (
        (SGD, SGD), {**ONES, "problem": lambda p, t: only_v(p)},
        ValueError, "left: the gradient has nothing at 'w'",
    ),
    "a problem that is not finite": (
        (SGD, SGD), {**ONES, "problem": late_nan, "steps": 4},
        ValueError, "left: the gradient at 'w' is not finite at step 2",
    ),
    "a right side that diverges": (
        (SGD, optax.sgd(-1e200)), {**ONES, "problem": lambda p, t: p, "steps": 4},
        ValueError, "right: the parameters at 'w' are not finite after step 1",
    ),
    "updates of another tree": (
        (SGD, optax.stateless(lambda g, p: only_v(g))), ONES,
        ValueError, "right: what `update` returns has nothing at 'w'",
    ),
    "updates of a narrower dtype": (
        (SGD, updates(lambda g: g.astype("float32"))), ONES,
        TypeError, "right: the updates at 'w': the dtype is float32.* float64",
    ),
    "complex updates": (
        (updates(lambda g: g + 0j), SGD), ONES,
        TypeError, "left: the updates at 'w': the dtype is complex128",
    ),
    "a state map to another structure": (
        (SGD, optax.trace(0.9)), {**ONES, "state": lambda state, params: params},
        ValueError, "right: what `state` returns has nothing at 'trace/w'",
    ),
    "a state of another shape": (
        (SGD, optax.trace(0.9)),
        {**ONES, "state": lambda s, p: optax.tree.set(s, trace={"w": np.ones(3)})},
        ValueError, r"right: what `state` returns has shape \(3,\) at 'trace/w'",
    ),
    "a state that changes its tree": (
        (SGD, optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (g, g))), ONES,
        ValueError, "right: the state after an update has an array at 'w'",
    ),
    "a parameter map to another structure": (
        (SGD, SGD), {**ONES, "parameters": only_v, "gradients": {"w": np.ones((3, 2))}},
        ValueError, "has nothing at 'v', where the left's parameters",
    ),
    "a parameter map to integers": (
        (SGD, SGD), {**ONES, "parameters": lambda p: jax.tree.map(lambda x: x.astype(int), p)},
        TypeError, "`parameters`, the map to the left's parameters, returns at 'w' is int64",
    ),
    "a start that is not the problem's": (
        (SGD, SGD), {"params": np.ones(3), "problem": REGRESSION},
        ValueError, r"left: its start has shape \(3,\) at ''.*\(6,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_side_and_path(name):
    sides, options, error, message = BAD[name]
    with pytest.raises(error, match=message):
        check(*sides, **options)


def test_what_a_transformation_complains_of_is_told_with_its_side():
    with pytest.raises(ValueError) as error:
        check(SGD, optax.masked(SGD, {"v": True}), **ONES)
    assert error.value.__notes__[-1] == "This was raised by `right`."
