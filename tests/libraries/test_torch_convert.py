"""What `convert` gives, run by the real libraries on both sides."""

import jax
import numpy as np
import pytest

import decoupled_wd as dwd
from tests.libraries import torch_harness as run
from tests.libraries.harness import (
    CONVERTIBLE,
    SCHEDULES,
    STEPS,
    assert_same_path,
    deviation,
    multiplier,
)
from tests.libraries.torch_harness import DECAY, RATE
from tests.tolerances import RELATIVE

torch = run.torch
optimi = pytest.importorskip("optimi", reason="optimi is not installed")
pytorch_optimizer = pytest.importorskip("pytorch_optimizer", reason="it is not installed")

LIBRARIES = {"pytorch": torch.optim, "optimi": optimi, "pytorch_optimizer": pytorch_optimizer}
PER_RATE, PER_STEP = {"lr": RATE, "weight_decay": DECAY / RATE}, {"lr": RATE, "weight_decay": DECAY}
CASES = {
    # In the paper's unit, with another A: w changes; and back.
    "decouple_lr": (
        "optimi.AdamW", {**PER_STEP, "decouple_lr": True, "max_lr": 2 * RATE}, "pytorch.AdamW"
    ),
    "to decouple_lr": ("pytorch.AdamW", PER_RATE, "optimi.AdamW(decouple_lr=True)"),
    # Per step, and corrected: w follows the schedule.
    "fixed_decay": ("pytorch_optimizer.Lion", {**PER_STEP, "fixed_decay": True}, "optimi.Lion"),
    "to fixed_decay": ("optimi.Lion", PER_RATE, "pytorch_optimizer.Lion(fixed_decay=True)"),
    # Beside the buffer for a penalty inside it: w and momentum follow the schedule (rows b3, b4).
    "a buffer": ("pytorch_optimizer.SGDW", {**PER_RATE, "momentum": 0.9}, "pytorch.SGD"),
    # Dampening from the first step on for a rate.
    "dampening": (
        "optimi.SGD",
        {**PER_RATE, "momentum": 0.9, "dampening": True, "decouple_wd": True},
        "pytorch_optimizer.SGDW",
    ),
    # Proximal decay for decay before the step: w and rate follow the schedule (row d2).
    "proximal": ("optimi.Adan", PER_RATE, "pytorch_optimizer.Adan(weight_decouple=True)"),
}  # fmt: skip


def library(name):
    of, _, optimizer = name.partition("(")[0].rpartition(".")
    return getattr(LIBRARIES[of], optimizer)


@pytest.mark.parametrize("schedule", CONVERTIBLE)
@pytest.mark.parametrize("case", CASES)
def test_both_libraries_take_the_same_steps(case, schedule):
    source, call, target = CASES[case]
    eta = SCHEDULES[schedule]
    theirs = run.torch_path(lambda p: library(source)(p, **call), eta)
    with jax.enable_x64(True):
        conversion = dwd.convert(source, target, schedule=multiplier(eta), **call)
        steps = range(STEPS)
        rates = conversion.schedule
        rates = np.array([float(rates(t)) if callable(rates) else rates or 1.0 for t in steps])
        vary = {
            k: [float(x(t)) for t in steps]
            for k, x in conversion.arguments.items() if callable(x)
        }  # fmt: skip
    first = {k: vary[k][0] if k in vary else x for k, x in conversion.arguments.items()}
    numbers = {k: lambda t, x=x: x[t] for k, x in vary.items()}
    path = run.torch_path(lambda p: library(target)(p, **first), rates, numbers=numbers)
    assert_same_path(path, theirs)


def test_the_same_number_in_the_other_library_is_another_decay():
    eta = SCHEDULES["cosine"]
    theirs = run.torch_path(lambda p: optimi.AdamW(p, decouple_lr=True, **PER_STEP), eta)
    naive = run.torch_path(
        lambda p: torch.optim.AdamW(p, betas=(0.9, 0.99), eps=1e-6, **PER_STEP), eta
    )
    assert deviation(naive, theirs) > RELATIVE["separation"]
