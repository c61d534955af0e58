"""Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2: Adam with L2, and AdamW."""

import numpy as np


def adam(
    gradient, theta, alpha, beta1, beta2, eps, eta, *, l2=0.0, weight_decay=0.0, eps_hat=False
):
    """Give theta after every step.

    `eta` has one multiplier a step; `weight_decay` is a number or has one lambda a step. With
    `eps_hat`, eps as in Kingma and Ba 2015 at the end of section 2, and in the authors' adam.lua.
    """
    weight_decay = np.broadcast_to(weight_decay, eta.shape)
    m, v = np.zeros_like(theta), np.zeros_like(theta)  # line 2
    path = []
    for t, eta_t in enumerate(eta):  # lines 3, 4 (t + 1 steps begun) and 11
        g = gradient(t, theta)  # line 5
        g = g + l2 * theta  # line 6, Adam with L2
        m = beta1 * m + (1 - beta1) * g  # line 7
        v = beta2 * v + (1 - beta2) * g**2  # line 8
        m_hat = m / (1 - beta1 ** (t + 1))  # line 9
        v_hat = v / (1 - beta2 ** (t + 1))  # line 10
        step = m_hat / (np.sqrt(v_hat) + eps)
        if eps_hat:
            alpha_t = np.sqrt(1 - beta2 ** (t + 1)) / (1 - beta1 ** (t + 1))
            step = alpha_t * m / (np.sqrt(v) + eps)
        theta = theta - eta_t * (alpha * step + weight_decay[t] * theta)  # line 12
        path.append(theta)
    return np.stack(path)
