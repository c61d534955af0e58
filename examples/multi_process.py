"""Do two processes, each with its own devices and examples, train the network that one process trains?

    python examples/multi_process.py

starts two that have 4 devices each (parts of this CPU) and half of every batch, then trains alone on 8,
every time with the optimizer's state in parts, one a device. In 30 seconds of processor time it prints

    process  devices  examples  state KiB  last loss
    0 of 2   4 of 8         64        102   0.183310
    1 of 2   4 of 8         64        102   0.183310
    0 of 1   8 of 8        128        205   0.183310
    largest difference between parameters: 6e-07

which is rounding. With GPUs or TPUs start `python examples/multi_process.py worker` on each machine: JAX
finds the others on Cloud TPU and under Slurm. Elsewhere end with `HOST:PORT 2 0` on HOST, one of two,
and with `HOST:PORT 2 1` on the other.
"""

import os
import socket
import sys
import tempfile
import time
from subprocess import PIPE, Popen

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd

STEPS, BATCH, CPUS = 100, 128, "--xla_force_host_platform_device_count="
MODEL = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(10)])


def own_examples():
    """Of every batch the part that this process feeds its devices with: (steps, examples, ...)."""
    (x, y), devices = load_digits(return_X_y=True), jax.device_count()
    whole = np.random.default_rng(0).choice(len(x), (STEPS, -(-BATCH // devices) * devices))
    drawn = np.split(whole, jax.process_count(), axis=1)[jax.process_index()]
    return (x / 16).astype(np.float32)[drawn], y.astype(np.int32)[drawn]


def train(batches):
    """All of training: the program of one device."""
    tx = dwd.adamw(3e-3, weight_decay=1e-4, schedule=optax.cosine_decay_schedule(1.0, STEPS))
    params = MODEL.init(jax.random.key(0), np.zeros((1, 64), np.float32))

    def step(state, batch):
        def loss(params):
            logits = state.apply_fn(params, batch[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    state = TrainState.create(apply_fn=MODEL.apply, params=params, tx=tx)
    return jax.lax.scan(step, state, batches)


def work():
    """What every process does, alone or not: the parameters, and a line about what it saw."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split, examples = NamedSharding(mesh, PartitionSpec(None, "data")), own_examples()
    # Each process gives its own, and what comes is the array of all.
    batches = jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), examples)
    state, _ = jax.eval_shape(train, batches)
    where = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), state)
    where = where.replace(opt_state=dwd.optimizer_state_sharding(state.tx, state.params, mesh))
    state, losses = jax.jit(train, out_shardings=(where, None))(batches)
    parts = [part.data for x in jax.tree.leaves(state.opt_state) for part in x.addressable_shards]
    kib, local = sum(part.nbytes for part in parts) / 1024, jax.local_device_count()
    line = f"{jax.process_index()} of {jax.process_count()}   {local} of {mesh.size}"
    line += f"{len(examples[1][0]):11} {kib:10.0f} {losses[-1]:10.6f}"
    return jax.device_get(jax.tree.leaves(state.params)), line


def worker(coordinator=None, processes=None, index=None, path=None):
    """One process of those given, or else of those that JAX finds."""
    jax.distributed.initialize(coordinator, processes and int(processes), index and int(index))
    params, line = work()
    print(line, flush=True)
    if path:
        np.savez(path, *params)


def failed(process, path):
    """Whether it has no result: JAX 0.10 may abort one that is done, if the other ends first."""
    return bool(process.poll()) and not os.path.exists(path)


def main():
    """Start two workers, then train alone, and compare."""
    jax.config.update("jax_platforms", "cpu")
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{CPUS}4"}
    os.environ["XLA_FLAGS"] = f"{CPUS}8"
    with tempfile.TemporaryDirectory() as folder, tqdm(total=3, unit="process") as progress:
        paths = {index: f"{folder}/{index}.npz" for index in "01"}
        command = sys.executable, __file__, "worker", address, "2"
        workers = [Popen((*command, *it), env=env, stdout=PIPE, text=True) for it in paths.items()]
        running = True
        while running:
            running = None in [process.poll() for process in workers]
            if any(map(failed, workers, paths.values())):  # The other would wait for it.
                for process in workers:
                    process.kill()
                sys.exit("A worker failed: see above.")
            time.sleep(0.1)
        lines = [process.communicate()[0].splitlines()[-1] for process in workers]
        progress.update(2)
        params = [list(np.load(path).values()) for path in paths.values()]
        alone, line = work()
        progress.update()
    print("process  devices  examples  state KiB  last loss", *lines, line, sep="\n")
    apart = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), [alone, alone], params)
    print(f"largest difference between parameters: {max(jax.tree.leaves(apart)):.0e}")


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main()
