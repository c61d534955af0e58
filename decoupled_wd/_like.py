"""The optimizer that reproduces another library's."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, get_args

import jax.numpy as jnp
import optax

from decoupled_wd import _check
from decoupled_wd._alias import descend, place_decay
from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._directions import (
    scale_by_adagrad,
    scale_by_adamax,
    scale_by_adan,
    scale_by_floored_adam,
    scale_by_nadam,
    scale_by_nadamw,
    scale_by_radam,
)
from decoupled_wd._rate import MUCH, Coupling
from decoupled_wd._scaling import (
    scale_by_adam,
    scale_by_amsgrad,
    scale_by_lion,
    scale_by_schedule,
    trace,
)
from decoupled_wd._typing import Mask, NumberOrSchedule
from decoupled_wd.conventions._convert import decay_per_step
from decoupled_wd.conventions._paper import COUPLINGS
from decoupled_wd.conventions._read import Terms, combine, read
from decoupled_wd.conventions._record import LEARNING_RATE, OPTAX_STEPS, PER_STEP
from decoupled_wd.conventions._rule import Rule, to_parallel
from decoupled_wd.schedules import product


def like(
    convention: str,
    *,
    schedule: NumberOrSchedule | None = None,
    mask: Mask = None,
    **arguments: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""Build the optimizer that reproduces another library's, step by step.

    $$p \leftarrow p - a_t u - d_t p$$

    with the direction u, the rate $a_t = A \eta_t$ and the decay per step $d_t$ of that library: what
    its `weight_decay` is per is what it is there.

    Args:
        convention: library and optimizer, such as "pytorch.AdamW", and perhaps options in
            parentheses, as in `convert`.
        schedule: eta_t, what multiplies the learning rate there, and no learning rate itself: what a
            PyTorch user gives to `LambdaLR`, written with `jax.numpy`. A number, or a callable of the
            step as that library counts it: from 0, unless docs/conventions.md says from 1. None is 1.
        mask: which leaves decay, as in `adamw`.
        arguments: that library's arguments, in its own words and with its own defaults. For
            `optax.inject_hyperparams`, which takes functions of named arguments, write one.

    Returns:
        A finished optimizer, made of this library's parts; Optax's own, where it is one of Optax
        whose decay is no term beside the step.

    Raises:
        TypeError: an argument that the optimizer does not have, that is missing or of the wrong type.
        ValueError: a convention that is not known, or whose step cannot be built from Optax's parts;
            a decay that removes a whole weight in a step.

    Warns:
        UserWarning: a step removes 0.5 % or more of a weight.

    Example:
        PyTorch multiplies the decay by the learning rate: a step removes 0.1 * 0.04.

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx = dwd.like("pytorch.AdamW", lr=0.1, weight_decay=0.04)
        >>> theta, g = jnp.array([1.0]), jnp.array([0.0])
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 6)
        -0.004

    Source: docs/conventions.md; tests/libraries compares each with the library itself.
    """
    terms = read(convention, schedule, arguments)
    record = terms.convention
    if record.name in _OPTAX_ITSELF:
        return _optax_itself(terms, mask)
    if record.direction not in _DIRECTIONS or (record.unit is None and record.form != "coupled"):
        raise ValueError(
            f"`convention` is {record.title!r}, whose step is not built here. {record.note} "
            "`decoupled_wd.convert` tells its decay; `extend_with_decoupled_weight_decay` adds one "
            "to any Optax optimizer."
        )
    eta = terms.schedule
    if callable(terms.learning_rate) and record.unit not in (None, LEARNING_RATE):
        raise TypeError(
            f"`learning_rate` is a callable, and {record.title} needs to know its peak: pass that, "
            "and schedule=multiplier."
        )
    _check_amount(terms)
    numbers = dict(terms.numbers)
    inside = numbers.pop("learning_rate_in_buffer", False)
    direction = _DIRECTIONS[record.direction](numbers)
    buffer = [_momentum(numbers)] if "momentum" in numbers else []
    if record.form == "coupled":
        penalty = add_l2_to_grad(terms.weight_decay, mask)
        rates: dict[str, Any] = {"learning_rate": terms.learning_rate, "schedule": eta}
        if inside:
            step = scale_by_schedule(product(**rates))
            return optax.chain(penalty, direction, step, *buffer, optax.scale(-1.0))
        return optax.chain(penalty, direction, *buffer, descend(**rates))
    rule = to_parallel(
        Rule(record.form, record.unit or PER_STEP, terms.learning_rate, eta, terms.weight_decay, {})
    )
    if inside:
        step = scale_by_schedule(product(learning_rate=rule.learning_rate, schedule=rule.schedule))
        decay = decoupled_weight_decay(rule.removed(), mask)
        return optax.chain(direction, step, *buffer, decay, optax.scale(-1.0))
    couplings = {COUPLINGS[coupling]: coupling for coupling in get_args(Coupling)}
    if rule.unit not in couplings:
        rule = rule.in_unit(PER_STEP)
    return optax.chain(
        direction,
        *buffer,
        place_decay(
            rule.learning_rate, rule.weight_decay, mask, rule.schedule, couplings[rule.unit]
        ),
    )


def _check_amount(terms: Terms) -> None:
    """As `check_decay` does, in the convention's own words."""
    removed = _check.concrete(decay_per_step(terms))
    if removed is None or removed < MUCH:
        return
    record = terms.convention
    message = (
        f"`weight_decay` of {record.name} makes d = {record.unit or 'a w'} per step, which removes "
        f"{removed:.2%} of every decayed weight at multiplier 1 of the schedule. If the number comes "
        f"from elsewhere, `decoupled_wd.convert` carries it to {record.name}."
    )
    if removed >= 1:
        raise ValueError(message)
    _check.warn(message)


def _optax_itself(terms: Terms, mask: Mask) -> optax.GradientTransformationExtraArgs:
    """The whole optimizer of Optax, where its decay is no term beside the step."""
    name = terms.convention.name
    if mask is not None:
        raise ValueError(
            f"`mask` is given, and {name} is built as Optax has it, which takes none of this library's "
            "masks. Leave `mask` out, or call the alias itself with a mask of Optax."
        )
    rate = combine(operator.mul, terms.learning_rate, terms.schedule)
    alias = operator.attrgetter(name.removeprefix("optax."))(optax)
    return optax.with_extra_args_support(alias(**{**terms.given, "learning_rate": rate}))


def _optax_step(name: str) -> Callable[[Mapping[str, Any]], optax.GradientTransformation]:
    """The step of an alias of Optax that is linear in its learning rate: at 1, upwards."""
    alias = operator.attrgetter(name.removeprefix("optax."))(optax)
    return lambda numbers: optax.chain(alias(1.0, weight_decay=0.0, **numbers), optax.scale(-1.0))


def _momentum(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    """The buffer of SGD, with dampening."""
    beta, damping = numbers["momentum"], numbers["dampening"]
    # A Python 0 is how PyTorch says None. An array may be another number in the next call.
    if isinstance(beta, (int, float)) and beta == 0:
        return optax.identity()
    buffer = trace(beta, numbers["nesterov"], None)
    if isinstance(damping, (int, float)) and damping == 0:
        return buffer
    first = 1.0 - damping if numbers["dampen_first"] else 1.0
    damped = scale_by_schedule(lambda step: jnp.where(step == 0, first, 1.0 - damping))
    return optax.chain(damped, buffer)


def _rmsprop(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    scale = optax.scale_by_stddev if numbers["centered"] else optax.scale_by_rms
    return scale(numbers["decay"], numbers["eps"], eps_in_sqrt=numbers["eps_in_sqrt"])


def _adagrad(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    fall = numbers["lr_decay"]
    return optax.chain(
        scale_by_adagrad(
            numbers["initial_accumulator_value"], numbers["eps"], numbers["eps_in_sqrt"]
        ),
        scale_by_schedule(
            lambda step: 1.0 / (1.0 + jnp.asarray(fall, float) * jnp.asarray(step, float))
        ),
    )


_DIRECTIONS: dict[str, Callable[[Mapping[str, Any]], optax.GradientTransformation]] = {
    "adam": lambda numbers: scale_by_adam(**numbers),
    "amsgrad": lambda numbers: scale_by_amsgrad(**numbers),
    "lion": lambda numbers: scale_by_lion(**numbers, mu_dtype=None),
    "momentum": lambda numbers: optax.identity(),
    "nadam": lambda numbers: scale_by_nadam(**numbers),
    "nadamw": lambda numbers: scale_by_nadamw(**numbers),
    "floored_adam": lambda numbers: scale_by_floored_adam(**numbers),
    "radam": lambda numbers: scale_by_radam(**numbers),
    "adan": lambda numbers: scale_by_adan(**numbers),
    "rmsprop": _rmsprop,
    "adamax": lambda numbers: scale_by_adamax(**numbers),
    "adagrad": _adagrad,
    "adadelta": lambda numbers: optax.scale_by_adadelta(**numbers),
    **{name: _optax_step(name) for name in OPTAX_STEPS},
}
_OPTAX_ITSELF = (
    "optax.adafactor", "optax.lamb", "optax.lars", "optax.novograd", "optax.contrib.muon",
    "optax.contrib.momo", "optax.contrib.momo_adam", "optax.contrib.prodigy",
    "optax.contrib.dadapt_adamw", "optax.contrib.schedule_free_adamw",
    "optax.contrib.schedule_free_sgd", "optax.contrib.madgrad", "optax.contrib.cocob",
    "optax.contrib.dog", "optax.contrib.dowg",
)  # fmt: skip
