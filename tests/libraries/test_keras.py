"""Records of Keras' optimizers against Keras on its JAX backend, in float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd.conventions import CONVENTIONS
from tests.libraries.harness import (
    CONVERTIBLE,
    GRADIENTS,
    SCHEDULES,
    STEPS,
    THETA0,
    deviation,
    our_paths,
)
from tests.tolerances import RELATIVE

keras = pytest.importorskip("keras")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend.", allow_module_level=True)

RECORDS = [c for c in CONVENTIONS if c.library == "keras"]
NOT_HERE = {
    "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency",
    "gradient_accumulation_steps", "loss_scale_factor", "kwargs",
}  # fmt: skip
"""What any optimizer of Keras does with gradients before, or with weights after its step."""
RATES = {"learning_rate": 0.01, "weight_decay": 0.1}
ETAS = np.stack(list(SCHEDULES.values()))
CASES = [
    ("Adam", {}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {"beta_1": 0.8, "epsilon": 1e-4}),
    ("AdamW", {"amsgrad": True, "beta_2": 0.9}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "rho": 0.8}),
    ("Nadam", {}),
    ("Adamax", {}),
    ("Adagrad", {}),
    ("Adadelta", {}),
    ("Lion", {}),
]
SHAPES = {"Muon": (2, 5)}


@pytest.fixture(autouse=True)
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    with jax.enable_x64(True):
        yield
    keras.config.set_floatx(before)


class Multiplied(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times multipliers that are set while JAX traces."""

    def __init__(self, rate):
        self.rate, self.eta = rate, None

    def __call__(self, step):
        return self.rate * self.eta[keras.ops.convert_to_tensor(step)]

    def get_config(self):
        return {"rate": self.rate}


def make(name, **arguments):
    """A Keras optimizer whose multipliers are to be set, and its schedule."""
    schedule = Multiplied(arguments.pop("learning_rate"))
    return getattr(keras.optimizers, name)(learning_rate=schedule, **arguments), schedule


def keras_paths(optimizer, schedule, gradients, theta0, etas=ETAS):
    """Parameters and the optimizer's variables after every step, for all multipliers."""
    variable = keras.Variable(theta0)
    optimizer.build([variable])
    start = [variable.value], [v.value for v in optimizer.variables]

    def step(carry, gradient):
        carry = optimizer.stateless_apply(carry[1], [gradient], carry[0])
        return carry, (carry[0][0], carry[1])

    def path(eta):
        schedule.eta = eta
        return jax.lax.scan(step, start, jnp.asarray(gradients))[1]

    return jax.jit(jax.vmap(path))(jnp.asarray(etas))


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_like_is_keras(name, changes):
    arguments = {**RATES, **changes}
    ours = our_paths(lambda eta: dwd.like(f"keras.{name}", schedule=eta, **arguments))
    theirs, _ = keras_paths(*make(name, **arguments), GRADIENTS, THETA0)
    assert deviation(ours, np.asarray(theirs)) <= RELATIVE["reference"]


def test_every_optimizer_with_weight_decay_has_a_record():
    found = {
        name
        for name, optimizer in inspect.getmembers(keras.optimizers, inspect.isclass)
        if "weight_decay" in inspect.signature(optimizer).parameters
    }
    assert found - {"Optimizer"} == {record.name.removeprefix("keras.") for record in RECORDS}


@pytest.mark.parametrize("record", RECORDS, ids=lambda c: c.title)
def test_a_records_arguments_and_defaults_are_keras(record):
    optimizer = getattr(keras.optimizers, record.name.removeprefix("keras."))
    parameters = inspect.signature(optimizer).parameters
    known = {*record.arguments, *record.options, *record.inert}
    assert known <= set(parameters)
    assert set(parameters) - known <= NOT_HERE
    for argument in (*record.arguments, *record.options):
        assert record.defaults[argument] == parameters[argument].default


OWN = [c for c in RECORDS if c.direction == "own" and c.unit is not None]


@pytest.mark.parametrize("record", OWN, ids=lambda c: c.title)
def test_a_weight_without_gradient_shows_the_records_decay(record):
    name = record.name.removeprefix("keras.")
    theta0 = THETA0.reshape(SHAPES.get(name, THETA0.shape))
    zeros = np.zeros((STEPS, *theta0.shape))
    theirs, _ = keras_paths(*make(name, **RATES), zeros, theta0)
    left = np.cumprod(1 - RATES["learning_rate"] * RATES["weight_decay"] * ETAS, axis=1)
    expected = left.reshape(*left.shape, *[1] * theta0.ndim) * theta0
    np.testing.assert_allclose(theirs, expected, rtol=RELATIVE["reference"])


def test_muons_ratio_of_learning_rates_does_not_reach_the_decay_of_what_adam_steps():
    optimizer = make("Muon", **RATES, adam_weight_decay=0.2, adam_lr_ratio=0.1)
    theirs, _ = keras_paths(*optimizer, np.zeros_like(GRADIENTS), THETA0)
    expected = np.cumprod(1 - RATES["learning_rate"] * 0.2 * ETAS, axis=1)[..., None] * THETA0
    np.testing.assert_allclose(theirs, expected, rtol=RELATIVE["reference"])


def test_ftrl_overwrites_what_its_decay_did():
    """Defect: weights without gradient do not decay."""
    gradients = GRADIENTS * (np.arange(STEPS) < 10)[:, None]
    (theirs,), _ = keras_paths(*make("Ftrl", **RATES), gradients, THETA0, ETAS[:1])
    assert np.any(theirs[9])
    np.testing.assert_array_equal(theirs[10:], np.broadcast_to(theirs[9], theirs[10:].shape))


def test_schedule_frees_decay_neither_reaches_its_iterate_nor_warms_up():
    """Defect: the iterate z stays, and draws the weights y back."""
    zeros, a, b1 = np.zeros_like(GRADIENTS), RATES["learning_rate"] * RATES["weight_decay"], 0.9
    optimizer = make("ScheduleFreeAdamW", **RATES, warmup_steps=10)
    (theirs,), variables = keras_paths(*optimizer, zeros, THETA0, ETAS[:1])
    (index,) = [i for i, v in enumerate(optimizer[0].variables) if v.name.endswith("_momentum")]
    z = np.asarray(variables[index][0])
    np.testing.assert_array_equal(z, np.broadcast_to(THETA0, z.shape))
    y = THETA0
    for t in range(1, STEPS + 1):
        x = ((1 - a) * y - (1 - b1) * THETA0) / b1
        y = (1 - b1) * THETA0 + b1 * ((1 - 1 / t) * x + THETA0 / t)
        np.testing.assert_allclose(theirs[t - 1], y, rtol=RELATIVE["reference"])


# Keras' own schedules, and the multipliers that are theirs


THEIRS = keras.optimizers.schedules
SCHEDULES_OF_KERAS = {
    "CosineDecayRestarts": (
        lambda: THEIRS.CosineDecayRestarts(0.01, 7, t_mul=2.0),
        dwd.cosine_warm_restarts_schedule(7, 2),
    ),
    "CosineDecay": (lambda: THEIRS.CosineDecay(0.01, 40), optax.cosine_decay_schedule(1.0, 40)),
    "CosineDecay, a warm-up from 0": (
        lambda: THEIRS.CosineDecay(0.0, 40, warmup_target=0.01, warmup_steps=8),
        optax.warmup_cosine_decay_schedule(0.0, 1.0, 8, 48),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES_OF_KERAS)
def test_a_schedule_of_keras_is_the_schedule_of_like(name):
    make_theirs, schedule = SCHEDULES_OF_KERAS[name]
    theirs = make_theirs()
    adamw = keras.optimizers.AdamW(theirs, weight_decay=RATES["weight_decay"])
    (path,), _ = keras_paths(adamw, theirs, GRADIENTS, THETA0, ETAS[:1])
    ours = our_paths(lambda eta: dwd.like("keras.AdamW", schedule=schedule, **RATES))[0]
    # Keras computes its schedules in float32.
    assert deviation(ours, np.asarray(path)) <= RELATIVE["a float32 rate"]


def test_restarts_of_keras_come_one_step_late_after_cycles_that_grow_by_7():
    """Defect: the floor of a float32 logarithm that is below the integer; XLA compiled it is not."""
    keras.config.set_floatx("float32")
    with jax.enable_x64(False):
        theirs = THEIRS.CosineDecayRestarts(1.0, 1, t_mul=7.0)
        steps = [1, 8, 57, 58]
        eager = np.array([float(theirs(step)) for step in steps])
        ours = dwd.cosine_warm_restarts_schedule(1, 7)(jnp.array(steps))
    np.testing.assert_allclose(eager[[0, 1, 3]], ours[np.array([0, 1, 3])], atol=1e-5)
    assert (eager[2], ours[2]) == (0, 1)


# Exclusions and clipping


def keras_step(optimizer, variables, gradients):
    optimizer.apply(gradients, variables)
    return [np.asarray(v) for v in variables]


def test_exclusions_are_a_mask():
    names = ("kernel", "bias")
    optimizer = keras.optimizers.AdamW(**RATES)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    variables = [keras.Variable(THETA0, name=name) for name in names]
    theta = {name: jnp.asarray(THETA0) for name in names}
    tx = dwd.like("keras.AdamW", **RATES, mask=dwd.masks.by_path({"bias": 0, ".*": 1}))
    state = tx.init(theta)
    for g in GRADIENTS[:5]:
        theirs = keras_step(optimizer, variables, [jnp.asarray(g)] * 2)
        updates, state = tx.update(dict.fromkeys(names, jnp.asarray(g)), state, theta)
        theta = optax.apply_updates(theta, updates)
        for name, value in zip(names, theirs, strict=True):
            assert deviation(np.asarray(theta[name]), value) <= RELATIVE["reference"]
    assert deviation(theirs[0], theirs[1]) > RELATIVE["separation"]


def test_exclusions_search_the_variables_own_name():
    """Defect: the name of a layer excludes nothing, and nothing says so."""
    layer = keras.layers.Dense(1, name="head")
    layer.build((None, 2))
    optimizer = keras.optimizers.SGD(**RATES)
    optimizer.exclude_from_weight_decay(var_names=["head", "kernal"])
    before = np.asarray(layer.kernel)
    after, _ = keras_step(optimizer, layer.trainable_variables, [jnp.zeros((2, 1)), jnp.zeros(1)])
    np.testing.assert_allclose(after, before * (1 - 1e-3), rtol=RELATIVE["reference"])


def test_gradients_are_clipped_before_the_decay():
    optimizer = make("AdamW", **RATES, global_clipnorm=0.1)
    theirs, _ = keras_paths(*optimizer, GRADIENTS, THETA0)
    ours = our_paths(
        lambda eta: optax.chain(
            optax.clip_by_global_norm(0.1), dwd.like("keras.AdamW", schedule=eta, **RATES)
        )
    )
    assert deviation(ours, np.asarray(theirs)) <= RELATIVE["reference"]


# What is not Keras


NAIVE = {
    "Optax's place of eps": (
        "AdamW", lambda eta: optax.adamw(lambda step: 0.01 * eta(step), eps=1e-7, weight_decay=0.1),
    ),
    "the decay of TensorFlow Addons": (
        "AdamW",
        lambda eta: dwd.like(
            "tensorflow_addons.AdamW", learning_rate=0.01, weight_decay=1e-3, schedule=eta
        ),
    ),
    "PyTorch's rise of NAdam's momentum": (
        "Nadam",
        lambda eta: dwd.like(
            "pytorch.NAdam", lr=0.01, eps=1e-7, weight_decay=0.1, schedule=eta,
            decoupled_weight_decay=True,
        ),
    ),
    "the learning rate outside of momentum": (
        "SGD",
        lambda eta: dwd.sgdw(
            0.01, 0.9, weight_decay=0.1, schedule=eta, coupling="learning_rate",
            learning_rate_in_buffer=False,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("reading", NAIVE)
def test_a_naive_reading_is_another_optimizer(reading):
    name, build = NAIVE[reading]
    more = {"momentum": 0.9} if name == "SGD" else {}
    theirs, _ = keras_paths(*make(name, **RATES, **more), GRADIENTS, THETA0)
    assert deviation(our_paths(build), np.asarray(theirs)) > RELATIVE["separation"]


# Conversions, run in the libraries on both sides


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(
        torch.float64
    )  # Else NAdam keeps the product of its momenta in float32.
    yield torch
    torch.set_default_dtype(before)


def torch_path(torch, conversion):
    theta = torch.nn.Parameter(torch.tensor(THETA0))
    made = getattr(torch.optim, conversion.target.name.removeprefix("pytorch."))
    numbers = {k: v for k, v in conversion.arguments.items() if not callable(v)}
    optimizer, path = made([theta], **numbers), []
    rate = numbers["lr"]
    for t, g in enumerate(GRADIENTS):
        now = {k: float(v(jnp.asarray(t))) for k, v in conversion.arguments.items() if callable(v)}
        if conversion.schedule is not None:
            now["lr"] = rate * float(conversion.schedule(jnp.asarray(t)))
        optimizer.param_groups[0].update(now)
        theta.grad = torch.tensor(g)
        optimizer.step()
        path.append(theta.detach().numpy().copy())
    return np.stack(path)


CONVERSIONS = {
    "AdamW without eps": ("AdamW", {"epsilon": 0.0}, "pytorch.AdamW"),
    "NAdam": ("Nadam", {}, "pytorch.NAdam(decoupled_weight_decay=True)"),
    "decay beside momentum as a penalty and a momentum that vary": (
        "SGD", {"momentum": 0.9}, "pytorch.SGD",
    ),
}  # fmt: skip


@pytest.mark.parametrize("schedule", CONVERTIBLE)
@pytest.mark.parametrize("case", CONVERSIONS)
def test_a_conversion_to_pytorch_gives_the_same_path(case, schedule, torch):
    name, changes, target = CONVERSIONS[case]
    eta = SCHEDULES[schedule]
    conversion = dwd.convert(
        f"keras.{name}", target, schedule=lambda step: jnp.asarray(eta)[step], **RATES, **changes
    )
    (theirs,), _ = keras_paths(*make(name, **RATES, **changes), GRADIENTS, THETA0, eta[None])
    assert deviation(torch_path(torch, conversion), np.asarray(theirs)) <= RELATIVE["reference"]
