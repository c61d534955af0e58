"""SGD, with and without momentum: where decay and L2 can be mapped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import sgd_l2
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    HALVED,
    PAPER,
    SIGN,
    SMALL,
    a_t,
    at,
    but_first,
    changing_trace,
    l_t,
    plain_sgd_of,
    previous,
    sgd_l2_of,
    sgdw_of,
    times,
    witness_values,
)


def _heavy_ball_map(h: Hyper) -> Hyper:
    """b1: match the two-step recursions of theta in its coefficients."""
    ones = jnp.ones_like(h["eta"])
    return {
        "beta": ones * h["beta"] * (1 - h["lam"]),
        "penalty": ones * h["lam"] * (1 - h["beta"]) / h["alpha"],
    }


_HEAVY_BALL_TEXT = "β' = β(1−λ), λ' = λ(1−β)/α"
_M0 = np.linspace(-0.2, 0.3, 6)


def _beta_of_this_step(r: Hyper) -> jax.Array:
    """b3's momentum with l_t in the place of l_{t-1}, from the second step on."""
    beta = r["beta"][0]
    return but_first(beta, beta * (1 - l_t(r)))


ROWS = (
    Relation(
        name="a1",
        statement="SGD with weight decay = SGD with L2, any schedule on both terms",
        left=plain_sgd_of,
        right=lambda h: sgd_l2(h["alpha"], None, weight_decay=h["penalty"], schedule=at(h["eta"])),
        verdict="rounding",
        map=lambda h: {"penalty": h["lam"] / h["alpha"]},
        map_text="λ' = λ/α",
        mutant=times("penalty", 1.01),
        why="η_t(α g + λ θ) = α η_t (g + (λ/α) θ).",
        source=f"{PAPER}, Proposition 1",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="a2",
        statement="SGD, schedule on the step alone = SGD with L2, penalty over the schedule",
        left=lambda h: plain_sgd_of(h, coupling="none"),
        right=lambda h: sgd_l2(
            h["alpha"], None, weight_decay=at(h["penalty"]), schedule=at(h["eta"])
        ),
        verdict="rounding",
        map=lambda h: {"penalty": h["lam"] / a_t(h)},
        map_text="λ'_t = λ/(α η_t)",
        mutant=Mutant("λ' = λ/α", lambda r: {"penalty": r["penalty"] * r["eta"]}),
        why="a_t g + λ θ = a_t (g + (λ/a_t) θ); an unscheduled decay is an L2 penalty that grows as "
        "the rate falls.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b1",
        statement="SGDW with momentum = heavy ball with L2, constant rate, rate inside the buffer",
        left=sgdw_of,
        right=sgd_l2_of,
        verdict="rounding",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start=lambda h: {"trace": (h["trace"] + h["lam"] * h["theta0"]) / (1 - h["lam"])},
        start_text="n_0 = (m_0 + λθ_0)/(1−λ)",
        values={"trace": _M0},
        constant_schedule=True,
        mutant=times("trace", 1.01),
        why="Both are linear filters of the gradients. Eliminate the buffer: θ_t = (1−λ+β)θ_{t-1} − "
        "β(1−λ)θ_{t-2} − αg_t, and (1+β'−αλ')θ_{t-1} − β'θ_{t-2} − αg_t; match the coefficients. "
        "The map is the only one.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b1-outside",
        statement="SGDW with momentum = heavy ball with L2, constant rate, rate outside the buffer",
        left=lambda h: sgdw_of(h, in_buffer=False),
        right=lambda h: sgd_l2_of(h, in_buffer=False),
        verdict="rounding",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start=lambda h: {
            "trace": (h["trace"] + h["lam"] * h["theta0"] / h["alpha"]) / (1 - h["lam"])
        },
        start_text="n_0 = (m_0 + λθ_0/α)/(1−λ)",
        values={"trace": _M0},
        constant_schedule=True,
        mutant=times("penalty", 1.01),
        why="As b1, with a buffer that is 1/α times as large.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b2",
        statement="SGDW with momentum = heavy ball with L2, constant rate, both buffers from zero",
        left=sgdw_of,
        right=sgd_l2_of,
        verdict="rounding",
        map=lambda h: {
            **_heavy_ball_map(h),
            "penalty": but_first(h["lam"] / h["alpha"], _heavy_ball_map(h)["penalty"]),
        },
        map_text=f"{_HEAVY_BALL_TEXT}; at the first step λ' = λ/α",
        constant_schedule=True,
        mutant=Mutant(
            "no exception at the first step",
            lambda r: {"penalty": but_first(r["penalty"][1], r["penalty"])},
        ),
        why="As b1: a first step with λ' = λ/α leaves in an empty buffer what n_0 would have.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b3",
        statement="SGDW = heavy ball with L2 under any schedule, rate inside the buffer",
        left=sgdw_of,
        right=sgd_l2_of,
        verdict="rounding",
        map=lambda h: {
            "beta": h["beta"] * (1 - previous(l_t(h))),
            "penalty": (l_t(h) - h["beta"] * previous(l_t(h))) / a_t(h),
        },
        map_text="β'_t = β(1−l_{t-1}), λ'_t = (l_t − βl_{t-1})/a_t, with l_{-1} = 0",
        mutant=Mutant("l_t for l_{t-1} in β'", lambda r: {"beta": _beta_of_this_step(r)}),
        why="m_t = (1−l_t)θ_{t-1} − θ_t; eliminate it and match coefficients step by step. Where the "
        "schedule falls faster than β, λ'_t is negative: SGDW is then no L2 penalty at all.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b4",
        statement="SGDW, decay and rate coupled, rate outside = heavy ball with L2, any schedule",
        left=lambda h: sgdw_of(h, in_buffer=False, coupling="learning_rate"),
        right=lambda h: sgd_l2_of(h, in_buffer=False),
        verdict="rounding",
        map=lambda h: {
            "beta": h["beta"] * (1 - previous(a_t(h)) * h["lam"]),
            "penalty": but_first(h["lam"], jnp.full_like(h["eta"], h["lam"] * (1 - h["beta"]))),
        },
        map_text="β'_t = β(1−a_{t-1}λ), λ' = λ(1−β), at the first step λ",
        mutant=Mutant(
            "no exception at the first step",
            lambda r: {"penalty": but_first(r["penalty"][1], r["penalty"])},
        ),
        why="As b3 with r_t = a_t/a_{t-1} in front of β and β'; with l_t = a_tλ the penalty comes out "
        "constant.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b7",
        statement="momentum with the rate inside the buffer = outside, with a changed momentum",
        left=lambda h: sgdw_of(h, weight_decay=0.0),
        right=lambda h: optax.chain(changing_trace(h["beta"]), scale_by_schedule(at(a_t(h))), SIGN),
        verdict="rounding",
        map=lambda h: {"beta": h["beta"] * but_first(0.0, previous(a_t(h)) / a_t(h))},
        map_text="β_t = β a_{t-1}/a_t",
        mutant=Mutant("β_t a hundredth larger", lambda r: {"beta": 1.01 * r["beta"]}),
        why="With n_t = a_t m_t: n_t = βn_{t-1} + a_tg_t is m_t = β(a_{t-1}/a_t)m_{t-1} + g_t.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="N3",
        statement="SGDW ≠ heavy ball with L2 at the same momentum and λ' = λ/α",
        left=sgdw_of,
        right=lambda h: sgd_l2(
            h["alpha"], h["beta"], weight_decay=h["penalty"], schedule=at(h["eta"])
        ),
        verdict="never",
        map=lambda h: {"penalty": h["lam"] / h["alpha"]},
        map_text="λ' = λ/α, the first step's only choice",
        values=witness_values([1.0, 1.0], **SMALL),
        gap=0.05,
        why="No gradient, two steps, α = 1, λ = 0.1, β = 0.5: 0.81 against 0.76. The penalty enters "
        "the buffer and comes back: a gap of βλθ_0.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[0.0], [0.0]]),
    ),
    Relation(
        name="N4",
        statement="SGDW ≠ heavy ball with L2 under the map of b1, if the buffer starts from zero",
        left=sgdw_of,
        right=sgd_l2_of,
        verdict="never",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start_text="n_0 = 0",
        values=witness_values([1.0], **SMALL),
        gap=0.05,
        why="No gradient, one step: SGDW removes λ, the other λ(1−β).",
        source=DERIVED,
        problem=_problems.witness([1.0], [[0.0]]),
    ),
    Relation(
        name="N5",
        statement="SGDW ≠ heavy ball with L2 under the map of b1, if the schedule changes",
        left=sgdw_of,
        right=sgd_l2_of,
        verdict="never",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start=lambda h: {"trace": h["lam"] * h["theta0"] / (1 - h["lam"])},
        start_text="n_0 = λθ_0/(1−λ)",
        values=witness_values(HALVED, **SMALL),
        gap=0.0225,
        why="No gradient, η = (1, ½): 0.855 against 0.8325. The buffer still holds the first step's "
        "decay at the full rate; b3 has the map that works.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[0.0], [0.0]]),
    ),
    Relation(
        name="N6",
        statement="rate inside the momentum buffer ≠ outside, under a schedule",
        left=lambda h: sgdw_of(h, weight_decay=0.0),
        right=lambda h: sgdw_of(h, in_buffer=False, weight_decay=0.0),
        verdict="never",
        map_text="same numbers",
        values=witness_values(HALVED, alpha=1.0, beta=0.5),
        gap=0.25,
        why="g = 1 twice, η = (1, ½), α = 1, β = ½: steps of 1 and 1 inside, of 1 and 0.75 outside.",
        source=f"{PAPER}, Algorithm 1, against torch.optim.SGD",
        problem=_problems.witness([0.0], [[1.0], [1.0]]),
    ),
)
