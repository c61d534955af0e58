"""Does decoupled weight decay help an optimizer that has none: Muon, AdaBelief, RMSProp, Lion?

Each is Optax's own, extended by one line. A perceptron learns 400 handwritten digits, 15 % of them
mislabelled, without and with decay, at the numbers that are best on 600 held-out digits.

    python examples/extend_any_optimizer.py

takes half a minute on two cores. What decay leaves of the weights of pixels that are never lit is
measured, and is the product of 1 - eta_t lambda that was asked for, to 3e-6 of it, in all optimizers.
Test errors are lower with decay, Muon's 7.2 % for 8.0 %, AdaBelief's 8.3 % for 9.1 %, RMSProp's 8.7 %
for 8.9 % and Lion's 8.5 % for 9.8 %, but each is ± 1 to 2 % over 4 seeds: a hint, and no more.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import sweep

STEPS, BATCH_SIZE, SEEDS, WRONG_LABELS, SIZES = 500, 64, 4, 60, (64, 64, 64, 10)
DECAYS = np.array([0, 2.0**-10, 2.0**-8, 2.0**-6, 2.0**-4])
OPTIMIZERS = {
    "Muon": (optax.contrib.muon, 2.0 ** np.arange(-10, -5)),
    "AdaBelief": (optax.adabelief, 2.0 ** np.arange(-11, -5)),
    "RMSProp": (optax.rmsprop, 2.0 ** np.arange(-12, -7)),
    "Lion": (functools.partial(optax.lion, weight_decay=0.0), 2.0 ** np.arange(-13, -8)),
}
images, digits = load_digits(return_X_y=True)
images, order = images.astype(np.float32) / 16, np.random.default_rng(0).permutation(len(digits))
TRAIN, HELD_OUT, TEST = ((images[i], digits[i]) for i in np.split(order, [400, 1000]))
UNLIT = ~TRAIN[0].any(axis=0)  # Nothing but decay moves the weights of pixels that are never lit.


def draw(seed):
    """Draw all that is random in a run: the same for every optimizer, learning rate and decay."""
    rng, labels = np.random.default_rng(seed), TRAIN[1].copy()
    wrong = rng.permutation(len(labels))[:WRONG_LABELS]
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    sizes = itertools.pairwise(SIZES)
    params = [rng.normal(0, m**-0.5, (m, n)).astype(np.float32) for m, n in sizes]
    batches = rng.integers(len(labels), size=(STEPS, BATCH_SIZE))
    return {"params": params, "labels": labels, "batches": batches}


def measure(params, x, labels):
    """Loss and error of a perceptron without biases."""
    for kernel in params[:-1]:
        x = jax.nn.relu(x @ kernel)
    logits = x @ params[-1]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return jnp.stack([loss, jnp.mean(logits.argmax(axis=-1) != labels)])


def train(make, learning_rate, weight_decay, seed):
    """Give the errors in the end, and what is left of weights without gradient."""
    schedule = optax.cosine_decay_schedule(1.0, STEPS)
    tx = make(lambda step: learning_rate * schedule(step))
    tx = dwd.extend_with_decoupled_weight_decay(tx, weight_decay, schedule=schedule)
    x, labels = jnp.asarray(TRAIN[0]), seed["labels"]

    def step(carry, i):
        params, state = carry
        grads = jax.grad(lambda params: measure(params, x[i], labels[i])[0])(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = seed["params"], tx.init(seed["params"])
    params: Any = jax.lax.scan(step, start, seed["batches"])[0][0]
    left = params[0][UNLIT] / seed["params"][0][UNLIT]
    return {
        "held out": measure(params, *HELD_OUT)[1],
        "test": measure(params, *TEST)[1],
        "left": left,
    }


def main():
    """Train all, choose on the held-out digits and print the table."""
    seeds, grids = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS))), {}
    schedule = optax.cosine_decay_schedule(1.0, STEPS)(jnp.arange(STEPS))
    asked = np.prod(1 - np.outer(DECAYS, schedule), axis=1)
    print("           rate   decay  left: asked  measured    test error")
    for name, (make, rates) in tqdm(OPTIMIZERS.items()):
        axes = {"learning_rate": rates, "weight_decay": DECAYS, "seed": seeds}
        grids[name] = grid = jax.device_get(sweep.grid(functools.partial(train, make), **axes))
        for decays in (DECAYS == 0, DECAYS > 0):
            errors = np.where(decays, grid["held out"].mean(axis=2), np.inf)
            i, j = np.unravel_index(errors.argmin(), errors.shape)
            test, left = grid["test"][i, j], grid["left"][i, j].mean()
            tqdm.write(
                f"{name:9}  2^{np.log2(rates[i]):<3.0f}  {DECAYS[j]:.3f}  {asked[j]:11.5f}  {left:8.5f}"
                f"  {test.mean():6.1%} ± {test.std(ddof=1):.1%}"
            )
    asked = asked[:, None, None, None]
    apart = max(np.abs(grid["left"] / asked - 1).max() for grid in grids.values())
    print(f"In all runs, what is left is what was asked to {apart:.0e} of it.")
    return grids


if __name__ == "__main__":
    main()
