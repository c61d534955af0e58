"""What comes first: decay, step, or a scale between them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._scaling import scale_by_adam, scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    HALVED,
    PAPER,
    SIGN,
    SMALL,
    a_t,
    adam_of,
    adam_step_of,
    adamw_of,
    at,
    decay_beside_step,
    l_t,
    last_step,
    sgdw_of,
    times,
    witness_values,
)


def _after(step: optax.GradientTransformation, removed: jax.Array) -> optax.GradientTransformation:
    """A finished step, and then decay."""
    return optax.chain(step, last_step(lambda theta, u, t: (1 - removed[t]) * (theta + u)))


def _heavy_ball_step(h: Hyper) -> optax.GradientTransformation:
    """The heavy ball with the rate inside, without decay, finished."""
    return optax.chain(scale_by_schedule(at(a_t(h))), optax.trace(h["beta"]), SIGN)


_EACH_TWICE = _problems.REGRESSION._replace(
    name="log-cosh regression, each batch seen twice",
    batches=jax.tree.map(lambda x: np.repeat(x, 2, axis=1), _problems.REGRESSION.batches),
)


def _decay_then_gradient(h: Hyper) -> optax.GradientTransformation:
    """Decay, then a step of Adam by the gradient at the decayed weights: every other micro-step."""

    def move(theta: jax.Array, update: jax.Array, count: jax.Array) -> jax.Array:
        decayed = (1 - l_t(h)[count // 2]) * theta
        return jnp.where(count % 2 == 0, decayed, theta + update)

    def odd(step: Any, **extra: Any) -> Any:
        del extra
        return step % 2 == 1

    adam = optax.transforms.conditionally_mask(adam_step_of(h), odd)
    return optax.chain(adam, last_step(move))


def _next(values: jax.Array) -> jax.Array:
    """The value of the step after; at the last, its own."""
    return jnp.concatenate([values[1:], values[-1:]])


def _penalized(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(
        optax.stateless(lambda g, theta: (g + h["penalty"] * h["s"] * theta) / h["s"]),
        optax.scale(h["alpha"]),
        SIGN,
    )


ROWS = (
    Relation(
        name="c1",
        statement="decay after the step = decay beside the step, for Adam, any schedule",
        left=lambda h: _after(adam_step_of(h), l_t(h)),
        right=decay_beside_step,
        verdict="rounding",
        map=lambda h: {"rate": a_t(h) * (1 - l_t(h))},
        map_text="a_t → a_t(1−l_t)",
        mutant=Mutant("a_t as it was", lambda r: {"rate": a_t(r)}),
        why="(1−l)(θ − au) = (1−l)θ − a(1−l)u.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="c2",
        statement="decay after the step = beside it, heavy ball with the rate inside, constant decay",
        left=lambda h: _after(_heavy_ball_step(h), jnp.full_like(h["eta"], h["lam"])),
        right=lambda h: sgdw_of(h, coupling="none"),
        verdict="rounding",
        map=lambda h: {"alpha": h["alpha"] * (1 - h["lam"])},
        map_text="α → α(1−λ)",
        start=lambda h: {"trace": (1 - h["lam"]) * h["trace"]},
        start_text="n_0 = (1−λ)m_0",
        values={"trace": np.linspace(-0.2, 0.3, 6)},
        mutant=Mutant("α as it was", lambda r: {"alpha": r["alpha"] / (1 - r["lam"])}),
        why="(1−λ)(θ − m) = (1−λ)θ − n with n = (1−λ)m, which is βn + (1−λ)a_tg. Where the decay "
        "changes, the factor is not the buffer's (N9).",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="c3",
        statement="decay first, then the step of the old gradient (PyTorch) = decay beside the step",
        left=lambda h: optax.chain(
            adam_step_of(h), last_step(lambda theta, u, t: (1 - l_t(h)[t]) * theta + u)
        ),
        right=decay_beside_step,
        verdict="rounding",
        map=lambda h: {"rate": a_t(h)},
        map_text="identical",
        mutant=Mutant("decay after the step", lambda r: {"rate": a_t(r) * (1 - l_t(r))}),
        why="p ← p(1−l), p ← p − au reads the gradient before either: p(1−l) − au.",
        source="torch.optim.AdamW",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="c4",
        statement="Adam: decay, then the gradient at decayed weights = step, then the next step's decay",
        left=_decay_then_gradient,
        right=lambda h: _after(adam_step_of(h), h["removed"]),
        verdict="rounding",
        map=lambda h: {"removed": _next(l_t(h))},
        map_text="l_t → l_{t+1}; the left side's weights times 1−l_{t+1} are the right side's",
        start=lambda h: {"theta0": (1 - l_t(h)[0]) * h["theta0"]},
        start_text="(1−l_1)θ_0",
        read_left=lambda h, path: (1 - _next(l_t(h)))[:, None] * path,
        mutant=Mutant("the same θ_0", lambda r: {"theta0": r["theta0"] / (1 - l_t(r)[0])}),
        why="Decay, gradient, step, decay, gradient, step, ...: one sequence, cut at other places.",
        source=DERIVED,
        problem=_EACH_TWICE,
        right_sees_whole_batch=True,
    ),
    Relation(
        name="d1",
        statement="proximal (implicit) decay = decay after the step",
        left=lambda h: optax.chain(
            adam_step_of(h), last_step(lambda theta, u, t: (theta + u) / (1 + l_t(h)[t]))
        ),
        right=lambda h: _after(adam_step_of(h), h["removed"]),
        verdict="rounding",
        map=lambda h: {"removed": l_t(h) / (1 + l_t(h))},
        map_text="l = μ/(1+μ)",
        mutant=Mutant("l = μ", lambda r: {"removed": l_t(r)}),
        why="1/(1+μ) = 1 − μ/(1+μ).",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="d2",
        statement="proximal (implicit) decay = decay beside the step",
        left=lambda h: optax.chain(
            adam_step_of(h), last_step(lambda theta, u, t: (theta + u) / (1 + l_t(h)[t]))
        ),
        right=lambda h: optax.chain(
            adam_of(h),
            scale_by_schedule(at(h["rate"])),
            decoupled_weight_decay(at(h["removed"])),
            SIGN,
        ),
        verdict="rounding",
        map=lambda h: {"removed": l_t(h) / (1 + l_t(h)), "rate": a_t(h) / (1 + l_t(h))},
        map_text="l = μ/(1+μ), a → a/(1+μ)",
        mutant=Mutant("a as it was", lambda r: {"rate": a_t(r)}),
        why="d1, then c1.",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="p5",
        statement="decay, then scale by c = scale by c, then c times the decay",
        left=lambda h: optax.chain(
            adam_of(h), optax.add_decayed_weights(h["lam"]), optax.scale(h["alpha"]), SIGN
        ),
        right=lambda h: optax.chain(
            adam_of(h), optax.scale(h["alpha"]), optax.add_decayed_weights(h["moved"]), SIGN
        ),
        verdict="rounding",
        map=lambda h: {"moved": h["alpha"] * h["lam"]},
        map_text="λ → cλ",
        mutant=times("moved", 1.01),
        why="Multiplication distributes: this is why the place in the chain is the unit of λ.",
        source=DERIVED,
        problem=_problems.REGRESSION,
        constant_schedule=True,
        quick=True,
    ),
    Relation(
        name="k1",
        statement="the paper's AdamW = optax.adamw, in PyTorch's unit too, any schedule",
        left=adamw_of,
        right=lambda h: optax.adamw(
            lambda step: a_t(h)[step],
            h["b1"],
            h["b2"],
            h["eps"],
            h["eps_root"],
            weight_decay=h["lam"],
        ),
        verdict="rounding",
        map=lambda h: {"lam": h["lam"] / h["alpha"]},
        map_text="weight_decay = λ/α, α the base learning rate",
        mutant=times("lam", 1.01),
        why="η_t(αu + λθ) = (αη_t)(u + (λ/α)θ).",
        source=f"{PAPER}, Algorithm 2; torch.optim.AdamW; optax.adamw",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="k1-nadamw",
        statement="NAdamW with the paper's decay = optax.nadamw, any schedule",
        left=lambda h: adamw_of(h, nesterov=True),
        right=lambda h: optax.nadamw(
            lambda step: a_t(h)[step],
            h["b1"],
            h["b2"],
            h["eps"],
            h["eps_root"],
            weight_decay=h["lam"],
        ),
        verdict="rounding",
        map=lambda h: {"lam": h["lam"] / h["alpha"]},
        map_text="weight_decay = λ/α, α the base learning rate",
        mutant=Mutant("weight_decay = λ", lambda r: {"lam": r["alpha"] * r["lam"]}),
        why="As k1: the look-ahead is in u, and u is the same.",
        source="Dozat 2016; optax.nadamw",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="k2",
        statement="AdamC's decay a_t²λ/α, α the base rate = AdamW, coefficient as the schedule",
        left=lambda h: adamw_of(h, coupling="corrected"),
        right=lambda h: adamw_of(h, coupling="learning_rate", weight_decay=at(h["coefficient"])),
        verdict="rounding",
        map=lambda h: {"coefficient": h["lam"] * a_t(h) / h["alpha"]},
        map_text="weight_decay_t = λ a_t/α",
        mutant=Mutant(
            "weight_decay = λ", lambda r: {"coefficient": jnp.full_like(r["eta"], r["lam"])}
        ),
        why="The decay per step is a_t²λ/α on both sides.",
        source="Defazio 2025, arXiv 2506.02285",
        problem=_problems.REGRESSION,
        quick=True,
    ),
    Relation(
        name="N13",
        statement="decay that ignores the schedule ≠ decay that follows it",
        left=lambda h: adamw_of(h, coupling="none"),
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values(HALVED, alpha=1.0, lam=0.1),
        gap=0.045,
        why="No gradient, η = (1, ½), λ = 0.1: 0.9·0.9 against 0.9·0.95.",
        source="TensorFlow Addons against the paper",
        problem=_problems.witness([1.0], [[0.0], [0.0]]),
        quick=True,
    ),
    Relation(
        name="N8",
        statement="decay after the step ≠ decay beside the step, at the same learning rate",
        left=lambda h: _after(adam_step_of(h), l_t(h)),
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.1, eps=0.0),
        gap=0.1,
        why="Adam's first step is α; g = θ_0 = 1, α = 1, λ = 0.1: 0.9·(1 − 1) = 0 against 0.9 − 1 = "
        "−0.1. The decay after the step takes λα of the step as well.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[1.0]]),
    ),
    Relation(
        name="N9",
        statement="decay after the step ≠ beside it at any rates in the buffer, if the decay changes",
        left=lambda h: _after(_heavy_ball_step(h), l_t(h)),
        right=lambda h: optax.chain(
            optax.scale(h["rate"]),
            optax.trace(h["beta"]),
            decoupled_weight_decay(at(l_t(h))),
            SIGN,
        ),
        verdict="never",
        map_text="every rate a'_1 of the first step; the second has no gradient",
        values=witness_values(HALVED, **SMALL),
        family={"rate": np.append(np.linspace(-2.0, 2.0, 401), 0.9 + 1 / 98)},
        gap=1 / 98,
        why="g = (1, 0), θ_0 = 0, α = 1, β = ½, l = (0.1, 0.05): after, −0.9 and −1.33; beside, −a'_1 "
        "and −1.45a'_1. The first asks for a'_1 = 0.9, which misses the second by β(l_1 − l_2)α = "
        "0.025; the distances |a'_1 − 0.9| and |1.33 − 1.45a'_1| balance at 0.9 + 1/98.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[1.0], [0.0]]),
    ),
    Relation(
        name="N11",
        statement="equation (2) of the paper as printed ≠ its Proposition 3, unless α = 1",
        left=lambda h: optax.chain(
            optax.stateless(lambda g, _: g / h["s"]),
            optax.scale(h["alpha"]),
            decoupled_weight_decay(h["lam"]),
            SIGN,
        ),
        right=_penalized,
        verdict="never",
        map=lambda h: {"penalty": h["lam"] / h["alpha"] / h["alpha"]},
        map_text="(λ'/(2α)) Σ s_i θ_i² with λ' = λ/α",
        values=witness_values([1.0], alpha=0.5, lam=0.1) | {"s": np.array([1.0, 4.0])},
        gap=0.1,
        why="No gradient, one step, θ_0 = (1, 1), α = ½, λ = 0.1: weight decay leaves 0.9; the penalty "
        "takes α·λ'/α = λ/α = 0.2 away. The appendix has (λ'/2), which is right (f1).",
        source=f"{PAPER}, equation (2) against appendix A",
        problem=_problems.witness([1.0, 1.0], [[0.0, 0.0]]),
    ),
    Relation(
        name="average-after-adam",
        statement="averaging before the preconditioner (Adam) ≠ averaging the preconditioned gradient",
        left=lambda h: optax.chain(
            scale_by_adam(0.0, h["b2"], h["eps"]), optax.ema(h["b1"]), optax.scale(h["alpha"]), SIGN
        ),
        right=adam_step_of,
        verdict="never",
        map_text="same numbers; RMSProp with bias correction, then optax.ema, against Adam",
        values=witness_values([1.0, 1.0], alpha=1.0, b1=0.5, b2=0.5, eps=0.0),
        gap=(1 - 3**-0.5) / 3,
        why="g = (1, 2), b1 = b2 = ½, eps = 0: m̂_2 = 5/3 and v̂_2 = 3, so Adam's second step is 5/(3√3); "
        "the average of 1 and 2/√3 is (1 + 4/√3)/3.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[1.0], [2.0]]),
    ),
)
