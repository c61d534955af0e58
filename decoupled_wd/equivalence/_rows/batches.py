"""Batches: accumulation, clipping, averages, restarts."""

import numpy as np
import optax

from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._restarts import cosine_warm_restarts
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    PAPER,
    SIGN,
    a_t,
    adam_of,
    adamw_of,
    at,
    counted_restarts,
    multi_steps,
    plain_sgd_of,
    witness_values,
)

ROWS = (
    Relation(
        name="o",
        statement="MultiSteps(k) around optimizer and decay = one step on the k-fold batch",
        left=lambda h: multi_steps(adamw_of(h)),
        right=adamw_of,
        verdict="rounding",
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
            adam_of(h),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            cosine_warm_restarts(7, 3),
            SIGN,
        ),
        right=lambda h: optax.chain(
            adam_of(h),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            counted_restarts(h["first"], 3),
            SIGN,
        ),
        verdict="rounding",
        map_text="T_0 = 7, T_mult = 3: restarts at 7, 28, 91, 280",
        values={"first": np.int32(7)},
        mutant=Mutant("first cycle 8", lambda r: {"first": r["first"] + 1}),
        why="Cycle i starts at T_0(T_mult^i − 1)/(T_mult − 1).",
        source=f"{PAPER}, appendix B.2",
        problem=_problems.REGRESSION,
        constant_schedule=True,
    ),
    Relation(
        name="N14",
        statement="decay outside MultiSteps ≠ decay inside",
        left=lambda h: optax.chain(
            multi_steps(adamw_of(h, weight_decay=0.0)),
            SIGN,
            decoupled_weight_decay(h["lam"]),
            SIGN,
        ),
        right=lambda h: multi_steps(adamw_of(h)),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.1),
        gap=0.2439,
        why="No gradient, four micro-steps, λ = 0.1: 0.9⁴ against 0.9.",
        source=DERIVED,
        problem=_problems.silent_micro_steps([1.0], 4),
    ),
    Relation(
        name="N16",
        statement="clipping after the penalty is added ≠ decay that clipping does not see",
        left=lambda h: optax.chain(
            add_l2_to_grad(h["penalty"]),
            optax.clip_by_global_norm(1.0),
            scale_by_schedule(at(a_t(h))),
            SIGN,
        ),
        right=lambda h: optax.chain(optax.clip_by_global_norm(1.0), plain_sgd_of(h)),
        verdict="never",
        map_text="λ' = λ/α, as a1 has it",
        values=witness_values([1.0], alpha=0.1, lam=0.1, penalty=1.0),
        gap=0.1,
        why="No gradient, θ_0 = 2, α = λ = 0.1, λ' = 1: the penalty's gradient 2 is clipped to 1, so "
        "1.9 against 1.8. In plain SGD too.",
        source=DERIVED,
        problem=_problems.witness([2.0], [[0.0]]),
    ),
)
