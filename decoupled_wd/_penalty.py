r"""Penalties, on one array: what $\Omega$ is, its gradient, and its proximal step.

Each is elementwise, real or complex, and costs no more than the arrays it reads. With $x$ the distance
from the reference:

| penalty | $\Omega(x)$ | $\partial\Omega(x)$ | proximal step of size $\tau$ |
|---|---|---|---|
| `L2` | x^2 / 2 | x | x / (1 + tau) |
| `L1` | \|x\| | sign x | soft threshold at tau |
| `elastic_net(r)` | r \|x\| + (1-r) x^2 / 2 | r sign x + (1-r) x | soft(x, r tau) / (1 + (1-r) tau) |
| `huber(delta)` | x^2 / 2, linear from delta on | x clipped at delta | shrink inside, subtract outside |
| `power(p)` | \|x\|^p / p | \|x\|^(p-1) sign x | x X / (X + tau), X = \|x_old\|^(2-p) |
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number


@dataclasses.dataclass(frozen=True)
class Penalty:
    r"""A penalty of the distance from a reference, elementwise.

    Args:
        name: what it prints as.
        value: $\Omega$ of every element.
        gradient: its derivative; where it has a kink, a subgradient, 0 at 0.
        prox: `prox(x, tau, old)`, where a step that was taken to `x` lands: the minimum of
            $\tau \Omega(y) + \tfrac12 |y - x|^2$ over y. `tau` has no axes or those of `x`; `old` is the
            distance before the step, for penalties that are replaced by a parabola which touches them
            there.

    Example:
        Half as strong on negative weights:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> def slope(x):
        ...     return jnp.where(x < 0, x / 2, x)
        >>> lopsided = dwd.Penalty("lopsided", lambda x: slope(x) * x / 2, slope,
        ...     lambda x, tau, old: jnp.where(x < 0, x / (1 + tau / 2), x / (1 + tau)))
        >>> decay = dwd.decoupled_weight_decay(0.5, penalty=lopsided)
        >>> theta = jnp.array([-4.0, 4.0])
        >>> print(decay.update(jnp.zeros(2), decay.init(theta), theta)[0])
        [-1.  2.]
    """

    name: str
    value: Callable[[jax.Array], jax.Array]
    gradient: Callable[[jax.Array], jax.Array]
    prox: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    def __repr__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Tracking:
    """A penalty with one number that follows each leaf, as `huber_tracking` makes it.

    Example:
        Huber's penalty, linear from 1.5 times the mean distance on:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> x = jnp.array([-1.0, 1.0, 4.0])
        >>> tracking = dwd.huber_tracking(1.5)
        >>> mean = tracking.statistic(x)
        >>> print(mean, tracking.at(mean).gradient(x))
        2.0 [-1.  1.  3.]
    """

    name: str
    at: Callable[[Any], Penalty]
    """The penalty at a value of the number."""
    statistic: Callable[[jax.Array], jax.Array]
    """What of a leaf's distance the number is an average of."""
    average: Any
    """Weight of the past in that average."""

    def __repr__(self) -> str:
        return self.name

    def follow(self, past: jax.Array, x: jax.Array, count: jax.Array) -> jax.Array:
        """The average, one step on; it begins with step 0."""
        now = self.statistic(x)
        return jnp.where(count == 0, now, _moments.moving_average(now, past, self.average))


def check_penalty(value: Any) -> None:
    """Require a penalty."""
    if isinstance(value, (Penalty, Tracking)):
        return
    makers = (elastic_net, huber, huber_tracking, power, explicit)
    _check.check_called("penalty", value, makers, "dwd")
    made = ", ".join(f"dwd.{name}" for name in ("L2", "L1", "elastic_net(...)", "huber(...)"))
    raise TypeError(
        f"`penalty` is {value!r}, and a penalty is needed: {made}, dwd.power(...), or a dwd.Penalty."
    )


def _soft(x: jax.Array, tau: Any) -> jax.Array:
    """Move by tau towards 0, and stop there."""
    size = jnp.abs(x)
    return jnp.sign(x) * _tree.cast(jnp.maximum(size - _tree.like(tau, size), 0), x.dtype)


def _shrink(x: jax.Array, tau: jax.Array) -> jax.Array:
    """Divide by 1 + tau."""
    # By its reciprocal, as some versions of XLA do with a constant: it is to be a constant schedule.
    return x * (1 / (1 + _tree.like(tau, x)))


L2 = Penalty(
    "L2",
    value=lambda x: jnp.abs(x) ** 2 / 2,
    gradient=lambda x: x,
    prox=lambda x, tau, old: _shrink(x, tau),
)
"""Half the square: what weight decay is the gradient of."""

L1 = Penalty("L1", value=jnp.abs, gradient=jnp.sign, prox=lambda x, tau, old: _soft(x, tau))
"""The absolute value (Tibshirani 1996): its proximal step makes exact zeros, its gradient none."""


def elastic_net(l1_ratio: Number) -> Penalty:
    r"""Mix the L1 and the L2 penalty.

    $$\Omega(x) = r |x| + \tfrac{1-r}{2} x^2$$

    Args:
        l1_ratio: r, the part of L1, in [0, 1]; the name is scikit-learn's.

    Returns:
        A penalty, for `penalty=`; lambda keeps the unit of its place.

    Raises:
        TypeError: `l1_ratio` is no number.
        ValueError: it is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> print(dwd.elastic_net(0.5).gradient(jnp.array([-4.0, 0.0, 4.0])))
        [-2.5  0.   2.5]

    Source: Zou and Hastie 2005, "Regularization and variable selection via the elastic net", which
    rescales its solution by 1 + lambda_2; that is not done here.
    """
    _check.check_number("l1_ratio", l1_ratio, minimum=0.0)
    given = _check.concrete(l1_ratio)
    if given is not None and given > 1:
        raise ValueError(f"`l1_ratio` is {l1_ratio}, and 1 or less is needed: 1 is L1 alone.")
    l2_ratio = 1 - l1_ratio

    def prox(x: jax.Array, tau: jax.Array, old: jax.Array) -> jax.Array:
        del old
        threshold, shrink = (_tree.like(r, tau) * tau for r in (l1_ratio, l2_ratio))
        return _shrink(_soft(x, threshold), shrink)

    return Penalty(
        f"elastic_net({l1_ratio})",
        value=lambda x: (
            _tree.like(l1_ratio, jnp.abs(x)) * jnp.abs(x)
            + _tree.like(l2_ratio, jnp.abs(x)) * L2.value(x)
        ),
        gradient=lambda x: _tree.like(l1_ratio, x) * jnp.sign(x) + _tree.like(l2_ratio, x) * x,
        prox=prox,
    )


def huber(delta: Number) -> Penalty:
    r"""Square near the reference, linear from a distance on: large weights are pulled no harder.

    $$\Omega(x) = \tfrac12 x^2 \text{ for } |x| \le \delta, \quad
    \delta |x| - \tfrac12 \delta^2 \text{ beyond}$$

    Args:
        delta: where it turns linear, in units of the parameters; positive.

    Returns:
        A penalty, for `penalty=`; lambda keeps the unit of its place.

    Raises:
        TypeError: `delta` is no number.
        ValueError: it is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> print(dwd.huber(1.0).gradient(jnp.array([-4.0, 0.5, 4.0])))
        [-1.   0.5  1. ]

    Source: Huber 1964; as a decay Guo and Fan 2025, "AdamHD", arXiv 2511.14721.
    """
    _check.check_positive("delta", delta)

    return _huber(delta)


def _huber(delta: Any) -> Penalty:
    def value(x: jax.Array) -> jax.Array:
        size = jnp.abs(x)
        bend = _tree.like(delta, size)
        return jnp.where(size <= bend, size * size / 2, bend * (size - bend / 2))

    def gradient(x: jax.Array) -> jax.Array:
        return jnp.where(
            jnp.abs(x) <= _tree.like(delta, jnp.abs(x)), x, _tree.like(delta, x) * jnp.sign(x)
        )

    def prox(x: jax.Array, tau: jax.Array, old: jax.Array) -> jax.Array:
        del old
        bend = _tree.like(delta, tau)
        inside = jnp.abs(x) <= _tree.like((1 + tau) * bend, jnp.abs(x))
        return jnp.where(inside, _shrink(x, tau), x - _tree.like(tau * bend, x) * jnp.sign(x))

    return Penalty(f"huber({delta})", value, gradient, prox)


def huber_tracking(factor: Number = 1.5, average: Number = 0.99) -> Tracking:
    r"""Huber's penalty with a bend that follows each leaf: $\delta = c \, \text{EMA}(\text{mean}|x|)$.

    The average begins with the distances of the first step and takes in those of a step before it is
    used.

    Args:
        factor: c; positive.
        average: weight of the past in the average, in [0, 1); 0 is the mean of the step alone.

    Returns:
        A penalty, for `penalty=`; lambda keeps the unit of its place. The average of each leaf is
        remembered.

    Raises:
        TypeError: a callable or array where a number is meant.
        ValueError: a number out of range.

    Example:
        The weights' mean is 2, the bend there as well, and the 4 is pulled like a 2:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.5, penalty=dwd.huber_tracking(1.0))
        >>> theta = jnp.array([0.0, 2.0, 4.0])
        >>> u, _ = decay.update(jnp.zeros(3), decay.init(theta), theta)
        >>> print(u)
        [0. 1. 1.]

    Source: Guo and Fan 2025, "AdamHD", arXiv 2511.14721, whose bend follows "parameter magnitudes"; the
    paper was not read. Mean, factor and average are from others' code, and unclear.
    """
    _check.check_positive("factor", factor)
    _check.check_beta("average", average)

    def mean(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(x)) / max(x.size, 1)  # 0 for an array without elements.

    return Tracking(
        f"huber_tracking({factor}, {average})",
        lambda s: _huber(_tree.like(factor, s) * s),
        mean,
        average,
    )


def explicit(penalty: Penalty) -> Penalty:
    r"""Take a step along a penalty's gradient in place of its proximal step.

    $$x \leftarrow x - \tau \, \partial\Omega(x)$$

    In `proximal_weight_decay` it then acts explicitly and where the step ends: with `L2` as
    $(1 - \tau) x$, what libraries do that decay after the step, and where $1/(1+\tau)$ is implicit.

    Args:
        penalty: `L2`, `L1`, or another.

    Returns:
        A penalty, for `penalty=`.

    Raises:
        TypeError: `penalty` is none.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, u = jnp.array([1.0]), jnp.array([3.0])
        >>> for penalty in (dwd.L2, dwd.explicit(dwd.L2)):
        ...     decay = dwd.proximal_weight_decay(0.25, penalty=penalty)
        ...     print(theta + decay.update(u, decay.init(theta), theta)[0])  # 4 / 1.25, 4 * 0.75
        [3.2]
        [3.]
    """
    if not isinstance(penalty, Penalty):
        raise TypeError(f"`penalty` is {penalty!r}, and a penalty is needed, such as dwd.L2.")

    def prox(x: jax.Array, tau: jax.Array, old: jax.Array) -> jax.Array:
        del old
        return x - _tree.like(tau, x) * penalty.gradient(x)

    return dataclasses.replace(penalty, name=f"explicit({penalty})", prox=prox)


def power(p: Number) -> Penalty:
    r"""Penalize by a power of the distance: the smaller it is, the more small weights are pulled.

    $$\Omega(x) = \tfrac1p |x|^p$$

    At p = 2 it is `L2`, at p = 1 `L1` but for the proximal step, which is that of the parabola that
    touches $\Omega$ at the old distance: $x X / (X + \tau)$ with $X = |x_{old}|^{2-p}$. It shrinks small
    weights faster than by any factor, and a step makes no exact zero of a weight that is none. At p of 1
    or less small weights are caught, though: they shrink until they underflow, and stay 0.

    Args:
        p: above 0 and at most 2.

    Returns:
        A penalty, for `penalty=`; lambda keeps the unit of its place.

    Raises:
        TypeError: `p` is no number.
        ValueError: it is outside (0, 2].

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> print(dwd.power(1.5).gradient(jnp.array([-4.0, 0.0, 4.0])))
        [-2.  0.  2.]

    Source: Outmezguine and Levi 2024, "Decoupled Weight Decay for Any p Norm", arXiv 2404.10824 (pWD):
    their penalty has no 1/p, so lambda here is p times theirs.
    """
    _check.check_positive("p", p)
    given = _check.concrete(p)
    if given is not None and given > 2:
        raise ValueError(
            f"`p` is {p}, and at most 2 is needed: beyond it no parabola lies above the penalty."
        )

    def gradient(x: jax.Array) -> jax.Array:
        size = jnp.abs(x)
        # 0^(p-1) is infinite below p = 1, times a sign of 0.
        slope = jnp.where(size == 0, 0, jnp.where(size == 0, 1, size) ** _tree.like(p - 1, size))
        return jnp.sign(x) * _tree.cast(slope, x.dtype)

    def prox(x: jax.Array, tau: jax.Array, old: jax.Array) -> jax.Array:
        touch = jnp.abs(old) ** _tree.like(2 - p, jnp.abs(old))
        step = _tree.like(tau, touch)
        kept = jnp.where(step == 0, 1, touch / jnp.where(step == 0, 1, touch + step))
        return x * _tree.cast(kept, x.dtype)

    return Penalty(
        f"power({p})",
        value=lambda x: jnp.abs(x) ** _tree.like(p, jnp.abs(x)) / p,
        gradient=gradient,
        prox=prox,
    )
