"""Rows that are not updated wait, and catch up to where eager decay would have brought them."""

import functools
import inspect
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import decoupled_wd as dwd
from tests.tolerances import RELATIVE

STEPS, ROWS, WIDTH = 60, 12, 3


def decay(step):
    """Of the size that is a mistake by a factor when it is one: 2 to 20 percent a step."""
    return 0.02 + 0.18 * (jnp.asarray(step) % 7) / 6


def looked_up():
    """The two rows that each step looks up; row 11 waits for most of the run."""
    rows = np.stack([np.arange(STEPS) ** 2 % 11, 7 * np.arange(STEPS) % 11], axis=1)
    rows[50] = 11
    return rows


def sparse_gradients():
    """Gradients of a table and a bias, zero where no row is looked up."""
    table = np.zeros((STEPS, ROWS, WIDTH))
    for step, rows in enumerate(looked_up()):
        table[step, rows] = np.sin(step + np.arange(2 * WIDTH)).reshape(2, WIDTH)
    bias = np.where(np.arange(STEPS)[:, None] % 3 == np.arange(3), 0.5, 0.0)
    scale = np.where(np.arange(STEPS) % 4 == 0, 0.25, 0.0)
    return {"bias": bias, "scale": scale, "table": table}


def start():
    table = 1 + np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH) / 7
    return {"bias": np.ones(3), "scale": np.array(2.0), "table": table}


def descent(tx):
    """Plain descent with the decay at place D."""
    return optax.chain(optax.scale(0.1), tx, optax.scale(-1.0))


def trajectory(tx, given=None):
    """Parameters and states after every step, in float64."""
    given = sparse_gradients() if given is None else given

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, start())
        return jax.jit(lambda given: jax.lax.scan(step, (params, tx.init(params)), given)[1])(given)


def touched(gradient):
    return np.any(gradient != 0, axis=tuple(range(2, gradient.ndim)))


def assert_close(actual, expected):
    """Agree to rounding in the size of the rows at the start, from which a catch-up is subtracted."""
    chex.assert_trees_all_close(
        actual, expected, rtol=RELATIVE["reference"], atol=RELATIVE["reference"]
    )


@pytest.fixture(scope="module")
def both():
    """Lazy and eager decay of the same run."""
    return [
        trajectory(descent(tx)) for tx in (dwd.lazy_decay(decay), dwd.decoupled_weight_decay(decay))
    ]


@pytest.mark.parametrize("leaf", ["bias", "scale", "table"])
def test_a_touched_row_is_where_eager_decay_brings_it(both, leaf):
    (lazy, _), (eager, _) = both
    now = touched(sparse_gradients()[leaf])
    assert 0 < now.sum() < now.size
    assert_close(np.asarray(lazy[leaf])[now], np.asarray(eager[leaf])[now])


@pytest.mark.parametrize("leaf", ["bias", "scale", "table"])
def test_an_untouched_row_keeps_every_bit(both, leaf):
    lazy = np.concatenate([start()[leaf][None], both[0][0][leaf]])
    waits = ~touched(sparse_gradients()[leaf])
    chex.assert_trees_all_equal(lazy[1:][waits], lazy[:-1][waits])


def test_caught_up_is_eager_decay_at_every_step(both):
    (lazy, states), (eager, _) = both
    with jax.enable_x64(True):
        assert_close(jax.vmap(dwd.caught_up)(lazy, states), eager)


def test_pending_is_one_number_a_row(both):
    (_, states), _ = both
    shapes = jax.tree.map(jnp.shape, states[1].pending)
    assert shapes == {"bias": (STEPS, 3), "scale": (STEPS,), "table": (STEPS, ROWS)}
    row = np.asarray(states[1].pending["table"])[:, 11]
    with jax.enable_x64(True):
        removed = 1 - np.cumprod(1 - np.asarray(decay(np.arange(50))))
    assert_close(row[:50], removed)
    assert row[50] == 0


def test_multipliers_are_of_a_leaf_and_zero_leaves_nothing_pending():
    mask = {"bias": 0.5, "scale": False, "table": 2.0}
    lazy, states = trajectory(descent(dwd.lazy_decay(decay, mask)))
    eager, _ = trajectory(descent(dwd.decoupled_weight_decay(decay, mask)))
    with jax.enable_x64(True):
        assert_close(jax.vmap(dwd.caught_up)(lazy, states), eager)
    assert not np.any(states[1].pending["scale"])


FRONTS = {
    "momentum": lambda: optax.trace(0.9),
    "Adam": optax.scale_by_adam,
    "clipped Adam": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam()),
    "rate zero at times": lambda: optax.scale_by_schedule(lambda step: jnp.sin(step) > 0),
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_it_is_eager_decay_behind_anything(front):
    runs = [
        trajectory(optax.chain(front(), descent(tx)))
        for tx in (dwd.lazy_decay(decay), dwd.decoupled_weight_decay(decay))
    ]
    (lazy, states), (eager, _) = runs
    with jax.enable_x64(True):
        assert_close(jax.vmap(dwd.caught_up)(lazy, states), eager)


def test_a_row_that_adam_moves_without_gradient_is_touched():
    tx = optax.chain(optax.scale_by_adam(), descent(dwd.lazy_decay(0.25)))
    theta = jnp.array([4.0])
    state = tx.init(theta)
    for gradient in (1.0, 0.0):
        before = theta
        updates, state = tx.update(jnp.array([gradient]), state, theta)
        theta = optax.apply_updates(theta, updates)
        assert theta < 0.75 * before  # a step of Adam, and the decay
    chex.assert_trees_all_equal(state[1][1].pending, jnp.zeros(1))


@pytest.mark.parametrize("wrap", ["MultiSteps", "apply_if_finite", "partition", "inject"])
def test_it_is_eager_decay_inside_a_wrapper(wrap):
    def build(decaying):
        labels = {"bias": "b", "scale": "b", "table": "a"}
        if wrap == "MultiSteps":
            return optax.MultiSteps(descent(decaying(0.1)), 3).gradient_transformation()
        if wrap == "apply_if_finite":
            return optax.apply_if_finite(descent(decaying(0.1)), 3)
        if wrap == "partition":
            each = {"a": descent(decaying(0.1)), "b": descent(decaying(0.2))}
            return optax.partition(each, labels)
        injected = optax.inject_hyperparams(decaying, hyperparam_dtype=jnp.float64)
        return descent(injected(weight_decay=decay))

    given = sparse_gradients()
    given["table"][5, 0, 0] = np.nan if wrap == "apply_if_finite" else 1.0
    lazy, states = trajectory(build(dwd.lazy_decay), given)
    eager, _ = trajectory(build(dwd.decoupled_weight_decay), given)
    with jax.enable_x64(True):
        assert_close(jax.vmap(dwd.caught_up)(lazy, states), eager)


# A loss that reads rows that it does not update


def regularized(params, rows):
    """It looks up two rows, and reads all others without a gradient."""
    read = jax.lax.stop_gradient(jnp.sum(params**2))
    return jnp.sum((params[rows] - 1) ** 2) * (1 + 0.01 * read)


def train(tx, look):
    """Descend on `regularized`, whose gradient is taken as `look` says."""
    with jax.enable_x64(True):
        params = jnp.asarray(start()["table"])
        state = tx.init(params)
        for rows in looked_up()[:20]:
            updates, state = tx.update(look(params, state, rows), state, params)
            params = optax.apply_updates(params, updates)
        return params, state


def at_caught_up(params, state, rows):
    return jax.grad(regularized)(dwd.caught_up(params, state), rows)


def through_caught_up(params, state, rows):
    return jax.grad(lambda theta: regularized(dwd.caught_up(theta, state), rows))(params)


def test_a_gradient_at_the_caught_up_parameters_trains_as_eager_decay_does():
    lazy = descent(dwd.lazy_decay(decay))
    eager, _ = train(
        descent(dwd.decoupled_weight_decay(decay)),
        lambda params, state, rows: jax.grad(regularized)(params, rows),
    )
    with jax.enable_x64(True):
        assert_close(dwd.caught_up(*train(lazy, at_caught_up)), eager)
        stale = dwd.caught_up(
            *train(lazy, lambda params, state, rows: jax.grad(regularized)(params, rows))
        )
        through = dwd.caught_up(*train(lazy, through_caught_up))
    for wrong in (stale, through):
        assert np.max(np.abs(wrong - eager)) > RELATIVE["separation"]


# Precision


@pytest.mark.parametrize("d", [2.0**-26, 1e-6, 1e-4])
def test_a_row_touched_in_each_step_has_the_bits_of_eager_decay(d):
    params, given = jnp.array([[1.0, -3.0]]), jnp.array([[2.0**-30, 0.5]])
    lazy, eager = (
        tx.update(given, tx.init(params), params)[0]
        for tx in (dwd.lazy_decay(d), dwd.decoupled_weight_decay(d))
    )
    chex.assert_trees_all_equal(lazy, eager)


def test_bfloat16_rows_catch_up_on_decay_that_eager_steps_would_round_away():
    d, steps = 2.0**-12, 1000
    params = jnp.ones((2, 2), "bfloat16")
    tx = descent(dwd.lazy_decay(d))

    def step(state, _):
        return tx.update(jnp.zeros_like(params), state, params)[1], None

    state = jax.lax.scan(step, tx.init(params), length=steps)[0]
    found = dwd.caught_up(params, state)
    assert found.dtype == jnp.bfloat16
    expected = np.full((2, 2), (1 - d) ** steps)
    chex.assert_trees_all_close(np.asarray(found, float), expected, rtol=2.0**-8)


# Devices


def table_path(split, wrap):
    """The table after every step, split over three devices; some updates of touched rows are 0."""
    given = sparse_gradients()["table"]
    given[::2, :, 0] = 0
    tx = descent(dwd.lazy_decay(decay))

    def train(theta, given):
        def step(carry, gradient):
            updates, state = tx.update(gradient, carry[1], carry[0])
            theta = optax.apply_updates(carry[0], updates)
            return (theta, state), theta

        return jax.lax.scan(step, (theta, tx.init(theta)), given)[1]

    mesh = jax.make_mesh((3,), ("device",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec(*split), PartitionSpec(None, *split)
    with jax.enable_x64(True):
        if wrap == "shard_map":
            train = jax.shard_map(train, mesh=mesh, in_specs=specs, out_specs=specs[1])
        arrays = [
            jax.device_put(x, NamedSharding(mesh, spec))
            for x, spec in zip((start()["table"], given), specs, strict=True)
        ]
        return np.asarray(jax.jit(train)(*arrays))


ROWS_SPLIT, COLUMNS_SPLIT = ("device",), (None, "device")


@pytest.mark.parametrize(
    ("split", "wrap"),
    [(ROWS_SPLIT, "jit"), (ROWS_SPLIT, "shard_map"), (COLUMNS_SPLIT, "jit")],
    ids=str,
)
def test_rows_may_be_split_over_devices_and_under_jit_columns_too(split, wrap):
    assert_close(table_path(split, wrap), table_path((), "jit"))


def test_columns_that_shard_map_splits_are_touched_each_by_themselves():
    found, whole = table_path(COLUMNS_SPLIT, "shard_map"), table_path((), "jit")
    assert_close(found[..., 1:], whole[..., 1:])
    assert np.max(np.abs(found[..., 0] - whole[..., 0])) > RELATIVE["separation"]


# Trees


@pytest.mark.parametrize("d", [1, 2.0, np.float32(1.5)])
def test_a_decay_of_whole_weights_is_refused(d):
    says = rf"`weight_decay` is {d:g}, which removes {d:.2%} .*weight_decay \* learning_rate"
    with pytest.raises(ValueError, match=says):
        dwd.lazy_decay(d)
    dwd.lazy_decay(0.999)
    dwd.lazy_decay(lambda step: 2.0)
    jax.eval_shape(lambda d: dwd.lazy_decay(d).init(jnp.ones(1)), 2.0)


def test_a_row_that_is_not_finite_and_waits_stays_as_it_is():
    params = jnp.array([[jnp.inf], [1.0]])
    tx = dwd.lazy_decay(0.5)
    updates, _ = tx.update(jnp.array([[0.0], [1.0]]), tx.init(params), params)
    chex.assert_trees_all_equal(updates, jnp.array([[0.0], [1.5]]))


def test_a_leaf_without_a_gradient_waits_for_nothing():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = dwd.lazy_decay(0.5)
    _, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    updates, after = tx.update({"a": None, "b": jnp.zeros(2)}, state, params)
    assert updates["a"] is None
    chex.assert_trees_all_equal(after.pending, {"a": jnp.full(2, 0.5), "b": jnp.full(2, 0.75)})


def test_complex_rows_decay_whole():
    params = jnp.array([[2 + 4j], [1j]])
    tx = dwd.lazy_decay(0.5)
    updates, state = tx.update(jnp.array([[1j], [0j]]), tx.init(params), params)
    chex.assert_trees_all_equal(updates, jnp.array([[1 + 3j], [0j]]))
    chex.assert_trees_all_equal(dwd.caught_up(params, state), jnp.array([[2 + 4j], [0.5j]]))


def test_one_compilation_serves_a_grid_of_decays():
    grid = jnp.array([0.0, 0.125, 0.5])

    def waiting(d):
        tx, theta = dwd.lazy_decay(d), jnp.ones(1)
        state = tx.init(theta)
        for _ in range(2):
            _, state = tx.update(jnp.zeros(1), state, theta)
        return dwd.caught_up(theta, state)[0]

    chex.assert_trees_all_close(
        jax.jit(jax.vmap(waiting))(grid), (1 - grid) ** 2, rtol=RELATIVE["float32"]
    )


def test_an_nnx_embedding_catches_up():
    model = nnx.Embed(4, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, descent(dwd.lazy_decay(0.5)), wrt=nnx.Param)
    before = jnp.copy(model.embedding[...])
    gradient = nnx.grad(lambda model: jnp.sum(model(jnp.array([1]))))
    for _ in range(2):
        optimizer.update(model, gradient(model))
    chex.assert_trees_all_equal(model.embedding[0], before[0])
    found = dwd.caught_up(nnx.state(model, nnx.Param), optimizer.opt_state)["embedding"][...]
    chex.assert_trees_all_equal(found[0], before[0] / 4)
    chex.assert_trees_all_equal(found[1], model.embedding[1])


@pytest.mark.parametrize("make", [dwd.lazy_decay, dwd.decoupled_weight_decay])
def test_after_a_finished_optimizer_it_makes_weights_grow_and_its_help_says_what_to_do(make):
    theta, told = jnp.array([8.0]), inspect.getdoc(make)
    assert "Never after a finished optimizer" in told

    def stepped(tx, g):
        updates, _ = tx.update(jnp.array([g]), tx.init(theta), theta)
        return float(optax.apply_updates(theta, updates)[0])

    # A half of the weight is added; the gradient touches the row, and takes 1 off.
    assert stepped(optax.chain(optax.sgd(0.125), make(0.5)), 8.0) == 11.0
    if make is dwd.lazy_decay:
        chain = re.search(r"`(chain\(.*\))`", told)[1]
        tx = eval(chain, {**vars(optax), "lazy_decay": make, "d": 0.5})
        assert stepped(tx, 10.0) == pytest.approx(3.0)
    else:
        assert "`extend_with_decoupled_weight_decay` is for those" in told


def test_a_state_without_lazy_decay_is_refused():
    params = jnp.ones(1)
    with pytest.raises(ValueError, match=r"`state` holds no LazyDecayState.*opt_state"):
        dwd.caught_up(params, optax.adam(0.1).init(params))


@pytest.mark.parametrize("other", [{"b": jnp.ones(2)}, {"a": jnp.ones(1)}, jnp.ones(2)], ids=str)
def test_parameters_of_another_state_are_refused(other):
    params = {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match="`params` are not those that `state` goes with"):
        dwd.caught_up(other, dwd.lazy_decay(0.5).init(params))


def test_applied_weight_decay_reads_it():
    tx, theta = dwd.lazy_decay(decay), jnp.ones(1)
    _, state = functools.reduce(
        lambda carry, _: tx.update(theta, carry[1], theta), range(3), (theta, tx.init(theta))
    )
    chex.assert_trees_all_close(dwd.applied_weight_decay(state), decay(2), rtol=RELATIVE["float32"])
