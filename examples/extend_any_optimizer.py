"""Does decoupled weight decay help an optimizer that has none: Muon, AdaBelief, RMSProp, Lion?

Each is Optax's own, extended by one line. A perceptron learns 400 handwritten digits, 15 % of them
mislabelled, without and with decay: each at the numbers that are best for it on 600 held-out digits.

    python examples/extend_any_optimizer.py
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import sweep

STEPS, STEPS_PER_TICK, BATCH_SIZE, SEEDS, WRONG_LABELS = 500, 50, 64, 4, 60
DECAYS = np.array([0, 2.0**-10, 2.0**-8, 2.0**-6])
OPTIMIZERS = {
    "Muon": (optax.contrib.muon, 2.0 ** np.array([-10, -8, -6])),
    "AdaBelief": (optax.adabelief, 2.0 ** np.array([-10, -8, -6])),
    "RMSProp": (optax.rmsprop, 2.0 ** np.array([-12, -10, -8])),
    "Lion": (functools.partial(optax.lion, weight_decay=0.0), 2.0 ** np.array([-14, -12, -10])),
}
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
TRAIN, HELD_OUT, TEST = (
    (images[i].astype(np.float32) / 16, digits[i]) for i in np.split(order, [400, 1000])
)
UNLIT = ~TRAIN[0].any(axis=0)
"""Pixels whose weights get no gradient: nothing but decay moves them."""


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


def schedule(step):
    """Fall from 1 to 0."""
    return optax.cosine_decay_schedule(1.0, STEPS)(step)


def extended(optimizer, learning_rate, weight_decay):
    """Decay follows the schedule of the optimizer, without its learning rate."""
    tx = optimizer(lambda step: learning_rate * schedule(step))
    return dwd.extend_with_decoupled_weight_decay(tx, weight_decay, schedule=schedule)


def start(optimizer, learning_rate, weight_decay, seed: Seed):
    """Give step, parameters and optimizer state."""
    tx = extended(optimizer, learning_rate, weight_decay)
    return jnp.int32(0), seed.params, tx.init(seed.params)


def error(params, x, y):
    """The share of digits that are misclassified."""
    logits: Any = Network().apply({"params": params}, x)
    return jnp.mean(logits.argmax(axis=-1) != y)


def advance(optimizer, carry, learning_rate, weight_decay, seed: Seed):
    """Train for a tick, and measure."""
    tx, x = extended(optimizer, learning_rate, weight_decay), jnp.asarray(TRAIN[0])

    def loss(params, i):
        logits: Any = Network().apply({"params": params}, x[i])
        return optax.softmax_cross_entropy_with_integer_labels(logits, seed.labels[i]).mean()

    def train(carry, _):
        step, params, state = carry
        grads = jax.grad(loss)(params, seed.batches[step])
        updates, state = tx.update(grads, state, params)
        return (step + 1, optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(train, carry, length=STEPS_PER_TICK)
    first, last = (p["Dense_0"]["kernel"][UNLIT] for p in (seed.params, carry[1]))
    errors = {"held out": error(carry[1], *HELD_OUT), "test": error(carry[1], *TEST)}
    return carry, errors | {"left": last / first}


def train_all(name: str, seeds: Seed, bar: tqdm) -> dict[str, np.ndarray]:
    """Give what is measured in the end: (rates, decays, seeds)."""
    optimizer, rates = OPTIMIZERS[name]
    axes = {"learning_rate": rates, "weight_decay": DECAYS, "seed": seeds}
    carry = sweep.grid(functools.partial(start, optimizer), **axes)
    program, measured = functools.partial(advance, optimizer), None
    for _ in range(STEPS // STEPS_PER_TICK):
        carry, measured = jax.block_until_ready(sweep.grid(program, carry, **axes))
        bar.update()
    return jax.tree.map(np.asarray, measured)


def main() -> dict[str, dict[str, np.ndarray]]:
    """Train all, choose on the held-out digits and print the table."""
    seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
    with tqdm(total=len(OPTIMIZERS) * (STEPS // STEPS_PER_TICK)) as bar:
        runs = {name: train_all(name, seeds, bar) for name in OPTIMIZERS}
    asked = np.prod(1 - np.outer(DECAYS, schedule(np.arange(STEPS))), axis=1)
    print("           rate   decay  left: asked  measured  test error")
    for name, of in runs.items():
        held_out = of["held out"].mean(axis=2)
        for without in (True, False):
            tried = np.where((DECAYS == 0) == without, held_out, np.inf)
            i, j = np.unravel_index(tried.argmin(), tried.shape)
            error, left = of["test"][i, j], of["left"][i, j].mean()
            print(
                f"{name if without else '':9}  2^{np.log2(OPTIMIZERS[name][1][i]):<3.0f}  "
                f"{DECAYS[j]:.3f}  {asked[j]:11.5f}  {left:8.5f}  "
                f"{error.mean():.1%} ± {error.std(ddof=1):.1%}"
            )
    apart = max(np.abs(of["left"] / asked[:, None, None, None] - 1).max() for of in runs.values())
    print(f"Of all weights without gradient, asked and measured differ by {apart:.0e} at most.")
    return runs


if __name__ == "__main__":
    main()
