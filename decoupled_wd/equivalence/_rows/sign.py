"""Steps that are signs: Lion, Signum, Frank and Wolfe."""

import optax

from decoupled_wd._alias import lionw
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Mutant, Relation
from decoupled_wd.equivalence._rows._chains import DERIVED, SIGN, adamw_of, at

ROWS = (
    Relation(
        name="i1",
        statement="AdamW with b1 = b2 = eps = 0 = sign descent with weight decay",
        left=adamw_of,
        right=lambda h: optax.chain(
            optax.scale_by_sign(),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            scale_by_schedule(at(h["eta"])),
            SIGN,
        ),
        verdict="rounding",
        values={"b1": 0.0, "b2": 0.0, "eps": 0.0, "eps_root": 0.0},
        mutant=Mutant("λ per unit of learning rate", lambda r: {"lam": r["alpha"] * r["lam"]}),
        why="g/√(g²) = sign(g).",
        source=DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="i1-lion",
        statement="AdamW with b1 = b2 = eps = 0 = Lion with b1 = 0 and any b2",
        left=adamw_of,
        right=lambda h: lionw(
            h["alpha"], h["lion_b1"], h["lion_b2"], weight_decay=h["lam"], schedule=at(h["eta"])
        ),
        verdict="rounding",
        values={"b1": 0.0, "b2": 0.0, "eps": 0.0, "eps_root": 0.0, "lion_b1": 0.0, "lion_b2": 0.37},
        mutant=Mutant("Lion's b1 = 0.9", lambda r: {"lion_b1": r["lion_b1"] + 0.9}),
        why="Both directions are sign(g).",
        source=DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
    ),
)
