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
        return optax.chain(
            adam, dwd.decoupled_weight_decay(weight_decay, MASK, penalty=dwd.L1), step
        )
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

    sizes = jnp.abs(params["weights"])
    shares = {"zeros": jnp.mean(sizes == 0), "small": jnp.mean(sizes < SMALL)}
    return {"held out": error(*seed.held_out), **shares, "test": error(*seed.test)}


def main() -> dict[str, tuple[int, dict[str, np.ndarray]]]:
    """Train all, print the table and draw."""
    seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
    print(f"{'':20}  lambda  exact zeros     small           test error")
    rows = {}
    for name, place in tqdm(PLACES.items()):
        grid = sweep.grid(functools.partial(train, *place), weight_decay=DECAYS, seed=seeds)
        grid = jax.tree.map(np.asarray, grid)
        held_out = grid.pop("held out").mean(axis=1)
        rows[name] = int(np.flatnonzero(held_out <= 1.05 * held_out.min()).max()), grid
    for name, (i, grid) in rows.items():
        ends = [grid[column][i] for column in ("zeros", "small", "test")]
        cells = (f"{x.mean():6.1%} ± {x.std(ddof=1):.1%}" for x in ends)
        print(f"{name:20}  2^{np.log2(DECAYS[i]):<4.0f}  " + "  ".join(cells))
    with plots.house_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        for (name, (i, grid)), colour in zip(rows.items(), plots.OKABE_ITO, strict=False):
            grid = {column: 100 * values.mean(axis=1) for column, values in grid.items()}
            left.plot(DECAYS, grid["small"], "--", color=colour)
            for axes, values in ((left, grid["zeros"]), (right, grid["test"])):
                axes.plot(DECAYS, values, color=colour, label=name)
                axes.plot(DECAYS[i], values[i], "o", color=colour)
                axes.set_xscale("log", base=2)
        left.set(ylabel=f"% of weights 0 (dashed: below {SMALL})", xlabel=r"$\lambda$")
        right.set(ylabel="% of test digits misclassified", ylim=(0, 20), xlabel=r"$\lambda$")
        left.legend()
    figure.savefig("sparsity.png", dpi=120)
    print("Wrote sparsity.png.")
    return rows


if __name__ == "__main__":
    main()
