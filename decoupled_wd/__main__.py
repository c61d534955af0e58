"""The command line: `python -m decoupled_wd relations`, `explain b3`, `convert --from ... --to ...`,
`describe CHECKPOINT`, `suggest --learning-rate 3e-4 ...`."""

import argparse
import ast
import inspect
import json
import sys
import time
import warnings
from typing import Any

import jax

from decoupled_wd import _check, _checkpoint, conventions, equivalence, hyperparams, masks
from decoupled_wd._describe import describe_decay


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


def _convert(source: str | None, target: str | None, rest: list[str]) -> int:
    """Print a conversion, or all conventions."""
    if source is None and target is None:
        for convention in conventions.CONVENTIONS:
            print(f"{convention.title:50} {convention.formula()}")
        return 0
    if source is None or target is None:
        print("Both --from and --to are needed, or neither to list all.", file=sys.stderr)
        return 2
    try:
        print(conventions.convert(source, target, **_keywords(rest)))
    except conventions.NoCounterpart as error:
        print(f"Not exact. The nearest:\n\n{error.nearest}")
        return 1
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _suggest(rest: list[str]) -> int:
    """Print what the published rules give for a run."""
    known = [*inspect.signature(hyperparams.suggest).parameters]
    try:
        given = _keywords(rest)
        for name in given:
            _check.check_option("suggest", name, known)
        print(hyperparams.suggest(**given))
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _keywords(rest: list[str]) -> dict[str, Any]:
    """`--weight-decay 0.1 --betas 0.9 0.95 --amsgrad` as the arguments of a call."""
    found: dict[str, list[Any]] = {}
    name = ""
    for word in [part for argument in rest for part in argument.split("=", 1)]:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = []
        elif name:
            found[name].append(_literal(word))
        else:
            raise ValueError(f"{word!r} stands by itself: give arguments as --name value.")
    if "schedule" in found:
        raise ValueError("`--schedule` is a function: use `decoupled_wd.convert` in Python for it.")
    return {k: (True, *v)[-1] if len(v) < 2 else tuple(v) for k, v in found.items()}


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (SyntaxError, ValueError):
        return word


def _mask(a: argparse.Namespace) -> Any:
    """What `--mask`, `--preset` and `--stacked` say."""
    if a.stacked is not None and not a.preset:
        raise ValueError(
            f"`--stacked` is {a.stacked!r}, and no `--preset` is given, which it is for: pass such as "
            "--preset matrices."
        )
    stacked = 0 if a.stacked is None else _json("stacked", a.stacked, """1 or '{"layers/.*": 1}'""")
    preset = getattr(masks, a.preset)(stacked=stacked) if a.preset else None
    if a.mask is None:
        return preset
    return masks.by_path(_json("mask", a.mask, """'{".*bias": 0}'"""), times=preset)


def _json(name: str, text: str, example: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"`--{name}` is {text!r}, which is no JSON: {error}. Pass such as {example}."
        ) from None


def _describe(a: argparse.Namespace) -> int:
    """Print what decays of the parameters in a checkpoint."""
    try:
        mask = _mask(a)
        tree, found = _checkpoint.read_shapes(a.checkpoint)
        params, which = _checkpoint.subtree(tree, a.subtree)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            table = describe_decay(
                params, mask, weight_decay=a.weight_decay, learning_rate=a.learning_rate,
                coupling=a.coupling,
            )  # fmt: skip
    except (ImportError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(found + which, table, sep="\n")
    for warning in told:
        print(warning.message, file=sys.stderr)
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
    relations.set_defaults(run=lambda a: _relations(a.names, a.quick, a.float32))
    explain = commands.add_parser(
        "explain", help="print rows in full: map, proof, source, measured"
    )
    explain.add_argument("names", nargs="+", help="rows, such as b3")
    explain.set_defaults(run=lambda a: _explain(a.names))
    convert = commands.add_parser(
        "convert",
        help="carry hyperparameters from one library to another, or list all conventions",
        usage="%(prog)s --from pytorch.AdamW --to paper [--lr 3e-4 --weight-decay 0.1 ...]",
    )
    convert.add_argument("--from", dest="source", help="a convention, such as pytorch.AdamW")
    convert.add_argument("--to", dest="target", help="another, or a library: paper, decoupled_wd")
    convert.set_defaults(run=lambda a: _convert(a.source, a.target, a.rest))
    suggest = commands.add_parser(
        "suggest",
        help="print what the published rules give for a run, each with its source",
        usage="%(prog)s [--learning-rate 3e-4 --batch-size 128 --dataset-size 50000 --epochs 30 ...]",
        description="The arguments are those of decoupled_wd.suggest.",
    )
    suggest.set_defaults(run=lambda a: _suggest(a.rest))
    describe = commands.add_parser(
        "describe", help="print what decays of the parameters in a checkpoint, and by how much"
    )
    describe.add_argument("checkpoint", help="a directory that Orbax saved, or a Flax msgpack file")
    describe.add_argument(
        "--subtree", help="path of the parameters in it (params, if there is one; '' is all)"
    )
    describe.add_argument(
        "--mask", help="""rules as JSON, such as '{".*bias": 0, "head/.*": 0.5}'"""
    )
    describe.add_argument(
        "--preset",
        choices=["matrices", "no_bias_norm_embedding"],
        help="times what the rules say, if there are any",
    )
    describe.add_argument(
        "--stacked",
        help="""axes of the preset that stack layers: a number, or JSON such as '{"layers/.*": 1}'""",
    )
    describe.add_argument("--weight-decay", type=float, default=1e-4)
    describe.add_argument("--learning-rate", type=float)
    describe.add_argument("--coupling", default="schedule", help="what the decay is per; see adamw")
    describe.set_defaults(run=_describe)
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command not in ("convert", "suggest"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
