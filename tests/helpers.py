"""What the tests of the contract share.

Tolerances by dtype, the public transformations and their options as introspection finds them, a
small tree of parameters, and a run of a few steps.
"""

import dataclasses
import functools
import importlib.util
import inspect
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import decoupled_wd as dwd
from decoupled_wd import gates, strengths
from decoupled_wd._typing import Mask, Number, NumberOrSchedule
from tests.tolerances import ULPS

STEPS = 3


def tolerance(expected: Any) -> dict[str, float]:
    """`rtol` and `atol` for one array: `ULPS` of its dtype, at its largest number."""
    expected = np.asarray(expected)
    if not jnp.issubdtype(expected.dtype, jnp.inexact):
        return {"rtol": 0.0, "atol": 0.0}
    bound = ULPS[expected.dtype.name] * float(jnp.finfo(expected.dtype).eps)
    return {"rtol": bound, "atol": bound * float(np.max(np.abs(expected), initial=0.0))}


def assert_close(actual: Any, expected: Any) -> None:
    """Require the same tree and dtypes, and values that agree to the tolerance of their dtype."""
    chex.assert_trees_all_equal_structs(actual, expected)
    chex.assert_trees_all_equal_dtypes(actual, expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        chex.assert_trees_all_close(one, other, **tolerance(other))


def load_script(path: pathlib.Path) -> types.ModuleType:
    """A script as a module, under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def load_example(name: str, patch: pytest.MonkeyPatch, **constants: Any) -> types.ModuleType:
    """A script of examples/, with other constants as long as the patch holds."""
    example = load_script(pathlib.Path(__file__).parents[1] / "examples" / f"{name}.py")
    for constant, value in constants.items():
        patch.setattr(example, constant, value)
    return example


# Public transformations

ARGUMENTS: Mapping[str, Any] = {
    "batch_size": 4,
    "dataset_size": 8,
    "l1_ratio": 0.5,
    "learning_rate": 0.01,
    "normalized_weight_decay": 0.004,
    "period": 2,
    "rounding": "stochastic",
    "schedule": 0.5,
    "step_size": 2,
    "tx": optax.sgd(0.01, momentum=0.9),
    "weight_decay": 0.004,
}
"""What each parameter without a default is given, by its name."""

NEEDED_BY_COUPLING = {"learning_rate": ("learning_rate",), "corrected": ("learning_rate",)}


@dataclasses.dataclass(frozen=True, eq=False)
class Transformation:
    """A public function that gives a transformation, and arguments to call it with."""

    name: str
    function: Callable[..., optax.GradientTransformation]
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name

    def __call__(self, **overrides: Any) -> optax.GradientTransformation:
        """Build it, with some arguments replaced."""
        return self.function(**{**self.arguments, **overrides})

    def takes(self, parameter: str) -> bool:
        """Whether it has a parameter of that name."""
        return parameter in parameters(self.function)

    @property
    def widens(self) -> bool:
        """Whether it gives 16-bit updates back in float32, as the contract of rounding is."""
        return self.name in (*ROUNDS, "to_float32") or bool(self.arguments.get("rounding"))

    @property
    def sees_the_whole(self) -> bool:
        """Whether the updates of a leaf depend on the others."""
        strength = self.arguments.get("strength")
        return strength is not None and strength.whole is not None

    @property
    def numbers(self) -> dict[str, float]:
        """Every argument that may be a number, traced or not, and its value here."""
        defaults = {name: p.default for name, p in parameters(self.function).items()}
        values = {**defaults, **self.arguments}
        return {
            name: values[name]
            for name, parameter in parameters(self.function).items()
            if set(typing.get_args(Number)) <= set(typing.get_args(parameter.annotation))
            and isinstance(values[name], (int, float))
        }

    @property
    def rates(self) -> dict[str, float]:
        """The numbers that people sweep over: the learning rate and the decay."""
        return {name: x for name, x in self.numbers.items() if name in SWEPT}


SWEPT = ("learning_rate", "weight_decay", "normalized_weight_decay", "schedule")


@functools.cache
def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function, eval_str=True).parameters


def public_functions() -> dict[str, Callable[..., Any]]:
    """Every function among the public names."""
    named = {name: getattr(dwd, name) for name in dwd.__all__}
    return {name: value for name, value in named.items() if inspect.isfunction(value)}


def like_adamw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: NumberOrSchedule = 1e-2,
    mask: Mask = None,
    *,
    schedule: NumberOrSchedule | None = None,
) -> optax.GradientTransformation:
    """`dwd.like`, whose arguments are another library's, as a call with names of its own."""
    return dwd.like(
        "pytorch.AdamW", lr=learning_rate, betas=(b1, b2), eps=eps, weight_decay=weight_decay,
        mask=mask, schedule=schedule,
    )  # fmt: skip


def informed_decay(
    weight_decay: NumberOrSchedule,
    mask: Mask = None,
    *,
    b2: Number = 0.75,  # As float32 the same number.
    gate: gates.Gate | None = None,
    strength: strengths.Strength | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`dwd.informed_chain`, whose arguments are transformations, of two that have need of it."""
    return dwd.informed_chain(
        dwd.scale_by_adam(b2=b2),
        dwd.decoupled_weight_decay(weight_decay, mask, gate=gate, strength=strength),
    )


STAND_INS = {dwd.like: like_adamw, dwd.informed_chain: informed_decay}

READS_THE_LOSS = ("add_auto_l2_to_grad",)


def given_a_loss(
    function: Callable[..., optax.GradientTransformationExtraArgs],
) -> Callable[..., optax.GradientTransformation]:
    """`function`, whose transformation gets a loss of 1 in every update."""

    @functools.wraps(function)
    def build(*args: Any, **arguments: Any) -> optax.GradientTransformation:
        tx = function(*args, **arguments)
        return optax.GradientTransformation(tx.init, functools.partial(tx.update, value=1.0))

    return build


ROUNDS = ("compensated_rounding", "stochastic_rounding")


def given_float32(
    function: Callable[..., optax.GradientTransformation],
) -> Callable[..., optax.GradientTransformation]:
    """`function`, whose transformation gets 16-bit updates in float32, as in the chains it ends."""

    @functools.wraps(function)
    def build(*args: Any, **arguments: Any) -> optax.GradientTransformation:
        tx, widen = function(*args, **arguments), dwd.to_float32()

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return tx.update(widen.update(updates, widen.init(params))[0], state, params)

        return optax.GradientTransformation(tx.init, update)

    return build


@functools.cache
def public_transformations() -> tuple[Transformation, ...]:
    """Every public function whose return annotation is a gradient transformation."""
    kinds = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
    found = []
    for name, function in public_functions().items():
        if inspect.signature(function, eval_str=True).return_annotation not in kinds:
            continue
        function = STAND_INS.get(function, function)
        arguments = {
            parameter: ARGUMENTS[parameter]
            for parameter, p in parameters(function).items()
            if p.default is p.empty or parameter == "weight_decay"
        }
        supplied = given_a_loss(function) if name in READS_THE_LOSS else function
        supplied = given_float32(function) if name in ROUNDS else supplied
        found.append(Transformation(name, supplied, arguments))
    return tuple(found)


AXES = {
    "add_l2_to_grad": {
        "of-the-whole": {"strength": strengths.gradient_norm()},
    },
    "add_l1_to_grad": {
        "by-gradient": {
            "toward": dwd.moving_average(0.5), "strength": strengths.standardized_gradient(),
        },
    },
    "add_elastic_net_to_grad": {"above-norm": {"gate": gates.above_norm(2.0)}},
    "decoupled_weight_decay": {
        "initial": {
            "penalty": dwd.huber_tracking(0.75), "toward": "initial", "gate": gates.cautious(),
            "strength": strengths.norm_control(0.5),
        },
        "average": {
            "penalty": dwd.power(1.5), "toward": dwd.moving_average(0.5), "gate": gates.every(2),
            "strength": strengths.constrained(initial_ratio=0.5),
        },
    },
    "proximal_weight_decay": {
        "initial": {
            "penalty": dwd.elastic_net(0.5), "toward": "initial", "gate": gates.cautious(),
            "strength": strengths.deviation_growth(),
        },
        "explicit": {
            "penalty": dwd.explicit(dwd.huber(0.75)), "gate": gates.above_norm(2.0),
            "strength": strengths.constrained(warmup=1),
        },
    },
    "informed_chain": {
        "selective": {"gate": gates.selective()},
        "stable": {"b2": 0.75, "strength": strengths.stable(0.75)},
    },
}  # fmt: skip
"""Choices on the axes of the decays: every kind of memory, and every rule, at least once."""


@functools.cache
def on_the_axes() -> tuple[Transformation, ...]:
    """The public transformations that have axes, at the choices of `AXES`."""
    return tuple(
        Transformation(f"{tx}-{choice}", tx.function, {**tx.arguments, **arguments})
        for tx in public_transformations()
        for choice, arguments in AXES.get(tx.name, {}).items()
    )


@functools.cache
def public_options() -> tuple[Transformation, ...]:
    """The public transformations, each again with one flag or option set otherwise, and the axes."""
    found = []
    for plain in public_transformations():
        found.append(plain)
        for name, parameter in parameters(plain.function).items():
            for option in options(parameter.annotation):
                if option == parameter.default:
                    continue
                needed = NEEDED_BY_COUPLING.get(option, ()) if name == "coupling" else ()
                given = {argument: ARGUMENTS[argument] for argument in needed}
                arguments = {**plain.arguments, **given, name: option}
                found.append(
                    Transformation(f"{plain.name}-{name}-{option}", plain.function, arguments)
                )
    return (*found, *on_the_axes())


def options(annotation: Any) -> tuple[Any, ...]:
    if annotation is bool:
        return (False, True)
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        literals = (
            a for a in typing.get_args(annotation) if typing.get_origin(a) is typing.Literal
        )
        return tuple(option for literal in literals for option in typing.get_args(literal))
    return ()


def as_arrays(numbers: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Python numbers as float32 and int32, which are no longer promoted as Python numbers are."""
    return {
        name: np.asarray(x, np.int32 if isinstance(x, int) else np.float32)
        for name, x in numbers.items()
    }


# Runs


def small_params(dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Two leaves with numbers that every dtype holds exactly."""
    return {
        "bias": jnp.array([0.5, -1.0, 2.0], dtype),
        "kernel": jnp.array([[1.0, -0.75, 0.25], [-1.5, 0.5, 1.0]], dtype),
    }


def gradients(params: Any, steps: int = STEPS) -> Any:
    """One gradient a step, along a leading axis; multiples of 1/64 between 1/2 and 1 in size, so
    that every dtype holds them exactly and means over 2 or 8 of them are exact."""

    def leaf(x: Any) -> jax.Array:
        shape = (steps, *jnp.shape(x))
        angle = np.arange(np.prod(shape)).reshape(shape)
        g = np.where(angle % 3 == 0, -1, 1) * np.round(48 + 16 * np.cos(angle)) / 64
        if jnp.iscomplexobj(x):
            g = g + 1j * np.round(32 * np.sin(angle)) / 64
        return jnp.asarray(g, jnp.result_type(x))

    return jax.tree.map(leaf, params)


def take(tree: Any, index: int) -> Any:
    """Entry `index` of every leaf."""
    return jax.tree.map(lambda x: x[index], tree)


def apply(
    tx: optax.GradientTransformation, carry: tuple[Any, Any], gradient: Any
) -> tuple[Any, Any]:
    """One step: (params, state) -> (params, state)."""
    params, state = carry
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def run(tx: optax.GradientTransformation, params: Any, given: Any = None) -> tuple[Any, Any]:
    """Parameters and state after a scan over `given` gradients, those of `gradients` if None."""
    given = gradients(params) if given is None else given
    start = (params, tx.init(params))
    return jax.lax.scan(lambda carry, g: (apply(tx, carry, g), None), start, given)[0]


@functools.cache
def reference(transformation: Transformation) -> tuple[Any, Any]:
    """`run` from `small_params`, compiled: what other ways to run it are compared with."""
    return jax.jit(functools.partial(run, transformation()))(small_params())
