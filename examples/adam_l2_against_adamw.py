"""Does Adam learn better with weight decay than with L2 regularization?

A perceptron learns 400 handwritten digits, 15 % of them mislabelled, by Adam alone, by Adam + L2 and by
AdamW. Each has the learning rate and the decay that are best for it on 600 held-out digits, and all
the pairs and seeds of an optimizer are one program.

    python examples/adam_l2_against_adamw.py
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import plots, sweep

STEPS, STEPS_PER_TICK, BATCH_SIZE, SEEDS, WRONG_LABELS = 1000, 50, 64, 5, 60
RATES = 2.0 ** np.array([-10, -8, -6, -4])
DECAYS = 2.0 ** np.array([-12, -10, -8, -6, -4])
OPTIMIZERS = {
    "Adam": (dwd.adam_l2, [0.0]),
    "Adam + L2": (dwd.adam_l2, DECAYS),  # per unit of gradient
    "AdamW": (dwd.adamw, DECAYS),  # per step
}
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
TRAIN, HELD_OUT, TEST = (
    (images[i].astype(np.float32) / 16, digits[i]) for i in np.split(order, [400, 1000])
)


class Network(nn.Module):
    """A perceptron with two hidden layers."""

    @nn.compact
    def __call__(self, x):
        """Give the logits of flat images."""
        for _ in range(2):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10)(x)


class Seed(NamedTuple):
    """All that is random in a run: the same for every optimizer, learning rate and decay."""

    params: Any
    labels: Any
    batches: Any


def draw(seed: int) -> Seed:
    """Draw initial weights, wrong labels and minibatches."""
    rng, (x, y) = np.random.default_rng(seed), TRAIN
    wrong = rng.permutation(len(y))[:WRONG_LABELS]
    labels = y.copy()
    labels[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    params = Network().init(jax.random.key(seed), x[:1])["params"]
    return Seed(params, labels, rng.integers(len(y), size=(STEPS, BATCH_SIZE)))


def measure(params, x, labels):
    """Loss and error."""
    logits: Any = Network().apply({"params": params}, x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {"loss": losses.mean(), "error": jnp.mean(logits.argmax(axis=-1) != labels)}


def start(make, learning_rate, weight_decay, seed: Seed):
    """Give step, parameters and optimizer state."""
    tx = make(learning_rate, weight_decay=weight_decay)
    return jnp.int32(0), seed.params, tx.init(seed.params)


def advance(make, carry, learning_rate, weight_decay, seed: Seed):
    """Train for a tick, and measure."""
    x, schedule = jnp.asarray(TRAIN[0]), optax.cosine_decay_schedule(1.0, STEPS)
    tx = make(learning_rate, weight_decay=weight_decay, schedule=schedule)

    def train(carry, _):
        step, params, state = carry
        i = seed.batches[step]
        grads = jax.grad(lambda params: measure(params, x[i], seed.labels[i])["loss"])(params)
        updates, state = tx.update(grads, state, params)
        return (step + 1, optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(train, carry, length=STEPS_PER_TICK)
    parts = {"train": (x, seed.labels), "held out": HELD_OUT, "test": TEST}
    return carry, {name: measure(carry[1], *part) for name, part in parts.items()}


def train_all(name: str, seeds: Seed, bar: tqdm) -> tuple[float, float, Any]:
    """Give the pair that is best on the held-out digits, and its curves: (seeds, ticks)."""
    make, decays = OPTIMIZERS[name]
    axes = {"learning_rate": RATES, "weight_decay": decays, "seed": seeds}
    carry = sweep.grid(functools.partial(start, make), **axes)
    program, curves = functools.partial(advance, make), []
    for _ in range(STEPS // STEPS_PER_TICK):
        carry, measured = sweep.grid(program, carry, **axes)
        curves.append(jax.block_until_ready(measured))
        bar.update()
    curves = jax.tree.map(lambda *x: np.stack(x, axis=-1), *curves)
    held_out = curves.pop("held out")["error"][..., -1].mean(axis=2)
    i, j = np.unravel_index(held_out.argmin(), held_out.shape)
    return RATES[i], decays[j], jax.tree.map(lambda x: x[i, j], curves)


def main() -> dict[str, tuple[float, float, Any]]:
    """Train all, print the table and draw the curves."""
    seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
    with tqdm(total=len(OPTIMIZERS) * (STEPS // STEPS_PER_TICK)) as bar:
        rows = {name: train_all(name, seeds, bar) for name in OPTIMIZERS}
    columns = [(part, kind) for part in ("train", "test") for kind in ("loss", "error")]
    print(f"{'':10}  rate     decay  " + "  ".join(f"{f'{p} {kind}':14}" for p, kind in columns))
    for name, (rate, decay, curves) in rows.items():
        ends = [curves[part][kind][:, -1] for part, kind in columns]
        cells = (f"{x.mean():.3f} ± {x.std(ddof=1):.3f}" for x in ends)
        print(f"{name:10}  {rate:.5f}  {decay:.3f}  " + "   ".join(cells))
    errors = (rows[name][2]["test"]["error"][:, -1] for name in ("AdamW", "Adam + L2"))
    apart = np.subtract(*errors)
    print(f"AdamW - Adam + L2, same seed: test error {apart.mean():+.3f} ± {apart.std(ddof=1):.3f}")
    with plots.house_style():
        figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
    steps = np.arange(STEPS_PER_TICK, STEPS + 1, STEPS_PER_TICK)
    for axes, kind in zip(both, ("loss", "error"), strict=True):
        curves = {x: {p: of[p][kind] for p in ("train", "test")} for x, (_, _, of) in rows.items()}
        plots.learning_curves(curves, steps=steps, axes=axes).set_ylabel(kind)
    figure.savefig("adam_l2_against_adamw.png", dpi=120)
    print("Wrote adam_l2_against_adamw.png.")
    return rows


if __name__ == "__main__":
    main()
