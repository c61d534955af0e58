"""The loss, or a coordinate, on another scale."""

import numpy as np
import optax

from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Mutant, Relation
from decoupled_wd.equivalence._rows._chains import DERIVED, PAPER, SIGN, a_t, adamw_of, at, times

ROWS = (
    Relation(
        name="e1",
        statement="AdamW with eps = 0 = AdamW with every coordinate's gradient rescaled",
        left=adamw_of,
        right=lambda h: optax.chain(optax.stateless(lambda g, _: h["d"] * g), adamw_of(h)),
        verdict="rounding",
        map_text="identical for every d_i > 0, λ too",
        values={"eps": 0.0, "eps_root": 0.0, "d": np.array([1e-3, 0.1, 0.5, 2.0, 30.0, 1e3])},
        mutant=Mutant("eps = 0.001", lambda r: {"eps": r["eps"] + 1e-3}),
        why="m̂ and √v̂ both take the factor d_i, and the decay sees neither. No gradient may be 0.",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="e2",
        statement="AdamW with eps > 0 = AdamW on c times the loss, eps scaled along",
        left=adamw_of,
        right=lambda h: optax.chain(optax.scale(h["c"]), adamw_of(h)),
        verdict="rounding",
        map=lambda h: {"eps": h["c"] * h["eps"], "eps_root": h["c"] ** 2 * h["eps_root"]},
        map_text="eps → c·eps, eps_root → c²·eps_root, same λ",
        values={"c": 37.0, "eps": 0.1, "eps_root": 0.01},
        mutant=Mutant("eps_root → c·eps_root", lambda r: {"eps_root": r["eps_root"] / r["c"]}),
        why="Numerator and denominator of the step take the factor c.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="f1",
        statement="fixed preconditioner 1/s with weight decay = the same with the penalty s_i θ_i²",
        left=lambda h: optax.chain(
            optax.stateless(lambda g, _: g / h["s"]),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            scale_by_schedule(at(h["eta"])),
            SIGN,
        ),
        right=lambda h: optax.chain(
            optax.stateless(lambda g, theta: (g + h["penalty"] * h["s"] * theta) / h["s"]),
            scale_by_schedule(at(a_t(h))),
            SIGN,
        ),
        verdict="rounding",
        map=lambda h: {"penalty": h["lam"] / h["alpha"]},
        map_text="(λ'/2) Σ s_i θ_i² with λ' = λ/α",
        values={"s": np.array([0.3, 0.5, 1.0, 2.0, 4.0, 9.0])},
        mutant=times("penalty", 1.01),
        why="The penalty's gradient is λ's_iθ_i; the preconditioner takes the s_i away. As the "
        "appendix has it: equation (2) of the main text divides by α once too often.",
        source=f"{PAPER}, Proposition 3",
        problem=_problems.REGRESSION,
    ),
)
