"""The command line: `python -m decoupled_wd relations`, `python -m decoupled_wd explain b3`."""

import argparse
import sys
import time

import jax

from decoupled_wd import equivalence


def _find(names: list[str]) -> list[equivalence.Relation | equivalence.Property] | None:
    """Look rows up; None, with a message, if one of them does not exist."""
    try:
        return [equivalence.relation(name) for name in names]
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return None


def _relations(names: list[str], quick: bool, float32: bool) -> int:
    """Run relations, print the table, and give the exit status."""
    everything = [*equivalence.CATALOGUE, *equivalence.PROPERTIES]
    rows = _find(names) if names else [row for row in everything if row.quick or not quick]
    if rows is None:
        return 2
    device = jax.devices()[0]
    print(f"Running {len(rows)} rows in float64 on CPU; backend {device.device_kind} ...",
          file=sys.stderr)  # fmt: skip
    begin = time.perf_counter()
    reports = equivalence.check_relations(rows, float32=float32 or None)
    print(equivalence.text_table(rows, reports))
    failing = [report.name for report in reports if not report.holds]
    print(
        f"{len(rows) - len(failing)} of {len(rows)} hold ({time.perf_counter() - begin:.0f} s). "
        "Measured: of an equality (=) the largest deviation relative to the largest parameter, of a "
        "separation (≠) the gap, of a limit (→) the rate, of a property the number. Mutant: the same "
        "with one constant of the map changed."
    )
    if failing:
        print(f"Not as stated: {', '.join(failing)}.")
    return 1 if failing else 0


def _explain(names: list[str]) -> int:
    """Print rows in full."""
    if _find(names) is None:
        return 2
    for name in names:
        equivalence.explain(name)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Read the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m decoupled_wd", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    relations = commands.add_parser(
        "relations", help="run what equals what, and print the table with measured deviations"
    )
    relations.add_argument("names", nargs="*", help="rows to run (all if none is named)")
    relations.add_argument("--quick", action="store_true", help="run the rows that README shows")
    relations.add_argument(
        "--float32", action="store_true",
        help="run equalities in the backend's own float32 as well (always, unless it is a CPU)",
    )  # fmt: skip
    explain = commands.add_parser(
        "explain", help="print rows in full: map, proof, source, measured"
    )
    explain.add_argument("names", nargs="+", help="rows, such as b3")
    arguments = parser.parse_args(argv)
    if arguments.command == "explain":
        return _explain(arguments.names)
    return _relations(arguments.names, arguments.quick, arguments.float32)


if __name__ == "__main__":
    sys.exit(main())
