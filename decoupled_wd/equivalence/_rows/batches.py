"""Batches: accumulation, clipping, averages, restarts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._alias import adamw
from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._restarts import cosine_warm_restarts
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Mutant, Problem, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    FACTORS,
    PAPER,
    SIGN,
    SMALL,
    WITHOUT_EPS,
    a_t,
    adam_of,
    adamw_of,
    at,
    counted_restarts,
    multi_steps,
    plain_sgd_of,
    sgdw_of,
    witness_values,
)
from decoupled_wd.hyperparams import normalized_weight_decay
from decoupled_wd.schedules import cosine_warm_restarts_schedule

_PERIOD = 10
_ONE_EPOCH = {"dataset_size": 4800, "epochs": 1}


def _clipped(h: Hyper, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(h["norm"]), tx)


def _fresh_every(steps: Any, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Forget the state every so many steps, as a run does that starts from the parameters alone."""

    def init(params: Any) -> Any:
        return jnp.zeros([], jnp.int32), tx.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, inner = state
        inner = optax.tree.where(count % steps == 0, tx.init(params), inner)
        updates, inner = tx.update(updates, inner, params)
        return updates, (count + 1, inner)

    return optax.GradientTransformation(init, update)


def _gradient_of_scaled_loss(h: Hyper) -> optax.GradientTransformation:
    """Differentiate `scale` times the loss of the regression, in the place of the gradient given."""

    def init(params: Any) -> jax.Array:
        del params
        return jnp.zeros([], jnp.int32)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, jax.Array]:
        del updates
        x, y = (jnp.asarray(values)[state, 0] for values in _problems.REGRESSION.batches)

        def loss(theta: jax.Array) -> jax.Array:
            return h["scale"] * jnp.mean(jnp.log(jnp.cosh(x @ theta - y)))

        return jax.grad(loss)(params), state + 1

    return optax.GradientTransformation(init, update)


def _scaled_and_unscaled(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(_gradient_of_scaled_loss(h), optax.scale(h["undo"]), adamw_of(h))


def _micro_schedule(h: Hyper) -> jax.Array:
    """S: the multipliers of the micro-steps, four times as many."""
    return jnp.tile(h["eta"], 4)


def _schedule_outside(h: Hyper) -> optax.GradientTransformation:
    inside = adamw(h["alpha"], h["b1"], h["b2"], h["eps"], h["eps_root"], weight_decay=h["lam"])
    return optax.chain(multi_steps(inside), scale_by_schedule(at(_micro_schedule(h))))


def _decay_outside(h: Hyper, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Decay at every micro-step, a step at every fourth."""
    return optax.chain(multi_steps(tx), SIGN, decoupled_weight_decay(h["lam"]), SIGN)


def _restarting(h: Hyper, restarts: optax.GradientTransformation) -> optax.GradientTransformation:
    """The paper's AdamW with these restarts for eta_t."""
    return optax.chain(
        adam_of(h), scale_by_schedule(h["alpha"]), decoupled_weight_decay(h["lam"]), restarts, SIGN
    )


ROWS = (
    Relation(
        name="o",
        statement="MultiSteps(k) around optimizer and decay = one step on the k-fold batch",
        left=lambda h: multi_steps(adamw_of(h)),
        right=adamw_of,
        verdict="rounding",
        map_text="identical: the decay acts once in k micro-steps",
        mutant=Mutant(
            "a decay for each of four micro-steps", lambda r: {"lam": 1 - (1 - r["lam"]) ** 4}
        ),
        why="The accumulated mean gradient is the gradient of the k-fold batch.",
        source="optax.MultiSteps, accumulating in float64",
        problem=_problems.MICRO_BATCHES,
        right_sees_whole_batch=True,
        quick=True,
    ),
    Relation(
        name="o-normalized",
        statement="MultiSteps(k), normalized decay for k times the batch = k-fold batch, √k times λ",
        left=lambda h: multi_steps(
            adamw_of(h, weight_decay=normalized_weight_decay(h["lam"], batch_size=16, **_ONE_EPOCH))
        ),
        right=adamw_of,
        verdict="rounding",
        map=lambda h: {
            "lam": 2 * normalized_weight_decay(h["lam"], batch_size=4, **_ONE_EPOCH),
        },
        map_text="λ → √k λ, λ = λ_norm√(b/BT), micro-batches of b = 4 of B = 4800 points, T = 1, k = 4",
        mutant=Mutant("λ as it was", lambda r: {"lam": r["lam"] / 2}),
        why="The decay acts once in k micro-steps (o), on batches of kb: √(kb/BT) = √k √(b/BT).",
        source=f"{PAPER}, appendix B.1; optax.MultiSteps, accumulating in float64",
        problem=_problems.MICRO_BATCHES,
        right_sees_whole_batch=True,
    ),
    Relation(
        name="p3",
        statement="warm restarts in closed form = restarts counted step by step",
        left=lambda h: _restarting(h, cosine_warm_restarts(7, 3)),
        right=lambda h: _restarting(h, counted_restarts(h["first"], 3)),
        verdict="rounding",
        map_text="T_0 = 7, T_mult = 3: restarts at 7, 28, 91, 280",
        values={"first": np.int32(7)},
        mutant=Mutant("first cycle 8", lambda r: {"first": r["first"] + 1}),
        why="Cycle i starts at T_0(T_mult^i − 1)/(T_mult − 1).",
        source=f"{PAPER}, appendix B.2",
        problem=_problems.REGRESSION,
        constant_schedule=True,
        quick=True,
    ),
    Relation(
        name="p4",
        statement="SGD with decay under warm restarts = after each restart, a fresh run from there",
        left=lambda h: sgdw_of(h, schedule=cosine_warm_restarts_schedule(_PERIOD)),
        right=lambda h: _fresh_every(
            h["steps"], sgdw_of(h, schedule=optax.cosine_decay_schedule(1.0, _PERIOD))
        ),
        verdict="rounding",
        map_text="cycles of 10 steps; a fresh run is one cosine annealing",
        start_text="state from `init` at every restart",
        values={"beta": 0.0, "steps": np.int32(_PERIOD)},
        constant_schedule=True,
        condition="β = 0",
        outside={"beta": Interval(0.1, 0.95)},
        mutant=Mutant("fresh runs of 11 steps", lambda r: {"steps": r["steps"] + 1}),
        why="Without momentum there is no state but the count, which a restart sets back.",
        source=f"{PAPER}, SGDWR",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="multisteps-schedule",
        statement="schedule outside MultiSteps(k), of micro-steps = k-fold batch, every kth multiplier",
        left=_schedule_outside,
        right=lambda h: adamw_of(h, schedule=at(h["multipliers"])),
        verdict="rounding",
        map=lambda h: {"multipliers": _micro_schedule(h)[3::4]},
        map_text="s(t) = S(kt), t and the micro-steps counted from 1, k = 4",
        mutant=Mutant("s(t) = S(t), as inside", lambda r: {"multipliers": r["eta"]}),
        why="A schedule outside counts micro-steps, and what it multiplies is 0 but at the kth. As "
        "it stands after the decay, it multiplies both: the paper's place.",
        source="optax.MultiSteps, accumulating in float64",
        problem=_problems.MICRO_BATCHES,
        right_sees_whole_batch=True,
    ),
    Relation(
        name="clip-loss-scale",
        statement="SGDW behind clipping by the global norm = the same on c times the loss",
        left=lambda h: _clipped(h, sgdw_of(h)),
        right=lambda h: optax.chain(optax.scale(h["c"]), _clipped(h, sgdw_of(h))),
        verdict="rounding",
        map=lambda h: {"norm": h["c"] * h["norm"], "alpha": h["alpha"] / h["c"]},
        map_text="C → cC, α → α/c, same λ (the paper's)",
        values={"norm": 1.0, "c": 37.0},
        domain={"norm": Interval(0.1, 10.0), "c": FACTORS},
        mutant=Mutant("C as it was", lambda r: {"norm": r["norm"] / r["c"]}),
        why="clip(cg, cC) = c·clip(g, C), and α/c takes the c away (e4).",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="clip-adamw",
        statement="AdamW with eps = 0, clipped at every step: C = any other C",
        left=lambda h: _clipped(h, adamw_of(h)),
        right=lambda h: _clipped(h, adamw_of(h)),
        verdict="rounding",
        map=lambda h: {"norm": h["other"]},
        map_text="C → C'",
        values={**WITHOUT_EPS, "norm": 1.0, "other": 0.01},
        condition="eps = eps_root = 0; C, C' ≤ 1.2, below the norm of every gradient",
        domain={"norm": Interval(1e-3, 1.2), "other": Interval(1e-3, 1.2)},
        outside={"other": Interval(2.5, 10.0)},
        mutant=Mutant("C' = 3", lambda r: {"norm": 3.0}),
        why="Clipped gradients are C·g/|g|: C is a factor of the loss, which Adam does not see (e1). "
        "Clipping is then normalization.",
        source=DERIVED,
        problem=_problems.AWAY_FROM_ZERO,
    ),
    Relation(
        name="loss-scale",
        statement="AdamW, loss scaled by 2¹⁵ and gradients unscaled = the same by 1, to the last bit",
        left=_scaled_and_unscaled,
        right=_scaled_and_unscaled,
        verdict="bitwise",
        tolerance=0.0,
        map=lambda h: {"scale": h["other"], "undo": 1 / h["other"]},
        map_text="scale 1 → 2¹⁵ = 32768; the same program, as another may round otherwise",
        values={"scale": 1.0, "undo": 1.0, "other": 2.0**15},
        condition="the scale is a power of two, and nothing over- or underflows",
        outside={"other": Interval(1e3, 1e5)},
        mutant=Mutant("not unscaled", lambda r: {"undo": 0 * r["undo"] + 1}),
        why="Every number on the way back through the loss takes the scale as a factor, and a power of "
        "two changes the exponent alone; another number rounds (3·2¹⁴ leaves 2·10⁻¹⁶).",
        source="Micikevicius et al. 2018, arXiv 1710.03740",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="N14",
        statement="decay outside MultiSteps ≠ decay inside",
        left=lambda h: _decay_outside(h, adamw_of(h, weight_decay=0.0)),
        right=lambda h: multi_steps(adamw_of(h)),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.1),
        gap=0.2439,
        why="No gradient, four micro-steps, λ = 0.1: 0.9⁴ against 0.9.",
        source=DERIVED,
        problem=_problems.silent_micro_steps([1.0], 4),
        quick=True,
    ),
    Relation(
        name="N14-root",
        statement="decay inside MultiSteps(k) ≠ decay outside by the kth root of what it leaves",
        left=lambda h: multi_steps(plain_sgd_of(h)),
        right=lambda h: _decay_outside(h, plain_sgd_of(h, weight_decay=0.0)),
        verdict="never",
        map=lambda h: {"lam": 1 - (1 - h["lam"]) ** 0.25},
        map_text="λ → 1 − (1−λ)^{1/k}, k = 4",
        values=witness_values([1.0], alpha=1.0, lam=0.3439),
        gap=0.14025,
        why="Loss θ²/2, θ_0 = 1, α = 1, 1−λ = 0.9⁴: inside, the mean gradient is 1. Outside, weights "
        "drift between micro-steps, and it is (1 + 0.9 + 0.81 + 0.729)/4 = 0.85975.",
        source=DERIVED,
        problem=Problem(
            "loss θ²/2, four micro-steps", lambda theta, batch: theta, np.zeros((1, 4)), np.ones(1)
        ),
    ),
    Relation(
        name="N16",
        statement="clipping after the penalty is added ≠ decay that clipping does not see",
        left=lambda h: optax.chain(
            add_l2_to_grad(h["penalty"]),
            optax.clip_by_global_norm(1.0),
            scale_by_schedule(at(a_t(h))),
            SIGN,
        ),
        right=lambda h: optax.chain(optax.clip_by_global_norm(1.0), plain_sgd_of(h)),
        verdict="never",
        map_text="λ' = λ/α, as a1 has it",
        values=witness_values([1.0], alpha=0.1, lam=0.1, penalty=1.0),
        gap=0.1,
        why="No gradient, θ_0 = 2, α = λ = 0.1, λ' = 1: the penalty's gradient 2 is clipped to 1, so "
        "1.9 against 1.8. In plain SGD too.",
        source=DERIVED,
        problem=_problems.witness([2.0], [[0.0]]),
        quick=True,
    ),
    Relation(
        name="N18",
        statement="SGDW under warm restarts ≠ a fresh run from each restart, if there is momentum",
        left=lambda h: sgdw_of(h, schedule=cosine_warm_restarts_schedule(1)),
        right=lambda h: _fresh_every(1, sgdw_of(h)),
        verdict="never",
        map_text="same numbers",
        start_text="state from `init` at the restart",
        values=witness_values([1.0, 1.0], **SMALL),
        gap=0.5,
        why="g = (1, 0), θ_0 = 0, cycles of one step, α = 1, β = ½, λ = 0.1: −1 and then −0.9 − ½ with "
        "the buffer of the cycle before, −0.9 without.",
        source=f"{PAPER}, whose restarts keep the buffer",
        problem=_problems.witness([0.0], [[1.0], [0.0]]),
    ),
    Relation(
        name="multisteps-schedule-inside",
        statement="schedule inside MultiSteps ≠ schedule outside",
        left=lambda h: multi_steps(adamw_of(h)),
        right=_schedule_outside,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0, 1.0, 1.0, 0.5], alpha=1.0, lam=0.1),
        gap=0.05,
        why="No gradient, four micro-steps, η = (1, 1, 1, ½), λ = 0.1: inside, the update is the first, "
        "0.9; outside it comes at the fourth micro-step, 0.95.",
        source=DERIVED,
        problem=_problems.silent_micro_steps([1.0], 4),
    ),
    Relation(
        name="clip-adamw-naive",
        statement="AdamW with eps = 0 behind clipping ≠ AdamW: scale-free is not clip-free",
        left=lambda h: _clipped(h, adamw_of(h)),
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values(
            [1.0, 1.0], alpha=1.0, lam=0.1, b1=0.0, b2=0.5, eps=0.0, eps_root=0.0, norm=1.0
        ),
        gap=2 / 3**0.5 - 1,
        why="g = (1, 2), θ_0 = 0, b1 = 0, b2 = ½, C = 1: clipped, g = (1, 1) and both steps are 1; else "
        "v̂_2 = 3, and the second is 2/√3. Clipping has another factor at every step.",
        source=DERIVED,
        problem=_problems.witness([0.0], [[1.0], [2.0]]),
    ),
)
