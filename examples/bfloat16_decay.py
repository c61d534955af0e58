"""Which rounding lets bfloat16 weights decay as float32 ones do?

python examples/bfloat16_decay.py
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

STEPS, STEPS_PER_TICK, BATCH_SIZE, SEEDS, WRONG_LABELS = 2000, 100, 64, 5, 60
LEARNING_RATE, WEIGHT_DECAY = 2.0**-10, 2.0**-10
ROUNDINGS = {
    "float32": (jnp.float32, None),
    "to nearest": (jnp.bfloat16, None),
    "stochastic": (jnp.bfloat16, "stochastic"),
    "compensated": (jnp.bfloat16, "compensated"),
}
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
TRAIN, TEST = ((images[i].astype(np.float32) / 16, digits[i]) for i in np.split(order, [400]))
UNLIT = ~TRAIN[0].any(axis=0)
"""Pixels whose weights get no gradient: nothing but decay moves them."""


class Network(nn.Module):
    """A perceptron with two hidden layers."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        """Give the logits of flat images."""
        for _ in range(2):
            x = nn.relu(nn.Dense(64, dtype=self.dtype, param_dtype=self.dtype)(x))
        return nn.Dense(10, dtype=self.dtype, param_dtype=self.dtype)(x).astype(jnp.float32)


class Seed(NamedTuple):
    """All that is random in a run: the same for every rounding."""

    params: Any
    labels: Any
    batches: Any


def draw(seed: int) -> Seed:
    """Draw initial weights, wrong labels and minibatches."""
    rng, (x, y) = np.random.default_rng(seed), TRAIN
    wrong = rng.permutation(len(y))[:WRONG_LABELS]
    labels = y.copy()
    labels[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    params = Network(jnp.float32).init(jax.random.key(seed), x[:1])["params"]
    return Seed(params, labels, rng.integers(len(y), size=(STEPS, BATCH_SIZE)))


def schedule(step):
    """Fall from 1 to 0."""
    return optax.cosine_decay_schedule(1.0, STEPS)(step)


def make(rounding):
    """Keep the moments in float32, that nothing but the parameters differs."""
    return dwd.adamw(
        LEARNING_RATE, weight_decay=WEIGHT_DECAY, schedule=schedule,
        mu_dtype="float32", nu_dtype="float32", rounding=rounding,
    )  # fmt: skip


def start(dtype, rounding, seed: Seed):
    """Give step, parameters and optimizer state."""
    params = jax.tree.map(lambda x: x.astype(dtype), seed.params)
    return jnp.int32(0), params, make(rounding).init(params)


def measure(dtype, params, x, labels):
    """Loss and error."""
    logits: Any = Network(dtype).apply({"params": params}, x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {"loss": losses.mean(), "error": jnp.mean(logits.argmax(axis=-1) != labels)}


def advance(dtype, rounding, carry, seed: Seed):
    """Train for a tick, and measure."""
    tx, x = make(rounding), jnp.asarray(TRAIN[0])

    def train(carry, _):
        step, params, state = carry
        i = seed.batches[step]
        grads = jax.grad(lambda params: measure(dtype, params, x[i], seed.labels[i])["loss"])(
            params
        )
        updates, state = tx.update(grads, state, params)
        return (step + 1, optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(train, carry, length=STEPS_PER_TICK)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), carry[1])
    first, last = (p["Dense_0"]["kernel"][UNLIT] for p in (seed.params, wide))
    of_weights = {
        "left": jnp.linalg.norm(last) / jnp.linalg.norm(first),
        "norm": optax.tree.norm(wide),
    }
    test = measure(dtype, carry[1], *TEST)
    train_loss = measure(dtype, carry[1], x, seed.labels)["loss"]
    return carry, of_weights | {
        "train loss": train_loss,
        "test loss": test["loss"],
        "test error": test["error"],
    }


def train_all(name: str, seeds: Seed, bar: tqdm) -> dict[str, np.ndarray]:
    """Give the curves: (seeds, ticks)."""
    form, curves = ROUNDINGS[name], []
    carry = sweep.grid(functools.partial(start, *form), seed=seeds)
    program = functools.partial(advance, *form)
    for _ in range(STEPS // STEPS_PER_TICK):
        carry, measured = sweep.grid(program, carry, seed=seeds)
        curves.append(jax.block_until_ready(measured))
        bar.update()
    return jax.tree.map(lambda *x: np.stack(x, axis=-1), *curves)


def main() -> dict[str, dict[str, np.ndarray]]:
    """Train all, print the table and draw."""
    seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
    with tqdm(total=len(ROUNDINGS) * (STEPS // STEPS_PER_TICK)) as bar:
        rows = {name: train_all(name, seeds, bar) for name in ROUNDINGS}
    left = np.cumprod(1 - WEIGHT_DECAY * schedule(np.arange(STEPS)))[
        STEPS_PER_TICK - 1 :: STEPS_PER_TICK
    ]
    columns = ("left", "norm", "train loss", "test loss", "test error")
    print(f"exact: {left[-1]:.4f} left\n{'':12}" + "".join(f"{column:>17}" for column in columns))
    for name, curves in rows.items():
        ends = [curves[column][:, -1] for column in columns]
        cells = (f"{x.mean():.4f} ± {x.std(ddof=1):.4f}" for x in ends)
        print(f"{name:12}" + "".join(f"{cell:>17}" for cell in cells))
    with plots.house_style():
        figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
    steps = np.arange(STEPS_PER_TICK, STEPS + 1, STEPS_PER_TICK)
    for axes, column in zip(both, ("left", "test loss"), strict=True):
        curves = {name: row[column] for name, row in rows.items()}
        plots.learning_curves(curves, steps=steps, axes=axes).set_ylabel(column)
    both[0].plot(steps, left, "k:", label="exact")
    figure.savefig("bfloat16_decay.png", dpi=120)
    print("Wrote bfloat16_decay.png.")
    return rows


if __name__ == "__main__":
    main()
