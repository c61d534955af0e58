"""The rows. Left and right are chains of this library and of Optax, with the numbers `h`.

Letters, with t counted from 0 as Optax counts: alpha base learning rate, `eta` the multipliers, a_t =
alpha eta_t, lam the paper's decay, l_t = eta_t lam, lam' an L2 coefficient, P_t = prod_{s<=t} (1-l_s).
Maps that divide by the schedule ask it to be positive.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import adam_l2, adamw, amsgradw, lionw, sgd_l2, sgdw
from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._restarts import cosine_warm_restarts
from decoupled_wd._scaling import scale_by_adam, scale_by_schedule
from decoupled_wd._typing import Schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Mutant, Relation

_PAPER = "Loshchilov and Hutter 2019, arXiv 1711.05101"
_DERIVED = "derived for this catalogue"
_SIGN = optax.scale(-1.0)


# Numbers that change from step to step.


def _at(values: jax.Array) -> Schedule:
    return lambda count: values[count]


def _a(h: Hyper) -> Any:
    return h["alpha"] * h["eta"]


def _l(h: Hyper) -> Any:
    return h["lam"] * h["eta"]


def _previous(values: jax.Array) -> jax.Array:
    """The value of the step before; 0 at the first."""
    return jnp.concatenate([jnp.zeros(1), values[:-1]])


def _but_first(first: Any, rest: jax.Array) -> jax.Array:
    return rest.at[0].set(first)


def _times(name: str, factor: float) -> Mutant:
    return Mutant(f"{name} times {factor:g}", lambda r: {name: factor * r[name]})


# Chains that the library has no name for.


class _CountState(NamedTuple):
    count: jax.Array


def _last_step(move: Callable[..., jax.Array]) -> optax.GradientTransformation:
    """Land on `move(theta, update, count)`: for decays that need the finished step."""

    def init(params: Any) -> _CountState:
        del params
        return _CountState(jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _CountState]:
        landing = move(params, updates, state.count)
        return landing - params, _CountState(state.count + 1)

    return optax.GradientTransformation(init, update)


class _ClosedFormState(NamedTuple):
    count: jax.Array
    theta0: jax.Array
    kept: jax.Array  # P_t
    pushed: jax.Array  # sum_k u_k / P_k


def _closed_form(decays: jax.Array) -> optax.GradientTransformation:
    """Land on P_t (theta_0 - sum_k u_k / P_k), whatever the parameters were between."""

    def init(params: Any) -> _ClosedFormState:
        return _ClosedFormState(
            jnp.zeros([], jnp.int32), params, jnp.ones([]), jnp.zeros_like(params)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _ClosedFormState]:
        kept = state.kept * (1 - decays[state.count])
        pushed = state.pushed + updates / kept
        landing = kept * (state.theta0 - pushed)
        return landing - params, _ClosedFormState(state.count + 1, state.theta0, kept, pushed)

    return optax.GradientTransformation(init, update)


class _RestartState(NamedTuple):
    position: jax.Array
    length: jax.Array


def _counted_restarts(period: Any, period_mult: int) -> optax.GradientTransformation:
    """Multiply by the cosine of T_cur / T_i, both counted as the paper's appendix B.2 counts them."""

    def init(params: Any) -> _RestartState:
        del params
        return _RestartState(jnp.zeros([], jnp.int32), jnp.asarray(period, jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _RestartState]:
        del params
        eta = 0.5 + 0.5 * jnp.cos(jnp.pi * state.position / state.length)
        over = state.position + 1 == state.length
        position = jnp.where(over, 0, state.position + 1)
        length = jnp.where(over, period_mult * state.length, state.length)
        return eta * updates, _RestartState(position, length)

    return optax.GradientTransformation(init, update)


def _trace(beta: jax.Array) -> optax.GradientTransformation:
    """Momentum whose decay rate changes from step to step."""
    return optax.inject_hyperparams(optax.trace)(_at(beta))


def _adam(h: Hyper) -> optax.GradientTransformation:
    return scale_by_adam(h["b1"], h["b2"], h["eps"], h["eps_root"])


def _decay_beside_step(h: Hyper) -> optax.GradientTransformation:
    """AdamW whose rate and decay are apart."""
    return optax.chain(
        _adam(h), scale_by_schedule(_at(h["rate"])), decoupled_weight_decay(_at(_l(h))), _SIGN
    )


def _adam_step(h: Hyper) -> optax.GradientTransformation:
    """Adam without decay, finished."""
    return optax.chain(_adam(h), scale_by_schedule(_at(_a(h))), _SIGN)


def _adamw(h: Hyper, **options: Any) -> optax.GradientTransformation:
    options = {"weight_decay": h["lam"], "schedule": _at(h["eta"]), **options}
    return adamw(h["alpha"], h["b1"], h["b2"], h["eps"], h["eps_root"], **options)


def _sgdw(h: Hyper, in_buffer: bool = True, **options: Any) -> optax.GradientTransformation:
    options = {"weight_decay": h["lam"], "schedule": _at(h["eta"]), **options}
    return sgdw(h["alpha"], h["beta"], learning_rate_in_buffer=in_buffer, **options)


def _sgd_l2(h: Hyper, in_buffer: bool = True) -> optax.GradientTransformation:
    """Heavy ball with an L2 penalty; both the penalty and the momentum may change with the step."""
    penalty, step = add_l2_to_grad(_at(h["penalty"])), scale_by_schedule(_at(_a(h)))
    first, second = (step, _trace(h["beta"])) if in_buffer else (_trace(h["beta"]), step)
    return optax.chain(penalty, first, second, _SIGN)


def _plain_sgd(h: Hyper, **options: Any) -> optax.GradientTransformation:
    options = {"weight_decay": h["lam"], "schedule": _at(h["eta"]), **options}
    return sgdw(h["alpha"], None, **options)


# Maps that several rows share.


def _heavy_ball_map(h: Hyper) -> Hyper:
    """b1: match the two-step recursions of theta in its coefficients."""
    ones = jnp.ones_like(h["eta"])
    return {
        "beta": ones * h["beta"] * (1 - h["lam"]),
        "penalty": ones * h["lam"] * (1 - h["beta"]) / h["alpha"],
    }


_P_OF_THE_STEP_BEFORE = Mutant("P_{t-1} for P_t", lambda r: {"decays": _previous(r["decays"])})
_HEAVY_BALL_TEXT = "β' = β(1−λ), λ' = λ(1−β)/α"
_M0 = np.linspace(-0.2, 0.3, 6)

_EQUALITIES = (
    Relation(
        name="a1",
        statement="SGD with weight decay = SGD with L2, any schedule on both terms",
        left=_plain_sgd,
        right=lambda h: sgd_l2(h["alpha"], None, weight_decay=h["penalty"], schedule=_at(h["eta"])),
        verdict="equal",
        map=lambda h: {"penalty": h["lam"] / h["alpha"]},
        map_text="λ' = λ/α",
        mutant=_times("penalty", 1.01),
        why="η_t(α g + λ θ) = α η_t (g + (λ/α) θ).",
        source=f"{_PAPER}, Proposition 1",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="a2",
        statement="SGD, schedule on the step alone = SGD with L2, penalty over the schedule",
        left=lambda h: _plain_sgd(h, coupling="none"),
        right=lambda h: sgd_l2(
            h["alpha"], None, weight_decay=_at(h["penalty"]), schedule=_at(h["eta"])
        ),
        verdict="equal",
        map=lambda h: {"penalty": h["lam"] / _a(h)},
        map_text="λ'_t = λ/(α η_t)",
        mutant=Mutant("λ' = λ/α", lambda r: {"penalty": r["penalty"] * r["eta"]}),
        why="a_t g + λ θ = a_t (g + (λ/a_t) θ); an unscheduled decay is an L2 penalty that grows as "
        "the rate falls.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b1",
        statement="SGDW with momentum = heavy ball with L2, constant rate, rate inside the buffer",
        left=_sgdw,
        right=_sgd_l2,
        verdict="equal",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start=lambda h: {"trace": (h["trace"] + h["lam"] * h["theta0"]) / (1 - h["lam"])},
        start_text="n_0 = (m_0 + λθ_0)/(1−λ)",
        values={"trace": _M0},
        constant_schedule=True,
        mutant=_times("trace", 1.01),
        why="Both are linear filters of the gradients. Eliminate the buffer: θ_t = (1−λ+β)θ_{t-1} − "
        "β(1−λ)θ_{t-2} − αg_t, and (1+β'−αλ')θ_{t-1} − β'θ_{t-2} − αg_t; match the coefficients. "
        "The map is the only one.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b1-outside",
        statement="SGDW with momentum = heavy ball with L2, constant rate, rate outside the buffer",
        left=lambda h: _sgdw(h, in_buffer=False),
        right=lambda h: _sgd_l2(h, in_buffer=False),
        verdict="equal",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start=lambda h: {
            "trace": (h["trace"] + h["lam"] * h["theta0"] / h["alpha"]) / (1 - h["lam"])
        },
        start_text="n_0 = (m_0 + λθ_0/α)/(1−λ)",
        values={"trace": _M0},
        constant_schedule=True,
        mutant=_times("penalty", 1.01),
        why="As b1, with a buffer that is 1/α times as large.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b2",
        statement="SGDW with momentum = heavy ball with L2, constant rate, both buffers from zero",
        left=_sgdw,
        right=_sgd_l2,
        verdict="equal",
        map=lambda h: {
            **_heavy_ball_map(h),
            "penalty": _but_first(h["lam"] / h["alpha"], _heavy_ball_map(h)["penalty"]),
        },
        map_text=f"{_HEAVY_BALL_TEXT}; at the first step λ' = λ/α",
        constant_schedule=True,
        mutant=Mutant(
            "no exception at the first step",
            lambda r: {"penalty": _but_first(r["penalty"][1], r["penalty"])},
        ),
        why="As b1: a first step with λ' = λ/α leaves in an empty buffer what n_0 would have.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b3",
        statement="SGDW = heavy ball with L2 under any schedule, rate inside the buffer",
        left=_sgdw,
        right=_sgd_l2,
        verdict="equal",
        map=lambda h: {
            "beta": h["beta"] * (1 - _previous(_l(h))),
            "penalty": (_l(h) - h["beta"] * _previous(_l(h))) / _a(h),
        },
        map_text="β'_t = β(1−l_{t-1}), λ'_t = (l_t − βl_{t-1})/a_t, with l_{-1} = 0",
        mutant=Mutant("l_t for l_{t-1} in β'", lambda r: {"beta": _beta_of_this_step(r)}),
        why="m_t = (1−l_t)θ_{t-1} − θ_t; eliminate it and match coefficients step by step. Where the "
        "schedule falls faster than β, λ'_t is negative: SGDW is then no L2 penalty at all.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b4",
        statement="SGDW, decay and rate coupled, rate outside = heavy ball with L2, any schedule",
        left=lambda h: _sgdw(h, in_buffer=False, coupling="learning_rate"),
        right=lambda h: _sgd_l2(h, in_buffer=False),
        verdict="equal",
        map=lambda h: {
            "beta": h["beta"] * (1 - _previous(_a(h)) * h["lam"]),
            "penalty": _but_first(h["lam"], jnp.full_like(h["eta"], h["lam"] * (1 - h["beta"]))),
        },
        map_text="β'_t = β(1−a_{t-1}λ), λ' = λ(1−β), at the first step λ",
        mutant=Mutant(
            "no exception at the first step",
            lambda r: {"penalty": _but_first(r["penalty"][1], r["penalty"])},
        ),
        why="As b3 with r_t = a_t/a_{t-1} in front of β and β'; with l_t = a_tλ the penalty comes out "
        "constant.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="b7",
        statement="momentum with the rate inside the buffer = outside, with a changed momentum",
        left=lambda h: _sgdw(h, weight_decay=0.0),
        right=lambda h: optax.chain(_trace(h["beta"]), scale_by_schedule(_at(_a(h))), _SIGN),
        verdict="equal",
        map=lambda h: {"beta": h["beta"] * _but_first(0.0, _previous(_a(h)) / _a(h))},
        map_text="β_t = β a_{t-1}/a_t",
        mutant=Mutant("β_t a hundredth larger", lambda r: {"beta": 1.01 * r["beta"]}),
        why="With n_t = a_t m_t: n_t = βn_{t-1} + a_tg_t is m_t = β(a_{t-1}/a_t)m_{t-1} + g_t.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="c1",
        statement="decay after the step = decay beside the step, for Adam, any schedule",
        left=lambda h: optax.chain(
            _adam_step(h), _last_step(lambda theta, u, t: (1 - _l(h)[t]) * (theta + u))
        ),
        right=_decay_beside_step,
        verdict="equal",
        map=lambda h: {"rate": _a(h) * (1 - _l(h))},
        map_text="a_t → a_t(1−l_t)",
        mutant=Mutant("a_t as it was", lambda r: {"rate": _a(r)}),
        why="(1−l)(θ − au) = (1−l)θ − a(1−l)u.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="c3",
        statement="decay first, then the step of the old gradient (PyTorch) = decay beside the step",
        left=lambda h: optax.chain(
            _adam_step(h), _last_step(lambda theta, u, t: (1 - _l(h)[t]) * theta + u)
        ),
        right=_decay_beside_step,
        verdict="equal",
        map=lambda h: {"rate": _a(h)},
        map_text="identical",
        mutant=Mutant("decay after the step", lambda r: {"rate": _a(r) * (1 - _l(r))}),
        why="p ← p(1−l), p ← p − au reads the gradient before either: p(1−l) − au.",
        source="torch.optim.AdamW",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="d1",
        statement="proximal (implicit) decay = decay after the step",
        left=lambda h: optax.chain(
            _adam_step(h), _last_step(lambda theta, u, t: (theta + u) / (1 + _l(h)[t]))
        ),
        right=lambda h: optax.chain(
            _adam_step(h), _last_step(lambda theta, u, t: (1 - h["removed"][t]) * (theta + u))
        ),
        verdict="equal",
        map=lambda h: {"removed": _l(h) / (1 + _l(h))},
        map_text="l = μ/(1+μ)",
        mutant=Mutant("l = μ", lambda r: {"removed": _l(r)}),
        why="1/(1+μ) = 1 − μ/(1+μ).",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="d2",
        statement="proximal (implicit) decay = decay beside the step",
        left=lambda h: optax.chain(
            _adam_step(h), _last_step(lambda theta, u, t: (theta + u) / (1 + _l(h)[t]))
        ),
        right=lambda h: optax.chain(
            _adam(h),
            scale_by_schedule(_at(h["rate"])),
            decoupled_weight_decay(_at(h["removed"])),
            _SIGN,
        ),
        verdict="equal",
        map=lambda h: {"removed": _l(h) / (1 + _l(h)), "rate": _a(h) / (1 + _l(h))},
        map_text="l = μ/(1+μ), a → a/(1+μ)",
        mutant=Mutant("a as it was", lambda r: {"rate": _a(r)}),
        why="d1, then c1.",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e1",
        statement="AdamW with eps = 0 = AdamW with every coordinate's gradient rescaled",
        left=_adamw,
        right=lambda h: optax.chain(optax.stateless(lambda g, _: h["d"] * g), _adamw(h)),
        verdict="equal",
        map_text="identical for every d_i > 0, λ too",
        values={"eps": 0.0, "d": np.array([1e-3, 0.1, 0.5, 2.0, 30.0, 1e3])},
        mutant=Mutant("eps = 0.001", lambda r: {"eps": r["eps"] + 1e-3}),
        why="m̂ and √v̂ both take the factor d_i, and the decay sees neither. No gradient may be 0.",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e2",
        statement="AdamW with eps > 0 = AdamW on c times the loss, eps scaled along",
        left=_adamw,
        right=lambda h: optax.chain(optax.scale(h["c"]), _adamw(h)),
        verdict="equal",
        map=lambda h: {"eps": h["c"] * h["eps"], "eps_root": h["c"] ** 2 * h["eps_root"]},
        map_text="eps → c·eps, eps_root → c²·eps_root, same λ",
        values={"c": 37.0, "eps": 0.1, "eps_root": 0.01},
        mutant=Mutant("eps_root → c·eps_root", lambda r: {"eps_root": r["eps_root"] / r["c"]}),
        why="Numerator and denominator of the step take the factor c.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="f1",
        statement="fixed preconditioner 1/s with weight decay = the same with the penalty s_i θ_i²",
        left=lambda h: optax.chain(
            optax.stateless(lambda g, _: g / h["s"]),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            scale_by_schedule(_at(h["eta"])),
            _SIGN,
        ),
        right=lambda h: optax.chain(
            optax.stateless(lambda g, theta: (g + h["penalty"] * h["s"] * theta) / h["s"]),
            scale_by_schedule(_at(_a(h))),
            _SIGN,
        ),
        verdict="equal",
        map=lambda h: {"penalty": h["lam"] / h["alpha"]},
        map_text="(λ'/2) Σ s_i θ_i² with λ' = λ/α",
        values={"s": np.array([0.3, 0.5, 1.0, 2.0, 4.0, 9.0])},
        mutant=_times("penalty", 1.01),
        why="The penalty's gradient is λ's_iθ_i; the preconditioner takes the s_i away. As the "
        "appendix has it: equation (2) of the main text divides by α once too often.",
        source=f"{_PAPER}, Proposition 3",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="h1",
        statement="AdamW = a weighted sum of its updates, from the first step on",
        left=_adamw,
        right=lambda h: optax.chain(
            _adam(h), scale_by_schedule(_at(_a(h))), _closed_form(h["decays"])
        ),
        verdict="equal",
        map=lambda h: {"decays": _l(h)},
        map_text="θ_t = P_tθ_0 − Σ_k (P_t/P_k) a_k u_k",
        mutant=_P_OF_THE_STEP_BEFORE,
        why="Unroll θ_t = (1−l_t)θ_{t-1} − a_tu_t, for any updates u.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="i1",
        statement="AdamW with b1 = b2 = eps = 0 = sign descent with weight decay",
        left=_adamw,
        right=lambda h: optax.chain(
            optax.scale_by_sign(),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            scale_by_schedule(_at(h["eta"])),
            _SIGN,
        ),
        verdict="equal",
        values={"b1": 0.0, "b2": 0.0, "eps": 0.0},
        mutant=Mutant("λ per unit of learning rate", lambda r: {"lam": r["alpha"] * r["lam"]}),
        why="g/√(g²) = sign(g).",
        source=_DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="i1-lion",
        statement="AdamW with b1 = b2 = eps = 0 = Lion with b1 = 0 and any b2",
        left=_adamw,
        right=lambda h: lionw(
            h["alpha"], h["lion_b1"], h["lion_b2"], weight_decay=h["lam"], schedule=_at(h["eta"])
        ),
        verdict="equal",
        values={"b1": 0.0, "b2": 0.0, "eps": 0.0, "lion_b1": 0.0, "lion_b2": 0.37},
        mutant=Mutant("Lion's b1 = 0.9", lambda r: {"lion_b1": r["lion_b1"] + 0.9}),
        why="Both directions are sign(g).",
        source=_DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="j",
        statement="AMSGrad (maximum of v̂, Optax) = Adam while v̂ does not fall",
        left=_adamw,
        right=lambda h: amsgradw(
            h["alpha"],
            h["b1"],
            h["b2"],
            h["eps"],
            variant="optax",
            weight_decay=h["lam"],
            schedule=_at(h["eta"]),
        ),
        verdict="equal",
        map_text="identical; |g_t| not falling suffices",
        mutant=_times("b2", 1.001),
        why="The maximum of a sequence that does not fall is its last element.",
        source="Reddi et al. 2018, arXiv 1904.09237",
        problem=_problems.GROWING,
    ),
    Relation(
        name="j-pytorch",
        statement="AMSGrad (maximum of v, PyTorch) = Adam while v does not fall",
        left=_adamw,
        right=lambda h: amsgradw(
            h["alpha"],
            h["b1"],
            h["b2"],
            h["eps"],
            variant="pytorch",
            weight_decay=h["lam"],
            schedule=_at(h["eta"]),
        ),
        verdict="equal",
        map_text="identical; |g_t| not falling suffices",
        mutant=_times("b2", 1.001),
        why="As j; here the maximum is corrected after it is taken.",
        source="torch.optim.AdamW(amsgrad=True)",
        problem=_problems.GROWING,
    ),
    Relation(
        name="k1",
        statement="the paper's AdamW = PyTorch's and Optax's, any schedule",
        left=_adamw,
        right=lambda h: _adamw(h, coupling="learning_rate"),
        verdict="equal",
        map=lambda h: {"lam": h["lam"] / h["alpha"]},
        map_text="weight_decay = λ/α, α the base learning rate",
        mutant=_times("lam", 1.01),
        why="η_t(αu + λθ) = (αη_t)(u + (λ/α)θ).",
        source=f"{_PAPER}, Algorithm 2; torch.optim.AdamW; optax.adamw",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="k2",
        statement="AdamC (corrected decay), schedule peaking at 1 = AdamW whose coefficient follows it",
        left=lambda h: _adamw(h, coupling="corrected"),
        right=lambda h: _adamw(h, coupling="learning_rate", weight_decay=_at(h["coefficient"])),
        verdict="equal",
        map=lambda h: {"coefficient": h["lam"] * _a(h) / h["alpha"]},
        map_text="weight_decay_t = λ a_t/α",
        mutant=Mutant(
            "weight_decay = λ", lambda r: {"coefficient": jnp.full_like(r["eta"], r["lam"])}
        ),
        why="The decay per step is a_t²λ/α on both sides.",
        source="Defazio 2025, arXiv 2506.02285",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="l1",
        statement="AdamW without gradients = one multiplication by the product of (1−η_sλ)",
        left=_adamw,
        right=lambda h: optax.chain(optax.set_to_zero(), _closed_form(h["decays"])),
        verdict="equal",
        map=lambda h: {"decays": _l(h)},
        map_text="θ_k = P_k θ_0, state from zero, eps > 0",
        mutant=_P_OF_THE_STEP_BEFORE,
        why="With m = 0 the direction is 0/(0+eps) = 0, and only the decay is left.",
        source=_DERIVED,
        problem=_problems.SILENT,
    ),
    Relation(
        name="n1",
        statement="decay towards an anchor = decay towards zero of the distance from it",
        left=lambda h: optax.chain(
            _adam(h),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"], toward=h["anchor"]),
            scale_by_schedule(_at(h["eta"])),
            _SIGN,
        ),
        right=_adamw,
        verdict="equal",
        start=lambda h: {"theta0": h["theta0"] - h["anchor"]},
        start_text="φ_0 = θ_0 − anchor",
        parameters=lambda h, phi: phi + h["anchor"],
        map_text="φ = θ − anchor",
        values={"anchor": np.linspace(-1.0, 2.0, 6)},
        mutant=Mutant("φ_0 = θ_0", lambda r: {"theta0": r["theta0"] + r["anchor"]}),
        why="Adam commutes with translations, and λ(θ − anchor) = λφ.",
        source="L2-Init (arXiv 2308.11958), L2-SP",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="o",
        statement="MultiSteps(k) around optimizer and decay = one step on the k-fold batch",
        left=lambda h: _multi_steps(_adamw(h)),
        right=_adamw,
        verdict="equal",
        map_text="identical: the decay acts once in k micro-steps",
        mutant=Mutant(
            "a decay for each of four micro-steps", lambda r: {"lam": 1 - (1 - r["lam"]) ** 4}
        ),
        why="The accumulated mean gradient is the gradient of the k-fold batch.",
        source="optax.MultiSteps, accumulating in float64",
        problem=_problems.MICRO_BATCHES,
        right_sees_whole_batch=True,
    ),
    Relation(
        name="p3",
        statement="warm restarts in closed form = restarts counted step by step",
        left=lambda h: optax.chain(
            _adam(h),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            cosine_warm_restarts(7, 3),
            _SIGN,
        ),
        right=lambda h: optax.chain(
            _adam(h),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            _counted_restarts(h["first"], 3),
            _SIGN,
        ),
        verdict="equal",
        map_text="T_0 = 7, T_mult = 3: restarts at 7, 28, 91, 280",
        values={"first": np.int32(7)},
        mutant=Mutant("first cycle 8", lambda r: {"first": r["first"] + 1}),
        why="Cycle i starts at T_0(T_mult^i − 1)/(T_mult − 1).",
        source=f"{_PAPER}, appendix B.2",
        problem=_problems.REGRESSION,
        constant_schedule=True,
    ),
    Relation(
        name="p5",
        statement="decay, then scale by c = scale by c, then c times the decay",
        left=lambda h: optax.chain(
            _adam(h), optax.add_decayed_weights(h["lam"]), optax.scale(h["alpha"]), _SIGN
        ),
        right=lambda h: optax.chain(
            _adam(h), optax.scale(h["alpha"]), optax.add_decayed_weights(h["moved"]), _SIGN
        ),
        verdict="equal",
        map=lambda h: {"moved": h["alpha"] * h["lam"]},
        map_text="λ → cλ",
        mutant=_times("moved", 1.01),
        why="Multiplication distributes: this is why the place in the chain is the unit of λ.",
        source=_DERIVED,
        problem=_problems.REGRESSION,
        constant_schedule=True,
    ),
)


def _beta_of_this_step(r: Hyper) -> jax.Array:
    """b3's momentum with l_t in the place of l_{t-1}, from the second step on."""
    beta = r["beta"][0]
    return _but_first(beta, beta * (1 - _l(r)))


def _multi_steps(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    micro_steps = jax.tree.leaves(_problems.MICRO_BATCHES.batches)[0].shape[1]
    # Optax accumulates in float32 unless told otherwise, under x64 too.
    accumulated = optax.MultiSteps(tx, micro_steps, accumulator_dtype=jnp.float64)
    return accumulated.gradient_transformation()


def _witness_values(eta: list[float], **values: float) -> dict[str, Any]:
    return {"eta": np.asarray(eta), **{k: np.float64(v) for k, v in values.items()}}


_PENALTIES = np.logspace(-6, 6, 241)
_HALVED = [1.0, 0.5]
_SMALL = {"alpha": 1.0, "lam": 0.1, "beta": 0.5}

_SEPARATIONS = (
    Relation(
        name="N1",
        statement="Adam with L2 ≠ AdamW, for every constant λ' of either sign",
        left=_adamw,
        right=lambda h: adam_l2(h["alpha"], eps=h["eps"], weight_decay=_at(h["penalty"])),
        verdict="different",
        map_text="λ' from −10⁶ to 10⁶ and 0",
        # Not 0: where the penalty cancels the gradient, the direction is 0 and not 0/0.
        values=_witness_values([1.0], alpha=0.1, lam=0.1, eps=1e-30),
        family={"penalty": np.concatenate([-_PENALTIES, [0.0], _PENALTIES])[:, None]},
        gap=0.2,
        why="One step, g = (1, 1), θ_0 = (1, 2), α = λ = 0.1: AdamW lands on (0.8, 1.7). Adam's first "
        "step has size 0 or α in each coordinate whatever λ' is.",
        source=f"{_PAPER}, Proposition 2",
        problem=_problems.witness([1.0, 2.0], [[1.0, 1.0]]),
    ),
    Relation(
        name="N3",
        statement="SGDW ≠ heavy ball with L2 at the same momentum and λ' = λ/α",
        left=_sgdw,
        right=lambda h: sgd_l2(
            h["alpha"], h["beta"], weight_decay=h["penalty"], schedule=_at(h["eta"])
        ),
        verdict="different",
        map=lambda h: {"penalty": h["lam"] / h["alpha"]},
        map_text="λ' = λ/α, the first step's only choice",
        values=_witness_values([1.0, 1.0], **_SMALL),
        gap=0.05,
        why="No gradient, two steps, α = 1, λ = 0.1, β = 0.5: 0.81 against 0.76. The penalty enters "
        "the buffer and comes back: a gap of βλθ_0.",
        source=_DERIVED,
        problem=_problems.witness([1.0], [[0.0], [0.0]]),
    ),
    Relation(
        name="N4",
        statement="SGDW ≠ heavy ball with L2 under the map of b1, if the buffer starts from zero",
        left=_sgdw,
        right=_sgd_l2,
        verdict="different",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start_text="n_0 = 0",
        values=_witness_values([1.0], **_SMALL),
        gap=0.05,
        why="No gradient, one step: SGDW removes λ, the other λ(1−β).",
        source=_DERIVED,
        problem=_problems.witness([1.0], [[0.0]]),
    ),
    Relation(
        name="N5",
        statement="SGDW ≠ heavy ball with L2 under the map of b1, if the schedule changes",
        left=_sgdw,
        right=_sgd_l2,
        verdict="different",
        map=_heavy_ball_map,
        map_text=_HEAVY_BALL_TEXT,
        start=lambda h: {"trace": h["lam"] * h["theta0"] / (1 - h["lam"])},
        start_text="n_0 = λθ_0/(1−λ)",
        values=_witness_values(_HALVED, **_SMALL),
        gap=0.0225,
        why="No gradient, η = (1, ½): 0.855 against 0.8325. The buffer still holds the first step's "
        "decay at the full rate; b3 has the map that works.",
        source=_DERIVED,
        problem=_problems.witness([1.0], [[0.0], [0.0]]),
    ),
    Relation(
        name="N6",
        statement="rate inside the momentum buffer ≠ outside, under a schedule",
        left=lambda h: _sgdw(h, weight_decay=0.0),
        right=lambda h: _sgdw(h, in_buffer=False, weight_decay=0.0),
        verdict="different",
        map_text="same numbers",
        values=_witness_values(_HALVED, alpha=1.0, beta=0.5),
        gap=0.25,
        why="g = 1 twice, η = (1, ½), α = 1, β = ½: steps of 1 and 1 inside, of 1 and 0.75 outside.",
        source=f"{_PAPER}, Algorithm 1, against torch.optim.SGD",
        problem=_problems.witness([0.0], [[1.0], [1.0]]),
    ),
    Relation(
        name="N13",
        statement="decay that ignores the schedule ≠ decay that follows it",
        left=lambda h: _adamw(h, coupling="none"),
        right=_adamw,
        verdict="different",
        map_text="same numbers",
        values=_witness_values(_HALVED, alpha=1.0, lam=0.1),
        gap=0.045,
        why="No gradient, η = (1, ½), λ = 0.1: 0.9·0.9 against 0.9·0.95.",
        source="TensorFlow Addons against the paper",
        problem=_problems.witness([1.0], [[0.0], [0.0]]),
    ),
    Relation(
        name="N14",
        statement="decay outside MultiSteps ≠ decay inside",
        left=lambda h: optax.chain(
            _multi_steps(_adamw(h, weight_decay=0.0)),
            _SIGN,
            decoupled_weight_decay(h["lam"]),
            _SIGN,
        ),
        right=lambda h: _multi_steps(_adamw(h)),
        verdict="different",
        map_text="same numbers",
        values=_witness_values([1.0], alpha=1.0, lam=0.1),
        gap=0.2439,
        why="No gradient, four micro-steps, λ = 0.1: 0.9⁴ against 0.9.",
        source=_DERIVED,
        problem=_problems.silent_micro_steps([1.0], 4),
    ),
    Relation(
        name="N16",
        statement="clipping after the penalty is added ≠ decay that clipping does not see",
        left=lambda h: optax.chain(
            add_l2_to_grad(h["penalty"]),
            optax.clip_by_global_norm(1.0),
            scale_by_schedule(_at(_a(h))),
            _SIGN,
        ),
        right=lambda h: optax.chain(optax.clip_by_global_norm(1.0), _plain_sgd(h)),
        verdict="different",
        map_text="λ' = λ/α, as a1 has it",
        values=_witness_values([1.0], alpha=0.1, lam=0.1, penalty=1.0),
        gap=0.1,
        why="No gradient, θ_0 = 2, α = λ = 0.1, λ' = 1: the penalty's gradient 2 is clipped to 1, so "
        "1.9 against 1.8. In plain SGD too.",
        source=_DERIVED,
        problem=_problems.witness([2.0], [[0.0]]),
    ),
)

CATALOGUE: tuple[Relation, ...] = _EQUALITIES + _SEPARATIONS


def relation(name: str) -> Relation:
    """Look a row up by its name.

    Raises:
        KeyError: there is no such row; the message lists those there are.
    """
    rows = {row.name: row for row in CATALOGUE}
    if name not in rows:
        raise KeyError(f"there is no relation {name!r}; there are {', '.join(rows)}")
    return rows[name]
