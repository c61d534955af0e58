"""Many steps as one formula."""

import optax

from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    P_OF_THE_STEP_BEFORE,
    a_t,
    adam_of,
    adamw_of,
    at,
    closed_form,
    l_t,
)

ROWS = (
    Relation(
        name="h1",
        statement="AdamW = a weighted sum of its updates, from the first step on",
        left=adamw_of,
        right=lambda h: optax.chain(
            adam_of(h), scale_by_schedule(at(a_t(h))), closed_form(h["decays"])
        ),
        verdict="rounding",
        map=lambda h: {"decays": l_t(h)},
        map_text="θ_t = P_tθ_0 − Σ_k (P_t/P_k) a_k u_k",
        mutant=P_OF_THE_STEP_BEFORE,
        why="Unroll θ_t = (1−l_t)θ_{t-1} − a_tu_t, for any updates u.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="l1",
        statement="AdamW without gradients = one multiplication by the product of (1−η_sλ)",
        left=adamw_of,
        right=lambda h: optax.chain(optax.set_to_zero(), closed_form(h["decays"])),
        verdict="rounding",
        map=lambda h: {"decays": l_t(h)},
        map_text="θ_k = P_k θ_0, state from zero, eps > 0",
        mutant=P_OF_THE_STEP_BEFORE,
        why="With m = 0 the direction is 0/(0+eps) = 0, and only the decay is left.",
        source=DERIVED,
        problem=_problems.SILENT,
    ),
)
