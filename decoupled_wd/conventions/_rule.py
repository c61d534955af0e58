"""An update rule on its way from one convention to another, one part at a time.

Each part is carried exactly, by a row of the catalogue, or it is added to what is missing.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from decoupled_wd import _check
from decoupled_wd._typing import NumberOrSchedule
from decoupled_wd.conventions._read import combine, words
from decoupled_wd.conventions._record import (
    DIRECTIONS,
    LEARNING_RATE,
    PER_STEP,
    Convention,
    Form,
    Unit,
)


class Missing(NamedTuple):
    """A part of a convention without counterpart in another.

    Example:
        >>> from decoupled_wd import conventions
        >>> print(conventions.Missing("Nesterov momentum", "The target steps without it."))
        Nesterov momentum. The target steps without it.
    """

    part: str
    cost: str
    """What it costs to take the nearest instead."""

    def __str__(self) -> str:
        return f"{self.part}. {self.cost}"


class Rule(NamedTuple):
    """Form, unit and numbers, and how they came about."""

    form: Form
    unit: Unit
    learning_rate: Any
    schedule: NumberOrSchedule
    weight_decay: NumberOrSchedule
    numbers: Mapping[str, Any]
    maps: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    needs_steps: bool = False
    """Whether it holds only while no step has a multiplier of 0."""

    def by(self, text: str, **changes: Any) -> "Rule":
        """Change it, and say by what."""
        return self._replace(**changes, maps=(*self.maps, text))

    def lacks(self, part: str, cost: str, **changes: Any) -> "Rule":
        """Change it to what is nearest, and say what that costs."""
        return self._replace(**changes, missing=(*self.missing, Missing(part, cost)))

    def removed(self) -> NumberOrSchedule:
        """d_t = w A^i eta_t^j."""
        (i, j), alpha = self.unit, self.learning_rate
        eta = self.schedule if j else 1.0
        return combine(lambda w, e: w * alpha**i * e**j, self.weight_decay, eta)

    def in_unit(self, unit: Unit) -> "Rule":
        """The same decay, in another unit."""
        i, j = self.unit.rate - unit.rate, self.unit.schedule - unit.schedule
        if not (i or j):
            return self
        alpha, eta = self.learning_rate, self.schedule if j else 1.0
        if i < 0 and _is(alpha, 0.0):
            raise ValueError(
                "the base learning rate is 0, and a decay that is multiplied by it cannot be made of "
                "one that is not: pass the rate that the schedule multiplies."
            )
        factors = " ".join(x if n == 1 else f"{x}^{n:g}" for x, n in (("A", i), ("η_t", j)) if n)
        rule = self.by(
            f"w' = w {factors}: {unit} instead of {self.unit} per step (rows k1, k2)",
            unit=unit,
            weight_decay=combine(lambda w, e: w * alpha**i * _power(e, j), self.weight_decay, eta),
        )
        if self.unit.schedule or j >= 0 or not callable(eta):
            return rule
        return rule.while_there_are_steps("decays all the same", first=True)

    def while_there_are_steps(self, does: str, *, first: bool) -> "Rule":
        """It holds while no multiplier is 0; at a step of 0 the source `does` what the target cannot."""
        if first and _starts_from_zero(self.schedule):
            return self.lacks(
                "The first step, where the schedule is 0",
                f"The source {does} there, and the target does not. Nearest is to leave it out: the "
                "more steps of 0, the more is lost.",
            )
        return self._replace(needs_steps=True)

    def stretched(self, factor: NumberOrSchedule, text: str, **changes: Any) -> "Rule":
        """The step times `factor`, and the decay as it was."""
        i, j = self.unit
        if callable(factor):
            return self.by(
                text,
                schedule=combine(lambda e, f: e * f, self.schedule, factor),
                weight_decay=combine(lambda w, f: w / f**j, self.weight_decay, factor),
                **changes,
            )
        return self.by(
            text,
            learning_rate=self.learning_rate * factor,
            weight_decay=combine(lambda w: w / factor**i, self.weight_decay),
            **changes,
        )

    def with_numbers(self, **numbers: Any) -> dict[str, Any]:
        return {**self.numbers, **numbers}


def _power(base: Any, exponent: float) -> Any:
    """base^exponent; 0 where that would divide by 0: there is no step there."""
    if exponent >= 0:
        return base**exponent
    if isinstance(base, (int, float)):
        return base**exponent if base else 0.0
    return jnp.where(base == 0, 0.0, jnp.where(base == 0, 1.0, base) ** exponent)


def _starts_from_zero(schedule: NumberOrSchedule) -> bool:
    """Whether the multiplier of the first step is known to be 0."""
    with jax.ensure_compile_time_eval():
        return _check.concrete(_at(schedule, 0)) == 0


def carry(rule: Rule, source: Convention, target: Convention) -> Rule:
    """Carry a rule from one convention to another, part by part."""
    if source.direction != target.direction:
        # The form reads the source's momentum, which the target's numbers are about to replace.
        rule = _direction(_form(rule, source, target), source, target)
    else:
        rule = _direction(rule, source, target)
        if "dampening" in rule.numbers:
            rule = _buffer(_dampening(rule, source, target), target)
        rule = _form(rule, source, target)
    if target.form != "coupled":
        rule = _unit(rule, source, target)
    return _numbers(rule, target)


def is_plain_sgd(direction: str, numbers: Mapping[str, Any]) -> bool:
    """Whether the step is the gradient itself."""
    return direction == "momentum" and _is(numbers.get("momentum"), 0.0)


def _is(value: Any, expected: Any) -> bool:
    """Whether a value is known to be the expected one."""
    if isinstance(expected, (bool, str)) or isinstance(value, (bool, str)):
        return value == expected
    return not callable(value) and _check.concrete(value) == expected


def _direction(rule: Rule, source: Convention, target: Convention) -> Rule:
    if source.direction == target.direction and source.direction in DIRECTIONS:
        return rule
    numbers = words(target, target.defaults, partial=True)
    return rule.lacks(
        f"The step of {source.name}",
        f"{target.name} steps by another rule, here with its own defaults: another optimizer, to "
        "which the decay alone is carried.",
        numbers={k: v for k, v in numbers.items() if k not in ("learning_rate", "weight_decay")},
    )


def _dampening(rule: Rule, source: Convention, target: Convention) -> Rule:
    """Without dampening: it multiplies the whole step, if it is there from the first step on."""
    numbers = rule.numbers
    damping = numbers["dampening"]
    if _is(damping, 0.0) or _dampens_alike(source, target):
        return rule
    plain = rule.with_numbers(dampening=0.0)
    if is_plain_sgd("momentum", numbers):  # No buffer, so no dampening.
        return rule._replace(numbers=plain)
    if not numbers["dampen_first"]:
        beta = numbers["momentum"]
        rule = rule.lacks(
            f"dampening={damping!r}, which spares the first step",
            "Spread over all steps instead, the first gradient weighs 1 − dampening of what it did, and "
            f"the difference fades as momentum^t: by half in {_halving(beta)} steps.",
        )
    return rule.stretched(
        1 - damping, "the learning rate times 1 − dampening", numbers=plain
    )  # fmt: skip


def _dampens_alike(source: Convention, target: Convention) -> bool:
    """Whether the buffer is carried as it is, dampening included."""

    def buffer(convention: Convention) -> tuple[Any, ...]:
        settable, has = convention.settable, convention.numbers
        dampening, inside = (
            "any" if word in settable else has[word]
            for word in ("dampening", "learning_rate_in_buffer")
        )
        return dampening, inside, has["dampen_first"], convention.form == "coupled"

    return source.direction == target.direction and buffer(source) == buffer(target)


def _halving(beta: Any) -> str:
    known = None if callable(beta) else _check.concrete(beta)
    return f"{math.log(0.5) / math.log(known):.3g}" if known else "log ½ / log momentum"


def _buffer(rule: Rule, target: Convention) -> Rule:
    """The learning rate inside the momentum's buffer, or outside."""
    inside = rule.numbers["learning_rate_in_buffer"]
    word = "learning_rate_in_buffer"
    if word in target.settable or inside == target.numbers.get(word):
        return rule
    moved = rule.with_numbers(learning_rate_in_buffer=not inside)
    if not callable(rule.schedule) or is_plain_sgd("momentum", rule.numbers):
        return rule._replace(numbers=moved)
    if rule.numbers["nesterov"]:
        return rule.lacks(
            "The learning rate's place beside the momentum's buffer, under a schedule",
            "Nesterov's step would need two momenta. With the number as it is, momentum lags behind "
            "the schedule, or does not (row N6).",
            numbers=moved,
        )
    powers = (1, -1) if inside else (-1, 1)
    beta = combine(
        lambda b, old, new: b * _power(old, powers[0]) * _power(new, powers[1]),
        rule.numbers["momentum"], _previous(rule.schedule), rule.schedule,
    )  # fmt: skip
    return rule.by(
        f"momentum_t = momentum · {'a_(t−1)/a_t' if inside else 'a_t/a_(t−1)'} (row b7)",
        numbers={**moved, "momentum": beta},
    ).while_there_are_steps("remembers the gradient", first=not inside)


def _previous(value: NumberOrSchedule) -> NumberOrSchedule:
    """One step before, and at the first step the first."""
    return (lambda step: value(jnp.maximum(step - 1, 0))) if callable(value) else value


def _form(rule: Rule, source: Convention, target: Convention) -> Rule:
    if _is(rule.weight_decay, 0.0):
        return rule._replace(form=target.form, unit=target.unit or PER_STEP)
    if source.form == "coupled" and target.form != "coupled":
        return _decoupled(rule, source, target)
    if source.form != "coupled" and target.form == "coupled":
        return _coupled(rule, source, target)
    if source.form == target.form:
        return rule
    if {source.form, target.form} == {"first", "parallel"}:
        return rule.by("decay first is decay beside the step (row c3)", form=target.form)
    if rule.numbers.get("learning_rate_in_buffer"):
        return rule.lacks(
            "The order of step and decay, with the learning rate inside the buffer",
            "The step differs by a part d of itself.",
            form=target.form,
        )
    return _to_form(to_parallel(rule), target.form)


def to_parallel(rule: Rule) -> Rule:
    if rule.form == "after":
        kept = combine(lambda d: 1 - d, rule.removed())
        return rule.stretched(kept, "a → a(1 − d): decay after the step (row c1)", form="parallel")
    if rule.form == "proximal":
        kept = combine(lambda mu: 1 / (1 + mu), rule.removed())
        decay = combine(lambda w, k: w * k, rule.weight_decay, kept)
        text = "d → d/(1 + d), a → a/(1 + d): proximal decay (row d2)"
        return rule._replace(weight_decay=decay).stretched(kept, text, form="parallel")
    return rule._replace(form="parallel")


def _to_form(rule: Rule, form: Form) -> Rule:
    if form in ("first", "parallel"):
        return rule._replace(form=form)
    grown = combine(lambda d: 1 / (1 - d), rule.removed())
    if form == "after":
        return rule.stretched(grown, "a → a/(1 − d): decay after the step (row c1)", form=form)
    decay = combine(lambda w, k: w * k, rule.weight_decay, grown)
    text = "d → d/(1 − d), a → a/(1 − d): proximal decay (row d2)"
    return rule._replace(weight_decay=decay).stretched(grown, text, form=form)


_NO_MAP = (
    "Inside an adaptive step no coefficient of the one is the other (row N1): the best leaves an rms of "
    "3 % of the weights in 60 steps of the catalogue's regression; `equivalence.fit` measures yours."
)


def _coupled(rule: Rule, source: Convention, target: Convention) -> Rule:
    """Decoupled decay as an L2 penalty."""
    if (source.direction, target.direction) != ("momentum", "momentum"):
        return rule.lacks(
            "Decoupled decay, where the target adds an L2 penalty to the gradient",
            f"{_NO_MAP} Nearest is none: 0.",
            form="coupled",
            weight_decay=0.0,
        )
    if is_plain_sgd("momentum", rule.numbers):
        return rule.in_unit(LEARNING_RATE).by(
            "λ' = d/a (rows a1, a2)", form="coupled", unit=PER_STEP
        )
    if rule.numbers["nesterov"]:
        return rule.lacks(
            "Decay beside Nesterov's momentum, where the target adds an L2 penalty to the gradient",
            "Nearest is the coefficient with the same decay in the long run, (1 − momentum) d/a.",
            form="coupled",
            unit=PER_STEP,
            weight_decay=combine(
                lambda w, b: w * (1 - b), rule.in_unit(LEARNING_RATE).weight_decay,
                rule.numbers["momentum"],
            ),
        )  # fmt: skip
    inside, beta = rule.numbers["learning_rate_in_buffer"], rule.numbers["momentum"]
    removed, schedule = rule.removed(), rule.schedule
    rule = rule.in_unit(LEARNING_RATE)
    per_rate = rule.weight_decay

    def penalty(step: Any) -> Any:
        # With the rate inside, what the step before removed counts in the rate of now.
        past = _at(_previous(per_rate), step)
        if inside:
            past = past * _at(_previous(schedule), step) * _power(_at(schedule, step), -1)
        return _at(per_rate, step) - jnp.where(step > 0, _at(beta, step) * past, 0.0)

    def momentum(step: Any) -> Any:
        return _at(beta, step) * (1 - jnp.where(step > 0, _at(_previous(removed), step), 0.0))

    rule = rule.by(
        "λ'_t = d_t/a_t − momentum · d_(t−1)/a, a of "
        + ("now" if inside else "then")
        + "; momentum'_t = momentum (1 − d_(t−1)) (rows b3, b4)",
        form="coupled",
        unit=PER_STEP,
        weight_decay=penalty,
        numbers=rule.with_numbers(momentum=momentum),
    )
    varies = inside and callable(schedule)
    return rule.while_there_are_steps("moves on", first=False) if varies else rule


def _at(value: NumberOrSchedule, step: Any) -> Any:
    return value(step) if callable(value) else value


def _decoupled(rule: Rule, source: Convention, target: Convention) -> Rule:
    """An L2 penalty as decoupled decay."""
    if source.direction != "momentum":
        return rule.lacks(
            "The L2 penalty inside the gradient, where the target's decay is decoupled",
            f"{_NO_MAP} Nearest is none: 0.",
            form=target.form,
            unit=LEARNING_RATE,
            weight_decay=0.0,
        )
    form = "parallel"
    if is_plain_sgd("momentum", rule.numbers):
        rule = rule.by("d = a λ' (rows a1, a2)", form=form, unit=LEARNING_RATE)
        return _to_form(rule, target.form)
    beta = rule.numbers["momentum"]
    rule = rule.lacks(
        "The L2 penalty inside the momentum's buffer, where the target's decay is outside",
        "Nearest is the decay with the same effect in the long run, a λ'/(1 − momentum). Exact at a "
        "constant rate are momentum and 1 − d as roots of a quadratic, and a buffer that does not "
        "start from zero (row b5).",
        form=form,
        unit=LEARNING_RATE,
        weight_decay=combine(lambda w, b: w / (1 - b), rule.weight_decay, beta),
    )
    return _to_form(rule, target.form)


def _unit(rule: Rule, source: Convention, target: Convention) -> Rule:
    for convention in (source, target):
        if convention.also:
            rule = rule.lacks(
                f"What {convention.name} has besides d, {convention.also}",
                "The number is carried, and this is not.",
            )
    own = [c for c in (source, target) if c.unit is None and c.form != "coupled"]
    if target.unit is None or own:
        return rule.lacks(
            f"The decay of {own[0].title}, which reads more than learning rate and schedule",
            f"{own[0].note} The number is carried as it is.",
        )
    return rule.in_unit(target.unit)


_PARTS = {
    ("eps_placement", "after"): "ε, which is added after the bias correction",
    ("eps_placement", "before"): "ε, which is added before the bias correction",
}
_PLACES_OF_EPS = ("eps_placement", "eps_in_max", "eps_in_sqrt")


def _numbers(rule: Rule, target: Convention) -> Rule:
    """What the target has no argument for must have the target's value."""
    settable = target.settable
    for name, value in rule.numbers.items():
        has: Any = target.numbers.get(name)
        if name in settable or name not in target.numbers or _is(value, has):
            continue
        if name == "dampening":  # A fixed share of the step.
            if _is(rule.numbers["momentum"], 0.0) or not _is(value, 0.0):
                continue  # There is no buffer, or `_dampening` carried it as it is.
            share: Any = rule.numbers["momentum"] if has == "momentum" else has
            undone = combine(lambda x: 1 / (1 - x), share)
            if callable(share):
                rule = rule.lacks(
                    "A momentum that varies, where the target dampens by it",
                    "Each gradient in the buffer is dampened by the momentum of its own step, and no "
                    "learning rate outside undoes that. Nearest is to undo that of the last.",
                )
            rule = rule.stretched(undone, "the learning rate over 1 − dampening")
            if not target.numbers["dampen_first"]:
                rule = rule.lacks(
                    "A first gradient that weighs as much as the others, where the target's dampening "
                    "spares it",
                    "There it weighs 1/(1 − dampening) times as much, and the difference fades as "
                    "momentum^t.",
                )
        elif not _makes_no_difference(name, value, has, rule.numbers):
            part = _PARTS.get((name, value), f"{name}={value!r}")
            rule = rule.lacks(part, _cost(name, rule.numbers, has))
    if "weight_decay" not in settable and not _is(rule.weight_decay, 0.0):
        rule = rule.lacks(
            "The decay", f"{target.name} has none. In Optax, `add_decayed_weights` is another part."
        )
    return rule._replace(numbers={**rule.numbers, **{
        k: v for k, v in target.numbers.items() if k not in settable}})  # fmt: skip


def _makes_no_difference(name: str, value: Any, has: Any, numbers: Mapping[str, Any]) -> bool:
    """Whether another value of a number is the same step all the same, or carried elsewhere."""
    if name in ("dampen_first", "learning_rate_in_buffer"):  # Carried by `_dampening`, `_buffer`.
        return True
    if name == "nesterov":  # Without a moment there is nothing to look ahead in.
        return is_plain_sgd("momentum", numbers) or _is(numbers.get("b1"), 0.0)
    alike = name in _PLACES_OF_EPS or {value, has} == {"pytorch", "keras"}
    return alike and all(_is(numbers.get(eps, 0.0), 0.0) for eps in ("eps", "eps_root"))


def _cost(name: str, numbers: Mapping[str, Any], has: Any) -> str:
    """What it costs to have another value."""
    if name == "eps_placement":
        b2 = _check.concrete(numbers["b2"]) or 0.0
        first, settled = 1 / math.sqrt(1 - b2), math.log(1 - 1.01**-2) / math.log(b2 or 0.5)
        return (
            "ε before the bias correction is ε/√(1 − β₂ᵗ) after it, which no constant is: "
            f"{first:.3g} times as large at the first step, within 1 % from step {settled:.0f} on; felt "
            "where √v̂ is not far above ε (rows e6, N19). Nearest is the same number."
        )
    if name == "variant":
        return (
            f"Nearest is {has!r}, which corrects the largest second moment otherwise: it remembers a "
            "spike of the gradient for longer, or shorter (rows N12-pytorch, N12-paper)."
        )
    return f"Nearest is {name}={has!r}: another step."
