"""Records of PyTorch libraries, run: the arguments, their paths and ours."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import chex
import numpy as np
import pytest

import decoupled_wd as dwd
from decoupled_wd.conventions import CONVENTIONS, Convention
from tests.libraries.harness import (
    GRADIENTS,
    SCHEDULES,
    STEPS,
    THETA0,
    assert_same_path,
    our_paths,
)

torch = pytest.importorskip("torch", reason="see tests/libraries/requirements.txt")

RATE, DECAY, PENALTY = 1e-2, 9e-4, 0.1
"""A learning rate; what a step removes, below what `like` and optimi warn of; w of a penalty."""

NUMBERS: Mapping[str, tuple[Any, ...]] = {
    # Away from every default, and two values where the rule has two branches.
    "learning_rate": (RATE,), "b1": (0.8,), "b2": (0.95,), "b3": (0.9,), "eps": (1e-5,),
    "momentum": (0.9,), "dampening": (0.3,), "nesterov": (False, True), "momentum_decay": (0.04,),
    "decay": (0.9,), "centered": (False, True), "rho": (0.8,), "lr_decay": (0.1,),
    "initial_accumulator_value": (0.1,),
}  # fmt: skip


def built(library: str) -> list[Convention]:
    """The records of a library whose step `like` builds."""
    return [c for c in CONVENTIONS if c.library == library and c.direction != "own"]


def by_title(title: str) -> Convention:
    return next(c for c in CONVENTIONS if c.title == title)


def weight_decay(record: Convention) -> float:
    return PENALTY if record.unit is None else DECAY / RATE**record.unit.rate


def arguments(record: Convention) -> Iterator[dict[str, Any]]:
    """Calls of a record that set every number it has."""
    words = [
        x for word in record.arguments.values() for x in ([word] if isinstance(word, str) else word)
    ]
    numbers = {**NUMBERS, "weight_decay": (weight_decay(record),)}
    for values in itertools.product(*(numbers[word] for word in words)):
        found = dict(zip(words, values, strict=True))
        if found.get("nesterov") and "dampening" in found:
            found["dampening"] = 0.0
        yield {
            **record.options,
            **{
                k: found[x] if isinstance(x, str) else tuple(found[y] for y in x)
                for k, x in record.arguments.items()
            },
        }
    if record.reference_argument:
        yield {
            **record.options, "lr": RATE, "weight_decay": DECAY,
            record.reference_argument: 2 * RATE,
        }  # fmt: skip


def calls(library: str) -> dict[str, tuple[Convention, dict[str, Any]]]:
    """A library's records and arguments, by a name for the test."""
    return {
        f"{record.title}-{i}": (record, call)
        for record in built(library)
        for i, call in enumerate(arguments(record))
    }


Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def torch_path(
    make: Make,
    eta: np.ndarray,
    gradients: np.ndarray = GRADIENTS,
    theta0: np.ndarray = THETA0,
    dtype: torch.dtype = torch.float64,
    numbers: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Parameters after every step; `numbers` are set step by step where they are callables."""
    theta = torch.nn.Parameter(torch.tensor(theta0, dtype=dtype))
    optimizer = make([theta])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: eta[min(step, STEPS - 1)])
    path = []
    for step, gradient in enumerate(gradients):
        for name, value in (numbers or {}).items():
            optimizer.param_groups[0][name] = float(value(step)) if callable(value) else value
        theta.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
        scheduler.step()
        path.append(theta.detach().double().numpy().copy())
    return np.stack(path)


def like_paths(name: str, gradients: np.ndarray = GRADIENTS, **call: Any) -> dict[str, np.ndarray]:
    """Parameters after every step of `dwd.like`, by the name of the schedule."""
    paths = our_paths(lambda schedule: dwd.like(name, schedule=schedule, **call), gradients)
    return dict(zip(SCHEDULES, paths, strict=True))


def assert_like(record: Convention, call: Mapping[str, Any], make: Make) -> None:
    """Require what the library does, after every step and under every schedule."""
    ours = like_paths(record.name, **call)
    for schedule, eta in SCHEDULES.items():
        assert_same_path(ours[schedule], torch_path(make, eta))


def assert_decays_alone(record: Convention, make: Make, theta0: np.ndarray = THETA0) -> None:
    """Require the record's decay of weights without gradients."""
    assert record.unit is not None
    i, j = record.unit
    for eta in SCHEDULES.values():
        kept = np.cumprod(1 - weight_decay(record) * RATE**i * eta**j)
        path = torch_path(make, eta, np.zeros((STEPS, *theta0.shape)), theta0)
        assert_same_path(path, kept.reshape(-1, *(1 for _ in theta0.shape)) * theta0)


def assert_defaults(
    record: Convention, function: Callable[..., Any], *, besides: set[str], not_known: set[str]
) -> None:
    """Require the library's own defaults, and that every argument of it is accounted for.

    `besides` are arguments of the record that reach the library in another way, and `not_known`
    those of the library that change the step and that no record has.
    """
    parameters = inspect.signature(function).parameters
    theirs = {
        name: x.default for name, x in parameters.items()
        if x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)
    }  # fmt: skip
    given = {
        **record.defaults,
        **dict.fromkeys((*record.arguments, *record.options)),
    } | record.defaults
    reference = {record.reference_argument} - {None}
    assert set(given) | reference <= set(theirs) | besides
    chex.assert_equal(
        {k: theirs[k] for k in record.defaults if k not in besides},
        {k: v for k, v in record.defaults.items() if k not in besides},
    )
    required = {k for k, x in theirs.items() if x is inspect.Parameter.empty}
    assert required - {"params", "self", "kwargs"} <= set(record.arguments) - set(record.defaults)
    known = {*given, *record.inert, *reference, "params"}
    assert set(theirs) - known <= not_known, set(theirs) - known - not_known
