"""Weight decay for JAX and Optax, as gradient transformations whose place says what they mean.

    g -> [A] -> scale_by_adam -> [B] -> x alpha -> [C] -> x eta_t -> [D] -> x(-1) -> theta += u

A is L2 regularization, B to D are weight decay per unit of learning rate, per unit of the schedule,
and per step. `decoupled_wd.plots`, which needs matplotlib, is imported by itself.
"""

from decoupled_wd import (
    conventions,
    diagnostics,
    equivalence,
    gates,
    hyperparams,
    masks,
    migrate,
    schedules,
    strengths,
    sweep,
)
from decoupled_wd._add_penalty import DecayMemoryState, MovingAverage, moving_average
from decoupled_wd._alias import (
    adam_l2,
    adamw,
    adamwr,
    amsgrad_l2,
    amsgradw,
    lionw,
    sgd_l2,
    sgdw,
    sgdwr,
)
from decoupled_wd._auto_l2 import AutoL2State, add_auto_l2_to_grad
from decoupled_wd._coupled import (
    AddL2ToGradState,
    AddPenaltyToGradState,
    add_elastic_net_to_grad,
    add_l1_to_grad,
    add_l2_to_grad,
)
from decoupled_wd._decoupled import (
    DecoupledWeightDecayState,
    applied_weight_decay,
    decoupled_weight_decay,
)
from decoupled_wd._describe import DecayRow, DecayTable, describe_decay
from decoupled_wd._extend import extend_with_decoupled_weight_decay
from decoupled_wd._informed import informed_chain
from decoupled_wd._lazy import LazyDecayState, caught_up, lazy_decay
from decoupled_wd._like import like
from decoupled_wd._penalty import (
    L1,
    L2,
    Penalty,
    Tracking,
    elastic_net,
    explicit,
    huber,
    huber_tracking,
    power,
)
from decoupled_wd._precision import (
    CompensatedRoundingState,
    StochasticRoundingState,
    compensated_rounding,
    stochastic_rounding,
    to_float32,
    with_rounding,
)
from decoupled_wd._projection import KeepNormState, RotationState, keep_norm, scale_by_rotation
from decoupled_wd._proximal import ProximalWeightDecayState, proximal_weight_decay
from decoupled_wd._restarts import cosine_warm_restarts
from decoupled_wd._scaling import scale_by_adam, scale_by_amsgrad, scale_by_schedule
from decoupled_wd._sharding import optimizer_state_sharding
from decoupled_wd.conventions import convert
from decoupled_wd.hyperparams import (
    half_life,
    normalize_weight_decay,
    normalized_weight_decay,
    steps_per_epoch,
    suggest,
    timescale,
    weight_decay_of_half_life,
    weight_decay_of_timescale,
)
from decoupled_wd.schedules import (
    cosine_warm_restarts_schedule,
    cyclical_schedule,
    log_time_weight_decay_schedule,
    normalized_weight_decay_schedule,
)

__version__ = "0.1.0"

__all__ = [
    # Numbers and schedules
    "half_life",
    "normalize_weight_decay",
    "normalized_weight_decay",
    "steps_per_epoch",
    "suggest",
    "timescale",
    "weight_decay_of_half_life",
    "weight_decay_of_timescale",
    "cosine_warm_restarts_schedule",
    "cyclical_schedule",
    "log_time_weight_decay_schedule",
    "normalized_weight_decay_schedule",
    # Transformations
    "AddL2ToGradState",
    "add_l2_to_grad",
    "AddPenaltyToGradState",
    "add_l1_to_grad",
    "add_elastic_net_to_grad",
    "AutoL2State",
    "add_auto_l2_to_grad",
    "DecoupledWeightDecayState",
    "applied_weight_decay",
    "decoupled_weight_decay",
    "ProximalWeightDecayState",
    "proximal_weight_decay",
    "DecayMemoryState",
    "LazyDecayState",
    "caught_up",
    "lazy_decay",
    "informed_chain",
    "KeepNormState",
    "keep_norm",
    "RotationState",
    "scale_by_rotation",
    "cosine_warm_restarts",
    "scale_by_adam",
    "scale_by_amsgrad",
    "scale_by_schedule",
    "CompensatedRoundingState",
    "StochasticRoundingState",
    "compensated_rounding",
    "stochastic_rounding",
    "to_float32",
    "with_rounding",
    # Of what, and towards where
    "L1",
    "L2",
    "Penalty",
    "Tracking",
    "elastic_net",
    "explicit",
    "huber",
    "huber_tracking",
    "power",
    "MovingAverage",
    "moving_average",
    # Optimizers
    "adam_l2",
    "adamw",
    "adamwr",
    "amsgrad_l2",
    "amsgradw",
    "extend_with_decoupled_weight_decay",
    "lionw",
    "sgd_l2",
    "sgdw",
    "sgdwr",
    # What is decayed
    "DecayRow",
    "DecayTable",
    "describe_decay",
    # Several devices
    "optimizer_state_sharding",
    # Other libraries
    "convert",
    "like",
    # Modules
    "conventions",
    "diagnostics",
    "equivalence",
    "gates",
    "hyperparams",
    "masks",
    "migrate",
    "schedules",
    "strengths",
    "sweep",
]
