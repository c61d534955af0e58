"""Adam and its kin."""

import numpy as np

from decoupled_wd._alias import adam_l2, amsgradw
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Relation
from decoupled_wd.equivalence._rows._chains import PAPER, adamw_of, at, times, witness_values

_PENALTIES = np.logspace(-6, 6, 241)

ROWS = (
    Relation(
        name="j",
        statement="AMSGrad (maximum of v̂, Optax) = Adam while v̂ does not fall",
        left=adamw_of,
        right=lambda h: amsgradw(
            h["alpha"],
            h["b1"],
            h["b2"],
            h["eps"],
            h["eps_root"],
            variant="optax",
            weight_decay=h["lam"],
            schedule=at(h["eta"]),
        ),
        verdict="rounding",
        map_text="identical; |g_t| not falling suffices",
        mutant=times("b2", 1.001),
        why="The maximum of a sequence that does not fall is its last element.",
        source="Reddi et al. 2018, arXiv 1904.09237",
        problem=_problems.GROWING,
    ),
    Relation(
        name="j-pytorch",
        statement="AMSGrad (maximum of v, PyTorch) = Adam while v does not fall",
        left=adamw_of,
        right=lambda h: amsgradw(
            h["alpha"],
            h["b1"],
            h["b2"],
            h["eps"],
            h["eps_root"],
            variant="pytorch",
            weight_decay=h["lam"],
            schedule=at(h["eta"]),
        ),
        verdict="rounding",
        map_text="identical; |g_t| not falling suffices",
        mutant=times("b2", 1.001),
        why="As j; here the maximum is corrected after it is taken.",
        source="torch.optim.AdamW(amsgrad=True)",
        problem=_problems.GROWING,
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
    ),
)
