"""Tables and texts of relations, made from the rows that are run."""

import textwrap
from collections.abc import Sequence

from decoupled_wd.equivalence._catalogue import relation
from decoupled_wd.equivalence._check import Report, check_relations
from decoupled_wd.equivalence._relation import Property, Relation

Row = Relation | Property


def markdown_table(rows: Sequence[Row]) -> str:
    """Render rows as a Markdown table: what is claimed, and the map it takes.

    Args:
        rows: of `CATALOGUE` or `PROPERTIES`.

    Returns:
        The table's lines.

    Raises:
        AttributeError: something is no row.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> print(eq.markdown_table([eq.relation("d1")]))
        | row | | statement | hyperparameters | initial state |
        |---|---|---|---|---|
        | d1 | = | proximal (implicit) decay = decay after the step | l = μ/(1+μ) | from `init` |
    """
    lines = ["| row | | statement | hyperparameters | initial state |", "|---|---|---|---|---|"]
    for row in rows:
        maps = (row.map_text, row.start_text) if isinstance(row, Relation) else (row.condition, "")
        lines.append(_table_line(row.name, verdict_text(row), row.statement, *maps))
    return "\n".join(lines)


def full_markdown_table(rows: Sequence[Row]) -> str:
    """Render rows as a Markdown table with what is tested, on what, and why it is true.

    Args:
        rows: of `CATALOGUE` or `PROPERTIES`.

    Returns:
        The table's lines.

    Raises:
        AttributeError: something is no row.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> head, _, row = eq.full_markdown_table([eq.relation("N13")]).splitlines()
        >>> head.split(" | ")[-2], row.split(" | ")[-2]
        ('why', 'No gradient, η = (1, ½), λ = 0.1: 0.9·0.9 against 0.9·0.95.')
    """
    lines = ["| row | | statement | map | tested | why | source |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            _table_line(
                row.name,
                verdict_text(row),
                row.statement,
                _maps(row),
                tested(row),
                row.why,
                row.source,
            )
        )
    return "\n".join(lines)


def text_table(rows: Sequence[Row], reports: Sequence[Report]) -> str:
    """Render rows with what was measured of them, for a terminal.

    Args:
        rows: of `CATALOGUE` or `PROPERTIES`, one or more.
        reports: what `check_relations` gave for them.

    Returns:
        The table's lines.

    Raises:
        ValueError: not as many reports as rows, or no rows.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> rows = [eq.relation("N14")]
        >>> print(eq.text_table(rows, eq.check_relations(rows)).splitlines()[2])
        N14 ≠ by 0.2439   yes     2.4e-01            decay outside MultiSteps ≠ decay inside
    """
    width = max(len(row.name) for row in rows)
    head = f"{'row':<{width}} {'':<13} {'holds':<5} {'measured':>9} {'mutant':>9}  statement"
    lines = [head, "-" * 110]
    for row, report in zip(rows, reports, strict=True):
        mutant = "" if report.mutant_deviation is None else f"{report.mutant_deviation:9.1e}"
        holds = "yes" if report.holds else "NO"
        ulps = "" if report.float32_ulps is None else f" [float32: {report.float32_ulps:.1f} ulp]"
        lines.append(
            f"{row.name:<{width}} {verdict_text(row):<13} {holds:<5} {report.deviation:9.1e} "
            f"{mutant:>9}  {row.statement}{ulps}"
        )
        if _maps(row):
            lines.append(f"{'':<{width + 39}}  {_maps(row)}")
    return "\n".join(lines)


def explanation(row: Row, report: Report) -> str:
    """Render one row in full, with what was measured of it."""
    parts = {
        "map": _maps(row),
        "why": row.why,
        "source": row.source,
        "tested": tested(row),
        "measured": _measured(row, report),
    }
    lines = [f"{row.name}: {row.statement} [{verdict_text(row)}]"]
    for name, text in parts.items():
        if text:
            lines += textwrap.wrap(
                f"{name + ':':<10}{text}", 100, initial_indent="  ", subsequent_indent=" " * 12
            )
    return "\n".join(lines)


def explain(name: str) -> None:
    """Print a row of the catalogue: statement, map, derivation, source, and what is measured of it.

    Args:
        name: the row, such as `"b3"`; `CATALOGUE` and `PROPERTIES` have them all.

    Returns:
        Nothing.

    Raises:
        KeyError: there is no such row; the message lists those there are.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> eq.explain("N13")
        N13: decay that ignores the schedule ≠ decay that follows it [≠ by 0.045]
          map:      same numbers
          why:      No gradient, η = (1, ½), λ = 0.1: 0.9·0.9 against 0.9·0.95.
          source:   TensorFlow Addons against the paper
          tested:   2 given gradients, 2 steps in float64, the gap to 1e-10
          measured: gap 0.045: holds
    """
    row = relation(name)
    print(explanation(row, check_relations([row])[0]))


def verdict_text(row: Row) -> str:
    """Put a row's verdict into a word or two.

    Args:
        row: of `CATALOGUE` or `PROPERTIES`.

    Returns:
        What the tables have in their second column.

    Raises:
        AttributeError: it is no row.

    Example:
        >>> from decoupled_wd import equivalence as eq
        >>> [eq.verdict_text(eq.relation(name)) for name in ("b1", "N13", "adam-bound")]
        ['=', '≠ by 0.045', 'at most 7.27']
    """
    if isinstance(row, Property):
        return f"{'at most' if row.at_most else 'is'} {row.expected:.4g}"
    if row.limit is not None:
        return f"→ at rate {row.limit.rate:g}"
    if row.verdict == "never":
        return f"≠ by {'≥ ' if row.gap_is_bound else ''}{row.gap:g}"
    return "= to the bit" if row.verdict == "bitwise" else "="


def tested(row: Row) -> str:
    """Say exactly what is run and compared."""
    if isinstance(row, Property):
        return f"float64, to {row.tolerance:g} of the number"
    problem = f"{row.problem.name}, {row.problem.steps} steps in float64"
    if row.verdict == "never":
        closest = "; the closest of the family" if row.family else ""
        return f"{problem}, the gap {'at least as stated' if row.gap_is_bound else 'to 1e-10'}{closest}"
    if row.limit is not None:
        values = ", ".join(f"{value:g}" for value in row.limit.values)
        return f"{problem}, one schedule, {row.limit.name} = {values}; every slope to 0.1"
    schedules = "a constant schedule" if row.constant_schedule else "five schedules"
    if "eta" in row.values:
        schedules = "the schedule of the row"
    exact = (
        "bit for bit" if row.verdict == "bitwise" else f"to {row.tolerance:g} of the largest number"
    )
    condition = f"; if {row.condition}" if row.condition else ""
    drawn = "".join(f"; {name} in [{x.low:g}, {x.high:g}]" for name, x in row.domain.items())
    return f"{problem}, {schedules}, {exact}{condition}{drawn}"


def _maps(row: Row) -> str:
    if isinstance(row, Property):
        return row.condition
    start = "" if row.start_text == "from `init`" else f"; {row.start_text}"
    return f"{row.map_text}{start}"


def _measured(row: Row, report: Report) -> str:
    name = {"never": "gap", "limit": "rate", "property": "value"}.get(report.verdict, "deviation")
    text = f"{name} {report.deviation:.3g}: {'holds' if report.holds else 'DOES NOT HOLD'}"
    if row.mutant is not None and report.mutant_deviation is not None:
        text += f"; mutant ({row.mutant.change}) {report.mutant_deviation:.3g}"
    return text


def _table_line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
