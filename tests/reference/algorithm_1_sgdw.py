"""Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 1: SGD with L2, and SGDW."""

import numpy as np


def sgd(gradient, theta, alpha, beta1, eta, *, l2=0.0, weight_decay=0.0):
    """Give theta after every step.

    `eta` has one multiplier a step; `weight_decay` is a number or has one lambda a step.
    """
    weight_decay = np.broadcast_to(weight_decay, eta.shape)
    m = np.zeros_like(theta)  # line 2
    path = []
    for t, eta_t in enumerate(eta):  # lines 3, 4 and 7
        g = gradient(t, theta)  # line 5
        g = g + l2 * theta  # line 6, SGD with L2
        m = beta1 * m + eta_t * alpha * g  # line 8
        theta = theta - m - eta_t * weight_decay[t] * theta  # line 9, the last term SGDW
        path.append(theta)
    return np.stack(path)


def sgd_rate_outside_the_buffer(gradient, theta, alpha, beta1, eta, *, l2=0.0, weight_decay=0.0):
    """As the authors' code (sgd.lua), PyTorch and Optax have it; the numbers as in `sgd`."""
    weight_decay = np.broadcast_to(weight_decay, eta.shape)
    m = np.zeros_like(theta)
    path = []
    for t, eta_t in enumerate(eta):
        m = beta1 * m + gradient(t, theta) + l2 * theta
        theta = theta - eta_t * alpha * m - eta_t * weight_decay[t] * theta
        path.append(theta)
    return np.stack(path)
