r"""The optimizers, each one chain.

Gradients flow down the chain and keep their sign up to its last multiplication, which turns it. Where
the decay stands among the multiplications is what `coupling` says:

| `coupling` | place | decay per step | convention of |
|---|---|---|---|
| `"schedule"` | C | eta_t lambda | the paper's Algorithms 1 and 2 |
| `"learning_rate"` | B | alpha eta_t lambda | `optax.adamw`, `torch.optim.AdamW`, Keras |
| `"none"` | D | lambda | TensorFlow Addons, `fixed_decay` |
| `"corrected"` | B, with lambda eta_t | alpha eta_t^2 lambda | AdamC |

Arguments that all of them share:

* `learning_rate`: alpha, per step; a number, traced or not. Under `"learning_rate"` and `"none"` a
  callable of the step too, as in Optax. Under `"schedule"` and `"corrected"` the paper's two symbols
  are two arguments, and a callable is an error.
* `schedule`: eta_t, the multiplier of the step, and of the decay as `coupling` says; a number or a
  callable of the 0-based step. None is 1. How high a callable rises is not known before it ran.
* `weight_decay`: lambda, in the unit that `coupling` gives it; a number, traced or not, or a callable
  of the step. A concrete number that would remove a whole weight in a step is an error, and one
  that removes 0.5 % or more a step is a warning.
* `mask`: which leaves decay; bools or multipliers as a tree like the parameters, a prefix of one, a
  function of the parameters that gives one, or rules or a preset of `masks`. None is every leaf.
* `mu_dtype`, `nu_dtype`: dtypes of the stored moments; the parameters' if None, and float32 for the
  squares of float16 ones.
* `rounding`: how parameters of 16 bits are rounded, once, at the end of the step. None is to nearest,
  which loses a decay of less than 2^-9 (bfloat16) or 2^-12 (float16) per step; `"compensated"` loses
  one of less than 2^-18 of bfloat16 ones, `"stochastic"` what float32 does.

All raise a TypeError for an argument of the wrong type and a ValueError for a number out of range,
naming it. All read `params` in `update`, and give back the dtype of the updates, or float32 for 16 bits
where `rounding` is chosen. Where something has 16 bits, finite gradients and parameters give finite
updates, with learning rates up to 1.
"""

from collections.abc import Callable

import optax

from decoupled_wd import _check, hyperparams
from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._precision import round_last, to_float32
from decoupled_wd._rate import (
    Coupling,
    check_decay,
    check_step,
    decay_per_step,
    warn_of_lost_decay,
)
from decoupled_wd._scaling import (
    AMSGradVariant,
    EpsPlacement,
    MomentRounding,
    scale_by_adam,
    scale_by_amsgrad,
    scale_by_lion,
    scale_by_schedule,
    trace,
)
from decoupled_wd._typing import DType, Mask, Number, NumberOrSchedule, Params, Rounding
from decoupled_wd.schedules import (
    cosine_warm_restarts_schedule,
    normalized_weight_decay_schedule,
    product,
)


def _with_decay(
    direction: optax.GradientTransformation,
    learning_rate: NumberOrSchedule,
    weight_decay: NumberOrSchedule,
    mask: Mask,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
    rounding: Rounding | None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a direction, of numbers that are checked."""
    check_step(learning_rate, schedule, coupling)
    removed = check_decay(weight_decay, learning_rate, schedule, coupling)
    placed = place_decay(learning_rate, weight_decay, mask, schedule, coupling)
    tx = finished(direction, placed, rounding=rounding)
    return warning_of_lost_decay(tx, removed, mask, rounding)


def finished(
    *parts: optax.GradientTransformation,
    rounding: Rounding | None,
    chain: Callable[..., optax.GradientTransformationExtraArgs] = optax.chain,
) -> optax.GradientTransformationExtraArgs:
    """The chain of the parts, in float32 up to its one rounding if that is chosen."""
    if rounding is None:
        return chain(*parts)
    return chain(to_float32(), *parts, round_last(rounding))


def warning_of_lost_decay(
    tx: optax.GradientTransformationExtraArgs,
    removed: float | None,
    mask: Mask,
    rounding: Rounding | None,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, which says at `init` where its decay per step is lost."""
    if removed is None:
        return tx

    def init(params: Params) -> optax.OptState:
        state = tx.init(params)
        warn_of_lost_decay(removed, mask, params, rounding)
        return state

    return optax.GradientTransformationExtraArgs(init, tx.update)


def moment_rounding(rounding: Rounding | None) -> MomentRounding | None:
    """What a rounding of the parameters asks of moments: a residual for each would cost as much."""
    return None if rounding is None else "stochastic"


def place_decay(
    learning_rate: NumberOrSchedule,
    weight_decay: NumberOrSchedule,
    mask: Mask,
    schedule: NumberOrSchedule | None,
    coupling: Coupling,
) -> optax.GradientTransformation:
    """The two multiplications, and the decay in its place."""
    if coupling == "corrected":
        weight_decay = product(weight_decay=weight_decay, schedule=schedule)
    decay = decoupled_weight_decay(weight_decay, mask)
    if coupling == "schedule":
        return optax.chain(scale_by_schedule(learning_rate), decay, descend(schedule=schedule))
    if coupling == "none":
        step = scale_by_schedule(product(learning_rate=learning_rate, schedule=schedule))
        return optax.chain(step, decay, optax.scale(-1.0))
    return optax.chain(decay, descend(learning_rate=learning_rate, schedule=schedule))


def adamw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    schedule: NumberOrSchedule | None = None,
    coupling: Coupling = "schedule",
    nu_dtype: DType = None,
    eps_placement: EpsPlacement = "after",
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with decoupled weight decay.

    $$\theta \leftarrow \theta - \eta_t \left( \alpha \frac{\hat m}{\sqrt{\hat v} + \text{eps}} +
    \lambda \theta \right)$$

    With the default `coupling="schedule"` lambda is per step at multiplier 1, independent of the
    learning rate. With `"learning_rate"` it is per unit of learning rate, and the result is
    `optax.adamw` to the last bit in float32 under `jit`.

    Args:
        learning_rate: alpha; a callable under `"learning_rate"` and `"none"` alone. A schedule that
            `optax.inject_hyperparams` makes a number of is taken for alpha: under `"schedule"` it
            scales the step and not the decay.
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added to the root of the second moment; 0 or more.
        eps_root: added inside the root; 0 or more.
        mu_dtype: dtype of the stored first moment.
        weight_decay: lambda, in the unit that `coupling` gives it; 0 or more; a number, traced or
            not, or a callable of the step.
        mask: which leaves decay: bools or multipliers as a tree like the parameters, a prefix of one,
            a function of the parameters that gives one, or rules (`masks.by_path`) or a preset
            (`masks.matrices`); None is every leaf.
        nesterov: look ahead by one step of the first moment (NAdamW).
        schedule: eta_t, a multiplier that peaks at 1, and no learning rate: one that peaks at 1e-3
            makes every step a thousand times smaller, and nothing warns of it. A number or a
            callable of the 0-based step; None is 1.
        coupling: what lambda is per: `"schedule"` per step at multiplier 1 (the paper);
            `"learning_rate"` per unit of learning rate (Optax, PyTorch, Keras); `"none"` per step
            whatever the schedule (TensorFlow Addons); `"corrected"` per unit of learning rate,
            times eta_t again (AdamC).
        nu_dtype: dtype of the stored second moment.
        eps_placement: `"after"` or `"before"` bias correction; see `scale_by_adam`.
        rounding: of 16-bit parameters. `"stochastic"` at random, to one of the two neighbours and right
            on average; `"compensated"` to nearest, what is lost being kept in a residual of the
            parameters' dtype (2 bytes a parameter), which for bfloat16 loses a decay of less than
            2^-18 (4e-6) per step. Either computes in float32 from the gradient to
            this one rounding and gives float32 updates, for `optax.apply_updates`; nothing may come
            after it. Moments of 16 bits are then rounded at random too. None is all to nearest.

    Returns:
        A finished optimizer; 8 bytes of state a float32 parameter.

    Raises:
        TypeError: an argument of the wrong type, such as a callable `learning_rate` under
            `"schedule"` and `"corrected"`; a mask that is a bare scalar or whose function fails.
        ValueError: a number out of its range, a decay that would remove a whole weight in a step;
            at `init` a mask that does not fit or leaves nothing to decay, at `update` no `params`.

    Warns:
        UserWarning: a step removes 0.5 % or more of a weight, or a moment is stored in 16 bits; at
            `init`, where lambda and the rates are numbers, a decay that 16-bit parameters are too
            coarse for under this `rounding`.

    Example:
        A weight without gradient shows the decay alone. The same number, two meanings:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([0.0])
        >>> for coupling in ("schedule", "learning_rate"):
        ...     tx = dwd.adamw(0.1, weight_decay=0.004, coupling=coupling)
        ...     u, _ = tx.update(g, tx.init(theta), theta)
        ...     print(coupling, round(float(u[0]), 6))
        schedule -0.004
        learning_rate -0.0004

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 2.
    """
    return _with_decay(
        scale_by_adam(
            b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype,
            eps_placement=eps_placement, moment_rounding=moment_rounding(rounding),
        ),
        learning_rate, weight_decay, mask, schedule, coupling, rounding,
    )  # fmt: skip


def adam_l2(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    schedule: NumberOrSchedule | None = None,
    nu_dtype: DType = None,
    eps_placement: EpsPlacement = "after",
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam on the loss with an L2 penalty: what Adam with "weight decay" was before AdamW.

    $$g \leftarrow g + \lambda' \theta, \quad
    \theta \leftarrow \theta - \alpha \eta_t \frac{\hat m}{\sqrt{\hat v} + \text{eps}}$$

    Here $\lambda'$ is per unit of gradient. No value of it gives AdamW (row N1 of the catalogue).

    Args:
        learning_rate: alpha; a number, or a callable of the step.
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added to the root of the second moment; 0 or more.
        eps_root: added inside the root; 0 or more.
        mu_dtype: dtype of the stored first moment.
        weight_decay: $\lambda'$, per unit of gradient; a number or a callable of the step.
        mask: which leaves are penalized: a tree, a prefix or a function, as in `adamw`.
        nesterov: look ahead by one step of the first moment.
        schedule: eta_t, a multiplier that peaks at 1; a number or a callable of the step.
        nu_dtype: dtype of the stored second moment.
        eps_placement: `"after"` or `"before"` bias correction; see `scale_by_adam`.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `adamw`.

    Returns:
        A finished optimizer; 8 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        Without a gradient from the loss, every weight moves by alpha, large or small:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0, 100.0]), jnp.array([0.0, 0.0])
        >>> tx = dwd.adam_l2(0.1, weight_decay=0.01)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> [round(float(x), 3) for x in u]
        [-0.1, -0.1]

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 2; `torch.optim.Adam(weight_decay=)`.
    """
    check_step(learning_rate, schedule)
    return finished(
        add_l2_to_grad(weight_decay, mask),
        scale_by_adam(
            b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype,
            eps_placement=eps_placement, moment_rounding=moment_rounding(rounding),
        ),
        descend(learning_rate=learning_rate, schedule=schedule),
        rounding=rounding,
    )  # fmt: skip


def amsgradw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    variant: AMSGradVariant = "optax",
    schedule: NumberOrSchedule | None = None,
    coupling: Coupling = "schedule",
    nu_dtype: DType = None,
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AMSGrad with decoupled weight decay.

    $$\theta \leftarrow \theta - \eta_t \left( \alpha \frac{\hat m}{\sqrt{v_{max}} + \text{eps}} +
    \lambda \theta \right)$$

    with the corrections of `variant`; see `scale_by_amsgrad`. Units of lambda as in `adamw`.

    Args:
        learning_rate: alpha.
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added to the root of the second moment; 0 or more.
        eps_root: added inside the root; 0 or more.
        mu_dtype: dtype of the stored first moment.
        weight_decay: lambda, in the unit that `coupling` gives it; a number or a callable.
        mask: which leaves decay: a tree, a prefix or a function, as in `adamw`.
        variant: `"paper"`, `"pytorch"`, `"optax"` or `"keras"`.
        schedule: eta_t, a multiplier that peaks at 1; a number or a callable of the step.
        coupling: what lambda is per, step or unit of learning rate; the four are told in `adamw`.
        nu_dtype: dtype of the stored second moment and its maximum.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `adamw`.

    Returns:
        A finished optimizer; 12 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([5.0])
        >>> tx = dwd.amsgradw(0.1, weight_decay=0.002)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 4)  # -(0.1 * 1 + 0.002 * 1)
        -0.102

    Source: Reddi et al., arXiv 1904.09237, Algorithm 2, with the decay of arXiv 1711.05101, whose
    authors expect AMSGrad to behave as Adam does and do not run it.
    """
    return _with_decay(
        scale_by_amsgrad(
            b1, b2, eps, eps_root, mu_dtype,
            variant=variant, nu_dtype=nu_dtype, moment_rounding=moment_rounding(rounding),
        ),
        learning_rate, weight_decay, mask, schedule, coupling, rounding,
    )  # fmt: skip


def amsgrad_l2(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    variant: AMSGradVariant = "optax",
    schedule: NumberOrSchedule | None = None,
    nu_dtype: DType = None,
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AMSGrad on the loss with an L2 penalty.

    $$g \leftarrow g + \lambda' \theta, \quad
    \theta \leftarrow \theta - \alpha \eta_t \frac{\hat m}{\sqrt{v_{max}} + \text{eps}}$$

    with the corrections of `variant`; see `scale_by_amsgrad`. $\lambda'$ is per unit of gradient.

    Args:
        learning_rate: alpha; a number, or a callable of the step.
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added to the root of the second moment; 0 or more.
        eps_root: added inside the root; 0 or more.
        mu_dtype: dtype of the stored first moment.
        weight_decay: $\lambda'$, per unit of gradient; a number or a callable of the step.
        mask: which leaves are penalized: a tree, a prefix or a function, as in `adamw`.
        variant: `"paper"`, `"pytorch"`, `"optax"` or `"keras"`.
        schedule: eta_t, a multiplier that peaks at 1; a number or a callable of the step.
        nu_dtype: dtype of the stored second moment and its maximum.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `adamw`.

    Returns:
        A finished optimizer; 12 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0, 100.0]), jnp.array([0.0, 0.0])
        >>> tx = dwd.amsgrad_l2(0.1, weight_decay=0.01)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> [round(float(x), 3) for x in u]
        [-0.1, -0.1]

    Source: `torch.optim.Adam(amsgrad=True, weight_decay=)` is `variant="pytorch"`.
    """
    check_step(learning_rate, schedule)
    return finished(
        add_l2_to_grad(weight_decay, mask),
        scale_by_amsgrad(
            b1, b2, eps, eps_root, mu_dtype,
            variant=variant, nu_dtype=nu_dtype, moment_rounding=moment_rounding(rounding),
        ),
        descend(learning_rate=learning_rate, schedule=schedule),
        rounding=rounding,
    )  # fmt: skip


def sgdw(
    learning_rate: NumberOrSchedule,
    momentum: Number | None = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    learning_rate_in_buffer: bool = True,
    schedule: NumberOrSchedule | None = None,
    coupling: Coupling = "schedule",
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum and decoupled weight decay.

    $$m \leftarrow \beta m + \eta_t \alpha g, \quad
    \theta \leftarrow \theta - m - \eta_t \lambda \theta$$

    That is Algorithm 1 as printed, where the rate enters the momentum buffer and the decay never
    does. With `learning_rate_in_buffer=False` it is PyTorch's and Optax's momentum,
    $m \leftarrow \beta m + g$ and $\theta \leftarrow \theta - \eta_t(\alpha m + \lambda \theta)$. The
    two agree while the rate is constant, and only then (row N6 of the catalogue).

    Args:
        learning_rate: alpha.
        momentum: beta, in [0, 1); None is plain SGD without a buffer.
        nesterov: Nesterov momentum, as in `optax.trace`.
        accumulator_dtype: dtype of the buffer; the parameters' if None.
        weight_decay: lambda, in the unit that `coupling` gives it; a number or a callable.
        mask: which leaves decay: a tree, a prefix or a function, as in `adamw`.
        learning_rate_in_buffer: whether alpha eta_t multiplies the gradient (True) or the buffer.
        schedule: eta_t, a multiplier that peaks at 1; a number or a callable of the step.
        coupling: what lambda is per, step or unit of learning rate; the four are told in `adamw`.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `adamw`. The state of the
            buffer then has a count, too.

    Returns:
        A finished optimizer; 4 bytes of state a float32 parameter. Where the rate is in the buffer
        the decay stands at place D, and its state holds the decay per step.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([2.0])
        >>> tx = dwd.sgdw(0.1, weight_decay=0.004)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 4)  # -(0.1 * 2 + 0.004 * 1)
        -0.204

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 1.
    """
    _check.check_bool("learning_rate_in_buffer", learning_rate_in_buffer)
    buffer = momentum_buffer(momentum, nesterov, accumulator_dtype, moment_rounding(rounding))
    if not learning_rate_in_buffer:
        return _with_decay(buffer, learning_rate, weight_decay, mask, schedule, coupling, rounding)
    check_step(learning_rate, schedule, coupling)
    removed = check_decay(weight_decay, learning_rate, schedule, coupling)
    tx = finished(
        scale_by_schedule(product(learning_rate=learning_rate, schedule=schedule)),
        buffer,
        decoupled_weight_decay(
            decay_per_step(weight_decay, learning_rate, schedule, coupling), mask
        ),
        optax.scale(-1.0),
        rounding=rounding,
    )
    return warning_of_lost_decay(tx, removed, mask, rounding)


def sgd_l2(
    learning_rate: NumberOrSchedule,
    momentum: Number | None = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    learning_rate_in_buffer: bool = True,
    schedule: NumberOrSchedule | None = None,
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum on the loss with an L2 penalty.

    $$m \leftarrow \beta m + \eta_t \alpha (g + \lambda' \theta), \quad \theta \leftarrow \theta - m$$

    $\lambda'$ is per unit of gradient. Without momentum it is `sgdw` with lambda = alpha lambda'
    (row a1 of the catalogue); with momentum the map needs care (rows b1 to b4 and N3).

    Args:
        learning_rate: alpha; a number, or a callable of the step.
        momentum: beta, in [0, 1); None is plain SGD without a buffer.
        nesterov: Nesterov momentum, as in `optax.trace`.
        accumulator_dtype: dtype of the buffer; the parameters' if None.
        weight_decay: $\lambda'$, per unit of gradient; a number or a callable of the step.
        mask: which leaves are penalized: a tree, a prefix or a function, as in `adamw`.
        learning_rate_in_buffer: True is Algorithm 1 as printed; False is `torch.optim.SGD`.
        schedule: eta_t, a multiplier that peaks at 1; a number or a callable of the step.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `sgdw`.

    Returns:
        A finished optimizer; 4 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([2.0])
        >>> tx = dwd.sgd_l2(0.1, weight_decay=0.5)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 4)  # -0.1 * (2 + 0.5 * 1)
        -0.25

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 1.
    """
    _check.check_bool("learning_rate_in_buffer", learning_rate_in_buffer)
    check_step(learning_rate, schedule)
    penalty = add_l2_to_grad(weight_decay, mask)
    buffer = momentum_buffer(momentum, nesterov, accumulator_dtype, moment_rounding(rounding))
    if learning_rate_in_buffer:
        step = scale_by_schedule(product(learning_rate=learning_rate, schedule=schedule))
        return finished(penalty, step, buffer, optax.scale(-1.0), rounding=rounding)
    step = descend(learning_rate=learning_rate, schedule=schedule)
    return finished(penalty, buffer, step, rounding=rounding)


def lionw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.99,
    mu_dtype: DType = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    schedule: NumberOrSchedule | None = None,
    coupling: Coupling = "schedule",
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lion, the sign of an interpolated momentum, with decoupled weight decay.

    $$\theta \leftarrow \theta - \eta_t \left( \alpha \, \text{sign}(b_1 m + (1 - b_1) g) +
    \lambda \theta \right), \quad m \leftarrow b_2 m + (1 - b_2) g$$

    Units of lambda as in `adamw`; `coupling="learning_rate"` is `optax.lion`.

    Args:
        learning_rate: alpha, the size of every step.
        b1: weight of the momentum in the direction, in [0, 1).
        b2: decay rate of the momentum, in [0, 1).
        mu_dtype: dtype of the stored momentum.
        weight_decay: lambda, in the unit that `coupling` gives it; a number or a callable.
        mask: which leaves decay: a tree, a prefix or a function, as in `adamw`.
        schedule: eta_t, a multiplier that peaks at 1; a number or a callable of the step.
        coupling: what lambda is per, step or unit of learning rate; the four are told in `adamw`.
        rounding: `"stochastic"` or `"compensated"`, of 16-bit parameters; see `adamw`.

    Returns:
        A finished optimizer; 4 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([-7.0])
        >>> tx = dwd.lionw(0.1, weight_decay=0.004)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 4)  # -(0.1 * sign(-7) + 0.004 * 1)
        0.096

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675.
    """
    return _with_decay(
        scale_by_lion(b1, b2, mu_dtype, moment_rounding(rounding)),
        learning_rate, weight_decay, mask, schedule, coupling, rounding,
    )  # fmt: skip


def adamwr(
    learning_rate: NumberOrSchedule,
    normalized_weight_decay: Number,
    *,
    batch_size: Number,
    dataset_size: Number,
    period: Number,
    period_mult: Number = 1,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: DType = None,
    mask: Mask = None,
    nesterov: bool = False,
    coupling: Coupling = "schedule",
    nu_dtype: DType = None,
    eps_placement: EpsPlacement = "after",
    eta_min: Number = 0.0,
    eta_max: Number = 1.0,
    warmup: Number = 0,
    peak_decay: Number = 1.0,
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdamW with warm restarts and normalized decay.

    $$\eta_t \text{ as in } \texttt{cosine\_warm\_restarts\_schedule}, \quad
    \lambda = \lambda_{norm} \sqrt{b / (B T_i)}$$

    for the cycle of $T_i$ epochs that the step is in: decay is recomputed at every restart.

    Args:
        learning_rate: alpha.
        normalized_weight_decay: lambda_norm, the decay if one batch were all there is; lambda is in
            the unit that `coupling` gives it.
        batch_size: b, an integer.
        dataset_size: B, training points, an integer.
        period: T_0, length of the first cycle in epochs of ceil(B / b) steps; an integer.
        period_mult: T_mult, growth of the cycles; an integer.
        b1: as in `adamw`, and so are all not named here.
        b2: as in `adamw`.
        eps: as in `adamw`.
        eps_root: as in `adamw`.
        mu_dtype: as in `adamw`.
        mask: which leaves decay: a tree, a prefix or a function, as in `adamw`.
        nesterov: as in `adamw`.
        coupling: what lambda is per, step (the default, the paper's) or unit of learning rate; the
            four are told in `adamw`.
        nu_dtype: as in `adamw`.
        eps_placement: as in `adamw`.
        eta_min: value of eta_t that each cycle falls to.
        eta_max: value of eta_t that the first cycle starts from.
        warmup: epochs of linear warm-up before the first cycle, an integer.
        peak_decay: what eta_max is multiplied by at each restart.
        rounding: as in `adamw`.

    Returns:
        A finished optimizer; 8 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        Batches of 1 from 4 points, a first cycle of 1 epoch: lambda = 0.008 / sqrt(4).

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([0.0])
        >>> tx = dwd.adamwr(0.1, 0.008, batch_size=1, dataset_size=4, period=1)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 6)
        -0.004

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 2, appendices B.1 and B.2.
    """
    schedule, weight_decay, removed = _restarts(
        learning_rate, normalized_weight_decay, batch_size, dataset_size, period, period_mult,
        coupling, eta_min, eta_max, warmup, peak_decay,
    )  # fmt: skip
    tx = adamw(
        learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask,
        nesterov=nesterov, schedule=schedule, coupling=coupling,
        nu_dtype=nu_dtype, eps_placement=eps_placement, rounding=rounding,
    )  # fmt: skip
    return warning_of_lost_decay(tx, removed, mask, rounding)


def sgdwr(
    learning_rate: NumberOrSchedule,
    normalized_weight_decay: Number,
    *,
    batch_size: Number,
    dataset_size: Number,
    period: Number,
    period_mult: Number = 1,
    momentum: Number | None = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DType = None,
    mask: Mask = None,
    learning_rate_in_buffer: bool = True,
    coupling: Coupling = "schedule",
    eta_min: Number = 0.0,
    eta_max: Number = 1.0,
    warmup: Number = 0,
    peak_decay: Number = 1.0,
    rounding: Rounding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGDW with warm restarts and normalized decay.

    $$\eta_t \text{ as in } \texttt{cosine\_warm\_restarts\_schedule}, \quad
    \lambda = \lambda_{norm} \sqrt{b / (B T_i)}$$

    for the cycle of $T_i$ epochs that the step is in: decay is recomputed at every restart.

    Args:
        learning_rate: alpha.
        normalized_weight_decay: lambda_norm, the decay if one batch were all there is; lambda is in
            the unit that `coupling` gives it.
        batch_size: b, an integer.
        dataset_size: B, training points, an integer.
        period: T_0, length of the first cycle in epochs of ceil(B / b) steps; an integer.
        period_mult: T_mult, growth of the cycles; an integer.
        momentum: as in `sgdw`, and so are all not named here.
        nesterov: as in `sgdw`.
        accumulator_dtype: as in `sgdw`.
        mask: which leaves decay: a tree, a prefix or a function, as in `adamw`.
        learning_rate_in_buffer: as in `sgdw`.
        coupling: what lambda is per, step (the default, the paper's) or unit of learning rate; the
            four are told in `adamw`.
        eta_min: value of eta_t that each cycle falls to.
        eta_max: value of eta_t that the first cycle starts from.
        warmup: epochs of linear warm-up before the first cycle, an integer.
        peak_decay: what eta_max is multiplied by at each restart.
        rounding: as in `sgdw`.

    Returns:
        A finished optimizer; 4 bytes of state a float32 parameter.

    Raises:
        TypeError, ValueError: as in `adamw`.

    Example:
        Batches of 1 from 4 points, a first cycle of 1 epoch: lambda = 0.008 / sqrt(4).

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> theta, g = jnp.array([1.0]), jnp.array([2.0])
        >>> tx = dwd.sgdwr(0.1, 0.008, batch_size=1, dataset_size=4, period=1)
        >>> u, _ = tx.update(g, tx.init(theta), theta)
        >>> round(float(u[0]), 6)  # -(0.1 * 2 + 0.004 * 1)
        -0.204

    Source: Loshchilov and Hutter, arXiv 1711.05101, Algorithm 1, appendices B.1 and B.2.
    """
    schedule, weight_decay, removed = _restarts(
        learning_rate, normalized_weight_decay, batch_size, dataset_size, period, period_mult,
        coupling, eta_min, eta_max, warmup, peak_decay,
    )  # fmt: skip
    tx = sgdw(
        learning_rate, momentum, nesterov, accumulator_dtype, weight_decay, mask,
        learning_rate_in_buffer=learning_rate_in_buffer, schedule=schedule, coupling=coupling,
        rounding=rounding,
    )  # fmt: skip
    return warning_of_lost_decay(tx, removed, mask, rounding)


def descend(**factors: NumberOrSchedule | None) -> optax.GradientTransformation:
    """Multiply by the factors and by -1, which ends the chain: what follows descends."""
    return scale_by_schedule(product(sign=-1.0, **factors))


def momentum_buffer(
    momentum: Number | None,
    nesterov: bool,
    accumulator_dtype: DType,
    rounding: MomentRounding | None,
) -> optax.GradientTransformation:
    """The buffer, or nothing."""
    _check.check_bool("nesterov", nesterov)
    if momentum is None:
        if nesterov or accumulator_dtype is not None:
            raise ValueError(
                "`momentum` is None, so there is no buffer for `nesterov` or `accumulator_dtype` "
                "to act on. Pass a momentum in [0, 1), or leave them out."
            )
        return optax.identity()
    return trace(momentum, nesterov, accumulator_dtype, rounding)


def _restarts(
    learning_rate, normalized_weight_decay, batch_size, dataset_size, period, period_mult,
    coupling, eta_min, eta_max, warmup, peak_decay,
):  # fmt: skip
    """The schedules of multiplier and decay, both counted in epochs; the decay of the first cycle."""
    weight_decay = normalized_weight_decay_schedule(
        normalized_weight_decay,
        batch_size=batch_size,
        dataset_size=dataset_size,
        period=period,
        period_mult=period_mult,
        warmup=warmup,
    )
    epoch = hyperparams.steps_per_epoch(batch_size, dataset_size)
    schedule = cosine_warm_restarts_schedule(
        _check.as_integer(period) * epoch,
        period_mult,
        eta_min=eta_min,
        eta_max=eta_max,
        warmup=_check.as_integer(warmup) * epoch,
        peak_decay=peak_decay,
    )
    first = hyperparams.normalized_weight_decay(
        normalized_weight_decay, batch_size, dataset_size, period
    )
    check_step(learning_rate, eta_max, coupling)
    removed = check_decay(
        first, learning_rate, eta_max, coupling, normalized=normalized_weight_decay
    )
    return schedule, weight_decay, removed
