"""Schedules, counted step by step in Python's unbounded integers."""

import itertools
import math


def cosine_warm_restarts(period, period_mult):
    """Yield (cycle i, T_cur, T_i, eta_t) for every step; arXiv 1711.05101, appendix B.2."""
    length = period
    for i in itertools.count():
        for position in range(length):
            yield i, position, length, 0.5 + 0.5 * math.cos(math.pi * position / length)
        length *= period_mult


def restart_steps(period, period_mult, below):
    """Give the steps smaller than `below` at which a cycle begins, with the cycle's length."""
    begin, length = 0, period
    while begin < below:
        yield begin, length
        begin, length = begin + length, length * period_mult


def cyclical(step, step_size, minimum, maximum, mode, gamma=1.0):
    """Smith 2017, arXiv 1506.01186, section 3."""
    cycle = math.floor(1 + step / (2 * step_size))
    x = abs(step / step_size - 2 * cycle + 1)
    height = (maximum - minimum) * max(0.0, 1 - x)
    factor = {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": gamma**step}
    return minimum + height * factor[mode]


def normalized_weight_decay(norm, batch_size, dataset_size, epochs):
    """arXiv 1711.05101, appendix B.1."""
    return norm * math.sqrt(batch_size / (dataset_size * epochs))
