"""PyTorch's own optimizers."""

from decoupled_wd.conventions._record import LEARNING_RATE, Convention

_RUN = "torch/optim, run in tests/libraries with PyTorch 2.13"
_RATES = {"lr": "learning_rate", "weight_decay": "weight_decay"}
_BETAS = {**_RATES, "betas": ("b1", "b2"), "eps": "eps"}
_BETAS_DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
_INERT = ("foreach", "fused", "capturable", "differentiable")
_WHATEVER = ("foreach", "capturable", "differentiable")
_GRADIENT = (
    "The penalty goes through the moments and is divided with the gradient: L2 regularization, and "
    "no weight decay."
)


def _adam(name: str, decoupled: bool, amsgrad: bool) -> Convention:
    options = {} if name == "AdamW" else {"decoupled_weight_decay": decoupled}
    return Convention(
        name=f"pytorch.{name}", options={**options, "amsgrad": amsgrad},
        direction="amsgrad" if amsgrad else "adam",
        form="first" if decoupled else "coupled", unit=LEARNING_RATE if decoupled else None,
        arguments=_BETAS,
        defaults={
            **_BETAS_DEFAULTS, "amsgrad": False,
            **({"weight_decay": 1e-2} if name == "AdamW" else {"decoupled_weight_decay": False}),
        },
        fixed={"variant": "pytorch"} if amsgrad else {}, inert=_INERT,
        note="" if decoupled else _GRADIENT, source=_RUN,
    )  # fmt: skip


def _dozat(name: str, decoupled: bool) -> Convention:
    """NAdam and RAdam, which are both by one option."""
    nadam = name == "NAdam"
    notes = {
        "NAdam": "The product of its momenta is kept in PyTorch's default dtype, for float64 "
        "parameters too. ",
        "RAdam": "Its ε is added before bias correction, unlike that of PyTorch's Adam. ",
    }
    return Convention(
        name=f"pytorch.{name}", options={"decoupled_weight_decay": decoupled},
        direction=name.lower(),
        form="first" if decoupled else "coupled", unit=LEARNING_RATE if decoupled else None,
        arguments={**_BETAS, "momentum_decay": "momentum_decay"} if nadam else _BETAS,
        defaults={
            **_BETAS_DEFAULTS, "decoupled_weight_decay": False,
            **({"lr": 2e-3, "momentum_decay": 4e-3} if nadam else {}),
        },
        fixed={} if nadam else {"eps_placement": "before"}, inert=_WHATEVER,
        note=notes[name] + ("" if decoupled else _GRADIENT), source=_RUN,
    )  # fmt: skip


PYTORCH_RECORDS = (
    *(_adam("AdamW", True, amsgrad) for amsgrad in (False, True)),
    *(_adam("Adam", decoupled, amsgrad) for decoupled in (False, True) for amsgrad in (False, True)),
    *(_dozat(name, decoupled) for name in ("NAdam", "RAdam") for decoupled in (False, True)),
    Convention(
        name="pytorch.SGD", direction="momentum", form="coupled", unit=None,
        arguments={
            **_RATES, "momentum": "momentum", "dampening": "dampening", "nesterov": "nesterov",
        },
        defaults={"lr": 1e-3, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False},
        fixed={"dampen_first": False}, inert=_INERT,
        note="Dampening spares the first gradient, which so weighs 1/(1 − dampening) times as much "
        "as the others.",
        source=_RUN,
    ),
    Convention(
        name="pytorch.RMSprop", direction="rmsprop", form="coupled", unit=None,
        arguments={
            **_RATES, "alpha": "decay", "eps": "eps", "momentum": "momentum",
            "centered": "centered",
        },
        defaults={
            "lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0, "momentum": 0,
            "centered": False,
        },
        inert=_WHATEVER, note=_GRADIENT, source=_RUN,
    ),
    Convention(
        name="pytorch.Adamax", direction="adamax", form="coupled", unit=None, arguments=_BETAS,
        defaults={**_BETAS_DEFAULTS, "lr": 2e-3}, inert=_WHATEVER, note=_GRADIENT, source=_RUN,
    ),
    Convention(
        name="pytorch.Adagrad", direction="adagrad", form="coupled", unit=None,
        arguments={
            **_RATES, "eps": "eps", "lr_decay": "lr_decay",
            "initial_accumulator_value": "initial_accumulator_value",
        },
        defaults={
            "lr": 1e-2, "lr_decay": 0, "weight_decay": 0, "initial_accumulator_value": 0,
            "eps": 1e-10,
        },
        inert=("foreach", "differentiable", "fused"), note=_GRADIENT, source=_RUN,
    ),
    Convention(
        name="pytorch.Adadelta", direction="adadelta", form="coupled", unit=None,
        arguments={**_RATES, "rho": "rho", "eps": "eps"},
        defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0},
        inert=_WHATEVER, note=_GRADIENT, source=_RUN,
    ),
    Convention(
        name="pytorch.ASGD", direction="own", form="coupled", unit=None,
        arguments={**_RATES, "lambd": "lambd", "alpha": "alpha", "t0": "t0"},
        defaults={"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0},
        inert=_WHATEVER,
        note="A change of `lr` acts one step late. Beside the penalty there is `lambd`, a decoupled "
        "decay of η lambd per step with η = lr/(1 + lambd lr t)^alpha, which is 1e-4 by default: it "
        "decays although `weight_decay` is 0.",
        source=_RUN,
    ),
    Convention(
        name="pytorch.Adafactor", direction="own", form="first", unit=LEARNING_RATE,
        arguments={**_RATES, "beta2_decay": "beta2_decay", "eps": "eps", "d": "d"},
        defaults={
            "lr": 1e-2, "beta2_decay": -0.8, "eps": (None, 1e-3), "d": 1.0, "weight_decay": 0.0,
        },
        inert=("foreach",),
        note="`lr` multiplies the decay as it is, and bounds the step's rate, min(lr, 1/√t) times "
        "the size of the weights: where that bound is not reached, the decay does not fall with it.",
        source=_RUN,
    ),
    Convention(
        name="pytorch.Muon", direction="own", form="first", unit=LEARNING_RATE,
        arguments={
            **_RATES, "momentum": "momentum", "nesterov": "nesterov", "eps": "eps",
            "ns_coefficients": "ns_coefficients", "ns_steps": "ns_steps",
            "adjust_lr_fn": "adjust_lr_fn",
        },
        defaults={
            "lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True,
            "ns_coefficients": (3.4445, -4.775, 2.0315), "eps": 1e-7, "ns_steps": 5,
            "adjust_lr_fn": None,
        },
        note="`adjust_lr_fn` changes the step by a factor of the matrix's shape, and the decay not. "
        "It takes matrices alone, and orthogonalizes in bfloat16.",
        source=_RUN,
    ),
)  # fmt: skip
