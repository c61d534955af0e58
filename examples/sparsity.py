"""Where must an L1 penalty stand for weights to become 0, and at what test error?

A linear model learns 800 handwritten digits by Adam with an L1 norm in its gradient (coupled), beside
Adam's step (decoupled) or as a proximal step after it. All lambdas and seeds of a place are one
program, and of each place the table has the largest lambda whose held-out error is within 5 % of its best.

    python examples/sparsity.py
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import plots, sweep

STEPS, BATCH_SIZE, SEEDS, LEARNING_RATE, SMALL = 3000, 64, 3, 0.01, 1e-3
DECAYS = 2.0 ** np.arange(-14, 1)
PLACES = {  # With Adam's b1: what averages the gradient more lifts fewer weights off 0.
    "coupled": ("coupled", 0.9),
    "decoupled": ("decoupled", 0.9),
    "proximal": ("proximal", 0.9),
    "proximal, b1 = 0.99": ("proximal", 0.99),
}
MASK = {"weights": True, "bias": False}


class Seed(NamedTuple):
    """All that is random in a run: the same for every place and lambda."""

    weights: Any
    batches: Any
    train: Any
    held_out: Any
    test: Any


def draw(seed: int) -> Seed:
    """Split the digits, and draw initial weights and minibatches."""
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    parts = np.split(rng.permutation(len(digits)), [800, 1200])
    weights = 0.1 * rng.normal(size=(64, 10)).astype(np.float32)
    batches = rng.integers(800, size=(STEPS, BATCH_SIZE))
    return Seed(weights, batches, *((images[i].astype(np.float32) / 16, digits[i]) for i in parts))


def make_optimizer(place: str, b1: float, weight_decay: Any) -> optax.GradientTransformation:
    """Put the penalty in its place: lambda is per unit of gradient, or else of learning rate."""
    rate = optax.cosine_decay_schedule(LEARNING_RATE, STEPS)
    adam, step = dwd.scale_by_adam(b1), optax.scale_by_learning_rate(rate)
    if place == "coupled":
        return optax.chain(dwd.add_l1_to_grad(weight_decay, MASK), adam, step)
    if place == "decoupled":
        return optax.chain(adam, dwd.decoupled_weight_decay(weight_decay, MASK, penalty=dwd.L1), step)
    threshold = lambda t: weight_decay * rate(t)
    return optax.chain(adam, step, dwd.proximal_weight_decay(threshold, MASK, penalty=dwd.L1))


def logits(params, x):
    return x @ params["weights"] + params["bias"]


def train(place, b1, weight_decay, seed: Seed):
    """Train, and measure."""
    tx, (x, y) = make_optimizer(place, b1, weight_decay), seed.train
    params = {"weights": seed.weights, "bias": jnp.zeros(10)}

    def loss(params, i):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, x[i]), y[i]).mean()

    def step(carry, i):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, i), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), seed.batches)

    def error(x, y):
        return jnp.mean(logits(params, x).argmax(axis=-1) != y)

    return {
        "held out": error(*seed.held_out),
        "test": error(*seed.test),
        "zeros": jnp.mean(params["weights"] == 0),
        "small": jnp.mean(jnp.abs(params["weights"]) < SMALL),
    }


def main():
    seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
    for name, place in tqdm(PLACES.items()):
        m = sweep.grid(functools.partial(train, *place), weight_decay=DECAYS, seed=seeds)
        m = jax.tree.map(np.asarray, m)
        h = m["held out"].mean(axis=1)
        i = np.flatnonzero(h <= 1.05*h.min()).max()
        print(name, np.log2(DECAYS[i]), {k: ((100*v[i]).mean().round(1), (100*v[i]).std(ddof=1).round(1)) for k, v in m.items()})
        for k, v in m.items(): print("   ", k, (100*v.mean(axis=1)).round(1))


if __name__ == "__main__":
    main()
