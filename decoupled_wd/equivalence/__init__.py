"""What equals what: relations between optimizers, as rows that are executed.

A row of `CATALOGUE` holds two chains, the map of their hyperparameters and of their initial states,
and the verdict. `check_relations` runs rows in float64, both sides in closed loop on a stochastic
convex problem under five schedules, and reports the deviation beside that of a mutant, the same row
with one constant of its map changed. `python -m decoupled_wd relations` prints the whole table.

How to add a row: write it in `_catalogue.py`. The checker, the tests and the tables find it there.
"""

from decoupled_wd.equivalence._catalogue import CATALOGUE, relation
from decoupled_wd.equivalence._check import (
    Report,
    Trajectories,
    check_relations,
    trajectories,
)
from decoupled_wd.equivalence._relation import Mutant, Problem, Relation
from decoupled_wd.equivalence._render import markdown_table, text_table

__all__ = [
    "CATALOGUE",
    "Mutant",
    "Problem",
    "Relation",
    "Report",
    "Trajectories",
    "check_relations",
    "markdown_table",
    "relation",
    "text_table",
    "trajectories",
]
