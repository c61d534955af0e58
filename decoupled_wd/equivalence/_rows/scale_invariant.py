"""Losses that do not see the length of the weights: there decay is a learning rate.

A gradient at sθ is then 1/s times the one at θ, and orthogonal to θ. The right sides run without decay
on φ and see the loss at φ itself; what is compared is P_t φ_t.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import sgd_l2
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Mutant, Problem, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    SIGN,
    SOME_EPS,
    WITHOUT_EPS,
    WITHOUT_EPS_TEXT,
    a_t,
    adam_of,
    adamw_of,
    at,
    changing_trace,
    l_t,
    last_step,
    plain_sgd_of,
    previous,
    sgdw_of,
    step_number,
    witness_values,
)


def _kept(h: Hyper) -> jax.Array:
    """P_t."""
    return jnp.cumprod(1 - l_t(h))


def _shrunk(h: Hyper, path: jax.Array) -> jax.Array:
    return h["kept"][:, None] * path


def _growing_rate(h: Hyper) -> Hyper:
    """g1: what decay amounts to in SGD."""
    kept = _kept(h)
    before = jnp.concatenate([jnp.ones(1), kept[:-1]])
    return {"kept": kept, "rate": a_t(h) / (before * kept)}


def _momentum_map(h: Hyper) -> Hyper:
    return {**_growing_rate(h), "beta": h["beta"] * (1 - previous(l_t(h)))}


def _adam_map(h: Hyper) -> Hyper:
    kept, left_before = _kept(h), 1 - previous(l_t(h))
    return {
        "kept": kept,
        "rate": a_t(h) / kept,
        "decay1": h["b1"] * left_before,
        "decay2": h["b2"] * left_before**2,
    }


def _stock_adam_map(h: Hyper) -> Hyper:
    t, keep = step_number(h), 1 - h["lam"]
    b1, b2 = h["b1"] * keep, h["b2"] * keep**2

    def gain(b: Any, changed: Any) -> Any:
        return (1 - b) / (1 - changed) * (1 - changed**t) / (1 - b**t)

    rate = h["alpha"] / keep**t * gain(h["b1"], b1) / jnp.sqrt(gain(h["b2"], b2))
    return {"kept": keep**t, "rate": rate, "b1": b1, "b2": b2}


def _root(h: Hyper) -> Any:
    """The larger root z of z² − (1+β−αλ')z + β."""
    half = (1 + h["beta"] - h["alpha"] * h["lam"]) / 2
    return half + jnp.sqrt(half**2 - h["beta"])


def _exponential_rate(h: Hyper) -> Hyper:
    t, z = step_number(h), _root(h)
    return {"kept": z**t, "rate": h["alpha"] / z ** (2 * t - 1)}


def _sgd_at(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(scale_by_schedule(at(h["rate"])), SIGN)


def _adam_at(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(adam_of(h), _sgd_at(h))


class _MomentsState(NamedTuple):
    count: jax.Array
    first: Any
    second: Any


def _adam_of_changing_decays(h: Hyper, nesterov: bool = False) -> optax.GradientTransformation:
    """Adam with eps = 0 whose moments decay otherwise than their gains and corrections say."""
    b1, b2 = h["b1"], h["b2"]
    first, second = changing_trace(h["decay1"]), changing_trace(h["decay2"])

    def init(params: Any) -> _MomentsState:
        return _MomentsState(jnp.zeros([], jnp.int32), first.init(params), second.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _MomentsState]:
        del params
        g, t = updates, state.count + 1
        m, first_state = first.update((1 - b1) * g, state.first)
        v, second_state = second.update((1 - b2) * g**2, state.second)
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        return m_hat / jnp.sqrt(v / (1 - b2**t)), _MomentsState(t, first_state, second_state)

    return optax.chain(optax.GradientTransformation(init, update), _sgd_at(h))


def _direction(h: Hyper, path: jax.Array) -> jax.Array:
    del h
    return path / jnp.linalg.norm(path, axis=-1, keepdims=True)


class _NormState(NamedTuple):
    count: jax.Array
    squared: jax.Array


def _projected_sgd(h: Hyper) -> optax.GradientTransformation:
    """SGD on the unit sphere, each step pulled back to it; the norm that decay would leave sets the
    rate, and is reckoned without the weights."""

    def init(params: Any) -> _NormState:
        del params
        return _NormState(jnp.zeros([], jnp.int32), jnp.asarray(h["squared0"]))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _NormState]:
        g, (t, squared) = updates, state
        moved = params - h["rate"][t] / squared * g
        squared = (1 - l_t(h)[t]) ** 2 * squared + a_t(h)[t] ** 2 * jnp.sum(g**2) / squared
        return moved / jnp.linalg.norm(moved) - params, _NormState(t + 1, squared)

    return optax.GradientTransformation(init, update)


def _sgd_on_phi(h: Hyper) -> optax.GradientTransformation:
    """SGD on phi, which has P_t as one entry more: the problem sees their product."""

    def move(phi: jax.Array, update: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.concatenate([(phi + update)[:-1], phi[-1:] * (1 - l_t(h)[t])])

    return optax.chain(_sgd_at(h), last_step(move))


def _polar_angle(theta0: list[float], steps: int) -> Problem:
    """f = the polar angle of (θ_1, θ_2), of gradient (−θ_2, θ_1)/|θ|²."""

    def gradient(theta: jax.Array, batch: Any) -> jax.Array:
        del batch
        return jnp.stack([-theta[1], theta[0]]) / jnp.sum(theta**2)

    return Problem("the polar angle", gradient, np.zeros((steps, 1)), np.asarray(theta0))


def _slope(h: Hyper, path: jax.Array) -> jax.Array:
    """θ_2/θ_1: all that a scale-invariant loss sees of two weights."""
    del h
    return path[:, 1:] / path[:, :1]


def _decay_of_this_step(r: Hyper) -> Hyper:
    """Adam's decays with l_t in the place of l_{t-1}."""
    left = 1 - l_t(r)
    return {"decay1": r["b1"] * left, "decay2": r["b2"] * left**2}


_START_SIZES = {"s": Interval(0.1, 10.0)}

ROWS = (
    Relation(
        name="g1",
        statement="scale-invariant loss: SGD with weight decay = SGD with a growing rate, any schedule",
        left=plain_sgd_of,
        right=_sgd_at,
        verdict="rounding",
        map=_growing_rate,
        map_text="a_t → a_t/(P_{t-1}P_t), no decay; θ_t = P_tφ_t",
        read_right=_shrunk,
        mutant=Mutant("P_t² for P_{t-1}P_t", lambda r: {"rate": a_t(r) / r["kept"] ** 2}),
        why="∇f(θ) = ∇f(φ)/P_{t-1}, so P_tφ_t = (1−l_t)θ_{t-1} − a_t∇f(θ_{t-1}) divided by P_t is "
        "φ_t = φ_{t-1} − a_t/(P_{t-1}P_t) ∇f(φ_{t-1}). At constant numbers: α(1−λ)^−(2t−1).",
        source="Li and Arora 2020, arXiv 1910.07454",
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="g2",
        statement="scale-invariant loss: SGDW with momentum = momentum, no decay, growing rate, new β",
        left=lambda h: sgdw_of(h, in_buffer=False),
        right=lambda h: optax.chain(changing_trace(h["beta"]), _sgd_at(h)),
        verdict="rounding",
        map=_momentum_map,
        map_text="a_t → a_t/(P_{t-1}P_t), β_t = β(1−l_{t-1}), l_0 := 0, no decay; θ_t = P_tφ_t; rate "
        "outside",
        read_right=_shrunk,
        mutant=Mutant(
            "l_t for l_{t-1} in β_t",
            lambda r: {"beta": jnp.append(r["beta"][1:], r["beta"][-1])},
        ),
        why="n_t = P_{t-1}m_t obeys n_t = β(1−l_{t-1})n_{t-1} + ∇f(φ_{t-1}), and "
        "φ_t = φ_{t-1} − a_tm_t/P_t.",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="g3",
        statement="scale-invariant loss: AdamW with eps = 0 = Adam, growing rate, changed moments",
        left=adamw_of,
        right=_adam_of_changing_decays,
        verdict="rounding",
        map=_adam_map,
        map_text="a_t → a_t/P_t, moments decay by b₁(1−l_{t-1}) and b₂(1−l_{t-1})², l_0 := 0, gains and "
        "bias corrections as they were, no decay; θ_t = P_tφ_t",
        read_right=_shrunk,
        values=WITHOUT_EPS,
        condition=WITHOUT_EPS_TEXT,
        outside=SOME_EPS,
        mutant=Mutant("l_t for l_{t-1} in the moments", _decay_of_this_step),
        why="P_{t-1}m_t and P_{t-1}²v_t obey the changed recursions with the gradients at φ. Their "
        "ratio is the old direction u_t, and φ_t = φ_{t-1} − (a_t/P_t)u_t.",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="g3-nadamw",
        statement="scale-invariant loss: NAdamW with eps = 0 = NAdam, growing rate, changed moments",
        left=lambda h: adamw_of(h, nesterov=True),
        right=lambda h: _adam_of_changing_decays(h, nesterov=True),
        verdict="rounding",
        map=_adam_map,
        map_text="as g3; the look-ahead keeps b₁",
        read_right=_shrunk,
        values=WITHOUT_EPS,
        condition=WITHOUT_EPS_TEXT,
        outside=SOME_EPS,
        mutant=Mutant("l_t for l_{t-1} in the moments", _decay_of_this_step),
        why="As g3: m_t and g_t both take the factor P_{t-1}, and so does any combination of them.",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="g4",
        statement="scale-invariant loss: AdamW with eps = 0 = stock Adam, growing rate, constant decay",
        left=adamw_of,
        right=_adam_at,
        verdict="rounding",
        map=_stock_adam_map,
        map_text="b₁' = b₁(1−λ), b₂' = b₂(1−λ)², rate α(1−λ)⁻ᵗ r₁/√r₂, "
        "r_i = (1−b_i)(1−b_i'ᵗ)/((1−b_i')(1−b_iᵗ)), no decay; θ_t = (1−λ)ᵗφ_t",
        read_right=_shrunk,
        values=WITHOUT_EPS,
        constant_schedule=True,
        condition=WITHOUT_EPS_TEXT,
        outside=SOME_EPS,
        mutant=Mutant("b₂' = b₂(1−λ)", lambda r: {"b2": r["b2"] / (1 - r["lam"])}),
        why="g3 at a constant decay: the moments' new decay is constant, and the rate makes good what "
        "their gains and corrections lose. It grows like (1−λ)⁻ᵗ, not like SGD's (1−λ)⁻²ᵗ.",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="g5",
        statement="scale-invariant loss: momentum with L2 = momentum with an exponential rate",
        left=lambda h: sgd_l2(
            h["alpha"], h["beta"], weight_decay=h["lam"], learning_rate_in_buffer=False
        ),
        right=lambda h: optax.chain(optax.trace(h["beta"]), _sgd_at(h)),
        verdict="rounding",
        map=_exponential_rate,
        map_text="α → αz^−(2t−1), z the larger root of z² − (1+β−αλ')z + β, no penalty; θ_t = zᵗφ_t",
        start=lambda h: {"trace": -(1 - _root(h)) / _root(h) * h["theta0"] / h["alpha"]},
        start_text="n_0 = −(1−z)θ_0/(αz)",
        read_right=_shrunk,
        constant_schedule=True,
        condition="αλ' ≤ (1−√β)²",
        domain={"beta": Interval(0.0, 0.9), "lam": Interval(1e-5, 0.02)},
        outside={
            "alpha": Interval(0.1, 0.2),
            "beta": Interval(0.8, 0.9),
            "lam": Interval(0.2, 0.5),
        },
        mutant=Mutant("n_0 without 1/z", lambda r: {"trace": r["trace"] * r["kept"][0]}),
        why="With θ_t = zᵗφ_t the recursion of b1 is φ_t − φ_{t-1} = (β/z²)(φ_{t-1} − φ_{t-2}) − "
        "αz^−(2t−1)∇f(φ_{t-1}), as z² + β = (1+β−αλ')z. θ_{-1} = θ_0 gives φ_{-1} = zθ_0, and n_0.",
        source="Li and Arora 2020, arXiv 1910.07454",
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="g6",
        statement="any loss: SGD with weight decay = SGD on f_t(P_{t-1}φ), growing rate, any schedule",
        left=plain_sgd_of,
        right=_sgd_on_phi,
        verdict="rounding",
        map=_growing_rate,
        map_text="a_t → a_t/(P_{t-1}P_t), no decay; θ_t = P_tφ_t",
        start=lambda h: {"theta0": jnp.append(h["theta0"], 1.0)},
        start_text="φ_0 = θ_0",
        parameters=lambda h, phi: phi[-1] * phi[:-1],
        mutant=Mutant("P_t² for P_{t-1}P_t", lambda r: {"rate": a_t(r) / r["kept"] ** 2}),
        why="The gradient of f_t(P_{t-1}φ) is P_{t-1}∇f_t(θ_{t-1}): the step in φ is a_t/P_t times the "
        "gradient at θ_{t-1}, and P_t times it a_t.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="g7",
        statement="scale-invariant loss: the direction of SGD with weight decay = projected SGD's",
        left=plain_sgd_of,
        right=_projected_sgd,
        verdict="rounding",
        map=lambda h: {"rate": a_t(h) / (1 - l_t(h)), "squared0": jnp.sum(h["theta0"] ** 2)},
        map_text="rate a_t/((1−l_t)ρ_{t-1}), ρ_t = (1−l_t)²ρ_{t-1} + a_t²|∇f|²/ρ_{t-1}, ρ_0 = |θ_0|²",
        start=lambda h: {"theta0": h["theta0"] / jnp.linalg.norm(h["theta0"])},
        start_text="φ_0 = θ_0/|θ_0|",
        read_left=_direction,
        mutant=Mutant("rate a_t/ρ_{t-1}", lambda r: {"rate": a_t(r)}),
        why="θ_t = (1−l_t)|θ|(φ − a_t/((1−l_t)|θ|²) ∇f(φ)), as ∇f(θ) = ∇f(φ)/|θ|. That ∇f is "
        "orthogonal to φ gives ρ = |θ|².",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="start-size-sgdw",
        statement="scale-invariant loss: SGDW = SGDW from weights s times as large, s² times the rate",
        left=sgdw_of,
        right=sgdw_of,
        verdict="rounding",
        map=lambda h: {"alpha": h["s"] ** 2 * h["alpha"]},
        map_text="α → s²α, same λ (the paper's) and β",
        start=lambda h: {"theta0": h["s"] * h["theta0"]},
        start_text="sθ_0",
        read_right=lambda h, path: path / h["s"],
        values={"s": 3.0},
        domain=_START_SIZES,
        mutant=Mutant("α → sα", lambda r: {"alpha": r["alpha"] / r["s"]}),
        why="At sθ the gradient is 1/s as large; s²α makes of it steps s times as large.",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="start-size-adamw",
        statement="scale-invariant loss: AdamW, eps = 0 = AdamW from weights s times as large, rate too",
        left=adamw_of,
        right=adamw_of,
        verdict="rounding",
        map=lambda h: {"alpha": h["s"] * h["alpha"]},
        map_text="α → sα, same λ (the paper's)",
        start=lambda h: {"theta0": h["s"] * h["theta0"]},
        start_text="sθ_0",
        read_right=lambda h, path: path / h["s"],
        values={**WITHOUT_EPS, "s": 3.0},
        condition=WITHOUT_EPS_TEXT,
        domain=_START_SIZES,
        outside=SOME_EPS,
        mutant=Mutant("α → s²α", lambda r: {"alpha": r["s"] * r["alpha"]}),
        why="Adam's direction does not see that the gradient is 1/s as large (e1).",
        source=DERIVED,
        problem=_problems.SCALE_INVARIANT,
    ),
    Relation(
        name="scale-invariant-decay",
        statement="scale-invariant loss: SGD with weight decay ≠ SGD without, though it sees no length",
        left=plain_sgd_of,
        right=lambda h: plain_sgd_of(h, weight_decay=0.0),
        verdict="never",
        map_text="the same rate, no decay; compared is θ_2/θ_1",
        read_left=_slope,
        read_right=_slope,
        values=witness_values([1.0], alpha=1.0, lam=0.1),
        gap=1 / 9,
        why="The gradient of the polar angle at (1, 0) is (0, 1). One step, α = 1, λ = 0.1: (0.9, −1) "
        "against (1, −1), slopes of −10/9 and −1. Decay is a larger learning rate (g1).",
        source="van Laarhoven 2017, arXiv 1706.05350",
        problem=_polar_angle([1.0, 0.0], 1),
    ),
    Relation(
        name="scale-invariant-momentum",
        statement="scale-invariant loss: SGDW with momentum ≠ momentum with g1's rate and the same β",
        left=lambda h: sgdw_of(h, in_buffer=False),
        right=lambda h: optax.chain(optax.trace(h["beta"]), _sgd_at(h)),
        verdict="never",
        map=_growing_rate,
        map_text="a_t → a_t/(P_{t-1}P_t), β as it was, no decay; compared is P_tφ_t",
        read_right=_shrunk,
        values=witness_values([1.0, 1.0], alpha=1.0, lam=0.1, beta=0.5),
        gap=1 / 18,
        why="Two steps from (1, 0), α = 1, λ = 0.1, β = ½. The buffer's share in the second step is "
        "αβ(0, 1) on the left, and αβ(0, 1)/(1−λ) on the right: ½(1/0.9 − 1).",
        source=DERIVED,
        problem=_polar_angle([1.0, 0.0], 2),
    ),
    Relation(
        name="scale-invariant-adamw",
        statement="scale-invariant loss: AdamW ≠ Adam with the growing rate that is right for SGD",
        left=adamw_of,
        right=_adam_at,
        verdict="never",
        map=_growing_rate,
        map_text="a_t → a_t/(P_{t-1}P_t), no decay; compared is P_tφ_t",
        read_right=_shrunk,
        values=witness_values(
            [1.0, 1.0], alpha=1.0, lam=0.1, b1=0.0, b2=0.0, eps=0.0, eps_root=0.0
        ),
        gap=1 / 9,
        why="b₁ = b₂ = 0, so that u is the gradient's sign: (−1, 1) at (1, 1), then (1, 1) at (1.9, "
        "−0.1). The second step is α on the left and α/(1−λ) on the right: 1/0.9 − 1.",
        source=DERIVED,
        problem=_polar_angle([1.0, 1.0], 2),
    ),
)
