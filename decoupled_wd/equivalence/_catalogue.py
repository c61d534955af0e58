"""The catalogue: the rows of every theme, and how to find one."""

from decoupled_wd.equivalence._relation import Property, Relation
from decoupled_wd.equivalence._rows import (
    adaptive,
    axes,
    batches,
    closed_form,
    momentum,
    order,
    penalties,
    practice,
    properties,
    scale_invariant,
    scaling,
    shape,
    sign,
)

_THEMES = (
    momentum, order, scaling, scale_invariant, adaptive, sign, closed_form, shape, penalties, axes,
    batches, practice,
)  # fmt: skip

CATALOGUE: tuple[Relation, ...] = tuple(
    sorted((row for theme in _THEMES for row in theme.ROWS), key=lambda row: row.verdict == "never")
)
"""Relations between two optimizers: what is equal, by theme, and then what is not."""

PROPERTIES: tuple[Property, ...] = (*properties.ROWS, *penalties.PROPERTIES)
"""What is true of one optimizer: bounds, thresholds, equilibria."""


def relation(name: str) -> Relation | Property:
    """Look a row up by its name.

    Args:
        name: such as `"b3"`; `CATALOGUE` and `PROPERTIES` have them all.

    Returns:
        The row.

    Raises:
        KeyError: there is no such row; the message lists those there are.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> eq.relation("a1").statement
        'SGD with weight decay = SGD with L2, any schedule on both terms'
    """
    rows = {row.name: row for row in (*CATALOGUE, *PROPERTIES)}
    if name not in rows:
        raise KeyError(f"there is no relation {name!r}; there are {', '.join(rows)}")
    return rows[name]
