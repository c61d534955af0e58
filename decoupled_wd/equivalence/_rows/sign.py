"""Steps that are signs: Lion, Signum, Frank and Wolfe."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import lionw
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    adamw_of,
    at,
    l_t,
    last_step,
    with_decay,
    witness_values,
)

_CONSTANT = _problems.given(
    "a constant gradient",
    np.tile([0.3, -0.5, 0.7, -1.0, 1.3, -2.0], (300, 1)),
    np.linspace(-1.0, 1.5, 6),
)
_SHAPE = (2, 3)


class _LionState(NamedTuple):
    m: jax.Array


def _lion_of(h: Hyper) -> optax.GradientTransformation:
    return lionw(
        h["alpha"], h["lion_b1"], h["lion_b2"], weight_decay=h["lam"], schedule=at(h["eta"])
    )


def _lion_without_sign(h: Hyper) -> optax.GradientTransformation:
    """Lion-K with K = |x|²/2, whose gradient is the identity in the place of the sign."""

    def init(params: Any) -> _LionState:
        return _LionState(jnp.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _LionState]:
        del params
        u = h["b1"] * state.m + (1 - h["b1"]) * updates
        return u, _LionState(h["b2"] * state.m + (1 - h["b2"]) * updates)

    return optax.GradientTransformation(init, update)


def _quasi_hyperbolic(beta: Any, nu: Any) -> optax.GradientTransformation:
    """(1 - nu) g + nu m, m the average of the gradients, this one with them."""
    average = optax.ema(beta, debias=False)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        m, state = average.update(updates, state, params)
        return (1 - nu) * updates + nu * jnp.asarray(m), state

    return optax.GradientTransformation(average.init, update)


def _frank_wolfe(corner: Callable[[jax.Array], jax.Array]) -> Any:
    """Go the share gamma_t of the way to the point of the ball where the gradient is lowest."""

    def chain(h: Hyper) -> optax.GradientTransformation:
        def move(theta: jax.Array, g: jax.Array, t: jax.Array) -> jax.Array:
            gamma = h["gamma"][t]
            return (1 - gamma) * theta + gamma * h["radius"] * corner(g)

        return last_step(move)

    return chain


def _lowest_in_spectral_ball(g: jax.Array) -> jax.Array:
    u, _, v = jnp.linalg.svd(g.reshape(_SHAPE), full_matrices=False)
    return -(u @ v).ravel()


def _orthogonalized() -> optax.GradientTransformation:
    """Muon without momentum, its iteration with coefficients that converge to the polar factor."""
    converging = 25 * ((15 / 8, -10 / 8, 3 / 8),)
    muon = optax.contrib.scale_by_muon(converging, 25, beta=0.0, eps=0.0, nesterov=False)

    def init(params: Any) -> Any:
        return muon.init(params.reshape(_SHAPE))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        u: Any
        u, state = muon.update(updates.reshape(_SHAPE), state, params)
        return u.ravel(), state

    return optax.GradientTransformation(init, update)


def _ball(h: Hyper) -> Hyper:
    return {"gamma": l_t(h), "radius": h["alpha"] / h["lam"]}


_BALL_TEXT = (
    "γ_t = η_tλ, radius α/λ (in PyTorch's and Optax's unit: 1/weight_decay); the Frank-Wolfe method "
    "where θ_0 is in the ball and η_tλ ≤ 1"
)
_FIRST_MOMENT_MATTERS = {"b1": Interval(0.1, 0.9)}

ROWS = (
    Relation(
        name="i1",
        statement="sign descent with weight decay = AdamW with b1 = b2 = eps = 0",
        left=lambda h: with_decay(optax.scale_by_sign(), h),
        right=adamw_of,
        verdict="rounding",
        values={"b1": 0.0, "b2": 0.0, "eps": 0.0, "eps_root": 0.0},
        condition="b1 = b2 = eps = 0",
        outside=_FIRST_MOMENT_MATTERS,
        mutant=Mutant("b1 = 0.9", lambda r: {"b1": r["b1"] + 0.9}),
        why="g/√(g²) = sign(g). No gradient may be 0.",
        source=DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
        quick=True,
    ),
    Relation(
        name="i1-lion",
        statement="AdamW with b1 = b2 = eps = 0 = Lion with b1 = 0 and any b2",
        left=adamw_of,
        right=_lion_of,
        verdict="rounding",
        values={"b1": 0.0, "b2": 0.0, "eps": 0.0, "eps_root": 0.0, "lion_b1": 0.0, "lion_b2": 0.37},
        condition="b1 = b2 = eps = 0, and Lion's b1 = 0",
        domain={"lion_b2": Interval(0.0, 0.99)},
        outside=_FIRST_MOMENT_MATTERS,
        mutant=Mutant("Lion's b1 = 0.9", lambda r: {"lion_b1": r["lion_b1"] + 0.9}),
        why="Both directions are sign(g): Lion's is the sign of b1·m + (1−b1)g. No gradient may be 0.",
        source=DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
        quick=True,
    ),
    Relation(
        name="i2",
        statement="sign descent with weight decay = AdamW with eps = 0 on a constant gradient",
        left=lambda h: with_decay(optax.scale_by_sign(), h),
        right=adamw_of,
        verdict="rounding",
        map_text="any b1, b2",
        values={"eps": 0.0, "eps_root": 0.0},
        condition="eps = 0",
        outside={"eps": Interval(0.01, 1.0)},
        mutant=Mutant("eps = 0.001", lambda r: {"eps": r["eps"] + 1e-3}),
        why="Bias-corrected, an average of one number is that number: m̂ = g, v̂ = g².",
        source=DERIVED,
        problem=_CONSTANT,
    ),
    Relation(
        name="i3-signum",
        statement="Signum with weight decay = Lion with b1 = b2",
        left=lambda h: with_decay(
            optax.chain(optax.ema(h["beta"], debias=False), optax.scale_by_sign()), h
        ),
        right=_lion_of,
        verdict="rounding",
        map=lambda h: {"lion_b1": h["beta"], "lion_b2": h["beta"] + h["b2_excess"]},
        map_text="b1 = b2 = β",
        values={"b2_excess": 0.0},
        condition="b2 = b1",
        outside={"beta": Interval(0.1, 0.5), "b2_excess": Interval(0.3, 0.49)},
        mutant=Mutant("b2 = 0.99, Lion's default", lambda r: {"lion_b2": 0.99}),
        why="With b1 = b2 the average whose sign Lion takes is the one it keeps.",
        source="Chen et al. 2023, arXiv 2310.05898",
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="i3-qhm",
        statement="Lion without the sign = quasi-hyperbolic momentum (QHM), both with weight decay",
        left=lambda h: with_decay(_lion_without_sign(h), h),
        right=lambda h: with_decay(_quasi_hyperbolic(h["b2"], h["nu"]), h),
        verdict="rounding",
        map=lambda h: {"nu": h["b1"] / h["b2"]},
        map_text="β = b2, ν = b1/b2",
        mutant=Mutant("ν = b1", lambda r: {"nu": r["b1"]}),
        why="(1−ν)g + ν(b2·m + (1−b2)g) = νb2·m + (1−νb2)g; so νb2 = b1. ν is at most 1, as QHM has "
        "it, where b1 ≤ b2.",
        source="derived; Lion-K: Chen et al. 2023, arXiv 2310.05898; QHM: Ma and Yarats 2019, "
        "arXiv 1810.06801",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="i4-linf",
        statement="sign descent with weight decay = the recursion of Frank-Wolfe on |θ_i| ≤ α/λ",
        left=lambda h: with_decay(optax.scale_by_sign(), h),
        right=_frank_wolfe(lambda g: jnp.where(g > 0, -1.0, 1.0)),
        verdict="rounding",
        map=_ball,
        map_text=_BALL_TEXT,
        mutant=Mutant("γ = λ, without the schedule", lambda r: {"gamma": r["gamma"] / r["eta"]}),
        why="The box's corner with the lowest ⟨g, s⟩ is s = −(α/λ)sign(g); (1−ηλ)θ + ηλs = "
        "θ − η(α sign(g) + λθ).",
        source="Xie and Li 2024, arXiv 2404.04454",
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="i4-l2",
        statement="normalized SGD with weight decay = the recursion of Frank-Wolfe on |θ| ≤ α/λ",
        left=lambda h: with_decay(optax.normalize_by_update_norm(eps=0.0), h),
        right=_frank_wolfe(lambda g: -g / jnp.sqrt(g @ g)),
        verdict="rounding",
        map=_ball,
        map_text=_BALL_TEXT,
        mutant=Mutant("radius 1/λ", lambda r: {"radius": 1 / r["lam"]}),
        why="As i4-linf; the ball's point with the lowest ⟨g, s⟩ is s = −(α/λ)g/|g|.",
        source="Xie and Li 2024, arXiv 2404.04454",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="i4-spectral",
        statement="exact Muon, no momentum, with decay = the recursion of Frank-Wolfe on |Θ|₂ ≤ α/λ",
        left=lambda h: with_decay(_orthogonalized(), h),
        right=_frank_wolfe(_lowest_in_spectral_ball),
        verdict="rounding",
        map=_ball,
        map_text=f"{_BALL_TEXT}; Θ is θ as a 2×3 matrix",
        mutant=Mutant("radius 1/λ", lambda r: {"radius": 1 / r["lam"]}),
        why="As i4-linf; with G = USVᵀ the point with the lowest ⟨G, S⟩ is −(α/λ)UVᵀ, and UVᵀ is what "
        "Newton-Schulz iterations converge to: 25 of them, with (15, −10, 3)/8. Muon's usual five do "
        "not converge.",
        source="Chen et al. 2025, arXiv 2506.15054",
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="lion-vs-sign",
        statement="Lion with b1 > 0 ≠ sign descent",
        left=_lion_of,
        right=lambda h: with_decay(optax.scale_by_sign(), h),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0, 1.0], alpha=1.0, lam=0.0, lion_b1=0.5, lion_b2=0.5),
        gap=2.0,
        why="g = (4, −1), b1 = b2 = ½, α = 1: m_1 = 2, so Lion's second direction is sign(½·2 − ½) = 1, "
        "where the gradient's sign is −1. From 0 to −2 against −1 + 1 = 0.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[4.0], [-1.0]]),
    ),
    Relation(
        name="lion-vs-signum",
        statement="Lion ≠ Signum at either of Lion's betas, if they differ",
        left=_lion_of,
        right=lambda h: with_decay(
            optax.chain(optax.ema(h["beta"], debias=False), optax.scale_by_sign()), h
        ),
        verdict="never",
        map_text="β = b1 or β = b2",
        values=witness_values([1.0] * 2, alpha=1.0, lam=0.0, lion_b1=0.25, lion_b2=0.75),
        family={"beta": np.array([0.25, 0.75])},
        gap=2.0,
        why="g = (1, −0.15), b1 = ¼, b2 = ¾, α = 1. Lion: m_1 = ¼, then sign(1/16 − 0.1125) = −1. "
        "Signum with β = ¼: m_1 = ¾, then sign(3/16 − 0.1125) = 1; with β = ¾: m_1 = ¼, then "
        "sign(3/16 − 0.0375) = 1. From 0 to −1 + 1 = 0 against −2.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[1.0], [-0.15]]),
    ),
    Relation(
        name="adam-vs-sign",
        statement="AdamW with eps = 0 ≠ sign descent, once a gradient changes in size",
        left=adamw_of,
        right=lambda h: with_decay(optax.scale_by_sign(), h),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0, 1.0], alpha=1.0, lam=0.0, b1=0.0, b2=0.5, eps=0.0),
        gap=2 / 3,
        why="g = (5, 1), b1 = 0, b2 = ½, α = 1: v̂_2 = (½·25 + 1)/1.5 = 9, a second step of 1/3.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[5.0], [1.0]]),
    ),
)
