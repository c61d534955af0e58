"""A library's optimizer in NumPy, from its record: what `like` and `convert` are compared with.

a_t = lr eta_t, d_t = w A^i (a_t/A)^j, and the five forms of the same two terms.
"""

import numpy as np


def simulate(convention, arguments, eta, gradient, theta0):
    """Parameters after each step. Any argument may be an array with one value a step; `eta` is."""
    given = {**convention.defaults, **arguments}
    h = convention.numbers
    for argument, word in convention.arguments.items():
        if isinstance(word, tuple):
            h.update(zip(word, given[argument], strict=True))
        else:
            h[word] = given[argument]
    w = h.pop("weight_decay", 0.0)
    if convention.normalizer:
        w = w * convention.normalizer(given)
    rate = h.pop("learning_rate")
    reference = given.get(convention.reference_argument)
    reference = rate if reference is None else reference
    step = STEPS[convention.direction]
    theta, state, path = theta0, {"m": 0 * theta0, "v": 0 * theta0, "max": 0 * theta0}, []
    for t, eta_t in enumerate(eta):
        now = {name: value[t] if np.ndim(value) else value for name, value in h.items()}
        a, w_t = rate * eta_t, (w[t] if np.ndim(w) else w)
        g = gradient(t, theta)
        if convention.form == "coupled":
            theta = theta - step(g + w_t * theta, state, a, t + 1, now)
            path.append(theta)
            continue
        i, j = convention.unit
        d = w_t * reference**i * (a / reference) ** j
        u = step(g, state, a, t + 1, now)
        theta = {
            "parallel": theta - u - d * theta,
            "first": theta * (1 - d) - u,
            "after": (theta - u) * (1 - d),
            "proximal": (theta - u) / (1 + d),
        }[convention.form]
        path.append(theta)
    return np.stack(path)


def momentum(g, state, a, t, h):
    beta = h["momentum"] or 0.0
    damping = beta if h["dampening"] == "momentum" else h["dampening"]
    g = a * g if h["learning_rate_in_buffer"] else g
    outside = 1.0 if h["learning_rate_in_buffer"] else a
    if not beta:  # Nothing to dampen; the buffer holds this gradient alone.
        state["m"] = g
        return outside * g
    share = 1 - damping if t > 1 or h["dampen_first"] else 1.0
    state["m"] = beta * state["m"] + share * g
    return outside * (share * g + beta * state["m"] if h["nesterov"] else state["m"])


def adam(g, state, a, t, h):
    b1, b2 = h["b1"], h["b2"]
    state["m"] = b1 * state["m"] + (1 - b1) * g
    state["v"] = b2 * state["v"] + (1 - b2) * g**2
    m_hat, correction = state["m"] / (1 - b1**t), 1 - b2**t
    if h["nesterov"]:
        m_hat = b1 * state["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    if h["eps_placement"] == "before":
        root = (np.sqrt(state["v"] + h["eps_root"]) + h["eps"]) / np.sqrt(correction)
    else:
        root = np.sqrt(state["v"] / correction + h["eps_root"]) + h["eps"]
    return a * m_hat / root


def amsgrad(g, state, a, t, h):
    b1, b2, eps, root = h["b1"], h["b2"], h["eps"], h["eps_root"]
    state["m"] = b1 * state["m"] + (1 - b1) * g
    state["v"] = b2 * state["v"] + (1 - b2) * g**2
    m_hat, correction = state["m"] / (1 - b1**t), 1 - b2**t
    raw = h["variant"] != "optax"
    state["max"] = np.maximum(state["max"], state["v"] if raw else state["v"] / correction)
    largest = state["max"]
    if h["variant"] == "paper":
        return a * state["m"] / (np.sqrt(largest + root) + eps)
    if h["variant"] == "pytorch":
        return a * m_hat / (np.sqrt(largest / correction + root) + eps)
    if h["variant"] == "keras":
        return a * m_hat * np.sqrt(correction) / (np.sqrt(largest + root) + eps)
    return a * m_hat / (np.sqrt(largest + root) + eps)


def lion(g, state, a, t, h):
    u = np.sign(h["b1"] * state["m"] + (1 - h["b1"]) * g)
    state["m"] = h["b2"] * state["m"] + (1 - h["b2"]) * g
    return a * u


STEPS = {"momentum": momentum, "adam": adam, "amsgrad": amsgrad, "lion": lion}
