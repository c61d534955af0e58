"""Tables of relations, made from the rows that are run."""

from collections.abc import Sequence

from decoupled_wd.equivalence._check import Report
from decoupled_wd.equivalence._relation import Relation


def markdown_table(relations: Sequence[Relation]) -> str:
    """Render relations as a Markdown table: what is claimed, and the map it takes."""
    lines = ["| row | | statement | hyperparameters | initial state |", "|---|---|---|---|---|"]
    for row in relations:
        verdict = "=" if row.verdict == "equal" else f"≠ by {row.gap:g}"
        cells = (row.name, verdict, row.statement, row.map_text, row.start_text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def text_table(relations: Sequence[Relation], reports: Sequence[Report]) -> str:
    """Render relations with what was measured of them, for a terminal."""
    head = f"{'row':<11} {'holds':<6} {'measured':>9} {'mutant':>9}  statement"
    lines = [head, "-" * 100]
    for row, report in zip(relations, reports, strict=True):
        mutant = "" if report.mutant_deviation is None else f"{report.mutant_deviation:9.1e}"
        holds = "yes" if report.holds else "NO"
        lines.append(
            f"{row.name:<11} {holds:<6} {report.deviation:9.1e} {mutant:>9}  {row.statement}"
        )
        lines.append(f"{'':<38}  {row.map_text}; {row.start_text}")
    return "\n".join(lines)
