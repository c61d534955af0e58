"""The command line: `python -m decoupled_wd relations`."""

import argparse
import sys
import time

import jax

from decoupled_wd import equivalence


def _relations(names: list[str]) -> int:
    """Run relations, print the table, and give the exit status."""
    known = [row.name for row in equivalence.CATALOGUE]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"There is no relation {', '.join(unknown)}; there are {', '.join(known)}.",
              file=sys.stderr)  # fmt: skip
        return 2
    rows = [equivalence.relation(name) for name in names] if names else equivalence.CATALOGUE
    device = jax.devices()[0]
    print(f"Running {len(rows)} relations in float64 on {device.device_kind} ...", file=sys.stderr)
    begin = time.perf_counter()
    reports = equivalence.check_relations(rows)
    print(equivalence.text_table(rows, reports))
    failing = [report.name for report in reports if not report.holds]
    print(
        f"{len(rows) - len(failing)} of {len(rows)} hold ({time.perf_counter() - begin:.0f} s). "
        "Measured: largest deviation relative to the largest parameter, or the gap of a "
        "separation. Mutant: the same with one constant of the map changed."
    )
    return 1 if failing else 0


def main(argv: list[str] | None = None) -> int:
    """Read the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m decoupled_wd", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    relations = commands.add_parser(
        "relations", help="run what equals what, and print the table with measured deviations"
    )
    relations.add_argument("names", nargs="*", help="rows to run (all if none is named)")
    arguments = parser.parse_args(argv)
    return _relations(arguments.names)


if __name__ == "__main__":
    sys.exit(main())
