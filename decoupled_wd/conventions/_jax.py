"""Optax, and the JAX libraries that train with it."""

from collections.abc import Mapping
from typing import Any

from decoupled_wd.conventions._record import (
    CORRECTED,
    LEARNING_RATE,
    OPTAX_STEPS,
    PAPER,
    PER_STEP,
    Convention,
    Form,
    Unit,
)

_RUN = "Optax 0.2.8, read, and run in tests/test_conventions_optax.py"
_GRADIENT = "The penalty is divided with the gradient: L2 regularization, and no weight decay."
_MOMO = (
    "p/(1 + a w) less a step that is not divided by 1 + a w, but in the size of which the loss and w "
    "have a part. `update` takes `value`."
)
_DISTANCE = (
    "d = a w D √(1−β₂ᵗ)/(1−β₁ᵗ): the estimated distance D and the bias corrections are in the decay, "
    "which by the default betas falls to 0.15 a w D at step 12 before it rises to a w D."
)
_AHEAD = "The weights of its averages see the schedule one step ahead of its steps."
_NO_DECAY = (
    "It has no decay. `optax.add_decayed_weights` in a chain before it is an L2 penalty; after it the "
    "sign is wrong."
)
_ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0}


def _optax(
    alias: str,
    numbers: Mapping[str, Any],
    *,
    direction: str = "own",
    form: Form = "parallel",
    unit: Unit | None = LEARNING_RATE,
    words: Mapping[str, str] | None = None,
    **about: Any,
) -> Convention:
    """An alias; `numbers` are its arguments and their defaults."""
    arguments = {x: x for x in ("learning_rate", *numbers)} | dict(words or {})
    return Convention(
        name=f"optax.{alias}", direction=direction, form=form, unit=unit, arguments=arguments,
        defaults=numbers, reference="`learning_rate`, or its peak", source=_RUN, **about,
    )  # fmt: skip


_OPTAX = (
    _optax("adam", {**_ADAM, "nesterov": False}, direction="adam", note=_NO_DECAY),
    _optax("sgd", {"momentum": None, "nesterov": False}, direction="momentum", note=_NO_DECAY),
    _optax(
        "adamw", {**_ADAM, "weight_decay": 1e-4, "nesterov": False}, direction="adam",
    ),
    _optax(
        "nadamw", {**_ADAM, "weight_decay": 1e-4, "nesterov": True}, direction="adam",
        note="The momentum is constant, where that of PyTorch's and Keras' NAdam rises; timm's corrects "
        "both parts of it by the same power.",
    ),
    _optax(
        "lion", {"b1": 0.9, "b2": 0.99, "weight_decay": 1e-3}, direction="lion",
        note="The default decay is ten times that of `optax.adamw`, as Lion's rates are smaller.",
    ),
    _optax(
        "adamaxw", {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 1e-4}, direction="adamax",
    ),
    *(
        _optax(
            alias, {**OPTAX_STEPS[f"optax.{alias}"], "weight_decay": decay},
            direction=f"optax.{alias}", note=note,
        )
        for alias, decay, note in (
            ("adan", 0.0,
             "Decay beside the step, where Adan's authors divide step and weights by 1 + a w."),
            ("contrib.acprop", 0.0, ""),
            ("contrib.ademamix", 0.0, ""),
            ("contrib.simplified_ademamix", 0.0,
             "Its step is 1/(1 − b1) times AdamW's and the decay is not: a rate that is carried from "
             "AdamW divided by 100 takes a decay multiplied by 100."),
            ("contrib.sophia", 1e-4,
             "The decay is after the clipping, which so does not bound it. `update` takes `obj_fn`."),
            ("contrib.galore", 0.0,
             "The decay is outside the projection: all of a weight decays, and neither `scale` nor "
             "the rank has a part in it."),
        )
    ),
    _optax(
        "contrib.muon",
        {"ns_coeffs": (3.4445, -4.775, 2.0315), "ns_steps": 5, "beta": 0.95, "eps": 1e-8,
         "weight_decay": 0.0, "nesterov": True, "adaptive": False, "preconditioning": "frobenius",
         "adam_b1": 0.9, "adam_b2": 0.999, "adam_eps_root": 0.0, "adam_weight_decay": 0.0,
         "adam_learning_rate": None, "muon_weight_dimension_numbers": None, "consistent_rms": None},
        inert=("mu_dtype",),
        note="`weight_decay` and its mask reach what Muon steps, matrices by default. All else has "
        "`adam_weight_decay`, times `adam_learning_rate`, and no mask; `like` multiplies the latter by "
        "the schedule only where it is None.",
    ),
    _optax(
        "adafactor",
        {"min_dim_size_to_factor": 128, "decay_rate": 0.8, "decay_offset": 0,
         "multiply_by_parameter_scale": True, "clipping_threshold": 1.0, "momentum": None,
         "weight_decay_rate": None, "eps": 1e-30, "factored": True},
        unit=PER_STEP, words={"weight_decay_rate": "weight_decay"}, inert=("dtype_momentum",),
        note="The decay is not multiplied by the learning rate, unlike in all of Optax beside it: it "
        "goes on at full strength where the rate falls.",
    ),
    _optax(
        "lamb", {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "eps_root": 0.0, "weight_decay": 0.0}, unit=None,
        note="The decay is inside the trust ratio: d = a w |p|/|u + w p|, of a whole leaf, so that a "
        "leaf without gradient decays by a, whatever w is.",
    ),
    _optax(
        "contrib.momo",
        {"beta": 0.9, "lower_bound": 0.0, "weight_decay": 0.0, "adapt_lower_bound": False,
         "learning_rate": 1.0},
        form="proximal",
        note=_MOMO,
    ),
    _optax(
        "contrib.momo_adam",
        {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "lower_bound": 0.0, "weight_decay": 0.0,
         "adapt_lower_bound": False, "learning_rate": 1e-2},
        form="proximal",
        note=_MOMO,
    ),
    _optax(
        "contrib.prodigy",
        {"betas": (0.9, 0.999), "beta3": None, "eps": 1e-8, "estim_lr0": 1e-6, "estim_lr_coef": 1.0,
         "weight_decay": 0.0, "safeguard_warmup": False, "learning_rate": 1.0},
        unit=None,
        note=_DISTANCE,
    ),
    _optax(
        "contrib.dadapt_adamw",
        {"betas": (0.9, 0.999), "eps": 1e-8, "estim_lr0": 1e-6, "weight_decay": 0.0,
         "learning_rate": 1.0},
        unit=None,
        note=_DISTANCE,
    ),
    _optax(
        "contrib.schedule_free_adamw",
        {"warmup_steps": None, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0,
         "weight_lr_power": 2.0, "learning_rate": 2.5e-3},
        unit=None, inert=("state_dtype",),
        note=f"{_AHEAD} The iterate z loses a w y, where y are the parameters: how much of y goes "
        "follows from the averaging.",
    ),
    _optax(
        "contrib.schedule_free_sgd",
        {"warmup_steps": None, "b1": 0.9, "weight_decay": None, "weight_lr_power": 2.0,
         "learning_rate": 1.0},
        form="coupled", unit=None, inert=("state_dtype",),
        note=f"{_AHEAD} The penalty is of the parameters y: the iterate z loses a w y.",
    ),
    _optax(
        "adadelta", {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}, direction="adadelta",
        form="coupled", unit=None, note=_GRADIENT,
    ),
    _optax(
        "lars",
        {"weight_decay": 0.0, "trust_coefficient": 1e-3, "eps": 0.0, "momentum": 0.9,
         "nesterov": False},
        form="coupled", unit=None,
        note="The penalty is inside the trust ratio, and in the momentum's buffer with the learning "
        "rate of its step.",
    ),
    _optax(
        "novograd",
        {"b1": 0.9, "b2": 0.25, "eps": 1e-6, "eps_root": 0.0, "weight_decay": 0.0},
        unit=None,
        note="The penalty is added to the divided gradient, so that nothing divides it, and goes "
        "through the momentum: 1/(1 − b1) times a w per step in the long run, ten times by default.",
    ),
    _optax(
        "contrib.madgrad",
        {"momentum": 0.9, "weight_decay": 0.0, "eps": 1e-6}, form="coupled", unit=None,
        note=f"{_GRADIENT} It stays in the sum of all gradients for good.",
    ),
    _optax(
        "contrib.cocob",
        {"alpha": 100.0, "eps": 1e-8, "weight_decay": 0.0, "learning_rate": 1.0},
        form="coupled", unit=None,
        note=f"{_GRADIENT} The learning rate multiplies the gradient, and cancels but for `eps`.",
    ),
    _optax(
        "contrib.dog",
        {"init_step": ("heuristic", 1e-6), "eps": 1e-8, "weight_decay": None, "learning_rate": 1.0},
        form="coupled", unit=None,
        note="The penalty is added to the gradient, the norm of which divides the step.",
    ),
    _optax(
        "contrib.dowg",
        {"init_estim_sq_dist": None, "eps": 1e-4, "weight_decay": None, "learning_rate": 1.0},
        form="coupled", unit=None,
        note="The penalty is added to the gradient, the norm of which divides the step.",
    ),
    Convention(
        name="optax.contrib.mechanize", direction="own", form="parallel", unit=None,
        arguments={x: x for x in ("base_optimizer", "weight_decay", "eps", "s_init", "num_betas")},
        defaults={"weight_decay": 1e-2, "eps": 1e-8, "s_init": 1e-6, "num_betas": 6},
        fixed={"learning_rate": 1.0}, reference="1: the base optimizer has a rate of its own",
        note="`weight_decay` decays nothing: w s |g|/|p| p is added to the gradient from which the "
        "step's size s is learned, and not to the one that the base optimizer gets. It is on by "
        "default.",
        source=_RUN,
    ),
)  # fmt: skip

_LEVANTER = "src/levanter/optim/config.py on GitHub, read in the version with `adamc_weight_decay`"
_LEVANTER_NOTE = (
    "Gradients are clipped to `max_grad_norm`, 1 by default, before all else, and `update_rms_clipping` "
    "clips step and decay together; neither is done here. Biases, norms and embeddings do not decay."
)
_CONFIG = {
    "learning_rate": "learning_rate", "beta1": "b1", "beta2": "b2", "weight_decay": "weight_decay",
}  # fmt: skip
_CONFIG_DEFAULTS = {"learning_rate": 6e-4, "beta1": 0.9, "beta2": 0.95}
_PEAK = "the config's learning rate, which is the schedule's peak"

_LEVANTER_RECORDS = (
    *(
        Convention(
            name="levanter.AdamConfig", options={"adamc_weight_decay": corrected}, direction="adam",
            form="parallel", unit=CORRECTED if corrected else LEARNING_RATE,
            arguments={**_CONFIG, "epsilon": "eps", "nesterov": "nesterov"},
            defaults={
                **_CONFIG_DEFAULTS, "epsilon": 1e-8, "weight_decay": 0.1, "nesterov": False,
                "adamc_weight_decay": False,
            },
            reference=_PEAK, note=_LEVANTER_NOTE, source=_LEVANTER,
        )
        for corrected in (False, True)
    ),
    Convention(
        name="levanter.LionConfig", direction="lion", form="parallel", unit=LEARNING_RATE,
        arguments=_CONFIG, defaults={**_CONFIG_DEFAULTS, "weight_decay": 0.0}, inert=("epsilon",),
        reference=_PEAK, note=_LEVANTER_NOTE, source=_LEVANTER,
    ),
)  # fmt: skip

_BIG_VISION = "big_vision/optax.py on GitHub, commit 11eea574, read"
_BIG_VISION_NOTE = (
    "Parameters whose path ends in /kernel decay, and no others, unless `wd_mults` says so. `lr_mults` "
    "multiply the step and not the decay."
)
_BIG_VISION_RECORDS = (
    Convention(
        name="big_vision.scale_by_adam", direction="adam", form="parallel", unit=PAPER,
        arguments={"lr": "learning_rate", "wd": "weight_decay", **{x: x for x in _ADAM}},
        defaults={**_ADAM, "wd": None},
        reference="`config.lr`, apart from the schedule, which peaks at 1",
        note=_BIG_VISION_NOTE, source=_BIG_VISION,
    ),
    Convention(
        name="big_vision.scale_by_adafactor", direction="own", form="parallel", unit=PAPER,
        arguments={"lr": "learning_rate", "wd": "weight_decay"}, defaults={"wd": None},
        reference="`config.lr`, apart from the schedule, which peaks at 1",
        note=f"{_BIG_VISION_NOTE} Its momentum is in bfloat16.", source=_BIG_VISION,
    ),
)  # fmt: skip

_AXLEARN = "axlearn/common/optimizers.py on GitHub, commit 66cc7ee4 or near it, read"
_ONE = (
    "Schedules are called with 1 at the first step. `weight_decay_per_param_scale` multiplies the decay "
    "leaf by leaf, as a mask does here."
)
_RATES = {"learning_rate": "learning_rate", "weight_decay": "weight_decay"}


def _axlearn(name: str, *, note: str = "", **about: Any) -> Convention:
    return Convention(
        name=f"axlearn.{name}", first_step=1, reference="`learning_rate`, or its peak",
        note=f"{note} {_ONE}".strip(), source=_AXLEARN, **about,
    )  # fmt: skip


_AXLEARN_RECORDS = (
    _axlearn(
        "adamw_optimizer", direction="adam", form="parallel", unit=LEARNING_RATE,
        arguments={**_RATES, "b1": "b1", "b2": "b2", "eps": "eps"}, defaults={"weight_decay": 0},
    ),
    _axlearn(
        "adamw_decoupled_optimizer", direction="adam", form="parallel", unit=PAPER,
        arguments={**_RATES, "b1": "b1", "b2": "b2", "eps": "eps"}, defaults={"weight_decay": 0},
        note="The schedule is its argument `update_schedule`.",
    ),
    _axlearn(
        "adastar_optimizer", direction="own", form="parallel", unit=PAPER, arguments=_RATES,
        defaults={"weight_decay": 0}, note="The schedule is its argument `update_schedule`.",
    ),
    _axlearn(
        "adam_optimizer", direction="adam", form="coupled", unit=None,
        arguments={
            "learning_rate": "learning_rate", "l2_regularizer_weight": "weight_decay", "b1": "b1",
            "b2": "b2", "eps": "eps",
        },
        defaults={"l2_regularizer_weight": 0}, note=_GRADIENT,
    ),
    *(
        _axlearn(
            "sgd_optimizer", options={"decouple_weight_decay": decoupled}, direction="momentum",
            form="parallel" if decoupled else "coupled",
            unit=LEARNING_RATE if decoupled else None,
            arguments={**_RATES, "momentum": "momentum"},
            defaults={"momentum": 0, "weight_decay": 0, "decouple_weight_decay": False},
            note="`decouple_weight_decay` has no default there.",
        )
        for decoupled in (False, True)
    ),
    _axlearn(
        "lion_optimizer", direction="lion", form="parallel", unit=LEARNING_RATE,
        arguments={**_RATES, "b1": "b1", "b2": "b2"}, defaults={"weight_decay": 0},
    ),
    *(
        _axlearn(
            "adafactor_optimizer",
            options={"weight_decay_scale_by_learning_rate_exponent": power}, direction="own",
            form="parallel", unit=Unit(power or 0, power or 0), arguments=_RATES,
            defaults={
                "weight_decay": None, "weight_decay_scale_by_learning_rate_exponent": None,
            },
            note="d = a^k w for any exponent k; without one the decay does not follow the schedule.",
        )
        for power in (None, 0.5, 1)
    ),
)  # fmt: skip

_PRAXIS = "praxis/optimizers.py on GitHub, read"
_DEBIASED = "It keeps the bias-corrected moments, where Optax and PyTorch keep them uncorrected."
_PRAXIS_RECORDS = (
    Convention(
        name="praxis.sharded_adam", direction="adam", form="parallel", unit=LEARNING_RATE,
        arguments={
            "learning_rate_fn": "learning_rate", "beta1": "b1", "beta2": "b2", "epsilon": "eps",
            "epsilon_root": "eps_root", "weight_decay": "weight_decay",
        },
        defaults={}, inert=("maybe_inf_to_nan",),
        note=f"{_DEBIASED} `update_capping` clips the step before the decay; it is not done here.",
        source=_PRAXIS,
    ),
    Convention(
        name="praxis.sharded_lion", direction="lion", form="parallel", unit=LEARNING_RATE,
        arguments={
            "learning_rate_fn": "learning_rate", "beta1": "b1", "beta2": "b2",
            "weight_decay": "weight_decay",
        },
        defaults={},
        note="`update_capping` clips the step before the decay; it is not done here.", source=_PRAXIS,
    ),
)  # fmt: skip

_MAXTEXT_DEFAULTS = {
    "adam_b1": 0.9, "adam_b2": 0.95, "adam_eps": 1e-8, "adam_eps_root": 0.0,
    "adam_weight_decay": 0.1,
}  # fmt: skip
_MAXTEXT_RECORDS = tuple(
    Convention(
        name=f"maxtext.{name}", direction="adam", form="parallel", unit=LEARNING_RATE,
        arguments={
            "learning_rate": "learning_rate", "adam_b1": "b1", "adam_b2": "b2", "adam_eps": "eps",
            "adam_eps_root": "eps_root", "adam_weight_decay": "weight_decay",
        },
        defaults=_MAXTEXT_DEFAULTS, reference="`learning_rate`, the schedule's peak", note=note,
        source="MaxText/optimizers.py on GitHub, commit 093e2636, read; defaults from the project's "
        "notes, not read here",
    )
    for name, note in (
        ("adamw", "It is `optax.adamw` without a mask: norms and embeddings decay too."),
        ("adam_pax", f"{_DEBIASED} The state's class is Optax's `ScaleByAdamState` all the same: a "
         "checkpoint of it restores as one of AdamW, and is then corrected twice."),
    )
)  # fmt: skip

JAX_RECORDS = (
    *_OPTAX,
    *_LEVANTER_RECORDS,
    *_BIG_VISION_RECORDS,
    *_AXLEARN_RECORDS,
    *_PRAXIS_RECORDS,
    *_MAXTEXT_RECORDS,
)
