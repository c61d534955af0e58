r"""How much a weight decays, by rules that see norms or moments, for `strength=`.

A strength multiplies lambda: for each leaf (or each weight) by what it sees there, or for all of them by
what it sees of the whole tree. It is a record and no function, so `optax.inject_hyperparams` leaves it
alone. With mask, penalty, reference and gate it combines freely. Norms and means are of the arrays as
they are given: under `jit` of the whole leaf, however it is sharded, inside `shard_map` of the shard.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number, NumberOrSchedule, Params, Updates
from decoupled_wd.gates import Seen, check_handed_on

__all__ = [
    "SeenWhole",
    "Strength",
    "norm_control",
    "constrained",
    "gradient_norm",
    "standardized_gradient",
    "stable",
    "deviation_growth",
]


class SeenWhole(NamedTuple):
    """What a strength whose rule is one for the whole tree may look at.

    Example:
        As much as the updates are long, here 5:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> def length(seen, memory):
        ...     return optax.tree.norm(seen.updates), memory
        >>> strength = dwd.strengths.Strength("length", whole=length)
        >>> decay = dwd.decoupled_weight_decay(0.5, strength=strength)
        >>> u, theta = jnp.array([3.0, 4.0]), jnp.array([2.0, 2.0])
        >>> print(decay.update(u, decay.init(theta), theta)[0] - u)  # 0.5 * 5 * 2
        [5. 5.]
    """

    updates: Updates
    """The updates where the decay stands."""
    params: Params
    gradient: Updates | None
    """The gradient of the loss, where it is known: in `add_l2_to_grad` and its kin, or handed on by
    `informed_chain`; else None."""
    moments: Any
    """The states with second moments of the nearest transformation before this one that has any, as a
    tuple, handed on by `informed_chain`; else None."""
    count: jax.Array
    """0-based step."""


@dataclasses.dataclass(frozen=True)
class Strength:
    """A rule for how much a weight decays: a factor of lambda.

    Example:
        Half as much for every weight that is larger than 1:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> def less(seen, memory):
        ...     return jnp.where(abs(seen.parameter) > 1, 0.5, 1.0), memory
        >>> tamed = dwd.strengths.Strength("tamed", less)
        >>> decay = dwd.decoupled_weight_decay(0.5, strength=tamed)
        >>> theta = jnp.array([1.0, 4.0])
        >>> u, _ = decay.update(jnp.zeros(2), decay.init(theta), theta)
        >>> print(u)
        [0.5 1. ]
    """

    name: str
    leaf: Callable[[Seen, dict[str, jax.Array]], tuple[Any, dict[str, jax.Array]]] | None = None
    """`(seen, memory) -> (factor, memory)` of one leaf; a scalar factor, or one for each weight."""
    remembers: Mapping[str, Callable[[jax.Array], jax.Array]] = dataclasses.field(
        default_factory=dict
    )
    """The leaf's memory at `init`, by name, from the parameter."""
    whole: Callable[[SeenWhole, dict[str, jax.Array]], tuple[Any, dict[str, jax.Array]]] | None = (
        None
    )
    """`(seen, memory) -> (factor, memory)` of the whole tree; a scalar factor."""
    remembers_whole: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The whole's memory at `init`, by name."""

    def __repr__(self) -> str:
        return f"strengths.{self.name}"

    def of_leaf(
        self, seen: Seen, memory: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The factor of one leaf, and what is remembered of it."""
        return _ruled(self, self.leaf, self.remembers, seen, memory)

    def of_whole(
        self, seen: SeenWhole, memory: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The factor of the whole tree, and what is remembered of it."""
        return _ruled(self, self.whole, self.remembers_whole, seen, memory)


def check_strength(value: Any) -> None:
    """Require a strength, or None."""
    if value is None:
        return
    if isinstance(value, Strength):
        _check_has_rule(value)
        return
    makers = (
        norm_control, constrained, gradient_norm, standardized_gradient, stable, deviation_growth,
    )  # fmt: skip
    _check.check_called("strength", value, makers, "strengths")
    raise TypeError(
        f"`strength` is {value!r}, and a strength is needed, such as strengths.norm_control(): a rule "
        "that multiplies the decay. A number belongs in `weight_decay`, one number a leaf in `mask`."
    )


def _ruled(
    strength: Strength, rule: Any, names: Mapping[str, Any], seen: Any, memory: Mapping[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    result = rule(seen, {name: memory[name] for name in names})
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise TypeError(
            f"`strength` is {strength}, whose rule gave {type(result).__name__} where a pair is needed, "
            "the factor and the memory: `return factor, memory`."
        )
    factor, kept = result
    if not set(kept) <= set(names):
        raise ValueError(
            f"`strength` is {strength}, whose rule gave a memory of {sorted(kept)} where "
            f"{sorted(names)} is remembered."
        )
    return jnp.asarray(factor), kept


def _check_has_rule(strength: Strength) -> None:
    if strength.leaf is None and strength.whole is None:
        raise ValueError(
            f"`strength` is {strength}, which has no rule: give it a function `leaf`, or `whole`."
        )
    taken = {"toward", "tracked"} & {*strength.remembers, *strength.remembers_whole}
    if taken:
        raise ValueError(
            f"`strength` is {strength}, which remembers {', '.join(map(repr, sorted(taken)))}: this "
            "name is that of the reference's or the penalty's memory. Choose another."
        )


def norm_control(
    ratio: NumberOrSchedule | None = None, *, target: NumberOrSchedule | None = None
) -> Strength:
    r"""Pull the norm of each leaf towards a target, from above and from below: weight norm control.

    $$s = 1 - \frac{R}{\lVert \theta \rVert}, \quad R = r \lVert \theta_0 \rVert$$

    so that the decay is $\lambda (1 - R / \lVert\theta\rVert) \theta$: with r = 0 weight decay, with
    lambda = 1 per step (place D) a leap to the target norm, less the step. A leaf of norm 0 is given no
    length, and one that began at 0 has the target 0 under `ratio`: leave biases out with `mask`. In
    `proximal_weight_decay`, what lengthens a leaf is explicit.

    Args:
        ratio: r, target norm over initial norm, 0 or more; a number or a callable of the step. None is
            1 without `target`.
        target: R itself, in units of the parameters, in place of `ratio`.

    Returns:
        A strength, for `strength=`; with `ratio` each leaf's initial norm is remembered.

    Raises:
        TypeError: neither a number nor a callable.
        ValueError: a negative number; both of the two.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(1.0, strength=dwd.strengths.norm_control(target=10.0))
        >>> theta = jnp.array([3.0, 4.0])
        >>> u, _ = decay.update(jnp.zeros(2), decay.init(theta), theta)
        >>> print(theta - u)  # 10/5 times as long
        [6. 8.]

    Source: Loshchilov 2023, "Weight Norm Control", arXiv 2311.11446 (AdamWN). Unclear there: whether
    norms are per leaf, as here, or of all weights.
    """
    if ratio is not None and target is not None:
        raise ValueError(
            f"`ratio` is {ratio} and `target` is {target}, and one of them is meant: the norm relative "
            "to the initial one, or the norm itself."
        )
    name, given = ("target", target) if target is not None else ("ratio", 1.0)
    given = given if ratio is None else ratio
    _check.check_number_or_schedule(name, given, minimum=0.0)

    def leaf(seen: Seen, memory: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        norm = _moments.norm(seen.parameter)
        aim = _tree.cast(_tree.scalar(name, given, seen.count), norm.dtype) * memory.get(
            "norm", jnp.ones_like(norm)
        )
        return _over_norm(norm - aim, norm), memory

    remembers = {"norm": lambda theta: _moments.norm(_tree.widen(theta))} if target is None else {}
    return Strength(f"norm_control({name}={given})", leaf, remembers)


def constrained(
    bound: Number | None = None,
    *,
    initial_ratio: Number | None = None,
    warmup: Number | None = None,
    rate: Number = 1.0,
    per_weight: bool = True,
) -> Strength:
    r"""Decay each leaf just as much as keeps its squared norm below a bound: CPR.

    $$\mu \leftarrow \max(0, \mu + \tfrac{\rho}{n} (\lVert x \rVert^2 - \kappa)), \quad s = 2 \mu$$

    with n the leaf's number of weights and x its distance from the reference. Paper and code differ.
    The paper's norm and decay (lambda = 1 at place D) are those before the step, and nothing is
    divided: `decoupled_weight_decay(1.0, strength=constrained(..., per_weight=False))`. The code's are
    those after the step, and explicit:
    `proximal_weight_decay(1.0, penalty=explicit(L2), strength=constrained(...))`. Nothing caps mu: from
    2 mu = 1 on a step overshoots zero. Leave out with `mask` what begins at 0, such as biases: under
    `initial_ratio` its bound is 0.

    Args:
        bound: kappa, the same for every leaf, in units of the parameters squared.
        initial_ratio: in place of it, kappa over the leaf's squared norm at `init`.
        warmup: in place of both, an integer, 1 or more: kappa is the squared norm in the step of that
            number, and decay begins with the next.
        rate: rho, how fast the multiplier moves.
        per_weight: whether it is divided by n (the code) or not (the paper).

    Returns:
        A strength, for `strength=`; mu and kappa of each leaf are remembered.

    Raises:
        TypeError: a callable or array where a number is meant.
        ValueError: a number out of range; none or several of the three.

    Example:
        The squared norm, 25, is 10 above the bound; mu becomes 10/2:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.25, strength=dwd.strengths.constrained(15.0))
        >>> theta = jnp.array([3.0, 4.0])
        >>> u, _ = decay.update(jnp.zeros(2), decay.init(theta), theta)
        >>> print(u)  # 0.25 * 2 * 5 * theta
        [ 7.5 10. ]

    Source: Franke et al. 2023, "Improving Deep Learning Optimization through Constrained Parameter
    Regularization", arXiv 2311.09058, Algorithm 1, and their code. Not here: their search for an
    inflection point of the norm, which that code has in two versions that differ.
    """
    ways = {"bound": bound, "initial_ratio": initial_ratio, "warmup": warmup}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in given) or 'Nothing'} is given, and one of `bound`, "
            "`initial_ratio` and `warmup` is needed: what the squared norm may be."
        )
    _check.check_number("rate", rate, minimum=0.0)
    _check.check_bool("per_weight", per_weight)
    for name in ("bound", "initial_ratio"):
        if ways[name] is not None:
            _check.check_number(name, ways[name], minimum=0.0)
    if warmup is not None:
        _check.check_integer("warmup", warmup, minimum=1)

    def first_bound(theta: jax.Array) -> jax.Array:
        square = _moments.norm(_tree.widen(theta)) ** 2
        if warmup is not None:
            return jnp.full_like(square, jnp.inf)
        if bound is not None:
            return jnp.ones_like(square) * _tree.like(bound, square)
        return square * _tree.like(initial_ratio, square)

    def leaf(seen: Seen, memory: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = seen.distance if seen.landing is None else seen.landing
        square = _moments.norm(x) ** 2
        kappa = memory["bound"]
        pace = _tree.like(rate, square) / (max(x.size, 1) if per_weight else 1)
        excess = jnp.where(jnp.isinf(kappa), 0, square - kappa)
        multiplier = jnp.maximum(memory["multiplier"] + pace * excess, 0)
        if warmup is not None:
            kappa = jnp.where(seen.count == _check.as_integer(warmup) - 1, square, kappa)
        return 2 * multiplier, {"multiplier": multiplier, "bound": kappa}

    remembers = {
        "multiplier": lambda theta: jnp.zeros_like(_moments.norm(_tree.widen(theta))),
        "bound": first_bound,
    }
    return Strength(f"constrained({given[0]}={ways[given[0]]})", leaf, remembers)


def gradient_norm(average: Number = 0.1) -> Strength:
    r"""Let the decay follow the gradient, so that the ratio of their norms is lambda: AWD.

    $$s_t = b s_{t-1} + (1-b) \frac{\lVert g \rVert}{\lVert \theta \rVert}, \quad s_0 = 0$$

    with norms of the whole tree. It belongs to an L2 penalty in front of the moments
    (`add_l2_to_grad`), where the updates are the gradient; elsewhere the gradient is to be handed
    on with `informed_chain`.

    Args:
        average: b, weight of the past, in [0, 1). Without correction of the first steps, as in the
            source.

    Returns:
        A strength, for `strength=`; lambda is then a pure number, the ratio of the norms of decay and
        gradient (0.022 in the source).

    Raises:
        TypeError: `average` is no number.
        ValueError: it is outside [0, 1); in `update`, no gradient is known.

    Example:
        The gradient is half as long as the weights, and the penalty a quarter of the gradient:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> penalty = dwd.add_l2_to_grad(0.25, strength=dwd.strengths.gradient_norm(0.0))
        >>> theta, g = jnp.array([6.0, 8.0]), jnp.array([4.0, -3.0])
        >>> updates, _ = penalty.update(g, penalty.init(theta), theta)
        >>> print(updates - g)
        [0.75 1.  ]

    Source: Ghiasi, Shafahi and Ardekani 2022, "Improving Robustness with Adaptive Weight Decay", arXiv
    2210.00094; the formula from two others' code, the paper was not read.
    """
    _check.check_beta("average", average)

    def whole(
        seen: SeenWhole, memory: dict[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        gradient = check_handed_on("strengths.gradient_norm", seen.gradient)
        norm = _moments.norm_of_all(seen.params)
        ratio = _over_norm(_moments.norm_of_all(gradient), norm)
        past = memory["average"]
        follows = _moments.moving_average(_tree.cast(ratio, past.dtype), past, average)
        return follows, {"average": follows}

    return Strength(f"gradient_norm({average})", whole=whole, remembers_whole={"average": 0.0})


def standardized_gradient(steepness: Number = 4.0) -> Strength:
    r"""Decay a weight more the larger its gradient is among those of its leaf: AdaDecay.

    $$s_i = \frac{2}{1 + \exp(-a \hat g_i)}, \quad
    \hat g_i = \frac{|g_i| - \text{mean}|g|}{\text{std}|g|}$$

    It belongs to a penalty in front of the moments (`add_l2_to_grad`), where the updates are the
    gradient; elsewhere the gradient is to be handed on with `informed_chain`.

    Args:
        steepness: a; 0 or more. 0 is the plain penalty.

    Returns:
        A strength, for `strength=`, from 0 to 2, 1 where gradients are all alike.

    Raises:
        TypeError: `steepness` is no number.
        ValueError: it is negative; in `update`, no gradient is known.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> penalty = dwd.add_l2_to_grad(0.5, strength=dwd.strengths.standardized_gradient(100.0))
        >>> theta, g = jnp.array([8.0, 8.0]), jnp.array([1.0, -3.0])
        >>> updates, _ = penalty.update(g, penalty.init(theta), theta)
        >>> print(updates - g)
        [0. 8.]

    Source: Nakamura and Hong 2019, "Adaptive Weight Decay for Deep Neural Networks", arXiv 1907.08931;
    the formula from others' code, the paper was not read.
    """
    _check.check_number("steepness", steepness, minimum=0.0)

    def leaf(seen: Seen, memory: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        size = jnp.abs(check_handed_on("strengths.standardized_gradient", seen.gradient))
        mean, spread = jnp.mean(size), jnp.std(size)
        # What rounding makes of gradients that are alike is no spread.
        spread = jnp.where(spread <= 16 * jnp.finfo(size.dtype).eps * mean, 0, spread)
        standard = _over_norm(size - mean, spread)
        return 2 * jax.nn.sigmoid(_tree.like(steepness, standard) * standard), memory

    return Strength(f"standardized_gradient({steepness})", leaf)


def stable(b2: Number = 0.999) -> Strength:
    r"""Divide the decay by what Adam divides a typical gradient by: stable weight decay, AdamS.

    $$s = 1 / \sqrt{\text{mean } \hat v}, \quad \hat v = v / (1 - b_2^t)$$

    with the mean over all weights of all leaves, and $v$ that of this step (of AMSGrad, too, and not
    its maximum). The second moments are to be handed on:

        informed_chain(scale_by_adam(...), decoupled_weight_decay(..., strength=stable()), ...)

    For SGD with momentum the source divides by $1 - \beta$, which is a number: put it into
    `weight_decay`.

    Args:
        b2: that of the moments, which do not tell it, in [0, 1).

    Returns:
        A strength, for `strength=`; lambda is per unit of learning rate and gradient. While all
        second moments are 0 nothing decays.

    Raises:
        TypeError: `b2` is no number.
        ValueError: it is outside [0, 1); in `update`, no moments are handed on, or they count no steps.

    Example:
        The gradient is 2 for all weights, so decay is halved:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.decoupled_weight_decay(0.5, strength=dwd.strengths.stable())
        >>> tx = dwd.informed_chain(dwd.scale_by_adam(eps=0.0), decay)
        >>> theta = jnp.array([4.0])
        >>> u, _ = tx.update(jnp.array([2.0]), tx.init(theta), theta)
        >>> round(float(u[0]), 4)  # 1 + 0.5 / 2 * 4
        2.0

    Source: Xie et al. 2020, "On the Overlooked Pitfalls of Weight Decay and How to Mitigate Them", arXiv
    2011.11152, and their code.
    """
    _check.check_beta("b2", b2)

    def whole(
        seen: SeenWhole, memory: dict[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if seen.moments is None:
            raise ValueError(
                "`moments` is missing: strengths.stable reads the second moments of a transformation "
                "before it. Chain the two with `informed_chain` in place of `optax.chain`, the moments "
                "first."
            )
        total, size = jnp.zeros([], _tree.default_float()), 0
        for state in seen.moments:
            if "count" not in getattr(state, "_fields", ()):  # Any tuple has a method `count`.
                raise ValueError(
                    f"`moments` are those of a {type(state).__name__}, which counts no steps: "
                    "strengths.stable needs those of Adam or AMSGrad, which correct their bias."
                )
            correction = _moments.bias_correction(b2, state.count)
            for v in map(_tree.widen, jax.tree.leaves(state.nu)):
                total += _tree.cast(jnp.sum(_moments.real_part(v)), total.dtype) / correction
                size += v.size
        of_updates = sum(jnp.size(u) for u in jax.tree.leaves(seen.updates))
        if size < of_updates:
            raise ValueError(
                f"`moments` are of {size} weights, and {of_updates} get updates: strengths.stable "
                "takes the mean over all of them. Give it to the part of `optax.partition` whose "
                "optimizer has second moments."
            )
        root = jnp.sqrt(total / max(size, 1))
        return _over_norm(jnp.ones_like(root), root), memory

    return Strength(f"stable({b2})", whole=whole)


def deviation_growth() -> Strength:
    r"""Take back the part of the step by which the distance from the reference grows: SPD.

    $$s = \max(0, 1 - \lVert x \rVert / \lVert x' \rVert)$$

    with $x$ the leaf's distance before the step and $x'$ after it, so only last in a chain. The whole is

        informed_chain(scale_by_adam(), optax.scale(-alpha), proximal_weight_decay(
            lam, penalty=explicit(L2), toward="initial", gate=gates.selective(),
            strength=strengths.deviation_growth()))

    Returns:
        A strength, for `strength=`; lambda is per step, and 1 leads back to the old distance.

    Raises:
        ValueError: in `update`, the decay does not stand last (`proximal_weight_decay`).

    Example:
        The step doubles the distance from 0, and half of the growth is taken back:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> decay = dwd.proximal_weight_decay(
        ...     0.5, penalty=dwd.explicit(dwd.L2), strength=dwd.strengths.deviation_growth())
        >>> theta = jnp.array([2.0])
        >>> u, _ = decay.update(jnp.array([2.0]), decay.init(theta), theta)
        >>> print(theta + u)  # 4 (1 - 0.5 (1 - 2/4))
        [3.]

    Source: Tian et al. 2024, "Rethinking Weight Decay for Robust Fine-Tuning of Foundation Models",
    arXiv 2411.01713, and copies of their code.
    """

    def leaf(seen: Seen, memory: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        if seen.landing is None:
            raise ValueError(
                "strengths.deviation_growth compares the weights before and after the step, which is "
                "known last in a chain alone: use it in `proximal_weight_decay`."
            )
        after = _moments.norm(seen.landing)
        return jnp.maximum(_over_norm(after - _moments.norm(seen.distance), after), 0), memory

    return Strength("deviation_growth()", leaf)


def _over_norm(x: jax.Array, norm: jax.Array) -> jax.Array:
    """x / norm, and 0 where the norm is 0: of nothing there is no direction."""
    return jnp.where(norm == 0, 0, x / jnp.where(norm == 0, 1, norm))
