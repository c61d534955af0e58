"""A call of a library, in this library's words."""

import ast
import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from decoupled_wd import _check
from decoupled_wd._typing import NumberOrSchedule
from decoupled_wd.conventions._catalogue import CONVENTIONS
from decoupled_wd.conventions._record import Convention


class Terms(NamedTuple):
    """Hyperparameters in this library's words, in the form and unit of a convention."""

    convention: Convention
    given: Mapping[str, Any]
    """All arguments of the convention, in its own words."""
    learning_rate: NumberOrSchedule
    """A; where it came as a callable, all of a_t."""
    schedule: NumberOrSchedule
    """eta_t of the 0-based step; 1 if there is none."""
    weight_decay: NumberOrSchedule
    """w, normalized."""
    numbers: Mapping[str, Any]
    """Of the direction, all of them."""
    part: Any = 1.0
    """What of A the learning rate was given as: other than 1 beside a `reference_argument`."""


def read(source: str, schedule: NumberOrSchedule | None, arguments: Mapping[str, Any]) -> Terms:
    """Find the convention, check the arguments of the call, and translate them."""
    name, given = parse(source)
    given = {**given, **arguments}
    convention = _called(name, given)
    _check_known(convention, given)
    given = {**convention.defaults, **convention.options, **given}
    missing = [
        x for x in (*convention.arguments, *convention.normalizer_arguments) if x not in given
    ]
    if missing:
        raise TypeError(
            f"`{missing[0]}` is missing: {convention.title} has no default for it. Pass all of "
            f"{', '.join(missing)}."
        )
    if schedule is not None:
        _check.check_number_or_schedule("schedule", schedule, minimum=0.0)
    numbers = words(convention, given)
    rate = numbers.pop("learning_rate")
    decay = numbers.pop("weight_decay", None)
    decay = 0.0 if decay is None else decay
    called = {word: argument for argument, word in convention.arguments.items()}
    for word, value in (("learning_rate", rate), ("weight_decay", decay)):
        _check.check_number_or_schedule(called.get(word, word), value, minimum=0.0)
    if convention.normalizer is not None:
        factor = convention.normalizer(given)
        decay = combine(lambda w: w * factor, decay)
    rate, decay = (shift(value, convention.first_step) for value in (rate, decay))
    eta = 1.0 if schedule is None else shift(schedule, convention.first_step)
    part: Any = 1.0
    reference = given.get(convention.reference_argument) if convention.reference_argument else None
    if reference is not None:
        _check.check_positive(str(convention.reference_argument), reference)
        part = rate / reference
        rate, eta = reference, combine(lambda e: e * part, eta)
    return Terms(convention, given, rate, eta, decay, numbers, part)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of "optimi.AdamW(decouple_lr=True)"."""
    try:
        node = ast.parse(text, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
        if call.args:
            raise ValueError
        return ast.unparse(call.func), {
            str(k.arg): ast.literal_eval(k.value) for k in call.keywords
        }
    except (SyntaxError, ValueError, TypeError):
        raise ValueError(
            f"{text!r} cannot be read as a convention. Write the library, a dot, the optimizer, and "
            "arguments by name that are literals: 'optimi.AdamW(decouple_lr=True)'."
        ) from None


def candidates(name: str, given: Mapping[str, Any]) -> list[Convention]:
    """The records that a name, or a library's, and the options given leave."""
    named = [c for c in CONVENTIONS if name in (c.name, c.library)]
    if not named:
        meant = " or ".join(map(repr, _near(name)))
        raise ValueError(
            f"{name!r} is no convention that is known here.{f' Did you mean {meant}?' if meant else ''} "
            "All are in `decoupled_wd.conventions.CONVENTIONS`, and listed by `python -m decoupled_wd "
            "convert`."
        )
    asked = [c for c in named if all(given.get(k, v) == v for k, v in c.options.items())]
    if not asked:
        known = sorted({f"{k}={v!r}" for c in named for k, v in c.options.items()})
        raise ValueError(
            f"{name} is known here with {', '.join(known)}, and {dict(given)} is given."
        )
    return asked


_ALSO_CALLED = {
    "torch.optim.": "pytorch.", "torch.": "pytorch.", "tfa.optimizers.": "tensorflow_addons.",
    "tfa.": "tensorflow_addons.", "tf.keras.optimizers.": "keras.", "keras.optimizers.": "keras.",
    "timm.optim.": "timm.", "dwd.": "decoupled_wd.",
}  # fmt: skip


def _near(name: str) -> list[str]:
    """Names that may have been meant: first those that differ in case or in the library's name."""
    names = list(dict.fromkeys(x for c in CONVENTIONS for x in (c.name, c.library)))
    prefix = next((x for x in _ALSO_CALLED if f"{name}.".startswith(x)), "")
    wanted = (_ALSO_CALLED.get(prefix, "") + f"{name}.".removeprefix(prefix)).strip(".").casefold()
    same = [x for x in names if x.casefold() == wanted]
    ends = [x for x in names if x.casefold().rpartition(".")[2] == wanted]
    folded = {x.casefold(): x for x in names}
    close = [folded[x] for x in difflib.get_close_matches(wanted, folded, n=3, cutoff=0.5)]
    return (same or ends or close)[:3]


def words(
    convention: Convention, given: Mapping[str, Any], *, partial: bool = False
) -> dict[str, Any]:
    """Arguments of a library, translated, and the numbers of the direction that it fixes.

    `partial` leaves out what is not given.
    """
    found = convention.numbers
    for argument, word in convention.arguments.items():
        if partial and argument not in given:
            continue
        value = given[argument]
        if isinstance(word, str):
            found[word] = value
            continue
        if not isinstance(value, (tuple, list)) or len(value) != len(word):
            raise TypeError(
                f"`{argument}` is {value!r}, and {len(word)} numbers are needed: {', '.join(word)}."
            )
        found.update(zip(word, value, strict=True))
    if "momentum" in found:
        found["momentum"] = 0.0 if found["momentum"] is None else found["momentum"]
        if found.get("dampening") == "momentum":
            found["dampening"] = found["momentum"]
    return found


def combine(f: Callable[..., Any], *values: NumberOrSchedule) -> Any:
    """f of numbers; with a schedule among them, the schedule of f."""
    if not any(map(callable, values)):
        return f(*values)
    return lambda step: f(*(value(step) if callable(value) else value for value in values))


def shift(schedule: NumberOrSchedule, by: int) -> NumberOrSchedule:
    """The schedule `by` steps later."""
    if not by or not callable(schedule):
        return schedule
    return lambda step: schedule(step + by)


def _called(name: str, given: Mapping[str, Any]) -> Convention:
    """The record of a call, where an option that is not given has its default."""
    asked = candidates(name, given)
    if name not in [c.name for c in asked]:
        names = ", ".join(sorted({c.name for c in asked}))
        raise ValueError(f"`source` is {name!r}, and an optimizer is needed: one of {names}.")

    def is_called(c: Convention) -> bool:
        return all({**c.defaults, **given}.get(k, v) == v for k, v in c.options.items())

    return next((c for c in asked if is_called(c)), asked[0])


def _check_known(convention: Convention, given: Mapping[str, Any]) -> None:
    known = [*convention.arguments, *convention.options, *convention.normalizer_arguments]
    known += [convention.reference_argument] if convention.reference_argument else []
    for argument in given:
        if argument not in (*known, *convention.inert):
            initials = [x for x in known if "".join(y[0] for y in x.split("_")) == argument]
            near = initials or difflib.get_close_matches(argument, known, n=1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise TypeError(
                f"`{argument}` is no argument of {convention.title} that is known here: that has "
                f"{', '.join(dict.fromkeys(known))}.{meant}"
            )
