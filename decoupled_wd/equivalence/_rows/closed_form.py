"""Many steps as one formula."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Limit, Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    M0,
    P_OF_THE_STEP_BEFORE,
    SIGN,
    SOME_EPS,
    WITHOUT_EPS,
    WITHOUT_EPS_TEXT,
    a_t,
    adam_of,
    adamw_of,
    at,
    closed_form,
    l_t,
    last_step,
    plain_sgd_of,
    sgdw_of,
    starting_from,
)


def _averaged_updates(h: Hyper) -> optax.GradientTransformation:
    """Adam's steps over -lambda, in Optax's moving average, whose decay changes."""
    average = optax.inject_hyperparams(optax.ema, static_args=("debias",))
    return optax.chain(
        adam_of(h),
        optax.scale(-1 / h["lam"]),
        starting_from(average(at(1 - h["gain"]), debias=False), ema=h["ema0"]),
        last_step(lambda theta, average, t: average),
    )


class _SilentState(NamedTuple):
    count: jax.Array
    trace: jax.Array


def _after_silence(landing: Callable[..., jax.Array]) -> optax.GradientTransformation:
    """Land on `landing(k, n_0)` at step k, whatever the parameters were between."""

    def init(params: Any) -> _SilentState:
        return _SilentState(jnp.zeros([], jnp.int32), jnp.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _SilentState]:
        del updates
        k = state.count + 1
        return landing(k, state.trace) - params, state._replace(count=k)

    return optax.GradientTransformation(init, update)


def _geometric_sum(q: Any, r: Any, k: jax.Array) -> jax.Array:
    """(q^k - r^k) / (q - r), which loses no digits where q and r are close."""
    log_ratio = jnp.log1p((r - q) / q)
    return q ** (k - 1) * jnp.expm1(k * log_ratio) / jnp.expm1(log_ratio)


def _silent_momentum(h: Hyper) -> optax.GradientTransformation:
    q, beta = 1 - h["lam"], h["beta"]

    def landing(k: jax.Array, n0: jax.Array) -> jax.Array:
        return q**k * h["theta0"] - beta * _geometric_sum(q, beta, k) * n0

    return _after_silence(landing)


def _resumed_adamw(h: Hyper) -> optax.GradientTransformation:
    """AdamW with given moments, and so many steps behind it that bias corrections are 1."""
    late = jnp.asarray(10**6, jnp.int32)
    resumed = starting_from(adam_of(h), count=late, mu=h["mu"], nu=h["nu"])
    decay = optax.add_decayed_weights(h["lam"])
    return optax.chain(
        resumed, optax.scale(h["alpha"]), decay, scale_by_schedule(at(h["eta"])), SIGN
    )


def _silent_adamw(h: Hyper) -> optax.GradientTransformation:
    q, rho = 1 - h["lam"], h["ratio"]
    u = h["mu"] / jnp.sqrt(h["nu"])

    def landing(k: jax.Array, n0: jax.Array) -> jax.Array:
        del n0
        return q**k * h["theta0"] - h["alpha"] * u * rho * _geometric_sum(q, rho, k)

    return _after_silence(landing)


def _log_of_the_last(h: Hyper, path: jax.Array) -> jax.Array:
    """log P_T."""
    return jnp.log(path[-1:] / h["theta0"])


ROWS = (
    Relation(
        name="h1",
        statement="AdamW = a weighted sum of its updates, from the first step on",
        left=adamw_of,
        right=lambda h: optax.chain(
            adam_of(h), scale_by_schedule(at(a_t(h))), closed_form(h["decays"])
        ),
        verdict="rounding",
        map=lambda h: {"decays": l_t(h)},
        map_text="θ_t = P_tθ_0 − Σ_k (P_t/P_k) a_k u_k",
        mutant=P_OF_THE_STEP_BEFORE,
        why="Unroll θ_t = (1−l_t)θ_{t-1} − a_tu_t, for any updates u.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="h2",
        statement="AdamW, decay per unit of learning rate = moving average of −u/λ, any schedule",
        left=lambda h: adamw_of(h, coupling="learning_rate"),
        right=_averaged_updates,
        verdict="rounding",
        map=lambda h: {"gain": a_t(h) * h["lam"]},
        map_text="average of gain a_tλ over −u_t/λ, u Adam's direction: a timescale of 1/(a_tλ) steps",
        start=lambda h: {"ema0": h["theta0"]},
        start_text="the average starts from θ_0",
        condition="λ > 0; drawn from 10⁻³, as 1 − a_tλ has no digits left for smaller",
        domain={"lam": Interval(1e-3, 1.0)},
        outside={"lam": Interval(0.0, 0.0)},
        mutant=Mutant("the average starts from 0", lambda r: {"ema0": 0 * r["ema0"]}),
        why="(1−a_tλ)θ − a_tu = (1−a_tλ)θ + a_tλ(−u/λ).",
        source="Wang and Aitchison 2024, arXiv 2405.13698",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="l1",
        statement="AdamW without gradients = one multiplication by the product of (1−η_sλ)",
        left=adamw_of,
        right=lambda h: optax.chain(optax.set_to_zero(), closed_form(h["decays"])),
        verdict="rounding",
        map=lambda h: {"decays": l_t(h)},
        map_text="θ_k = P_k θ_0, state from zero",
        condition="eps > 0 or eps_root > 0",
        outside={"eps": Interval(0.0, 0.0), "eps_root": Interval(0.0, 0.0)},
        mutant=P_OF_THE_STEP_BEFORE,
        why="With m = 0 the direction is 0/(0+eps) = 0, and only the decay is left.",
        source=DERIVED,
        problem=_problems.SILENT,
        quick=True,
    ),
    Relation(
        name="l1-sgdw",
        statement="SGDW without gradients, empty buffer = one multiplication by the product of (1−η_sλ)",
        left=sgdw_of,
        right=lambda h: optax.chain(optax.set_to_zero(), closed_form(h["decays"])),
        verdict="rounding",
        map=lambda h: {"decays": l_t(h)},
        map_text="θ_k = P_k θ_0; rate inside",
        start_text="m_0 = 0 (l2 has the formula for what is left over)",
        mutant=P_OF_THE_STEP_BEFORE,
        why="The buffer stays empty, and only the decay is left.",
        source=DERIVED,
        problem=_problems.SILENT,
    ),
    Relation(
        name="l2",
        statement="SGDW without gradients, momentum left over = one formula",
        left=sgdw_of,
        right=_silent_momentum,
        verdict="rounding",
        map_text="θ_k = qᵏθ_0 − β(qᵏ−βᵏ)/(q−β) m_0, q = 1−λ; rate inside",
        start_text="m_0 as on the left",
        values={"trace": M0},
        constant_schedule=True,
        condition="β ≠ 1−λ; on both sides of it, and near it, as 1 − (β/q)ᵏ is taken by expm1",
        domain={"lam": Interval(1e-5, 0.2)},
        outside={"lam": Interval(0.5, 0.5), "beta": Interval(0.5, 0.5)},
        mutant=Mutant("m_0 forgotten", lambda r: {"trace": 0 * r["trace"]}),
        why="m_s = βˢm_0 and θ_k = qᵏθ_0 − Σ_s q^{k-s}m_s: a geometric sum. At β = q it is kqᵏm_0.",
        source=DERIVED,
        problem=_problems.SILENT,
    ),
    Relation(
        name="l3",
        statement="AdamW late in training, eps = 0, gradients stop = one formula",
        left=_resumed_adamw,
        right=_silent_adamw,
        verdict="rounding",
        map=lambda h: {"ratio": h["b1"] / jnp.sqrt(h["b2"])},
        map_text="θ_k = qᵏθ_0 − αuρ(qᵏ−ρᵏ)/(q−ρ), q = 1−λ, ρ = b₁/√b₂, u = m_0/√v_0",
        start_text="m_0, v_0 as on the left",
        values={
            **WITHOUT_EPS,
            "mu": M0,
            "nu": np.linspace(0.5, 2.0, 6) ** 2,
        },
        constant_schedule=True,
        condition=f"b₁/√b₂ ≠ 1−λ; {WITHOUT_EPS_TEXT}; bias corrections of 1 (from step 10⁶)",
        domain={
            "lam": Interval(1e-5, 0.2),
            "b1": Interval(0.0, 0.95),
            "b2": Interval(0.9, 0.9999),
        },
        outside=SOME_EPS,
        mutant=Mutant("ρ = b₁", lambda r: {"ratio": r["b1"]}),
        why="m_s = b₁ˢm_0 and √v_s = b₂^{s/2}√v_0: the direction is uρˢ, which shrinks as slowly as "
        "momentum does. Then as l2.",
        source=DERIVED,
        problem=_problems.SILENT,
    ),
    Relation(
        name="mean-decay",
        statement="weights without gradient: cosine decay → constant decay of the same sum, as λ → 0",
        left=plain_sgd_of,
        right=lambda h: plain_sgd_of(h, weight_decay=h["mean"], schedule=None),
        verdict="limit",
        map=lambda h: {"mean": h["lam"] * (len(h["eta"]) + 1) / (2 * len(h["eta"]))},
        map_text="λ → λ(T+1)/(2T); compared is log P_T, T = 300",
        read_left=_log_of_the_last,
        read_right=_log_of_the_last,
        values={"eta": 0.5 + 0.5 * np.cos(np.pi * np.arange(300) / 300)},
        limit=Limit("lam", (1e-2, 1e-3, 1e-4), rate=1.0),
        mutant=Mutant("λ → λ/2", lambda r: {"mean": r["lam"] / 2}),
        why="log P_T = −Σ l_t − Σ l_t²/2 − …. The cosine's sum is (T+1)/2, and its sum of squares 3T/8 "
        "where the constant's is T/4: apart by λ²T/16, which is λ/8 of log P_T.",
        source=DERIVED,
        problem=_problems.SILENT,
    ),
)
