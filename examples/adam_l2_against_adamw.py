"""Does Adam learn better with weight decay than with L2 regularization?

A perceptron learns 400 handwritten digits, 15 % of them mislabelled, by Adam alone, by Adam + L2 and by
AdamW; each at the learning rate and the decay that are best for it on 600 held-out digits, out of the
same number of pairs. All pairs and seeds of an optimizer are one program.

    python examples/adam_l2_against_adamw.py
"""

import functools
from typing import Any

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

STEPS, STEPS_PER_TICK, BATCH_SIZE, SEEDS, LABEL_NOISE = 1000, 50, 64, 4, 0.15
TRAINING, HELD_OUT = 400, 600
RATES = 2.0 ** np.array([-11, -9, -7, -5])
OPTIMIZERS = {
    "Adam": (dwd.adam_l2, [0.0]),
    "Adam + L2": (dwd.adam_l2, 2.0 ** np.array([-12, -10, -8, -6, -4])),
    "AdamW": (dwd.adamw, 2.0 ** np.array([-13, -11, -9, -7, -5])),
}


class Network(nn.Module):
    """A perceptron with two hidden layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Give the logits of flat images."""
        for _ in range(2):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10)(x)


def read_digits() -> list[tuple[np.ndarray, np.ndarray]]:
    """Digits to train on, to choose by, and to test."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    parts = np.split(order, [TRAINING, TRAINING + HELD_OUT])
    return [(x[i].astype(np.float32) / 16, y[i].astype(np.int32)) for i in parts]


DIGITS = read_digits()


def measure(params: Any, x: Any, y: Any) -> dict[str, jax.Array]:
    """Loss and error."""
    logits = Network().apply({"params": params}, x)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return {"loss": loss, "error": jnp.mean(logits.argmax(axis=-1) != y)}


def mislabel(y: Any, seed: jax.Array) -> jax.Array:
    """Replace a share of the labels, each by another class."""
    which, shift = jax.random.split(jax.random.key(seed))
    wrong = jax.random.permutation(which, len(y)) < LABEL_NOISE * len(y)
    return jnp.where(wrong, (y + jax.random.randint(shift, y.shape, 1, 10)) % 10, y)


def start(make, learning_rate, weight_decay, seed):
    """Give step, parameters and optimizer state."""
    params = Network().init(jax.random.key(seed), DIGITS[0][0][:1])["params"]
    return jnp.int32(0), params, make(learning_rate, weight_decay=weight_decay).init(params)


def advance(make, carry, learning_rate, weight_decay, seed):
    """Train on, and measure: on what is trained on, held out, and for the test."""
    schedule = optax.cosine_decay_schedule(1.0, STEPS)
    tx = make(learning_rate, weight_decay=weight_decay, schedule=schedule)
    (x, clean), held_out, test = DIGITS
    y = mislabel(clean, seed)

    def train(carry, _):
        step, params, state = carry
        key = jax.random.fold_in(jax.random.key(seed), step)
        batch = jax.random.randint(key, (BATCH_SIZE,), 0, len(x))
        grads = jax.grad(lambda p: measure(p, jnp.asarray(x)[batch], y[batch])["loss"])(params)
        updates, state = tx.update(grads, state, params)
        return (step + 1, optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(train, carry, length=STEPS_PER_TICK)
    parts = {"train": (x, y), "held out": held_out, "test": test}
    return carry, {name: measure(carry[1], *part) for name, part in parts.items()}


def train_all(name: str, bar: tqdm):
    make, decays = OPTIMIZERS[name]
    axes = {"learning_rate": RATES, "weight_decay": decays, "seed": np.arange(SEEDS)}
    carry = sweep.grid(functools.partial(start, make), **axes)
    step = functools.partial(advance, make)
    curves = []
    for _ in range(STEPS // STEPS_PER_TICK):
        carry, measured = sweep.grid(step, carry, **axes)
        curves.append(measured)
        jax.block_until_ready(measured)
        bar.update()
    return jax.tree.map(lambda *x: np.stack(x, axis=-1), *curves)


if __name__ == "__main__":
    with tqdm(total=3 * STEPS // STEPS_PER_TICK) as bar:
        for name in OPTIMIZERS:
            c = train_all(name, bar)
            h = c["held out"]["error"][..., -1].mean(axis=2)
            print(name); print(np.round(100*h, 1))
            i, j = np.unravel_index(h.argmin(), h.shape)
            for p in c:
                for m in c[p]:
                    v = c[p][m][i, j][:, -1]
                    print(p, m, v.mean().round(4), v.std(ddof=1).round(4))
