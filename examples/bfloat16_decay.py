"""Which rounding lets bfloat16 weights decay as float32 ones do?

A perceptron learns 400 handwritten digits with AdamW, in float32 and, but for the moments, in bfloat16,
which does not move by less than 2^-9 of itself. A step removes 2^-10 or less.

    python examples/bfloat16_decay.py

takes 15 seconds on two cores. Of weights without gradient 2000 steps leave 0.376 in float32, 1.000 to
nearest, 0.378 at random, 0.376 with compensation. To nearest, small steps are lost, too: the loss ends
at 0.09 in training and 0.20 in the test, and at 0.05 and 0.17 in the others (± 0.01 over 5 seeds).
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import plots, sweep

STEPS, STEPS_PER_TICK, BATCH_SIZE, SEEDS, SIZES = 2000, 100, 64, 5, (64, 64, 64, 10)
LEARNING_RATE, WEIGHT_DECAY = 2.0**-10, 2.0**-10
ROUNDINGS = {
    "float32": ("float32", None),
    "to nearest": ("bfloat16", None),
    "stochastic": ("bfloat16", "stochastic"),
    "compensated": ("bfloat16", "compensated"),
}
images, digits = load_digits(return_X_y=True)
images, order = images.astype(np.float32) / 16, np.random.default_rng(0).permutation(len(digits))
TRAIN, TEST = ((images[i], digits[i]) for i in np.split(order, [400]))
UNLIT = ~TRAIN[0].any(axis=0)  # Nothing but decay moves the weights of pixels that are never lit.


def draw(seed):
    """Draw all that is random in a run: the same for every rounding."""
    rng, sizes = np.random.default_rng(seed), itertools.pairwise(SIZES)
    params = [rng.normal(0, m**-0.5, (m, n)).astype(np.float32) for m, n in sizes]
    size = STEPS // STEPS_PER_TICK, STEPS_PER_TICK, BATCH_SIZE
    return {"params": params, "batches": rng.integers(len(TRAIN[1]), size=size)}


def measure(params, x, labels):
    """Loss and error of a perceptron without biases."""
    x = x.astype(params[0].dtype)
    for kernel in params[:-1]:
        x = jax.nn.relu(x @ kernel)
    logits = (x @ params[-1]).astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return jnp.stack([loss, jnp.mean(logits.argmax(axis=-1) != labels)])


def train(dtype, rounding, seed):
    """Give what is left of weights without gradient, losses and error, after every tick."""
    schedule = optax.cosine_decay_schedule(1.0, STEPS)
    # Moments in float32, so that nothing but the weights differs.
    wide = {"mu_dtype": "float32", "nu_dtype": "float32", "rounding": rounding}
    tx = dwd.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, schedule=schedule, **wide)
    x, labels = map(jnp.asarray, TRAIN)

    def step(carry, i):
        params, state = carry
        grads = jax.grad(lambda params: measure(params, x[i], labels[i])[0])(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def tick(carry, batches):
        carry, _ = jax.lax.scan(step, carry, batches)
        params: Any = carry[0]
        before, after = (jnp.abs(p[0][UNLIT].astype(jnp.float32)) for p in (seed["params"], params))
        loss, of_test = measure(params, x, labels)[0], measure(params, *TEST)
        return carry, jnp.stack([after.sum() / before.sum(), loss, *of_test])

    params = [p.astype(dtype) for p in seed["params"]]
    return jax.lax.scan(tick, (params, tx.init(params)), seed["batches"])[1]


def main():
    """Train all, print the table and draw."""
    seeds, rows = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS))), {}
    columns = ("left of a weight", "train loss", "test loss", "test error")
    print(f"{'':11}" + "".join(f"{column:>17}" for column in columns))
    for name, form in tqdm(ROUNDINGS.items()):
        rows[name] = jax.device_get(sweep.grid(functools.partial(train, *form), seed=seeds))
        cells = (f"{x.mean():.3f} ± {x.std(ddof=1):.3f}" for x in rows[name][:, -1].T)
        tqdm.write(f"{name:11}" + "".join(f"{cell:>17}" for cell in cells))
    multiplier = optax.cosine_decay_schedule(1.0, STEPS)(jnp.arange(STEPS))
    exact = np.cumprod(1 - WEIGHT_DECAY * multiplier)
    print(f"{'exact':11}{exact[-1]:9.3f}")
    with plots.house_style():
        figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
    steps = np.arange(STEPS_PER_TICK, STEPS + 1, STEPS_PER_TICK)
    for column, axes in enumerate(both):
        curves = {name: row[..., column] for name, row in rows.items()}
        plots.learning_curves(curves, steps=steps, axes=axes).set_ylabel(columns[column])
    both[0].plot(exact, "k:")
    figure.savefig("bfloat16_decay.png", dpi=120)
    print("Wrote bfloat16_decay.png.")
    return rows


if __name__ == "__main__":
    main()
