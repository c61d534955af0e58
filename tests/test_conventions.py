"""Records of conventions, `convert` between them and `like`, against NumPy; the libraries themselves
are in tests/libraries."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd.conventions import CONVENTIONS, NoCounterpart
from decoupled_wd.conventions._convert import convert
from tests.reference import conventions as reference
from tests.tolerances import RELATIVE

T, D = 24, 5
RNG = np.random.default_rng(5)
THETA0, NOISE = RNG.normal(size=D), RNG.normal(size=(T, D))
CURVATURE = np.logspace(-2, 0, D)

WORDS = {
    "learning_rate": 0.05, "weight_decay": 0.2, "b1": 0.8, "b2": 0.9, "eps": 0.03, "eps_root": 0.0,
    "momentum": 0.7, "dampening": 0.0, "nesterov": False, "eps_placement": "after",
    "learning_rate_in_buffer": False, "variant": "pytorch",
}  # fmt: skip
"""What each argument is given, by this library's word; eps is large, so that its place shows."""
NORMALIZERS = {"batch_size": 4, "total_iterations": 100, "cycle_steps": 100}
ETAS = {"constant": np.ones(T), "schedule": 0.55 + 0.45 * np.cos(0.9 * np.arange(T + 2))[:T]}

KNOWN = [
    c for c in CONVENTIONS
    if c.direction in reference.STEPS and (c.unit is not None or c.form == "coupled")
]  # fmt: skip
"""The records that NumPy runs."""


def arguments(convention, **changes):
    """A call of a library: every argument by its word."""
    values = {**WORDS, **changes}
    given = {
        argument: tuple(values[w] for w in word) if isinstance(word, tuple) else values[word]
        for argument, word in convention.arguments.items()
    }
    needed = {name: NORMALIZERS[name] for name in convention.normalizer_arguments}
    return {**given, **needed, **convention.options}


def closed_loop(t, theta):
    """Gradients of a noisy quadratic: a difference of the maps grows instead of hiding."""
    return CURVATURE * theta + NOISE[t]


def numpy_path(convention, given, eta):
    return reference.simulate(convention, given, eta, closed_loop, THETA0)


def schedule_of(convention, eta):
    """The same multipliers, by the convention's count of steps; None where constant."""
    if np.all(eta == 1):
        return None
    return lambda step: jnp.asarray(eta)[jnp.clip(step - convention.first_step, 0, T - 1)]


def table(value):
    """A schedule as one number a step."""
    if not callable(value):
        return value
    return np.asarray(jax.vmap(value)(jnp.arange(T)))


def converted_path(conversion):
    """The target run in NumPy with what `convert` gave."""
    target = conversion.target
    given = {
        k: tuple(map(table, v)) if isinstance(v, tuple) else table(v)
        for k, v in conversion.arguments.items()
    }
    eta = 1.0 if conversion.schedule is None else conversion.schedule
    if callable(eta):
        eta = jax.vmap(eta)(jnp.arange(target.first_step, T + target.first_step))
    return numpy_path(target, given, np.broadcast_to(np.asarray(eta), T))


def deviation(one, other):
    return np.max(np.abs(one - other)) / np.max(np.abs(THETA0))


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("convention", KNOWN, ids=lambda c: c.title)
def test_like_is_the_record_run_in_numpy(convention, eta):
    given = arguments(convention)
    with jax.enable_x64(True):
        tx = dwd.like(convention.name, schedule=schedule_of(convention, ETAS[eta]), **given)

        def step(carry, noise):
            theta, state = carry
            updates, state = tx.update(jnp.asarray(CURVATURE) * theta + noise, state, theta)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), theta

        theta0 = jnp.asarray(THETA0)
        path = jax.lax.scan(step, (theta0, tx.init(theta0)), jnp.asarray(NOISE))[1]
        path = np.asarray(path)
    assert deviation(path, numpy_path(convention, given, ETAS[eta])) <= RELATIVE["reference"]


def conversion_between(source, target, eta, **changes):
    """The conversion, and whether it is exact."""
    asked = {name: NORMALIZERS[name] for name in target.normalizer_arguments}
    call = ", ".join(f"{k}={v!r}" for k, v in {**target.options, **asked}.items())
    try:
        return convert(
            source.name, f"{target.name}({call})", schedule=schedule_of(source, eta),
            **arguments(source, **changes),
        ), True  # fmt: skip
    except NoCounterpart as error:
        return error.nearest, False


CHANGES = {
    "as it is": {},
    "without eps and momentum": {"eps": 0.0, "momentum": 0.0},
    "rate in the buffer": {"learning_rate_in_buffer": True, "eps_placement": "before"},
    "Nesterov, dampened": {"nesterov": True, "dampening": 0.3, "variant": "optax"},
    "Nesterov, rate in the buffer": {"nesterov": True, "learning_rate_in_buffer": True},
}


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("source", KNOWN, ids=lambda c: c.title)
def test_a_conversion_gives_the_same_path_just_when_it_is_exact(source, eta, changes):
    with jax.enable_x64(True):
        path = numpy_path(source, arguments(source, **CHANGES[changes]), ETAS[eta])
        for target in KNOWN:
            if target.direction != source.direction:
                continue
            conversion, exact = conversion_between(source, target, ETAS[eta], **CHANGES[changes])
            gap = deviation(converted_path(conversion), path)
            assert (gap <= RELATIVE["reference"]) == exact, f"{target.title}: {gap:.1e}\n{conversion}"
