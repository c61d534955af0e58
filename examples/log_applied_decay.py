"""Which learning rate and which decay did a step really use? Logged from the optimizer, and checked.

    python examples/log_applied_decay.py

trains a perceptron on scikit-learn's digits, with warm restarts and a falling weight decay, in a jitted
scan, and writes a row every 50 steps to log_applied_decay.csv. In 6 s of processor time it prints

    step    loss  learning_rate     decay  decay/hidden/kernel  norm/hidden/kernel
      49   1.042       1.55e-03  1.95e-03             1.95e-03               7.734
     149   0.403       2.58e-03  2.89e-03             2.89e-03               8.356
     ...
    left of weights without gradient  0.3781 to 0.3781
    product of what was logged        0.3781

`decay` is read from the optimizer's state, times the schedule; `decay/hidden/kernel` is measured, as
the derivative of the step. Three pixels are dark in all images: their weights have no gradient, and
shrink by the product of the logged decays. A schedule read one step too late would make it 0.3787.
"""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import diagnostics, masks

STEPS, EVERY, BATCH, WIDTH = 700, 50, 64, 64
LEARNING_RATE = 3e-3
SCHEDULE = dwd.cosine_warm_restarts_schedule(100, 2)  # of 100, 200 and 400 steps
WEIGHT_DECAY = optax.linear_schedule(4e-3, 1e-3, STEPS)
TX = dwd.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, schedule=SCHEDULE, mask=masks.matrices())


def make_params(key):
    """Two dense layers."""
    keys = jax.random.split(key)
    kernel = jax.nn.initializers.lecun_normal()
    return {
        "hidden": {"kernel": kernel(keys[0], (64, WIDTH)), "bias": jnp.zeros(WIDTH)},
        "head": {"kernel": kernel(keys[1], (WIDTH, 10)), "bias": jnp.zeros(10)},
    }


def loss_function(params, images, labels):
    """Cross entropy."""
    hidden, head = params["hidden"], params["head"]
    h = jax.nn.relu(images @ hidden["kernel"] + hidden["bias"])
    logits = h @ head["kernel"] + head["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train_step(carry, batch):
    """One step, and its scalars."""
    params, opt_state, count = carry
    loss, grads = jax.value_and_grad(loss_function)(params, *batch)
    measured = diagnostics.effective_decay(TX, grads, opt_state, params)
    updates, opt_state = TX.update(grads, opt_state, params)
    # The decay as the optimizer kept it; `count` is that of this step, from 0.
    decay = SCHEDULE(count) * dwd.applied_weight_decay(opt_state)
    row = {"loss": loss, "learning_rate": LEARNING_RATE * SCHEDULE(count), "decay": decay}
    row |= diagnostics.scalars(params, updates, weight_decay=measured)
    return (optax.apply_updates(params, updates), opt_state, count + 1), row


@jax.jit
def train_chunk(carry, batches):
    """`EVERY` steps: the row of the last, and the part of a weight that the decay of all left."""
    carry, rows = jax.lax.scan(train_step, carry, batches)
    left = jnp.prod(1 - rows["decay"])
    return carry, {**jax.tree.map(lambda x: x[-1], rows), "left": left}


def main():
    """Train, write the log, and compare what it says with weights that have no gradient."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    params = make_params(jax.random.key(0))
    carry = params, TX.init(params), jnp.zeros((), int)
    order = np.random.default_rng(0).integers(len(images), size=(STEPS // EVERY, EVERY, BATCH))
    with open("log_applied_decay.csv", "w", newline="") as file:
        rows = []
        for chunk in tqdm(order):
            carry, row = train_chunk(carry, (images[chunk], labels[chunk]))
            step = carry[2].item() - 1
            rows.append({"step": step, **{name: x.item() for name, x in row.items()}})
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print("step    loss  learning_rate     decay  decay/hidden/kernel  norm/hidden/kernel")
    for row in rows[::2]:
        print(
            f"{row['step']:4}  {row['loss']:6.3f}  {row['learning_rate']:13.2e}  {row['decay']:8.2e}"
            f"  {row['decay/hidden/kernel']:19.2e}  {row['norm/hidden/kernel']:18.3f}"
        )
    dark = images.max(axis=0) == 0
    left = carry[0]["hidden"]["kernel"][dark] / params["hidden"]["kernel"][dark]
    print(f"left of weights without gradient  {left.min():.4f} to {left.max():.4f}")
    print(f"product of what was logged        {np.prod([row['left'] for row in rows]):.4f}")


if __name__ == "__main__":
    main()
