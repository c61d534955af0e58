"""Carry hyperparameters from one library's convention to another's."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from decoupled_wd import _check, hyperparams
from decoupled_wd._typing import NumberOrSchedule
from decoupled_wd.conventions._read import Terms, candidates, combine, parse, read, shift, words
from decoupled_wd.conventions._record import LEARNING_RATE, PER_STEP, Convention
from decoupled_wd.conventions._rule import Missing, Rule, carry, is_plain_sgd


@dataclasses.dataclass(frozen=True)
class Conversion:
    """One optimizer's hyperparameters, in the words of two conventions.

    Example:
        >>> import decoupled_wd as dwd
        >>> found = dwd.convert("pytorch.SGD", "paper.SGDW", lr=0.5, weight_decay=0.25)
        >>> found.arguments["weight_decay"], found.decay_per_step  # 0.5 * 0.25
        (0.125, 0.125)
        >>> found.missing  # nothing: it is exact
        ()
    """

    source: Convention
    given: Mapping[str, Any]
    """The source's arguments, all of them."""
    target: Convention
    arguments: Mapping[str, Any]
    """The target's arguments, all of them. What must vary is a callable of the 0-based step, such as a
    momentum: few libraries take one as an argument, and most let it be set before each step."""
    schedule: NumberOrSchedule | None
    """What multiplies the target's learning rate, by the target's count of steps; None for 1. This
    library's optimizers have an argument for it, so there it is among the arguments too."""
    decay_per_step: Any
    """The part of a weight that a step at multiplier 1 removes; None where the decay is a penalty
    inside the gradient, varies by itself, or reads more than rates."""
    maps: tuple[str, ...]
    """What was used, with the catalogue's rows."""
    missing: tuple[Missing, ...] = ()
    """What has no counterpart; empty where the conversion is exact."""
    needs_steps: bool = False
    """Whether it is exact only while no step, after the first, has a multiplier of 0: there the target
    stands still, and the source does not."""

    def __str__(self) -> str:
        lines = [*_told(self.source, self.given), *_told(self.target, self.arguments)]
        if self.schedule is not None:
            lines += ["    its learning rate times `schedule` of the step"]
        lines += [f"by {text}" for text in self.maps]
        lines += ["while no step after the first has a multiplier of 0"] * self.needs_steps
        lines += [f"no counterpart: {part}" for part in self.missing]
        return "\n".join([*lines, _amounts(self.decay_per_step)])


class NoCounterpart(ValueError):
    """A conversion that is not exact; its attribute `nearest` is the nearest one there is.

    Example:
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import conventions
        >>> try:
        ...     dwd.convert("pytorch.Adam", "pytorch.AdamW", weight_decay=0.01)
        ... except conventions.NoCounterpart as error:
        ...     print(error.nearest.missing[0].part)
        The L2 penalty inside the gradient, where the target's decay is decoupled
    """

    def __init__(self, nearest: Conversion) -> None:
        super().__init__(
            f"{nearest.source.title} cannot be carried to {nearest.target.title} exactly. "
            f"{' '.join(map(str, nearest.missing))} The nearest, in the attribute `nearest` of this "
            f"error, is {call(nearest.target, nearest.arguments)}."
        )
        self.nearest = nearest


def convert(
    source: str,
    target: str,
    *,
    schedule: NumberOrSchedule | None = None,
    **arguments: Any,
) -> Conversion:
    r"""Carry an optimizer's hyperparameters from one library's convention to another's.

    $$w' = w \, A^{i - i'} \eta_t^{j - j'}$$

    where a step of the source removes $w A^i \eta_t^j$ of a weight and one of the target
    $w' A^{i'} \eta_t^{j'}$: A is the base learning rate, $\eta_t$ its schedule. What else differs,
    such as the order of step and decay, or the learning rate inside the momentum's buffer, goes by
    the catalogue's rows, if need be with a number that varies from step to step.

    Args:
        source: a convention, such as "pytorch.AdamW"; some arguments may stand in parentheses:
            "optimi.AdamW(decouple_lr=True)". `conventions.CONVENTIONS` has all.
        target: a convention, or a library alone, such as "paper" or "decoupled_wd", for that one of
            its optimizers which steps as the source does and needs least change. Options may stand
            in parentheses.
        schedule: eta_t, what multiplies the source's learning rate, and no learning rate itself: a
            number, or a callable of the step as the source counts it: from 0, unless
            docs/conventions.md says from 1. None is 1.
        arguments: the source's arguments, in its own words; the source's defaults hold.

    Returns:
        A `Conversion`: `arguments` are the target's, to be called beside `schedule`; `print` shows
        formulas and the decay per step, per 1000 steps, as half-life and as timescale.

    Raises:
        TypeError: an argument that the source does not have, that is missing or of the wrong type.
        ValueError: a convention that is not known; as a `NoCounterpart`, what cannot be carried
            exactly, with what the nearest costs.

    Example:
        >>> import decoupled_wd as dwd
        >>> conversion = dwd.convert("pytorch.AdamW", "paper", lr=0.5, weight_decay=0.25)
        >>> conversion.target.name, conversion.arguments["weight_decay"]  # 0.5 * 0.25
        ('paper.AdamW', 0.125)

    Source: docs/conventions.md has every formula, and where it was read or run.
    """
    terms = read(source, schedule, arguments)
    if callable(terms.learning_rate):
        raise TypeError(
            "`learning_rate` is a callable, and a number is needed: pass the peak there, and "
            "schedule=multiplier, which is that callable divided by the peak."
        )
    name, given = parse(target)
    asked = candidates(name, given)
    asked = [c for c in asked if set(given) <= {*c.options, *c.normalizer_arguments}] or asked
    if terms.convention in asked:
        return Conversion(
            terms.convention, terms.given, terms.convention, terms.given, schedule,
            decay_per_step(terms), ("nothing: it is the same",),
        )  # fmt: skip
    if name not in [convention.name for convention in asked]:
        asked = _of_library(name, asked, given, terms)
    best = min((_conversion(terms, convention, given) for convention in asked), key=_strangeness)
    if best.missing:
        raise NoCounterpart(best)
    return best


def _of_library(
    name: str, asked: list[Convention], given: Mapping[str, Any], terms: Terms
) -> list[Convention]:
    """The optimizers of a library that may be meant: those that step as the source does."""
    direction = terms.convention.direction
    alike = [c for c in asked if c.direction == direction and direction != "own"]
    if not alike:
        names = ", ".join(sorted({c.name for c in asked}))
        raise ValueError(
            f"`target` is {name!r}, none of whose optimizers steps as {terms.convention.name} does. To "
            f"carry the decay alone, name the one that is meant: {names}."
        )
    ready = [c for c in alike if not _needed(c, given)]
    return ready or alike


def _strangeness(conversion: Conversion) -> tuple[Any, ...]:
    """What makes one target a worse choice than another: first what is lost, last another name."""
    source, target = conversion.source, conversion.target
    given = [value for value in conversion.given.values() if callable(value)]
    varying = [value for value in conversion.arguments.values() if callable(value)]
    last = [c.name.rpartition(".")[2].casefold() for c in (source, target)]
    return (
        len(conversion.missing),
        len(varying) > len(given),
        (source.form == "coupled") != (target.form == "coupled"),
        last[0] != last[1],
        len(conversion.maps),
    )


def call(convention: Convention, arguments: Mapping[str, Any]) -> str:
    """A call of the library, as Python."""
    ordered = dict.fromkeys((*convention.arguments, *arguments))
    shown = {k: arguments[k] for k in ordered if k in arguments and k not in convention.inert}
    return f"{convention.name}({', '.join(f'{k}={_shown(v)}' for k, v in shown.items())})"


def _conversion(terms: Terms, target: Convention, given: Mapping[str, Any]) -> Conversion:
    source = terms.convention
    unit = source.unit or PER_STEP
    rule = carry(
        Rule(
            source.form,
            unit,
            terms.learning_rate,
            terms.schedule,
            terms.weight_decay,
            terms.numbers,
        ),
        source,
        target,
    )
    schedule = shift(rule.schedule, -target.first_step)
    schedule = None if not callable(schedule) and _check.concrete(schedule) == 1 else schedule
    arguments = _arguments(rule, target, given)
    if target.library == "decoupled_wd" and schedule is not None:
        arguments["schedule"] = schedule
    return Conversion(
        source,
        terms.given,
        target,
        arguments,
        schedule,
        decay_per_step(terms),
        rule.maps,
        rule.missing,
        rule.needs_steps,
    )


def _arguments(rule: Rule, target: Convention, given: Mapping[str, Any]) -> dict[str, Any]:
    """The rule in the target's words."""
    about_target = {*target.options, *target.normalizer_arguments}
    for argument in given:
        if argument not in about_target:
            raise TypeError(
                f"`target` gives `{argument}`, which follows from the source. What may be given there: "
                f"{', '.join(sorted(about_target)) or 'nothing'}."
            )
    decay, rate = rule.weight_decay, rule.learning_rate
    if target.normalizer is not None:
        needed = _needed(target, given)
        if needed:
            raise TypeError(
                f"`target` needs {', '.join(needed)} in parentheses: {target.title} multiplies its "
                "decay by a number that it makes of them."
            )
        factor = target.normalizer({**target.defaults, **given})
        decay = combine(lambda w: w / factor, decay)
    found = {**rule.numbers, "learning_rate": rate, "weight_decay": decay}
    written = {**target.options, **given}
    for argument, word in target.arguments.items():
        if isinstance(word, str):
            written[argument] = found.get(word, target.defaults.get(argument))
        else:
            written[argument] = tuple(found.get(w) for w in word)
    return written


def _needed(target: Convention, given: Mapping[str, Any]) -> list[str]:
    """What a target multiplies its decay by, and nobody has said."""
    return [x for x in target.normalizer_arguments if x not in {**target.defaults, **given}]


def decay_per_step(terms: Terms) -> Any:
    """What a step at multiplier 1 removes."""
    convention, w, alpha = terms.convention, terms.weight_decay, terms.learning_rate
    coupled = convention.form == "coupled"
    plain = coupled and is_plain_sgd(convention.direction, terms.numbers)
    if (
        callable(w)
        or callable(alpha)
        or (coupled and not plain)
        or (not coupled and convention.unit is None)
        or convention.also
    ):
        return None
    i, j = convention.unit or LEARNING_RATE
    d = w * alpha**i * terms.part**j
    return d / (1 + d) if convention.form == "proximal" else d


def _told(convention: Convention, arguments: Mapping[str, Any]) -> list[str]:
    lines = [call(convention, arguments), f"    {convention.formula(words(convention, arguments))}"]
    lines += [f"    A is {convention.reference}"]
    return lines + [f"    note: {convention.note}"] * bool(convention.note)


def _shown(value: Any) -> str:
    if callable(value):
        return "<schedule>"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _amounts(decay: Any) -> str:
    if decay is None:
        return "decay per step: no single number (it varies, or goes through the moments)"
    if not float(decay):
        return "no decay"
    d = float(decay)
    if d >= 1:
        return f"decay per step {d:.6g} at multiplier 1: a step removes all of a weight, or more"
    left = math.exp(1000 * math.log1p(-d))
    return (
        f"decay per step {d:.6g} at multiplier 1; 1000 such steps remove {1 - left:.4%}; half-life "
        f"{float(hyperparams.half_life(d)):.5g} steps; timescale {float(hyperparams.timescale(d)):.5g} "
        "steps"
    )
