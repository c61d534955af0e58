"""SGD, with and without momentum: where decay and L2 can be mapped."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import sgd_l2
from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Mutant, Problem, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    HALVED,
    M0,
    PAPER,
    SIGN,
    SMALL,
    a_t,
    at,
    but_first,
    changing_trace,
    l_t,
    last_step,
    plain_sgd_of,
    previous,
    sgd_l2_of,
    sgdw_of,
    starting_from,
    times,
    with_decay,
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


def _decay_of_its_own(h: Hyper) -> jax.Array:
    """l_t that does not follow the rate."""
    return h["lam"] * h["shape"][: len(h["eta"])]


def _heavy_ball_map_outside(h: Hyper) -> Hyper:
    """b4-general, and its penalty without a_t/a_{t-1}."""
    removed, a = _decay_of_its_own(h), a_t(h)
    carried = h["beta"] * previous(removed)
    ratio = a / but_first(a[0], previous(a))
    return {
        "beta": h["beta"] * (1 - previous(removed)),
        "penalty": (removed - ratio * carried) / a,
        "without_ratio": (removed - carried) / a,
    }


def _beta_of_this_step(r: Hyper) -> jax.Array:
    """b3's momentum with l_t in the place of l_{t-1}, from the second step on."""
    beta = r["beta"][0]
    return but_first(beta, beta * (1 - l_t(r)))


# b5, b6, b8: the rate is constant, or the decay is.


def _l2_with_real_roots(h: Hyper) -> Any:
    """b5's λ': a part `phi` of the largest with which SGDW can follow."""
    return h["phi"] * (1 - jnp.sqrt(h["beta"])) ** 2 / h["alpha"]


def _heavy_ball_of(h: Hyper, in_buffer: bool) -> optax.GradientTransformation:
    penalty = _l2_with_real_roots(h)
    return sgd_l2(h["alpha"], h["beta"], weight_decay=penalty, learning_rate_in_buffer=in_buffer)


def _roots(h: Hyper) -> tuple[jax.Array, jax.Array]:
    """The roots of z² − (1+β'−αλ')z + β', the larger first; of complex ones, the real part."""
    total = 1 + h["beta"] - h["alpha"] * _l2_with_real_roots(h)
    distance = jnp.sqrt(jnp.maximum(total**2 - 4 * h["beta"], 0.0))
    return (total + distance) / 2, (total - distance) / 2


def _sgdw_from_roots(decaying: Any, momentum: Any) -> Hyper:
    return {"lam": 1 - decaying, "beta": momentum}


_B5 = {
    "verdict": "rounding",
    "values": {"trace": M0, "phi": 0.5},
    "constant_schedule": True,
    "condition": "αλ' = φ(1−√β')² with 0 < φ ≤ 1, so that the roots are real",
    "domain": {"phi": Interval(1e-3, 1.0)},
    "outside": {"phi": Interval(1.5, 4.0), "beta": Interval(0.3, 0.95)},
    "source": DERIVED,
    "problem": _problems.REGRESSION,
}


def _swapped(h: Hyper) -> Hyper:
    return {"beta": 1 - h["lam"], "lam": 1 - h["beta"]}


def _ema_map(h: Hyper) -> Hyper:
    beta = h["beta"] * (1 - h["lam"])
    return {
        "beta": beta,
        "penalty": h["lam"] / h["alpha"],
        "alpha": h["alpha"] * (1 - h["beta"]) / (1 - beta),
    }


def _averaged(beta: Any) -> optax.GradientTransformation:
    """The average m = βm + (1−β)g as a momentum buffer, whose start can be given."""
    return optax.chain(optax.scale(1 - beta), optax.trace(beta))


def _averaged_sgdw(h: Hyper) -> optax.GradientTransformation:
    return with_decay(_averaged(h["beta"]), h)


# Two outlets of one buffer: Nesterov momentum and schedule-free SGD.


def _two_outlets(decay: jax.Array, own: jax.Array, ahead: jax.Array) -> Any:
    """n = decay_t n + g, and down the chain go own_t g + ahead_t n."""
    buffer: Any = changing_trace(decay)

    def init(params: Any) -> Any:
        return jnp.zeros([], jnp.int32), buffer.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, inner = state
        n, inner = buffer.update(updates, inner, params)
        return own[count] * updates + ahead[count] * n, (count + 1, inner)

    return optax.GradientTransformation(init, update)


def _nesterov_l2(h: Hyper) -> optax.GradientTransformation:
    outlets = _two_outlets(h["momenta"], h["own"], h["ahead"])
    return optax.chain(add_l2_to_grad(at(h["penalty"])), outlets, SIGN)


def _nesterov_map(h: Hyper) -> Hyper:
    beta, removed = h["beta"], l_t(h)
    own, rest = a_t(h) / (1 - beta * removed), 1 - (1 + beta) * removed
    rest_before = 1 - (1 + beta) * previous(removed)
    return {
        "momenta": beta * (1 - beta * removed) * rest_before / rest,
        "penalty": jnp.full_like(h["eta"], h["lam"] * (1 - beta) / h["alpha"]),
        "own": own,
        "ahead": own * beta * rest,
    }


def _nesterov_recursion(h: Hyper) -> Hyper:
    beta, removed = h["beta"], h["lam"]

    def step(carry: Any, a: jax.Array) -> Any:
        kappa, p_before = carry
        penalty = (removed - a * beta**2 * kappa) / (a * (1 + beta))
        q = (beta * kappa + penalty) / (1 - removed - a * beta * kappa)
        p = 1 + q * a * (1 + beta)
        ahead = a * beta / (1 + q * a)
        own = a * (1 + beta) - ahead
        momentum = beta * (1 + q * a) / p_before
        return (q / p, p), {"momenta": momentum, "penalty": penalty, "own": own, "ahead": ahead}

    return jax.lax.scan(step, (jnp.zeros([]), jnp.ones([])), a_t(h))[1]


def _two_sequences(h: Hyper) -> optax.GradientTransformation:
    """φ_t = y_{t-1} − a_t g(y_{t-1}), y_t = φ_t + β_t (φ_t − φ_{t-1}); the parameters are y."""

    def init(params: Any) -> Any:
        return jnp.zeros([], jnp.int32), params

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, phi = state
        new = params - a_t(h)[count] * updates
        return new + h["momenta"][count] * (new - phi) - params, (count + 1, new)

    return optax.GradientTransformation(init, update)


def _schedule_free(h: Hyper, *before: optax.GradientTransformation) -> Any:
    """Optax's, which asks its own schedule from step 1 on, and the base optimizer's from 0 on."""
    rates = a_t(h)
    base = optax.chain(*before, optax.sgd(lambda step: rates[step]))
    return optax.contrib.schedule_free(base, lambda step: rates[step - 1], b1=h["b1"])


def _schedule_free_map(h: Hyper) -> Hyper:
    weight = jax.lax.cummax(a_t(h)) ** 2
    mix = weight / jnp.cumsum(weight)
    return {"mix": mix, "kept": 1 - previous(mix)}


def _one_buffer(h: Hyper) -> optax.GradientTransformation:
    kept = h["kept"]
    own = jnp.full_like(kept, 1 - h["b1"])
    return optax.chain(
        scale_by_schedule(at(a_t(h))), _two_outlets(kept, own, h["b1"] * h["mix"]), SIGN
    )


def _one_buffer_with_decay(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(
        add_l2_to_grad(h["lam"] * h["coupled"]),
        _one_buffer(h),
        SIGN,
        decoupled_weight_decay(at(a_t(h) * h["lam"] * (1 - h["coupled"]))),
        SIGN,
    )


_MIX_TEXT = "c_t = w_t/Σ_{s≤t} w_s, w_t = (max_{s≤t} a_s)², c_0 arbitrary"
_B1_POSITIVE = {
    "condition": "b1 > 0 (Optax divides by it)",
    "domain": {"b1": Interval(1e-3, 0.98)},
}

# Full-batch least squares, a preconditioner, averages of the weights.

_RNG = np.random.default_rng(1711)
_X, _Y = _RNG.normal(size=(32, 6)), _RNG.normal(size=32)
_LEAST_SQUARES = Problem(
    "full-batch least squares",
    lambda theta, batch: jnp.asarray(_X.T) @ (_X @ theta - _Y) / len(_Y),
    np.zeros((300, 1)),
    _problems.REGRESSION.theta0,
)


def _ridge(penalty: Any) -> jax.Array:
    return jnp.linalg.solve(_X.T @ _X / len(_Y) + penalty * jnp.eye(6), _X.T @ _Y / len(_Y))


def _around_ridge(h: Hyper, penalty: Any) -> Hyper:
    """The start of the right side of f3, given the ridge solution's penalty."""
    solution = _ridge(penalty)
    trace = h["lam"] * solution / h["alpha"]
    return {"theta0": _LEAST_SQUARES.theta0 - solution, "trace": trace, "solution": solution}


def _without_targets(h: Hyper) -> optax.GradientTransformation:
    """SGDW on |Xφ|²/2n; the gradient that it is given is another loss's."""

    def gradient(updates: Any, params: Any = None) -> Any:
        del updates
        return _X.T @ (_X @ params) / len(_Y)

    return optax.chain(optax.stateless(gradient), sgdw_of(h, in_buffer=False))


_S = np.array([0.3, 0.5, 1.0, 2.0, 4.0, 9.0])


def _average_of(h: Hyper, path: jax.Array) -> jax.Array:
    """The moving average of a path that starts at theta0."""

    def step(average: jax.Array, theta: jax.Array) -> Any:
        average = h["beta"] * average + (1 - h["beta"]) * theta
        return average, average

    return jax.lax.scan(step, jnp.asarray(h["theta0"]), path)[1]


def _buffer_of_average(h: Hyper) -> Hyper:
    return {"trace": -h["lam"] * h["theta0"] / h["alpha"]}


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
        quick=True,
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
        condition="η_t > 0 (divides by it)",
        mutant=Mutant("λ' = λ/α", lambda r: {"penalty": r["penalty"] * r["eta"]}),
        why="a_t g + λ θ = a_t (g + (λ/a_t) θ); an unscheduled decay is an L2 penalty that grows as "
        "the rate falls.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
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
        values={"trace": M0},
        constant_schedule=True,
        mutant=times("trace", 1.01),
        why="Both are linear filters of the gradients. Eliminate the buffer: θ_t = (1−λ+β)θ_{t-1} − "
        "β(1−λ)θ_{t-2} − αg_t, and (1+β'−αλ')θ_{t-1} − β'θ_{t-2} − αg_t; match the coefficients. "
        "The map is the only one.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
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
        values={"trace": M0},
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
        quick=True,
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
        map_text="β'_t = β(1−l_{t-1}), λ'_t = (l_t − βl_{t-1})/a_t, t from 1, l_0 := 0",
        condition="η_t > 0 (divides by it)",
        mutant=Mutant("l_t for l_{t-1} in β'", lambda r: {"beta": _beta_of_this_step(r)}),
        why="m_t = (1−l_t)θ_{t-1} − θ_t; eliminate it and match coefficients step by step. Where the "
        "schedule falls faster than β, λ'_t is negative: SGDW is then no non-negative L2 "
        "penalty.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
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
        map_text="β'_t = β(1−a_{t-1}λ), λ' = λ(1−β); at the first step λ' = λ, and β'_1 is arbitrary",
        mutant=Mutant(
            "no exception at the first step",
            lambda r: {"penalty": but_first(r["penalty"][1], r["penalty"])},
        ),
        why="As b3 with r_t = a_t/a_{t-1} in front of β and β'; with l_t = a_tλ the penalty comes out "
        "constant.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="b4-general",
        statement="SGDW, rate outside, any schedules of rate and decay = heavy ball with L2",
        left=lambda h: sgdw_of(
            h, in_buffer=False, coupling="none", weight_decay=at(_decay_of_its_own(h))
        ),
        right=lambda h: sgd_l2_of(h, in_buffer=False),
        verdict="rounding",
        map=_heavy_ball_map_outside,
        map_text="β'_t = β(1−l_{t-1}), λ'_t = (l_t − β(a_t/a_{t-1})l_{t-1})/a_t, t from 1, l_0 := 0, "
        "a_0 arbitrary",
        values={"shape": np.random.default_rng(5).uniform(0.0, 2.0, 300)},
        condition="η_t > 0 (divides by it)",
        mutant=Mutant(
            "βl_{t-1} without a_t/a_{t-1}, as in b3",
            lambda r: {"penalty": r["without_ratio"]},
        ),
        why="a_tm_t = (1−l_t)θ_{t-1} − θ_t: as b3, with a_t/a_{t-1} in front of β and of β'. Here l_t "
        "is λ times random numbers of its own; where it follows the rate, b4 is what is left.",
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
        map_text="β_t = β a_{t-1}/a_t; a_0 is arbitrary, as the buffer is empty",
        condition="η_t > 0 (divides by it)",
        mutant=Mutant("β_t a hundredth larger", lambda r: {"beta": 1.01 * r["beta"]}),
        why="With n_t = a_t m_t: n_t = βn_{t-1} + a_tg_t is m_t = β(a_{t-1}/a_t)m_{t-1} + g_t.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="b5",
        statement="heavy ball with L2 = SGDW, constant rate: λ from the larger root, β from the smaller",
        left=lambda h: _heavy_ball_of(h, in_buffer=True),
        right=sgdw_of,
        map=lambda h: _sgdw_from_roots(*_roots(h)),
        map_text="λ = 1−z₁, β = z₂, with z₁ ≥ z₂ the roots of z² − (1+β'−αλ')z + β'; rate inside",
        start=lambda h: {
            "trace": _roots(h)[0] * h["trace"] - (1 - _roots(h)[0]) * h["theta0"],
        },
        start_text="m_0 = (1−λ)n_0 − λθ_0",
        mutant=Mutant(
            "λ = αλ', β = β'",
            lambda r: {"lam": r["lam"] * (1 - r["beta"]), "beta": r["beta"] * (1 - r["lam"])},
        ),
        why="b1 backwards: β' = β(1−λ) is the roots' product and 1+β'−αλ' = β + (1−λ) their sum. "
        "Complex roots (αλ' between (1−√β')² and (1+√β')²) belong to weights that swing, which "
        "no real SGDW does; beyond, both are negative.",
        **_B5,
    ),
    Relation(
        name="b5-other-root",
        statement="heavy ball with L2 = SGDW, constant rate: λ from the smaller root, β from the larger",
        left=lambda h: _heavy_ball_of(h, in_buffer=False),
        right=lambda h: sgdw_of(h, in_buffer=False),
        map=lambda h: _sgdw_from_roots(*_roots(h)[::-1]),
        map_text="λ = 1−z₂, β = z₁, with z₁ ≥ z₂ the roots of z² − (1+β'−αλ')z + β'; rate outside",
        start=lambda h: {
            "trace": _roots(h)[1] * h["trace"] - (1 - _roots(h)[1]) * h["theta0"] / h["alpha"],
        },
        start_text="m_0 = (1−λ)n_0 − λθ_0/α",
        mutant=Mutant("m_0 = n_0", lambda r: {"trace": M0 + 0 * r["trace"]}),
        why="As b5: sum and product do not say which root is β. The two answers are dual (b6).",
        **_B5,
    ),
    Relation(
        name="b6",
        statement="SGDW = SGDW with β and 1−λ swapped, rate inside, schedule on the rate alone",
        left=lambda h: sgdw_of(h, coupling="none"),
        right=lambda h: sgdw_of(h, coupling="none"),
        verdict="rounding",
        map=_swapped,
        map_text="β'' = 1−λ, λ'' = 1−β",
        start=lambda h: {
            "trace": ((h["beta"] - (1 - h["lam"])) * h["theta0"] + h["beta"] * h["trace"])
            / (1 - h["lam"])
        },
        start_text="m''_0 = ((β−(1−λ))θ_0 + βm_0)/(1−λ)",
        values={"trace": M0},
        domain={"lam": Interval(1e-5, 0.9)},
        mutant=Mutant("m''_0 = m_0", lambda r: {"trace": M0 + 0 * r["trace"]}),
        why="θ_t = (1−λ+β)θ_{t-1} − β(1−λ)θ_{t-2} − a_tg_t: symmetric in β and 1−λ. Momentum is a decay "
        "of the buffer, decay a momentum of the weights.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b6-outside",
        statement="SGDW = SGDW with β and 1−λ swapped, rate outside the buffer, constant rate",
        left=lambda h: sgdw_of(h, in_buffer=False),
        right=lambda h: sgdw_of(h, in_buffer=False),
        verdict="rounding",
        map=_swapped,
        map_text="β'' = 1−λ, λ'' = 1−β",
        start=lambda h: {
            "trace": (
                (h["beta"] - (1 - h["lam"])) * h["theta0"] / h["alpha"] + h["beta"] * h["trace"]
            )
            / (1 - h["lam"])
        },
        start_text="m''_0 = ((β−(1−λ))θ_0/α + βm_0)/(1−λ)",
        values={"trace": M0},
        constant_schedule=True,
        domain={"lam": Interval(1e-5, 0.9)},
        mutant=Mutant("m''_0 = m_0", lambda r: {"trace": M0 + 0 * r["trace"]}),
        why="As b6, with a buffer that is 1/α times as large.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b8",
        statement="SGDW = L2 where momentum is an average, m = βm + (1−β)g, constant rate",
        left=lambda h: optax.chain(
            starting_from(optax.ema(h["beta"], debias=False), ema=h["m0"]),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            SIGN,
        ),
        right=lambda h: optax.chain(
            add_l2_to_grad(h["penalty"]), _averaged(h["beta"]), scale_by_schedule(h["alpha"]), SIGN
        ),
        verdict="rounding",
        map=_ema_map,
        map_text="λ' = λ/α, β' = β(1−λ), α' = α(1−β)/(1−β')",
        start=lambda h: {
            "trace": (h["alpha"] * h["m0"] + h["lam"] * h["theta0"])
            / ((1 - h["lam"]) * _ema_map(h)["alpha"])
        },
        start_text="n_0 = (αm_0 + λθ_0)/((1−λ)α')",
        values={"m0": M0},
        constant_schedule=True,
        mutant=Mutant(
            "λ' = λ(1−β)/α, as in b1",
            lambda r: {"penalty": r["penalty"] * (1 - r["beta"] / (1 - r["lam"]))},
        ),
        why="An average is a heavy ball with α(1−β) for α (b9): b1's λ' is λ(1−β)/(α(1−β)) = λ/α. The "
        "naive value is right, and the rate is what changes.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b9",
        statement="momentum as an average, m = βm + (1−β)g = heavy ball at α(1−β), any schedule",
        left=lambda h: with_decay(optax.ema(h["beta"], debias=False), h),
        right=lambda h: sgdw_of(h, in_buffer=False),
        verdict="rounding",
        map=lambda h: {"alpha": h["alpha"] * (1 - h["beta"])},
        map_text="α → α(1−β), same λ (the paper's)",
        mutant=Mutant("α as it was", lambda r: {"alpha": r["alpha"] / (1 - r["beta"])}),
        why="The average is (1−β) times the heavy ball's buffer; the decay sees neither.",
        source="optax.ema without bias correction against optax.trace",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b-nesterov",
        statement="SGDW with Nesterov momentum = a generalized Nesterov momentum with L2, any schedule",
        left=lambda h: sgdw_of(h, in_buffer=False, nesterov=True),
        right=_nesterov_l2,
        verdict="rounding",
        map=_nesterov_map,
        map_text="step α'_t(g̃ + ν_t n), n = β'_t n + g̃, g̃ = g + λ'θ, with λ' = λ(1−β)/α, "
        "α'_t = a_t/(1−βl_t), ν_t = βr_t, β'_t = β(1−βl_t)r_{t-1}/r_t, r_t = 1−(1+β)l_t, t from 1, "
        "l_0 := 0",
        start=lambda h: {"trace": h["trace"] + h["lam"] * h["theta0"] / h["alpha"]},
        start_text="n_0 = m_0 + λθ_0/α",
        values={"trace": M0},
        condition="βl_t ≠ 1 and (1+β)l_t ≠ 1 (no denominator is 0); drawn on both sides of the second",
        domain={"lam": Interval(1e-3, 0.6)},
        mutant=Mutant("ν_t = β'_t", lambda r: {"ahead": r["own"] * r["momenta"]}),
        why="n_t = (m_t + (λ/α)θ_t)/r_t, by induction: insert it, and match the coefficients of g, m "
        "and θ. At a constant rate β' = β(1−βλ), and n_0 is divided by 1−(1+β)λ. With ν = β' there "
        "is no map at all (N7).",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b-nesterov-scheduled",
        statement="Nesterov SGDW, schedule on the rate alone = generalized Nesterov with L2",
        left=lambda h: sgdw_of(h, in_buffer=False, nesterov=True, coupling="none"),
        right=_nesterov_l2,
        verdict="rounding",
        map=_nesterov_recursion,
        map_text="with κ_0 = 0, p_0 = 1: λ'_t = (λ − a_tβ²κ_{t-1})/(a_t(1+β)), "
        "q = (βκ_{t-1} + λ'_t)/(1 − λ − a_tβκ_{t-1}), p_t = 1 + (1+β)qa_t, κ_t = q/p_t, t from 1, "
        "β'_t = β(1+qa_t)/p_{t-1}, α'_tν_t = βa_t/(1+qa_t), α'_t = (1+β)a_t − α'_tν_t",
        condition="η_t > 0, λ + a_tβκ_{t-1} ≠ 1, qa_t ≠ −1, p_t ≠ 0: no denominator is 0",
        domain={"lam": Interval(1e-3, 0.6)},
        mutant=Mutant(
            "λ'_t = λ(1−β)/a_t",
            lambda r: {"penalty": r["lam"] * (1 - r["beta"]) / a_t(r)},
        ),
        why="As b-nesterov with n_t = p_t(m_t + κ_tθ_t): g asks for p_t, m for β'_t, θ for q, and the "
        "three terms of the step for α'_t, α'_tν_t and λ'_t. Any decay l_t may stand for λ.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b-sgds",
        statement="SGDS, the published code of stable weight decay = SGDW, any schedule",
        left=lambda h: optax.chain(
            optax.trace(h["beta"]),
            last_step(
                lambda theta, m, t: (
                    theta * (1 - a_t(h)[t] * h["lam"] / (1 - h["beta"])) - a_t(h)[t] * m
                )
            ),
        ),
        right=lambda h: sgdw_of(h, in_buffer=False),
        verdict="rounding",
        map=lambda h: {"lam": h["alpha"] * h["lam"] / (1 - h["beta"])},
        map_text="λ → αλ/(1−β)",
        mutant=Mutant("λ → αλ", lambda r: {"lam": r["lam"] * (1 - r["beta"])}),
        why="p ← p(1 − a_tλ/(1−β)), then p ← p − a_tm: the momentum is in the decay because it is in "
        "the step, whose size it multiplies by 1/(1−β).",
        source="Xie et al. 2020, arXiv 2011.11152, and its code",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="f2",
        statement="SGDW behind a fixed preconditioner 1/s = heavy ball with the penalty s_i θ_i²",
        left=lambda h: optax.chain(optax.stateless(lambda g, _: g / h["s"]), sgdw_of(h)),
        right=lambda h: optax.chain(
            optax.stateless(lambda g, theta: (g + h["penalty"] * h["weights"] * theta) / h["s"]),
            scale_by_schedule(h["alpha"]),
            optax.trace(h["beta"]),
            SIGN,
        ),
        verdict="rounding",
        map=lambda h: {
            "beta": h["beta"] * (1 - h["lam"]),
            "penalty": h["lam"] * (1 - h["beta"]) / h["alpha"],
            "weights": h["s"],
        },
        map_text="(λ'/2) Σ s_i θ_i² with λ' = λ(1−β)/α, β' = β(1−λ)",
        start=lambda h: {"trace": h["lam"] * h["theta0"] / (1 - h["lam"])},
        start_text="m_0 = 0, n_0 = λθ_0/(1−λ)",
        values={"s": _S},
        constant_schedule=True,
        mutant=Mutant("(λ'/2) Σ θ_i²", lambda r: {"weights": jnp.ones_like(r["s"])}),
        why="The preconditioner is linear and stands before the buffer: it takes the s_i of the "
        "penalty's gradient λ's_iθ_i away, and b1 is left.",
        source=f"{PAPER}, Proposition 3, with momentum",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="f3",
        statement="SGDW on least squares = ridge solution + SGDW on the same without targets",
        left=lambda h: sgdw_of(h, in_buffer=False),
        right=_without_targets,
        verdict="rounding",
        map_text="θ = θ* + φ, θ* the ridge solution with λ' = λ(1−β)/α; rate outside, any schedule",
        start=lambda h: _around_ridge(h, h["lam"] * (1 - h["beta"]) / h["alpha"]),
        start_text="φ_0 = θ_0 − θ*, m_0 = 0, n_0 = λθ*/α",
        parameters=lambda h, phi: h["solution"] + phi,
        mutant=Mutant("λ' = λ/α", lambda r: _around_ridge(r, r["lam"] / r["alpha"])),
        why="n = m + λθ*/α gives φ = (1−l_t)φ − a_tn and n = βn + g + λ(1−β)θ*/α; with the ridge's "
        "equations, X'(Xθ* − y)/k + λ'θ* = 0 for k points, the new gradient is X'Xφ/k. Where SGDW "
        "converges, φ goes to 0, and θ to θ*; no schedule moves it.",
        source=DERIVED,
        problem=_LEAST_SQUARES,
    ),
    Relation(
        name="nesterov-two-sequences",
        statement="Nesterov's two sequences = Nesterov momentum (optax.trace) of the scaled gradient",
        left=lambda h: sgdw_of(h, weight_decay=0.0, nesterov=True),
        right=_two_sequences,
        verdict="rounding",
        map=lambda h: {"momenta": jnp.full_like(h["eta"], h["beta"])},
        map_text="φ_t = y_{t-1} − a_tg_t, y_t = φ_t + β(φ_t − φ_{t-1}), θ_t = y_t; rate inside",
        start_text="φ_0 = y_0",
        mutant=Mutant(
            "βa_t/a_{t-1} for β",
            lambda r: {"momenta": r["momenta"].at[1:].multiply(r["eta"][1:] / r["eta"][:-1])},
        ),
        why="The buffer is m_t = −(φ_t − φ_{t-1}): φ_t = φ_{t-1} + β(φ_{t-1} − φ_{t-2}) − a_tg_t is "
        "m_t = βm_{t-1} + a_tg_t, and y_t − y_{t-1} = −(a_tg_t + βm_t).",
        source="Nesterov 1983; Sutskever et al. 2013; optax.trace",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="schedule-free",
        statement="schedule-free SGD (optax.contrib) = SGD with one momentum buffer, any schedule",
        left=_schedule_free,
        right=_one_buffer,
        verdict="rounding",
        map=_schedule_free_map,
        map_text=f"M = (1−c_{{t-1}})M + a_tg, y −= (1−b1)a_tg + b1 c_tM, with {_MIX_TEXT}",
        start_text="M_0 = 0",
        **_B1_POSITIVE,
        mutant=Mutant("c_t for c_{t-1}", lambda r: {"kept": 1 - r["mix"]}),
        why="M_t = x_{t-1} − z_t. From x_t − x_{t-1} = c_t(z_t − x_{t-1}) = −c_tM_t follow x_t − z_t = "
        "(1−c_t)M_t and y_t − y_{t-1} = −(1−b1)a_tg_t − b1 c_tM_t.",
        source="Defazio et al. 2024, arXiv 2405.15682; optax.contrib.schedule_free",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="schedule-free-decay",
        statement="decay in schedule-free SGD's base optimizer = L2 in the one-buffer form",
        left=lambda h: _schedule_free(h, optax.add_decayed_weights(h["lam"])),
        right=_one_buffer_with_decay,
        verdict="rounding",
        map=lambda h: {**_schedule_free_map(h), "coupled": 1.0},
        map_text=f"g + λy for g in M = (1−c_{{t-1}})M + a_tg, y −= (1−b1)a_tg + b1 c_tM; {_MIX_TEXT}",
        start_text="M_0 = 0",
        **_B1_POSITIVE,
        mutant=Mutant("y −= a_tλy beside the step, decoupled", lambda r: {"coupled": 0.0}),
        why="Optax gives the base optimizer the parameters y: its z −= a_t(g + λy) is a step along the "
        "gradient of the loss plus (λ/2)y². The decay enters the average, as the gradient does.",
        source="Defazio et al. 2024, arXiv 2405.15682; optax.contrib.schedule_free_sgd",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="ema-weights",
        statement="average of SGD's weights, with decay = SGDW of averaged momentum, open loop",
        left=lambda h: optax.chain(
            scale_by_schedule(h["alpha"]), decoupled_weight_decay(h["lam"]), SIGN
        ),
        right=_averaged_sgdw,
        verdict="rounding",
        read_left=_average_of,
        map_text="momentum m = βm + (1−β)g with the average's β, same α and λ",
        start=_buffer_of_average,
        start_text="the average from θ_0, m_0 = −λθ_0/α",
        constant_schedule=True,
        mutant=Mutant("m_0 = 0", lambda r: {"trace": 0 * r["trace"]}),
        why="Both are linear filters of the gradients, and filters commute: it does not matter "
        "whether gradients or weights are averaged. An average that starts at θ_0 lags behind "
        "a decay of λθ_0, which m_0 gives back.",
        source=DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
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
        quick=True,
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
        quick=True,
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
        quick=True,
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
        quick=True,
    ),
    Relation(
        name="N7",
        statement="SGDW with Nesterov momentum ≠ Nesterov with L2, at the only numbers that could fit",
        left=lambda h: sgdw_of(h, in_buffer=False, nesterov=True),
        right=lambda h: sgd_l2(
            h["alpha"],
            h["beta"],
            nesterov=True,
            weight_decay=h["penalty"],
            learning_rate_in_buffer=False,
        ),
        verdict="never",
        map=lambda h: {"alpha": 57 / 56, "beta": 9 / 19, "penalty": 14 / 285},
        map_text="α' = 57/56, β' = 9/19, λ' = 14/285, n_0 = 0, the only ones that fit θ_1, θ_2 and the "
        "recursion; others come closer, to 5.5·10⁻⁴ at best in a search, and none to 0",
        values=witness_values([1.0] * 5, **SMALL),
        gap=1.51 / 56,
        why="g = (0, 1, 0, 0, 0), θ_0 = m_0 = 0, α = 1, β = ½, λ = 0.1: θ = (0, −1.5, −1.6, −1.565, "
        "−1.471). θ_1 = 0 asks for n_0 = 0. After the impulse θ_t = sθ_{t-1} − pθ_{t-2} with s = "
        "β+1−λ = (1+β')(1−α'λ') and p = β(1−λ) = β'(1−α'λ'): so α'λ' = λ(1−β) and β' = "
        "β(1−λ)/(1−λ(1−β)); and θ_2 asks for α'(1+β') = α(1+β). But then θ_3 is off by 1/56, and θ_5 "
        "by (s²−p)/56. In general equal filters need αλ'(1+β) = λ and αλ' = λ: no α', β', λ' and n_0 "
        "bring the gap to 0.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[0.0], [1.0], [0.0], [0.0], [0.0]]),
    ),
    Relation(
        name="nesterov-optax",
        statement="Nesterov's two sequences ≠ optax.sgd(nesterov=True), under a schedule",
        left=lambda h: _two_sequences({**h, "momenta": jnp.full_like(h["eta"], h["beta"])}),
        right=lambda h: optax.sgd(lambda step: a_t(h)[step], h["beta"], nesterov=True),
        verdict="never",
        map_text="same numbers",
        values=witness_values(HALVED, alpha=1.0, beta=0.5),
        gap=0.125,
        why="g = (1, 0), η = (1, ½), α = 1, β = ½: both go to −1.5; then the one adds β(φ_2 − φ_1) = "
        "−0.25 to φ_2 = −1.5, and the other steps by ½β² = 0.125.",
        source="Nesterov 1983 against optax.sgd and torch.optim.SGD",
        problem=_problems.witness([0.0], [[1.0], [0.0]]),
    ),
    Relation(
        name="ema-weights-zero-buffer",
        statement="average of the weights of SGD with decay ≠ SGDW whose buffer starts from zero",
        left=plain_sgd_of,
        right=_averaged_sgdw,
        verdict="never",
        read_left=_average_of,
        map_text="momentum m = βm + (1−β)g with the average's β, same α and λ",
        start_text="m_0 = 0",
        values=witness_values([1.0], **SMALL),
        gap=0.05,
        why="No gradient, one step, λ = 0.1, β = ½: the average of 1 and 0.9 against 0.9; βλθ_0.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[0.0]]),
    ),
    Relation(
        name="ema-weights-closed-loop",
        statement="average of the weights ≠ SGDW of averaged momentum, in closed loop",
        left=plain_sgd_of,
        right=_averaged_sgdw,
        verdict="never",
        read_left=_average_of,
        map_text="momentum m = βm + (1−β)g with the average's β, same α and λ",
        start=_buffer_of_average,
        start_text="m_0 = −λθ_0/α, as ema-weights has it",
        values=witness_values([1.0, 1.0], **SMALL),
        gap=0.275,
        why="Loss θ²/2, θ_0 = 1, α = 1, λ = 0.1, β = ½: weights 1, −0.1, 0.01 with averages 0.45 and "
        "0.23. The other side, at 0.45 as well, takes its gradient there and not at −0.1: m_2 = "
        "0.45, and 0.405 − 0.45 = −0.045.",
        source=DERIVED,
        problem=Problem("loss θ²/2", lambda theta, batch: theta, np.zeros((2, 1)), np.ones(1)),
    ),
)
