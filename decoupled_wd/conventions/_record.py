r"""What a library does with `weight_decay`, as data.

Every rule of this field is one of five forms of the same two terms, the step $a_t u$ and the decay:

| form | update |
|---|---|
| `"coupled"` | g ← g + w p, and u sees it |
| `"parallel"` | p ← p − a u − d p |
| `"first"` | p ← (1 − d) p, then p ← p − a u: the same map, as u does not read p |
| `"after"` | p ← (1 − d)(p − a u) |
| `"proximal"` | p ← (p − d p') and p' = p − a u solved for p: p ← (p − a u)/(1 + d) |

with $a_t = A \eta_t$ the learning rate, A its base and $\eta_t$ its schedule, and a decay per step
$d_t = w A^i \eta_t^j$. So a convention is a direction u, a form, and the two powers i and j, its unit;
and a conversion of the number w is $w A^{i - i'} \eta_t^{j - j'}$.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Form = Literal["coupled", "parallel", "first", "after", "proximal"]


class Unit(NamedTuple):
    """What w is per: the powers of base rate and multiplier in a decay of w A^i eta^j per step.

    Example:
        A decay per unit of learning rate, and the paper's, per unit of the schedule; a is A eta:

        >>> from decoupled_wd import conventions
        >>> print(conventions.Unit(rate=1, schedule=1), "|", conventions.Unit(rate=0, schedule=1))
        a w | η w
    """

    rate: float
    """i, of the base learning rate A."""
    schedule: float
    """j, of the multiplier eta_t."""

    def __str__(self) -> str:
        rate, schedule = self
        both = min(rate, schedule)  # a = A eta.
        powers = (("a", both), ("A", rate - both), ("η", schedule - both))
        return " ".join([_power(x, n) for x, n in powers if n] + ["w"])


def _power(symbol: str, n: float) -> str:
    return symbol if n == 1 else f"{symbol}{'²' if n == 2 else f'^{n:g}'}"


PER_STEP = Unit(0, 0)
PAPER = Unit(0, 1)
LEARNING_RATE = Unit(1, 1)
CORRECTED = Unit(1, 2)
SQUARED = Unit(2, 2)


class Direction(NamedTuple):
    """A step without learning rate and decay, by its formula and its numbers."""

    formula: Callable[[Mapping[str, Any]], str]
    """u, of the numbers."""
    defaults: Mapping[str, Any]
    """This library's names of its numbers and options, and their values where a record says none."""


def _adam(h: Mapping[str, Any]) -> str:
    m = "(β₁m̂ + (1−β₁)ĝ)" if h["nesterov"] else "m̂"
    inner = "ε_root" if h["eps_placement"] == "after" else "ε_root/(1−β₂ᵗ)"
    root = f"√(v̂ + {inner})" if h["eps_root"] else "√v̂"
    return f"{m}/({root} + {_EPS[h['eps_placement']]})"


_EPS = {"after": "ε", "before": "ε/√(1−β₂ᵗ)"}
_AMSGRAD = {
    "paper": "m/(√max v + ε)",
    "pytorch": "m̂/(√(max v/(1−β₂ᵗ)) + ε)",
    "keras": "m̂/(√(max v/(1−β₂ᵗ)) + ε/√(1−β₂ᵗ))",
    "optax": "m̂/(√max v̂ + ε)",
}


def _momentum(h: Mapping[str, Any]) -> str:
    if not h["momentum"]:
        return "g"
    g = "a g" if h["learning_rate_in_buffer"] else "g"
    g = f"(1−τ) {g}" if h["dampening"] else g
    ahead = f"{g} + β m" if h["nesterov"] else "m"
    return f"{ahead}, m ← β m + {g}"


def _radam(h: Mapping[str, Any]) -> str:
    return f"r_t m̂/(√v̂ + {_EPS[h['eps_placement']]}) where ρ_t > 5, and m̂ before"


def _adamax(h: Mapping[str, Any]) -> str:
    return "m̂/n, n ← max(β₂n, |g| + ε)" if h["eps_in_max"] else "m̂/(n + ε), n ← max(β₂n, |g|)"


def _rmsprop(h: Mapping[str, Any]) -> str:
    v = "v − mean(g)²" if h["centered"] else "v"
    root = f"√({v} + ε)" if h["eps_in_sqrt"] else f"(√({v}) + ε)"
    return _momentum(h).replace("g", f"g/{root}")


def _adagrad(h: Mapping[str, Any]) -> str:
    u = "g/√(Σg² + ε)" if h["eps_in_sqrt"] else "g/(√Σg² + ε)"
    return f"{u}/(1 + fall t)" if h["lr_decay"] else u


_NADAM = "(μ₊m/(1 − Πμ μ₊) + (1−μ)g/(1 − Πμ))/(√v̂ + ε), μ = β₁(1 − ½ 0.96^(ψt)), μ₊ the next"
_MOMENTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0}
_BUFFER = {
    "momentum": 0.0,
    "nesterov": False,
    "dampening": 0.0,
    "dampen_first": True,
    "learning_rate_in_buffer": False,
}
OPTAX_STEPS: Mapping[str, Mapping[str, Any]] = {
    "optax.adan": {"b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8, "eps_root": 1e-8},
    "optax.contrib.acprop": {"b1": 0.9, "b2": 0.999, "eps": 1e-16, "eps_root": 1e-16},
    "optax.contrib.ademamix": {
        "b1": 0.9, "b2": 0.999, "b3": 0.9999, "alpha": 5.0, "eps": 1e-8, "eps_root": 0.0,
    },
    "optax.contrib.simplified_ademamix": {
        "b1": 0.99, "b2": 0.95, "alpha": 0.0, "eps": 1e-8, "eps_root": 0.0,
    },
    "optax.contrib.sophia": {
        "b1": 0.965, "b2": 0.99, "eps": 1e-8, "gamma": 0.01, "clip_threshold": 1.0,
        "update_interval": 10,
    },
    "optax.contrib.galore": {
        "rank": 128, "update_proj_gap": 200, "scale": 1.0, "base_optimizer": None,
        "weight_dimension_numbers": None,
    },
}  # fmt: skip
"""Steps that go by their name in Optax, and their numbers in its words."""
DIRECTIONS: Mapping[str, Direction] = {
    "adam": Direction(_adam, {**_MOMENTS, "eps_placement": "after", "nesterov": False}),
    "amsgrad": Direction(lambda h: _AMSGRAD[h["variant"]], {**_MOMENTS, "variant": "optax"}),
    "nadam": Direction(
        lambda h: _NADAM, {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "momentum_decay": 4e-3}
    ),
    "nadamw": Direction(
        lambda h: "(β₁m + (1−β₁)g)/(1−β₁ᵗ)/(√v̂ + ε)", {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
    ),
    "floored_adam": Direction(lambda h: "m̂/max(√v̂, ε)", {"b1": 0.9, "b2": 0.999, "eps": 1e-8}),
    "radam": Direction(_radam, {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_placement": "after"}),
    "adan": Direction(
        lambda h: "(m̂ + β₂ v̂)/(√n̂ + ε), v of Δ = g_t − g_(t−1), n of (g + β₂ Δ)²",
        {"b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8},
    ),
    "adamax": Direction(_adamax, {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_in_max": True}),
    "momentum": Direction(_momentum, _BUFFER),
    "rmsprop": Direction(
        _rmsprop, {"decay": 0.9, "eps": 1e-8, "eps_in_sqrt": False, "centered": False, **_BUFFER}
    ),
    "adagrad": Direction(
        _adagrad,
        {"initial_accumulator_value": 0.0, "eps": 1e-10, "eps_in_sqrt": False, "lr_decay": 0.0},
    ),
    "adadelta": Direction(lambda h: "g √(mean(u²) + ε)/√(mean(g²) + ε)", {"rho": 0.9, "eps": 1e-6}),
    "lion": Direction(lambda h: "sign(β₁m + (1−β₁)g)", {"b1": 0.9, "b2": 0.99}),
    **{
        name: Direction(lambda h, name=name: f"that of {name}", numbers)
        for name, numbers in OPTAX_STEPS.items()
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """What one optimizer of one library does, for one setting of its options.

    Example:
        >>> from decoupled_wd import conventions
        >>> adamw = next(c for c in conventions.CONVENTIONS if c.name == "pytorch.AdamW")
        >>> adamw.title, adamw.form, str(adamw.unit)
        ('pytorch.AdamW(amsgrad=False)', 'first', 'a w')
        >>> adamw.formula()
        'p ← (1 − d) p, p ← p − a u; d = a w; u = m̂/(√v̂ + ε)'
    """

    name: str
    """Library and optimizer, as its users know them: "pytorch.AdamW"."""
    direction: str
    """Which of `DIRECTIONS` its step is; "own" where it is none of them."""
    form: Form
    """How the decay is applied."""
    unit: Unit | None
    """The powers in d = w A^i eta^j; None where the decay reads more than rates: see `note`."""
    arguments: Mapping[str, str | tuple[str, ...]]
    """Its arguments, and this library's word for each: `learning_rate`, `weight_decay`, numbers of
    the direction. A tuple is an argument that holds several, like PyTorch's `betas`."""
    defaults: Mapping[str, Any]
    """Its arguments' defaults. An argument that is not here must be given."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The arguments, and their values, with which this record is meant: {"amsgrad": True}."""
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Numbers of the direction that it fixes and has no argument for."""
    inert: tuple[str, ...] = ()
    """Arguments that change no parameter: speed, memory, names."""
    reference: str = "the learning rate that the optimizer was built with"
    """What A is."""
    reference_argument: str | None = None
    """The argument that replaces the learning rate as A, where it is given."""
    first_step: int = 0
    """What its schedules call the first step."""
    normalizer: Callable[[Mapping[str, Any]], Any] | None = None
    """What w is multiplied by before anything else, of its arguments."""
    normalizer_arguments: tuple[str, ...] = ()
    """The arguments that `normalizer` reads."""
    also: str = ""
    """What else decides how much a weight loses, a gate or an average: no half-life follows from d
    alone then, and a conversion carries the number and not this."""
    note: str = ""
    """What a reader should know, a defect first of all."""
    source: str = ""
    """Where this was read, or run."""

    @property
    def library(self) -> str:
        """The part of the name before the last dot."""
        return self.name.rpartition(".")[0]

    @property
    def title(self) -> str:
        """The name and the options."""
        options = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"{self.name}({options})" if options else self.name

    @property
    def settable(self) -> set[str]:
        """This library's words for what its arguments set."""
        words = self.arguments.values()
        return {word for x in words for word in ([x] if isinstance(x, str) else x)}

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the direction, where no argument sets them."""
        defaults = DIRECTIONS[self.direction].defaults if self.direction in DIRECTIONS else {}
        return {**defaults, **self.fixed}

    def formula(self, numbers: Mapping[str, Any] | None = None) -> str:
        """The update of a parameter p, and what the decay d is; without numbers, for any of them."""
        if numbers is None:
            settable = {
                w: self.defaults.get(x) for x, w in self.arguments.items() if isinstance(w, str)
            }
            numbers = {**settable, **({"momentum": "any"} if "momentum" in settable else {})}
        numbers = {**self.numbers, **numbers}
        known = self.direction in DIRECTIONS
        u = DIRECTIONS[self.direction].formula(numbers) if known else "its own"
        step = "u" if numbers.get("learning_rate_in_buffer") else "a u"
        update = {
            "coupled": f"g ← g + w p, p ← p − {step}",
            "parallel": f"p ← p − {step} − d p",
            "first": f"p ← (1 − d) p, p ← p − {step}",
            "after": f"p ← (1 − d)(p − {step})",
            "proximal": f"p ← (p − {step})/(1 + d)",
        }[self.form]
        decay = "" if self.form == "coupled" else f"; d = {self.unit or 'its own'}"
        return f"{update}{decay}; u = {u}"
