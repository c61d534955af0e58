"""Does a training in PyTorch give the same losses here, and can it be continued here half-way?

A perceptron learns digits with PyTorch's AdamW, a cosine schedule and no decay of biases; then here
from the same start, where `dwd.like` takes PyTorch's own arguments; then from PyTorch's parameters and
optimizer state of half-way, carried over by `dwd.migrate`; and for comparison without that state.

    pip install torch
    python examples/from_pytorch.py

takes 12 seconds on two CPU cores, draws from_pytorch.png (the two curves cannot be told apart, and how
far apart they are) and prints

    trained here              losses apart by at most  mean loss of the last 100 steps
    from the start            3e-04                    0.0573
    from half-way             2e-07                    0.0573
    from half-way, stateless  9e-02                    0.0319
    PyTorch                                            0.0573

What is left is rounding: with DTYPE = "float64" it is 9e-16 from the start. In float32 it is 1e-6 to
3e-4, by the seed, because Adam divides by gradients that are almost 0 and so magnifies their rounding:
with "eps": 1e-4 it stays below 1e-6. Without its state a training is another: the moments are empty,
and the schedule begins anew (this one thereby gets lower, and has not cooled down).
"""

import copy
import sys

import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import decoupled_wd as dwd
from decoupled_wd import masks, migrate, plots

try:
    import torch
except ImportError:
    sys.exit("This example compares with PyTorch, which is not installed: pip install torch")

STEPS, BATCH_SIZE, WIDTH, DTYPE = 1000, 64, 128, "float32"
ADAMW = {"lr": 2e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def train_pytorch(images, labels):
    """The loss of every step; parameters and optimizer state at the start and half-way."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # On matrices this small more threads wait for one another.
    model = torch.nn.Sequential()
    model.add_module("fc1", torch.nn.Linear(64, WIDTH))
    model.add_module("relu", torch.nn.ReLU())
    model.add_module("fc2", torch.nn.Linear(WIDTH, 10))
    model.to(getattr(torch, DTYPE))
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim == 2]
    biases = [(name, p) for name, p in model.named_parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, **ADAMW)
    cosine = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + np.cos(np.pi * step / STEPS)) / 2
    )
    losses, saved = [], []
    for step in range(STEPS):
        if step in (0, STEPS // 2):
            params = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
            saved.append((params, copy.deepcopy(optimizer.state_dict())))
        logits = model(torch.tensor(images[step]))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[step]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        losses.append(loss.item())
    return np.array(losses), saved


class Network(nn.Module):
    """PyTorch's model in Flax."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(WIDTH, name="fc1")(x))
        return nn.Dense(10, name="fc2")(x)


def to_flax(arrays):
    """PyTorch's names and layout to Flax's: of the parameters, and so of their moments."""
    return {
        layer: {"kernel": arrays[f"{layer}.weight"].T, "bias": arrays[f"{layer}.bias"]}
        for layer in ("fc1", "fc2")
    }


def train(tx, params, state, images, labels):
    """The loss of every step."""

    def loss_of(params, x, y):
        logits = Network().apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(carry, batch):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, *batch)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    run = jax.jit(lambda *carry: jax.lax.scan(step, carry, (images, labels))[1])
    return np.asarray(run(params, state))


def draw(theirs, ours, apart):
    """Two curves on top of each other, and how far each run is from PyTorch's."""
    with plots.house_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
        left.semilogy(theirs, color=plots.OKABE_ITO[4], linewidth=4, label="PyTorch")
        left.semilogy(ours, color="black", linewidth=0.8, label="here, from the start")
        for name, difference in apart.items():
            right.semilogy(np.arange(STEPS)[-len(difference) :], difference, label=name)
        left.set(xlabel="step", ylabel="loss of the minibatch")
        right.set(xlabel="step", ylabel="difference from PyTorch's")
        left.legend()
        right.legend()
        figure.savefig("from_pytorch.png", dpi=120)
    print("Drawn: from_pytorch.png")


def main():
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).integers(len(labels), size=(STEPS, BATCH_SIZE))
    images, labels = (images[rows] / 16).astype(DTYPE), labels[rows]
    theirs, ((start, _), (middle, state_dict)) = train_pytorch(images, labels)

    multiplier = optax.cosine_decay_schedule(1.0, STEPS)  # LambdaLR's function, in JAX.
    tx = dwd.like("pytorch.AdamW", schedule=multiplier, mask=masks.matrices(), **ADAMW)
    start, middle, half = to_flax(start), to_flax(middle), STEPS // 2
    fresh = tx.init(start)
    moments = migrate.rearrange(migrate.from_pytorch(state_dict), to_flax)
    later = images[half:], labels[half:]
    runs = {
        "from the start": train(tx, start, fresh, images, labels),
        "from half-way": train(tx, middle, migrate.to_optax(moments, fresh), *later),
        "from half-way, stateless": train(tx, middle, fresh, *later),
    }
    apart = {name: np.abs(losses - theirs[-len(losses) :]) for name, losses in runs.items()}
    print("trained here              losses apart by at most  mean loss of the last 100 steps")
    for name, losses in runs.items():
        print(f"{name:24}  {apart[name].max():<23.0e}  {losses[-100:].mean():.4f}")
    print(f"{'PyTorch':24}  {'':23}  {theirs[-100:].mean():.4f}")
    draw(theirs, runs["from the start"], apart)
    return theirs, runs


if __name__ == "__main__":
    with jax.enable_x64(DTYPE == "float64"), jax.default_matmul_precision("highest"):
        main()
