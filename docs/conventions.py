"""Write docs/conventions.md from the records that `convert` and `like` use.

    python docs/conventions.py

A test compares what is committed.
"""

import itertools
import pathlib

from decoupled_wd.conventions import CONVENTIONS, Convention

FILE = pathlib.Path(__file__).with_suffix(".md")

HEAD = """# What each library does with `weight_decay`

Made by `python docs/conventions.py` from the records in `decoupled_wd/conventions`, which `dwd.convert`
and `dwd.like` use.

p parameter, g gradient, w the library's `weight_decay`, A the base learning rate, η the schedule's
multiplier, a = Aη, u the step without learning rate and decay, d the decay per step, t ≥ 1 the step, m̂ and
v̂ bias-corrected moments. **Source** says how sure a row is: *run* means that `tests/libraries`, or
`tests/test_conventions_optax.py`, compares 50 float64 steps with the library itself.

Between two rows whose u is the same, `convert` carries every number: w' = w Aⁱ⁻ⁱ' ηʲ⁻ʲ' for decays w Aⁱ ηʲ
and w' Aⁱ' ηʲ' per step, the order of step and decay by rows c1, c3 and d2 of the [catalogue](relations.md),
momentum by b3, b4 and b7. `tests/test_conventions.py` converts every rule to every other and runs both in
NumPy: the paths agree to 1e-12 just where `convert` says that it is exact.
"""


def row(c: Convention) -> str:
    """One line of the table."""
    update, _, direction = c.formula().partition("; u = ")
    defaults = ", ".join(f"{k}={v!r}" for k, v in c.defaults.items() if k not in c.options)
    optimizer = c.title.removeprefix(f"{c.library}.")
    cells = (f"`{optimizer}`", update, direction, defaults, c.reference, c.note, c.source)
    return "| " + " | ".join(str(cell).replace("|", "\\\\|") for cell in cells) + " |"


def table() -> str:
    """The whole page."""
    parts = [HEAD]
    ordered = sorted(CONVENTIONS, key=lambda c: c.library)
    for library, records in itertools.groupby(ordered, key=lambda c: c.library):
        parts.append(f"\n## {library}\n")
        parts.append("| optimizer | update, decay per step | u | defaults | A is | note | source |")
        parts.append("|---|---|---|---|---|---|---|")
        parts += map(row, records)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    FILE.write_text(table())
