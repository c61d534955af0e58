"""Norms in place of decay: transformations that keep a leaf, or each of its neurons, on a sphere."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number, Params, Updates


class KeepNormState(NamedTuple):
    """State of `keep_norm`.

    Example:
        Two neurons, the columns, of norms 5 and 1:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> print(dwd.keep_norm(neuron_axis=-1).init(jnp.array([[3.0, 1.0], [4.0, 0.0]])).norm)
        [[5. 1.]]
    """

    norm: Any
    """A tree like the parameters: the norms to keep, float32 or wider."""


class RotationState(NamedTuple):
    """State of `scale_by_rotation`.

    Example:
        The squared norm of an update across the weights is 16; a quarter of it enters the average:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx, theta = dwd.scale_by_rotation(average=0.75), jnp.array([3.0, 0.0, 0.0, 0.0, 0.0])
        >>> _, state = tx.update(jnp.array([0.0, -2.0, 2.0, -2.0, 2.0]), tx.init(theta), theta)
        >>> print(state.count, state.norm, state.square)
        1 [3.] [4.]
    """

    count: jax.Array
    """Steps taken, int32."""
    norm: Any
    """A tree like the parameters: their norms at `init`, float32 or wider."""
    square: Any
    """A tree like the parameters: the average of the updates' squared norms, not corrected."""


def keep_norm(
    neuron_axis: int | None = None, *, target: Number | None = None, center: bool = False
) -> optax.GradientTransformation:
    r"""Put the weights back on the sphere that they began on, after every step.

    $$\theta \leftarrow N \frac{\theta + u}{\lVert \theta + u \rVert}, \quad N = \lVert \theta_0 \rVert$$

    It stands last in the chain, where the updates u are the step; only rounding may follow. It takes the
    place of weight decay, and has no lambda. With `optax.scale_by_trust_ratio()` before the
    learning rate it is Hyperball, with `scale_by_rotation()` there it is the rotational wrapper. A
    leaf or neuron of norm 0 stays as it is. Choose leaves with `optax.masked` or `optax.partition`:
    biases and norms have no direction to keep.

    Args:
        neuron_axis: the axis that counts neurons, each with a norm of its own: -1 for Flax's kernels.
            None is one norm for the leaf.
        target: N, in units of the parameters, positive; None is the norm at `init`.
        center: whether each neuron's mean is taken away first, as the rotational wrapper does.

    Returns:
        A transformation with state `KeepNormState(norm)`. It reads `params` and gives back the dtype of
        the updates.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: `target` is not positive; at `init` a leaf that has no such axis.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx, theta = dwd.keep_norm(), jnp.array([5.0, 0.0])
        >>> u, _ = tx.update(jnp.array([1.0, 8.0]), tx.init(theta), theta)  # to 6 and 8, of norm 10
        >>> print(theta + u)
        [3. 4.]

    Source: Wen et al. 2026, "Hyperball", arXiv 2606.16899; Kosson et al. 2023, "Rotational Equilibrium",
    arXiv 2305.17212, and their code; Loshchilov et al. 2024, "nGPT", arXiv 2410.01131 (`target=1`).
    """
    _check_neuron_axis(neuron_axis)
    _check.check_bool("center", center)
    if target is not None:
        _check.check_positive("target", target)

    def norm_at_init(theta: Any) -> jax.Array:
        norm = _norm(_tree.widen(theta), neuron_axis)
        return norm if target is None else jnp.ones_like(norm) * _tree.like(target, norm)

    def init(params: Params) -> KeepNormState:
        _check_has_axis(neuron_axis, params)
        return KeepNormState(jax.tree.map(norm_at_init, params))

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, KeepNormState]:
        _tree.check_params(params)
        _tree.check_state(state, "norm")

        def leaf(
            u: jax.Array, memory: dict[str, jax.Array], theta: jax.Array
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            theta = _tree.cast(theta, u.dtype)
            end = theta + u
            if center:
                end = end - jnp.mean(end, axis=_over(end, neuron_axis), keepdims=True)
            norm = _norm(end, neuron_axis)
            kept = _tree.cast(memory["norm"], norm.dtype)
            scale = _tree.cast(kept / jnp.where(norm == 0, 1, norm), u.dtype)
            return jnp.where((norm == 0) | (kept == 0), 0, scale * end - theta), memory

        updates, _ = _tree.map_leaves_with_memory(
            leaf, updates, {"norm": state.norm}, params=params
        )
        return updates, state

    return optax.GradientTransformation(init, update)


def scale_by_rotation(
    average: Number = 0.9, eps: Number = 1e-8, *, neuron_axis: int | None = None
) -> optax.GradientTransformation:
    r"""Make the updates turn the weights by the learning rate, in radians, on the average.

    $$u \leftarrow u - \frac{\langle u, \theta \rangle}{N^2} \theta, \quad
    u \leftarrow u - \text{mean}(u), \quad u \leftarrow \frac{N u}{\sqrt{\hat s} + \text{eps}}$$

    with $N$ the norm of the weights at `init` and $\hat s$ the bias-corrected average of
    $\lVert u \rVert^2$ over steps. It stands between the optimizer's direction and the learning
    rate, and `keep_norm(neuron_axis, center=True)` last: that is the rotational wrapper. Its
    learning rate is the angle at which decay and gradient would balance, for AdamW $\sqrt{2 \alpha
    \lambda (1 - b_1) / (1 + b_1)}$ with lambda per unit of learning rate, so that it goes with the
    root of a schedule. The source takes each neuron's mean from the weights before training: one
    `keep_norm(..., center=True)` with updates of 0 does it.

    Args:
        average: weight of the past in the average of squared norms, in [0, 1).
        eps: added to the root; 0 or more.
        neuron_axis: as in `keep_norm`.

    Returns:
        A transformation with state `RotationState(count, norm, square)`. It reads `params` and
        gives back the dtype of the updates.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a number out of range; at `init` a leaf that has no such axis.

    Example:
        The part along the weights goes, and the rest gets the weights' norm:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> tx, theta = dwd.scale_by_rotation(), jnp.array([1.0, -1.0, 0.0, 0.0])
        >>> u, _ = tx.update(jnp.array([9.0, -9.0, -4.0, 4.0]), tx.init(theta), theta)
        >>> print(jnp.abs(jnp.round(u, 4)), jnp.sign(u[2:]))
        [0. 0. 1. 1.] [-1.  1.]

    Source: Kosson et al. 2023, arXiv 2305.17212, and their rotational_wrapper.py.
    """
    _check.check_beta("average", average)
    _check.check_number("eps", eps, minimum=0.0)
    _check_neuron_axis(neuron_axis)

    def init(params: Params) -> RotationState:
        _check_has_axis(neuron_axis, params)
        norms = jax.tree.map(lambda theta: _norm(_tree.widen(theta), neuron_axis), params)
        square = jax.tree.map(jnp.zeros_like, norms)
        return RotationState(jnp.zeros([], jnp.int32), norms, square)

    def update(
        updates: Updates, state: Any, params: Params | None = None
    ) -> tuple[Updates, RotationState]:
        _tree.check_params(params)
        _tree.check_state(state, "square")
        count = jnp.asarray(optax.safe_increment(state.count))
        correction = _moments.bias_correction(average, count)

        def leaf(
            u: jax.Array, memory: dict[str, jax.Array], theta: jax.Array
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            theta = _tree.cast(theta, u.dtype)
            norm = _tree.cast(memory["norm"], _norm(u, neuron_axis).dtype)
            over = _over(u, neuron_axis)
            along = jnp.sum(u * jnp.conj(theta), axis=over, keepdims=True)
            u = u - theta * along / _tree.cast(jnp.where(norm == 0, 1, norm) ** 2, u.dtype)
            u = u - jnp.mean(u, axis=over, keepdims=True)
            square = _moments.moving_average(_norm(u, neuron_axis) ** 2, memory["square"], average)
            root = jnp.sqrt(square / _tree.cast(correction, square.dtype)) + _tree.like(eps, square)
            turned = u * _tree.cast(norm / jnp.where(root == 0, 1, root), u.dtype)
            return turned, {**memory, "square": square}

        updates, memory = _tree.map_leaves_with_memory(
            leaf, updates, {"norm": state.norm, "square": state.square}, params=params
        )
        return updates, RotationState(count, state.norm, memory["square"])

    return optax.GradientTransformation(init, update)


def _over(x: jax.Array, neuron_axis: int | None) -> tuple[int, ...]:
    """The axes of one neuron."""
    return tuple(
        axis for axis in range(x.ndim) if neuron_axis is None or axis != neuron_axis % x.ndim
    )


def _norm(x: jax.Array, neuron_axis: int | None) -> jax.Array:
    """The norm of every neuron, with axes of length 1 in place of its own."""
    return _moments.norm(x, _over(x, neuron_axis))


def _check_neuron_axis(neuron_axis: Any) -> None:
    if neuron_axis is None:
        return
    if isinstance(neuron_axis, bool) or not isinstance(neuron_axis, int):
        raise TypeError(
            f"`neuron_axis` is {neuron_axis!r}, and an axis is needed, such as -1, or None for one norm "
            "a leaf; under `optax.inject_hyperparams` pass static_args=('neuron_axis',)."
        )


def _check_has_axis(neuron_axis: int | None, params: Params) -> None:
    for path, leaf in _tree.flatten_arrays(params)[0]:
        if neuron_axis is None or _tree.is_absent(leaf):
            continue
        ndim = jnp.ndim(leaf)
        if ndim < 2 or not -ndim <= neuron_axis < ndim:
            raise ValueError(
                f"`neuron_axis` is {neuron_axis}, and `params`{_tree.place(_tree.path_name(path))} have "
                f"{ndim} axes, where a neuron would be a single number, which could never move. "
                "Leave out what has no neurons with `optax.masked` or `optax.partition`."
            )
