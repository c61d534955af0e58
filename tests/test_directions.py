"""The private steps of other libraries keep the rules of the house; their mathematics is compared
with the libraries in tests/libraries."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoupled_wd as dwd
from decoupled_wd import _directions
from decoupled_wd._like import _DIRECTIONS
from decoupled_wd.conventions import CONVENTIONS
from decoupled_wd.conventions._record import OPTAX_STEPS

NUMBERS = {
    "b1": 0.8, "b2": 0.9, "b3": 0.7, "eps": 1e-3, "momentum_decay": 0.04,
    "initial_accumulator_value": 0.1, "eps_placement": "before", "eps_in_max": False,
    "eps_in_sqrt": False,
}  # fmt: skip
STEPS = {
    name: f for name, f in vars(_directions).items()
    if name.startswith("scale_by") and f.__module__ == _directions.__name__
}  # fmt: skip
TREE = {
    "a": jnp.linspace(-2.0, 3.0, 6),
    "b": None,
    "c": jnp.linspace(-1.0, 1.0, 4, dtype=jnp.bfloat16),
    "d": jnp.array([1 + 2j, -0.5j], jnp.complex64),
}


def made(name, **changes):
    names = inspect.signature(STEPS[name]).parameters
    return STEPS[name](**{**{k: NUMBERS[k] for k in names}, **changes})


@pytest.mark.parametrize("name", STEPS)
def test_dtypes_and_absent_leaves_stay_as_they_are(name):
    tx = made(name)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = jax.jit(tx.update)(TREE, tx.init(TREE))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, TREE)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(TREE))
    assert all(np.all(np.isfinite(np.asarray(x, np.complex64))) for x in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", STEPS)
def test_the_arithmetic_of_16_bits_is_float32(name):
    """One rounding, at the end: to nearest, half an ulp of bfloat16."""
    tx, narrow = made(name), {"c": TREE["c"]}
    wide = {"c": TREE["c"].astype(jnp.float32)}
    ours, _ = tx.update(narrow, tx.init(narrow))
    exact, _ = tx.update(wide, tx.init(wide))
    np.testing.assert_array_equal(ours["c"], exact["c"].astype(jnp.bfloat16))


@pytest.mark.parametrize("name", STEPS)
def test_numbers_may_be_traced(name):
    names = [x for x in inspect.signature(STEPS[name]).parameters if isinstance(NUMBERS[x], float)]
    leaf = TREE["a"]

    def first(numbers):
        tx = made(name, **numbers)
        return tx.update(leaf, tx.init(leaf))[0]

    grid = {x: jnp.array([NUMBERS[x], 0.5 * NUMBERS[x]]) for x in names}
    rows = jax.jit(jax.vmap(first))(grid)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(row, first({x: float(grid[x][i]) for x in names}), rtol=1e-5)


def built_here():
    """Of every direction of `like` one record for each form and each set of numbers that it fixes."""
    found = {
        (c.direction, c.form, *sorted(c.fixed.items())): c
        for c in CONVENTIONS
        # Steps that are aliases of Optax promote dtypes silently in Optax.
        if c.direction in _DIRECTIONS and c.direction not in OPTAX_STEPS
        and (c.unit is not None or c.form == "coupled") and not c.normalizer_arguments
    }  # fmt: skip
    assert {c.direction for c in found.values()} == set(_DIRECTIONS) - set(OPTAX_STEPS)
    return found.values()


WORDS = {
    **NUMBERS, "learning_rate": 0.01, "weight_decay": 0.1, "momentum": 0.7, "dampening": 0.3,
    "decay": 0.9, "lr_decay": 0.1, "rho": 0.9, "eps_root": 1e-9,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`weight_decay` of", "ignore:.*16 bits and rounded")
@pytest.mark.parametrize("traced", [False, True], ids=["numbers", "traced"])
@pytest.mark.parametrize("record", built_here(), ids=lambda record: record.title)
def test_like_promotes_no_dtype_and_no_rank_silently(record, traced):
    words = {
        x for word in record.arguments.values() for x in ([word] if isinstance(word, str) else word)
    }
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3, jnp.bfloat16)}

    def step(numbers):
        given = {
            argument: tuple(numbers[w] for w in word) if isinstance(word, tuple) else numbers[word]
            for argument, word in record.arguments.items()
            if isinstance(word, tuple) or word in numbers
        }
        schedule = None if traced else lambda step: 0.5 ** jnp.asarray(step, float)
        tx = dwd.like(record.name, schedule=schedule, **given, **record.options)
        return tx.update(params, tx.init(params), params)

    numbers = {w: WORDS[w] for w in words if isinstance(WORDS.get(w), float)}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        if traced:
            jax.eval_shape(step, jax.tree.map(jnp.asarray, numbers))
        else:
            jax.eval_shape(lambda: step(numbers))
