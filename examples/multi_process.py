"""Do two processes, each with its own devices and examples, train the network that one process trains?

python examples/multi_process.py
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # For CPUs alone.

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import decoupled_wd as dwd

STEPS, BATCH, DEVICES = 100, 128, 8
MODEL = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(10)])


def own_examples():
    """Of every batch the part that this process feeds its devices with: (steps, examples, ...)."""
    x, y = load_digits(return_X_y=True)
    drawn = np.random.default_rng(0).choice(len(x), (STEPS, BATCH))
    drawn = np.split(drawn, jax.process_count(), axis=1)[jax.process_index()]
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
    # No process has all examples: each gives its own, and what comes is the array of them all.
    batches = jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), examples)
    state = jax.eval_shape(create)
    where = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), state)
    where = where.replace(opt_state=dwd.optimizer_state_sharding(state.tx, state.params, mesh))
    state = jax.jit(create, out_shardings=where)()
    state, losses = jax.jit(train, out_shardings=(where, None), donate_argnums=0)(state, batches)
    here = sum(
        shard.data.nbytes
        for x in jax.tree.leaves(state.opt_state)
        for shard in x.addressable_shards
    )
    line = (
        f"{jax.process_index()} of {jax.process_count()}   {jax.local_device_count()} of "
        f"{mesh.size}     {examples[0].shape[1]:8}  {here / 1024:9.0f}  {losses[-1]:9.6f}"
    )
    return jax.device_get(state.params), line


def start(process, port, path):
    """One of two processes on this machine, with half the devices."""
    flags = f"--xla_force_host_platform_device_count={DEVICES // 2}"
    worker = ["--worker", f"localhost:{port}", "2", str(process), "--save", path]
    return subprocess.Popen(
        [sys.executable, __file__, *worker],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        text=True,
    )


def main():
    """Be one of the processes; or start two, then train alone, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", nargs="*", help="[HOST:PORT PROCESSES PROCESS]")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    if given.worker is not None:
        coordinator = given.worker[:1]
        jax.distributed.initialize(*coordinator, *map(int, given.worker[1:]))
        params, line = work()
        print(line)
        if given.save and not jax.process_index():
            np.savez(given.save, *jax.tree.leaves(params))
        return
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        free.bind(("localhost", 0))
        port, path = free.getsockname()[1], Path(directory) / "params.npz"
        free.close()
        processes = [start(process, port, path) for process in range(2)]
        print("process  devices    examples  state KiB  last loss")
        for process in processes:
            print(process.communicate(timeout=300)[0].splitlines()[-1])
        together = list(np.load(path).values())
    alone, line = work()
    print(line)
    apart = [np.max(np.abs(x - y)) for x, y in zip(jax.tree.leaves(alone), together, strict=True)]
    print(f"largest difference of parameters: {max(apart):.0e}")


if __name__ == "__main__":
    main()
