r"""What decay does to each leaf, in numbers for a logger.

Everything here is a function of what a training step has at hand: parameters before the step, the
updates that are added to them, gradients, and the optimizer's states before and after. Nothing is
stored in an optimizer. `scalars` returns all of it as one flat dictionary; the functions that it is
made of are public too.

Inside one `jit` with the step, norm, cosine, rotation and the ratio of decay to update are sums that
XLA makes in the pass that computes the updates. It then stores these, where it would else add them on
the spot: by the account of the TPU's compiler a step of AdamW in float32 moves 40 bytes a parameter
instead of 28. `effective_decay` adds nothing to that, and Gamma, of the second moment before and
after, 16. Where this is too much, log every n-th step under `jax.lax.cond`.

Every decay here is *per step*, the part of a weight that the step removes, as `effective_decay`
measures it. Leaves that are None or masked away, that have no update, or that hold no floating
numbers, are passed over.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from decoupled_wd import _check, _moments, _tree, hyperparams
from decoupled_wd._typing import Number, Params, Updates

__all__ = [
    "LeafStatistics",
    "leaf_statistics",
    "norm",
    "cosine",
    "rotation",
    "decay_to_update",
    "effective_decay",
    "Equilibrium",
    "adamw_equilibrium",
    "sgdw_equilibrium",
    "lionw_equilibrium",
    "gradient_variance",
    "NoiseFit",
    "fit_noise",
    "Gamma",
    "amsgrad_gamma",
    "scalars",
]

# One step, leaf by leaf


class LeafStatistics(NamedTuple):
    """What `leaf_statistics` knows of one leaf: real scalars, float32 or wider.

    Example:
        The root mean square of a leaf:

        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> theta = jnp.array([1.0, 7.0])
        >>> leaf = diagnostics.leaf_statistics({"w": theta}, {"w": -theta})["w"]
        >>> float(jnp.sqrt(leaf.squared_norm / leaf.size))  # of (1 + 49) / 2
        5.0
    """

    size: int
    """Number of entries."""
    squared_norm: jax.Array
    """The sum of |theta|^2."""
    inner_product: jax.Array
    """The sum of theta u, for complex leaves its real part."""
    squared_update: jax.Array
    """The sum of |u|^2."""
    weight_decay: jax.Array | None
    """The part of the leaf that the step removes; None where it was not given."""
    squared_gradient: jax.Array | None
    """The sum of |g|^2; None where gradients were not given."""


def leaf_statistics(
    params: Params,
    updates: Updates,
    *,
    weight_decay: Any = None,
    grads: Updates | None = None,
) -> dict[str, LeafStatistics]:
    r"""Sum up a step over each leaf, once, for `norm`, `cosine`, `rotation` and `decay_to_update`.

    $$\langle\theta, \theta\rangle, \quad \langle\theta, u\rangle, \quad \langle u, u\rangle,
    \quad \langle g, g\rangle$$

    Sums are in float32 for leaves of 16 bits. To see what rounding to 16 bits left of a step, pass
    the new parameters less the old ones as `updates`.

    Args:
        params: theta, before the step.
        updates: u, what the step adds to theta, as an optimizer's `update` returns it.
        weight_decay: the part of the weights that the step removes, per step, in [0, 1); a number,
            or a tree of numbers like `params` or a prefix of one, as from `effective_decay`.
        grads: g, for `sgdw_equilibrium`.

    Returns:
        A `LeafStatistics` for every leaf that has an update, by its path; a bare array's path is
        the empty string.

    Raises:
        TypeError: parameters that are no tree of arrays, a decay that is no number.
        ValueError: trees that differ, a decay below 0, two leaves of the same path.

    Example:
        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> theta, u = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, -1.0])}
        >>> leaf = diagnostics.leaf_statistics(theta, u)["w"]
        >>> float(leaf.squared_norm), float(leaf.inner_product), float(leaf.squared_update)
        (25.0, -4.0, 1.0)
    """
    beside = {"updates": updates} if grads is None else {"updates": updates, "grads": grads}
    decays = None if weight_decay is None else _spread_decay(weight_decay, params)
    found = {}
    for path, (theta, u, *g) in _leaves("params", params, **beside).items():
        dtype = jnp.finfo(theta.dtype).dtype  # The real one of a complex leaf.
        squares = [_tree.cast(_sum_of_squares(x), dtype) for x in (theta, u, *g)]
        found[path] = LeafStatistics(
            size=theta.size,
            squared_norm=squares[0],
            inner_product=_inner_product(theta, u),
            squared_update=squares[1],
            weight_decay=None if decays is None else jnp.asarray(decays[path], dtype),
            squared_gradient=squares[2] if g else None,
        )
    return found


def norm(leaf: LeafStatistics) -> jax.Array:
    r"""Take a leaf's Euclidean norm from its sums.

    $$|\theta| = \sqrt{\langle\theta, \theta\rangle}$$

    Args:
        leaf: sums over the leaf.

    Returns:
        The norm before the step, a scalar.

    Raises:
        AttributeError: `leaf` is not a `LeafStatistics`.

    Example:
        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> theta = jnp.array([3.0, 4.0])
        >>> float(diagnostics.norm(diagnostics.leaf_statistics(theta, theta)[""]))
        5.0
    """
    return jnp.sqrt(leaf.squared_norm)


def cosine(leaf: LeafStatistics) -> jax.Array:
    r"""Take the cosine between parameters and update from a leaf's sums.

    $$\cos = \frac{\langle\theta, u\rangle}{|\theta| |u|}$$

    It is -1 where decay is all that moves a leaf, and near 0 where decay and the outward drift of
    the steps are in balance.

    Args:
        leaf: sums over the leaf.

    Returns:
        A scalar in [-1, 1]; 0 where there is no weight or no update.

    Raises:
        AttributeError: `leaf` is not a `LeafStatistics`.

    Example:
        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> leaf = diagnostics.leaf_statistics(jnp.array([3.0, 4.0]), jnp.array([0.0, -1.0]))[""]
        >>> round(float(diagnostics.cosine(leaf)), 6)
        -0.8
    """
    lengths = norm(leaf) * jnp.sqrt(leaf.squared_update)
    return jnp.clip(_ratio(leaf.inner_product, lengths), -1, 1)


def rotation(leaf: LeafStatistics) -> jax.Array:
    r"""Take from a leaf's sums the angle by which the step turns the leaf.

    $$\angle(\theta, \theta + u) = \text{arctan2}(r \sin, \, 1 + r \cos), \quad
    r = \frac{|u|}{|\theta|}$$

    cos and sin are those between $\theta$ and u, so that small angles are not differences of large
    numbers: an angle of 1e-4 has all its digits in float32. Only where the update is parallel to
    the weights within a thousandth does rounding show; it is some 5e-4 r there.

    Args:
        leaf: sums over the leaf.

    Returns:
        An angle in radians, in [0, pi], a scalar; 0 where there is no weight or no update.

    Raises:
        AttributeError: `leaf` is not a `LeafStatistics`.

    Example:
        A step to the side by a ten-thousandth:

        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> leaf = diagnostics.leaf_statistics(jnp.array([1.0, 0.0]), jnp.array([0.0, 1e-4]))[""]
        >>> round(float(diagnostics.rotation(leaf)), 8)
        0.0001
    """
    cos = cosine(leaf)
    sin = jnp.sqrt((1 - cos) * (1 + cos))
    r = _ratio(jnp.sqrt(leaf.squared_update), norm(leaf))
    return jnp.arctan2(r * sin, 1 + r * cos)


def decay_to_update(leaf: LeafStatistics) -> jax.Array:
    r"""Take the ratio of decay to update from a leaf's sums.

    $$\frac{d |\theta|}{|u|}$$

    with d the decay per step: 1 where decay is all that moves a leaf.

    Args:
        leaf: sums over the leaf, with `weight_decay`.

    Returns:
        A scalar, 0 or more; 0 where there is no update.

    Raises:
        ValueError: the statistics were made without `weight_decay`.

    Example:
        The step takes a tenth of 5 off, and moves the leaf by 2:

        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> theta, u = jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])
        >>> leaf = diagnostics.leaf_statistics(theta, u, weight_decay=0.1)[""]
        >>> float(diagnostics.decay_to_update(leaf))
        0.25
    """
    if leaf.weight_decay is None:
        raise ValueError(
            "`leaf` has no decay: pass `weight_decay` to `leaf_statistics`, as a number per step or "
            "as `effective_decay` gives it."
        )
    return _ratio(leaf.weight_decay * norm(leaf), jnp.sqrt(leaf.squared_update))


def effective_decay(
    tx: optax.GradientTransformation,
    grads: Updates,
    state: Any,
    params: Params,
    **extra_args: Any,
) -> Any:
    r"""Measure the part of each leaf that a step removes, for any optimizer, mask and coupling.

    $$d = -\frac{\langle\theta, J\theta\rangle}{\langle\theta, \theta\rangle}, \quad
    J = \frac{\partial u}{\partial \theta}$$

    J is the derivative of the update with the gradient held fixed, so that what is measured is what
    the optimizer itself does with the weights: for decoupled decay the multiplier of the weights,
    with learning rate, schedule and mask in it. For L2 regularization it is the part that acts in
    this very step, past the preconditioner and ahead of the momentum. Where the step itself scales
    with the weights (LAMB, LARS, Adafactor) d holds that too. Of a decay that is not in proportion to
    the weights it is the slope and not the part: 0 for L1, all of lambda for `norm_control`.
    Nothing is seen through a rounding, which has no derivative.

    In one `jit` with the step the update is computed once: pass what the step is called with.

    Args:
        tx: any Optax optimizer, this library's or another.
        grads: gradients, as `tx.update` is about to get them.
        state: the optimizer's state before the step.
        params: theta, before the step.
        extra_args: what else `tx.update` takes.

    Returns:
        A tree like the updates with a scalar a leaf, d per step; 0 for a leaf of zeros, and where the
        decay is below the rounding of the update. It is what `scalars` and `leaf_statistics` take as
        `weight_decay`.

    Raises:
        ValueError: trees that differ, `state` and `params` in each other's place.

    Example:
        The same number in two units: the paper's per step, Optax's per unit of learning rate.

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import diagnostics
        >>> theta = {"bias": jnp.array([1.0]), "kernel": jnp.array([[2.0]])}
        >>> for tx in (dwd.adamw(0.5, weight_decay=0.004, mask={"bias": False, "kernel": True}),
        ...            optax.adamw(0.5, weight_decay=0.004)):
        ...     decay = diagnostics.effective_decay(tx, theta, tx.init(theta), theta)
        ...     print({path: round(float(d), 6) for path, d in decay.items()})
        {'bias': 0.0, 'kernel': 0.004}
        {'bias': 0.002, 'kernel': 0.002}
    """
    structure = jax.tree.structure
    if structure(state) == structure(grads) != structure(params):
        raise ValueError(
            "`state` is a tree like the gradients, and `params` is not. Pass "
            "`effective_decay(tx, grads, state, params)`, in this order."
        )
    update = optax.with_extra_args_support(tx).update

    def scale(x: Any, c: jax.Array) -> Any:
        return jnp.asarray(x) * _tree.cast(c, jnp.result_type(x)) if _tree.is_inexact(x) else x

    def updates_of_scaled(c: jax.Array) -> Updates:
        return update(grads, state, jax.tree.map(lambda x: scale(x, c), params), **extra_args)[0]

    # Along theta: the derivative by a factor of all weights, at 1.
    one = jnp.ones([], _tree.default_float())
    updates, changes = jax.jvp(updates_of_scaled, (one,), (one,))

    def leaf(change: Any, u: Any, theta: Any) -> Any:
        if _tree.is_absent(change) or not _tree.is_inexact(change):
            return change
        theta, change, u = _tree.widen(theta), _tree.widen(change), _tree.widen(u)
        squared = _sum_of_squares(theta)
        decay = _ratio(0 - _inner_product(theta, change), squared)
        # Where the terms of J cancel, as in Adam's first step, rounding is left of either sign.
        rounding = jnp.finfo(u.dtype).eps * jnp.sqrt(_ratio(_sum_of_squares(u), squared))
        return jnp.where(jnp.abs(decay) < _tree.cast(rounding, decay.dtype), 0, decay)

    return jax.tree.map(leaf, changes, updates, params, is_leaf=_tree.is_absent)


# Equilibrium

_ARCSINE_TERMS = 24  # Of rho = 0.95, the 25th is a thousandth of the sum.


class Equilibrium(NamedTuple):
    """Where decay and the steps balance: scalars.

    Example:
        Twice the learning rate: weights of twice the norm, which turn by the same angle.

        >>> from decoupled_wd import diagnostics
        >>> slow = diagnostics.adamw_equilibrium(0.005, learning_rate=0.001, size=100)
        >>> fast = diagnostics.adamw_equilibrium(0.005, learning_rate=0.002, size=100)
        >>> round(float(fast.norm / slow.norm), 4), round(float(fast.rotation / slow.rotation), 4)
        (2.0, 1.0)
    """

    rotation: jax.Array
    """Angle per step, in radians."""
    norm: jax.Array
    """Euclidean norm."""


def adamw_equilibrium(
    weight_decay: Number, learning_rate: Number, size: int, b1: Number = 0.9
) -> Equilibrium:
    r"""Predict rotation per step and norm of a leaf under AdamW, once decay and steps balance.

    $$\text{rotation} \approx \sqrt{2\lambda \frac{1-b_1}{1+b_1}}, \quad
    |\theta| \approx a \sqrt{\frac{C}{2\lambda}}$$

    with $\lambda$ per step and a the learning rate of the step, $\alpha\eta_t$. Gradients are taken
    for noise without direction, of a size that the second moment follows; then the forms here,
    which tend to those above as $\lambda / (1-b_1) \to 0$, hold for every $\lambda$:

    $$\tan^2 \frac{\text{rotation}}{2} = \frac{\lambda}{2-\lambda} \frac{1-b_1}{1+b_1}, \quad
    |\theta|^2 = \frac{a^2 C}{\lambda(2-\lambda)} \frac{1-b_1}{1+b_1}
    \frac{1+b_1(1-\lambda)}{1-b_1(1-\lambda)}$$

    The balance is reached from elsewhere in some `half_life`s. Rotation does not depend on the
    learning rate. A leaf whose gradient has a direction turns less and grows further.

    Args:
        weight_decay: $\lambda$, per step, in [0, 1); as `effective_decay` gives it.
        learning_rate: a, of the step; 0 or more.
        size: C, the number of entries of the leaf.
        b1: decay rate of the first moment, in [0, 1).

    Returns:
        An `Equilibrium` of rotation and norm; without decay 0 and infinity.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a number out of its range.

    Example:
        >>> from decoupled_wd import diagnostics
        >>> at = diagnostics.adamw_equilibrium(0.005, learning_rate=0.001, size=100, b1=0.0)
        >>> round(float(at.rotation), 3), round(float(at.norm), 3)  # sqrt(0.01), 0.001 sqrt(10^4)
        (0.1, 0.1)

    Source: the approximate forms: Kosson, Messmer and Jaggi, arXiv 2305.17212. The others: weights
    are an autoregressive process with roots $1-\lambda$ and $b_1$.
    """
    lam = _decay_for_equilibrium(weight_decay)
    _check.check_integer("size", size, minimum=1)
    _check.check_beta("b1", b1)
    squared_step = _squared_rate(learning_rate, lam) * size
    return _balance(
        lam, squared_step * _tree.like((1 - b1) / (1 + b1), lam), _geometric_drift(lam, b1)
    )


def sgdw_equilibrium(
    weight_decay: Number, learning_rate: Number, squared_gradient: Number, momentum: Number = 0.9
) -> Equilibrium:
    r"""Predict rotation per step and norm of a leaf under SGDW, once decay and steps balance.

    $$\text{rotation} \approx \sqrt{2\lambda \frac{1-\beta}{1+\beta}}, \quad
    |\theta| \approx \frac{a}{1-\beta} \sqrt{\frac{E|g|^2}{2\lambda}}$$

    with $\lambda$ per step and a the learning rate of the step, $\alpha\eta_t$. As in
    `adamw_equilibrium`, these are the limits of what is computed as $\lambda / (1-\beta) \to 0$, and
    gradients are noise. $E|g|^2$ is that at the norm in question: behind a normalization it is
    proportional to $1 / |\theta|^2$, so that measured on the way there it predicts another norm.

    Args:
        weight_decay: $\lambda$, per step, in [0, 1); as `effective_decay` gives it.
        learning_rate: a, of the step; 0 or more.
        squared_gradient: $E|g|^2$, over the whole leaf; 0 or more.
        momentum: $\beta$, in [0, 1); 0 without a buffer.

    Returns:
        An `Equilibrium` of rotation and norm; without decay 0 and infinity.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a number out of its range.

    Example:
        >>> from decoupled_wd import diagnostics
        >>> at = diagnostics.sgdw_equilibrium(0.005, 0.001, squared_gradient=4.0, momentum=0.0)
        >>> round(float(at.rotation), 3), round(float(at.norm), 3)  # sqrt(0.01), 0.002 sqrt(100)
        (0.1, 0.02)

    Source: Kosson, Messmer and Jaggi, arXiv 2305.17212, in the unit of the decay per step.
    """
    lam = _decay_for_equilibrium(weight_decay)
    _check_measured("squared_gradient", squared_gradient, minimum=0.0)
    _check.check_beta("momentum", momentum)
    squared_step = _squared_rate(learning_rate, lam) * _tree.like(squared_gradient, lam)
    return _balance(
        lam, squared_step / _tree.like(1 - momentum**2, lam), _geometric_drift(lam, momentum)
    )


def lionw_equilibrium(
    weight_decay: Number, learning_rate: Number, size: int, b1: Number = 0.9, b2: Number = 0.99
) -> Equilibrium:
    r"""Predict rotation per step and norm of a leaf under Lion, once decay and steps balance.

    $$\text{rotation} \approx \sqrt{\frac{2\lambda}{S}}, \quad
    |\theta| \approx a \sqrt{\frac{C S}{2\lambda}}, \quad
    S = 1 + \frac{2}{\pi} \left(\frac{1}{V} - 1\right), \quad
    V = (1-b_1)^2 + b_1^2 \frac{1-b_2}{1+b_2}$$

    with $\lambda$ per step and a the learning rate of the step. As in `adamw_equilibrium`, these are
    the limits of what is computed, here as $\lambda / (1-b_2) \to 0$, and gradients are noise,
    Gaussian noise this time: signs whose arguments correlate by $\rho$ correlate by
    $\frac{2}{\pi} \arcsin\rho$. S is what this persistence makes of a step, written with $\rho$ for
    its arcsine, which is too small by up to 6 % at $b_1 = b_2 = 0.9$; what is computed has the
    arcsine. In the literature S is $2 / (\pi V)$, without the part of a sign that its argument does
    not explain: at the default betas the same to 1 %, and at $b_1 = 0$, where S is 1, too small by a
    third.

    Args:
        weight_decay: $\lambda$, per step, in [0, 1); as `effective_decay` gives it.
        learning_rate: a, of the step; 0 or more.
        size: C, the number of entries of the leaf.
        b1: weight of the momentum in the direction, in [0, 1).
        b2: decay rate of the momentum, in [0, 1).

    Returns:
        An `Equilibrium` of rotation and norm; without decay 0 and infinity.

    Raises:
        TypeError: not a number, or one of 16 bits.
        ValueError: a number out of its range.

    Example:
        Without momentum it is a walk with signs for steps, as AdamW's without momentum:

        >>> from decoupled_wd import diagnostics
        >>> at = diagnostics.lionw_equilibrium(0.005, learning_rate=0.001, size=100, b1=0.0)
        >>> round(float(at.rotation), 3), round(float(at.norm), 3)
        (0.1, 0.1)

    Source: Kosson, Messmer and Jaggi, arXiv 2305.17212, with the S above.
    """
    lam = _decay_for_equilibrium(weight_decay)
    _check.check_integer("size", size, minimum=1)
    _check.check_beta("b1", b1)
    _check.check_beta("b2", b2)
    memory = (1 - b2) / (1 + b2)
    variance = (1 - b1) ** 2 + b1**2 * memory
    # At lag k the arguments correlate by this times b2**(k - 1), and the sum over the lags of the
    # arcsines is one of geometric series, a series for each term of the arcsine.
    correlation = (b1 * (1 - b1) * (1 - b2) + b1**2 * b2 * memory) / variance
    drift = jnp.zeros([], lam.dtype)
    for n in range(_ARCSINE_TERMS):
        power = 2 * n + 1
        coefficient = 2 / math.pi * math.comb(2 * n, n) / 4**n / power
        term = _tree.like(coefficient * correlation**power, lam)
        drift = drift + term / (1 - _tree.like(b2**power, lam) * (1 - lam))
    return _balance(lam, _squared_rate(learning_rate, lam) * size, drift)


def _decay_for_equilibrium(weight_decay: Any) -> jax.Array:
    _check_measured("weight_decay", weight_decay, minimum=0.0, below=1.0)
    measured = isinstance(weight_decay, jax.Array) and _tree.is_inexact(weight_decay)
    return weight_decay if measured else jnp.asarray(weight_decay, _tree.default_float())


def _squared_rate(learning_rate: Number, lam: jax.Array) -> jax.Array:
    _check.check_number("learning_rate", learning_rate, minimum=0.0)
    return jnp.square(jnp.asarray(learning_rate, lam.dtype))


def _geometric_drift(lam: jax.Array, b: Number) -> jax.Array:
    """The drift of `_balance` for steps that correlate by b**k at lag k."""
    return _tree.like(b, lam) / (1 - _tree.like(b, lam) * (1 - lam))


def _balance(lam: jax.Array, squared_step: jax.Array, drift: jax.Array) -> Equilibrium:
    """The stationary theta <- (1 - lam) theta - step.

    `drift` is the sum of (1 - lam)**(k-1) times the steps' correlation at lag k, over k from 1: a
    step times the weights that the steps before it made, in squared steps.
    """
    persistence = 1 + 2 * (1 - lam) * drift
    # 1 - cos between neighbours, without the difference; it is 2 sin^2 of half the angle.
    versine = lam * (1 - lam * drift) / persistence
    return Equilibrium(
        rotation=2 * jnp.arcsin(jnp.sqrt(versine / 2)),
        norm=jnp.sqrt(squared_step * persistence / (lam * (2 - lam))),
    )


# Noise of the gradient


def gradient_variance(grads: Updates) -> jax.Array:
    r"""Estimate the noise of a microbatch's gradient from the gradients of several.

    $$E|g - \nabla f|^2 \approx \frac{1}{k-1} \sum_{i=1}^{k} |g_i - \bar g|^2$$

    The mean of the k gradients has a k-th of it, and a single example the microbatch's size times
    as much.

    Args:
        grads: a tree whose leaves have a leading axis of the k microbatches, 2 or more, all taken
            at the same parameters, as `jax.vmap(jax.grad(loss), (None, 0))` gives them.

    Returns:
        A scalar over all leaves, unbiased; float32 or wider.

    Raises:
        TypeError: `grads` is no tree of arrays.
        ValueError: fewer than two microbatches, leaves that differ in their number, no leaves.

    Example:
        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> float(diagnostics.gradient_variance({"w": jnp.array([[1.0], [3.0]])}))  # (1 + 1) / (2 - 1)
        2.0
    """
    leaves = {path: g for path, (g,) in _leaves("grads", grads).items()}
    counts = {path: g.shape[0] if g.ndim else 0 for path, g in leaves.items()}
    if not counts:
        raise ValueError(
            "`grads` has no leaves, and gradients of two or more microbatches are needed."
        )
    k = max(counts.values())
    for path, count in counts.items():
        if count != k or k < 2:
            raise ValueError(
                f"`grads` at {path!r} has {count} microbatches along its first axis, and "
                f"{max(k, 2)} are needed. Stack the gradients of two or more microbatches, the same "
                "number in every leaf."
            )
    sums = (_sum_of_squares(g - jnp.mean(g, axis=0, keepdims=True)) for g in leaves.values())
    return sum(_tree.cast(x, _tree.default_float()) for x in sums) / jnp.asarray(
        k - 1, _tree.default_float()
    )


class NoiseFit(NamedTuple):
    """A straight line through points (loss, variance), as running sums; float scalars.

    Keep it beside the optimizer's state in a training loop: it has the same tree whatever it saw.

    Example:
        >>> from decoupled_wd import diagnostics
        >>> fit = diagnostics.fit_noise([], [])  # of no points
        >>> for loss, variance in ((1.0, 5.0), (2.0, 7.0)):
        ...     fit = diagnostics.fit_noise(loss, variance, fit)
        >>> float(fit.count), float(fit.slope), float(fit.intercept)
        (2.0, 2.0, 3.0)
    """

    count: jax.Array
    """Points seen."""
    mean_loss: jax.Array
    mean_variance: jax.Array
    loss_spread: jax.Array
    """The sum of (loss - mean)^2."""
    covariation: jax.Array
    """The sum of (loss - mean)(variance - mean)."""

    @property
    def slope(self) -> jax.Array:
        """The constant b of a + b f; 0 until two losses differ."""
        return _ratio(self.covariation, self.loss_spread)

    @property
    def intercept(self) -> jax.Array:
        """The constant a of a + b f."""
        return self.mean_variance - self.slope * self.mean_loss


def fit_noise(losses: ArrayLike, variances: ArrayLike, earlier: NoiseFit | None = None) -> NoiseFit:
    r"""Estimate the two constants of gradient noise that is bounded by the loss.

    $$E|g - \nabla f|^2 \approx a + b f$$

    by least squares over all points. Why there are such constants: if each example's loss $f_i$ is
    L-smooth and nowhere below $l_i$, a gradient step of length 1/L shows
    $|\nabla f_i|^2 \le 2L (f_i - l_i)$, and so, in the mean over examples,

    $$E|g - \nabla f|^2 \le E|g|^2 \le 2L (f - E\,l_i)$$

    that is $b = 2L$ and $a = -2L\,E\,l_i$, over the microbatch's size if its examples are drawn
    independently. The bound is a theorem; that noise follows a straight line is not, and the fit
    says what it was near the points seen. Noise that does not vanish with the loss shows as a > 0.

    Args:
        losses: f at one or more points, a scalar or an array; of any size, so that
            `fit_noise([], [])` is where a `jax.lax.scan` may start.
        variances: `gradient_variance` there; the same shape.
        earlier: a fit of other points, which these are added to.

    Returns:
        A `NoiseFit`, whose `slope` is b and whose `intercept` is a, in the default float dtype.

    Raises:
        ValueError: shapes that differ.
        TypeError: what is no array of real numbers.

    Example:
        >>> from decoupled_wd import diagnostics
        >>> fit = diagnostics.fit_noise([1.0, 2.0], [5.0, 7.0])
        >>> fit = diagnostics.fit_noise(3.0, 9.0, fit)
        >>> float(fit.slope), float(fit.intercept)
        (2.0, 3.0)

    Source: the bound is Khaled and Richtárik's expected smoothness, arXiv 2002.03329; noise
    proportional to the loss is Wojtowytsch's "noise of machine learning type", arXiv 2105.01650.
    """
    f, s = _real_array("losses", losses), _real_array("variances", variances)
    if f.shape != s.shape:
        raise ValueError(
            f"`variances` has shape {s.shape} and `losses` {f.shape}, and one variance for each loss "
            "is needed."
        )
    count = max(f.size, 1)  # No points have no mean; 0 stands for it, and weighs nothing.
    mean_f, mean_s = jnp.sum(f) / count, jnp.sum(s) / count
    new = NoiseFit(
        count=jnp.asarray(f.size, f.dtype),
        mean_loss=mean_f,
        mean_variance=mean_s,
        loss_spread=jnp.sum(jnp.square(f - mean_f)),
        covariation=jnp.sum((f - mean_f) * (s - mean_s)),
    )
    return new if earlier is None else _merge(earlier, new)


def _merge(one: NoiseFit, other: NoiseFit) -> NoiseFit:
    """The fit of the points of both, from the distance of their means."""
    count = one.count + other.count
    share = _ratio(other.count, count)
    loss, variance = (
        other.mean_loss - one.mean_loss,
        other.mean_variance - one.mean_variance,
    )
    return NoiseFit(
        count=count,
        mean_loss=one.mean_loss + share * loss,
        mean_variance=one.mean_variance + share * variance,
        loss_spread=one.loss_spread + other.loss_spread + one.count * share * loss * loss,
        covariation=one.covariation + other.covariation + one.count * share * loss * variance,
    )


# AMSGrad's quantity


class Gamma(NamedTuple):
    """What `amsgrad_gamma` says of one leaf: scalars.

    Example:
        At learning rate 1 the root of one second moment falls from 2 to 1, and that of the other stays:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> from decoupled_wd import diagnostics
        >>> before, after = (optax.ScaleByRmsState(nu={"w": jnp.array([v, 9.0])}) for v in (4.0, 1.0))
        >>> gamma = diagnostics.amsgrad_gamma((before, after), (1.0, 1.0))["w"]
        >>> float(gamma.mean), float(gamma.minimum), float(gamma.negative)
        (-0.5, -1.0, 0.5)
    """

    mean: jax.Array
    minimum: jax.Array
    negative: jax.Array
    """The fraction of entries where it is below 0."""


def amsgrad_gamma(
    states: tuple[Any, Any], learning_rates: tuple[Number, Number], b2: Number | None = None
) -> dict[str, Gamma]:
    r"""Compute the growth of sqrt(v) / alpha, which Adam's proof of convergence takes to be positive.

    $$\Gamma_t = \frac{\sqrt{v_{t+1}}}{\alpha_{t+1}} - \frac{\sqrt{v_t}}{\alpha_t}$$

    Where it is negative the inverse learning rate of a coordinate falls. AMSGrad keeps the largest v
    so that it never is, as long as $\alpha_t$ does not rise; in its states `nu_max` stands for v.

    Args:
        states: the optimizer's states before and after the step, or any two; chains and wrappers
            are searched for a state with `nu`, as Adam's, RMSProp's and AMSGrad's have one.
        learning_rates: $\alpha_t$ and $\alpha_{t+1}$, those of the last step of each state;
            positive.
        b2: if given, v is divided by $1 - b_2^t$ first, as Adam does and Reddi et al. leave out;
            without it $\Gamma_t$ is positive while v fills up. In [0, 1). Not for the AMSGrad of
            Optax, whose `nu_max` is corrected already.

    Returns:
        A `Gamma` for each leaf, by its path.

    Raises:
        TypeError: not two states or two numbers.
        ValueError: no `nu` in a state, or two for one leaf; a learning rate of 0 or less.

    Example:
        A gradient of 4 and then none; Adam's v falls to the half, AMSGrad's does not:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import diagnostics
        >>> theta = jnp.array([1.0])
        >>> for tx in (dwd.scale_by_adam(b2=0.5), dwd.scale_by_amsgrad(b2=0.5, variant="paper")):
        ...     _, before = tx.update(4 * theta, tx.init(theta))
        ...     _, after = tx.update(0 * theta, before)
        ...     gamma = diagnostics.amsgrad_gamma((before, after), (0.5, 0.5))[""]
        ...     print(round(float(gamma.mean), 3), float(gamma.negative))  # 2 (sqrt(4) - sqrt(8))
        -1.657 1.0
        0.0 0.0

    Source: Reddi, Kale and Kumar, arXiv 1904.09237, equation (2).
    """
    before, after = _pair("states", states, "the optimizer's state before the step and after it")
    rates = _pair("learning_rates", learning_rates, "the learning rates of the two states")
    for index, rate in enumerate(rates):
        _check.check_positive(f"learning_rates[{index}]", rate, because=": Gamma divides by it")
    if b2 is not None:
        _check.check_beta("b2", b2)
    old, new = (_inverse_rates(s, a, b2) for s, a in zip((before, after), rates, strict=True))
    if list(old) != list(new):
        raise ValueError(
            "`states` are of two different optimizers or parameters: their `nu` differ."
        )
    gammas = {path: new[path] - old[path] for path in old}
    return {
        path: Gamma(mean=jnp.mean(x), minimum=jnp.min(x), negative=jnp.mean(x < 0, dtype=x.dtype))
        for path, x in gammas.items()
    }


def _inverse_rates(state: Any, rate: Number, b2: Number | None) -> dict[str, jax.Array]:
    """sqrt(v) / alpha, by path."""
    holders = [
        node
        for node in jax.tree.leaves(state, is_leaf=lambda node: hasattr(node, "nu"))
        if hasattr(node, "nu")
    ]
    if not holders:
        raise ValueError(
            "`states` hold no second moment `nu`, so there is no Gamma. Pass the states of an "
            "optimizer such as Adam or AMSGrad; in Flax, `train_state.opt_state`."
        )
    found: dict[str, jax.Array] = {}
    for holder in holders:
        nu = holder.nu_max if hasattr(holder, "nu_max") else holder.nu
        if b2 is not None and not _check.is_array(getattr(holder, "count", None)):
            raise ValueError(
                f"`b2` is given, and {type(holder).__name__} has no count to correct `nu` with: "
                "leave it out."
            )
        correction = None if b2 is None else _moments.bias_correction(b2, holder.count)
        for path, (v,) in _leaves("states", nu).items():
            if path in found:
                raise ValueError(
                    f"`states` hold two second moments for {path!r}: pass the part of the state that "
                    "belongs to one of the optimizers."
                )
            v = _moments.real_part(v)
            if correction is not None:
                # Before the first step v and its correction are 0.
                v = _ratio(v, _tree.cast(correction, v.dtype))
            found[path] = jnp.sqrt(v) / jnp.asarray(rate, v.dtype)
    return found


# All of it


def scalars(
    params: Params,
    updates: Updates,
    *,
    weight_decay: Any = None,
    grads: Updates | None = None,
    equilibrium: Callable[[LeafStatistics], Equilibrium] | None = None,
    steps_per_epoch: Number | None = None,
    states: tuple[Any, Any] | None = None,
    learning_rates: tuple[Number, Number] | None = None,
    b2: Number | None = None,
    gradient_variance: jax.Array | None = None,
    noise: NoiseFit | None = None,
) -> dict[str, jax.Array]:
    r"""Return every diagnostic of a step as a flat dictionary of scalars, for any logger.

    $$\{\texttt{"quantity/path"} : \text{scalar}\}$$

    | quantity | what it is | needs |
    |---|---|---|
    | `norm`, `cosine`, `rotation` | see the functions of these names | |
    | `decay` | the part of the leaf that the step removes | `weight_decay` |
    | `decay_to_update` | see the function of this name | `weight_decay` |
    | `timescale`, `half_life` | of `decay`, in steps: see `hyperparams` | `weight_decay` |
    | `timescale_epochs`, `half_life_epochs` | in epochs | `steps_per_epoch` too |
    | `norm_equilibrium`, `rotation_equilibrium` | what they tend to | `equilibrium` |
    | `gamma_mean`, `gamma_minimum`, `gamma_negative` | `amsgrad_gamma` | `states`, `learning_rates` |
    | `noise_variance` | `gradient_variance` | itself |
    | `noise_intercept`, `noise_slope` | the constants of `fit_noise` | `noise` |

    The last three are of the whole tree and have no path, and neither has a bare array.

    Args:
        params: theta, before the step.
        updates: u, what the step adds to theta.
        weight_decay: the part of the weights that the step removes, per step, in [0, 1): a number,
            or a tree of numbers like `params` or a prefix of one, as from `effective_decay`.
        grads: gradients, where `equilibrium` asks for `squared_gradient`.
        equilibrium: the prediction for one leaf, from its `LeafStatistics`, such as
            `lambda leaf: adamw_equilibrium(leaf.weight_decay, 1e-3, leaf.size)`.
        steps_per_epoch: for times in epochs; positive.
        states: the optimizer's states before and after the step.
        learning_rates: those of the last step of each state.
        b2: see `amsgrad_gamma`.
        gradient_variance: as the function of this name gives it.
        noise: the fit of noise to loss so far.

    Returns:
        A dictionary of real scalars, float32 or wider, whose names depend on the trees and on
        which arguments are given, and on no number. It may be returned from `jit`, and stacked by
        `jax.lax.scan` and `jax.vmap`.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: trees that differ, a number out of range, an argument without the one it needs.

    Example:
        Half of the update is decay, and no gradient turns the leaf:

        >>> import jax.numpy as jnp
        >>> from decoupled_wd import diagnostics
        >>> theta, u = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([-1.5, -2.0])}
        >>> for name, value in diagnostics.scalars(theta, u, weight_decay=0.25).items():
        ...     print(name, round(float(value), 3))
        norm/w 5.0
        cosine/w -1.0
        rotation/w 0.0
        decay/w 0.25
        decay_to_update/w 0.5
        timescale/w 4.0
        half_life/w 2.409

    Source: rotation and equilibria, arXiv 2305.17212; times, arXiv 2405.13698; Gamma, 1904.09237.
    """
    if (states is None) != (learning_rates is None):
        given, missing = (
            ("learning_rates", "states") if states is None else ("states", "learning_rates")
        )
        raise ValueError(f"`{given}` is given and `{missing}` is not: Gamma needs both.")
    if steps_per_epoch is not None and weight_decay is None:
        raise ValueError(
            "`steps_per_epoch` is given and `weight_decay` is not: pass the decay whose times are "
            "asked for."
        )
    units: dict[str, Number] = {"": 1}
    if steps_per_epoch is not None:
        _check.check_positive("steps_per_epoch", steps_per_epoch)
        units["_epochs"] = steps_per_epoch
    found: dict[str, jax.Array] = {}

    def add(path: str, **quantities: jax.Array) -> None:
        found.update({f"{name}/{path}" if path else name: x for name, x in quantities.items()})

    leaves = leaf_statistics(params, updates, weight_decay=weight_decay, grads=grads)
    for path, leaf in leaves.items():
        add(path, norm=norm(leaf), cosine=cosine(leaf), rotation=rotation(leaf))
        if leaf.weight_decay is not None:
            add(path, decay=leaf.weight_decay, decay_to_update=decay_to_update(leaf))
            for unit, n in units.items():
                times = hyperparams.times_of_decay(
                    leaf.weight_decay, jnp.asarray(n, leaf.weight_decay.dtype)
                )
                add(path, **{f"timescale{unit}": times[0], f"half_life{unit}": times[1]})
        if equilibrium is not None:
            at = equilibrium(leaf)
            add(path, norm_equilibrium=at.norm, rotation_equilibrium=at.rotation)
    if states is not None and learning_rates is not None:
        for path, gamma in amsgrad_gamma(states, learning_rates, b2).items():
            add(path, **{f"gamma_{name}": x for name, x in gamma._asdict().items()})
    if gradient_variance is not None:
        add("", noise_variance=gradient_variance)
    if noise is not None:
        add("", noise_intercept=noise.intercept, noise_slope=noise.slope)
    return found


# Leaves


def _leaves(name: str, tree: Any, **beside: Any) -> dict[str, tuple[jax.Array, ...]]:
    """Each array of floating numbers and what stands beside it, widened, by its path.

    Left out is what is absent here or beside.
    """
    if tree is None:
        raise ValueError(f"`{name}` is None, and a tree of arrays is needed.")
    _check.check_tree(name, tree)
    for other, other_tree in beside.items():
        _tree.check_like(other, other_tree, tree)
    keyed, treedef = _tree.flatten_arrays(tree)
    columns = [treedef.flatten_up_to(other) for other in beside.values()]
    found: dict[str, tuple[jax.Array, ...]] = {}
    for (path, first), *rest in zip(keyed, *columns, strict=True):
        if not _tree.is_inexact(first) or any(map(_tree.is_absent, rest)):
            continue
        key = _tree.path_name(path)
        if key in found:
            raise ValueError(f"`{name}` has two leaves of the path {key!r}: rename one of them.")
        found[key] = tuple(map(_tree.widen, (first, *rest)))
    return found


def _spread_decay(weight_decay: Any, params: Params) -> dict[str, Any]:
    """One decay for each leaf, by its path."""
    keyed, treedef = _tree.flatten_arrays(params)
    try:
        spread = jax.tree.broadcast(weight_decay, params, is_leaf=_tree.is_leaf)
    except ValueError:
        raise ValueError(
            "`weight_decay` must be a number, or a tree of numbers like `params` or a prefix of one, "
            f"and it is not: it {_tree.difference(weight_decay, 'params', params)}."
        ) from None
    decays = {}
    for (path, leaf), decay in zip(keyed, treedef.flatten_up_to(spread), strict=True):
        if _tree.is_inexact(leaf) and not _tree.is_absent(decay):
            key = _tree.path_name(path)
            (decay,) = jax.tree.leaves(decay)  # An NNX Variable holds it.
            _check_measured("weight_decay", decay, minimum=0.0, below=1.0, at=_tree.place(key))
            decays[key] = decay
    return decays


def _check_measured(name: str, value: Any, *, at: str = "", **bounds: Any) -> None:
    """Check a number that may come from a measurement, which then may have come out as anything."""
    if isinstance(value, jax.Array) and not value.ndim and _tree.is_inexact(value):
        _check.check_float_dtype(name, value, at=at)
    else:
        _check.check_number(name, value, at=at, **bounds)


def _real_array(name: str, values: ArrayLike) -> jax.Array:
    if jnp.iscomplexobj(values) or not all(map(_check.is_array, jax.tree.leaves(values))):
        raise TypeError(f"`{name}` is {values!r}, and an array of real numbers is needed.")
    return jnp.asarray(values, _tree.default_float())


def _pair(name: str, value: Any, meaning: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"`{name}` is {value!r}, and a pair is needed: {meaning}.")
    return value[0], value[1]


def _sum_of_squares(x: jax.Array) -> jax.Array:
    return jnp.sum(_moments.squared_norm(x))


def _inner_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Complex arrays are vectors of twice as many real numbers."""
    dtype = x.real.dtype
    product = x.real * _tree.cast(y.real, dtype)
    if jnp.iscomplexobj(x) and jnp.iscomplexobj(y):
        product = product + x.imag * _tree.cast(y.imag, dtype)
    return jnp.sum(product)


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """x / y, and 0 where y is 0."""
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))
