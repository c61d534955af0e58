"""Chen et al. 2023, arXiv 2302.06675, Algorithm 2: Lion, with the decay in the paper's unit."""

import numpy as np


def lion(gradient, theta, alpha, beta1, beta2, eta, *, weight_decay=0.0):
    """Give theta after every step; `weight_decay` has one lambda a step, or is a number."""
    weight_decay = np.broadcast_to(weight_decay, eta.shape)
    m = np.zeros_like(theta)
    path = []
    for t, eta_t in enumerate(eta):
        g = gradient(t, theta)
        c = beta1 * m + (1 - beta1) * g
        theta = theta - eta_t * (alpha * np.sign(c) + weight_decay[t] * theta)
        m = beta2 * m + (1 - beta2) * g
        path.append(theta)
    return np.stack(path)
