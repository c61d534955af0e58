r"""Moving the state of an optimizer: from Optax, PyTorch or Keras to this library, and back.

Each way is two steps with a plain record between them, `Moments`: how many updates were made, and the
moments as arrays by the path of their parameter. A reader makes it of a state, a writer puts it into
a fresh one, and training continues as if nothing had happened:

    moments = migrate.from_pytorch(optimizer.state_dict(), model.named_parameters())
    moments = migrate.rearrange(moments, to_flax)  # what renamed and transposed the weights
    state = migrate.to_optax(moments, tx.init(params))

| from | to | the optimizer that continues it |
|---|---|---|
| `optax.adamw`, `optax.lion` | `to_optax` | `adamw`, `lionw`, both with `coupling="learning_rate"` |
| `optax.amsgrad` | `to_optax` | `amsgrad_l2` or `amsgradw`, `variant="optax"` |
| `optax.sgd` | `to_optax` | `sgd_l2` or `sgdw`, `learning_rate_in_buffer=False` |
| PyTorch's AdamW, Adam, SGD | `to_pytorch` | `adamw`, `adam_l2`, `sgd_l2`, as above |
| ... with `amsgrad=True` | `to_pytorch` | `amsgradw`, `amsgrad_l2`, `variant="pytorch"` |
| Keras' Adam and AdamW | `to_keras` | `adamw`, `eps_placement="before"` |
| ... with `amsgrad=True` | `to_keras` | `amsgradw`, `variant="keras"` |
| Keras' SGD, Lion | `to_keras` | `sgdw`, `learning_rate_in_buffer=True`; `lionw` |

Neither PyTorch nor Keras is imported. What belongs to no moment does not move: the learning rate, its
scheduler and all other settings are those of the optimizer that is written to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd import _check, _moments, _tree
from decoupled_wd._typing import Number

__all__ = [
    "Moments",
    "from_optax",
    "to_optax",
    "from_pytorch",
    "to_pytorch",
    "from_keras",
    "to_keras",
    "rearrange",
    "from_debiased",
    "to_debiased",
]

_STATES_WITH_MOMENTS = (
    "ScaleByAdamState",
    "ScaleByAmsgradState",
    "ScaleByLionState",
    "TraceState",
    "CountedTraceState",
)
_COUNTERS = {
    **dict.fromkeys(_STATES_WITH_MOMENTS[:3], "count"),
    "ScaleByScheduleState": "count",
    "WrappedScheduleState": "count",
    "WeightDecaySchedule": "count",
    "InjectHyperparamsState": "count",
    "InjectStatefulHyperparamsState": "count",
    "AddNoiseState": "count",
    "ConditionallyTransformState": "step",
    "ConditionallyMaskState": "step",
    "MultiStepsState": "gradient_step",
    "AddL2ToGradState": "count",
    "AddPenaltyToGradState": "count",
    "AutoL2State": "count",
    "DecayMemoryState": "count",
    "DecoupledWeightDecayState": "count",
    "ProximalWeightDecayState": "count",
    "RotationState": "count",
    "LazyDecayState": "count",
    "CountedTraceState": "count",
    "StochasticRoundingState": "count",
}
"""The fields that count updates. Not every `count` does: an average's of its own values, for one."""
_SETTINGS = ("hyperparams", "weight_decay")
"""Fields that an update sets anew from the optimizer's settings."""
_PYTORCH = {
    "exp_avg": "mu",
    "exp_avg_sq": "nu",
    "max_exp_avg_sq": "nu_max",
    "momentum_buffer": "trace",
}
_KERAS = {
    "Adam": {"momentum": "mu", "velocity": "nu", "velocity_hat": "nu_max"},
    "Lion": {"momentum": "mu"},
    "SGD": {"momentum": "trace"},
}


class Moments(NamedTuple):
    """What an optimizer remembers, free of any library's form.

    The moments are dictionaries from a parameter's path to an array of its shape; a tree like the
    parameters will do as well. None is a moment that the optimizer does not have.

    Example:
        PyTorch's SGD does not count its steps, and schedules here go on from a count:

        >>> import numpy as np
        >>> from decoupled_wd import migrate
        >>> moments = migrate.Moments(trace={"fc.weight": np.array([2.0])})
        >>> moments = moments._replace(count=7)
        >>> moments.count, moments.mu
        (7, None)
    """

    count: Any = None
    """Updates made so far, an integer; None if unknown: the SGD of PyTorch and Optax count nothing."""
    mu: Any = None
    """First moment as it is averaged, before bias correction."""
    nu: Any = None
    """Second moment as it is averaged, before bias correction."""
    nu_max: Any = None
    """Largest second moment so far, in the unit of its writer: PyTorch and Keras keep that of `nu`,
    Optax that of the bias-corrected one. No number turns the one into the other."""
    trace: Any = None
    """Buffer of SGD with momentum, which descent subtracts. From PyTorch and Optax it is a sum of
    gradients; from Keras and from `sgdw` and `sgd_l2` as they are by default, of gradients times
    learning rates. While the learning rate is constant, multiplying by it turns the one into the
    other."""


_FIELDS = Moments._fields[1:]

# Optax


def from_optax(state: Any) -> Moments:
    r"""Read the moments from the state of an optimizer of Optax or of this library.

    $$\text{state} \mapsto (t, m, v, \ldots)$$

    Args:
        state: of any chain or wrapper that holds Optax's states of Adam, AMSGrad, Lion or momentum:
            also of `inject_hyperparams`, `masked` and `partition`, whose parts come together.

    Returns:
        `Moments` of the state's own arrays, by path as `masks` writes them.

    Raises:
        ValueError: no moments, a moment twice, counters that differ, or something else that the
            optimizer remembers and that would be lost, such as the gradients that `MultiSteps` has
            gathered: pass the part of the state that holds the moments, `state.inner_opt_state`.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from decoupled_wd import migrate
        >>> params = {"w": jnp.array(1.0)}
        >>> tx = optax.adamw(0.1, b1=0.75)
        >>> _, state = tx.update({"w": jnp.array(8.0)}, tx.init(params), params)
        >>> moments = migrate.from_optax(state)
        >>> int(moments.count), float(moments.mu["w"])  # 1/4 of the gradient
        (1, 2.0)
    """
    counts, lost = {}, []
    found: dict[str, dict[str, Any]] = {field: {} for field in _FIELDS}

    def read(owner: str, path: tuple[Any, ...], leaf: Any) -> Any:
        field, at = _field(path), _tree.path_name(path[1:])
        if _tree.is_absent(leaf) or field in _SETTINGS:
            return leaf
        if _COUNTERS.get(owner) == field:
            counts[f"{owner}.{field}, number {len(counts)}"] = _array(leaf)
        elif owner not in _STATES_WITH_MOMENTS:
            lost.append(f"{owner}.{_tree.path_name(path)}")
        elif at in found[field]:
            raise _twice(field, at)
        else:
            found[field][at] = _array(leaf)
        return leaf

    _map_state(read, state)
    if not any(found.values()):
        raise ValueError(
            "`state` holds no moments of Adam, AMSGrad, Lion or momentum. Pass the state of such an "
            "optimizer; in Flax, `train_state.opt_state`."
        )
    if lost:
        raise ValueError(
            f"`state` holds {_tree.listed(lost)} beside the moments, which would be lost. Pass the "
            "part of it that holds the moments."
        )
    return Moments(_agreed("state", counts), **{k: v or None for k, v in found.items()})


def to_optax(moments: Moments, state: Any) -> Any:
    r"""Put moments into a fresh state of an optimizer of Optax or of this library.

    $$(t, m, v, \ldots) \mapsto \text{state}$$

    Every counter of updates is set to `moments.count`, so schedules continue. What else the state
    holds, an average of the weights for instance, stays as `init` made it, the decay that is there
    to be read included: the next update writes it.

    Args:
        moments: what a reader returned. Every moment must find a place, and every place a moment.
        state: what `tx.init(params)` returned.

    Returns:
        A state of the same tree, dtypes and shapes, which shares no buffer with `moments`. NumPy
        arrays come to the default device; `jax.device_put` takes the state elsewhere.

    Raises:
        TypeError: `moments` and `state` in each other's place, an optimizer in the place of its state,
            a count that is no integer.
        ValueError: a moment that is missing, is of another shape, or has no place in the state; no
            count where the state has a counter.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> from decoupled_wd import migrate
        >>> state = dwd.adamw(0.1).init({"w": jnp.array(1.0)})
        >>> moments = migrate.Moments(7, mu={"w": 2.0}, nu={"w": 4.0})
        >>> adam, (_, decay, _) = migrate.to_optax(moments, state)
        >>> int(adam.count), float(adam.mu["w"]), int(decay.count)
        (7, 2.0, 7)
    """
    if isinstance(state, Moments):
        raise TypeError(
            "`state` is the moments: pass `to_optax(moments, tx.init(params))`, in this order."
        )
    if isinstance(state, (optax.GradientTransformation, optax.MultiSteps)):
        raise TypeError(
            "`state` is an optimizer, and a state of it is needed: pass `tx.init(params)`."
        )
    given, placed = _given(moments), set()

    def fill(owner: str, path: tuple[Any, ...], leaf: Any) -> Any:
        if _tree.is_absent(leaf):
            return leaf
        field, at = _field(path), _tree.path_name(path[1:])
        if _COUNTERS.get(owner) == field:
            count = _count(moments)
            return jax.tree.map(lambda x: jnp.full(x.shape, count, x.dtype), leaf)
        if owner not in _STATES_WITH_MOMENTS:
            return leaf
        value = _take(given, field, at, _array(leaf).shape)
        if (field, at) in placed:
            raise _twice(field, at)
        placed.add((field, at))
        return jax.tree.map(lambda x: jnp.array(value, x.dtype), leaf)

    new = _map_state(fill, state)
    _check_all_placed(given, placed, "state")
    return new


def _twice(field: str, at: str) -> ValueError:
    return ValueError(
        f"`state` holds `{field}`{_tree.place(at)} twice, as of two optimizers in one chain. Pass the "
        "part of it that holds the one you mean."
    )


def _map_state(
    f: Callable[[str, tuple[Any, ...], Any], Any],
    node: Any,
    owner: str = "",
    path: tuple[Any, ...] = (),
) -> Any:
    """Apply `f(owner, path, leaf)` to the leaves of a state.

    `owner` is the class of the state that the leaf is in, and the path begins there. Inside moments
    no owner is looked for: parameters may be NamedTuples too.
    """
    if _tree.is_leaf(node) or jax.tree_util.all_leaves([node]):
        return f(owner, path, node)
    if owner not in _STATES_WITH_MOMENTS and hasattr(node, "_fields"):
        owner, path = type(node).__name__, ()
    children, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return treedef.unflatten(
        [_map_state(f, child, owner, (*path, *key)) for key, child in children]
    )


def _field(path: tuple[Any, ...]) -> str:
    return getattr(path[0], "name", "") if path else ""


def _array(leaf: Any) -> Any:
    """The array of a leaf, which NNX may have wrapped in a Variable."""
    return jax.tree.leaves(leaf)[0]


# PyTorch


def from_pytorch(
    state_dict: Any, names: Iterable[str] | Iterable[tuple[str, Any]] | None = None
) -> Moments:
    r"""Read the moments from the `state_dict()` of a PyTorch optimizer.

    $$\text{exp\_avg}, \text{exp\_avg\_sq}, \text{max\_exp\_avg\_sq}, \text{momentum\_buffer}
    \mapsto m, v, v_{max}, \text{trace}$$

    Args:
        state_dict: `optimizer.state_dict()`, of PyTorch's AdamW, Adam or SGD, or of another
            optimizer that keeps nothing but these; of tensors or arrays.
        names: of the parameters, or pairs of name and parameter, whose shapes are then compared with
            those of the moments: `model.named_parameters()`, where the optimizer got
            `model.parameters()`. With several parameter groups the order is that of the groups, not
            the model's, and a wrong one shows only where shapes differ. It is
            `[(of[p], p) for group in optimizer.param_groups for p in group["params"]]` with
            `of = {p: name for name, p in model.named_parameters()}`. None if the optimizer got
            names with its parameters and so holds them.

    Returns:
        `Moments` by these names, as NumPy arrays in PyTorch's layout; see `rearrange`. A parameter
        that never had a gradient is in none. The `count` of SGD, which keeps none, is None: give
        it with `moments._replace(count=...)`.

    Raises:
        TypeError: not a state dict, `names` of something else, complex moments (PyTorch averages the
            squares of both parts).
        ValueError: names that are missing or too many, a moment of another shape than its parameter,
            no moments, something beside them that would be lost, parameters that made different
            numbers of steps.

    Example:
        >>> from decoupled_wd import migrate
        >>> entry = {"step": 7.0, "exp_avg": 2.0, "exp_avg_sq": 4.0}
        >>> groups = [{"lr": 0.1, "params": [0]}]
        >>> migrate.from_pytorch({"state": {0: entry}, "param_groups": groups}, ["w"])
        Moments(count=7, mu={'w': array(2.)}, nu={'w': array(4.)}, nu_max=None, trace=None)
    """
    counts, found = {}, {field: {} for field in _FIELDS}
    for index, name, shape, group in _pytorch_parameters(state_dict, names):
        if "step" in group:  # optimi
            counts[name] = int(group["step"])
        for key, value in state_dict["state"].get(index, {}).items():
            if key == "step":
                counts[name] = int(value)
            elif key in _PYTORCH and value is not None:
                found[_PYTORCH[key]][name] = _numpy(key, name, shape, value)
            elif value is not None:
                raise ValueError(
                    f"`state_dict` holds {key!r} for {name!r}, which is no moment of Adam, AMSGrad or "
                    "momentum and would be lost. Take it out if the optimizer can do without it."
                )
    if not any(found.values()):
        raise ValueError("`state_dict` holds no moments: take it after a step of the optimizer.")
    return Moments(_agreed("state_dict", counts), **{k: v or None for k, v in found.items()})


def to_pytorch(
    moments: Moments,
    state_dict: Any,
    tensor: Callable[[np.ndarray], Any],
    names: Iterable[str] | Iterable[tuple[str, Any]] | None = None,
) -> dict[str, Any]:
    r"""Put moments into the `state_dict()` of a PyTorch optimizer: AdamW, Adam or SGD.

    $$m, v, v_{max}, \text{trace} \mapsto \text{exp\_avg}, \text{exp\_avg\_sq},
    \text{max\_exp\_avg\_sq}, \text{momentum\_buffer}$$

    A learning-rate scheduler counts for itself: make its `last_epoch` go on from `moments.count`.

    Args:
        moments: by PyTorch's names and in its layout; see `rearrange`.
        state_dict: `optimizer.state_dict()` of the fresh optimizer, whose settings stay.
        tensor: what makes a tensor of a NumPy array: `torch.tensor`.
        names: as in `from_pytorch`, in the order of the groups, which shapes cannot check here. With
            pairs a moment of another shape than its parameter is an error.

    Returns:
        A state dict for `optimizer.load_state_dict`. A parameter that is in no moment has no state
        in it, as in PyTorch before its first gradient.

    Raises:
        TypeError: not a state dict, `names` of something else, a count that is no integer.
        ValueError: names that are missing, too many, or unknown; a moment of another shape than its
            parameter; a parameter that has one moment and not the other; moments that the settings
            `amsgrad` and `momentum` do not ask for, or that they ask for and that are missing; no
            count; an optimizer of optimi.

    Example:
        >>> from decoupled_wd import migrate
        >>> fresh = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        >>> moments = migrate.Moments(7, mu={"w": 2.0}, nu={"w": 4.0})
        >>> migrate.to_pytorch(moments, fresh, tensor=float, names=["w"])["state"]
        {0: {'exp_avg': 2.0, 'exp_avg_sq': 4.0, 'step': 7.0}}
    """
    given, placed, new = _given(moments), set(), {}
    keys = {key: field for key, field in _PYTORCH.items() if field in given}
    known = {path for values in given.values() for path in values}
    for index, name, shape, group in _pytorch_parameters(state_dict, names):
        if "setup" in group:
            raise ValueError(
                "`state_dict` is of an optimizer of optimi, which counts from 0 again in its first step "
                "whatever it loaded. Pass that of a PyTorch optimizer."
            )
        for setting, field in {"amsgrad": "nu_max", "momentum": "trace"}.items():
            if setting in group and bool(group[setting]) != (field in given):
                raise ValueError(
                    f"`state_dict` is of an optimizer with {setting}={group[setting]}, and `moments` "
                    f"have {'a' if field in given else 'no'} `{field}`. Pass moments and settings "
                    "that belong together."
                )
        if name not in known:
            continue
        entry = {key: np.array(_take(given, field, name, shape)) for key, field in keys.items()}
        placed |= {(field, name) for field in keys.values()}
        if "mu" in given:
            entry["step"] = np.array(_count(moments), np.float32)
        new[index] = {key: tensor(value) for key, value in entry.items()}
    _check_all_placed(given, placed, "state_dict")
    return {**state_dict, "state": new}


def _pytorch_parameters(state_dict: Any, names: Any) -> list[tuple[int, str, Any, Any]]:
    """The index, the name, the shape if it is known and the group of each parameter."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        raise TypeError(
            f"`state_dict` is a {type(state_dict).__name__} without 'state' and 'param_groups'. Pass "
            "what `optimizer.state_dict()` of a PyTorch optimizer returned."
        )
    groups = state_dict["param_groups"]
    rows = [(index, group) for group in groups for index in group["params"]]
    if names is None:
        names = [name for group in groups for name in group.get("param_names", ())]
        if not names:
            raise ValueError(
                "`names` is None, and `state_dict` holds no names, as the optimizer got none with its "
                f"parameters. Pass `model.named_parameters()`{_ORDER}."
            )
    named = [_name_and_shape(entry) for entry in names]
    different = len(dict(named))
    if len(named) != len(rows) or different != len(rows):
        raise ValueError(
            f"`names` are {different} different ones, and the optimizer has {len(rows)} parameters. "
            f"Pass those of the optimizer's parameters, such as `model.named_parameters()`{_ORDER}."
        )
    return [(index, *entry, group) for (index, group), entry in zip(rows, named, strict=True)]


_ORDER = "; with several parameter groups, in the order of the groups"


def _name_and_shape(entry: Any) -> tuple[str, tuple[int, ...] | None]:
    if isinstance(entry, str):
        return entry, None
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
        return entry[0], tuple(np.shape(entry[1]))
    raise TypeError(
        f"`names` has a {type(entry).__name__}, and names or pairs of name and parameter are needed. "
        f"Pass `model.named_parameters()`{_ORDER}."
    )


def _copied(value: Any) -> np.ndarray:
    # In two steps: `np.array` asks for a copy in a way that neither library understands.
    return np.asarray(value).copy()


def _numpy(key: str, name: str, shape: tuple[int, ...] | None, value: Any) -> np.ndarray:
    """A tensor of any device as a NumPy array, bfloat16 as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    array = _copied(value)
    if np.iscomplexobj(array):
        raise TypeError(
            f"`state_dict` holds a complex {key!r} for {name!r}: PyTorch averages the squares of real "
            "and imaginary part apart, and Optax their sum, so there is no state to continue from."
        )
    if shape is not None and array.shape != shape:
        raise ValueError(
            f"`state_dict` holds {key!r} of shape {array.shape} for {name!r}, which is of shape {shape} "
            f"in `names`. Pass the parameters in the order in which the optimizer got them{_ORDER}."
        )
    return array


# Keras


def from_keras(optimizer: Any, weights: Sequence[Any]) -> Moments:
    r"""Read the moments from the variables of a Keras 3 optimizer: Adam, AdamW, SGD or Lion.

    $$\text{momentum}, \text{velocity}, \text{velocity\_hat} \mapsto m, v, v_{max}; \quad
    -\text{momentum} \mapsto \text{trace} \text{ for SGD}$$

    Args:
        optimizer: the optimizer; it must have been built.
        weights: `model.trainable_variables`, in any order.

    Returns:
        `Moments` by the `path` of the weights, as NumPy arrays; see `rearrange`. The `trace` of SGD
        has the learning rate inside and gets the sign of what descent subtracts.

    Raises:
        TypeError: an optimizer of another kind.
        ValueError: a variable that is no moment of these weights and would be lost, such as a
            gradient accumulator; weights whose names collide; an optimizer without moments.

    Example:
        >>> import numpy as np
        >>> from decoupled_wd import migrate
        >>> class Variable:  # What is read of Keras' own.
        ...     def __init__(self, path, value):
        ...         self.path, self.name, self.value = path, path, value
        ...     def __array__(self, dtype=None, copy=None):
        ...         return np.array(self.value)
        >>> class SGD:
        ...     variables = [Variable("iteration", 7), Variable("fc_kernel_momentum", [2.0])]
        >>> migrate.from_keras(SGD(), [Variable("fc/kernel", [1.0])])
        Moments(count=7, mu=None, nu=None, nu_max=None, trace={'fc/kernel': array([-2.])})
    """
    count, found = None, {field: {} for field in _FIELDS}
    for variable, slot in zip(optimizer.variables, _keras_slots(optimizer, weights), strict=True):
        if slot == "iteration":
            count = int(np.asarray(variable))
        elif slot != "learning_rate":
            field, path = slot
            found[field][path] = _keras_sign(field) * _copied(variable)
    return Moments(count, **{k: v or None for k, v in found.items()})


def to_keras(moments: Moments, optimizer: Any, weights: Sequence[Any]) -> list[np.ndarray]:
    r"""Lay moments out as the variables of a Keras 3 optimizer: Adam, AdamW, SGD or Lion.

    $$m, v, v_{max} \mapsto \text{momentum}, \text{velocity}, \text{velocity\_hat}; \quad
    \text{trace} \mapsto -\text{momentum} \text{ for SGD}$$

    Args:
        moments: by the `path` of the weights and in their layout; see `rearrange`. The `trace` is
            one with the learning rate inside.
        optimizer: the optimizer, after `optimizer.build(weights)`.
        weights: `model.trainable_variables`, in any order.

    Returns:
        A NumPy array for every one of `optimizer.variables`, in their order, to be given to
        `stateless_apply`, or to the `assign` of each. The learning rate is the optimizer's.

    Raises:
        TypeError: an optimizer of another kind, a count that is no integer.
        ValueError: as in `from_keras`; a moment that is missing, is of another shape, or has no
            variable; no count.

    Example:
        >>> from types import SimpleNamespace as Variable
        >>> from decoupled_wd import migrate
        >>> class SGD:
        ...     variables = [Variable(name="iteration", shape=(), dtype="int32"),
        ...                  Variable(name="w_momentum", shape=(), dtype="float32")]
        >>> moments = migrate.Moments(7, trace={"w": 2.0})
        >>> [float(x) for x in migrate.to_keras(moments, SGD(), [Variable(path="w")])]
        [7.0, -2.0]
    """
    given, placed, new = _given(moments), set(), []
    for variable, slot in zip(optimizer.variables, _keras_slots(optimizer, weights), strict=True):
        if slot == "iteration":
            new.append(np.array(_count(moments), variable.dtype))
        elif slot == "learning_rate":
            new.append(_copied(variable))
        else:
            field, path = slot
            value = np.array(_take(given, field, path, tuple(variable.shape)), variable.dtype)
            new.append(_keras_sign(field) * value)
            placed.add((field, path))
    _check_all_placed(given, placed, "optimizer")
    return new


def _keras_slots(optimizer: Any, weights: Sequence[Any]) -> list[Any]:
    """What each variable of an optimizer is: its name, or the field and path of a moment."""
    kinds = [kind.__name__ for kind in type(optimizer).__mro__ if kind.__name__ in _KERAS]
    if not kinds:
        raise TypeError(
            f"`optimizer` is a {type(optimizer).__name__}, and Keras' Adam, AdamW, SGD or Lion is "
            "needed. Of a LossScaleOptimizer pass the `inner_optimizer`."
        )
    slots: dict[str, Any] = {"iteration": "iteration", "learning_rate": "learning_rate"}
    for weight in weights:
        for suffix, field in _KERAS[kinds[0]].items():
            name = f"{weight.path.replace('/', '_')}_{suffix}"
            if name in slots:
                raise ValueError(
                    f"`weights` has two whose variable is {name!r}, and which is which cannot be "
                    "told. Name the layers differently."
                )
            slots[name] = (field, weight.path)
    names = [variable.name for variable in optimizer.variables]
    unknown = [name for name in names if name not in slots]
    if unknown:
        raise ValueError(
            f"`optimizer` has {_tree.listed(unknown)}, which are no moments of `weights` and would be "
            "lost. Pass all of `model.trainable_variables`; of what else it has it must be rid first."
        )
    if not any(isinstance(slots[name], tuple) for name in names):
        raise ValueError(
            "`optimizer` has no moments. Call `optimizer.build(model.trainable_variables)` first."
        )
    return [slots[name] for name in names]


def _keras_sign(field: str) -> int:
    """Keras adds the buffer of SGD to the weights."""
    return -1 if field == "trace" else 1


# Between


def rearrange(moments: Moments, convert: Callable[[dict[str, Any]], Any]) -> Moments:
    r"""Rename and transpose moments as their parameters were.

    $$m \mapsto f(m), \quad v \mapsto f(v), \quad \ldots$$

    Args:
        moments: what a reader returned.
        convert: the function that carried the weights over: from a dictionary of arrays by name to a
            tree like the new parameters, or a dictionary by their paths. It may rename, transpose,
            reshape, split and stack, and leave out. It must not calculate: `nu` holds squares.

    Returns:
        `Moments` by the new paths.

    Raises:
        ValueError: `convert` reads a name that the moments do not have, or gives a path twice.
        TypeError: `convert` gives something else than arrays.

    Example:
        A layer of PyTorch as Flax has it:

        >>> import numpy as np
        >>> from decoupled_wd import migrate
        >>> def to_flax(by_name):
        ...     return {"fc": {"kernel": by_name["fc.weight"].T}}
        >>> moments = migrate.Moments(7, trace={"fc.weight": np.array([[1.0, 2.0]])})
        >>> migrate.rearrange(moments, to_flax).trace["fc/kernel"].tolist()
        [[1.0], [2.0]]
    """
    new = {}
    for field, values in _given(moments).items():
        try:
            new[field] = _by_path(field, convert(dict(values)))
        except KeyError as error:
            raise ValueError(
                f"`convert` reads {error}, and `moments.{field}` has {_tree.listed([*values])} alone. "
                "A parameter that never had a gradient has no moments; add zeros for it."
            ) from None
    return moments._replace(**new)


def from_debiased(moments: Moments, b1: Number, b2: Number) -> Moments:
    r"""Undo the bias correction of moments that a library keeps corrected.

    $$m = (1 - b_1^t) \hat m, \quad v = (1 - b_2^t) \hat v$$

    That is so in optimi and MaxText's `adam_pax`; PyTorch, Optax and Keras keep them as averaged.

    Args:
        moments: with $\hat m$ and $\hat v$ as `mu` and `nu`, after `count` updates.
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).

    Returns:
        `Moments` with m and v; `nu_max` and `trace` stay as they are.

    Raises:
        TypeError: a beta that is no number, a count that is no integer.
        ValueError: a beta outside [0, 1), no count or a count of 0.

    Example:
        >>> from decoupled_wd import migrate
        >>> moments = migrate.Moments(1, mu={"w": 8.0}, nu={"w": 64.0})
        >>> moments = migrate.from_debiased(moments, b1=0.75, b2=0.5)
        >>> float(moments.mu["w"]), float(moments.nu["w"])
        (2.0, 32.0)

    Source: Kingma and Ba, "Adam", arXiv 1412.6980, section 3.
    """
    return _scaled(moments, *_corrections(moments, b1, b2))


def to_debiased(moments: Moments, b1: Number, b2: Number) -> Moments:
    r"""Correct the bias of moments, for a library that keeps them corrected.

    $$\hat m = \frac{m}{1 - b_1^t}, \quad \hat v = \frac{v}{1 - b_2^t}$$

    Args:
        moments: with m and v as `mu` and `nu`, after `count` updates.
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).

    Returns:
        `Moments` with $\hat m$ and $\hat v$; `nu_max` and `trace` stay as they are.

    Raises:
        TypeError: a beta that is no number, a count that is no integer.
        ValueError: a beta outside [0, 1), no count or a count of 0.

    Example:
        >>> from decoupled_wd import migrate
        >>> moments = migrate.Moments(1, mu={"w": 2.0}, nu={"w": 32.0})
        >>> moments = migrate.to_debiased(moments, b1=0.75, b2=0.5)
        >>> float(moments.mu["w"]), float(moments.nu["w"])
        (8.0, 64.0)

    Source: Kingma and Ba, "Adam", arXiv 1412.6980, section 3.
    """
    correction1, correction2 = _corrections(moments, b1, b2)
    return _scaled(moments, 1 / correction1, 1 / correction2)


def _corrections(moments: Moments, b1: Number, b2: Number) -> tuple[jax.Array, jax.Array]:
    _check.check_beta("b1", b1)
    _check.check_beta("b2", b2)
    count = _count(moments, minimum=1)
    return _moments.bias_correction(b1, count), _moments.bias_correction(b2, count)


def _scaled(moments: Moments, by1: jax.Array, by2: jax.Array) -> Moments:
    def scale(by: jax.Array, values: Any) -> Any:
        return jax.tree.map(lambda x: _tree.like(by, _tree.widen(x)) * _tree.widen(x), values)

    given = _given(moments)
    factors = {"mu": by1, "nu": by2}
    return moments._replace(**{k: scale(by, given[k]) for k, by in factors.items() if k in given})


def _check_moments(moments: Any) -> None:
    if not isinstance(moments, Moments):
        raise TypeError(
            f"`moments` is a {type(moments).__name__}, and `Moments` are needed: pass what a reader "
            "such as `from_optax` returned."
        )


def _count(moments: Moments, minimum: int = 0) -> Any:
    _check_moments(moments)
    if moments.count is None:
        raise ValueError(
            "`moments.count` is None, and the number of updates made so far is needed. Where the old "
            "state did not count, pass `moments._replace(count=...)`."
        )
    _check.check_integer("moments.count", moments.count, minimum=minimum)
    return _check.as_integer(moments.count)


def _agreed(name: str, counts: dict[str, Any]) -> Any:
    """The one number that all counters show; None without counters."""
    for key, x in counts.items():
        _check.check_integer(f"{name}: {key}", x, minimum=0)
    known = {key: int(x) for key, x in counts.items() if _check.concrete(x) is not None}
    if len(set(known.values())) > 1:
        raise ValueError(
            f"`{name}` counts differently in different places, {known}, and `Moments` have one count. "
            "Set the counters to the one that you mean."
        )
    return next(iter(counts.values()), None)


def _given(moments: Moments) -> dict[str, dict[str, Any]]:
    """The moments there are, by path."""
    _check_moments(moments)
    values = {field: getattr(moments, field) for field in _FIELDS}
    return {field: _by_path(field, x) for field, x in values.items() if x is not None}


def _by_path(field: str, tree: Any) -> dict[str, Any]:
    """A tree of arrays as a dictionary."""
    keyed, _ = _tree.flatten_arrays(tree)
    keyed = [(_tree.path_name(path), leaf) for path, leaf in keyed if not _tree.is_absent(leaf)]
    for path, leaf in keyed:
        if not _tree.is_array(leaf):
            raise TypeError(f"`{field}`{_tree.place(path)} is {leaf!r}, and an array is needed.")
    if len(dict(keyed)) < len(keyed):
        raise ValueError(f"`{field}` has two arrays of the same path. Rename one of them.")
    return {path: _array(leaf) for path, leaf in keyed}


def _take(
    given: dict[str, dict[str, Any]], field: str, path: str, shape: tuple[int, ...] | None = None
) -> Any:
    """The moment that a place asks for, of the shape that it has."""
    at = _tree.place(path)
    if field not in given:
        raise ValueError(
            f"`moments.{field}` is None, and the state has a place for it{at}. Pass the state of an "
            "optimizer that keeps the same moments."
        )
    if path not in given[field]:
        raise ValueError(
            f"`moments.{field}` has nothing{at}, where the state has a place for it; it has "
            f"{_tree.listed([*given[field]])}. Rename the moments with `rearrange`."
        )
    value = given[field][path]
    if shape is not None and np.shape(value) != shape:
        raise ValueError(
            f"`moments.{field}`{at} is of shape {np.shape(value)}, and {shape} is needed there. "
            "Transpose the moments as the weights, with `rearrange`. If they were read from PyTorch by "
            "`names`, with several parameter groups, give these in the order of the groups."
        )
    return value


def _check_all_placed(
    given: dict[str, dict[str, Any]], placed: set[tuple[str, str]], name: str
) -> None:
    for field, values in given.items():
        left = [path for path in values if (field, path) not in placed]
        if left:
            raise ValueError(
                f"`{name}` has no place for `moments.{field}` of {_tree.listed(left)}. Pass an "
                "optimizer that keeps it, or take out of the moments what may be forgotten."
            )
