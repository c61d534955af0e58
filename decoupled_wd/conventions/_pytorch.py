"""PyTorch, and the libraries of optimizers for it."""

from decoupled_wd.conventions._record import LEARNING_RATE, Convention

_READ = "read, and run in tests/libraries with PyTorch 2.13"
_ADAM = {"lr": "learning_rate", "betas": ("b1", "b2"), "eps": "eps", "weight_decay": "weight_decay"}
_ADAM_DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
_INERT = ("foreach", "fused", "capturable", "differentiable")

PYTORCH_RECORDS = (
    Convention(
        name="pytorch.AdamW", options={"amsgrad": False}, direction="adam", form="first",
        unit=LEARNING_RATE, arguments=_ADAM,
        defaults={**_ADAM_DEFAULTS, "weight_decay": 1e-2, "amsgrad": False}, inert=_INERT,
        source=_READ,
    ),
    Convention(
        name="pytorch.AdamW", options={"amsgrad": True}, direction="amsgrad", form="first",
        unit=LEARNING_RATE, arguments=_ADAM, fixed={"variant": "pytorch"},
        defaults={**_ADAM_DEFAULTS, "weight_decay": 1e-2, "amsgrad": False}, inert=_INERT,
        source=_READ,
    ),
)  # fmt: skip
