"""Do `pmap`, `shard_map` and `jit` with a mesh train the same network, and is it that of one device?

    python examples/data_parallel.py
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # On CPUs alone.

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import decoupled_wd as dwd

STEPS, BATCH, WIDTH = 500, 128, 128
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-4
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(None, "data")
"""Of parameters, and of batches, which are (steps, examples, ...)."""


def data():
    """The digits in batches, and 500 others as a test."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    train, test = np.split(rng.permutation(len(x)), [len(x) - 500])
    drawn = rng.choice(train, (STEPS, BATCH))
    x, y = (x / 16).astype(np.float32), y.astype(np.int32)
    return (x[drawn], y[drawn]), (x[test], y[test])


def make_params():
    """Three layers, by He's initialization."""
    rng, widths = np.random.default_rng(1), (64, WIDTH, WIDTH, 10)
    shapes = zip(widths[:-1], widths[1:], strict=True)
    kernels = [rng.normal(size=s) * np.sqrt(2 / s[0]) for s in shapes]
    return [{"kernel": jnp.asarray(k, "float32"), "bias": jnp.zeros(k.shape[1])} for k in kernels]


def logits(params, x):
    """A perceptron."""
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def loss(params, x, y):
    """Mean cross-entropy of the examples that a device has."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def mean_of_gradients(params, x, y):
    """For `pmap`: a device differentiates its own loss, and gradients are averaged."""
    return jax.lax.pmean(jax.grad(loss)(params, x, y), "data")


def gradient_of_mean(params, x, y):
    """For `shard_map`, which knows that the parameters are the same on every device and so sums their
    gradients over devices by itself: averaged again by `pmean`, they would stay 8 times too long."""
    return jax.grad(lambda *given: jax.lax.pmean(loss(*given), "data"))(params, x, y)


def train(params, batches, gradient=jax.grad(loss)):
    """All steps: the one place where the optimizer is, the same for every way."""
    schedule = optax.cosine_decay_schedule(1.0, STEPS)
    tx = dwd.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, schedule=schedule)

    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(gradient(params, *batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]


def pmapped(mesh, params, batches):
    """Examples in a leading axis of devices; so come the parameters, one copy a device."""
    def cut(x): return x.reshape(x.shape[0], mesh.size, -1, *x.shape[2:])
    way = jax.pmap(lambda p, b: train(p, b, mean_of_gradients), "data", in_axes=(None, 1))
    copies = jax.device_get(way(params, jax.tree.map(cut, batches)))
    assert all(np.array_equal(x, np.broadcast_to(x[0], x.shape)) for x in jax.tree.leaves(copies))
    return jax.tree.map(lambda x: x[0], copies)


def shard_mapped(mesh, params, batches):
    """Each device has its part of every batch."""
    way = lambda p, b: train(p, b, gradient_of_mean)
    specs = {"in_specs": (EVERYWHERE, SPLIT), "out_specs": EVERYWHERE}
    return jax.jit(jax.shard_map(way, mesh=mesh, **specs))(params, batches)


def jitted(mesh, params, batches):
    """The program of one device: the compiler splits it as the batches are split."""
    return jax.jit(train)(
        jax.device_put(params, NamedSharding(mesh, EVERYWHERE)),
        jax.device_put(batches, NamedSharding(mesh, SPLIT)),
    )


def one_device(mesh, params, batches):
    return jax.jit(train)(params, batches)
WAYS={f.__name__:f for f in (one_device, pmapped, shard_mapped, jitted)}
