"""Where does AdamW bring a layer's norm and its rotation, and where does the prediction fail?

A step of AdamW lengthens a layer, decay shortens it, and after a few timescales 1/(decay per step) the
two balance. If gradients are noise, and the layer's length does not matter to the loss because a
normalization follows, learning rate, decay and size say where (Kosson et al., arXiv 2305.17212):
`diagnostics.adamw_equilibrium`. Here a perceptron whose two hidden layers are such learns digits at
two learning rates, four times apart, at the same decay per step. So rotation should be the same
0.0145 rad per step in all rows, and norms four times apart.

    python examples/equilibrium.py

takes 15 seconds on two CPU cores, prints this, and draws equilibrium.png:

TABLE

* The hidden layers, both at 7.9 (10.8?) at first, are where they were predicted...
* The head fails, as it must: ...
* With NOISE = 0 ...
"""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import diagnostics, plots, sweep

RATES = (2**-9, 2**-7)
DECAY = 0.002  # Per step: AdamW's weight_decay times its learning rate, in Optax and PyTorch.
STEPS, PIECE, SEEDS = 4000, 200, 3  # Eight timescales, of which the last four are measured.
BATCH_SIZE, WIDTH, TRAINING_DIGITS = 64, 64, 1400
NOISE = 0.5  # Standard deviation of what is added to pixels in [0, 1].


class Network(nn.Module):
    """The length of a hidden layer does not matter: LayerNorm divides by it."""

    @nn.compact
    def __call__(self, x):
        for name in ("hidden1", "hidden2"):
            x = nn.Dense(WIDTH, use_bias=False, name=name)(x)
            x = nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(x))
        return nn.Dense(10, name="head")(x)


network = Network()
images, labels = map(jnp.asarray, load_digits(return_X_y=True))
images = images.astype(jnp.float32) / 16
PATHS = [f"{layer}/kernel" for layer in ("hidden1", "hidden2", "head")]


def loss_of(params, key):
    """The loss of a minibatch, with fresh noise on every image."""
    which, pixels = jax.random.split(key)
    rows = jax.random.randint(which, (BATCH_SIZE,), 0, TRAINING_DIGITS)
    x = images[rows] + NOISE * jax.random.normal(pixels, (BATCH_SIZE, images.shape[1]))
    logits = network.apply({"params": params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()


def optimizer(learning_rate):
    """AdamW in the paper's unit, decay per step; biases do not decay."""
    return dwd.adamw(learning_rate, weight_decay=DECAY, mask=dwd.masks.matrices())


def start(learning_rate, seed):
    """Parameters, state and random key of a run."""
    key = jax.random.key(seed)
    params = network.init(key, images[:1])["params"]
    return params, optimizer(learning_rate).init(params), key


def advance(carry, learning_rate, seed):
    """Train a run for some steps, and log each."""
    tx = optimizer(learning_rate)

    def predict(leaf):
        return diagnostics.adamw_equilibrium(leaf.weight_decay, learning_rate, leaf.size)

    def step(carry, _):
        params, state, key = carry
        key, now = jax.random.split(key)
        grads = jax.grad(loss_of)(params, now)
        decay = diagnostics.effective_decay(tx, grads, state, params)
        updates, state = tx.update(grads, state, params)
        log = diagnostics.scalars(params, updates, weight_decay=decay, equilibrium=predict)
        return (optax.apply_updates(params, updates), state, key), log

    return jax.lax.scan(step, carry, length=PIECE)


def draw(history):
    """Rotation and norm of the first seed at each learning rate."""
    with plots.house_style():
        figure, panels = plt.subplots(2, len(RATES), figsize=(9, 5.5), sharey="row", squeeze=False)
        for i, rate in enumerate(RATES):
            first_seed = {name: values[i, 0] for name, values in history.items()}
            plots.equilibrium(first_seed, paths=PATHS, axes=panels[:, i])
            panels[0, i].set_title(f"learning rate {rate:.2g}, decay {DECAY} per step")
        figure.savefig("equilibrium.png", dpi=120)
    print("Drawn: equilibrium.png")


def main():
    runs = {"learning_rate": jnp.array(RATES), "seed": jnp.arange(SEEDS)}
    carry, logs = sweep.grid(start, **runs), []
    for _ in tqdm(range(STEPS // PIECE), unit="piece"):
        carry, log = sweep.grid(advance, carry, **runs)
        logs.append(jax.tree.map(np.asarray, log))
    history = {name: np.concatenate([log[name] for log in logs], axis=-1) for name in logs[0]}

    print("learning rate  leaf            rotation, predicted, ratio       norm, predicted, ratio")
    ratios = {}
    for (i, rate), path in itertools.product(enumerate(RATES), PATHS):
        row = f"{rate:<13.2g}  {path:14}"
        for quantity, digits in (("rotation", 4), ("norm", 2)):
            of_runs = history[f"{quantity}/{path}"][i, :, STEPS // 2 :]
            measured = np.sqrt(np.mean(of_runs**2, axis=-1))
            predicted = history[f"{quantity}_equilibrium/{path}"][i, :, -1]
            ratio = ratios[quantity, rate, path] = measured / predicted
            row += f"  {measured.mean():.{digits}f}  {predicted.mean():.{digits}f}"
            row += f"  {ratio.mean():.2f} ± {ratio.std():.2f}"
        print(row)
    draw(history)
    return ratios


if __name__ == "__main__":
    main()
