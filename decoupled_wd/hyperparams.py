"""Choosing the number: decay from budgets, with units."""

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
    _check.check_number("epochs", epochs, minimum=0.0)
    if _check.concrete(epochs) == 0:
        raise ValueError("`epochs` is 0, and a positive number is needed.")
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
