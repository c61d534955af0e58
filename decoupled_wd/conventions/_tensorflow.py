"""Keras, and what decayed weights in TensorFlow before it did."""

from collections.abc import Mapping
from typing import Any

from decoupled_wd.conventions._record import LEARNING_RATE, PAPER, PER_STEP, Convention, Form, Unit

_RUN = "Keras 3.15.1, read, and run in tests/libraries on its JAX backend"
_BASE = {"learning_rate": 1e-3, "weight_decay": None}
_ADAM = {"beta_1": "b1", "beta_2": "b2", "epsilon": "eps"}
_ADAM_DEFAULTS = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
_ALL_DECAY = (
    "Every variable decays, biases and norms too, unless `exclude_from_weight_decay` names it; its "
    "`var_names` are searched in a variable's own name, such as \"kernel\", and never in a layer's."
)


def _keras(
    name: str,
    direction: str,
    numbers: Mapping[str, str],
    defaults: Mapping[str, Any],
    *,
    form: Form = "first",
    unit: Unit | None = LEARNING_RATE,
    note: str = "",
    **about: Any,
) -> Convention:
    return Convention(
        name=f"keras.{name}", direction=direction, form=form, unit=unit,
        arguments={"learning_rate": "learning_rate", "weight_decay": "weight_decay", **numbers},
        defaults={**_BASE, **defaults}, inert=("name",),
        reference="`learning_rate`, or its schedule's peak",
        note=f"{note} {_ALL_DECAY}".strip(), source=_RUN, **about,
    )  # fmt: skip


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _adams(name: str, **defaults: Any) -> tuple[Convention, ...]:
    """With AMSGrad and without."""
    defaults = {**_ADAM_DEFAULTS, "amsgrad": False, **defaults}
    decay = "" if name == "AdamW" else "Its `weight_decay` is decoupled: with it, Adam is AdamW."
    return (
        _keras(
            name, "adam", _ADAM, defaults, options={"amsgrad": False},
            fixed={"eps_placement": "before"}, note=decay,
        ),
        _keras(
            name, "amsgrad", _ADAM, defaults, options={"amsgrad": True}, fixed={"variant": "keras"},
            note=decay,
        ),
    )  # fmt: skip


_KERAS = (
    *_adams("Adam"),
    *_adams("AdamW", weight_decay=0.004),
    _keras(
        "SGD", "momentum", _same("momentum", "nesterov"),
        {"learning_rate": 1e-2, "momentum": 0.0, "nesterov": False},
        fixed={"learning_rate_in_buffer": True},
        note="Decoupled, unlike the `weight_decay` of PyTorch's SGD.",
    ),
    _keras(
        "RMSprop", "rmsprop",
        {"rho": "decay", "momentum": "momentum", "epsilon": "eps", "centered": "centered"},
        {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False},
        fixed={"eps_in_sqrt": True, "learning_rate_in_buffer": True},
    ),
    _keras("Nadam", "nadam", _ADAM, _ADAM_DEFAULTS, fixed={"momentum_decay": 1.0},
        note="Its momentum reaches β₁ within some 100 steps, and PyTorch's in 250 times as many."),
    _keras("Adamax", "adamax", _ADAM, _ADAM_DEFAULTS, fixed={"eps_in_max": False}),
    _keras(
        "Adagrad", "adagrad",
        {"initial_accumulator_value": "initial_accumulator_value", "epsilon": "eps"},
        {"initial_accumulator_value": 0.1, "epsilon": 1e-7}, fixed={"eps_in_sqrt": True},
    ),
    _keras("Adadelta", "adadelta", {"rho": "rho", "epsilon": "eps"},
        {"rho": 0.95, "epsilon": 1e-7}),
    _keras("Lion", "lion", {"beta_1": "b1", "beta_2": "b2"}, {"beta_1": 0.9, "beta_2": 0.99}),
    _keras(
        "Adafactor", "own",
        _same("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step"),
        {"beta_2_decay": -0.8, "epsilon_1": 1e-30, "epsilon_2": 1e-3, "clip_threshold": 1.0,
         "relative_step": True},
        note="a is `learning_rate` itself in the decay, and min(a, 1/√t) times the size of the "
        "weights in the step: by default the step falls with 1/√t and the decay does not.",
    ),
    _keras(
        "Lamb", "own", _ADAM, _ADAM_DEFAULTS,
        note="The decay is outside the trust ratio, unlike Optax's and most others'; the ratio "
        "reads the decayed weights.",
    ),
    _keras(
        "Muon", "own",
        _same(
            "adam_beta_1", "adam_beta_2", "adam_weight_decay", "epsilon", "exclude_layers",
            "exclude_embeddings", "muon_a", "muon_b", "muon_c", "adam_lr_ratio", "momentum",
            "ns_steps", "nesterov", "rms_rate",
        ),
        {"adam_beta_1": 0.9, "adam_beta_2": 0.999, "adam_weight_decay": 0.004, "epsilon": 1e-7,
         "weight_decay": 0.004, "exclude_layers": None, "exclude_embeddings": True,
         "muon_a": 3.4445, "muon_b": -4.775, "muon_c": 2.0315, "adam_lr_ratio": 1,
         "momentum": 0.95, "ns_steps": 5, "nesterov": True, "rms_rate": 0.2},
        note="`adam_lr_ratio` multiplies the step of what Adam steps, and not its decay, "
        "`adam_weight_decay` times the whole learning rate. `weight_decay` reaches matrices alone.",
    ),
    _keras(
        "Ftrl", "own",
        _same(
            "learning_rate_power", "initial_accumulator_value", "l1_regularization_strength",
            "l2_regularization_strength", "l2_shrinkage_regularization_strength", "beta",
        ),
        {"learning_rate_power": -0.5, "initial_accumulator_value": 0.1,
         "l1_regularization_strength": 0.0, "l2_regularization_strength": 0.0,
         "l2_shrinkage_regularization_strength": 0.0, "beta": 0.0},
        unit=None,
        note="`weight_decay` is lost: the step computes the weights anew from its accumulators and "
        "overwrites what was decayed, all of it where the gradient is 0.",
    ),
    _keras(
        "ScheduleFreeAdamW", "own", {**_ADAM, "warmup_steps": "warmup_steps"},
        {**_ADAM_DEFAULTS, "epsilon": 1e-8, "learning_rate": 2.5e-3, "warmup_steps": 0}, unit=None,
        note="`weight_decay` does not reach the iterate z, towards which the averaging draws the "
        "weights back, and it ignores `warmup_steps`.",
    ),
)  # fmt: skip

_ADDONS = "tensorflow_addons/optimizers/weight_decay_optimizers.py on GitHub, read; end of life"
_ADDONS_NOTE = (
    "The same words as Keras', another unit: the decay follows neither the learning rate nor its "
    "schedule, unless `weight_decay` is a schedule itself."
)
_TENSORFLOW_ADDONS = (
    *(
        Convention(
            name="tensorflow_addons.AdamW", options={"amsgrad": amsgrad},
            direction="amsgrad" if amsgrad else "adam", form="first", unit=PER_STEP,
            arguments={
                "learning_rate": "learning_rate", "weight_decay": "weight_decay", **_ADAM,
            },
            defaults={"learning_rate": 1e-3, **_ADAM_DEFAULTS, "amsgrad": False},
            fixed={"variant": "keras"} if amsgrad else {"eps_placement": "before"},
            inert=("name",), note=_ADDONS_NOTE, source=_ADDONS,
        )
        for amsgrad in (False, True)
    ),
    Convention(
        name="tensorflow_addons.SGDW", direction="momentum", form="first", unit=PER_STEP,
        arguments={
            "learning_rate": "learning_rate", "weight_decay": "weight_decay",
            **_same("momentum", "nesterov"),
        },
        defaults={"learning_rate": 1e-3, "momentum": 0.0, "nesterov": False},
        fixed={"learning_rate_in_buffer": True}, inert=("name",), note=_ADDONS_NOTE, source=_ADDONS,
    ),
    Convention(
        name="tensorflow_addons.extend_with_decoupled_weight_decay", direction="own", form="first",
        unit=PER_STEP,
        arguments={"learning_rate": "learning_rate", "weight_decay": "weight_decay"}, defaults={},
        note=f"{_ADDONS_NOTE} The step of any optimizer, which sees the decayed weights.",
        source=_ADDONS,
    ),
)  # fmt: skip


def _keras_adamw_norm(arguments: Mapping[str, Any]) -> Any:
    return (arguments["batch_size"] / arguments["total_iterations"]) ** 0.5


_KERAS_ADAMW = tuple(
    Convention(
        name="keras_adamw.AdamW", options={"amsgrad": amsgrad},
        direction="amsgrad" if amsgrad else "adam", form="parallel", unit=PAPER,
        arguments={"learning_rate": "learning_rate", "weight_decays": "weight_decay", **_ADAM},
        defaults={"learning_rate": 1e-3, **_ADAM_DEFAULTS, "amsgrad": False, "batch_size": 1},
        fixed={"variant": "keras"} if amsgrad else {"eps_placement": "before"},
        inert=("name", "init_verbose"), normalizer=_keras_adamw_norm,
        normalizer_arguments=("batch_size", "total_iterations"),
        reference="`learning_rate`, apart from the cosine annealing eta_t",
        note="w is multiplied by √(batch_size/total_iterations); newer releases have no `batch_size`, "
        "which is 1 for them, and was 32 by default. A schedule of Keras in `learning_rate` "
        "multiplies the step alone; only its own cosine annealing multiplies both. `weight_decays` "
        "holds a number, or two, for each variable; here it is one number.",
        source="keras_adamw/optimizers_v2.py on GitHub, commits 1b6b116f (with `batch_size`) and "
        "a99d8339 (without), read",
    )
    for amsgrad in (False, True)
)  # fmt: skip

TENSORFLOW_RECORDS = (*_KERAS, *_TENSORFLOW_ADDONS, *_KERAS_ADAMW)
