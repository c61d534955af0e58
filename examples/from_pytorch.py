"""Does a training in PyTorch give the same losses here, and can it be continued here half-way?

A perceptron learns digits with PyTorch's AdamW, a cosine schedule and no decay of biases; then here
from the same start, by `dwd.like` and PyTorch's own arguments; then from PyTorch's parameters and
optimizer state of half-way, by `dwd.migrate`; and, to compare, from half-way without that state.

    pip install torch
    python examples/from_pytorch.py  # 12 seconds on two CPU cores; draws from_pytorch.png

    trained here              losses apart by at most  mean loss of the last 100 steps
    from the start            3e-04                    0.0573
    from half-way             2e-07                    0.0573
    from half-way, stateless  9e-02                    0.0319
    PyTorch                   0e+00                    0.0573

What is left is rounding, 1e-15 with DTYPE = "float64". In float32 it is 1e-6 to 3e-4, by the seed, as
Adam divides by gradients that are almost 0: with "eps": 1e-4 it is 1e-6. Stateless, all begins anew.
"""

import copy
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import masks, migrate, plots

try:
    import torch  # pyright: ignore[reportMissingImports]
except ImportError:
    sys.exit("This example compares with PyTorch, which is not installed: pip install torch")

STEPS, BATCH_SIZE, WIDTH, DTYPE = 1000, 64, 128, "float32"
ADAMW = {"lr": 2e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def train_pytorch(images, labels):
    """The loss of every step; parameters and optimizer state at the start and half-way."""
    torch.manual_seed(0)
    images, labels = torch.tensor(images), torch.tensor(labels)
    torch.set_num_threads(1)  # On matrices this small more threads wait for one another.
    layers = [torch.nn.Linear(64, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 10)]
    model = torch.nn.Sequential(*layers).to(getattr(torch, DTYPE))
    named = list(model.named_parameters())
    groups = [{"params": named[0::2]}, {"params": named[1::2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, **ADAMW)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    losses, saved = [], []
    for step in tqdm(range(STEPS)):
        if step in (0, STEPS // 2):
            params = {name: p.detach().numpy().copy() for name, p in named}
            saved.append((to_flax(params), copy.deepcopy(optimizer.state_dict())))
        loss = torch.nn.functional.cross_entropy(model(images[step]), labels[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        losses.append(loss.item())
    return np.array(losses), saved


def to_flax(x):
    """PyTorch's names and layout to Flax's: of the parameters, and so of their moments."""
    return {f"layers_{i}": {"kernel": x[f"{i}.weight"].T, "bias": x[f"{i}.bias"]} for i in (0, 2)}


def train_here(tx, params, state, images, labels):
    """The loss of every step."""
    model = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.Dense(10)])

    def loss_of(params, x, y):
        logits = jnp.asarray(model.apply({"params": params}, x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(carry, batch):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, *batch)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    run = jax.jit(lambda *carry: jax.lax.scan(step, carry, (images, labels))[1])
    return np.asarray(run(params, state))


def main():
    """Train there and here, print how far the losses are apart, and draw them."""
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).integers(len(labels), size=(STEPS, BATCH_SIZE))
    images, labels = (images[rows] / 16).astype(DTYPE), labels[rows]
    theirs, ((start, _), (middle, state_dict)) = train_pytorch(images, labels)
    eta = optax.cosine_decay_schedule(1.0, STEPS)
    tx = dwd.like("pytorch.AdamW", schedule=eta, mask=masks.matrices(), **ADAMW)
    later = images[STEPS // 2 :], labels[STEPS // 2 :]
    fresh, moments = tx.init(start), migrate.from_pytorch(state_dict)
    state = migrate.to_optax(migrate.rearrange(moments, to_flax), fresh)
    runs = {
        "from the start": train_here(tx, start, fresh, images, labels),
        "from half-way": train_here(tx, middle, state, *later),
        "from half-way, stateless": train_here(tx, middle, fresh, *later),
    }
    print("trained here              losses apart by at most  mean loss of the last 100 steps")
    for name, losses in {**runs, "PyTorch": theirs}.items():
        apart = np.abs(losses - theirs[-len(losses) :]).max()
        print(f"{name:24}  {apart:<23.0e}  {losses[-100:].mean():.4f}")
    axes = plots.learning_curves({"PyTorch": theirs, "here": runs["from the start"]})
    axes.set(ylabel="minibatch's loss", yscale="log")
    axes.lines[0].set_linewidth(4)  # So that it is seen behind the other.
    plt.savefig("from_pytorch.png", dpi=120)
    print("Drawn: from_pytorch.png")
    return theirs, runs


if __name__ == "__main__":
    with jax.enable_x64(DTYPE == "float64"), jax.default_matmul_precision("highest"):
        main()
