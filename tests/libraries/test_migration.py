"""Moving states between this library and the real PyTorch, Keras and optimi, in float64.

A job of its own: `pip install torch keras torch-optimi` and run this file. What is not installed is
skipped, and says so.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoupled_wd as dwd
from decoupled_wd import migrate
from tests.helpers import apply
from tests.tolerances import RELATIVE

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")
optimi = pytest.importorskip("optimi", reason="optimi is not installed: pip install torch-optimi")

THIRD, RATE, LAM = 20, 1e-2, 0.1
SHAPES = {"fc1.weight": (3, 4), "fc1.bias": (3,), "fc2.weight": (2, 3), "fc2.bias": (2,)}
"""As PyTorch has them; by these names, the arrays of all libraries."""
RNG = np.random.default_rng(5)
WEIGHTS = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
GRADIENTS = [
    {name: RNG.normal(size=shape) * 10.0 ** RNG.integers(-6, 1) for name, shape in SHAPES.items()}
    for _ in range(3 * THIRD)
]
KERNELS = {layer: {"kernel": True, "bias": False} for layer in ("fc1", "fc2")}


@pytest.fixture(autouse=True)
def _float64():
    """Keras computes learning rates in its default dtype."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    with jax.enable_x64(True):
        yield
    keras.config.set_floatx(before)


ETA = 1 / (1 + np.arange(3 * THIRD + 1) / 10)
"""The multiplier of the learning rate, step by step."""


def eta(step):
    return jnp.asarray(ETA)[step]


def to_flax(by_name):
    return {
        layer: {"kernel": by_name[f"{layer}.weight"].T, "bias": by_name[f"{layer}.bias"]}
        for layer in ("fc1", "fc2")
    }


def to_pytorch(by_path):
    names = {"weight": "kernel", "bias": "bias"}
    return {name: by_path[f"{name[:3]}/{names[name[4:]]}"].T for name in SHAPES}


def train_ours(tx, params, state, steps):
    """Parameters and state, in Flax's layout."""
    step = jax.jit(lambda carry, gradient: apply(tx, carry, gradient))
    for t in steps:
        params, state = step((params, state), jax.tree.map(jnp.asarray, to_flax(GRADIENTS[t])))
    return params, state


def by_path(params):
    keyed = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in keyed}


def assert_close(params, expected):
    for name, x in expected.items():
        bound = RELATIVE["reference"] * np.abs(WEIGHTS[name]).max()
        chex.assert_trees_all_close(params[name], x, rtol=0, atol=bound)


# PyTorch


class Torch:
    """A model and an optimizer of PyTorch, after some steps of it or of another."""

    def __init__(self, make, weights, *, moments=None, steps=0):
        self.model = torch.nn.ModuleDict(
            {"fc1": torch.nn.Linear(4, 3), "fc2": torch.nn.Linear(3, 2)}
        ).double()
        self.model.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})
        self.optimizer = make(self.model)
        if moments is not None:
            state_dict = self.optimizer.state_dict()
            state_dict = migrate.to_pytorch(moments, state_dict, torch.tensor, self.names)
            self.optimizer.load_state_dict(state_dict)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = RATE
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: ETA[step], last_epoch=steps - 1
        )

    @property
    def names(self):
        """Of the parameters as the optimizer orders them, by group."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        return [names[id(p)] for group in self.optimizer.param_groups for p in group["params"]]

    def train(self, steps):
        for t in steps:
            for name, p in self.model.named_parameters():
                p.grad = torch.tensor(GRADIENTS[t][name])
            self.optimizer.step()
            self.scheduler.step()
        return self

    @property
    def weights(self):
        return {name: p.detach().numpy().copy() for name, p in self.model.named_parameters()}


def two_groups(model):
    named = dict(model.named_parameters())
    return [
        {"params": [named["fc2.bias"], named["fc1.bias"]], "weight_decay": 0.0},
        {"params": [named["fc1.weight"], named["fc2.weight"]]},
    ]


def like_adamw(**options):
    return dwd.adamw(RATE, weight_decay=LAM, schedule=eta, coupling="learning_rate", **options)


TORCH = {
    "AdamW": (
        lambda model: torch.optim.AdamW(model.named_parameters(), lr=RATE, weight_decay=LAM),
        like_adamw(),
    ),
    "AdamW in two groups": (
        lambda model: torch.optim.AdamW(two_groups(model), lr=RATE, weight_decay=LAM),
        like_adamw(mask=KERNELS),
    ),
    "Adam(amsgrad)": (
        lambda model: torch.optim.Adam(
            model.parameters(), lr=RATE, betas=(0.9, 0.9), weight_decay=LAM, amsgrad=True
        ),
        dwd.amsgrad_l2(RATE, b2=0.9, weight_decay=LAM, schedule=eta, variant="pytorch"),
    ),
    "SGD": (
        lambda model: torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=LAM),
        dwd.sgd_l2(RATE, 0.9, weight_decay=LAM, schedule=eta, learning_rate_in_buffer=False),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_from_pytorch_and_back_is_never_having_switched(name):
    make, tx = TORCH[name]
    first = Torch(make, WEIGHTS).train(range(THIRD))
    moments = migrate.from_pytorch(first.optimizer.state_dict(), first.names)
    moments = migrate.rearrange(moments._replace(count=THIRD), to_flax)
    params = jax.tree.map(jnp.asarray, to_flax(first.weights))
    state = migrate.to_optax(moments, tx.init(params))
    params, state = train_ours(tx, params, state, range(THIRD, 2 * THIRD))
    moments = migrate.rearrange(migrate.from_optax(state), to_pytorch)
    weights = {name: np.array(x) for name, x in to_pytorch(by_path(params)).items()}
    last = Torch(make, weights, moments=moments, steps=2 * THIRD).train(range(2 * THIRD, 3 * THIRD))
    whole = Torch(make, WEIGHTS)
    assert_close(weights, whole.train(range(2 * THIRD)).weights)
    assert_close(last.weights, whole.train(range(2 * THIRD, 3 * THIRD)).weights)


def test_named_parameters_say_the_names_and_adam_the_count():
    first = Torch(TORCH["AdamW"][0], WEIGHTS).train(range(3))
    moments = migrate.from_pytorch(first.optimizer.state_dict())
    assert moments.count == 3
    assert set(moments.mu) == set(moments.nu) == set(SHAPES)


def test_named_parameters_serve_as_they_are_where_the_optimizer_got_parameters():
    make, _ = TORCH["Adam(amsgrad)"]
    first = Torch(make, WEIGHTS).train(range(3))
    named = migrate.from_pytorch(first.optimizer.state_dict(), first.model.named_parameters())
    chex.assert_trees_all_equal(
        named, migrate.from_pytorch(first.optimizer.state_dict(), first.names)
    )
    state_dict = Torch(make, WEIGHTS).optimizer.state_dict()
    written = migrate.to_pytorch(named, state_dict, torch.tensor, first.model.named_parameters())
    chex.assert_trees_all_equal(migrate.from_pytorch(written, first.names), named)


def test_two_groups_have_their_names_in_the_order_of_the_groups():
    first = Torch(TORCH["AdamW in two groups"][0], WEIGHTS).train(range(3))
    state_dict, optimizer = first.optimizer.state_dict(), first.optimizer
    with pytest.raises(
        ValueError,
        match=r"of shape \(2,\) for 'fc1\.weight', which is of shape \(3, 4\).*order of the groups",
    ):
        migrate.from_pytorch(state_dict, first.model.named_parameters())
    of = {p: name for name, p in first.model.named_parameters()}  # as the docstring has it
    pairs = [(of[p], p) for group in optimizer.param_groups for p in group["params"]]
    moments = migrate.from_pytorch(state_dict, pairs)
    assert {name: x.shape for name, x in moments.mu.items()} == SHAPES
    chex.assert_trees_all_equal(moments, migrate.from_pytorch(state_dict, first.names))


def test_optimis_debiased_moments_go_on_as_raw_ones():
    def make(model):
        return optimi.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=LAM)

    tx = like_adamw(b2=0.99, eps=1e-6)
    first = Torch(make, WEIGHTS).train(range(THIRD))
    kept = migrate.from_pytorch(first.optimizer.state_dict(), first.names)
    moments = migrate.rearrange(migrate.from_debiased(kept, 0.9, 0.99), to_flax)
    params = jax.tree.map(jnp.asarray, to_flax(first.weights))
    state = migrate.to_optax(moments, tx.init(params))
    params, _ = train_ours(tx, params, state, range(THIRD, 2 * THIRD))
    ours = to_pytorch(by_path(params))
    assert_close(ours, first.train(range(THIRD, 2 * THIRD)).weights)


def test_optimi_forgets_the_count_that_it_loads():
    theta = torch.nn.Parameter(torch.ones(1))
    optimizer = optimi.AdamW([theta], lr=RATE)
    fresh = optimizer.state_dict()
    assert fresh["param_groups"][0]["setup"] is False
    fresh["param_groups"][0]["step"] = torch.tensor(7, dtype=torch.int32)
    optimizer.load_state_dict(fresh)
    theta.grad = torch.ones(1)
    optimizer.step()
    assert optimizer.state_dict()["param_groups"][0]["step"].item() == 1
    with pytest.raises(ValueError, match="of optimi, which counts from 0 again"):
        migrate.to_pytorch(migrate.Moments(7), fresh, torch.tensor, ["theta"])


def test_bfloat16_moments_are_read_as_they_are():
    entry = {"step": torch.tensor(2.0), "exp_avg": torch.tensor([1.0, 3.0], dtype=torch.bfloat16)}
    groups = [{"params": [0], "param_names": ["w"]}]
    moments = migrate.from_pytorch({"state": {0: entry}, "param_groups": groups})
    chex.assert_trees_all_equal(moments.mu, {"w": np.array([1.0, 3.0], np.float32)})


def test_complex_moments_of_pytorch_are_an_error():
    theta = torch.nn.Parameter(torch.tensor([1 + 1j]))
    optimizer = torch.optim.Adam([("w", theta)], lr=RATE)
    theta.grad = torch.tensor([3 + 4j])
    optimizer.step()
    # Not |g|^2 / 1000, which is real.
    assert optimizer.state[theta]["exp_avg_sq"].imag.item() == pytest.approx(0.016)
    with pytest.raises(TypeError, match="complex 'exp_avg' for 'w'"):
        migrate.from_pytorch(optimizer.state_dict())


# Keras


class Eta(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return RATE * keras.ops.take(keras.ops.convert_to_tensor(ETA), step)


def from_keras_paths(by_path):
    return {path.removeprefix("model/"): x for path, x in by_path.items()}


def to_keras_paths(by_path):
    return {f"model/{path}": x for path, x in by_path.items()}


class Keras:
    """A model and an optimizer of Keras, after some steps of it or of another."""

    def __init__(self, make, weights, moments=None):
        layers = [keras.layers.Dense(size, name=name) for name, size in (("fc1", 3), ("fc2", 2))]
        self.model = keras.Sequential(layers, name="model")
        self.model.build((None, 4))
        self.variables = self.model.trainable_variables
        values = to_keras_paths(by_path(to_flax(weights)))
        for variable in self.variables:
            variable.assign(values[variable.path])
        self.optimizer = make()
        self.optimizer.build(self.variables)
        if moments is not None:
            values = migrate.to_keras(moments, self.optimizer, self.variables)
            for variable, value in zip(self.optimizer.variables, values, strict=True):
                variable.assign(value)

    def train(self, steps):
        for t in steps:
            gradients = to_keras_paths(by_path(to_flax(GRADIENTS[t])))
            given = [jnp.asarray(gradients[variable.path]) for variable in self.variables]
            self.optimizer.apply(given, self.variables)
        return self

    @property
    def weights(self):
        values = {variable.path: np.asarray(variable) for variable in self.variables}
        return to_pytorch(from_keras_paths(values))


KERAS = {
    "AdamW": (
        lambda: keras.optimizers.AdamW(Eta(), weight_decay=LAM),
        like_adamw(eps=1e-7, eps_placement="before"),
    ),
    "AdamW at a constant rate": (
        lambda: keras.optimizers.AdamW(RATE, weight_decay=LAM),
        dwd.adamw(
            RATE, eps=1e-7, weight_decay=LAM, coupling="learning_rate", eps_placement="before"
        ),
    ),
    "Adam(amsgrad)": (
        lambda: keras.optimizers.Adam(Eta(), beta_2=0.9, weight_decay=LAM, amsgrad=True),
        dwd.amsgradw(
            RATE,
            b2=0.9,
            eps=1e-7,
            weight_decay=LAM,
            schedule=eta,
            coupling="learning_rate",
            variant="keras",
        ),
    ),
    "SGD": (
        lambda: keras.optimizers.SGD(Eta(), momentum=0.9, weight_decay=LAM),
        dwd.sgdw(RATE, 0.9, weight_decay=LAM, schedule=eta, coupling="learning_rate"),
    ),
    "Lion": (
        lambda: keras.optimizers.Lion(Eta(), weight_decay=LAM),
        dwd.lionw(RATE, weight_decay=LAM, schedule=eta, coupling="learning_rate"),
    ),
}


@pytest.mark.parametrize("name", KERAS)
def test_from_keras_and_back_is_never_having_switched(name):
    make, tx = KERAS[name]
    first = Keras(make, WEIGHTS).train(range(THIRD))
    moments = migrate.from_keras(first.optimizer, first.variables)
    moments = migrate.rearrange(moments, from_keras_paths)
    params = jax.tree.map(jnp.asarray, to_flax(first.weights))
    state = migrate.to_optax(moments, tx.init(params))
    params, state = train_ours(tx, params, state, range(THIRD, 2 * THIRD))
    moments = migrate.rearrange(migrate.from_optax(state), to_keras_paths)
    weights = to_pytorch(by_path(params))
    last = Keras(make, weights, moments).train(range(2 * THIRD, 3 * THIRD))
    whole = Keras(make, WEIGHTS).train(range(2 * THIRD))
    assert_close(weights, whole.weights)
    assert_close(last.weights, whole.train(range(2 * THIRD, 3 * THIRD)).weights)


KERAS_ERRORS = {
    "not built": (lambda: keras.optimizers.Adam(), [], ValueError, "no moments.*build"),
    "another kind": (lambda: keras.optimizers.RMSprop(), [], TypeError, "is a RMSprop, and Keras'"),
    "something beside": (
        lambda: keras.optimizers.Adam(use_ema=True), ["w"], ValueError, "'w_average'.*lost"
    ),
    "other weights": (lambda: keras.optimizers.Adam(), ["w", "v"], ValueError, "'v_momentum'.*lost"),
}  # fmt: skip


@pytest.mark.parametrize("case", KERAS_ERRORS)
def test_what_cannot_be_read_from_keras_is_an_error(case):
    make, names, error, message = KERAS_ERRORS[case]
    weights = [keras.Variable(np.ones(2), name=name) for name in names]
    optimizer = make()
    if weights:
        optimizer.build(weights)
    with pytest.raises(error, match=message):
        migrate.from_keras(optimizer, weights[:1])


def test_weights_whose_names_collide_are_an_error():
    with keras.name_scope("a"):
        weights = [keras.Variable(np.ones(2), name=name) for name in ("w", "w")]
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)
    with pytest.raises(ValueError, match=r"two whose variable is 'a_w_momentum'"):
        migrate.from_keras(optimizer, weights)


def test_a_moment_that_keras_has_no_variable_for_is_an_error():
    weights = [keras.Variable(np.ones(2), name="w")]
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build(weights)
    moments = migrate.Moments(3, mu={"w": np.ones(2)}, trace={"w": np.ones(2)})
    with pytest.raises(ValueError, match=r"`optimizer` has no place for `moments\.mu` of 'w'"):
        migrate.to_keras(moments, optimizer, weights)
