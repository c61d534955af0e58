"""What comes first: decay, step, or a scale between them."""

import jax.numpy as jnp
import optax

from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    HALVED,
    PAPER,
    SIGN,
    a_t,
    adam_of,
    adam_step_of,
    adamw_of,
    at,
    decay_beside_step,
    l_t,
    last_step,
    times,
    witness_values,
)

ROWS = (
    Relation(
        name="c1",
        statement="decay after the step = decay beside the step, for Adam, any schedule",
        left=lambda h: optax.chain(
            adam_step_of(h), last_step(lambda theta, u, t: (1 - l_t(h)[t]) * (theta + u))
        ),
        right=decay_beside_step,
        verdict="rounding",
        map=lambda h: {"rate": a_t(h) * (1 - l_t(h))},
        map_text="a_t → a_t(1−l_t)",
        mutant=Mutant("a_t as it was", lambda r: {"rate": a_t(r)}),
        why="(1−l)(θ − au) = (1−l)θ − a(1−l)u.",
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
    ),
    Relation(
        name="d1",
        statement="proximal (implicit) decay = decay after the step",
        left=lambda h: optax.chain(
            adam_step_of(h), last_step(lambda theta, u, t: (theta + u) / (1 + l_t(h)[t]))
        ),
        right=lambda h: optax.chain(
            adam_step_of(h), last_step(lambda theta, u, t: (1 - h["removed"][t]) * (theta + u))
        ),
        verdict="rounding",
        map=lambda h: {"removed": l_t(h) / (1 + l_t(h))},
        map_text="l = μ/(1+μ)",
        mutant=Mutant("l = μ", lambda r: {"removed": l_t(r)}),
        why="1/(1+μ) = 1 − μ/(1+μ).",
        source="Zhuang et al. 2022, arXiv 2202.00089",
        problem=_problems.REGRESSION,
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
    ),
    Relation(
        name="k1",
        statement="the paper's AdamW = PyTorch's and Optax's, any schedule",
        left=adamw_of,
        right=lambda h: adamw_of(h, coupling="learning_rate"),
        verdict="rounding",
        map=lambda h: {"lam": h["lam"] / h["alpha"]},
        map_text="weight_decay = λ/α, α the base learning rate",
        mutant=times("lam", 1.01),
        why="η_t(αu + λθ) = (αη_t)(u + (λ/α)θ).",
        source=f"{PAPER}, Algorithm 2; torch.optim.AdamW; optax.adamw",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="k2",
        statement="AdamC (corrected decay), schedule peaking at 1 = AdamW whose coefficient follows it",
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
    ),
)
