r"""Choosing the number: decay from budgets and times, and from one run to another, with units.

| from, to | function | inverse |
|---|---|---|
| normalized decay, decay | `normalized_weight_decay` | `normalize_weight_decay` |
| decay, timescale | `timescale` | `weight_decay_of_timescale` |
| decay, half-life | `half_life` | `weight_decay_of_half_life` |
| one run, another | `weight_decay_at_...` and the like | from and to swapped |

`suggest` shows what the published rules give for a run. All take traced numbers. Budgets and what goes
from one run to another give Python numbers for Python numbers, and otherwise the default float dtype,
which times and their inverses always give.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp

from decoupled_wd import _check
from decoupled_wd._tree import default_float
from decoupled_wd._typing import Number

__all__ = [
    "steps_per_epoch",
    "normalized_weight_decay",
    "normalize_weight_decay",
    "timescale",
    "weight_decay_of_timescale",
    "half_life",
    "weight_decay_of_half_life",
    "weight_decay_at_learning_rate",
    "weight_decay_at_batch_size",
    "weight_decay_at_dataset_size",
    "timescale_at_tokens_per_parameter",
    "learning_rate_at_width",
    "weight_decay_at_width",
    "Suggestion",
    "Suggestions",
    "suggest",
]

# Budgets


@overload
def steps_per_epoch(batch_size: int, dataset_size: int) -> int: ...
@overload
def steps_per_epoch(batch_size: Number, dataset_size: Number) -> Number: ...
def steps_per_epoch(batch_size: Number, dataset_size: Number) -> Number:
    """Count the batches of an epoch, the last one possibly short: ceil(dataset_size / batch_size).

    Args:
        batch_size: b, an integer, 1 or more.
        dataset_size: B, an integer, 1 or more.

    Returns:
        Steps per epoch, an integer.

    Raises:
        TypeError: a size that is not an integer.
        ValueError: a size below 1, a batch that is larger than the dataset.

    Example:
        >>> import decoupled_wd as dwd
        >>> dwd.steps_per_epoch(128, 50_000)
        391
    """
    _check_sizes(batch_size, dataset_size)
    return _batches(_check.as_integer(batch_size), _check.as_integer(dataset_size))


def _batches(batch_size: Any, dataset_size: Any) -> Any:
    return (dataset_size - 1) // batch_size + 1


def normalized_weight_decay(
    normalized_weight_decay: Number, batch_size: Number, dataset_size: Number, epochs: Number
) -> Number:
    r"""Convert the paper's normalized decay to a decay per step, for a budget of epochs.

    $$\lambda = \lambda_{norm} \sqrt{\frac{b}{B T}}$$

    Args:
        normalized_weight_decay: $\lambda_{norm}$, the decay if one batch were all there is.
        batch_size: b, an integer, 1 or more.
        dataset_size: B, training points, an integer, 1 or more.
        epochs: T, length of training, or of the current restart cycle; positive.

    Returns:
        $\lambda$, per step at multiplier 1: `weight_decay` under `coupling="schedule"`.

    Raises:
        TypeError: a size that is not an integer, a callable where a number is meant.
        ValueError: a size below 1, a batch that is larger than the dataset, a negative decay, an
            `epochs` of 0 or less.

    Example:
        CIFAR-10, and 25.6 times as much data, which ImageNet32x32 is:

        >>> import decoupled_wd as dwd
        >>> for epochs in (1, 100, 1800):
        ...     print(f"{dwd.normalized_weight_decay(0.025, 128, 50_000, epochs):.4e}")
        1.2649e-03
        1.2649e-04
        2.9814e-05
        >>> cifar = dwd.normalized_weight_decay(0.025, 128, 50_000, 1)
        >>> imagenet = dwd.normalized_weight_decay(0.025, 128, 1_280_000, 1)
        >>> round(cifar / imagenet, 2)  # the root of 25.6
        5.06

    Source: Loshchilov and Hutter, arXiv 1711.05101, appendix B.1, which calls it "one possibility
    informed by few experiments".
    """
    _check.check_number("normalized_weight_decay", normalized_weight_decay, minimum=0.0)
    _check_budget(batch_size, dataset_size, epochs)
    return decay_of_budget(normalized_weight_decay, batch_size, dataset_size, epochs)


def normalize_weight_decay(
    weight_decay: Number, batch_size: Number, dataset_size: Number, epochs: Number
) -> Number:
    r"""Convert a decay per step to the paper's normalized decay: undo `normalized_weight_decay`.

    $$\lambda_{norm} = \lambda \sqrt{\frac{B T}{b}}$$

    Args:
        weight_decay: $\lambda$, per step at multiplier 1; 0 or more. A decay per unit of learning rate
            is to be multiplied by the learning rate first.
        batch_size: b, an integer, 1 or more.
        dataset_size: B, training points, an integer, 1 or more.
        epochs: T, length of training, or of the current restart cycle; positive.

    Returns:
        $\lambda_{norm}$, the decay if one batch were all there is.

    Raises:
        TypeError: a size that is not an integer, a callable where a number is meant.
        ValueError: a size below 1, a batch that is larger than the dataset, a negative decay, an
            `epochs` of 0 or less.

    Example:
        >>> import decoupled_wd as dwd
        >>> dwd.normalize_weight_decay(0.001, 100, 10_000, 4)  # 0.001 times the root of 400 steps
        0.02

    Source: arXiv 1711.05101, appendix B.1, solved for the normalized decay.
    """
    _check.check_number("weight_decay", weight_decay, minimum=0.0)
    _check_budget(batch_size, dataset_size, epochs)
    return _number(weight_decay) / decay_of_budget(1.0, batch_size, dataset_size, epochs)


def decay_of_budget(
    normalized_weight_decay: Number, batch_size: Number, dataset_size: Number, epochs: Number
) -> Number:
    """`normalized_weight_decay` of numbers that are checked already, or arrays of them."""
    lam, b, n, t = map(_number, (normalized_weight_decay, batch_size, dataset_size, epochs))
    return lam * (b / (n * t)) ** 0.5


def _check_budget(batch_size: Number, dataset_size: Number, epochs: Number) -> None:
    _check_sizes(batch_size, dataset_size)
    _check.check_positive("epochs", epochs)


def _check_sizes(batch_size: Number, dataset_size: Number) -> None:
    _check.check_integer("batch_size", batch_size, minimum=1)
    _check.check_integer("dataset_size", dataset_size, minimum=1)
    _check_order(batch_size, dataset_size)


def _check_order(batch_size: Number, dataset_size: Number) -> None:
    batch, data = _check.concrete(batch_size), _check.concrete(dataset_size)
    if batch is not None and data is not None and batch > data:
        raise ValueError(
            f"`batch_size` is {batch_size} and `dataset_size` is {dataset_size}, and a batch is at most "
            "the dataset. Pass them the other way round, or both in one unit."
        )


def _number(x: Number) -> Any:
    """Free of the user's dtype."""
    return x if isinstance(x, (int, float)) else jnp.asarray(x, default_float())


# Times


def timescale(
    weight_decay: Number, steps_per_epoch: Number = 1, *, learning_rate: Number = 1.0
) -> jax.Array:
    r"""Turn a decay into the length of its memory: how many of the last updates the weights hold.

    $$\tau = \frac{1}{\alpha \lambda n}$$

    Weights under decay are a moving average of $-u/\lambda$ with rate $\lambda$, u the updates: what
    is older than some $\tau$ is forgotten. That is the number to keep when the batch size changes.

    Args:
        weight_decay: $\lambda$, per step, or with `learning_rate` per unit of it; 0 or more, and less
            than a whole weight per step. 0 is never forgotten: infinity.
        steps_per_epoch: n; with the default $\tau$ is in steps, and with the steps of an epoch in
            epochs. Positive.
        learning_rate: $\alpha$, where `weight_decay` is that of `coupling="learning_rate"`; positive.

    Returns:
        $\tau$, a scalar in the default float dtype.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a decay below 0 or of a whole weight, a `steps_per_epoch` or `learning_rate` of 0
            or less.

    Example:
        >>> import decoupled_wd as dwd
        >>> float(dwd.timescale(0.125)), float(dwd.timescale(0.125, steps_per_epoch=4))
        (8.0, 2.0)
        >>> float(dwd.timescale(0.5, learning_rate=0.25))
        8.0

    Source: Wang and Aitchison, arXiv 2405.13698, whose $\tau_{iter}$ and $\tau_{epoch}$ these are.
    """
    return times_of_decay(*_decay_and_epoch(weight_decay, steps_per_epoch, learning_rate))[0]


def weight_decay_of_timescale(
    timescale: Number, steps_per_epoch: Number = 1, *, learning_rate: Number = 1.0
) -> jax.Array:
    r"""Choose the decay by how many of the last updates the weights shall hold: undo `timescale`.

    $$\lambda = \frac{1}{\alpha n \tau}$$

    Args:
        timescale: $\tau$, more than one step; in epochs where `steps_per_epoch` is given, and in whole
            runs where that is all the steps of the run. Wang and Aitchison advise one epoch to all
            the epochs of the run.
        steps_per_epoch: n; positive.
        learning_rate: $\alpha$, for a decay per unit of it; positive.

    Returns:
        $\lambda$, a scalar in the default float dtype: per step, the `weight_decay` of
        `coupling="schedule"` and `"none"`; with `learning_rate` that of `"learning_rate"`.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a number of 0 or less, a timescale of a step or less.

    Example:
        >>> import decoupled_wd as dwd
        >>> float(dwd.weight_decay_of_timescale(2, steps_per_epoch=4))
        0.125
        >>> float(dwd.weight_decay_of_timescale(2, steps_per_epoch=4, learning_rate=0.25))
        0.5

    Source: Wang and Aitchison, arXiv 2405.13698.
    """
    _check.check_positive("timescale", timescale)
    n, alpha = _epoch_and_rate(steps_per_epoch, learning_rate)
    tau, epoch = _check.concrete(timescale), _check.concrete(steps_per_epoch)
    if tau is not None and epoch is not None and tau * epoch <= 1:
        raise ValueError(
            f"`timescale` is {timescale}, which with steps_per_epoch={steps_per_epoch} is "
            f"{tau * epoch:g} steps, and more than one is needed: in one step decay would remove the "
            "whole weight. In epochs, pass the `steps_per_epoch` too."
        )
    return 1 / (alpha * n * jnp.asarray(timescale, default_float()))


def half_life(
    weight_decay: Number, steps_per_epoch: Number = 1, *, learning_rate: Number = 1.0
) -> jax.Array:
    r"""Turn a decay into the time in which a weight without gradient loses half of its size.

    $$h = \frac{\ln 2}{-n \ln(1 - \alpha \lambda)}$$

    Args:
        weight_decay: $\lambda$, per step, or with `learning_rate` per unit of it, as in `timescale`.
        steps_per_epoch: n; with the default h is in steps, and with the steps of an epoch in epochs.
            Positive.
        learning_rate: $\alpha$, where `weight_decay` is that of `coupling="learning_rate"`; positive.

    Returns:
        h, a scalar in the default float dtype; infinity without decay.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a decay below 0 or of a whole weight, a `steps_per_epoch` or `learning_rate` of 0
            or less.

    Example:
        >>> import decoupled_wd as dwd
        >>> float(dwd.half_life(0.5)), float(dwd.half_life(0.5, steps_per_epoch=4))
        (1.0, 0.25)

    Source: $(1 - \alpha \lambda)^h = 1/2$.
    """
    return times_of_decay(*_decay_and_epoch(weight_decay, steps_per_epoch, learning_rate))[1]


def weight_decay_of_half_life(
    half_life: Number, steps_per_epoch: Number = 1, *, learning_rate: Number = 1.0
) -> jax.Array:
    r"""Choose the decay by when a weight without gradient shall be half as large: undo `half_life`.

    $$\lambda = \frac{1 - 2^{-1 / (n h)}}{\alpha}$$

    Args:
        half_life: h; in epochs where `steps_per_epoch` is given. Positive.
        steps_per_epoch: n; positive.
        learning_rate: $\alpha$, for a decay per unit of it; positive.

    Returns:
        $\lambda$, a scalar in the default float dtype: per step, the `weight_decay` of
        `coupling="schedule"` and `"none"`; with `learning_rate` that of `"learning_rate"`.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a number of 0 or less.

    Example:
        >>> import decoupled_wd as dwd
        >>> float(dwd.weight_decay_of_half_life(1)), float(dwd.weight_decay_of_half_life(0.5))
        (0.5, 0.75)
        >>> float(dwd.weight_decay_of_half_life(0.25, steps_per_epoch=4, learning_rate=0.25))
        2.0

    Source: $(1 - \alpha \lambda)^h = 1/2$, solved for $\lambda$.
    """
    _check.check_positive("half_life", half_life)
    n, alpha = _epoch_and_rate(steps_per_epoch, learning_rate)
    return -jnp.expm1(-math.log(2) / (n * jnp.asarray(half_life, default_float()))) / alpha


def times_of_decay(lam: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`timescale` and `half_life` of a decay per step, of numbers that are checked already."""
    return 1 / (lam * n), math.log(2) / (-jnp.log1p(-lam) * n)


def _decay_and_epoch(
    weight_decay: Number, steps_per_epoch: Number, learning_rate: Number
) -> tuple[jax.Array, jax.Array]:
    n, alpha = _epoch_and_rate(steps_per_epoch, learning_rate)
    rate = _check.concrete(learning_rate)
    whole = math.inf if rate is None else 1 / rate
    _check.check_number("weight_decay", weight_decay, minimum=0.0, below=whole)
    return alpha * jnp.asarray(weight_decay, default_float()), n


def _epoch_and_rate(steps_per_epoch: Number, learning_rate: Number) -> tuple[jax.Array, jax.Array]:
    _check.check_positive("steps_per_epoch", steps_per_epoch)
    _check.check_positive("learning_rate", learning_rate)
    return jnp.asarray(steps_per_epoch, default_float()), jnp.asarray(
        learning_rate, default_float()
    )


# From one run to another


def weight_decay_at_learning_rate(
    weight_decay: Number, from_learning_rate: Number, to_learning_rate: Number
) -> Number:
    r"""Carry a decay per unit of learning rate to another rate, so that the decay per step stays.

    $$\lambda' = \lambda \frac{\alpha}{\alpha'}$$

    Timescale and half-life stay with it. This is for `coupling="learning_rate"` and `"corrected"`
    alone: under `"schedule"`, the default of this library, and `"none"` the decay is per step, and
    the same number serves at every learning rate.

    Args:
        weight_decay: $\lambda$ of `coupling="learning_rate"`, per unit of learning rate; 0 or more.
        from_learning_rate: $\alpha$, that it was found at; positive.
        to_learning_rate: $\alpha'$, that it is wanted at; positive.

    Returns:
        $\lambda'$, in the unit of $\lambda$.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a negative decay, a learning rate of 0 or less.

    Example:
        A network four times as wide, whose matrices learn at a quarter of the rate:

        >>> from decoupled_wd import hyperparams
        >>> to_rate = hyperparams.learning_rate_at_width(0.5, 256, 1024)
        >>> to_rate, hyperparams.weight_decay_at_learning_rate(0.25, 0.5, to_rate)
        (0.125, 1.0)

    Source: Kosson et al., arXiv 2510.19093 (abstract), for transfer over width; of the rules for width
    `weight_decay_at_width` is the other.
    """
    lam, ratio = _value_and_ratio(
        "weight_decay", weight_decay,
        from_learning_rate=from_learning_rate, to_learning_rate=to_learning_rate,
    )  # fmt: skip
    return lam / ratio


def weight_decay_at_batch_size(
    weight_decay: Number, from_batch_size: Number, to_batch_size: Number
) -> Number:
    r"""Keep the timescale in epochs when the batch size changes.

    $$\lambda' = \lambda \frac{b'}{b}$$

    Args:
        weight_decay: $\lambda$, in either unit; 0 or more. Per step (`coupling="schedule"`) this is all,
            whatever the learning rate does. Per unit of it (`"learning_rate"`) the learning rate
            is to stay; where it changes too, `weight_decay_at_learning_rate` comes next.
        from_batch_size: b, that it was found at; positive.
        to_batch_size: b', that it is wanted at; positive.

    Returns:
        $\lambda'$, in the unit of $\lambda$.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a negative decay, a size of 0 or less.

    Example:
        >>> from decoupled_wd import hyperparams
        >>> hyperparams.weight_decay_at_batch_size(0.125, 256, 1024)
        0.5

        Per unit of a learning rate that grows as the root of the batch size:

        >>> hyperparams.weight_decay_at_learning_rate(0.5, 0.001, 0.002)
        0.25

    Source: Wang and Aitchison, arXiv 2405.13698; Bergsma et al., arXiv 2505.13738 (abstracts).
    """
    lam, ratio = _value_and_ratio(
        "weight_decay", weight_decay, from_batch_size=from_batch_size, to_batch_size=to_batch_size
    )
    return lam * ratio


def weight_decay_at_dataset_size(
    weight_decay: Number, from_dataset_size: Number, to_dataset_size: Number
) -> Number:
    r"""Keep the timescale in epochs when there is more data, or less.

    $$\lambda' = \lambda \frac{B}{B'}$$

    Args:
        weight_decay: $\lambda$, per step; or per unit of a learning rate that stays, as in
            `weight_decay_at_batch_size`. 0 or more.
        from_dataset_size: B, that it was found at; positive.
        to_dataset_size: B', that it is wanted at; positive.

    Returns:
        $\lambda'$, in the unit of $\lambda$.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a negative decay, a size of 0 or less.

    Example:
        >>> from decoupled_wd import hyperparams
        >>> hyperparams.weight_decay_at_dataset_size(0.5, 50_000, 200_000)
        0.125

    Source: Wang and Aitchison, arXiv 2405.13698 (abstract).
    """
    lam, ratio = _value_and_ratio(
        "weight_decay", weight_decay,
        from_dataset_size=from_dataset_size, to_dataset_size=to_dataset_size,
    )  # fmt: skip
    return lam / ratio


def timescale_at_tokens_per_parameter(
    timescale: Number, from_tokens_per_parameter: Number, to_tokens_per_parameter: Number
) -> Number:
    r"""Shorten the timescale, as a part of the run, for a run of more tokens per parameter.

    $$\tau' = \tau \left( \frac{r'}{r} \right)^{-0.527}$$

    The law is $\tau = c \, r^{-0.527}$. Its coefficient c is yours to measure: it is the timescale at
    `from_tokens_per_parameter=1`.

    Args:
        timescale: $\tau$, the best of the run it was found in, as a part of that run: where $\tau$ is
            in steps, divided by all the steps of the run. Positive.
        from_tokens_per_parameter: r, tokens seen over parameters, of that run; positive.
        to_tokens_per_parameter: r', of the run it is wanted for; positive.

    Returns:
        $\tau'$, a part of the run. `weight_decay_of_timescale`, given all the steps of the run as
        `steps_per_epoch`, makes a decay of it.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a number of 0 or less.

    Example:
        Sixteen times the tokens per parameter; $16^{-0.527}$ is a little below a quarter:

        >>> from decoupled_wd import hyperparams
        >>> round(hyperparams.timescale_at_tokens_per_parameter(1.0, 20, 320), 3)
        0.232

    Source: Bergsma et al., arXiv 2505.13738; the exponent from a secondary source.
    """
    _check.check_positive("timescale", timescale)
    tau, ratio = _value_and_ratio(
        "timescale", timescale,
        from_tokens_per_parameter=from_tokens_per_parameter,
        to_tokens_per_parameter=to_tokens_per_parameter,
    )  # fmt: skip
    return tau * ratio**-0.527


def learning_rate_at_width(learning_rate: Number, from_width: Number, to_width: Number) -> Number:
    r"""Scale the learning rate of the matrices of a network whose width changes.

    $$\alpha' = \alpha \frac{d}{d'}$$

    For the matrices of an Adam-like optimizer; vectors keep their learning rate.

    Args:
        learning_rate: $\alpha$, per step; 0 or more.
        from_width: d, that it was found at; positive.
        to_width: d', that it is wanted at; positive.

    Returns:
        $\alpha'$, per step.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a negative learning rate, a width of 0 or less.

    Example:
        >>> from decoupled_wd import hyperparams
        >>> hyperparams.learning_rate_at_width(0.5, 256, 1024)
        0.125

    Source: Fan et al., arXiv 2510.15262 (abstract).
    """
    alpha, ratio = _value_and_ratio(
        "learning_rate", learning_rate, from_width=from_width, to_width=to_width
    )
    return alpha / ratio


def weight_decay_at_width(
    weight_decay: Number,
    from_width: Number,
    to_width: Number,
    *,
    coupling: Literal["schedule", "learning_rate"] = "schedule",
) -> Number:
    r"""Scale the decay of the matrices of a network whose width changes, by the root rule.

    $$\lambda' = \lambda \sqrt{\frac{d}{d'}} \text{ per step}, \qquad
    \lambda' = \lambda \sqrt{\frac{d'}{d}} \text{ per unit of learning rate}$$

    Both are one rule and go with `learning_rate_at_width`: the second times the learning rate, which
    falls as $1/d'$, is the first. Vectors are not decayed. Another rule keeps the decay per step:
    there a $\lambda$ per step stays, and `weight_decay_at_learning_rate` carries one per unit.

    Args:
        weight_decay: $\lambda$, in the unit of `coupling`; 0 or more.
        from_width: d, that it was found at; positive.
        to_width: d', that it is wanted at; positive.
        coupling: what $\lambda$ is per: `"schedule"` a step, as in this library unless it is told
            otherwise (and under `"none"`); `"learning_rate"` a unit of learning rate, as in PyTorch
            and Optax (and under `"corrected"`).

    Returns:
        $\lambda'$, in the unit of $\lambda$.

    Raises:
        TypeError: not a number, or one of 16 bits; no string for `coupling`.
        ValueError: a negative decay, a width of 0 or less, another `coupling`.

    Example:
        The same decay in both units: $\lambda$ per step is the learning rate times the one per unit.

        >>> from decoupled_wd import hyperparams
        >>> hyperparams.weight_decay_at_width(0.125, 256, 1024)
        0.0625
        >>> to_rate = hyperparams.learning_rate_at_width(0.5, 256, 1024)
        >>> per_rate = 0.125 / 0.5
        >>> to_rate * hyperparams.weight_decay_at_width(per_rate, 256, 1024, coupling="learning_rate")
        0.0625

    Source: Fan et al., arXiv 2510.15262 (abstract), for the matrices of AdamW, in the second form.
    """
    _check.check_option("coupling", coupling, ("schedule", "learning_rate"))
    lam, ratio = _value_and_ratio(
        "weight_decay", weight_decay, from_width=from_width, to_width=to_width
    )
    return lam * ratio ** (0.5 if coupling == "learning_rate" else -0.5)


def _value_and_ratio(name: str, value: Number, **sizes: Number) -> tuple[Any, Any]:
    """A number, and the second size over the first."""
    _check.check_number(name, value, minimum=0.0)
    for size_name, size in sizes.items():
        _check.check_positive(size_name, size)
    start, end = map(_number, sizes.values())
    return _number(value), end / start


# What the published rules give

ReadIn = Literal["source", "abstract", "secondary source", "memory"]


class Suggestion(NamedTuple):
    """What one published rule gives for a run, and what that amounts to.

    Example:
        >>> import decoupled_wd as dwd
        >>> row = dwd.suggest(learning_rate=0.01, steps=2500).rows[0]
        >>> row.rule, row.read_in
        ('normalized decay of 0.025', 'source')
        >>> round(row.per_step, 6), round(row.per_learning_rate, 6)  # 0.025 / sqrt(2500), over 0.01
        (0.0005, 0.05)
    """

    rule: str
    weight_decay: Number
    """The number, in the unit of `coupling`."""
    coupling: Literal["schedule", "learning_rate"]
    """The coupling of the rule's authors."""
    per_step: Number
    """What to pass under `coupling="schedule"` and `"none"`: the decay of a step at multiplier 1."""
    per_learning_rate: Number | None
    """What to pass under `coupling="learning_rate"` and `"corrected"`; None if the learning rate is
    not known."""
    half_life: jax.Array
    """Steps without gradient in which a weight halves, at multiplier 1."""
    source: str
    read_in: ReadIn
    """What the rule was read in: how sure it is that this is the rule."""


class Suggestions(NamedTuple):
    """What the published rules give for a run; `str` makes a table of it.

    Example:
        >>> import decoupled_wd as dwd
        >>> run = dwd.suggest(steps=2500)
        >>> [row.rule for row in run.rows]
        ['normalized decay of 0.025', 'normalized decay of 0.05', '1e-4, independent']
        >>> run.left_out[1]
        ('timescale of all epochs, the longest', 'needs learning_rate')
    """

    rows: tuple[Suggestion, ...]
    left_out: tuple[tuple[str, str], ...]
    """Rules that give no number for this run, and why."""

    def __str__(self) -> str:
        head = (
            "rule",
            '"schedule", "none"',
            '"learning_rate", "corrected"',
            "half-life",
            "read in",
        )
        table = [(*head, "source"), *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        left_out = [f"Left out, {name}: {why}." for name, why in self.left_out]
        return "\n".join(["The weight_decay to pass, by coupling:", *lines, _LEGEND, *left_out])


_LEGEND = (
    "* the unit of the rule's authors. Both numbers of a row remove the same in a step at the peak, "
    "where the schedule is 1.\n"
    "half-life: after so many steps at the peak, a weight without gradient is half as large.\n"
    "read in: where the rule was read: in the source itself, in its abstract, in a secondary source, "
    "or nowhere: it is from memory."
)


def _cells(row: Suggestion) -> tuple[str, ...]:
    numbers: dict[str, Any] = {"schedule": row.per_step, "learning_rate": row.per_learning_rate}
    shown = [
        "needs learning_rate"
        if number is None
        else f"{float(number):.4g}{'*' * (coupling == row.coupling)}"
        for coupling, number in numbers.items()
    ]
    return (row.rule, *shown, f"{float(row.half_life):.4g}", row.read_in, row.source)


class _Rule(NamedTuple):
    """A published rule: what it needs, and the decay it gives in the unit of `coupling`."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    """Ways to give what it needs, of which one is enough."""
    coupling: Literal["schedule", "learning_rate"]
    weight_decay: Callable[[SimpleNamespace], Any]
    source: str
    read_in: ReadIn


_EPOCH = (("batch_size", "dataset_size"), ("steps", "epochs"))
_STEPS = (("steps",), ("batch_size", "dataset_size", "epochs"))
_WIDTH = (("learning_rate", "width", "base_width", "base_weight_decay"),)


def _with_rate(needs: tuple[tuple[str, ...], ...], *names: str) -> tuple[tuple[str, ...], ...]:
    return tuple(("learning_rate", *way, *names) for way in needs)


def _normalized(norm: float) -> _Rule:
    return _Rule(
        f"normalized decay of {norm:g}",
        _STEPS,
        "schedule",
        lambda run: decay_of_budget(norm, *_budget(run)),
        "Loshchilov and Hutter, arXiv 1711.05101, appendix B.1",
        "source",
    )


def _budget(run: SimpleNamespace) -> tuple[Any, Any, Any]:
    if hasattr(run, "steps"):
        return 1, run.steps, 1
    return run.batch_size, run.dataset_size, run.epochs


def _steps_of_epoch(run: SimpleNamespace) -> Any:
    if hasattr(run, "batch_size") and hasattr(run, "dataset_size"):
        return _batches(run.batch_size, run.dataset_size)
    return run.steps / run.epochs


def _steps_of_run(run: SimpleNamespace) -> Any:
    return run.steps if hasattr(run, "steps") else _steps_of_epoch(run) * run.epochs


def _power_line(run: SimpleNamespace) -> Number:
    ratio = run.tokens / run.parameters
    part = timescale_at_tokens_per_parameter(run.timescale_coefficient, 1, ratio)
    return 1 / (run.learning_rate * _steps_of_run(run) * part)


def _base_per_learning_rate(run: SimpleNamespace) -> Any:
    if run.base_coupling == "learning_rate":
        return run.base_weight_decay
    base_rate = learning_rate_at_width(run.learning_rate, run.width, run.base_width)
    return run.base_weight_decay / base_rate


_RULES = (
    _normalized(0.025),
    _normalized(0.05),
    _Rule(
        "timescale of one epoch, the shortest",
        _with_rate(_EPOCH),
        "learning_rate",
        lambda run: 1 / (run.learning_rate * _steps_of_epoch(run)),
        "Wang and Aitchison, arXiv 2405.13698",
        "abstract",
    ),
    _Rule(
        "timescale of all epochs, the longest",
        _with_rate(_STEPS),
        "learning_rate",
        lambda run: 1 / (run.learning_rate * _steps_of_run(run)),
        "Wang and Aitchison, arXiv 2405.13698",
        "abstract",
    ),
    _Rule(
        "timescale by tokens per parameter",
        _with_rate(_STEPS, "tokens", "parameters", "timescale_coefficient"),
        "learning_rate",
        _power_line,
        "Bergsma et al., arXiv 2505.13738",
        "secondary source",
    ),
    _Rule(
        "root of the width",
        _WIDTH,
        "learning_rate",
        lambda run: _base_per_learning_rate(run) * (run.width / run.base_width) ** 0.5,
        "Fan et al., arXiv 2510.15262",
        "abstract",
    ),
    _Rule(
        "decay per step kept over width",
        _WIDTH,
        "learning_rate",
        lambda run: _base_per_learning_rate(run) * (run.width / run.base_width),
        "Kosson et al., arXiv 2510.19093",
        "abstract",
    ),
    _Rule(
        "1e-4, independent",
        ((),),
        "schedule",
        lambda run: 1e-4,
        "Wortsman et al., arXiv 2309.14322",
        "memory",
    ),
)


def suggest(
    *,
    learning_rate: Number | None = None,
    steps: Number | None = None,
    batch_size: Number | None = None,
    dataset_size: Number | None = None,
    epochs: Number | None = None,
    tokens: Number | None = None,
    parameters: Number | None = None,
    timescale_coefficient: Number | None = None,
    width: Number | None = None,
    base_width: Number | None = None,
    base_weight_decay: Number | None = None,
    base_coupling: Literal["schedule", "learning_rate"] = "schedule",
) -> Suggestions:
    r"""Show what the published rules give for a run, each with its source, and choose none of them.

    Decays with one unit compare: per step at multiplier 1, $d = \lambda = \alpha \tilde\lambda$ for a
    $\lambda$ per step and a $\tilde\lambda$ per unit of learning rate. Every row has both. A rule whose
    inputs are not all given is left out, with what it needs.

    Args:
        learning_rate: $\alpha$, the peak; positive. The rules for width take it for that of the
            matrices at `width`, which goes as 1 / width.
        steps: of the run, updates of the optimizer; 1 or more. Or let them be counted: give
            `batch_size`, `dataset_size` and `epochs` instead.
        batch_size: in the unit of `dataset_size`: examples, or tokens; 1 or more.
        dataset_size: of one epoch, in the unit of `batch_size`; that or more.
        epochs: length of the run; 1 or more.
        tokens: seen in the run, whatever the unit of `batch_size`; 1 or more.
        parameters: of the model; 1 or more.
        timescale_coefficient: c in $\tau = c \, (\text{tokens} / \text{parameters})^{-0.527}$, $\tau$ a
            part of the run. It is not known here: measure it in a small run. Positive.
        width: of the model; 1 or more.
        base_width: of the model that `base_weight_decay` was found with; 1 or more.
        base_weight_decay: best there, in the unit of `base_coupling`. Positive.
        base_coupling: what `base_weight_decay` is per: `"schedule"` a step, as in this library unless it
            is told otherwise; `"learning_rate"` a unit of learning rate, as in PyTorch and Optax.

    Returns:
        `Suggestions`, whose `str` is a table, with a row for each rule: what to pass under each
        `coupling`, the half-life, the source, and what the rule was read in.

    Raises:
        TypeError: not a number, or one of 16 bits; no string for `base_coupling`.
        ValueError: a size below 1, another number of 0 or less, a batch that is larger than the
            dataset, steps that are given in both ways, another `base_coupling`.

    Example:
        >>> import decoupled_wd as dwd
        >>> run = dwd.suggest(learning_rate=0.01, batch_size=100, dataset_size=10_000, epochs=25)
        >>> for row in run.rows:
        ...     print(f"{row.rule}: {row.per_step:g} = 0.01 * {row.per_learning_rate:g}")
        normalized decay of 0.025: 0.0005 = 0.01 * 0.05
        normalized decay of 0.05: 0.001 = 0.01 * 0.1
        timescale of one epoch, the shortest: 0.01 = 0.01 * 1
        timescale of all epochs, the longest: 0.0004 = 0.01 * 0.04
        1e-4, independent: 0.0001 = 0.01 * 0.01
        >>> run.left_out[1]
        ('root of the width', 'needs width, base_width, base_weight_decay')

        A language model, whose steps are known:

        >>> run = dwd.suggest(learning_rate=0.01, steps=2500, tokens=2e9, parameters=1e8)
        >>> f"{run.rows[2].rule}: {run.rows[2].per_step:g}"
        'timescale of all epochs, the longest: 0.0004'
        >>> dict(run.left_out)["timescale by tokens per parameter"]
        'needs timescale_coefficient'

    Source: those of the rows.
    """
    counts = {
        "steps": steps, "batch_size": batch_size, "dataset_size": dataset_size, "epochs": epochs,
        "tokens": tokens, "parameters": parameters, "width": width, "base_width": base_width,
    }  # fmt: skip
    numbers = {
        "learning_rate": learning_rate, "timescale_coefficient": timescale_coefficient,
        "base_weight_decay": base_weight_decay,
    }  # fmt: skip
    counts, numbers = ({k: v for k, v in x.items() if v is not None} for x in (counts, numbers))
    for name, value in counts.items():
        _check.check_number(name, value, minimum=1.0)
    for name, value in numbers.items():
        _check.check_positive(name, value)
    _check.check_option("base_coupling", base_coupling, ("schedule", "learning_rate"))
    _check_steps(counts)
    given = {name: _number(value) for name, value in {**counts, **numbers}.items()}
    results = [_follow(rule, {**given, "base_coupling": base_coupling}) for rule in _RULES]
    return Suggestions(
        tuple(result for result in results if isinstance(result, Suggestion)),
        tuple(
            (rule.name, x) for rule, x in zip(_RULES, results, strict=True) if isinstance(x, str)
        ),
    )


def _check_steps(counts: dict[str, Number]) -> None:
    if {"batch_size", "dataset_size"} <= counts.keys():
        _check_order(counts["batch_size"], counts["dataset_size"])
    if {"steps", "batch_size", "dataset_size", "epochs"} <= counts.keys():
        raise ValueError(
            f"`steps` is {counts['steps']}, and `batch_size`, `dataset_size` and `epochs` say the steps "
            "of the run too. Leave out `steps`, or `epochs`."
        )


def _follow(rule: _Rule, given: dict[str, Any]) -> Suggestion | str:
    """What a rule gives for a run, or why it gives nothing."""
    ways = [[name for name in way if name not in given] for way in rule.needs]
    if all(ways):
        shortest = [way for way in ways if not any(set(other) < set(way) for other in ways)]
        return f"needs {'; or '.join(', '.join(way) for way in shortest)}"
    lam, rate = rule.weight_decay(SimpleNamespace(**given)), given.get("learning_rate")
    per_rate = lam if rule.coupling == "learning_rate" else None if rate is None else lam / rate
    per_step = lam if rule.coupling == "schedule" else lam * given["learning_rate"]
    removed = _check.concrete(per_step)
    if removed is not None and removed >= 1:
        return f"gives {removed:.3g} per step, and 1 would remove the whole weight"
    half = times_of_decay(jnp.asarray(per_step, default_float()), jnp.ones((), default_float()))[1]
    return Suggestion(
        rule.name, lam, rule.coupling, per_step, per_rate, half, rule.source, rule.read_in
    )
