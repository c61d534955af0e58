"""Losses that do not see the length of the weights: there decay is a learning rate."""

from decoupled_wd.equivalence._relation import Relation

ROWS: tuple[Relation, ...] = ()
