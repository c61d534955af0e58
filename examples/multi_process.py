"""Do two processes, each with its own devices and examples, train the network that one process trains?

python examples/multi_process.py
"""

import os
import socket
import sys
import tempfile
from subprocess import PIPE, Popen

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # For CPUs alone.

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import decoupled_wd as dwd

STEPS, BATCH = 100, 128
MODEL = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(10)])


def own_examples():
    """Of every batch the part that this process feeds its devices with: (steps, examples, ...)."""
    x, y = load_digits(return_X_y=True)
    whole = np.random.default_rng(0).choice(len(x), (STEPS, BATCH))
    drawn = np.split(whole, jax.process_count(), axis=1)[jax.process_index()]
    return (x / 16).astype(np.float32)[drawn], y.astype(np.int32)[drawn]


def create():
    """Parameters and state of AdamW."""
    tx = dwd.adamw(3e-3, weight_decay=1e-4, schedule=optax.cosine_decay_schedule(1.0, STEPS))
    params = MODEL.init(jax.random.key(0), np.zeros((1, 64), np.float32))
    return TrainState.create(apply_fn=MODEL.apply, params=params, tx=tx)


def train(state, batches):
    """All steps: the program of one device."""

    def step(state, batch):
        def loss(params):
            logits = state.apply_fn(params, batch[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    return jax.lax.scan(step, state, batches)


def work():
    """What every process does, alone or not: the parameters, and a line about what it saw."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec(None, "data"))
    examples = own_examples()
    # Each process gives its own, and what comes is the array of all.
    batches = jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), examples)
    state = jax.eval_shape(create)
    where = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), state)
    where = where.replace(opt_state=dwd.optimizer_state_sharding(state.tx, state.params, mesh))
    state = jax.jit(create, out_shardings=where)()
    state, losses = jax.jit(train, out_shardings=(where, None), donate_argnums=0)(state, batches)
    parts = [part.data for x in jax.tree.leaves(state.opt_state) for part in x.addressable_shards]
    kib, local = sum(part.nbytes for part in parts) / 1024, jax.local_device_count()
    line = f"{jax.process_index()} of {jax.process_count()}   {local} of {mesh.size}"
    line += f"{len(examples[1][0]):11} {kib:10.0f} {losses[-1]:10.6f}"
    return jax.device_get(state.params), line


def worker(coordinator=None, process="0", path=None):
    """One process of the two that `main` starts; without arguments, of those that JAX finds."""
    if coordinator is None:
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(coordinator, 2, int(process))
    params, line = work()
    print(line)
    if path:
        np.savez(path, *jax.tree.leaves(params))


def main():
    """Start two workers, then train alone, and compare."""
    jax.config.update("jax_platforms", "cpu")
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/0.npz", f"{folder}/1.npz"]
        commands = [[sys.executable, __file__, "worker", address, str(i), paths[i]] for i in (0, 1)]
        workers = [Popen(command, env=env, stdout=PIPE, text=True) for command in commands]
        print("process  devices  examples  state KiB  last loss")
        for process in workers:
            print(process.communicate(timeout=300)[0].splitlines()[-1])
        together = [list(np.load(path).values()) for path in paths]
    alone, line = work()
    print(line)
    apart = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), [jax.tree.leaves(alone)] * 2, together)
    print(f"largest difference between parameters: {max(jax.tree.leaves(apart)):.0e}")


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main()
