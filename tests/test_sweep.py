"""A grid in one program is the runs one by one, over all devices, whatever an axis or a carry is."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd import sweep
from tests.helpers import assert_close

RATES = 2.0 ** np.arange(-9, -4)  # 5 over 8 devices
DECAYS = np.array([0.0, 1e-3, 1e-2])
STEPS = 20
OPTIMIZERS = (dwd.adamw, dwd.adam_l2, dwd.sgdw)


class Start(NamedTuple):
    theta: jax.Array
    key: jax.Array


SEEDS = jax.vmap(lambda key: Start(jax.random.normal(key, (7,)), key))(
    jax.random.split(jax.random.key(0), 2)
)


def advance(carry, optimizer, learning_rate, weight_decay, seed, steps):
    tx = optimizer(learning_rate, weight_decay=weight_decay, schedule=0.5)

    def step(carry, t):
        theta, state = carry
        noise = jax.random.normal(jax.random.fold_in(seed.key, t), theta.shape)
        u, state = tx.update(theta - 1 + noise, state, theta)
        return (optax.apply_updates(theta, u), state), None

    start = (seed.theta, tx.init(seed.theta)) if carry is None else carry
    return jax.lax.scan(step, start, steps)[0]


@functools.cache
def program(optimizer, first, last):
    """A whole training, or a piece of one that goes on from `mapped`."""
    steps = jnp.arange(first, last)

    def train(*mapped, learning_rate, weight_decay, seed):
        carry = mapped[0] if mapped else None
        return advance(carry, optimizer, learning_rate, weight_decay, seed, steps)

    return train


@pytest.fixture(autouse=True)
def no_cached_program():
    yield
    program.cache_clear()


AXES = {"learning_rate": RATES, "weight_decay": DECAYS, "seed": SEEDS}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_grid_is_the_runs_one_by_one(optimizer):
    train = program(optimizer, 0, STEPS)
    thetas, _ = sweep.grid(train, **AXES)
    chex.assert_shape(thetas, (5, 3, 2, 7))
    one = jax.jit(train)
    for i, j, k in [(0, 0, 0), (4, 2, 1), (2, 1, 1)]:
        seed = jax.tree.map(lambda x, k=k: x[k], SEEDS)
        rate, decay = jnp.float32(RATES[i]), jnp.float32(DECAYS[j])
        theta, _ = one(learning_rate=rate, weight_decay=decay, seed=seed)
        assert_close(thetas[i, j, k], theta)


def test_a_training_in_pieces_is_the_training_in_one():
    whole = sweep.grid(program(dwd.adamw, 0, STEPS), **AXES)
    carry = sweep.grid(program(dwd.adamw, 0, 8), **AXES)
    carry = sweep.grid(program(dwd.adamw, 8, STEPS), carry, **AXES)
    chex.assert_trees_all_equal(carry, whole)


@pytest.mark.parametrize("lengths", [(3, 16), (2, 3), (1, 1), (9, 2), (5, 3, 2)], ids=str)
def test_what_fills_an_axis_up_is_not_given_back(lengths):
    axes = {name: np.arange(length) for name, length in zip("abc", lengths, strict=False)}
    out = sweep.grid(lambda a, b, c=0: 100 * a + 10 * b + c, **axes)
    a, b, c = np.indices((*lengths, 1)[:3])
    np.testing.assert_array_equal(np.reshape(out, a.shape), 100 * a + 10 * b + c)


@pytest.mark.parametrize(
    ("lengths", "held"), [((3, 16), (3, 2)), ((2, 4), (1, 1)), ((8, 1), (1, 1)), ((4, 6), (1, 3))]
)
def test_every_device_has_as_few_runs_as_can_be(lengths, held):
    out = sweep.grid(lambda a, b: a + b, a=np.arange(lengths[0]), b=np.arange(lengths[1]))
    assert len(out.sharding.device_set) == jax.local_device_count() == 8
    assert {shard.data.shape for shard in out.addressable_shards} == {held}


def test_one_compilation_serves_every_grid_of_the_same_shape():
    traced = []

    def train(learning_rate, weight_decay):
        traced.append(learning_rate)
        return learning_rate * weight_decay

    for scale in (1.0, 2.0):
        sweep.grid(train, learning_rate=scale * RATES, weight_decay=scale * DECAYS)
    assert len(traced) == 1


def test_what_hangs_on_a_seed_alone_is_computed_once_for_all_its_runs():
    def train(learning_rate, seed):
        return learning_rate * jnp.sort(jax.random.normal(seed.key, (32,)))

    text = str(jax.make_jaxpr(lambda: sweep.grid(train, learning_rate=RATES, seed=SEEDS))())
    sort = next(line for line in text.splitlines() if " sort[" in line)
    assert "f32[1,32]" in sort  # A device has two learning rates, and one seed.


def test_the_runs_do_not_communicate():
    train = program(dwd.adamw, 0, STEPS)
    axes = {**AXES, "learning_rate": RATES[:4]}
    text = jax.jit(lambda: sweep.grid(train, **axes)).lower().compile().as_text()
    assert "num_partitions=8" in text
    assert not any(x in text for x in ("all-reduce", "all-gather", "all-to-all", "permute"))


REFUSED = {
    "no axes": (TypeError, "`axes` is empty", (), {}),
    "a single value": (ValueError, r"pass `\[value\]`", (), {"learning_rate": 0.1}),
    "a list of arrays": (TypeError, "Stack the points", (), {"a": [np.zeros(4), np.ones(4)]}),
    "a tuple of trees": (TypeError, "Stack the points", (), {"a": ({"w": 1.0}, {"w": 2.0})}),
    "words": (TypeError, "`optimizer` holds what is no number", (), {"optimizer": ["adam", "sgd"]}),
    "nothing": (ValueError, "`seed` has no arrays", (), {"seed": None}),
    "no values": (ValueError, "at least 1", (), {"learning_rate": []}),
    "arrays of several lengths": (
        ValueError, r"lengths \[\(2,\), \(3,\)\]", (), {"seed": {"v": np.ones(2), "w": np.ones(3)}},
    ),
    "16 bits": (TypeError, "16 bits", (), {"learning_rate": jnp.ones(2, jnp.bfloat16)}),
    "a carry of another grid": (ValueError, "must stand in front", (jnp.ones(3),), {"a": [1, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_grid_is_refused(name):
    error, message, mapped, axes = REFUSED[name]
    with pytest.raises(error, match=message):
        sweep.grid(lambda *_, **__: 0, *mapped, **axes)
