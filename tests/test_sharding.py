"""The state of every optimizer spread over the data axis: born and kept so, donated, equal numbers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import decoupled_wd as dwd
from tests.helpers import (
    Transformation,
    apply,
    assert_close,
    gradients,
    on_the_axes,
    public_transformations,
    take,
)

DATA, MODEL = 4, 2
MESH = jax.make_mesh((DATA, MODEL), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
SHAPES = {"bias": (3,), "kernel": (4, 6), "wide": (2, 8)}
OWN = {"bias": P(), "kernel": P(None, "model"), "wide": P()}
SPREAD = {"bias": P(), "kernel": P("data", "model"), "wide": P(None, "data")}
"""By hand: 4 divides no dimension of the bias, the first of the kernel, the second of the wide one."""


def start():
    ramp = lambda shape: jnp.linspace(-1, 1, np.prod(shape)).reshape(shape)  # noqa: E731
    return {name: ramp(shape) for name, shape in SHAPES.items()}


def sharded(params):
    return {name: jax.device_put(x, NamedSharding(MESH, OWN[name])) for name, x in params.items()}


def of_optax(name, function, **arguments):
    return Transformation(f"optax.{name}", function, arguments)


def by_kind(rate):
    parts = {"decayed": optax.adamw(rate), "other": optax.sgd(rate, momentum=0.9)}
    return optax.partition(parts, {"bias": "other", "kernel": "decayed", "wide": "decayed"})


KERNELS = {"bias": False, "kernel": True, "wide": True}
OPTAX = [
    of_optax("adafactor", optax.adafactor, learning_rate=0.01, min_dim_size_to_factor=2),
    of_optax("apply_if_finite", optax.apply_if_finite, inner=optax.adam(0.01), max_consecutive_errors=2),
    of_optax("clipped", lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01))),
    of_optax("contrib.ademamix", optax.contrib.ademamix, learning_rate=0.01),
    of_optax("contrib.muon", optax.contrib.muon, learning_rate=0.01),
    of_optax("contrib.prodigy", optax.contrib.prodigy),
    of_optax("contrib.schedule_free_adamw", optax.contrib.schedule_free_adamw, learning_rate=0.01),
    of_optax("flatten", lambda: optax.flatten(optax.adam(0.01))),
    of_optax("inject_hyperparams", optax.inject_hyperparams(optax.adamw), learning_rate=0.01),
    of_optax("lamb", optax.lamb, learning_rate=0.01),
    of_optax("masked", lambda: optax.masked(optax.adam(0.01), KERNELS)),
    of_optax("multi_steps", lambda: optax.MultiSteps(optax.adam(0.01), 2).gradient_transformation()),
    of_optax("partition", by_kind, rate=0.01),
]  # fmt: skip
ALL = (*public_transformations(), *on_the_axes(), *OPTAX)
each = pytest.mark.parametrize("name", [str(tx) for tx in ALL])


# Every transformation in one program: compiled one by one they take twice as long.


@functools.cache
def built():
    return {str(tx): tx() for tx in ALL}


def step_of_all(carry, given):
    return {name: apply(tx, carry[name], given) for name, tx in built().items()}


@functools.cache
def on_one_device():
    carry = {name: (start(), tx.init(start())) for name, tx in built().items()}
    return jax.device_get(jax.jit(step_of_all)(carry, take(gradients(start()), 0)))


@functools.cache
def on_the_mesh():
    """Where the states were born, what was donated, and what came of it after a step."""
    params = {name: sharded(start()) for name in built()}
    own = {name: x.sharding for name, x in sharded(start()).items()}
    asked = {
        name: dwd.optimizer_state_sharding(tx, params[name], MESH) for name, tx in built().items()
    }
    init = lambda params: {name: tx.init(params[name]) for name, tx in built().items()}  # noqa: E731
    born = jax.jit(init, out_shardings=asked)(params)
    donated = {name: (params[name], born[name]) for name in built()}
    shardings = {name: (own, asked[name]) for name in built()}
    step = jax.jit(step_of_all, out_shardings=shardings, donate_argnums=0, keep_unused=True)
    placed = jax.tree.map(lambda x: x.sharding, born)
    return placed, donated, step(donated, take(gradients(start()), 0))


@each
def test_the_state_is_born_spread_and_stays_so(name):
    placed, _, carry = on_the_mesh()
    _, state = carry[name]
    for (path, x), first in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(placed[name]), strict=True
    ):
        assert x.sharding == first
        parameter = getattr(path[-1], "key", None)
        if x.shape == SHAPES.get(parameter):
            assert x.sharding.spec == SPREAD[parameter]
        else:
            parts = DATA if any(length % DATA == 0 for length in x.shape) else 1
            assert x.addressable_shards[0].data.size == x.size // parts


@each
def test_the_parameters_stay_where_they_were_and_all_was_donated(name):
    _, donated, carry = on_the_mesh()
    assert all(x.is_deleted() for x in jax.tree.leaves(donated[name]))
    assert {key: x.sharding.spec for key, x in carry[name][0].items()} == OWN


@each
def test_a_spread_state_gives_the_numbers_of_one_device(name):
    assert_close(jax.device_get(on_the_mesh()[2][name]), on_one_device()[name])


# What is compiled


def compiled(tx):
    """`init` and a step on the gradient of a loss over examples that are spread as well."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())
    place = lambda shape, at: jax.ShapeDtypeStruct(shape, "float32", sharding=at)  # noqa: E731
    params = {"bias": place((3,), everywhere), "kernel": place((256, 64), everywhere)}
    sharding = dwd.optimizer_state_sharding(tx, params, mesh)
    init = jax.jit(tx.init, out_shardings=sharding).lower(params).compile()

    def step(carry, x):
        loss = lambda p: jnp.mean((x @ p["kernel"]) ** 2) + jnp.sum(p["bias"])  # noqa: E731
        return apply(tx, carry, jax.grad(loss)(carry[0]))

    state = jax.tree.map(
        lambda x, at: place(x.shape, at).update(dtype=x.dtype),
        jax.eval_shape(tx.init, params),
        sharding,
    )
    batch = place((64, 256), NamedSharding(mesh, P("data")))
    step = jax.jit(step, out_shardings=(everywhere, sharding), donate_argnums=0)
    return init, step.lower((params, state), batch).compile()


WHOLE, PART = "f32[256,64]", "f32[32,64]"


def test_no_device_ever_holds_the_whole_state():
    init, step = compiled(dwd.adamw(0.01))
    assert WHOLE not in init.as_text()
    kernel, bias, scalars = 4 * 256 * 64, 4 * 3, 4 * 5
    state = 2 * kernel // 8 + 2 * bias + scalars
    addresses = 8 * len(jax.tree.leaves(init.output_shardings))
    assert init.memory_analysis().output_size_in_bytes == state + addresses
    assert init.memory_analysis().temp_size_in_bytes == 0
    # The whole state is donated with the parameters: what comes out lies where that was.
    unread = 4  # The lambda of the step before.
    assert step.memory_analysis().alias_size_in_bytes == kernel + bias + state - unread
    # The gradient is whole, and no moment; only the parameters are gathered.
    lines = step.as_text().splitlines()
    moments = [line for line in lines if " sqrt(" in line and "[3]" not in line]
    assert moments
    assert all(PART in line and WHOLE not in line for line in moments)
    gathered = [line for line in lines if " all-gather(" in line]
    assert len(gathered) == 1
    assert WHOLE in gathered[0]


# Trees, and parameters with a sharding of their own


def specs(params, tx=None, mesh=MESH, **arguments):
    tx = dwd.adamw(0.01) if tx is None else tx
    return jax.tree.map(
        lambda x: x.spec, dwd.optimizer_state_sharding(tx, params, mesh, **arguments)
    )


def shape(*lengths, spec=None, mesh=MESH):
    sharding = None if spec is None else NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(lengths, "float32", sharding=sharding)


@pytest.mark.parametrize(
    ("lengths", "own", "expected"),
    [
        ((), P(), P()),
        ((6, 8, 8), P(), P(None, "data")),
        ((6, 8, 8), P(None, "model"), P(None, "model", "data")),
        ((8, 8), P("data"), P("data")),
        ((8, 8), P(("model", "data")), P(("model", "data"))),
        ((8, 6), P("model"), P("model")),
        ((5, 0), P(), P(None, "data")),
    ],
)
def test_the_first_free_dimension_that_is_divided_is_spread(lengths, own, expected):
    assert specs(shape(*lengths, spec=own))[0].mu == expected
    assert specs({"a": [shape(*lengths, spec=own)]})[0].mu == {"a": [expected]}


def test_the_axis_may_have_any_name():
    assert specs(shape(3, 8), axis_name="model")[0].mu == P(None, "model")


def test_parameters_that_are_nowhere_in_particular_count_as_replicated():
    for params in (jnp.ones(8), np.ones(8, "float32"), shape(8)):
        assert specs(params)[0].mu == P("data")


def test_what_has_another_shape_is_spread_by_its_own():
    params = {"embed": shape(8, 6, spec=P("model"))}
    assert specs(params, dwd.lazy_decay(1e-3)).pending == {"embed": P("data")}
    factored = specs(params, optax.scale_by_factored_rms(min_dim_size_to_factor=2))
    assert (factored.v_row, factored.v_col) == ({"embed": P()}, {"embed": P("data")})


def test_the_longest_path_says_whose_moment_it_is():
    params = {"a": shape(4, 6, spec=P(None, "model")), "b": {"a": shape(4, 6)}}
    moments = {"a": P("data", "model"), "b": {"a": P("data")}}
    state = specs(params, optax.chain(optax.clip(1.0), optax.MultiSteps(optax.adam(1e-3), 2)))
    assert state[1].inner_opt_state[0].mu == moments
    assert state[1].acc_grads == moments


def test_what_is_absent_stays_absent():
    params = {"a": shape(8), "b": None}
    assert specs(params)[0].mu == {"a": P("data"), "b": None}
    tx = optax.masked(dwd.adamw(0.01), {"a": True, "b": False})
    masked = specs({"a": shape(8), "b": shape(8)}, tx).inner_state[0]
    assert masked.mu == {"a": P("data"), "b": optax.MaskedNode()}


class Layer(eqx.Module):
    kernel: jax.Array
    name: str = eqx.field(static=True, default="layer")


def test_modules_keep_their_trees():
    kernel = shape(4, 6, spec=P(None, "model"))
    assert specs(Layer(kernel))[0].mu == Layer(P("data", "model"))
    boxed = {"kernel": linen.Partitioned(kernel, (None, "model"))}
    assert specs(boxed)[0].mu["kernel"].value == P("data", "model")
    state = nnx.State({"kernel": nnx.Param(kernel)})
    assert jax.tree.leaves(specs(state)[0].mu) == [P("data", "model")]


def test_a_train_state_is_born_where_it_stays():
    model = linen.Dense(
        8, kernel_init=linen.with_partitioning(linen.initializers.ones, (None, "model"))
    )
    tx = dwd.adamw(0.01)

    def create():
        params = model.init(jax.random.key(0), jnp.ones((1, 4)))
        return train_state.TrainState.create(apply_fn=None, params=linen.unbox(params), tx=tx)

    where = linen.get_sharding(
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 4))), MESH
    )
    shapes = jax.eval_shape(create)
    params = jax.tree.map(lambda x, at: x.update(sharding=at), shapes.params, where)
    shardings = shapes.replace(
        step=NamedSharding(MESH, P()),
        params=where,
        opt_state=dwd.optimizer_state_sharding(tx, params, MESH),
    )
    state = jax.jit(create, out_shardings=shardings)()
    assert state.params["params"]["kernel"].sharding.spec == P(None, "model")
    assert state.opt_state[0].mu["params"]["kernel"].sharding.spec == P("data", "model")


def test_a_mesh_with_types_gives_the_same():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    tx, params = dwd.adamw(0.01), jax.device_put(jnp.ones((3, 8)), NamedSharding(mesh, P()))
    sharding = dwd.optimizer_state_sharding(tx, params, mesh)
    step = jax.jit(functools.partial(apply, tx), out_shardings=(params.sharding, sharding))
    state = jax.jit(tx.init, out_shardings=sharding)(params)
    params, state = step((params, state), jnp.ones((3, 8)))
    assert state[0].mu.sharding.spec == P(None, "data")
    assert params.sharding.spec == P()
    # The type of an array, as a traced one has it, is on the abstract mesh.
    assert specs(jax.typeof(params), mesh=mesh)[0].mu == P(None, "data")


# Errors


def test_an_axis_that_the_mesh_has_not_is_an_error():
    with pytest.raises(
        ValueError, match=r"`axis_name` is 'batch', .* `mesh` are 'data', 'model'\."
    ):
        specs(shape(8), axis_name="batch")


def test_parameters_on_another_mesh_are_an_error():
    other = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = {"layer": {"kernel": shape(8, spec=P(), mesh=other)}}
    with pytest.raises(ValueError, match=r"`params` at 'layer/kernel' are on .* and `mesh` is "):
        specs(params)


def test_no_devices_are_needed_to_ask():
    assert specs(shape(3, 64), mesh=AbstractMesh((16,), ("data",)))[0].nu == P(None, "data")


@pytest.mark.parametrize(
    ("change", "says"),
    [({"tx": optax.adam}, "`tx` is a function"), ({"mesh": None}, "`mesh` is a NoneType")],
)
def test_what_is_no_transformation_or_mesh_is_refused(change, says):
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    given = {"tx": optax.adam(0.1), "params": jnp.zeros(8), "mesh": mesh, **change}
    with pytest.raises(TypeError, match=says):
        dwd.optimizer_state_sharding(**given)
