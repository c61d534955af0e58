"""Other penalties, other anchors, other gates."""

import numpy as np
import optax

from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Mutant, Relation
from decoupled_wd.equivalence._rows._chains import SIGN, adam_of, adamw_of, at

ROWS = (
    Relation(
        name="n1",
        statement="decay towards an anchor = decay towards zero of the distance from it",
        left=lambda h: optax.chain(
            adam_of(h),
            scale_by_schedule(h["alpha"]),
            decoupled_weight_decay(h["lam"], toward=h["anchor"]),
            scale_by_schedule(at(h["eta"])),
            SIGN,
        ),
        right=adamw_of,
        verdict="rounding",
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
)
