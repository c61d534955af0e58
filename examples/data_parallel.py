"""Do `pmap`, `shard_map` and `jit` with a mesh train the same network, and is it that of one device?

    python examples/data_parallel.py

trains a perceptron on the handwritten digits in each way, on all devices there are; where they are CPUs,
on 8 that share this one (10 seconds of processor time). The optimizer is written once, for one device:

    8 devices    largest difference  test error
    one_device                0e+00        2.0%
    pmap                      3e-07        2.0%
    shard_map                 3e-07        2.0%
    jit                       3e-07        2.0%

They are the same up to rounding: a gradient is a mean over examples, which 8 devices add up in another
order (the last bit of a parameter of 1 is 1e-07). What goes wrong most easily is the mean over devices:
it has another place in `shard_map` than in `pmap`. SGDW shows a mistake there; Adam would hide it, whose
steps are as long for a gradient that is 8 times too long.
"""

import os
from functools import partial

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # For CPUs alone.

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd

STEPS, BATCH, WIDTH = 500, 128, 128
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(None, "data")  # (steps, examples, ...)
MODEL = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.Dense(WIDTH), nn.relu, nn.Dense(10)])
logits = jax.jit(MODEL.apply)


def data():
    """The digits: batches that all devices divide, and 500 others."""
    (x, y), rng = load_digits(return_X_y=True), np.random.default_rng(0)
    x, y = (x / 16).astype(np.float32), y.astype(np.int32)
    train, test = np.split(rng.permutation(len(x)), [-500])
    drawn = rng.choice(train, (STEPS, -(-BATCH // jax.device_count()) * jax.device_count()))
    return (x[drawn], y[drawn]), (x[test], y[test])


def loss(params, x, y):
    """Mean cross-entropy of the examples that are here."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def train(params, batches, gradient):
    """All steps."""
    schedule = optax.cosine_decay_schedule(1.0, STEPS)
    tx = dwd.sgdw(0.1, momentum=0.9, weight_decay=1e-4, schedule=schedule)

    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(gradient(params, *batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]


def one_device(mesh, params, batches):
    """What the others are compared with."""
    return jax.jit(partial(train, gradient=jax.grad(loss)))(params, batches)


def pmap(mesh, params, batches):
    """Devices have an axis of their own: of every batch, and of the results, which are copies."""
    batches = jax.tree.map(lambda x: x.reshape(len(x), mesh.size, -1, *x.shape[2:]), batches)
    way = partial(train, gradient=lambda *given: jax.lax.pmean(jax.grad(loss)(*given), "data"))
    return jax.tree.map(lambda x: x[-1], jax.pmap(way, "data", in_axes=(None, 1))(params, batches))


def shard_map(mesh, params, batches):
    """The program says what one device does with its part of the examples."""
    # Parameters are one for all devices here, so their gradients are summed over devices already: the
    # mean has to be in the loss. A mean of those gradients would leave them `mesh.size` times as long.
    way = partial(train, gradient=jax.grad(lambda *given: jax.lax.pmean(loss(*given), "data")))
    specs = {"in_specs": (EVERYWHERE, SPLIT), "out_specs": EVERYWHERE}
    return jax.jit(jax.shard_map(way, mesh=mesh, **specs))(params, batches)


def jit(mesh, params, batches):
    """The program of one device, which the compiler splits as the examples are split."""
    params = jax.device_put(params, NamedSharding(mesh, EVERYWHERE))
    return one_device(mesh, params, jax.device_put(batches, NamedSharding(mesh, SPLIT)))


def main():
    """Train in each way, and compare."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    batches, (x, y) = data()
    params = MODEL.init(jax.random.key(0), x[:1])
    ways = (one_device, pmap, shard_map, jit)
    found = [jax.device_get(way(mesh, params, batches)) for way in tqdm(ways)]
    print(f"{mesh.size} devices    largest difference  test error")
    for way, trained in zip(ways, found, strict=True):
        apart = jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))), trained, found[0])
        error = np.mean(logits(trained, x).argmax(axis=-1) != y)
        print(f"{way.__name__:11}  {max(jax.tree.leaves(apart)):18.0e}  {error:10.1%}")


if __name__ == "__main__":
    main()
