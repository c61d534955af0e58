"""What decay does in the situations of `docs/semantics.md`, for every optimizer there is."""

import functools
import math
import re
from pathlib import Path

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import decoupled_wd as dwd
from tests.helpers import (
    ARGUMENTS,
    STEPS,
    apply,
    assert_close,
    gradients,
    public_options,
    public_transformations,
    reference,
    small_params,
    take,
)
from tests.tolerances import RELATIVE

OPTIMIZERS = [tx for tx in public_transformations() if tx.takes("learning_rate")]
COUPLED = [tx for tx in OPTIMIZERS if str(tx).endswith("_l2")]
DECOUPLED = [tx for tx in OPTIMIZERS if tx not in COUPLED]
UNITS = [
    tx
    for tx in public_options()
    if tx.takes("coupling") and (tx.name == tx.function.__name__ or "-coupling-" in tx.name)
]
each = pytest.mark.parametrize("tx", OPTIMIZERS, ids=str)
each_decoupled = pytest.mark.parametrize("tx", DECOUPLED, ids=str)
each_unit = pytest.mark.parametrize("tx", UNITS, ids=str)

ALPHA, DECAY, EPS = ARGUMENTS["learning_rate"], ARGUMENTS["weight_decay"], 1e-8


def test_the_page_and_the_tests_name_each_other():
    folder = Path(__file__).parent
    named = set(re.findall(r"`(\w+)`", (folder.parent / "docs" / "semantics.md").read_text()))
    own, beside = (
        set(re.findall(r"^def test_(\w+)", text, re.MULTILINE))
        for text in (
            Path(__file__).read_text(),
            "".join(
                (folder / f"test_{x}.py").read_text()
                for x in ("contract", "masks", "lazy", "auto_l2")
            ),
        )
    )
    assert own - named == {
        "the_page_and_the_tests_name_each_other", "introspection_finds_the_optimizers"
    }  # fmt: skip
    sentences = {name for name in named if name.count("_") > 3}
    assert sentences - own - beside == {"extend_with_decoupled_weight_decay", "add_auto_l2_to_grad"}


def test_introspection_finds_the_optimizers():
    assert len(COUPLED) >= 3
    assert len(DECOUPLED) >= 7
    assert len(UNITS) > len(DECOUPLED)


def trained(tx, given=None, params=None):
    """Parameters and state after a few steps."""
    params = small_params() if params is None else params
    given = gradients(params) if given is None else given
    carry = (params, tx.init(params))
    for step in range(STEPS):
        carry = apply(tx, carry, take(given, step))
    return carry


def silent(params=None):
    """Gradients of zero."""
    return jax.tree.map(jnp.zeros_like, gradients(small_params() if params is None else params))


def decay_of(tx, step):
    """The part of a weight that a step removes, from the numbers in `helpers.ARGUMENTS`."""
    lam, eta = DECAY, 1.0
    if tx.takes("period"):  # cycles of 2 epochs of 2 steps, and the decay is normalized
        lam, eta = DECAY * math.sqrt(4 / (8 * 2)), 0.5 * (1 + math.cos(math.pi * step / 4))
    return {
        "schedule": eta * lam,
        "learning_rate": ALPHA * eta * lam,
        "none": lam,
        "corrected": ALPHA * eta**2 * lam,
    }[tx.arguments.get("coupling", "learning_rate" if tx.name == "like" else "schedule")]


def kept(tx, steps=STEPS):
    return math.prod(1 - decay_of(tx, step) for step in range(steps))


def scaled(tree, factor):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, float) * factor, x.dtype), tree)


# Zero gradients


@each_unit
def test_a_zero_gradient_decays_by_the_product_of_the_steps(tx):
    params, _ = trained(tx(), silent())
    assert_close(params, scaled(small_params(), kept(tx)))


@pytest.mark.parametrize("tx", COUPLED, ids=str)
def test_a_zero_gradient_under_coupled_adam_moves_by_the_learning_rate_whatever_the_decay(tx):
    params, given = small_params(), take(silent(), 0)
    exact = {"b2": 0.5, "eps": 0.0} if tx.takes("b2") else {}
    for decay in (DECAY, DECAY / 10):
        built = tx(weight_decay=decay, **exact)
        updates, _ = built.update(given, built.init(params), params)
        moved = jax.tree.map(jnp.sign, params) if exact else scaled(params, decay)
        assert_close(updates, scaled(moved, -ALPHA))


def test_stop_gradient_gives_a_zero_gradient_which_decays():
    tx, params = dwd.adamw(ALPHA, weight_decay=DECAY), small_params()

    def loss(params):
        return jnp.sum(params["kernel"]) + jnp.sum(jax.lax.stop_gradient(params["bias"]))

    (after, _) = apply(tx, (params, tx.init(params)), jax.grad(loss)(params))
    assert_close(after["bias"], scaled(params["bias"], 1 - DECAY))


# None gradients


@pytest.mark.parametrize("tx", [tx for tx in OPTIMIZERS if not tx.takes("tx")], ids=str)
def test_a_leaf_without_gradient_neither_decays_nor_changes_its_state(tx):
    params, state = reference(tx)
    given = take(gradients(params), 0) | {"bias": None}
    updates, after = tx().update(given, state, params)
    moved = eqx.apply_updates(params, updates)
    chex.assert_trees_all_equal(moved["bias"], params["bias"])
    assert np.all(np.asarray(moved["kernel"] != params["kernel"]))
    chex.assert_trees_all_equal(of_leaf("bias", after), of_leaf("bias", state))


def test_momentum_of_optax_forgets_a_leaf_without_gradient():
    params = small_params()
    for tx in (optax.trace(0.9), dwd.extend_with_decoupled_weight_decay(optax.sgd(0.1, 0.9), 1e-3)):
        _, state = tx.update(params | {"bias": None}, tx.init(params), params)
        assert not of_leaf("bias", state)
        with pytest.raises(TypeError, match="NoneType"):
            tx.update(params, state, params)


def of_leaf(name, state):
    """What a state holds for one leaf."""
    keyed = jax.tree_util.tree_leaves_with_path(state)
    return [x for path, x in keyed if getattr(path[-1], "key", None) == name]


# Frozen leaves

FROZEN = {"bias": True, "kernel": False}
LABELS = {"bias": "frozen", "kernel": "free"}


def partitioned(tx):
    return optax.partition({"free": tx, "frozen": optax.set_to_zero()}, LABELS)


def zeroed_after(tx):
    return optax.chain(tx, optax.masked(optax.set_to_zero(), FROZEN))


def zeroed_before(tx):
    return optax.chain(optax.masked(optax.set_to_zero(), FROZEN), tx)


@each
@pytest.mark.parametrize("freeze", [partitioned, zeroed_after])
def test_a_leaf_that_is_frozen_outside_the_optimizer_keeps_every_bit(tx, freeze):
    params, state = trained(freeze(tx()))
    chex.assert_trees_all_equal(params["bias"], small_params()["bias"])
    assert_close(params["kernel"], reference(tx)[0]["kernel"])
    has_moments = bool(of_leaf("kernel", state))
    assert bool(of_leaf("bias", state)) == (has_moments and freeze is zeroed_after)


@each
def test_a_leaf_whose_gradient_is_set_to_zero_before_the_optimizer_decays(tx):
    params, _ = trained(zeroed_before(tx()))
    given = gradients(small_params()) | {"bias": silent()["bias"]}
    assert_close(params, trained(tx(), given)[0])
    assert np.all(np.abs(params["bias"]) < np.abs(small_params()["bias"]))


@each
def test_a_leaf_with_mask_0_follows_its_gradient_alone(tx):
    decay = "normalized_weight_decay" if tx.takes("normalized_weight_decay") else "weight_decay"
    params, _ = trained(tx(mask={"bias": False, "kernel": True}))
    without, _ = trained(tx(**{decay: 0.0}))
    assert_close(params["bias"], without["bias"])
    assert np.any(params["kernel"] != without["kernel"])


def test_what_extends_a_partition_decays_its_frozen_leaf_unless_masked():
    extend = functools.partial(
        dwd.extend_with_decoupled_weight_decay, partitioned(optax.sgd(ALPHA)), DECAY
    )
    params, _ = trained(extend())
    assert_close(params["bias"], scaled(small_params()["bias"], (1 - DECAY) ** STEPS))
    params, _ = trained(extend({"bias": False, "kernel": True}))
    chex.assert_trees_all_equal(params["bias"], small_params()["bias"])


# Tied parameters


@each
def test_copies_stay_tied_if_and_only_if_they_get_the_same_gradients(tx):
    kernel, given = small_params()["kernel"], gradients(small_params())["kernel"]
    copies = {"embed": kernel, "head": kernel}
    tied, _ = trained(tx(), {"embed": given, "head": given}, copies)
    chex.assert_trees_all_equal(tied["embed"], tied["head"])
    assert_close(tied["embed"], trained(tx(), {"w": given}, {"w": kernel})[0]["w"])
    apart, _ = trained(tx(), {"embed": given, "head": -given}, copies)
    assert np.max(np.abs(apart["embed"] - apart["head"])) > RELATIVE["separation"]


class Tied(nnx.Module):
    """Two names for one Variable."""

    def __init__(self):
        self.embed = nnx.Param(small_params()["kernel"])
        self.head = self.embed


@each_decoupled
def test_a_shared_variable_decays_once(tx):
    model = Tied()
    optimizer = nnx.Optimizer(model, tx(), wrt=nnx.Param)
    gradient = nnx.grad(lambda model: 0 * jnp.sum(model.embed[...] * model.head[...]))(model)
    optimizer.update(model, gradient)
    assert model.embed is model.head
    once = scaled(small_params()["kernel"], 1 - decay_of(tx, 0))
    assert_close(model.head[...], once)


# Gradient accumulation


@each_decoupled
def test_micro_steps_do_not_decay_and_the_real_step_decays_once(tx):
    wrapped = optax.MultiSteps(tx(), every_k_schedule=2).gradient_transformation()

    def step(carry, gradient):
        carry = apply(wrapped, carry, gradient)
        return carry, carry[0]

    start = small_params()
    given = jax.tree.map(lambda x: jnp.zeros((4, *x.shape)), start)
    _, path = jax.jit(lambda: jax.lax.scan(step, (start, wrapped.init(start)), given))()
    chex.assert_trees_all_equal(take(path, 0), start)
    assert_close(take(path, 1), scaled(start, kept(tx, 1)))
    chex.assert_trees_all_equal(take(path, 2), take(path, 1))
    assert_close(take(path, 3), scaled(start, kept(tx, 2)))


def test_a_micro_step_that_is_skipped_puts_the_decay_off():
    wrapped = optax.MultiSteps(
        dwd.sgdw(ALPHA, weight_decay=DECAY), 2, should_skip_update_fn=optax.skip_not_finite
    )
    params = {"w": jnp.ones(2)}
    state = wrapped.init(params)
    for gradient, expected in ((0.0, 1.0), (np.nan, 1.0), (0.0, 1 - DECAY)):
        updates, state = wrapped.update({"w": jnp.full(2, gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        assert_close(params["w"], jnp.full(2, expected))


# Non-finite gradients and loss scaling


@each
def test_a_gradient_whose_nan_is_set_to_zero_is_a_zero_gradient(tx):
    given = gradients(small_params())
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), given)
    zeroed = jax.tree.map(lambda g: g.at[1].set(0.0), given)
    params, state = trained(optax.chain(optax.zero_nans(), tx()), broken)
    assert_close((params, state[1]), trained(tx(), zeroed))


S = 2.0**10
"""A loss scale: a power of two, which rounds nothing."""


def with_the_scale_left_in(tx):
    """The arguments with which gradients do what gradients times S do with those of `tx`."""
    if tx.takes("tx"):
        return {"tx": optax.sgd(ALPHA * S, momentum=0.9)}
    descends = not tx.takes("b2") or str(tx) == "lionw"
    rate = {"learning_rate": ALPHA * S} if descends and str(tx) != "lionw" else {}
    eps = {"eps": EPS / S} if tx.takes("eps") else {}
    decay = {"weight_decay": DECAY / S} if tx in COUPLED else {}
    return rate | eps | decay


@each
def test_a_loss_scale_that_is_never_divided_out_divides_the_coupled_coefficient_alone(tx):
    given = gradients(small_params())
    left_in, _ = trained(tx(), jax.tree.map(lambda g: S * g, given))
    assert_close(left_in, trained(tx(**with_the_scale_left_in(tx)), given)[0])


@each
def test_a_loss_scale_that_is_divided_out_changes_no_bit(tx):
    given = gradients(small_params())
    unscale = optax.chain(optax.scale(1 / S), tx())
    params, _ = trained(unscale, jax.tree.map(lambda g: S * g, given))
    chex.assert_trees_all_equal(params, trained(tx(), given)[0])


# Averages of the weights


@pytest.mark.parametrize("tx", [tx for tx in DECOUPLED if not tx.takes("period")], ids=str)
def test_an_average_of_weights_decays_as_the_weights_do_and_later(tx):
    b, q, built, ema = 0.75, 1 - decay_of(tx, 0), tx(), optax.ema(0.75, debias=True)
    start = small_params()

    def step(carry, gradient):
        params, state, averaged = carry
        params, state = apply(built, (params, state), gradient)
        average, averaged = ema.update(params, averaged)
        return (params, state, averaged), average

    carry = (start, built.init(start), ema.init(start))
    path = jax.jit(lambda: jax.lax.scan(step, carry, silent())[1])()
    for t in range(1, STEPS + 1):
        factor = (1 - b) * q * (q**t - b**t) / (q - b) / (1 - b**t)
        assert_close(take(path, t - 1), scaled(start, factor))
        assert q**t < factor < 1 or t == 1
