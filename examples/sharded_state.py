"""What does a device save when it keeps only its part of the optimizer's state (ZeRO-1)?

    python examples/sharded_state.py

trains a perceptron by AdamW on all devices there are, or on 8 that share this CPU (15 seconds of its
time). Parameters are on every device; the state is, too, or each keeps an eighth of the moments.

    MiB on each of 8 devices
                 parameters   state  training  last loss
    replicated         1.15    2.30      6.54    0.01560
    spread             1.15    0.29      3.52    0.01560

`training` is all that XLA plans to hold, batches too. Losses are the same up to rounding.
"""

import os
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # For CPUs alone.

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd

STEPS, BATCH, WIDTH = 200, 128, 512
MODEL = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.Dense(WIDTH), nn.relu, nn.Dense(10)])


def data():
    """Batches of digits that all devices divide, as (steps, examples, ...)."""
    (x, y), devices = load_digits(return_X_y=True), jax.device_count()
    drawn = np.random.default_rng(0).choice(len(x), (STEPS, -(-BATCH // devices) * devices))
    return (x / 16).astype(np.float32)[drawn], y.astype(np.int32)[drawn]


def create():
    """Parameters and state of AdamW."""
    tx = dwd.adamw(1e-3, weight_decay=1e-4, schedule=optax.cosine_decay_schedule(1.0, STEPS))
    params = MODEL.init(jax.random.key(0), jnp.zeros((1, 64)))
    return TrainState.create(apply_fn=MODEL.apply, params=params, tx=tx)


def train(state, batches):
    """All steps: the same program for one device or many, replicated or spread."""

    def step(state, batch):
        def loss(params):
            logits = state.apply_fn(params, batch[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    return jax.lax.scan(step, state, batches)


def shardings(mesh, *, spread):
    """Where everything lives: all of it everywhere, or the optimizer's state in parts."""
    state = jax.eval_shape(create)
    where = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), state)
    if spread:
        where = where.replace(opt_state=dwd.optimizer_state_sharding(state.tx, state.params, mesh))
    return where


def on_each_device(tree):
    """Bytes that lie on the fullest device."""
    held = dict.fromkeys(jax.devices(), 0)
    for x in jax.tree.leaves(tree):
        for shard in x.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return max(held.values())


def run(batches, where):
    """Bytes on a device, of the parameters, of the state and in all; and the losses."""
    state = jax.jit(create, out_shardings=where)()
    chunk = jax.jit(train, out_shardings=(where, None), donate_argnums=0)
    compiled = chunk.lower(state, batches).compile()
    memory: Any = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needed += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    held = [on_each_device(tree) for tree in (state.params, state.opt_state)]
    state, losses = compiled(state, batches)
    assert held == [on_each_device(tree) for tree in (state.params, state.opt_state)]
    return (*held, needed), losses


def main():
    """Train replicated and spread, and print what lies on a device."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    batches = jax.device_put(data(), NamedSharding(mesh, PartitionSpec(None, "data")))
    print(f"MiB on each of {mesh.size} devices")
    print("             parameters   state  training  last loss")
    for name, spread in tqdm({"replicated": False, "spread": True}.items()):
        held, losses = run(batches, shardings(mesh, spread=spread))
        parameters, state, training = (x / 2**20 for x in held)
        tqdm.write(f"{name:12} {parameters:10.2f} {state:7.2f} {training:9.2f} {losses[-1]:10.5f}")


if __name__ == "__main__":
    main()
