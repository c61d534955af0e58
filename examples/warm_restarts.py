"""What do warm restarts give at any time, beside one cosine of the same budget?

AdamWR and SGDWR restart after 10, 30 and 70 of 150 epochs, each cycle twice as long as the one before
and its decay recomputed from the normalized one. Beside each runs the same optimizer with one cosine.

    python examples/warm_restarts.py
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

BATCH_SIZE, TRAINING, SEEDS, WRONG_LABELS = 64, 400, 5, 60
STEPS_PER_EPOCH = dwd.steps_per_epoch(BATCH_SIZE, TRAINING)
EPOCHS, EPOCHS_PER_TICK, ENDS = 150, 5, (10, 30, 70, 150)
AT_ENDS = np.array(ENDS) // EPOCHS_PER_TICK - 1
# Both in one program, as every number of this library may be traced.
CYCLES = {"period": np.array([10, EPOCHS]), "period_mult": np.array([2, 1])}
OPTIMIZERS = {
    "AdamW": (dwd.adamwr, 2.0 ** np.array([-10, -8, -6]), 2.0 ** np.array([-7, -5, -3, -1])),
    "SGDW": (dwd.sgdwr, 2.0 ** np.array([-6, -4, -2]), 2.0 ** np.array([-7, -5, -3, -1])),
}
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
TRAIN, HELD_OUT, TEST = (
    (images[i].astype(np.float32) / 16, digits[i])
    for i in np.split(order, [TRAINING, TRAINING + 600])
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
    batches = rng.integers(len(y), size=(EPOCHS * STEPS_PER_EPOCH, BATCH_SIZE))
    return Seed(params, labels, batches)


def error(params, x, y):
    """The share of digits that are misclassified."""
    logits: Any = Network().apply({"params": params}, x)
    return jnp.mean(logits.argmax(axis=-1) != y)


def make(optimizer, cycle, learning_rate, normalized_weight_decay):
    """One cosine is one cycle."""
    sizes = {"batch_size": BATCH_SIZE, "dataset_size": TRAINING}
    return optimizer(learning_rate, normalized_weight_decay, **sizes, **cycle)


def start(optimizer, seed: Seed, **numbers):
    """Give step, parameters and optimizer state."""
    return jnp.int32(0), seed.params, make(optimizer, **numbers).init(seed.params)


def advance(optimizer, carry, seed: Seed, **numbers):
    """Train for a tick, and measure."""
    tx, x = make(optimizer, **numbers), jnp.asarray(TRAIN[0])

    def loss(params, i):
        logits: Any = Network().apply({"params": params}, x[i])
        return optax.softmax_cross_entropy_with_integer_labels(logits, seed.labels[i]).mean()

    def train(carry, _):
        step, params, state = carry
        grads = jax.grad(loss)(params, seed.batches[step])
        updates, state = tx.update(grads, state, params)
        return (step + 1, optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(train, carry, length=EPOCHS_PER_TICK * STEPS_PER_EPOCH)
    return carry, {"held out": error(carry[1], *HELD_OUT), "test": error(carry[1], *TEST)}


def train_all(name: str, seeds: Seed, bar: tqdm) -> dict[str, np.ndarray]:
    """Give the test errors, (seeds, ticks), of the rate and decay that are best in the end."""
    optimizer, rates, decays = OPTIMIZERS[name]
    axes = {"cycle": CYCLES, "learning_rate": rates, "normalized_weight_decay": decays}
    carry = sweep.grid(functools.partial(start, optimizer), **axes, seed=seeds)
    program, curves = functools.partial(advance, optimizer), []
    for _ in range(EPOCHS // EPOCHS_PER_TICK):
        carry, measured = sweep.grid(program, carry, **axes, seed=seeds)
        curves.append(jax.block_until_ready(measured))
        bar.update()
    curves = jax.tree.map(lambda *x: np.stack(x, axis=-1), *curves)
    best = {}
    for cycle, form in enumerate((f"{name}, restarts", f"{name}, one cosine")):
        held_out = curves["held out"][cycle, ..., -1].mean(axis=2)
        i, j = np.unravel_index(held_out.argmin(), held_out.shape)
        best[form] = curves["test"][cycle, i, j]
    return best


def main() -> dict[str, np.ndarray]:
    """Train all, print the table and draw."""
    seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
    rows = {}
    with tqdm(total=len(OPTIMIZERS) * (EPOCHS // EPOCHS_PER_TICK)) as bar:
        for name in OPTIMIZERS:
            rows |= train_all(name, seeds, bar)
    print("test error after epoch" + "".join(f"{end:>15}" for end in ENDS))
    for name, errors in rows.items():
        cells = (f"{x.mean():.1%} ± {x.std(ddof=1):.1%}" for x in errors[:, AT_ENDS].T)
        print(f"{name:22}" + "".join(f"{cell:>15}" for cell in cells))
    draw_all(rows)
    return rows


def draw_all(rows):
    """Draw the first learning rate's schedule and decay, and the test errors."""
    steps = np.arange(EPOCHS * STEPS_PER_EPOCH)
    period, mult = (int(CYCLES[name][0]) for name in ("period", "period_mult"))
    multiplier = dwd.cosine_warm_restarts_schedule(period * STEPS_PER_EPOCH, mult)(steps)
    decay = dwd.normalized_weight_decay_schedule(
        2.0**-5, batch_size=BATCH_SIZE, dataset_size=TRAINING, period=period, period_mult=mult
    )(steps)
    with plots.house_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    epochs = steps / STEPS_PER_EPOCH
    plots.schedule(multiplier, multiplier * decay, steps=epochs, axes=left).set_xlabel("epoch")
    ticks = np.arange(EPOCHS_PER_TICK, EPOCHS + 1, EPOCHS_PER_TICK)
    plots.learning_curves(rows, steps=ticks, axes=right)
    right.set(xlabel="epoch", ylabel="test error", ylim=(0, 0.4))
    figure.savefig("warm_restarts.png", dpi=120)
    print("Wrote warm_restarts.png.")


if __name__ == "__main__":
    main()
