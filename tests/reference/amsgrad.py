"""Reddi, Kale and Kumar 2018, arXiv 1904.09237, Algorithm 2, with L2 and with decoupled decay.

The paper has no bias correction and no eps; PyTorch, Optax and Keras have both, in different places.
"""

import numpy as np


def amsgrad(gradient, theta, alpha, beta1, beta2, eps, eta, *, variant, l2=0.0, weight_decay=0.0):
    """Give theta after every step; the numbers as in `algorithm_2_adamw.adam`."""
    weight_decay = np.broadcast_to(weight_decay, eta.shape)
    m, v, v_max = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    path = []
    for t, eta_t in enumerate(eta):
        g = gradient(t, theta) + l2 * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        correction1, correction2 = 1 - beta1 ** (t + 1), 1 - beta2 ** (t + 1)
        if variant == "paper":
            v_max = np.maximum(v_max, v)
            step = m / (np.sqrt(v_max) + eps)
        elif variant == "pytorch":
            v_max = np.maximum(v_max, v)
            step = (m / correction1) / (np.sqrt(v_max) / np.sqrt(correction2) + eps)
        elif variant == "optax":
            v_max = np.maximum(v_max, v / correction2)
            step = (m / correction1) / (np.sqrt(v_max) + eps)
        elif variant == "keras":
            v_max = np.maximum(v_max, v)
            step = (m / correction1) * np.sqrt(correction2) / (np.sqrt(v_max) + eps)
        theta = theta - eta_t * (alpha * step + weight_decay[t] * theta)
        path.append(theta)
    return np.stack(path)
