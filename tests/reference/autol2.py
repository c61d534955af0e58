"""Lewkowycz and Gur-Ari 2020, arXiv 2006.08643: AutoL2, as their code google/autol2 has it."""

import numpy as np


def coefficients(values, measure_every, *, initial=0.1, factor=10.0, delay=0.1):
    """Give the coefficient of every step; `values` has the loss without penalty of each.

    Beside their code, a loss that is not a number is not measured.
    """
    coefficient, start = initial, 0
    measured, best = [], None
    path = []
    for step, value in enumerate(values):
        if step % measure_every == 0 and not np.isnan(value):
            measured.append(value)
            rested = step > delay / coefficient + start
            if rested and len(measured) > 2 and best <= measured[-1] and best <= measured[-2]:
                coefficient /= factor
                start = step
            elif len(measured) >= 2:
                best = measured[-2] if best is None else min(best, measured[-2])
        path.append(coefficient)
    return np.array(path)


def sgd(value_and_gradient, theta, alpha, steps, measure_every, **options):
    """Give theta after every step of plain SGD, with the penalty coefficient / 2 * |theta|^2."""
    values, path = [], []
    for _ in range(steps):
        value, gradient = value_and_gradient(theta)
        values.append(value)
        coefficient = coefficients(values, measure_every, **options)[-1]
        theta = theta - alpha * (gradient + coefficient * theta)
        path.append(theta)
    return np.stack(path)
