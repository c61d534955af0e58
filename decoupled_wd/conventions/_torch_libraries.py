"""Libraries of optimizers for PyTorch, and the AdamW authors' own code for Torch."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from decoupled_wd.conventions._record import (
    CORRECTED,
    LEARNING_RATE,
    PAPER,
    PER_STEP,
    SQUARED,
    Convention,
    Form,
)

_NOTES = "from the project's notes, not read here"
_RATES = {"lr": "learning_rate", "weight_decay": "weight_decay"}
_BETAS = {**_RATES, "betas": ("b1", "b2")}
_ADAM = {**_BETAS, "eps": "eps"}
_ADAN = {**_RATES, "betas": ("b1", "b2", "b3"), "eps": "eps"}
_SGD = {**_RATES, "momentum": "momentum", "dampening": "dampening", "nesterov": "nesterov"}
_ADAM_DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
_ADAN_DEFAULTS = {"lr": 1e-3, "betas": (0.98, 0.92, 0.99), "eps": 1e-8, "weight_decay": 0.0}
_LION_DEFAULTS = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0}
_SGD_DEFAULTS = {
    "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False,
}  # fmt: skip
_ONE_FOR_ALL = (
    "A is the optimizer's learning rate for every parameter group, also for one with a learning "
    "rate of its own."
)
_OWN_RATIO = "The decay stands inside the trust ratio, and so is scaled by it."


# timm

_TIMM = "timm/optim, run in tests/libraries with timm 1.0.31"
_SNAPSHOT = "`lr` as it was when the optimizer was built"
_CORRECTED = {"form": "first", "unit": CORRECTED, "reference": _SNAPSHOT, "note": _ONE_FOR_ALL}


def _timm(
    name: str,
    direction: str,
    arguments: dict[str, Any],
    defaults: dict[str, Any],
    *,
    options: dict[str, Any] | None = None,
    fixed: dict[str, Any] | None = None,
    inert: tuple[str, ...] = ("foreach", "capturable"),
) -> Iterator[Convention]:
    """An optimizer with and without `corrected_weight_decay`."""
    for corrected in (False, True):
        yield Convention(
            name=f"timm.{name}", direction=direction, arguments=arguments,
            options={**(options or {}), "corrected_weight_decay": corrected},
            defaults={**defaults, "corrected_weight_decay": False}, fixed=fixed or {}, inert=inert,
            source=_TIMM,
            **(_CORRECTED if corrected else {"form": "first", "unit": LEARNING_RATE}),
        )  # fmt: skip


_TIMM_ADAM = {**_ADAM_DEFAULTS, "weight_decay": 1e-2}
_AMSGRAD_DEFAULTS = {**_TIMM_ADAM, "amsgrad": False}
_LAMB_INSIDE: dict[str, Any] = {"form": "parallel", "unit": None, "note": _OWN_RATIO}
_LAMB_OUTSIDE: dict[str, Any] = {"form": "first", "unit": LEARNING_RATE}
_LAMB = {
    **_ADAM, "bias_correction": "bias_correction", "grad_averaging": "grad_averaging",
    "max_grad_norm": "max_grad_norm", "trust_clip": "trust_clip", "always_adapt": "always_adapt",
}  # fmt: skip
_LAMB_DEFAULTS = {
    **_ADAM_DEFAULTS, "eps": 1e-6, "weight_decay": 0.01, "bias_correction": True,
    "grad_averaging": True, "max_grad_norm": 1.0, "trust_clip": False, "always_adapt": False,
    "decoupled_decay": False, "corrected_weight_decay": False,
}  # fmt: skip
_BIG_VISION = {
    x: x for x in (
        "min_dim_size_to_factor", "decay_rate", "decay_offset", "beta2_cap", "momentum", "eps",
        "clipping_threshold",
    )
}  # fmt: skip
_BIG_VISION_DEFAULTS = {
    "lr": 1.0, "weight_decay": 0.0, "min_dim_size_to_factor": 16, "decay_rate": 0.8,
    "decay_offset": 0, "beta2_cap": 0.999, "momentum": 0.9, "eps": None,
    "clipping_threshold": None, "unscaled_wd": False, "corrected_weight_decay": False,
}  # fmt: skip
_BIG_VISION_DECAYS = (
    # (unscaled_wd, corrected_weight_decay), what w is per, and a note.
    (False, False, LEARNING_RATE, ""),
    (False, True, CORRECTED, _ONE_FOR_ALL),
    (True, False, PER_STEP, "`unscaled_wd` alone decays by w whatever the schedule."),
    (True, True, PAPER, _ONE_FOR_ALL),
)

_ADAN_FORMS: tuple[tuple[bool, Form], ...] = ((False, "proximal"), (True, "first"))

_TIMM_CLASSES = (
    *_timm("AdamWLegacy", "adam", _ADAM, _AMSGRAD_DEFAULTS, options={"amsgrad": False}),
    *_timm(
        "AdamWLegacy", "amsgrad", _ADAM, _AMSGRAD_DEFAULTS, options={"amsgrad": True},
        fixed={"variant": "pytorch"},
    ),
    *_timm("NAdamW", "nadamw", _ADAM, _TIMM_ADAM),
    *_timm(
        "SGDW", "momentum", _SGD, _SGD_DEFAULTS, fixed={"dampen_first": False},
        inert=("foreach", "differentiable"),
    ),
    *_timm("Lion", "lion", _BETAS, _LION_DEFAULTS, inert=("foreach",)),
    *(
        Convention(
            name="timm.Adan", options={"no_prox": no_prox}, direction="adan", form=form,
            unit=LEARNING_RATE, arguments=_ADAN, defaults={**_ADAN_DEFAULTS, "no_prox": False},
            inert=("foreach",), source=_TIMM,
        )
        for no_prox, form in _ADAN_FORMS
    ),
    *(
        Convention(
            name="timm.Lamb", options=options, direction="own", arguments=_LAMB,
            defaults=_LAMB_DEFAULTS, inert=("foreach",), source=_TIMM, **decay,
        )
        for options, decay in (
            ({"decoupled_decay": False}, _LAMB_INSIDE),
            ({"decoupled_decay": True, "corrected_weight_decay": False}, _LAMB_OUTSIDE),
            ({"decoupled_decay": True, "corrected_weight_decay": True}, _CORRECTED),
        )
    ),
    *(
        Convention(
            name="timm.AdafactorBigVision", direction="own", form="first", unit=unit,
            options={"unscaled_wd": unscaled, "corrected_weight_decay": corrected},
            arguments={**_RATES, **_BIG_VISION}, defaults=_BIG_VISION_DEFAULTS,
            reference=_SNAPSHOT, source=_TIMM, note=note,
        )
        for unscaled, corrected, unit, note in _BIG_VISION_DECAYS
    ),
)  # fmt: skip

_FACTORY = (
    # What `create_optimizer_v2` calls it, the class, and what it sets.
    ("nadamw", "NAdamW", {"corrected_weight_decay": False}),
    ("sgdw", "SGDW", {"corrected_weight_decay": False}),
    ("lion", "Lion", {"corrected_weight_decay": False}),
    ("adan", "Adan", {"no_prox": False}),
    ("adanw", "Adan", {"no_prox": True}),
    ("lamb", "Lamb", {"decoupled_decay": False}),
    ("lambw", "Lamb", {"decoupled_decay": True, "corrected_weight_decay": False}),
    ("adafactorbv", "AdafactorBigVision", {"corrected_weight_decay": False}),
    ("adamc", "AdamWLegacy", {"corrected_weight_decay": True}),
    ("nadamc", "NAdamW", {"corrected_weight_decay": True}),
    ("sgdc", "SGDW", {"corrected_weight_decay": True}),
    ("lionc", "Lion", {"corrected_weight_decay": True}),
    ("lambcd", "Lamb", {"decoupled_decay": True, "corrected_weight_decay": True}),
    ("adafactorbvc", "AdafactorBigVision", {"corrected_weight_decay": True}),
)


def _by_factory() -> Iterator[Convention]:
    """The names of timm's factory, with the factory's defaults."""
    for name, of, sets in _FACTORY:
        for record in _TIMM_CLASSES:
            if record.name == f"timm.{of}" and sets.items() <= record.options.items():
                rest = {k: v for k, v in record.defaults.items() if k not in sets}
                rest |= {"weight_decay": 0.0}
                rest |= {"momentum": 0.9} if "momentum" in rest else {}
                rest |= {"nesterov": True} if "nesterov" in rest else {}
                options = {k: v for k, v in record.options.items() if k not in sets}
                yield dataclasses.replace(
                    record, name=f"timm.{name}", options=options, defaults=rest,
                    note=" ".join(x for x in (_FACTORY_NOTE, record.note) if x),
                )  # fmt: skip


_FACTORY_NOTE = (
    "By `create_optimizer_v2`, which takes weight_decay=0 as its default and, given a model, leaves "
    "out what has one dimension."
)
_TIMM_ADAMW = (
    Convention(
        name="timm.adamw", options={"amsgrad": amsgrad}, form="first", unit=LEARNING_RATE,
        direction="amsgrad" if amsgrad else "adam", arguments=_ADAM,
        defaults={**_ADAM_DEFAULTS, "amsgrad": False},
        fixed={"variant": "pytorch"} if amsgrad else {},
        inert=("foreach", "fused", "capturable", "differentiable"),
        note=f"It is `torch.optim.AdamW`. {_FACTORY_NOTE}", source=_TIMM,
    )
    for amsgrad in (False, True)
)  # fmt: skip


# optimi

_OPTIMI = "optimi/*.py, run in tests/libraries with torch-optimi 0.3.3"
_OPTIMI_INERT = ("foreach", "triton", "gradient_release")
_OPTIMI_ADAM = {"betas": (0.9, 0.99), "weight_decay": 0, "eps": 1e-6}
_MAX_LR: dict[str, Any] = {
    "unit": PAPER, "reference": "`max_lr`, or `lr` as it was when the optimizer was built",
    "reference_argument": "max_lr", "note": _ONE_FOR_ALL,
}  # fmt: skip
_LOOKAHEAD = (
    "Every k steps the weights go back by 1 − alpha of the way, decay included: of the decay of k "
    "steps some alpha is left."
)


def _optimi(
    name: str,
    direction: str,
    arguments: dict[str, Any],
    defaults: dict[str, Any],
    *,
    form: Form = "first",
    options: dict[str, Any] | None = None,
    penalty: bool = True,
    unused: tuple[str, ...] = (),
    **more: Any,
) -> Iterator[Convention]:
    """An optimizer with each of its couplings; `penalty` where `decouple_wd` may be False."""
    inert = (*_OPTIMI_INERT, *unused)
    settings = {"decouple_wd": name == "Ranger"} if penalty else {}
    couplings: list[tuple[dict[str, bool], dict[str, Any]]] = [
        ({"decouple_lr": True}, {"form": form, **_MAX_LR, "inert": (*inert, *settings)}),
        (
            {"decouple_lr": False, **dict.fromkeys(settings, True)},
            {"form": form, "unit": LEARNING_RATE, "inert": (*inert, "max_lr")},
        ),
    ]
    if penalty:
        decay = {"form": "coupled", "unit": None, "inert": (*inert, "max_lr")}
        couplings.append(({"decouple_lr": False, "decouple_wd": False}, decay))
    for coupling, decay in couplings:
        note = " ".join(x for x in (more.get("note"), decay.get("note")) if x)
        yield Convention(
            name=f"optimi.{name}", direction=direction, arguments=arguments,
            options={**(options or {}), **coupling},
            defaults={**defaults, **settings, "decouple_lr": False, "max_lr": None},
            source=_OPTIMI, **{**more, **decay, "note": note},
        )  # fmt: skip


_OPTIMI_SGD = (
    # dampening, torch_init, and what they are here.
    ({"dampening": False}, {}),
    ({"dampening": True, "torch_init": False}, {"dampening": "momentum"}),
    ({"dampening": True, "torch_init": True}, {"dampening": "momentum", "dampen_first": False}),
)


def _stable() -> Iterator[Convention]:
    """The decay follows the step, which is clipped by its own size."""
    defaults = {**_OPTIMI_ADAM, "weight_decay": 1e-2}
    for record in _optimi("StableAdamW", "own", _ADAM, defaults, penalty=False):
        yield dataclasses.replace(
            record, unit=None,
            note="The decay is divided by max(1, RMS) as the step is, with RMS that of g/√v̂ over "
            f"each array. {record.note}".strip(),
        )  # fmt: skip


_OPTIMI_RECORDS = (
    *_optimi("Adam", "adam", _ADAM, _OPTIMI_ADAM),
    *_optimi("AdamW", "adam", _ADAM, {**_OPTIMI_ADAM, "weight_decay": 1e-2}, penalty=False),
    *(
        record
        for options, fixed in _OPTIMI_SGD
        for record in _optimi(
            "SGD", "momentum", {**_RATES, "momentum": "momentum"},
            {"momentum": 0, "weight_decay": 0, "dampening": False, "torch_init": False},
            options=options, fixed=fixed,
        )
    ),
    *_optimi("Lion", "lion", _BETAS, {"betas": (0.9, 0.99), "weight_decay": 0}, penalty=False),
    *_optimi(
        "Adan", "adan", _ADAN,
        {"betas": (0.98, 0.92, 0.99), "weight_decay": 2e-2, "eps": 1e-6}, form="proximal",
        penalty=False, unused=("adam_wd",),
        note="adam_wd=True is read and then ignored: the decay stays proximal.",
    ),
    *_optimi("RAdam", "radam", _ADAM, _OPTIMI_ADAM),
    *_optimi(
        "Ranger", "own", {**_ADAM, "k": "k", "alpha": "alpha"},
        {**_OPTIMI_ADAM, "k": 6, "alpha": 0.5}, note=_LOOKAHEAD,
        also="the slow weights of the look-ahead, which follow by a part alpha every k steps",
    ),
    *_stable(),
)  # fmt: skip


# pytorch_optimizer

_POPT = "pytorch_optimizer, run in tests/libraries with 4.1.0"
_POPT_FIXED_DECAY = (
    # weight_decouple, fixed_decay, and the decay.
    ({"weight_decouple": True, "fixed_decay": False}, {"form": "first", "unit": LEARNING_RATE}),
    ({"weight_decouple": True, "fixed_decay": True}, {"form": "first", "unit": PER_STEP}),
    ({"weight_decouple": False}, {"form": "coupled", "unit": None}),
)
_POPT_EPS = "Under the root stands another ε, 1e-15."


def _popt(
    name: str,
    direction: str,
    arguments: dict[str, Any],
    defaults: dict[str, Any],
    *,
    options: dict[str, Any] | None = None,
    couplings: Any = _POPT_FIXED_DECAY,
    **more: Any,
) -> Iterator[Convention]:
    """An optimizer with each setting of `weight_decouple` and `fixed_decay`."""
    settings = [k for coupling, _ in couplings for k in coupling]
    for coupling, decay in couplings:
        unused = tuple(x for x in dict.fromkeys(settings) if x not in coupling)
        yield Convention(
            name=f"pytorch_optimizer.{name}", direction=direction, arguments=arguments,
            options={**(options or {}), **coupling},
            defaults={
                **defaults, "weight_decouple": defaults.get("weight_decouple", True),
                **({"fixed_decay": False} if "fixed_decay" in settings else {}),
            },
            inert=("foreach", *unused), source=_POPT, **{**more, **decay},
        )  # fmt: skip


_POPT_ADAMC = (
    (
        {"weight_decouple": True, "fixed_decay": False, "normalized": False},
        {
            "form": "first", "unit": LEARNING_RATE,
            "note": "Without `normalized=True`, which is meant as a key of the parameter groups of "
            f"normalization layers, nothing is corrected. {_POPT_EPS}",
        },
    ),
    (
        {"weight_decouple": True, "fixed_decay": False, "normalized": True},
        {"form": "first", "unit": CORRECTED, "note": f"{_ONE_FOR_ALL} {_POPT_EPS}"},
    ),
    (
        {"weight_decouple": True, "fixed_decay": True},
        {"form": "first", "unit": PER_STEP, "note": _POPT_EPS},
    ),
    ({"weight_decouple": False}, {"form": "coupled", "unit": None, "note": _POPT_EPS}),
)  # fmt: skip
_POPT_WITHOUT_FIXED = tuple(
    ({"weight_decouple": c["weight_decouple"]}, decay)
    for c, decay in _POPT_FIXED_DECAY
    if not c.get("fixed_decay")
)
_SIZE = (
    "The decay is divided by √(mean v̂) + ε, the mean over all parameters, so that gradients of "
    "1e-3 decay a thousand times as fast as the number says."
)

_POPT_RECORDS = (
    *(
        record
        for ams_bound in (False, True)
        for record in _popt(
            "AdamC", "amsgrad" if ams_bound else "adam", _ADAM,
            {**_ADAM_DEFAULTS, "ams_bound": False, "normalized": False},
            options={"ams_bound": ams_bound}, couplings=_POPT_ADAMC,
            fixed={
                "eps_root": 1e-15,
                **({"variant": "keras"} if ams_bound else {"eps_placement": "before"}),
            },
        )
    ),
    *_popt("Lion", "lion", _BETAS, _LION_DEFAULTS),
    *(
        record
        for nesterov in (False, True)
        for record in _popt(
            "SGDW", "momentum",
            # Beside Nesterov's momentum its dampening would be a third rule.
            {k: v for k, v in _SGD.items() if k != ("dampening" if nesterov else "nesterov")},
            {**_SGD_DEFAULTS, "lr": 1e-4}, options={"nesterov": nesterov},
            couplings=_POPT_WITHOUT_FIXED,
            fixed={"dampen_first": False, "nesterov": nesterov},
        )
    ),
    *_popt(
        "Adan", "adan", _ADAN, {**_ADAN_DEFAULTS, "weight_decouple": False, "max_grad_norm": 0.0},
        options={"max_grad_norm": 0.0},
        couplings=(
            (
                {"weight_decouple": False},
                {
                    "form": "proximal", "unit": LEARNING_RATE,
                    "note": "`weight_decouple=False`, the default, is proximal decay and no penalty.",
                },
            ),
            ({"weight_decouple": True}, {"form": "first", "unit": LEARNING_RATE}),
        ),
    ),
    *(
        dataclasses.replace(record, unit=None, note=_SIZE)
        for record in _popt(
            "AdamS", "own", _ADAM,
            {**_ADAM_DEFAULTS, "weight_decay": 1e-4, "ams_bound": False},
            options={"ams_bound": False}, couplings=_POPT_FIXED_DECAY[:2],
        )
    ),
    *(
        dataclasses.replace(
            record, unit=None,
            note="The decay is divided by √((1 + Σv̂)/n), of all n parameters: with small gradients it "
            "is √n times what the number says. weight_decouple=False is no decay at all, and "
            "`norm_loss_factor` is another one, towards weights of norm 1.",
        )
        for record in _popt(
            "Ranger21", "own", {**_ADAM, "num_iterations": "num_iterations"},
            {**_ADAM_DEFAULTS, "weight_decay": 1e-4}, couplings=_POPT_FIXED_DECAY[:2],
        )
    ),
    *(
        dataclasses.replace(
            record, unit=None,
            note="The decay is divided by max(1, RMS) as the step is, with RMS that of g/√v̂ over "
            "each array.",
        )
        for record in _popt(
            "StableAdamW", "own", _ADAM,
            {**_ADAM_DEFAULTS, "betas": (0.9, 0.99), "weight_decay": 1e-2},
            couplings=_POPT_WITHOUT_FIXED[:1],
        )
    ),
)  # fmt: skip


# lion_pytorch and schedulefree

_SCHEDULE_FREE = (
    "The decay is taken at y, where gradients are, and applied to z, of which the weights x are an "
    "average: it reaches them late."
)
_FREE = {
    "warmup_steps": "warmup_steps", "r": "r", "weight_lr_power": "weight_lr_power",
}  # fmt: skip
_FREE_DEFAULTS = {"weight_decay": 0, "warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0}
_AVERAGED = "the average of the weights, which decays later than what it averages"
_SMALL_RECORDS = (
    Convention(
        name="schedulefree.AdamCPlus", direction="own", form="parallel", unit=SQUARED,
        arguments={"lr": "learning_rate", "weight_decay": "weight_decay"},
        defaults={"weight_decay": 0}, also=_AVERAGED,
        note="The decay is of the weights y, and acts on z. The release 1.4.1 has no such optimizer.",
        source="the project's notes, not read here",
    ),
    *(
        Convention(
            name="lion_pytorch.Lion", options={"decoupled_weight_decay": decoupled},
            direction="lion", form="first", unit=PAPER if decoupled else LEARNING_RATE,
            arguments=_BETAS, defaults={**_LION_DEFAULTS, "decoupled_weight_decay": False},
            inert=("use_triton",), reference=_SNAPSHOT, note=_ONE_FOR_ALL * decoupled,
            source="lion_pytorch/lion_pytorch.py, run in tests/libraries with 0.2.5",
        )
        for decoupled in (False, True)
    ),
    *(
        Convention(
            name=f"schedulefree.{name}", direction="own", form="parallel", unit=LEARNING_RATE,
            arguments={**arguments, **_FREE}, defaults={**defaults, **_FREE_DEFAULTS},
            inert=("foreach",), note=_SCHEDULE_FREE, also=_AVERAGED,
            source="schedulefree/*.py, run in tests/libraries with 1.4.1",
        )
        for name, arguments, defaults in (
            (
                "AdamWScheduleFree", _ADAM,
                {"lr": 0.0025, "betas": (0.9, 0.999), "eps": 1e-8},
            ),
            (
                "SGDScheduleFree", {**_RATES, "momentum": "momentum"},
                {"lr": 1.0, "momentum": 0.9},
            ),
        )
    ),
)  # fmt: skip


# Libraries with kernels of their own: float32 arithmetic

_BITS = (
    "In float32; the variants with 8 bits and in pages have the same decay. `device` stands for the "
    "device of the parameters, and is no argument."
)
_BNB_INERT = ("args", "min_8bit_size", "is_paged")
_BNB_SOURCE = {
    "cuda": "csrc/cuda/optimizers.cu, read on GitHub",
    "cpu": "bitsandbytes/backends/cpu/ops.py, run in tests/libraries with 0.50.2",
}


def _bitsandbytes(
    name: str, direction: str, arguments: dict[str, Any], defaults: dict[str, Any], **cuda: Any
) -> Iterator[Convention]:
    """An optimizer on both devices, which do not agree."""
    cpu = {"form": "first", "unit": LEARNING_RATE, "note": _BITS}
    for device, decay in (("cuda", cuda), ("cpu", cpu)):
        yield Convention(
            name=f"bitsandbytes.{name}", options={"device": device}, direction=direction,
            arguments=arguments, defaults={**defaults, "device": "cuda"}, inert=_BNB_INERT,
            source=_BNB_SOURCE[device], **decay,
        )  # fmt: skip


_AFTER: dict[str, Any] = {
    "form": "after", "unit": LEARNING_RATE,
    "note": f"On CUDA the decay comes after the step and removes some of it, elsewhere before. {_BITS}",
}  # fmt: skip
_BITSANDBYTES_RECORDS = (
    *_bitsandbytes(
        "Adam", "adam", _ADAM, _ADAM_DEFAULTS,
        **{**_AFTER, "note": f"It is AdamW, with weight_decay=0 as its default. {_AFTER['note']}"},
    ),
    *_bitsandbytes("AdamW", "adam", _ADAM, {**_ADAM_DEFAULTS, "weight_decay": 1e-2}, **_AFTER),
    *_bitsandbytes(
        "Lion", "lion", _BETAS, {**_LION_DEFAULTS, "weight_decay": 0}, form="coupled", unit=None,
        note="On CUDA with states of 32 bits, which it has by default and for arrays of fewer than "
        f"4096, the decay is a penalty inside Lion's sign; elsewhere it is decoupled. {_BITS}",
    ),
)  # fmt: skip

_TORCHAO_NOTE = (
    "Arithmetic in float32, rounded once; with states of few bits for arrays of 4096 and more, which "
    "`like` does not round. `lr` is a float32 tensor."
)
_TORCHAO_RECORDS = tuple(
    Convention(
        name=f"torchao.{name}", options={"amsgrad": amsgrad},
        direction="amsgrad" if amsgrad else "adam",
        form="first" if "AdamW" in name else "coupled",
        unit=LEARNING_RATE if "AdamW" in name else None, arguments=_ADAM,
        defaults={
            **_ADAM_DEFAULTS, "weight_decay": 1e-2 if "AdamW" in name else 0, "amsgrad": False,
        },
        fixed={"variant": "pytorch"} if amsgrad else {},
        inert=("block_size",), note=_TORCHAO_NOTE,
        source="torchao/optim/adam.py, run in tests/libraries with 0.18.0",
    )
    for name in ("AdamW8bit", "AdamW4bit", "AdamWFp8", "_AdamW", "Adam8bit", "Adam4bit", "AdamFp8")
    for amsgrad in (False, True)
)  # fmt: skip


def _fused(
    name: str, mode: str, source: str, note: str = "", inert: tuple[str, ...] = ()
) -> Iterator[Convention]:
    """NVIDIA's fused Adam, and what was made of it."""
    for decoupled in (True, False):
        yield Convention(
            name=name, options={mode: decoupled, "bias_correction": True}, direction="adam",
            form="parallel" if decoupled else "coupled",
            unit=LEARNING_RATE if decoupled else None, arguments=_ADAM,
            defaults={**_ADAM_DEFAULTS, mode: True, "bias_correction": True}, inert=inert,
            note=f"{note} Arithmetic in float32.".strip(), source=source,
        )  # fmt: skip


_FUSED_RECORDS = (
    *_fused(
        "apex.FusedAdam", "adam_w_mode", "csrc/multi_tensor_adam.cu, read on GitHub",
        "It is AdamW unless adam_w_mode=False.",
        ("amsgrad", "set_grad_none", "capturable", "master_weights"),
    ),
    *_fused(
        "deepspeed.FusedAdam", "adam_w_mode", "csrc/adam/multi_tensor_adam.cu, read in 0.19.8",
        "A configuration of type 'Adam' makes this, and it is AdamW unless adam_w_mode=False.",
        ("amsgrad", "set_grad_none"),
    ),
    *_fused(
        "deepspeed.DeepSpeedCPUAdam", "adamw_mode", "csrc/adam/cpu_adam_impl.cpp, read in 0.19.8",
        "It is AdamW unless adamw_mode=False.", ("amsgrad", "fp32_optimizer_states"),
    ),
    Convention(
        name="deepspeed.FusedLion", direction="lion", form="first", unit=LEARNING_RATE,
        arguments=_BETAS, defaults={"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0},
        inert=("set_grad_none",), note="Its betas are Adam's, and not Lion's (0.9, 0.99).",
        source="csrc/lion/multi_tensor_lion.cu, read in 0.19.8",
    ),
    *_fused(
        "transformer_engine.FusedAdam", "adam_w_mode", _NOTES,
        "It is AdamW unless adam_w_mode=False.",
    ),
)  # fmt: skip

_HEAVYBALL: dict[str, Any] = {
    "direction": "floored_adam", "form": "parallel", "arguments": _ADAM,
    "inert": ("multi_tensor", "compile_step"),
    "source": "heavyball/chainable.py and utils.py, run in tests/libraries with 3.2.1",
}  # fmt: skip
_HEAVYBALL_DEFAULTS = {"lr": 0.0025, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0}
_FLOAT32 = (
    "ε is the least that √v̂ may be, and is not added to it. Arithmetic in float32. With "
    "cautious_weight_decay only coordinates whose step goes towards zero decay: not known here."
)
_HEAVYBALL_RECORDS = (
    Convention(
        name="heavyball.AdamW", unit=LEARNING_RATE, defaults=_HEAVYBALL_DEFAULTS, note=_FLOAT32,
        **_HEAVYBALL,
    ),
    Convention(
        name="heavyball.AdamC", unit=CORRECTED, defaults={**_HEAVYBALL_DEFAULTS, "max_lr": None},
        reference="`max_lr`, or `lr` as it was when the optimizer was built",
        reference_argument="max_lr", note=_FLOAT32, **_HEAVYBALL,
    ),
)  # fmt: skip


# Composer and modded-nanogpt

_INITIAL_LR: dict[str, Any] = {
    "form": "first", "unit": PAPER,
    "reference": "each parameter group's `initial_lr`: `lr` as it was when the optimizer was built",
    "note": "`torch.optim.lr_scheduler.OneCycleLR` overwrites A with its first learning rate, so that "
    "at the peak the decay is 25 w; and an optimizer that is built with lr=0 decays by w whatever "
    "the schedule.",
    "source": "composer/optim/decoupled_weight_decay.py of 0.32.1, that file run by hand beside "
    "PyTorch 2.13",
}  # fmt: skip
_COMPOSER_RECORDS = (
    *(
        Convention(
            name="composer.DecoupledAdamW", options={"amsgrad": amsgrad},
            direction="amsgrad" if amsgrad else "adam", arguments=_ADAM,
            fixed={"variant": "pytorch"} if amsgrad else {},
            defaults={
                **_ADAM_DEFAULTS, "betas": (0.9, 0.95), "weight_decay": 1e-5, "amsgrad": False,
            },
            **_INITIAL_LR,
        )
        for amsgrad in (False, True)
    ),
    Convention(
        name="composer.DecoupledSGDW", direction="momentum", arguments=_SGD,
        defaults={k: v for k, v in _SGD_DEFAULTS.items() if k != "lr"},
        fixed={"dampen_first": False}, **_INITIAL_LR,
    ),
)  # fmt: skip
_CAUTIOUS = "A coordinate decays only where the step goes towards zero"
_MODDED_RECORDS = tuple(
    Convention(
        name=f"modded_nanogpt.{name}", direction="own", form="parallel", unit=SQUARED,
        arguments={**_RATES, "wd_mul": "wd_mul", "lr_mul": "lr_mul"},
        defaults={"weight_decay": decay, "wd_mul": 1.0, "lr_mul": 1.0},
        normalizer=factor, normalizer_arguments=("lr_mul", "wd_mul"), note=note,
        also="a gate: a coordinate decays only where the step goes towards zero",
        source="class NorMuonAndAdam of train_gpt.py, read on GitHub; the default of the project's "
        "notes",
    )
    for name, decay, factor, note in (
        (
            "Adam", 0.005, lambda h: h["lr_mul"] ** 2 * h["wd_mul"],
            f"{_CAUTIOUS} (of two zeros it does not). w is multiplied by lr_mul² wd_mul.",
        ),
        (
            "NorMuon", 1.2, lambda h: h["lr_mul"] * h["wd_mul"],
            f"{_CAUTIOUS} or nowhere. w is multiplied by lr_mul wd_mul, lr_mul times the "
            "square root of the matrix's shape ratio.",
        ),
    )
)  # fmt: skip


# The authors' Lua code

_LUA: dict[str, Any] = {
    "reference": "the option LR", "first_step": 1,
    "source": "train.lua and UPDATETORCHFILES/*.lua of loshchil/AdamW-and-SGDW, read on GitHub",
}  # fmt: skip
_LUA_RATES = {"learningRate": "learning_rate", "weightDecay": "weight_decay"}
_LUA_ADAM: dict[str, Any] = {
    "direction": "adam", "fixed": {"eps_placement": "before"},
    "arguments": {**_LUA_RATES, "beta1": "b1", "beta2": "b2", "epsilon": "eps"},
    "defaults": {
        "learningRate": 1e-3, "weightDecay": 0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
    },
}  # fmt: skip
_LUA_SGD: dict[str, Any] = {
    "direction": "momentum", "arguments": {**_LUA_RATES, "momentum": "momentum"}, "defaults": {},
}  # fmt: skip
_LUA_ONLY_COSINE = "With lrShape='multistep' it does not decay at all. "
_LUA_DECAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {"form": "coupled", "unit": None}),
    ("dec", {"form": "parallel", "unit": PAPER, "note": _LUA_ONLY_COSINE}),
    (
        "W",
        {
            "form": "parallel", "unit": PAPER,
            "normalizer": lambda h: 1 / math.sqrt(h["trainSize"] * h["Te"]),
            "normalizer_arguments": ("trainSize", "Te"),
            "note": f"{_LUA_ONLY_COSINE}The decay is normalized: divided by √(trainSize Te), "
            "batches per epoch times epochs of the cycle, so that it differs from cycle to cycle.",
        },
    ),
)  # fmt: skip
_LUA_RECORDS = tuple(
    Convention(name=f"lua.{name}{suffix}", **_LUA, **rule, **decay)
    for name, rule in (("ADAM", _LUA_ADAM), ("SGD", _LUA_SGD))
    for suffix, decay in _LUA_DECAYS
)

TORCH_LIBRARY_RECORDS = (
    *_TIMM_CLASSES, *_TIMM_ADAMW, *_by_factory(), *_OPTIMI_RECORDS, *_POPT_RECORDS,
    *_SMALL_RECORDS, *_BITSANDBYTES_RECORDS, *_TORCHAO_RECORDS, *_FUSED_RECORDS,
    *_HEAVYBALL_RECORDS, *_COMPOSER_RECORDS, *_MODDED_RECORDS, *_LUA_RECORDS,
)  # fmt: skip
