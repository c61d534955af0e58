"""What equals what: relations between optimizers, as rows that are executed.

A row of `CATALOGUE` holds two chains, the map of their hyperparameters and of their initial states,
and the verdict. `check_relations` runs rows in float64, both sides in closed loop on a stochastic
convex problem under five schedules, and reports the deviation beside that of a mutant, the same row
with one constant of its map changed. A row of `PROPERTIES` is a number that one optimizer is claimed
to have. `python -m decoupled_wd relations` prints the whole table, `explain` one row in full.

`check` compares any two Optax transformations and says where they part, and whether by rounding; `fit`
looks for the numbers that bring a family of optimizers closest to another one.

How to add a row: write it in its theme under `_rows`. The checker, the tests and the tables find it
there.
"""

from decoupled_wd.equivalence._catalogue import CATALOGUE, PROPERTIES, relation
from decoupled_wd.equivalence._check import (
    DOMAINS,
    Report,
    Trajectories,
    check_relations,
    trajectories,
)
from decoupled_wd.equivalence._compare import Comparison, assert_equivalent, check
from decoupled_wd.equivalence._fit import Fit, Minimizer, fit
from decoupled_wd.equivalence._relation import (
    Interval,
    Limit,
    Mutant,
    Problem,
    Property,
    Relation,
)
from decoupled_wd.equivalence._render import (
    explain,
    full_markdown_table,
    markdown_table,
    text_table,
    verdict_text,
)

__all__ = [
    "CATALOGUE",
    "DOMAINS",
    "PROPERTIES",
    "Comparison",
    "Fit",
    "Interval",
    "Limit",
    "Minimizer",
    "Mutant",
    "Problem",
    "Property",
    "Relation",
    "Report",
    "Trajectories",
    "assert_equivalent",
    "check",
    "check_relations",
    "explain",
    "fit",
    "full_markdown_table",
    "markdown_table",
    "relation",
    "text_table",
    "trajectories",
    "verdict_text",
]
