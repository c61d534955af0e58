"""What users write, and what it is: derived here, each with the version that fails."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd._coupled import add_l2_to_grad
from decoupled_wd._decoupled import decoupled_weight_decay
from decoupled_wd._extend import extend_with_decoupled_weight_decay
from decoupled_wd._scaling import scale_by_schedule
from decoupled_wd.equivalence import _problems
from decoupled_wd.equivalence._relation import Hyper, Interval, Mutant, Relation
from decoupled_wd.equivalence._rows._chains import (
    DERIVED,
    SIGN,
    a_t,
    adam_of,
    adamw_of,
    at,
    l_t,
    last_step,
    plain_sgd_of,
    witness_values,
)

_FACTORS = _problems.given("no gradient", np.zeros((300, 2)), [1.5, -0.7])
_BLOCK = 4
_IN_BLOCKS = _problems.given(
    f"given gradients, constant for {_BLOCK} steps",
    np.repeat(np.random.default_rng(7).normal(size=(75, 6)), _BLOCK, axis=0),
    np.linspace(-1.0, 1.5, 6),
)


def _two_decays(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(
        adam_of(h),
        scale_by_schedule(h["alpha"]),
        decoupled_weight_decay(h["lam"]),
        decoupled_weight_decay(h["lam2"]),
        scale_by_schedule(at(h["eta"])),
        SIGN,
    )


def _on_groups(tx: Any) -> optax.GradientTransformation:
    """`tx` on a tree with two leaves, each one half of the coordinates: two groups of parameters."""

    def split(x: jax.Array) -> dict[str, jax.Array]:
        half = x.size // 2
        return {"a": x[:half], "b": x[half:]}

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new: Any
        new, state = tx.update(split(updates), state, split(params))
        return jnp.concatenate([new["a"], new["b"]]), state

    return optax.GradientTransformation(lambda params: tx.init(split(params)), update)


def _apart(a: optax.GradientTransformation, b: optax.GradientTransformation) -> Any:
    """Each group with an optimizer of its own."""
    return _on_groups(optax.partition({"a": a, "b": b}, {"a": "a", "b": "b"}))


def _clipped(h: Hyper) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), plain_sgd_of(h))


def _penalty_after_moments(h: Hyper) -> optax.GradientTransformation:
    """Adam's step of m_hat + lam'_t theta, the penalty lam'_t = lam (sqrt(v_hat) + eps) / alpha."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count, m, v = state
        m = h["b1"] * m + (1 - h["b1"]) * updates
        v = h["b2"] * v + (1 - h["b2"]) * updates**2
        m_hat, v_hat = (x / (1 - b ** (count + 1.0)) for x, b in ((m, h["b1"]), (v, h["b2"])))
        denominator = jnp.sqrt(v_hat + h["eps_root"]) + h["eps"]
        penalty = h["penalty"] * jnp.where(h["scaled"], denominator, 1.0)
        return (m_hat + penalty * params) / denominator, (count + 1, m, v)

    def init(params: Any) -> Any:
        return jnp.zeros([], jnp.int32), jnp.zeros_like(params), jnp.zeros_like(params)

    tx = optax.GradientTransformation(init, update)
    return optax.chain(tx, scale_by_schedule(at(a_t(h))), SIGN)


def _penalty_in_gradient(h: Hyper) -> optax.GradientTransformation:
    """The same penalty where L2 regularization stands, as it is at the first step: v_hat = g^2."""

    def add(g: Any, theta: Any) -> Any:
        return g + h["lam"] / h["alpha"] * (jnp.abs(g) + h["eps"]) * theta

    return optax.stateless(add)


def _once_a_block(h: Hyper) -> optax.GradientTransformation:
    """Stand still, and at the end of a block make one large step."""

    def move(theta: jax.Array, update: jax.Array, count: jax.Array) -> jax.Array:
        stepped = theta - h["rate"] * update - h["removed"] * theta
        return jnp.where((count + 1) % _BLOCK == 0, stepped, theta)

    return last_step(move)


def _at_block_ends(h: Hyper, path: jax.Array) -> jax.Array:
    del h
    return path[_BLOCK - 1 :: _BLOCK]


def _rates(h: Hyper) -> Any:
    """A learning rate for each coordinate, as a multiple of alpha."""
    return 1 + h["spread"] * jnp.linspace(-1.0, 1.0, 6)


def _layer_rates(h: Hyper) -> optax.GradientTransformation:
    coupled = optax.adamw(
        lambda step: a_t(h)[step],
        h["b1"],
        h["b2"],
        h["eps"],
        h["eps_root"],
        weight_decay=h["lam"] / h["alpha"],
    )
    return optax.chain(coupled, optax.stateless(lambda u, _: _rates(h) * u))


def _paper_with_rates(h: Hyper) -> optax.GradientTransformation:
    """The paper's AdamW with a learning rate and a multiplier of the decay for each coordinate."""
    return optax.chain(
        adam_of(h),
        optax.stateless(lambda u, _: u * (h["alpha"] * _rates(h))),
        optax.stateless(lambda u, theta: u + h["lam"] * h["multipliers"] * theta),
        scale_by_schedule(at(h["eta"])),
        SIGN,
    )


def _loss_with_squares(h: Hyper) -> optax.GradientTransformation:
    """SGD on the loss plus lam' sum theta^2, the penalty differentiated and not worked out."""
    penalty = jax.grad(lambda theta: h["penalty"] * jnp.sum(theta**2))
    return optax.chain(
        optax.stateless(lambda g, theta: g + penalty(theta)),
        adam_of(h),
        scale_by_schedule(at(a_t(h))),
        SIGN,
    )


def _product(h: Hyper, path: jax.Array) -> jax.Array:
    del h
    product = path[:, 0] * path[:, 1]
    return jnp.stack([product, product], axis=1)


def _first(h: Hyper) -> Hyper:
    return {"theta0": jnp.full(2, h["theta0"][0] * h["theta0"][1])}


ROWS = (
    Relation(
        name="two-decays",
        statement="two decays one after the other in a chain = one decay of their sum",
        left=_two_decays,
        right=adamw_of,
        verdict="rounding",
        map=lambda h: {"lam": h["lam"] + h["lam2"]},
        map_text="λ = λ_1 + λ_2",
        values={"lam2": np.float64(0.05)},
        domain={"lam2": Interval(1e-5, 0.1)},
        mutant=Mutant(
            "λ = λ_1 + λ_2 − λ_1λ_2",
            lambda r: {"lam": r["lam"] - (r["lam"] - r["lam2"]) * r["lam2"]},
        ),
        why="Both see the parameters before the step: u + λ_1θ + λ_2θ.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="two-decays-order",
        statement="two decays in a chain ≠ two multiplications, by (1−λ_1) and (1−λ_2)",
        left=_two_decays,
        right=lambda h: last_step(lambda theta, u, t: (1 - h["lam"]) * (1 - h["lam2"]) * theta),
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], lam=0.1, lam2=0.2),
        gap=0.02,
        why="No gradient, θ_0 = 1, λ_1 = 0.1, λ_2 = 0.2: 0.7 against 0.9·0.8 = 0.72.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[0.0]]),
    ),
    Relation(
        name="mask-groups",
        statement="AdamW with a mask = AdamW for one group of parameters, Adam for the other",
        left=lambda h: _on_groups(adamw_of(h, mask={"a": True, "b": False})),
        right=lambda h: _apart(adamw_of(h), adamw_of(h, weight_decay=h["lam_b"])),
        verdict="rounding",
        map=lambda h: {"lam_b": 0.0 * h["lam"]},
        map_text="λ where the mask is True, 0 elsewhere",
        mutant=Mutant("the second group decays, too", lambda r: {"lam_b": r["lam"]}),
        why="Every operation of AdamW is by coordinate, so that a tree may be cut anywhere.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="clip-groups",
        statement="clipping by the global norm in each group ≠ clipping all groups together",
        left=lambda h: _apart(_clipped(h), _clipped(h)),
        right=_clipped,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=1.0, lam=0.1),
        gap=0.4,
        why="g = (3, 4), α = 1, norm 1: steps of (1, 1) if each is clipped, (0.6, 0.8) together. The "
        "decay is the same.",
        source=DERIVED,
        problem=_problems.witness([1.0, 1.0], [[3.0, 4.0]]),
    ),
    Relation(
        name="adamw-as-penalty",
        statement="AdamW = Adam whose corrected moment takes a penalty that Adam divides away",
        left=adamw_of,
        right=_penalty_after_moments,
        verdict="rounding",
        map=lambda h: {"penalty": h["lam"] / h["alpha"], "scaled": jnp.array(True)},
        map_text="m̂_t + λ'_tθ with λ'_t = λ(√v̂_t + eps)/α",
        mutant=Mutant("λ'_t = λ/α", lambda r: {"scaled": ~r["scaled"]}),
        why="α(m̂ + λ'_tθ)/(√v̂ + eps) = αm̂/(√v̂ + eps) + λθ. So AdamW penalizes weights with large "
        "gradients more than Adam with L2 does; as f1, with a preconditioner that changes.",
        source=f"{DERIVED}, from Proposition 3 of arXiv 1711.05101",
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="adamw-as-penalty-in-gradient",
        statement="that penalty added to the gradient ≠ added to the corrected moment",
        left=adamw_of,
        right=lambda h: optax.chain(
            _penalty_in_gradient(h), adam_of(h), scale_by_schedule(at(a_t(h))), SIGN
        ),
        verdict="never",
        map_text="λ' = λ(√v̂_1 + eps)/α at the first step, where √v̂_1 = |g_1|",
        values=witness_values([1.0], alpha=0.1, lam=0.1, eps=0.0),
        gap=0.1,
        why="One step, g = θ_0 = 1, α = λ = 0.1, eps = 0: AdamW goes to 0.8; Adam's first step is of "
        "size α whatever is added to the gradient, to 0.9.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[1.0]]),
    ),
    Relation(
        name="k-in-one",
        statement=f"{_BLOCK} steps of SGD with decay on one gradient = one large step",
        left=plain_sgd_of,
        right=_once_a_block,
        verdict="rounding",
        map=lambda h: {
            "removed": 1 - (1 - h["lam"]) ** _BLOCK,
            "rate": h["alpha"] * (1 - (1 - h["lam"]) ** _BLOCK) / h["lam"],
        },
        map_text="λ_k = 1 − (1−λ)^k, α_k = αλ_k/λ",
        read_left=_at_block_ends,
        read_right=_at_block_ends,
        constant_schedule=True,
        mutant=Mutant(
            "α_k = kα, λ_k as it is", lambda r: {"rate": _BLOCK * r["alpha"] + 0 * r["rate"]}
        ),
        why="θ_k = (1−λ)^kθ − αgΣ_{j<k}(1−λ)^j, a geometric sum. The rule of k times the rate for k "
        "times the batch is its first order.",
        source=DERIVED,
        problem=_IN_BLOCKS,
    ),
    Relation(
        name="k-in-one-naive",
        statement="k steps on one gradient ≠ one step with k times the rate and k times the decay",
        left=plain_sgd_of,
        right=lambda h: last_step(
            lambda theta, g, t: jnp.where(
                t == 1, (1 - 2 * h["lam"]) * theta - 2 * h["alpha"] * g, theta
            )
        ),
        verdict="never",
        map_text="λ → 2λ, α → 2α, k = 2",
        read_left=lambda h, path: path[1:],
        read_right=lambda h, path: path[1:],
        values=witness_values([1.0, 1.0], alpha=0.1, lam=0.1),
        gap=0.02,
        why="g = θ_0 = 1, α = λ = 0.1, two steps: 1 → 0.8 → 0.62 against 1 − 0.2 − 0.2 = 0.6: a gap of "
        "λ²θ + αλg.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[1.0], [1.0]]),
    ),
    Relation(
        name="extend-adam",
        statement="optax.adam extended with decay = AdamW",
        left=lambda h: extend_with_decoupled_weight_decay(
            optax.adam(lambda t: a_t(h)[t], h["b1"], h["b2"], h["eps"], h["eps_root"]),
            h["lam"],
            schedule=at(h["eta"]),
        ),
        right=lambda h: adamw_of(h, weight_decay=at(h["decays"]), coupling="none"),
        verdict="rounding",
        map=lambda h: {"decays": l_t(h)},
        map_text="decay η_tλ",
        mutant=Mutant(
            "decay λ, without the schedule", lambda r: {"decays": jnp.full_like(r["eta"], r["lam"])}
        ),
        why="−a_tu − l_tθ, whichever is added first.",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="extend-by-chain",
        statement="optax.chain(optax.adam, optax.add_decayed_weights) ≠ AdamW: its weights grow",
        left=lambda h: optax.chain(
            optax.adam(h["alpha"], eps=h["eps"]), optax.add_decayed_weights(h["lam"])
        ),
        right=adamw_of,
        verdict="never",
        map_text="same numbers",
        values=witness_values([1.0], alpha=0.1, lam=0.1),
        gap=0.2,
        why="No gradient, θ_0 = 1, λ = 0.1: after a finished optimizer, whose sign is turned, λθ is "
        "added to the weights: 1.1 against 0.9.",
        source="a chain that users write; optax.add_decayed_weights expects gradient-signed updates",
        problem=_problems.witness([1.0], [[0.0]]),
    ),
    Relation(
        name="squares-in-loss",
        statement="λ'Σθ² in the loss (Keras's regularizers.L2) = L2 regularization with twice λ'",
        left=_loss_with_squares,
        right=lambda h: optax.chain(
            add_l2_to_grad(h["penalty"]), adam_of(h), scale_by_schedule(at(a_t(h))), SIGN
        ),
        verdict="rounding",
        map=lambda h: {"penalty": 2 * h["penalty"]},
        map_text="λ' → 2λ'",
        values={"penalty": np.float64(0.1)},
        domain={"penalty": Interval(1e-4, 1.0)},
        mutant=Mutant("λ' as it is", lambda r: {"penalty": r["penalty"] / 2}),
        why="The gradient of λ'θ² is 2λ'θ; weight_decay in PyTorch and Optax is that of (λ'/2)θ².",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="squares-in-loss-naive",
        statement="λ'Σθ² in the loss ≠ L2 regularization with λ'",
        left=lambda h: optax.chain(
            optax.stateless(lambda g, theta: g + jax.grad(lambda x: 0.5 * jnp.sum(x**2))(theta)),
            scale_by_schedule(h["alpha"]),
            SIGN,
        ),
        right=lambda h: optax.chain(add_l2_to_grad(0.5), scale_by_schedule(h["alpha"]), SIGN),
        verdict="never",
        map_text="λ' as it is",
        values=witness_values([1.0], alpha=0.1),
        gap=0.05,
        why="No gradient, SGD, θ_0 = 1, α = 0.1, λ' = ½: 1 − 0.1·2·½ = 0.9 against 1 − 0.1·½ = 0.95.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[0.0]]),
    ),
    Relation(
        name="factors",
        statement="decay on both factors of a product (LoRA) = decay on the product, without gradients",
        left=plain_sgd_of,
        right=lambda h: last_step(lambda product, u, t: (1 - h["removed"][t]) * product),
        verdict="rounding",
        map=lambda h: {"removed": l_t(h) * (2 - l_t(h))},
        map_text="l → 2l − l²",
        start=_first,
        start_text="product of the factors",
        read_left=_product,
        mutant=Mutant("l → 2l", lambda r: {"removed": 2 * l_t(r)}),
        why="(1−l)a · (1−l)b = (1 − 2l + l²)ab.",
        source=DERIVED,
        problem=_FACTORS,
    ),
    Relation(
        name="factors-naive",
        statement="decay on both factors of a product ≠ the same decay on the product",
        left=plain_sgd_of,
        right=lambda h: last_step(lambda product, u, t: (1 - h["lam"]) * product),
        verdict="never",
        map_text="same numbers",
        start=_first,
        start_text="product of the factors",
        read_left=_product,
        values=witness_values([1.0], lam=0.1),
        gap=0.09,
        why="a = b = 1, λ = 0.1: 0.81 against 0.9.",
        source=DERIVED,
        problem=_problems.witness([1.0, 1.0], [[0.0, 0.0]]),
    ),
    Relation(
        name="layer-rates",
        statement="a multiplier behind optax.adamw = one of the rate and the decay in the paper's AdamW",
        left=_layer_rates,
        right=_paper_with_rates,
        verdict="rounding",
        map=lambda h: {"multipliers": _rates(h)},
        map_text="λ_i = λr_i for a learning rate αr_i",
        values={"spread": np.float64(0.5)},
        domain={"spread": Interval(0.1, 0.9)},
        mutant=Mutant("λ_i = λ", lambda r: {"multipliers": jnp.ones_like(r["multipliers"])}),
        why="What is multiplied by r_i is the whole update, −η_t(αu + λθ).",
        source=DERIVED,
        problem=_problems.REGRESSION,
    ),
    Relation(
        name="layer-rates-width",
        statement="optax.adamw with its rate divided by n ≠ optax.adamw with its step divided by n",
        left=lambda h: optax.adamw(h["alpha"] / 4, eps=h["eps"], weight_decay=h["lam"]),
        right=lambda h: optax.chain(
            optax.scale_by_adam(eps=h["eps"]),
            optax.scale(1 / 4),
            optax.add_decayed_weights(h["lam"]),
            optax.scale(-h["alpha"]),
        ),
        verdict="never",
        map_text="same weight_decay, n = 4: rate α/n, against rate α and u/n",
        values=witness_values([1.0], alpha=0.4, lam=0.1, eps=0.0),
        gap=0.03,
        why="g = θ_0 = 1, α = 0.4, λ = 0.1, eps = 0, Adam's first direction is 1: 1 − 0.1(1 + 0.1) = "
        "0.89 against 1 − 0.4(¼ + 0.1) = 0.86. A rate that falls with the width takes the decay along.",
        source=DERIVED,
        problem=_problems.witness([1.0], [[1.0]]),
    ),
)
