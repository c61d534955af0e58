"""Choosing the number: decay from budgets, with units."""

import math

import jax
import jax.numpy as jnp

from decoupled_wd import _check
from decoupled_wd._tree import default_float
from decoupled_wd._typing import Number


def steps_per_epoch(batch_size: Number, dataset_size: Number) -> Number:
    """Count the batches of an epoch, the last one possibly short: ceil(dataset_size / batch_size).

    Args:
        batch_size: b, an integer, 1 or more.
        dataset_size: B, an integer, 1 or more.

    Returns:
        Steps per epoch, an integer.

    Raises:
        TypeError: a size that is not an integer.
        ValueError: a size below 1.

    Example:
        >>> steps_per_epoch(128, 50_000)
        391
    """
    _check.check_integer("batch_size", batch_size, minimum=1)
    _check.check_integer("dataset_size", dataset_size, minimum=1)
    return (_check.as_integer(dataset_size) - 1) // _check.as_integer(batch_size) + 1


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
        ValueError: a size below 1, a negative decay, an `epochs` of 0 or less.

    Example:
        >>> round(normalized_weight_decay(0.025, 128, 50_000, 100), 8)  # CIFAR-10
        0.00012649

    Source: Loshchilov and Hutter, arXiv 1711.05101, appendix B.1, which calls it "one possibility
    informed by few experiments".
    """
    _check.check_number("normalized_weight_decay", normalized_weight_decay, minimum=0.0)
    _check.check_integer("batch_size", batch_size, minimum=1)
    _check.check_integer("dataset_size", dataset_size, minimum=1)
    _check.check_positive("epochs", epochs)
    return decay_of_budget(normalized_weight_decay, batch_size, dataset_size, epochs)


def decay_of_budget(
    normalized_weight_decay: Number, batch_size: Number, dataset_size: Number, epochs: Number
) -> Number:
    """`normalized_weight_decay` of numbers that are checked already, or arrays of them."""
    lam, b, n, t = (
        x if isinstance(x, (int, float)) else jnp.asarray(x, default_float())
        for x in (normalized_weight_decay, batch_size, dataset_size, epochs)
    )
    return lam * (b / (n * t)) ** 0.5


def timescale(weight_decay: Number, steps_per_epoch: Number = 1) -> jax.Array:
    r"""Turn a decay into the length of its memory: how many of the last updates the weights hold.

    $$\tau = \frac{1}{\lambda n}$$

    Weights under decay are a moving average of $-u/\lambda$ with rate $\lambda$, u the updates: what
    is older than some $\tau$ is forgotten. That is the number to keep when the batch size changes.

    Args:
        weight_decay: $\lambda$, per step, in [0, 1); `weight_decay` under `coupling="learning_rate"`
            is to be multiplied by the learning rate first. 0 is never forgotten: infinity.
        steps_per_epoch: n; with the default $\tau$ is in steps, and with the steps of an epoch in
            epochs. Positive.

    Returns:
        $\tau$, a scalar in the default float dtype.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a decay outside [0, 1), a `steps_per_epoch` of 0 or less.

    Example:
        >>> float(timescale(0.125)), float(timescale(0.125, steps_per_epoch=4))
        (8.0, 2.0)

    Source: Wang and Aitchison, arXiv 2405.13698, whose $\tau_{iter}$ and $\tau_{epoch}$ these are.
    """
    return times_of_decay(*_decay_and_epoch(weight_decay, steps_per_epoch))[0]


def half_life(weight_decay: Number, steps_per_epoch: Number = 1) -> jax.Array:
    r"""Turn a decay into the time in which a weight without gradient loses half of its size.

    $$h = \frac{\ln 2}{-n \ln(1 - \lambda)}$$

    Args:
        weight_decay: $\lambda$, per step, in [0, 1), as in `timescale`.
        steps_per_epoch: n; with the default h is in steps, and with the steps of an epoch in epochs.
            Positive.

    Returns:
        h, a scalar in the default float dtype; infinity without decay.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a decay outside [0, 1), a `steps_per_epoch` of 0 or less.

    Example:
        >>> float(half_life(0.5)), float(half_life(0.5, steps_per_epoch=4))
        (1.0, 0.25)

    Source: $(1 - \lambda)^h = 1/2$.
    """
    return times_of_decay(*_decay_and_epoch(weight_decay, steps_per_epoch))[1]


def times_of_decay(lam: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`timescale` and `half_life` of numbers that are checked already."""
    return 1 / (lam * n), math.log(2) / (-jnp.log1p(-lam) * n)


def _decay_and_epoch(weight_decay: Number, steps_per_epoch: Number) -> tuple[jax.Array, jax.Array]:
    _check.check_number("weight_decay", weight_decay, minimum=0.0, below=1.0)
    _check.check_positive("steps_per_epoch", steps_per_epoch)
    return jnp.asarray(weight_decay, default_float()), jnp.asarray(steps_per_epoch, default_float())
