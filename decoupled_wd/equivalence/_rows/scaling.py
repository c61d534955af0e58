"""The loss, the penalty, or the coordinates on another scale or in another basis."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from decoupled_wd._alias import adam_l2
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    FACTORS,
    PAPER,
    SIGN,
    SMALL,
    SOME_EPS,
    WITHOUT_EPS,
    WITHOUT_EPS_TEXT,
    a_t,
    adamw_of,
    amsgradw_of,
    at,
    sgdw_of,
    step_number,
    with_decay,
    witness_values,
)

_FIRST_STEP = {"b1": 0.5, "b2": 0.75, "eps_root": 0.0}


def _adam_l2_of(h: Hyper) -> optax.GradientTransformation:
    schedule = at(h["eta"])
    return adam_l2(
        h["alpha"], h["b1"], h["b2"], h["eps"], h["eps_root"],
        weight_decay=h["lam"], schedule=schedule,
    )  # fmt: skip


def _loss_times_c(h: Hyper, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.scale(h["c"]), tx)


def _adam_with_changing_eps(h: Hyper) -> optax.GradientTransformation:
    adam = optax.inject_hyperparams(optax.scale_by_adam)
    return with_decay(adam(h["b1"], h["b2"], eps=at(h["eps"]), eps_root=at(h["eps_root"])), h)


def _correction(h: Hyper) -> jax.Array:
    return 1 - h["b2"] ** step_number(h)


def _preconditioned_decay(h: Hyper) -> optax.GradientTransformation:
    return with_decay(optax.stateless(lambda g, _: g / h["s"]), h)


def _preconditioned_penalty(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(
        optax.stateless(lambda g, theta: (g + h["penalty"] * theta) / h["s"]),
        scale_by_schedule(at(a_t(h))),
        SIGN,
    )


def _muon_of(h: Hyper) -> optax.GradientTransformation:
    """Muon on the parameters as a matrix of two rows."""
    # A row of coefficients a step makes Optax loop, which compiles faster than five copies.
    coefficients = ((3.4445, -4.7750, 2.0315),) * 5
    muon = optax.contrib.scale_by_muon(coefficients, beta=h["beta"], eps=h["eps"])

    def init(params: Any) -> Any:
        return muon.init(jnp.reshape(params, (2, -1)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        direction, state = muon.update(updates.reshape(2, -1), state)
        return jax.tree.map(jnp.ravel, direction), state

    return with_decay(optax.GradientTransformation(init, update), h)


def _turn(angle: Any, size: int) -> jax.Array:
    """An orthogonal matrix: turn the coordinates (0, 1), (2, 3), ..., then move all by one place."""
    first = np.arange(0, size - 1, 2)
    quarter = np.zeros((size, size))
    quarter[first, first + 1], quarter[first + 1, first] = -1, 1
    plane = -quarter @ quarter
    return jnp.roll(np.eye(size) + (jnp.cos(angle) - 1) * plane + jnp.sin(angle) * quarter, 1, 0)


def _in_other_coordinates(rows: int, columns: int) -> dict[str, Any]:
    """X = S U W Vᵀ: U and V turn by `angle`, S makes the first row `stretch` times as long."""

    def back(h: Hyper) -> Hyper:
        first = jnp.ones(rows).at[0].set(h["stretch"])
        return {"rows": _turn(h["angle"], rows).T / first, "columns": _turn(h["angle"], columns)}

    def start(h: Hyper) -> Hyper:
        first = jnp.ones((rows, 1)).at[0].set(h["stretch"])
        w = h["theta0"].reshape(rows, columns)
        x = first * (_turn(h["angle"], rows) @ w @ _turn(h["angle"], columns).T)
        return {"theta0": x.ravel()}

    return {"map": back, "start": start, "parameters": _seen_back}


def _seen_back(h: Hyper, x: jax.Array) -> jax.Array:
    return (h["rows"] @ x.reshape(len(h["rows"]), -1) @ h["columns"]).ravel()


def _other_coordinates(change: str, rows: int, columns: int, **numbers: float) -> Mutant:
    """Coordinates that are taken there and back as they should, but are others."""
    other = _in_other_coordinates(rows, columns)

    def apply(r: Hyper) -> Hyper:
        changed = {**r, **numbers, "theta0": _seen_back(r, r["theta0"])}
        return {**numbers, **other["map"](changed), **other["start"](changed)}

    return Mutant(change, apply)


_ANGLE = {"angle": Interval(0.0, 6.3)}
_STRETCHED = {"stretch": Interval(1.1, 2.0)}
_TURNED = {"angle": 0.7, "stretch": 1.0}
_EXACT_TURN = {"angle": np.arctan2(3, 4), "stretch": 1.0}
_PENALTIES = np.logspace(-6, 6, 241)
_EPS_ALONG: dict[str, Any] = {
    "verdict": "rounding",
    "map": lambda h: {"eps": h["c"] * h["eps"], "eps_root": h["c"] ** 2 * h["eps_root"]},
    "map_text": "eps → c·eps, eps_root → c²·eps_root, same λ",
    "values": {"c": 37.0, "eps": 0.1, "eps_root": 0.01},
    "domain": {"c": FACTORS, "eps": Interval(1e-8, 1.0), "eps_root": Interval(0.0, 0.1)},
    "mutant": Mutant("eps_root → c·eps_root", lambda r: {"eps_root": r["eps_root"] / r["c"]}),
}

ROWS = (
    Relation(
        name="e1",
        statement="AdamW with eps = 0 = AdamW with every coordinate's gradient rescaled",
        left=adamw_of,
        right=lambda h: optax.chain(optax.stateless(lambda g, _: h["d"] * g), adamw_of(h)),
        verdict="rounding",
        map_text="identical for every d_i > 0, λ too",
        values={**WITHOUT_EPS, "d": np.array([1e-3, 0.1, 0.5, 2.0, 30.0, 1e3])},
        condition=WITHOUT_EPS_TEXT,
        outside=SOME_EPS,
        mutant=Mutant("eps = 0.001", lambda r: {"eps": r["eps"] + 1e-3}),
        why="m̂ and √v̂ both take the factor d_i, and the decay sees neither. No gradient may be 0.",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="e2",
        statement="AdamW with eps > 0 = AdamW on c times the loss, eps scaled along",
        left=adamw_of,
        right=lambda h: _loss_times_c(h, adamw_of(h)),
        **_EPS_ALONG,
        why="Numerator and denominator of the step take the factor c.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="e2-amsgrad",
        statement="AMSGrad with eps > 0 = AMSGrad on c times the loss, eps scaled along",
        left=amsgradw_of,
        right=lambda h: _loss_times_c(h, amsgradw_of(h)),
        **_EPS_ALONG,
        why="As e2: the maximum of second moments takes the factor c², as they do.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e3",
        statement="Adam with L2 = Adam with L2 on c times the loss, λ' and eps scaled along",
        left=_adam_l2_of,
        right=lambda h: _loss_times_c(h, _adam_l2_of(h)),
        verdict="rounding",
        map=lambda h: {
            "lam": h["c"] * h["lam"],
            "eps": h["c"] * h["eps"],
            "eps_root": h["c"] ** 2 * h["eps_root"],
        },
        map_text="λ' → cλ', eps → c·eps, eps_root → c²·eps_root",
        values={"c": 37.0},
        domain={"c": FACTORS},
        mutant=Mutant("λ' as it was", lambda r: {"lam": r["lam"] / r["c"]}),
        why="cg + cλ'θ = c(g + λ'θ): Adam sees c times the gradient, then e2.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e4",
        statement="SGDW with momentum = SGDW on c times the loss, the rate over c, any schedule",
        left=sgdw_of,
        right=lambda h: _loss_times_c(h, sgdw_of(h)),
        verdict="rounding",
        map=lambda h: {"alpha": h["alpha"] / h["c"]},
        map_text="α → α/c, same λ (the paper's)",
        values={"c": 37.0},
        domain={"c": FACTORS},
        mutant=Mutant("λ → λ/c too", lambda r: {"lam": r["lam"] / r["c"]}),
        why="Only αg appears, and the paper's decay has no α. A decay per unit of learning rate "
        "would have to be multiplied by c.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e5",
        statement="AdamW with eps = 0 = AdamW on parameters of s times the size, s times the rate",
        left=adamw_of,
        right=adamw_of,
        verdict="rounding",
        map=lambda h: {"alpha": h["s"] * h["alpha"]},
        map_text="x = sθ, α → sα, same λ (the paper's)",
        start=lambda h: {"theta0": h["s"] * h["theta0"]},
        start_text="x_0 = sθ_0",
        parameters=lambda h, x: x / h["s"],
        values={**WITHOUT_EPS, "s": 7.0},
        condition=WITHOUT_EPS_TEXT,
        domain={"s": FACTORS},
        outside=SOME_EPS,
        mutant=Mutant("α as it was", lambda r: {"alpha": r["alpha"] / r["s"]}),
        why="The gradient in x is g/s, and the direction u does not see the s (e1): "
        "x − η(sαu + λx) = s(θ − η(αu + λθ)).",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e6",
        statement="eps before the bias correction (eps-hat, adam.lua) = eps after it, changing",
        left=lambda h: adamw_of(h, eps_placement="before"),
        right=_adam_with_changing_eps,
        verdict="rounding",
        map=lambda h: {
            "eps": h["eps"] / jnp.sqrt(_correction(h)),
            "eps_root": h["eps_root"] / _correction(h),
        },
        map_text="eps_t = eps/√(1−b₂ᵗ), eps_root_t = eps_root/(1−b₂ᵗ), t from 1",
        values={"eps_root": 1e-4},
        domain={"eps_root": Interval(0.0, 0.1)},
        mutant=Mutant(
            "t from 0, after the first step",
            lambda r: {"eps": jnp.concatenate([r["eps"][:1], r["eps"][:-1]])},
        ),
        why="With c = 1−b₂ᵗ: √c/(√(v+r)+e) = 1/(√(v/c + r/c) + e/√c).",
        source=f"Kingma and Ba, arXiv 1412.6980, section 2; {PAPER}, Algorithm 2",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e7-adamw",
        statement="AdamW = AdamW after a signed permutation of the coordinates",
        left=adamw_of,
        right=adamw_of,
        verdict="rounding",
        map_text="x = Qθ, Q turns planes by the angle and permutes; the same numbers",
        **_in_other_coordinates(6, 1),
        start_text="x_0 = Qθ_0",
        values={"angle": np.pi / 2, "stretch": 1.0},
        condition="the angle is a multiple of π/2, so that Q is a signed permutation",
        outside={"angle": Interval(0.1, 1.4)},
        mutant=_other_coordinates("an angle of π/4", 6, 1, angle=np.pi / 4),
        why="Every coordinate is treated alike and by itself, and the direction is odd in the "
        "gradient.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e7-sgdw",
        statement="SGDW = SGDW in rotated coordinates",
        left=sgdw_of,
        right=sgdw_of,
        verdict="rounding",
        map_text="x = Qθ; the same numbers",
        **_in_other_coordinates(6, 1),
        start_text="x_0 = Qθ_0",
        values=_TURNED,
        condition="Q orthogonal (no axis stretched)",
        domain=_ANGLE,
        outside=_STRETCHED,
        mutant=_other_coordinates("the first axis of x longer by a tenth", 6, 1, stretch=1.1),
        why="The gradient in x is Qg for orthogonal Q, and θ_t is a linear combination of θ_0 and the "
        "gradients with scalar coefficients: it commutes with Q.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="muon-rotation",
        statement="Muon = Muon on a weight matrix rotated on both sides, decay included",
        left=_muon_of,
        right=_muon_of,
        verdict="rounding",
        map_text="X = UWVᵀ; the same numbers",
        **_in_other_coordinates(2, 3),
        start_text="X_0 = UW_0Vᵀ",
        values=_TURNED,
        condition="U, V orthogonal (no axis stretched)",
        domain=_ANGLE,
        outside=_STRETCHED,
        mutant=_other_coordinates("the first row of X longer by a tenth", 2, 3, stretch=1.1),
        why="The gradient in X is UGVᵀ. Newton-Schulz is an odd polynomial, p(UMVᵀ) = U p(M) Vᵀ, and "
        "the Frobenius norm before it does not see U and V.",
        source="Jordan et al. 2024, Muon; optax.contrib.scale_by_muon",
        problem=_problems.REGRESSION.first(40),
    ),
    Relation(
        name="muon-scale-free",
        statement="Muon with eps = 0 = Muon on c times the loss",
        left=_muon_of,
        right=lambda h: _loss_times_c(h, _muon_of(h)),
        verdict="rounding",
        map_text="identical for every c > 0, λ too",
        values={"eps": 0.0, "c": 37.0},
        condition="eps = 0",
        domain={"c": FACTORS},
        outside=SOME_EPS,
        mutant=Mutant("eps = 0.001", lambda r: {"eps": r["eps"] + 1e-3}),
        why="The momentum is divided by its Frobenius norm before Newton-Schulz.",
        source="Jordan et al. 2024, Muon; optax.contrib.scale_by_muon",
        problem=_problems.REGRESSION.first(40),
    ),
    Relation(
        name="frozen-weight",
        statement="Adam with L2, eps = 0, weights without gradient: λ' = any other λ' > 0",
        left=_adam_l2_of,
        right=lambda h: _adam_l2_of({**h, "lam": h["other"]}),
        verdict="rounding",
        map_text="λ' → any number > 0",
        values={**WITHOUT_EPS, "other": 3.0},
        condition=WITHOUT_EPS_TEXT,
        domain={"other": FACTORS},
        outside=SOME_EPS,
        mutant=Mutant("eps = 0.001", lambda r: {"eps": r["eps"] + 1e-3}),
        why="The gradient is λ'θ alone: λ' is a factor of the loss, and Adam does not see it (e1). "
        "The weight shrinks by about α a step, whatever the penalty.",
        source=DERIVED,
        problem=_problems.SILENT.first(60),
    ),
    Relation(
        name="f1",
        statement="fixed preconditioner 1/s with weight decay = the same with the penalty s_i θ_i²",
        left=_preconditioned_decay,
        right=_preconditioned_penalty,
        verdict="rounding",
        map=lambda h: {"penalty": h["lam"] / h["alpha"] * h["s"]},
        map_text="(λ'/2) Σ s_i θ_i² with λ' = λ/α",
        values={"s": np.array([0.3, 0.5, 1.0, 2.0, 4.0, 9.0])},
        mutant=Mutant("(λ'/2) Σ θ_i²", lambda r: {"penalty": r["penalty"] / r["s"]}),
        why="The penalty's gradient is λ's_iθ_i; the preconditioner takes the s_i away. As the "
        "appendix has it: equation (2) of the main text divides by α once too often.",
        source=f"{PAPER}, Proposition 3",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="N2",
        statement="fixed preconditioner with weight decay ≠ the same with L2, for every λ'",
        left=_preconditioned_decay,
        right=_preconditioned_penalty,
        verdict="never",
        map_text="λ' from −10⁶ to 10⁶, 0, and 4/3",
        values=witness_values([1.0], alpha=0.1, lam=0.1) | {"s": np.array([1.0, 2.0])},
        family={"penalty": np.concatenate([-_PENALTIES, [0.0, 4 / 3], _PENALTIES])},
        gap=1 / 30,
        why="No gradient, one step, M = diag(1, ½), θ_0 = (1, 1), α = λ = 0.1: decay lands on "
        "(0.9, 0.9), L2 on (1 − 0.1λ', 1 − 0.05λ'), which asks for λ' = 1 and 2. The distances "
        "0.1|λ'−1| and 0.05|λ'−2| balance at 4/3.",
        source=f"{PAPER}, Proposition 2",
        problem=_problems.witness([1.0, 1.0], [[0.0, 0.0]]),
    ),
    Relation(
        name="N10-l2",
        statement="Adam with L2 ≠ Adam with L2 on c times the loss, at eps = 0 too, λ' as it was",
        left=_adam_l2_of,
        right=lambda h: _loss_times_c(h, _adam_l2_of(h)),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], **SMALL, **_FIRST_STEP, eps=0.0, c=4.0),
        gap=2.0,
        why="θ_0 = 1, g = −0.05, λ' = 0.1, c = 4: g + λ'θ is 0.05, and 4g + λ'θ is −0.1. Adam's first "
        "step is α times the sign: 0 against 2.",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.witness([1.0], [[-0.05]]),
    ),
    Relation(
        name="N10-eps",
        statement="AdamW ≠ AdamW on c times the loss at the same eps > 0",
        left=adamw_of,
        right=lambda h: _loss_times_c(h, adamw_of(h)),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], **SMALL, **_FIRST_STEP, eps=1.0, c=3.0),
        gap=0.25,
        why="θ_0 = 0, g = eps = 1, c = 3: a first step of 1/(1+1) against 3/(3+1).",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.witness([0.0], [[1.0]]),
    ),
    Relation(
        name="N10-rotation",
        statement="AdamW ≠ AdamW in rotated coordinates",
        left=adamw_of,
        right=adamw_of,
        verdict="never",
        map_text="x = Qθ; the same numbers",
        **_in_other_coordinates(2, 1),
        start_text="x_0 = Qθ_0",
        values=witness_values([1.0], **SMALL, **_FIRST_STEP, eps=0.0) | _EXACT_TURN,
        gap=0.8,
        why="Q = ((0.6, 0.8), (0.8, −0.6)), g = (1, 1), one step, α = 1: the direction is (1, 1); in x "
        "the gradient is (1.4, 0.2) and the direction (1, 1) too, which back in θ is (1.4, 0.2).",
        source=DERIVED,
        problem=_problems.witness([1.0, 1.0], [[1.0, 1.0]]),
    ),
    Relation(
        name="muon-adamw",
        statement="AdamW ≠ AdamW on a weight matrix rotated on both sides, as Muon may be",
        left=adamw_of,
        right=adamw_of,
        verdict="never",
        map_text="X = UWVᵀ; the same numbers",
        **_in_other_coordinates(2, 2),
        start_text="X_0 = UW_0Vᵀ",
        values=witness_values([1.0], **SMALL, **_FIRST_STEP, eps=0.0) | _EXACT_TURN,
        gap=0.96,
        why="U = V = ((0.6, 0.8), (0.8, −0.6)), G = 11ᵀ with 1 = (1, 1), one step, α = 1: the direction "
        "is 11ᵀ; in X the gradient is wwᵀ, w = (1.4, 0.2), its signs are 11ᵀ, and back in W they are "
        "wwᵀ: 1 against 0.04 in the last entry.",
        source=DERIVED,
        problem=_problems.witness([1.0] * 4, [[1.0] * 4]),
    ),
    Relation(
        name="frozen-weight-adamw",
        statement="AdamW ≠ Adam with L2 for weights without gradient, for every λ' > 0",
        left=adamw_of,
        right=lambda h: _adam_l2_of({**h, "lam": h["penalty"]}),
        verdict="never",
        map_text="λ' from 10⁻⁶ to 10⁶, eps = 10⁻³⁰",
        # Not 0: AdamW's direction is 0 here, and not 0/0.
        values=witness_values([1.0], alpha=0.1, lam=0.1, **_FIRST_STEP, eps=1e-30),
        family={"penalty": _PENALTIES},
        gap=0.1,
        why="One step from (1, 2), α = λ = 0.1: AdamW lands on (0.9, 1.8). Adam with L2 takes α off "
        "both, whatever λ' is: (0.9, 1.9).",
        source=DERIVED,
        problem=_problems.witness([1.0, 2.0], [[0.0, 0.0]]),
    ),
    Relation(
        name="N19",
        statement="eps before the bias correction (eps-hat, adam.lua) ≠ the same eps after it",
        left=lambda h: adamw_of(h, eps_placement="before"),
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], **SMALL, **_FIRST_STEP, eps=0.5),
        gap=1 / 6,
        why="One step, g = 1, b₂ = 3/4, eps = ½: v = 1/4, so ½·1/(½+½) = 1/2 against 1/(1+½) = 2/3.",
        source=f"{PAPER}, Algorithm 2, against its Lua code",
        problem=_problems.witness([1.0], [[1.0]]),
    ),
)
