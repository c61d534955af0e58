"""Where does AdamW bring a layer's norm and rotation, and where does the prediction of them fail?

Steps lengthen a layer, decay shortens it, and they balance. Where, `diagnostics.adamw_equilibrium` says
for gradients that are noise and layers that a normalization follows (Kosson et al., arXiv 2305.17212).

    python examples/equilibrium.py  # 15 seconds on two CPU cores; draws equilibrium.png

    rate    layer             rotation  predicted  ratio             norm  predicted  ratio
    0.0020  hidden1/kernel    0.0154     0.0145    1.06 ± 0.01       1.9       1.96    0.97 ± 0.01
    0.0020  hidden2/kernel    0.0148     0.0145    1.02 ± 0.00      1.94       1.96    0.99 ± 0.01
    0.0020  head/kernel      0.00329     0.0145    0.23 ± 0.00      3.14      0.774    4.05 ± 0.05
    0.0078  hidden1/kernel    0.0154     0.0145    1.06 ± 0.00       7.1       7.84    0.91 ± 0.00
    0.0078  hidden2/kernel    0.0147     0.0145    1.02 ± 0.00      7.25       7.84    0.93 ± 0.00
    0.0078  head/kernel      0.00898     0.0145    0.62 ± 0.00      4.67        3.1    1.51 ± 0.01

± is over 3 seeds. Hidden layers are as predicted to 10 %, at both rates. The loss wants the head long:
its gradients have a direction, so that it turns less and is longer. With NOISE = 0 digits are learned
by heart, gradients are no noise, and the hidden layers are off by 5 to 20 %.
"""

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

RATES, DECAY, SEEDS = (2**-9, 2**-7), 0.002, 3  # Per step: learning rate times PyTorch's decay.
STEPS, PIECE, BATCH_SIZE, NOISE = 4000, 200, 64, 0.5  # 8 times 1/DECAY; the last half is measured.
LAYERS = ("hidden1/kernel", "hidden2/kernel", "head/kernel")
IMAGES, LABELS = map(jnp.asarray, load_digits(return_X_y=True))


class Network(nn.Module):
    """A perceptron whose hidden layers may be of any length: LayerNorm divides by it."""

    @nn.compact
    def __call__(self, x):
        for name in ("hidden1", "hidden2"):
            x = nn.Dense(64, use_bias=False, name=name)(x)
            x = nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(x))
        return nn.Dense(10, name="head")(x)


def loss_of(params, which, noise):
    """The loss of a minibatch, each image, of pixels in [0, 1], with fresh noise."""
    rows = jax.random.randint(which, (BATCH_SIZE,), 0, len(LABELS))
    x = IMAGES[rows] / 16 + NOISE * jax.random.normal(noise, (BATCH_SIZE, 64))
    logits = jnp.asarray(Network().apply({"params": params}, x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[rows]).mean()


def start(learning_rate, seed):
    """The parameters, optimizer state and random key of a run."""
    params = Network().init(jax.random.key(seed), jnp.zeros(64))["params"]
    return params, dwd.adamw(learning_rate, weight_decay=DECAY).init(params), jax.random.key(seed)


def advance(carry, learning_rate, seed):
    """Train a run by a piece, and log every step."""
    tx = dwd.adamw(learning_rate, weight_decay=DECAY)

    def balance(leaf):
        return diagnostics.adamw_equilibrium(leaf.weight_decay, learning_rate, leaf.size)

    def step(carry, _):
        params, state, key = carry
        key, which, noise = jax.random.split(key, 3)
        grads = jax.grad(loss_of)(params, which, noise)
        decay = diagnostics.effective_decay(tx, grads, state, params)
        updates, state = tx.update(grads, state, params)
        log = diagnostics.scalars(params, updates, weight_decay=decay, equilibrium=balance)
        return (optax.apply_updates(params, updates), state, key), log

    return jax.lax.scan(step, carry, length=PIECE)


def main():
    """Train all runs at once, print what is measured to what is predicted, draw the first seed."""
    runs = {"learning_rate": jnp.array(RATES), "seed": jnp.arange(SEEDS)}
    carry, logs = sweep.grid(start, **runs), []
    for _ in tqdm(range(STEPS // PIECE)):
        carry, log = sweep.grid(advance, carry, **runs)
        logs.append(log)
    history = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=-1), *logs)
    late = {name: np.sqrt(np.mean(x[..., STEPS // 2 :] ** 2, -1)) for name, x in history.items()}
    with plots.house_style():
        figure, panels = plt.subplots(2, len(RATES), figsize=(9, 5.5), sharey="row")
    print("rate    layer             rotation  predicted  ratio             norm  predicted  ratio")
    for i, rate in enumerate(RATES):
        for layer in LAYERS:
            row = f"{rate:.4f}  {layer:14}"
            for name in ("rotation", "norm"):
                x, y = (late[f"{name}{kind}/{layer}"][i] for kind in ("", "_equilibrium"))
                row += f"{x.mean():10.3g}{y[0]:11.3g}{np.mean(x / y):8.2f} ± {np.std(x / y, ddof=1):.2f}"
            print(row)
        first_seed = {name: x[i, 0] for name, x in history.items()}
        plots.equilibrium(first_seed, paths=LAYERS, axes=list(panels[:, i]))
        panels[0, i].set_title(f"learning rate {rate:.4f}, decay {DECAY} per step")
    figure.savefig("equilibrium.png", dpi=120)
    print("Drawn: equilibrium.png")
    return late


if __name__ == "__main__":
    main()
