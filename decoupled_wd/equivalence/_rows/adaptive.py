"""Adam and its kin."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import adam_l2
from decoupled_wd._scaling import AMSGradVariant, scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import (
    Hyper,
    Interval,
    Limit,
    Mutant,
    Problem,
    Relation,
)
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    PAPER,
    SOME_EPS,
    WITHOUT_EPS,
    WITHOUT_EPS_TEXT,
    a_t,
    adamw_of,
    amsgradw_of,
    at,
    decay_beside_step,
    starting_from,
    step_number,
    with_decay,
    witness_values,
)

_PENALTIES = np.logspace(-6, 6, 241)
_FEWER_PENALTIES = np.logspace(-6, 6, 150)
_BOWL = Problem(
    "½(x−1)² + 5(y−1)²",
    lambda theta, batch: jnp.array([1.0, 10.0]) * (theta - 1),
    np.zeros((200, 1)),
    np.array([1.0, 2.0]),
)


def _growing(h: Hyper, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(scale_by_schedule(lambda t: h["growth"] ** t), tx)


def _amsgrad_of(h: Hyper, variant: AMSGradVariant) -> optax.GradientTransformation:
    """AMSGrad whose maximum starts from `v_max`."""
    return starting_from(amsgradw_of(h, variant=variant), nu_max=_first_maximum(h))


def _optax_amsgrad(h: Hyper) -> optax.GradientTransformation:
    """Optax's own, finished with decay; its maximum starts from `v_max`."""
    tx = optax.scale_by_amsgrad(h["b1"], h["b2"], h["eps"], h["eps_root"])
    return with_decay(starting_from(tx, nu_max=_first_maximum(h)), h)


def _first_maximum(h: Hyper) -> jax.Array:
    return jnp.full_like(h["theta0"], h["v_max"])


def _uncorrected_adam(h: Hyper) -> optax.GradientTransformation:
    """m / (sqrt v + eps), as the AMSGrad paper writes Adam."""
    first, second = (optax.ema(h[name], debias=False) for name in ("b1", "b2"))

    def init(params: Any) -> Any:
        return first.init(params), second.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        m, first_state = first.update(updates, state[0], params)
        v, second_state = second.update(updates**2, state[1], params)
        root = jnp.sqrt(jnp.asarray(v) + h["eps_root"])
        return jnp.asarray(m) / (root + h["eps"]), (first_state, second_state)

    return optax.GradientTransformation(init, update)


def _with_falls(h: Hyper, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Gradients that fall short of their growth at every second step from the 21st on."""

    def factor(count: jax.Array) -> jax.Array:
        return jnp.where((count >= 20) & (count % 2 == 0), h["fall"], 1.0)

    return optax.chain(scale_by_schedule(factor), tx)


class _VarianceState(NamedTuple):
    count: jax.Array
    m: jax.Array
    surprise: jax.Array


def _scale_by_variance(h: Hyper) -> optax.GradientTransformation:
    """m_hat / sqrt((m^2 + factor EMA[(m_{t-1} - g)^2]) / (1 - b^t))."""
    b = h["beta"]

    def init(params: Any) -> _VarianceState:
        zero = jnp.zeros_like(params)
        return _VarianceState(jnp.zeros([], jnp.int32), zero, zero)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _VarianceState]:
        del params
        count, m = state.count + 1, b * state.m + (1 - b) * updates
        surprise = b * state.surprise + (1 - b) * (state.m - updates) ** 2
        corrected = 1 - b**count
        u = (m / corrected) / jnp.sqrt((m**2 + h["factor"] * surprise) / corrected)
        return u, _VarianceState(count, m, surprise)

    return optax.GradientTransformation(init, update)


_WEAKER = {
    "verdict": "rounding",
    "values": {"fall": 0.92, "v_max": 0.0},
    "condition": "gradients grow by 5 % a step, and from step 21 on every second one is `fall` of that, "
    "a fall of |g_t| for 0.92 ≤ fall ≤ 0.95, at which v̂ does not fall for any b2 ≥ ½",
    "domain": {"fall": Interval(0.92, 0.95)},
    "outside": {"fall": Interval(0.1, 0.5), "b2": Interval(0.5, 0.9)},
    "source": "derived, after Reddi et al. 2018, arXiv 1904.09237",
    "problem": _problems.STEADY_GROWTH,
}
_WEAKER_WHY = (
    "and g_t² is at least (0.92·1.05)² = 0.933 times the last square on the line of growth, v̂_{t-1} "
    "at most ½Σ(½/1.05²)^k = 0.915 times it, as it is at b2 = ½."
)

ROWS = (
    Relation(
        name="j",
        statement="AMSGrad (maximum of v̂, Optax) = Adam while |g_t| does not fall",
        left=lambda h: _growing(h, adamw_of(h)),
        right=lambda h: _growing(h, _optax_amsgrad(h)),
        verdict="rounding",
        values={"growth": 1.0, "v_max": 0.0},
        condition="|g_t| does not fall: gradients of growing size times growth^t with growth ≥ 1",
        domain={"growth": Interval(1.0, 1.1)},
        outside={"growth": Interval(0.5, 0.8)},
        mutant=Mutant("a maximum that remembers |g| = 3", lambda r: {"v_max": r["v_max"] + 9}),
        why="v̂_t is a weighted mean of v̂_{t-1} and g_t²; v̂_{t-1}, a mean of earlier squares, is at "
        "most g_t². So v̂ does not fall, and the maximum of a sequence that does not fall is its last "
        "element.",
        source="Reddi et al. 2018, arXiv 1904.09237",
        problem=_problems.GROWING,
        quick=True,
    ),
    Relation(
        name="j-pytorch",
        statement="AMSGrad (maximum of v, PyTorch) = Adam while |g_t| does not fall",
        left=lambda h: _growing(h, adamw_of(h)),
        right=lambda h: _growing(h, _amsgrad_of(h, "pytorch")),
        verdict="rounding",
        values={"growth": 1.0, "v_max": 0.0},
        condition="|g_t| does not fall: gradients of growing size times growth^t with growth ≥ 1",
        domain={"growth": Interval(1.0, 1.1)},
        outside={"growth": Interval(0.3, 0.6), "b2": Interval(0.5, 0.9)},
        mutant=Mutant("a maximum that remembers v = 1", lambda r: {"v_max": r["v_max"] + 1}),
        why="v_{t-1} ≤ max g_s² (s < t) ≤ g_t², so v_t = b2 v_{t-1} + (1−b2)g_t² ≥ v_{t-1}; the "
        "maximum is corrected after it is taken, as Adam's v is.",
        source="torch.optim.AdamW(amsgrad=True)",
        problem=_problems.GROWING,
        quick=True,
    ),
    Relation(
        name="j-weaker",
        statement="AMSGrad (maximum of v̂, Optax) = Adam while v̂ does not fall, though |g_t| does",
        left=lambda h: _with_falls(h, adamw_of(h)),
        right=lambda h: _with_falls(h, _optax_amsgrad(h)),
        **_WEAKER,
        mutant=Mutant("a maximum that remembers |g| = 10", lambda r: {"v_max": r["v_max"] + 100}),
        why="v̂_t is a weighted mean of v̂_{t-1} and g_t²: it does not fall as long as g_t² ≥ v̂_{t-1}, "
        f"{_WEAKER_WHY}",
    ),
    Relation(
        name="j-weaker-pytorch",
        statement="AMSGrad (maximum of v, PyTorch) = Adam while v does not fall, though |g_t| does",
        left=lambda h: _with_falls(h, adamw_of(h)),
        right=lambda h: _with_falls(h, _amsgrad_of(h, "pytorch")),
        **_WEAKER,
        mutant=Mutant("a maximum that remembers v = 100", lambda r: {"v_max": r["v_max"] + 100}),
        why="v_t ≥ v_{t-1} as long as g_t² ≥ v_{t-1}; v_{t-1} ≤ v̂_{t-1} ≤ g_t², "
        f"{_WEAKER_WHY}",
    ),
    Relation(
        name="j-paper",
        statement="AMSGrad as published = Adam, both without bias correction, while v does not fall",
        left=lambda h: _with_falls(h, with_decay(_uncorrected_adam(h), h)),
        right=lambda h: _with_falls(h, _amsgrad_of(h, "paper")),
        **_WEAKER,
        mutant=Mutant("a maximum that remembers v = 100", lambda r: {"v_max": r["v_max"] + 100}),
        why="As j-weaker-pytorch; the maximum of a sequence that does not fall is its last element.",
    ),
    Relation(
        name="amsgrad-keras",
        statement="AMSGrad of Keras (eps before the bias correction) = AMSGrad of PyTorch, eps = 0",
        left=lambda h: amsgradw_of(h, variant="keras"),
        right=lambda h: amsgradw_of(h, variant="pytorch"),
        verdict="rounding",
        values=WITHOUT_EPS,
        condition=WITHOUT_EPS_TEXT,
        outside=SOME_EPS,
        mutant=Mutant("eps = 0.01", lambda r: {"eps": r["eps"] + 0.01}),
        why="Both take the maximum of v, and √(max v/(1−b2^t)) = √(max v)/√(1−b2^t): only where eps is "
        "added, before or after the division, tells them apart.",
        source="keras.optimizers.Adam(amsgrad=True), torch.optim.Adam(amsgrad=True)",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="rmsprop",
        statement="RMSProp, bias-corrected, eps outside the root, with decay = AdamW with b1 = 0",
        left=lambda h: with_decay(
            optax.scale_by_rms(h["b2"], h["eps"], eps_in_sqrt=False, bias_correction=True), h
        ),
        right=adamw_of,
        verdict="rounding",
        values={"b1": 0.0, "eps_root": 0.0},
        condition="b1 = 0",
        outside={"b1": Interval(0.3, 0.95)},
        mutant=Mutant("b1 = 0.9", lambda r: {"b1": r["b1"] + 0.9}),
        why="Without a first moment m̂ = g, and v̂ is RMSProp's average.",
        source="Kingma and Ba 2015, arXiv 1412.6980, Section 5",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="rmsprop-uncorrected",
        statement="RMSProp, not bias-corrected, eps = 0, with decay = Adam with b1 = 0, rate changed",
        left=lambda h: with_decay(
            optax.scale_by_rms(h["b2"], h["eps"], eps_in_sqrt=False, bias_correction=False), h
        ),
        right=decay_beside_step,
        verdict="rounding",
        map=lambda h: {"rate": a_t(h) / jnp.sqrt(1 - h["b2"] ** step_number(h))},
        map_text="a_t → a_t/√(1−b2^t), t from 1",
        values={"b1": 0.0, "eps": 0.0, "eps_root": 0.0},
        condition="b1 = eps = 0",
        outside={"eps": Interval(0.01, 1.0)},
        mutant=Mutant(
            "b2^{t+1} for b2^t",
            lambda r: {"rate": a_t(r) / jnp.sqrt(1 - r["b2"] ** (1 + step_number(r)))},
        ),
        why="√v̂ = √v/√(1−b2^t): RMSProp's first steps are up to 1/√(1−b2) times as large.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="adam-variance",
        statement="Adam with b1 = b2 and eps = 0 = division by mean² + variance of the gradient",
        left=lambda h: adamw_of({**h, "b1": h["beta"], "b2": h["beta"] + h["b2_excess"]}),
        right=lambda h: with_decay(_scale_by_variance(h), h),
        verdict="rounding",
        map=lambda h: {"factor": h["beta"]},
        map_text="v = m² + b·EMA[(m_{t-1}−g_t)²], b = b1 = b2",
        values={"b1": 0.9, "b2": 0.9, "b2_excess": 0.0, "eps": 0.0, "eps_root": 0.0},
        condition="b2 = b1, eps = 0",
        outside={"beta": Interval(0.1, 0.5), "b2_excess": Interval(0.3, 0.49)},
        mutant=Mutant("v = m² + EMA[(m_{t-1}−g_t)²]", lambda r: {"factor": 1.0}),
        why="With m = bm_- + (1−b)g and v = bv_- + (1−b)g²: v − m² = b(v_- − m_-²) + b(1−b)(m_-−g)². "
        "The variance is AdaBelief's second moment over b, as m − g = b(m_-−g).",
        source="derived; the reading as a variance is Orvieto and Gower 2025, arXiv 2505.21829",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="adagrad",
        statement="Adagrad with decay = RMSProp whose b2 grows, rate falling as 1/√t",
        left=lambda h: with_decay(optax.scale_by_rss(0.0, 0.0), h),
        right=lambda h: with_decay(
            optax.chain(
                optax.inject_hyperparams(optax.scale_by_rms, static_args=("eps_in_sqrt",))(
                    decay=at(h["averaging"]), eps=0.0, eps_in_sqrt=False
                ),
                scale_by_schedule(at(1 / jnp.sqrt(step_number(h)))),
            ),
            h,
        ),
        verdict="rounding",
        map=lambda h: {"averaging": 1 - 1 / step_number(h)},
        map_text="b2_t = 1−1/t, a_t → a_t/√t, the decay as it was, t from 1",
        mutant=Mutant("b2_t = 1−1/(t+1)", lambda r: {"averaging": 1 - 1 / (1 + step_number(r))}),
        why="With b2_t = 1−1/t, v is the mean of the squares so far, and √(Σg²) = √t √v.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="adagrad-limit",
        statement="Adam with b1 = 0 and rate a_t/√t → Adagrad with decay, as b2 → 1",
        left=lambda h: with_decay(optax.scale_by_rss(0.0, 0.0), h),
        right=lambda h: decay_beside_step({**h, "b2": 1 - h["1−b2"]}),
        verdict="limit",
        map=lambda h: {"rate": a_t(h) / jnp.sqrt(step_number(h))},
        map_text="a_t → a_t/√t, the decay as it was, t from 1",
        values={"b1": 0.0, "eps": 0.0, "eps_root": 0.0},
        limit=Limit("1−b2", (1e-4, 1e-5, 1e-6), rate=1.0),
        mutant=Mutant("a_t/√(t+1)", lambda r: {"rate": a_t(r) / jnp.sqrt(1 + step_number(r))}),
        why="With bias correction v̂ is a mean with weights ∝ b2^(t−s), which differ from equal ones by "
        "O(t(1−b2)); t times the plain mean of the squares is Adagrad's sum.",
        source="Kingma and Ba 2015, arXiv 1412.6980, Section 5",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="adam-large-eps",
        statement="Adam of rate α·eps → SGD with bias-corrected averaged momentum, as eps → ∞",
        left=lambda h: adamw_of({**h, "alpha": h["alpha"] * h["eps"]}),
        right=lambda h: with_decay(
            optax.chain(
                optax.ema(h["b1"], debias=False), scale_by_schedule(at(1 / h["correction"]))
            ),
            h,
        ),
        verdict="limit",
        map=lambda h: {"correction": 1 - h["b1"] ** step_number(h)},
        map_text="α → α·eps on Adam's side, λ as it was",
        values={"alpha": 0.5},
        limit=Limit("eps", (1e3, 1e4, 1e5), rate=-1.0),
        mutant=Mutant(
            "no bias correction", lambda r: {"correction": jnp.ones_like(r["correction"])}
        ),
        why="eps/(√v̂ + eps) = 1 − √v̂/eps + …: the step is αm̂ up to O(1/eps).",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="N1",
        statement="Adam with L2 ≠ AdamW, for every constant λ' of either sign",
        left=adamw_of,
        right=lambda h: adam_l2(h["alpha"], eps=h["eps"], weight_decay=at(h["penalty"])),
        verdict="never",
        map_text="λ' from −10⁶ to 10⁶ and 0",
        # Not 0: where the penalty cancels the gradient, the direction is 0 and not 0/0.
        values=witness_values([1.0], alpha=0.1, lam=0.1, eps=1e-30),
        family={"penalty": np.concatenate([-_PENALTIES, [0.0], _PENALTIES])[:, None]},
        gap=0.2,
        why="One step, g = (1, 1), θ_0 = (1, 2), α = λ = 0.1: AdamW lands on (0.8, 1.7). Adam's first "
        "step has size 0 or α in each coordinate whatever λ' is.",
        source=f"{PAPER}, Proposition 2",
        problem=_problems.witness([1.0, 2.0], [[1.0, 1.0]]),
        quick=True,
    ),
    Relation(
        name="N1'",
        statement="Adam with L2 ≠ AdamW on a quadratic, for 301 values of λ' from −10⁶ to 10⁶",
        left=adamw_of,
        right=lambda h: adam_l2(h["alpha"], h["b1"], h["b2"], h["eps"], weight_decay=h["penalty"]),
        verdict="never",
        map_text="λ' = ±10⁻⁶ to ±10⁶, 150 of each sign, evenly by logarithm, and 0",
        values=witness_values([1.0] * 200, alpha=0.05, lam=0.01, b1=0.9, b2=0.999, eps=1e-8),
        family={"penalty": np.concatenate([-_FEWER_PENALTIES, [0.0], _FEWER_PENALTIES])},
        gap=0.2,
        gap_is_bound=True,
        why="No λ' shrinks two coordinates with gradients of different size by the same factor. "
        "Measured: the closest is 0.21 away at its worst step.",
        source=f"{PAPER}, Proposition 2; measured here",
        problem=_BOWL,
    ),
    Relation(
        name="N12-adam",
        statement="AMSGrad ≠ Adam once a gradient is smaller than the one before",
        left=_optax_amsgrad,
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0] * 2, alpha=1.0, lam=0.0, b1=0.0, b2=0.5, eps=0.0, v_max=0.0),
        gap=2 / 15,
        why="g = (5, 1), b1 = eps = 0, b2 = ½, α = 1: v̂ = 25, then (½·25 + 1)/1.5 = 9. Adam's second "
        "step is 1/3, AMSGrad's 1/5.",
        source="Reddi et al. 2018, arXiv 1904.09237",
        problem=_problems.witness([0.0], [[5.0], [1.0]]),
    ),
    Relation(
        name="N12-pytorch",
        statement="AMSGrad of PyTorch and Keras (maximum of v) ≠ AMSGrad of Optax (maximum of v̂)",
        left=lambda h: _amsgrad_of(h, "pytorch"),
        right=_optax_amsgrad,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0] * 2, alpha=1.0, lam=0.0, b1=0.0, b2=9 / 16, eps=0.0, v_max=0.0),
        gap=0.125,
        why="g = (2, 1), b1 = eps = 0, b2 = 9/16, α = 1: v = 7/4, then 91/64 < 7/4. PyTorch divides by "
        "√((7/4)/(1−b2²)) = 8/5, Optax still by √((7/4)/(1−b2)) = 2: steps of 5/8 and 1/2.",
        source="torch.optim.AdamW(amsgrad=True) against optax.amsgrad",
        problem=_problems.witness([0.0], [[2.0], [1.0]]),
    ),
    Relation(
        name="N12-paper",
        statement="AMSGrad as published (no bias correction) ≠ AMSGrad of PyTorch, Optax and Keras",
        left=lambda h: _amsgrad_of(h, "paper"),
        right=_optax_amsgrad,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.0, b1=0.0, b2=0.75, eps=0.0, v_max=0.0),
        gap=1.0,
        why="g = 1, b1 = eps = 0, b2 = ¾, α = 1: v = ¼, a first step of 2; corrected, v̂ = 1, it is 1. "
        "PyTorch and Optax agree on a first step.",
        source="Reddi et al. 2018, arXiv 1904.09237, Algorithm 2",
        problem=_problems.witness([0.0], [[1.0]]),
    ),
    Relation(
        name="rmsprop-vs-adam",
        statement="RMSProp without bias correction ≠ Adam with b1 = 0 at the same rate",
        left=lambda h: with_decay(
            optax.scale_by_rms(h["b2"], 0.0, eps_in_sqrt=False, bias_correction=False), h
        ),
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.1, b1=0.0, b2=0.75, eps=0.0),
        gap=1.0,
        why="g = 1, b2 = ¾, α = 1: v = ¼ and a step of 2, against 1; rmsprop-uncorrected has the map.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[1.0]]),
    ),
    Relation(
        name="rmsprop-eps",
        statement="RMSProp with eps inside the root (Optax) ≠ eps outside (PyTorch)",
        left=lambda h: with_decay(optax.scale_by_rms(h["b2"], h["eps"]), h),
        right=lambda h: with_decay(optax.scale_by_rms(h["b2"], h["eps"], eps_in_sqrt=False), h),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.1, b2=0.0, eps=3.0),
        gap=0.25,
        why="g = 1, b2 = 0, eps = 3, α = 1: 1/√(1+3) = ½ against 1/(1+3) = ¼.",
        source="optax.rmsprop against torch.optim.RMSprop",
        problem=_problems.witness([0.0], [[1.0]]),
    ),
)
