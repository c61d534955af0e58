"""Is a run that was killed, and resumed from its checkpoint, the run that was not? To the last bit?

    python examples/checkpoint_resume.py

trains a bfloat16 perceptron on the handwritten digits in a process that saves with Orbax every 50 steps,
kills it (SIGKILL) while it trains, and goes on from the last checkpoint (25 seconds of processor time).
Compared with a run that nothing happened to:

    killed by signal 9; the last of 1000 steps in a checkpoint is 400
    resumed  30 of 30 arrays have the same bits
    anew      2 of 30 arrays have the same bits

`anew` goes on from the same parameters with a new state of the optimizer, as where they alone are saved:
moments are 0, the cycle starts again, decay pulls towards other weights; the number of steps and lambda
are the same. If the process died while it wrote one more checkpoint, Orbax says that it removes that.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd

STEPS, EVERY, KILL_AT, PERIOD, BATCH = 1000, 50, 400, 150, 128
MODEL = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(10)])
X, Y = load_digits(return_X_y=True)  # In NumPy: a TPU admits one process, first the killed one.


@jax.jit
def create():
    """Bfloat16 parameters, and an optimizer with a lot to remember: moments, the place in a cycle of
    restarts, the initial weights that decay pulls towards, and how often it has rounded at random."""
    tx = optax.chain(
        dwd.scale_by_adam(),
        optax.scale(3e-3),
        dwd.decoupled_weight_decay(1e-3, toward="initial"),
        dwd.cosine_warm_restarts(PERIOD, 2),
        optax.scale(-1),
    )
    params = optax.tree.cast(MODEL.init(jax.random.key(0), jnp.zeros((1, 64))), jnp.bfloat16)
    tx = dwd.with_rounding(tx, "stochastic")
    return TrainState.create(apply_fn=MODEL.apply, params=params, tx=tx)


@jax.jit
def advance(state):
    """`EVERY` steps. Batches follow from the step, so that there is no loader to resume."""
    images, labels = jnp.asarray(X) / 16, jnp.asarray(Y)

    def step(state, _):
        key = jax.random.fold_in(jax.random.key(1), state.step)
        drawn = jax.random.randint(key, (BATCH,), 0, len(X))

        def loss(params):
            logits = state.apply_fn(params, images[drawn])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[drawn]).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params)), None

    return jax.lax.scan(step, state, length=EVERY)[0]


def train(directory, *, keep_state=True):
    """Train to the end, from the last checkpoint if there is one, and save on the way."""
    state = create()
    with ocp.CheckpointManager(directory) as manager:
        if manager.latest_step() is not None:
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
        if not keep_state:
            state = state.replace(opt_state=state.tx.init(state.params))
        for _ in tqdm(range(int(state.step), STEPS, EVERY)):
            state = advance(state)
            manager.save(int(state.step), args=ocp.args.StandardSave(state))
    return jax.device_get(state)


def main():
    """Kill a run, resume it in two ways, and compare with one that nothing happened to."""
    with tempfile.TemporaryDirectory() as folder:
        killed, copy = f"{folder}/killed", f"{folder}/copy"
        process = subprocess.Popen([sys.executable, __file__, killed])
        while process.poll() is None and not Path(killed, str(KILL_AT)).exists():
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        shutil.copytree(killed, copy)
        last = ocp.CheckpointManager(killed).latest_step()
        runs = train(f"{folder}/whole"), train(killed), train(copy, keep_state=False)
    print(f"killed by signal 9; the last of {STEPS} steps in a checkpoint is {last}")
    for name, found in zip(("resumed", "anew"), runs[1:], strict=True):
        pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(runs[0]), strict=True))
        equal = sum(x.tobytes() == y.tobytes() for x, y in pairs)
        print(f"{name:7}  {equal:2} of {len(pairs)} arrays have the same bits")


if __name__ == "__main__":
    train(sys.argv[1]) if sys.argv[1:] else main()
