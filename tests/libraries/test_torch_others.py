"""Smaller libraries for PyTorch, each where it is installed; those with kernels are in float32."""

import numpy as np
import pytest

from decoupled_wd.conventions import CONVENTIONS
from tests.libraries import torch_harness as run
from tests.libraries.harness import GRADIENTS, SCHEDULES, STEPS, THETA0, assert_same_path, deviation
from tests.libraries.torch_harness import RATE
from tests.tolerances import RELATIVE

torch = run.torch

MODULES = {
    "lion_pytorch": "lion_pytorch",
    "schedulefree": "schedulefree",
    "bitsandbytes": "bitsandbytes.optim",
    "torchao": "torchao.optim",
    "heavyball": "heavyball",
}
FLOAT32 = ("bitsandbytes", "torchao", "heavyball")
RECORDS = {
    c.title: c for c in CONVENTIONS if c.library in MODULES and "not read here" not in c.source
}
# bitsandbytes runs here on what has no GPU; torchao's other variants are these with other states.
CALLS = {
    name: run_of
    for library in MODULES
    for name, run_of in run.calls(library).items()
    if not any(x in name for x in ("cuda", "4bit", "Fp8", "_Adam"))
}
NOT_KNOWN = {
    "bitsandbytes": {"optim_bits", "amsgrad"},
    "torchao": {"bf16_stochastic_round"},
    "lion_pytorch": set(),
    "schedulefree": set(),
    # Clipping, warm-up, and other rules than the record's.
    "heavyball": {
        "cautious_weight_decay", "warmup_steps", "mars", "caution", "mars_gamma", "kwargs",
        "gradient_clipping", "update_clipping", "palm", "beta2_scale", "ecc", "param_ecc",
        "orig_shapes", "storage_dtype", "promote",
    },
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("default")  # Of importing kernels that are not built.


def optimizer(record):
    command = "pip install -r tests/libraries/requirements-more.txt"
    module = pytest.importorskip(MODULES[record.library], reason=f"not installed: {command}")
    return getattr(module, record.name.rpartition(".")[2])


@pytest.mark.parametrize("name", CALLS)
def test_the_same_parameters_after_every_step(name):
    record, call = CALLS[name]
    make = optimizer(record)
    given = {k: v for k, v in call.items() if k != "device"}
    if record.library not in FLOAT32:
        run.assert_like(record, call, lambda p: make(p, **given))
        return
    ours = run.like_paths(record.name, **call)
    for schedule, eta in SCHEDULES.items():
        theirs = run.torch_path(lambda p: make(p, **given), eta, dtype=torch.float32)
        assert deviation(ours[schedule], theirs) <= RELATIVE["50 float32 steps"]


@pytest.mark.parametrize("title", RECORDS)
def test_the_defaults_are_the_librarys(title):
    record = RECORDS[title]
    run.assert_defaults(
        record, optimizer(record), besides={"device"}, not_known=NOT_KNOWN[record.library]
    )


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree"])
def test_schedule_free_decays_at_y_and_applies_it_to_z(name):
    """Without gradients z loses a w y, and y is nine tenths their average and a tenth z."""
    record = RECORDS[f"schedulefree.{name}"]
    make, d = optimizer(record), run.DECAY

    def started(p):
        free = make(p, lr=RATE, weight_decay=d / RATE)
        free.train()
        return free

    path = run.torch_path(started, SCHEDULES["constant"], np.zeros_like(GRADIENTS))
    x = z = THETA0
    expected = []
    for step in range(1, STEPS + 1):
        z = z - d * (0.1 * z + 0.9 * x)
        x = x + (z - x) / step
        expected.append(0.1 * z + 0.9 * x)
    assert_same_path(path, np.stack(expected))


def test_lion_with_a_group_of_its_own_rate_decays_by_the_ratio_of_the_two():
    lion = optimizer(RECORDS["lion_pytorch.Lion(decoupled_weight_decay=True)"])
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    group = {"params": [theta], "lr": 4 * RATE}
    tx = lion([group], lr=RATE, weight_decay=1e-4, decoupled_weight_decay=True)
    theta.grad = torch.zeros_like(theta)
    tx.step()
    np.testing.assert_allclose(1 - float(theta.detach()), 4e-4, rtol=1e-9)


def test_eps_is_the_least_root_of_heavyball_and_not_added_to_it():
    """Where the root is eps itself, its step is twice that of PyTorch's AdamW."""
    record = RECORDS["heavyball.AdamW"]
    gradient = np.full((1, 10), 1e-5)
    call = {"lr": RATE, "eps": 1e-5}
    step = {
        name: run.torch_path(
            lambda p, make=make: make(p, weight_decay=0.0, **call),
            np.ones(STEPS), gradient, dtype=torch.float32,
        )[0] - THETA0
        for name, make in (("heavyball", optimizer(record)), ("pytorch", torch.optim.AdamW))
    }  # fmt: skip
    np.testing.assert_allclose(step["heavyball"], 2 * step["pytorch"], rtol=1e-3)
