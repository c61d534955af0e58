"""Properties of one optimizer: bounds, thresholds, equilibria."""

from decoupled_wd.equivalence._relation import Property

ROWS: tuple[Property, ...] = ()
