"""Write docs/conventions.md from the records that `convert` and `like` use.

    python docs/conventions.py

A test compares what is committed.
"""

import itertools
import pathlib
from collections.abc import Callable

from decoupled_wd.conventions import CONVENTIONS, Convention

FILE = pathlib.Path(__file__).with_suffix(".md")
TABLE = ("| optimizer | update, decay per step | u | defaults |", "|---|---|---|---|")

HEAD = """# What each library does with `weight_decay`

Made by `python docs/conventions.py` from the records in `decoupled_wd/conventions`, which `dwd.convert`
and `dwd.like` use.

p parameter, g gradient, w the library's `weight_decay`, A the base learning rate, η the schedule's
multiplier, a = Aη, u the step without learning rate and decay, d the decay per step, t ≥ 1 the step, m̂ and
v̂ bias-corrected moments, ε the library's `eps`. Options are in parentheses; `like` and `convert` take them as
arguments. Schedules count from 0 unless a note says otherwise. **A** is what a schedule is a multiple of.
**Source** says how sure a row is: *run* means that `tests/libraries`, or `tests/test_conventions_optax.py`,
compares 50 float64 steps with the library itself; *read* that its source was read, and not run.

Between two rows whose u is the same, `convert` carries every number: w' = w Aⁱ⁻ⁱ' ηʲ⁻ʲ' for decays w Aⁱ ηʲ
and w' Aⁱ' ηʲ' per step, the order of step and decay by rows c1, c3 and d2 of the [catalogue](relations.md),
momentum by b3, b4 and b7. `tests/test_conventions.py` converts every rule to every other and runs both in
NumPy: the paths agree to 1e-12 just where `convert` says that it is exact.
"""


COMMON = (
    "paper.AdamW", "optax.adamw", "pytorch.AdamW", "keras.AdamW", "timm.adamw", "timm.adamc",
    "optimi.AdamW", "tensorflow_addons.AdamW", "levanter.AdamConfig", "big_vision.scale_by_adam",
    "composer.DecoupledAdamW", "bitsandbytes.AdamW", "pytorch.Adam", "paper.SGDW", "pytorch.SGD",
    "keras.SGD", "optax.lion",
)  # fmt: skip
"""What most readers look for, in the first table."""


def cell(text: str) -> str:
    """Text as a cell of a table."""
    return text.replace("|", "\\|")


def row(c: Convention, name: str) -> str:
    """One line of a table."""
    update, _, direction = c.formula().partition("; u = ")
    defaults = ", ".join(f"{k}={v!r}" for k, v in c.defaults.items() if k not in c.options)
    return f"| `{name}` | {cell(update)} | {cell(direction)} | {defaults} |"


def said(records: list[Convention], what: str, of: Callable[[Convention], str]) -> list[str]:
    """A line for each thing that is said, and of which optimizers, where not of all."""
    lines = []
    for text in dict.fromkeys(of(c) for c in records if of(c)):
        about = [c.title.removeprefix(f"{c.library}.") for c in records if of(c) == text]
        names = "" if len(about) == len(records) else ", ".join(f"`{x}`" for x in about) + ": "
        lines.append(f"* {what}{names}{text}")
    return lines


def section(library: str, records: list[Convention]) -> list[str]:
    """A library: its table, and below it what A is, notes, and sources."""
    return [
        f"\n## {library}\n",
        *TABLE,
        *(row(c, c.title.removeprefix(f"{library}.")) for c in records),
        "",
        *said(records, "A: ", lambda c: c.reference),
        *said(records, "Besides d: ", lambda c: c.also),
        *said(records, "", lambda c: c.note),
        *said(records, "Source: ", lambda c: c.source),
    ]


def table() -> str:
    """The whole page."""
    ordered = sorted(CONVENTIONS, key=lambda c: c.library)
    libraries = {k: list(v) for k, v in itertools.groupby(ordered, key=lambda c: c.library)}
    links = [f"[{x}](#{x.replace('.', '')})" for x in libraries]
    common = [c for name in COMMON for c in CONVENTIONS if c.name == name]
    parts = [HEAD, f"Libraries: {', '.join(links)}.", "\n## The common ones\n", *TABLE]
    parts += [row(c, c.title) for c in common]
    for library, records in libraries.items():
        parts += section(library, records)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    FILE.write_text(table())
