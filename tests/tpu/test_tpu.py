"""The training step of examples/language_model_linen.py, compiled for TPU v5e on a machine without one.

Needs the TPU compiler, the `libtpu` wheel (`.ci/run` installs it).
"""

import collections
import functools
import itertools
import math
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import decoupled_wd as dwd
from tests.helpers import load_script

pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install libtpu")
pytest.importorskip("flax")

PATH = pathlib.Path(__file__).parents[2] / "examples" / "language_model_linen.py"
example = load_script(PATH)
BATCH = 8
"""Texts a chip."""
WORD = 512
"""Bytes of a scalar: the smallest array there is, a row of 128 lanes of 32 bits."""
UNREAD = WORD
"""The applied decay, which the state keeps for a reader: the step writes it and does not read it."""

COLLECTIVE = re.compile(
    r"= (.+) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-\w+)(?:-start)?\("
)
ARRAY = re.compile(r"\b([a-z]+\d+)\[([\d,]*)\]")


@functools.cache
def mesh_of(topology):
    """The chips of a topology. Without these libtpu asks a metadata server that is not there."""
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),  # There is no chip to be locked for one process.
    ):
        os.environ.setdefault(name, value)
    return Mesh(np.array(topologies.get_topology_desc(topology, platform="tpu").devices), ("data",))


@functools.cache
def abstract_state():
    return jax.eval_shape(example.make_state, jax.random.key(0))


def given(tree, sharding):
    """Shapes on devices that need not be there; a sharding, or a tree of them."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        tree,
        jax.tree.broadcast(sharding, tree),
    )


def inputs(mesh):
    """State and key on every chip, and the batch spread over them."""
    chips = mesh.devices.size
    batch = jax.ShapeDtypeStruct((chips * BATCH, example.CONTEXT + 1), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    everywhere = NamedSharding(mesh, P())
    return (
        given(abstract_state(), everywhere),
        given(batch, NamedSharding(mesh, P("data"))),
        given(key, everywhere),
    )


def update(state, grads):
    return state.apply_gradients(grads=grads)


def compiled(step, *args):
    return step.trace(*args).lower(lowering_platforms=("tpu",)).compile()


def on_one_chip(state, batch, key):
    """The step as pmap-style code has it: the batch is the chip's own, the gradients are averaged."""
    tx = state.tx

    def update(grads, opt_state, params):
        return tx.update(jax.lax.pmean(grads, "data"), opt_state, params)

    averaging = state.replace(tx=optax.GradientTransformation(tx.init, update))
    key = jax.random.fold_in(key, jax.lax.axis_index("data"))
    state, loss = example.train_step(averaging, batch, key)
    return state.replace(tx=tx), jax.lax.pmean(loss, "data")


def with_mesh(mesh):
    return compiled(jax.jit(example.train_step, donate_argnums=0), *inputs(mesh))


def with_shard_map(mesh):
    step = jax.shard_map(
        on_one_chip, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=P(), check_vma=False
    )
    return compiled(jax.jit(step, donate_argnums=0), *inputs(mesh))


def with_pmap(mesh):
    chips = list(mesh.devices)
    step = jax.pmap(on_one_chip, "data", in_axes=(0, 0, None), devices=chips, donate_argnums=0)
    _, batch, key = inputs(mesh)
    stacked = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(chips), *x.shape), x.dtype), abstract_state()
    )
    batch = jax.ShapeDtypeStruct((len(chips), BATCH, *batch.shape[1:]), batch.dtype)
    return step.lower(stacked, batch, jax.ShapeDtypeStruct(key.shape, key.dtype)).compile()


def communicated(program):
    """Numbers that cross between chips, by their dtype."""
    count = collections.Counter()
    for shape, _ in COLLECTIVE.findall(program.as_text()):
        for dtype, sizes in ARRAY.findall(shape):
            count[dtype] += math.prod(map(int, filter(None, sizes.split(","))))
    return count


def bytes_on_a_chip(tree):
    """Of arrays in tiles of 8 rows and 128 lanes, in the order of axes that fills them best."""

    def padded(shape, itemsize):
        if len(shape) < 2:
            return -(-math.prod(shape) // 128) * 128 * max(itemsize, 4)
        tiles = (
            math.prod(shape) // (rows * lanes) * -(-rows // 8) * -(-lanes // 128)
            for rows, lanes in itertools.permutations(shape, 2)
        )
        return min(tiles) * 8 * 128 * itemsize

    total = 0
    for x in jax.tree.leaves(tree):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.eval_shape(jax.random.key_data, x)
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        total += padded(shape, x.dtype.itemsize)
    return total


def kept_for_the_backward_pass():
    """Bytes that the step has at most beside its arguments: what `vjp` keeps, and the gradients."""
    state = abstract_state()
    batch = jax.ShapeDtypeStruct((BATCH, example.CONTEXT + 1), jnp.uint8)

    def backward(params, batch, key):
        return jax.vjp(lambda params: example.loss_function(params, state, batch, key), params)[1]

    kept = jax.eval_shape(backward, state.params, batch, jax.random.key(0))
    return bytes_on_a_chip(kept) + bytes_on_a_chip(state.params)


@pytest.mark.parametrize(
    ("topology", "style"),
    [
        ("v5e:2x2", with_mesh),
        ("v5e:2x2", with_shard_map),
        ("v5e:2x2", with_pmap),
        ("v5e:16x16", with_mesh),
        ("v5e:16x16", with_pmap),
    ],
)
def test_the_step_communicates_gradients_and_loss_and_a_chip_holds_what_shapes_say(topology, style):
    program = style(mesh_of(topology))
    state, batch, key = inputs(mesh_of(topology))

    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    # Beside them integers alone: random bits of the dropout, which XLA may share out.
    floats = {k: n for k, n in communicated(program).items() if k[0] != "u"}
    assert floats == {"f32": parameters + 1}

    memory = program.memory_analysis()
    held = bytes_on_a_chip(state)
    assert memory.argument_size_in_bytes == held - UNREAD + bytes_on_a_chip((batch, key))
    assert memory.alias_size_in_bytes == held - UNREAD
    # The loss, and a table of where the results are.
    assert memory.output_size_in_bytes == held + 2 * WORD
    assert memory.temp_size_in_bytes <= kept_for_the_backward_pass()


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5e:16x16"])
def test_the_update_alone_has_no_collective_and_no_memory_of_its_own(topology):
    state, _, _ = inputs(mesh_of(topology))
    everywhere = NamedSharding(mesh_of(topology), P())
    alone = jax.jit(update, donate_argnums=0, out_shardings=everywhere)
    program = compiled(alone, state, state.params)
    assert not communicated(program)
    assert program.memory_analysis().temp_size_in_bytes == 0


def test_with_the_moments_spread_a_chip_holds_its_part_and_the_update_gathers_parameters_once():
    mesh = mesh_of("v5e:2x2")
    state, batch, key = inputs(mesh)
    spread = dwd.optimizer_state_sharding(state.tx, state.params, mesh)
    state = state.replace(opt_state=given(state.opt_state, spread))
    shardings = jax.tree.map(lambda x: x.sharding, state)

    alone = jax.jit(update, donate_argnums=0, out_shardings=shardings)
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    assert communicated(compiled(alone, state, state.params)) == {"f32": parameters}

    out_shardings = (shardings, NamedSharding(mesh, P()))
    step = jax.jit(example.train_step, donate_argnums=0, out_shardings=out_shardings)
    memory = compiled(step, state, batch, key).memory_analysis()
    held = bytes_on_a_chip(state)
    assert held < 0.75 * bytes_on_a_chip(abstract_state())
    assert memory.argument_size_in_bytes == held - UNREAD + bytes_on_a_chip((batch, key))
    assert memory.alias_size_in_bytes == held - UNREAD
    assert memory.temp_size_in_bytes <= kept_for_the_backward_pass()
