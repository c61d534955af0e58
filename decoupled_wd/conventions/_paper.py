"""The paper, its authors' code, and this library."""

from decoupled_wd.conventions._record import (
    CORRECTED,
    LEARNING_RATE,
    PAPER,
    PER_STEP,
    Convention,
)

_PAPER = "Loshchilov and Hutter, arXiv 1711.05101"
_ADAM = {x: x for x in ("learning_rate", "b1", "b2", "eps", "weight_decay")}
_ADAM_DEFAULTS = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
_SGD = {x: x for x in ("learning_rate", "momentum", "weight_decay")}
_PEAK = "alpha, apart from the schedule's multiplier"

PAPER_RECORDS = (
    Convention(
        name="paper.AdamW", direction="adam", form="parallel", unit=PAPER,
        arguments=_ADAM, defaults=_ADAM_DEFAULTS, reference=_PEAK,
        source=f"{_PAPER}, Algorithm 2",
    ),
    Convention(
        name="paper.Adam", direction="adam", form="coupled", unit=None,
        arguments=_ADAM, defaults=_ADAM_DEFAULTS, reference=_PEAK,
        source=f"{_PAPER}, Algorithm 2",
    ),
    Convention(
        name="paper.SGDW", direction="momentum", form="parallel", unit=PAPER,
        arguments=_SGD, defaults={}, fixed={"learning_rate_in_buffer": True}, reference=_PEAK,
        source=f"{_PAPER}, Algorithm 1",
    ),
    Convention(
        name="paper.SGD", direction="momentum", form="coupled", unit=None,
        arguments=_SGD, defaults={}, fixed={"learning_rate_in_buffer": True}, reference=_PEAK,
        source=f"{_PAPER}, Algorithm 1",
    ),
)  # fmt: skip

COUPLINGS = {
    "schedule": PAPER,
    "learning_rate": LEARNING_RATE,
    "none": PER_STEP,
    "corrected": CORRECTED,
}
"""The unit that each `coupling` of this library's optimizers is."""

_MOMENTS = {x: x for x in ("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay")}
_MOMENTS_DEFAULTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0, "weight_decay": 1e-4}
_MOMENTUM = {
    x: x
    for x in ("learning_rate", "momentum", "nesterov", "weight_decay", "learning_rate_in_buffer")
}
_MOMENTUM_DEFAULTS = {
    "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "learning_rate_in_buffer": True,
}  # fmt: skip
_OURS = {
    # Optimizer: direction, arguments, defaults, and what its penalized twin is called.
    "adamw": (
        "adam",
        {**_MOMENTS, "nesterov": "nesterov", "eps_placement": "eps_placement"},
        {**_MOMENTS_DEFAULTS, "nesterov": False, "eps_placement": "after"},
        "adam_l2",
    ),
    "amsgradw": (
        "amsgrad",
        {**_MOMENTS, "variant": "variant"},
        {**_MOMENTS_DEFAULTS, "variant": "optax"},
        "amsgrad_l2",
    ),
    "sgdw": ("momentum", _MOMENTUM, _MOMENTUM_DEFAULTS, "sgd_l2"),
    "lionw": (
        "lion",
        {x: x for x in ("learning_rate", "b1", "b2", "weight_decay")},
        {"b1": 0.9, "b2": 0.99, "weight_decay": 1e-4},
        None,
    ),
}

OWN_RECORDS = tuple(
    Convention(
        name=f"decoupled_wd.{name}", options={"coupling": coupling}, direction=direction,
        form="parallel", unit=unit, arguments=arguments,
        defaults={**defaults, "coupling": "schedule"},
        reference="`learning_rate`, apart from `schedule`", source="this library",
    )
    for name, (direction, arguments, defaults, _) in _OURS.items()
    for coupling, unit in COUPLINGS.items()
) + tuple(
    Convention(
        name=f"decoupled_wd.{twin}", direction=direction, form="coupled", unit=None,
        arguments=arguments, defaults=defaults,
        reference="`learning_rate`, apart from `schedule`", source="this library",
    )
    for direction, arguments, defaults, twin in _OURS.values()
    if twin
)  # fmt: skip
