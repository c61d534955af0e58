"""Which leaves decay, and how strongly: one multiplier a leaf.

A mask is a tree of bools or numbers like the parameters, a prefix of such a tree, a function of the
parameters that gives one, or a record: rules by path (`by_path`, `by_layer`) or a preset (`matrices`,
`no_bias_norm_embedding`). True is 1, False is 0; a leaf with 0 never moves through decay.

Records are data and no functions, so `optax.inject_hyperparams` leaves them alone. Paths are joined with
slashes, as `decoupled_wd.describe_decay` prints them, and read the same on a dict, an NNX module, its
state, and an Equinox module: `encoder/layers_0/mlp/kernel`, `encoder/layers/0/mlp/weight`.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from decoupled_wd import _check, _tree
from decoupled_wd._typing import Mask, Number, Params

__all__ = [
    "Preset",
    "Rules",
    "by_path",
    "by_layer",
    "matrices",
    "no_bias_norm_embedding",
]


def _not_a_bool(record: Any) -> bool:
    """Optax takes a record for one bool for all leaves, and would decay them all in silence."""
    raise TypeError(
        f"`{record!r}` is used as a bool, as Optax uses the leaves of a mask. It is a record that the "
        "`mask` of this library reads: pass it to `dwd.adamw` or its kin, to "
        "`dwd.decoupled_weight_decay` in a chain, or to `dwd.extend_with_decoupled_weight_decay`."
    )


@dataclasses.dataclass(frozen=True)
class Preset:
    """What practitioners leave out of weight decay, as `matrices` and its like make it.

    Example:
        >>> import decoupled_wd as dwd
        >>> dwd.masks.matrices(stacked={"layers/.*": 1})
        masks.matrices(stacked={'layers/.*': 1})
        >>> dwd.masks.matrices(stacked={"layers/.*": 1}).stacked
        (('layers/.*', 1),)
    """

    name: Literal["matrices", "no_bias_norm_embedding"]
    stacked: int | tuple[tuple[str, int], ...]
    """Leading axes that stack layers: of every leaf, or by pattern, the first match winning."""

    __bool__ = _not_a_bool

    def __repr__(self) -> str:
        stacked = self.stacked if isinstance(self.stacked, int) else dict(self.stacked)
        return f"masks.{self.name}({f'stacked={stacked}' if stacked else ''})"


@dataclasses.dataclass(frozen=True)
class Rules:
    """Ordered rules from path to multiplier, as `by_path` makes them.

    Example:
        >>> import decoupled_wd as dwd
        >>> rules = dwd.masks.by_path({".*bias": 0.0, "head/.*": 0.5}, times=dwd.masks.matrices())
        >>> rules
        masks.by_path({'.*bias': 0.0, 'head/.*': 0.5}, times=masks.matrices())
        >>> rules.rules, rules.otherwise
        ((('.*bias', 0.0), ('head/.*', 0.5)), True)
    """

    rules: tuple[tuple[str, Any], ...]
    """Pairs of a pattern and a multiplier, or a tuple of them, one a layer."""
    otherwise: Any
    """Multiplier for what no rule reaches."""
    strict: bool
    times: Preset | None
    """What has the last word: 0 where it is off, whatever the rules say."""

    __bool__ = _not_a_bool

    def __repr__(self) -> str:
        given = f", otherwise={self.otherwise}" if self.otherwise is not True else ""
        given += ", strict=True" if self.strict else ""
        given += f", times={self.times}" if self.times is not None else ""
        return f"masks.by_path({dict(self.rules)}{given})"


def by_path(
    rules: Mapping[str, Number | Sequence[Number]],
    *,
    otherwise: Number | None = None,
    strict: bool = False,
    times: Preset | None = None,
) -> Rules:
    r"""Set the multiplier of each leaf by the first regular expression that matches its path.

    $$\lambda_{leaf} = m p \lambda, \quad m \text{ of the first rule that matches, } p \text{ of times}$$

    A pattern has to match the whole path (`re.fullmatch`): `".*bias"`, not `"bias"`. A rule that
    matches no path is an error where the mask meets the parameters, which lists the paths it may have
    meant; not where `optax.masked` or `optax.partition` took leaves away. A rule that matches, but never
    first, is legal. The multipliers have no unit: lambda keeps its own.

    Args:
        rules: pattern -> multiplier, in order: True, False, or a number (traced or not), 0 or more; or
            one number a layer, as in `by_layer`.
        otherwise: multiplier for leaves that no rule reaches; None is 1, they decay.
        strict: whether a leaf that no rule reaches is an error.
        times: a preset that multiplies what the rules say: its biases and norms stay at 0.

    Returns:
        A record for `mask`; it is hashable if its multipliers are.

    Raises:
        TypeError: `rules` is no mapping from strings, a multiplier no number, or `times` no preset.
        ValueError: a pattern is no regular expression, or has keys in brackets (`['head']`), a
            multiplier is negative, or both `otherwise` and `strict` are given. Where it meets the
            parameters: a rule that matches nothing, or in strict mode a leaf without a rule.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> layer = {"bias": jnp.ones(1), "kernel": jnp.ones((1, 2))}
        >>> params = {"body": layer, "head": layer}  # body/bias, body/kernel, head/bias, head/kernel
        >>> mask = dwd.masks.by_path({".*bias": False, "head/.*": 0.5})
        >>> mask
        masks.by_path({'.*bias': False, 'head/.*': 0.5})
        >>> [row.multiplier for row in dwd.describe_decay(params, mask)]
        [0.0, 1.0, 0.0, 0.5]
        >>> mask = dwd.masks.by_path({"head/.*": 0.5}, times=dwd.masks.matrices())
        >>> [row.multiplier for row in dwd.describe_decay(params, mask)]
        [0.0, 1.0, 0.0, 0.5]
    """
    if not isinstance(rules, Mapping):
        raise TypeError(
            f"`rules` is {rules!r}, and a mapping from patterns to multipliers is needed, such as "
            "{'.*bias': False}."
        )
    _check.check_bool("strict", strict)
    if otherwise is not None and strict:
        raise ValueError(
            f"`otherwise` is {otherwise!r} and `strict` is True, which makes an error of every leaf "
            "that `otherwise` is for: pass one of them."
        )
    if isinstance(otherwise, Preset):
        raise TypeError(
            f"`otherwise` is the preset {otherwise}, and a number is needed. A preset multiplies the "
            f"rules, and has the last word: times={otherwise}. To decay what it leaves out, write a "
            "mask that is a function of the parameters."
        )
    if otherwise is not None:
        _check_multiplier("otherwise", otherwise)
    _check_called("times", times)
    if not (times is None or isinstance(times, Preset)):
        raise TypeError(f"`times` is {times!r}, and a preset is needed, such as masks.matrices().")
    pairs = tuple((pattern, _checked(pattern, value)) for pattern, value in rules.items())
    return Rules(pairs, True if otherwise is None else otherwise, strict, times)


def by_layer(
    pattern: str,
    multipliers: Sequence[Number],
    *,
    otherwise: Number | None = None,
    times: Preset | None = None,
) -> Rules:
    r"""Set one multiplier a layer, by the number of the layer in the path.

    $$\lambda_{leaf} = m_i p \lambda, \quad i \text{ the layer, } p \text{ of times}$$

    The pattern matches the whole path, and its one group the number, counted from 0. The multipliers
    have no unit: lambda keeps its own. Layers that a scan or vmap stacks in one array have no number
    in their path, and one multiplier for all of them: `by_path`.

    Args:
        pattern: a regular expression with one group, such as `r"layers_(\d+)/.*"`.
        multipliers: one a layer: True, False, or a number, 0 or more.
        otherwise: multiplier for all other leaves; None is 1, they decay.
        times: a preset that multiplies both: its biases and norms stay at 0, in the layers, too.

    Returns:
        A record for `mask`.

    Raises:
        TypeError: a multiplier is no number, `multipliers` no sequence, or `times` no preset.
        ValueError: the pattern is no regular expression with one group. Where it meets the parameters:
            there are more or fewer layers than multipliers.

    Example:
        Half the decay for every layer further from the top:

        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> mask = dwd.masks.by_layer(r"layers_(\d+)/.*", [0.5 ** (2 - layer) for layer in range(3)])
        >>> params = {f"layers_{layer}": {"kernel": jnp.ones(2)} for layer in range(3)}
        >>> [row.multiplier for row in dwd.describe_decay(params, mask)]
        [0.25, 0.5, 1.0]
    """
    if not _is_sequence(multipliers):
        raise TypeError(
            f"`multipliers` is {multipliers!r}, and a sequence is needed: one number for every layer."
        )
    return by_path({pattern: multipliers}, otherwise=otherwise, times=times)


def matrices(*, stacked: int | Mapping[str, int] = 0) -> Preset:
    r"""Decay matrices, tables and convolution kernels: no biases, no scales, nothing below rank 2.

    $$m = [\text{rank} - \text{stacked} \ge 2] \cdot [\text{name is not that of a bias or a norm}]$$

    Names decide with the rank, because a bias of several heads has rank 2, and so has every bias of
    layers that a scan or vmap stacks in one array. Off by name: last names like `bias`, `b`, `bq`,
    `offset`, `scale`, `gamma`, `attn_norm`; `weight`, `w` or `g` in a layer called `norm`, `ln_1` and
    the like. Without `stacked`, a stacked vector of another name, such as `A_log`, counts as a matrix;
    `decoupled_wd.describe_decay` lists those. The multiplier has no unit.

    Args:
        stacked: number of leading axes that stack layers and do not count for the rank: of every leaf,
            or pattern -> number for the leaves whose whole path it matches (`{"layers/.*": 1}`).

    Returns:
        A record for `mask`, or for `times` of `by_path` and `by_layer`.

    Raises:
        TypeError: `stacked` is neither an integer nor a mapping to integers.
        ValueError: a pattern is no regular expression, or a number negative. Where it meets the
            parameters: a pattern matches nothing, or a leaf has fewer axes than `stacked` says.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> bias, kernel = jnp.ones((12, 8)), jnp.ones((12, 8, 8))  # of 12 layers
        >>> params = {"A_log": bias, "bias": bias, "kernel": kernel}
        >>> [row.multiplier for row in dwd.describe_decay(params, dwd.masks.matrices())]
        [1.0, 0.0, 1.0]
        >>> [row.multiplier for row in dwd.describe_decay(params, dwd.masks.matrices(stacked=1))]
        [0.0, 0.0, 1.0]
    """
    return Preset("matrices", _checked_stacked(stacked))


def no_bias_norm_embedding(*, stacked: int | Mapping[str, int] = 0) -> Preset:
    r"""Decay as `matrices` does, but no embedding tables.

    $$m = m_{\text{matrices}} \cdot [\text{name is not that of an embedding}]$$

    Off by name in addition: last names like `embedding`, `embeddings`, `pos_embed`, `wte`, `cls_token`;
    `weight` or `w` in a layer called `embed`, `token_embedding`, `wpe` and the like, as Equinox has them
    (a `patch_embed` is a convolution, an `unembed` a head, and both decay). The multiplier has no unit.

    Args:
        stacked: leading axes that stack layers, as in `matrices`.

    Returns:
        A record for `mask`, or for `times` of `by_path` and `by_layer`.

    Raises:
        TypeError: `stacked` is neither an integer nor a mapping to integers.
        ValueError: as in `matrices`.

    Example:
        >>> import jax.numpy as jnp
        >>> import decoupled_wd as dwd
        >>> params = {"embed": {"embedding": jnp.ones((9, 2))}, "head": {"kernel": jnp.ones((2, 9))}}
        >>> [row.multiplier for row in dwd.describe_decay(params, dwd.masks.no_bias_norm_embedding())]
        [0.0, 1.0]
    """
    return Preset("no_bias_norm_embedding", _checked_stacked(stacked))


def check_mask(mask: Mask) -> None:
    """Refuse what is no mask: a preset's function, and a bare scalar.

    `optax.inject_hyperparams` makes one of a mask that is a function.
    """
    _check_called("mask", mask)
    if isinstance(mask, (bool, int, float, np.generic, np.ndarray, jax.Array)):
        raise TypeError(
            f"`mask` is the bare scalar {mask!r}, and a tree, a prefix of one, rules, or a function of "
            "the parameters is needed. To decay every leaf pass mask=None. Under "
            "`optax.inject_hyperparams`, which calls every callable on the step count, pass rules "
            "(`masks.by_path`) or the tree that your function gives, or name it in `static_args='mask'`."
        )


def multipliers(mask: Mask, params: Params) -> Any:
    """Spread `mask` over `params`: a tree with one multiplier a leaf.

    Raises:
        ValueError: the mask does not fit the parameters, or leaves nothing of them to decay.
        TypeError: a leaf of the mask is neither a bool nor a number.
    """
    if not jax.tree.leaves(params):
        tree = True
    elif isinstance(mask, (Rules, Preset)):
        tree = _resolved(mask, params)
    else:
        # An Equinox module is callable too, and as a mask it is a tree.
        function = callable(mask) and jax.tree_util.all_leaves([mask])
        tree = _call(mask, params) if function else mask
        if not (function and jax.tree_util.all_leaves([params])):  # One array has one multiplier.
            check_mask(tree)
    try:
        spread = jax.tree.broadcast(tree, params, is_leaf=_tree.is_absent)
    except ValueError:
        raise ValueError(
            "`mask` must be a tree like the parameters, or a prefix of one, and it is not: it "
            f"{_tree.difference(tree, 'params', params)}."
        ) from None
    keyed = jax.tree_util.tree_leaves_with_path(params, is_leaf=_tree.is_absent)
    leaves = jax.tree.leaves(spread, is_leaf=_tree.is_absent)
    for (path, parameter), leaf in zip(keyed, leaves, strict=True):
        if not (isinstance(leaf, bool) or _tree.is_absent(parameter)):
            _check_multiplier("mask", leaf, at=_tree.place(_tree.path_name(path)))
    return spread


def check_decays_something(mask: Mask, params: Params) -> None:
    """Refuse a mask that is zero on every leaf there is.

    A tree that `optax.masked` or `optax.partition` took leaves from is exempt, and so is an empty
    one: there the mask may well have nothing left to do.
    """
    if mask is None:
        return
    keyed = jax.tree_util.tree_leaves_with_path(params)
    nodes = jax.tree.leaves(params, is_leaf=_tree.is_absent)
    if not keyed or any(isinstance(node, optax.MaskedNode) for node in nodes):
        return
    if all(is_zero(leaf) for leaf in jax.tree.leaves(multipliers(mask, params))):
        paths = [_tree.path_name(path) for path, _ in keyed]
        raise ValueError(
            "`mask` leaves nothing to decay: it is False or 0 for every leaf "
            f"({_tree.listed(paths)}). Mark the leaves to decay with True, or take the decay out of "
            "the chain."
        )


def is_zero(multiplier: Any) -> bool:
    """Whether a multiplier is known to be 0."""
    return _check.concrete(multiplier) == 0


def _call(mask: Any, params: Params) -> Any:
    try:
        return mask(params)
    except Exception as error:
        raise TypeError(
            f"`mask` is a function that raised {type(error).__name__} ({error}). It is called once, "
            "with the whole tree of parameters, and gives a tree. Pass, for example, "
            "mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)."
        ) from error


def _check_multiplier(name: str, value: Any, *, at: str = "") -> None:
    if isinstance(value, (bool, np.bool_)):
        return
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim == 0 and value.dtype == bool:
        return
    _check.check_number(
        name,
        value,
        at=at,
        minimum=0.0,
        hint="Each leaf of a mask is True, False or one number that multiplies the decay.",
    )


# Records: checked when they are made


def _check_called(name: str, value: Any) -> None:
    if value is matrices or value is no_bias_norm_embedding:
        raise TypeError(
            f"`{name}` is the function `masks.{value.__name__}`, and what it returns is needed. Call "
            f"it: masks.{value.__name__}()."
        )


def _is_sequence(value: Any) -> bool:
    vector = isinstance(value, (np.ndarray, jax.Array)) and value.ndim == 1
    return vector or (isinstance(value, Sequence) and not isinstance(value, str))


def _compiled(name: str, pattern: Any) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise TypeError(f"`{name}` holds the pattern {pattern!r}, and a string is needed.")
    # As an expression a quoted key is a class of characters, and may match what nobody meant.
    if re.search(r"""\[(['"]).*?\1\]""", pattern):
        raise ValueError(
            f"`{name}` holds the pattern {pattern!r}, with keys in brackets, and paths are names joined "
            f"with slashes: write {_slashed(pattern)!r}."
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        where = "" if error.pos is None else f" at its character {error.pos}"
        raise ValueError(
            f"`{name}` holds the pattern {pattern!r}, which is no regular expression: "
            f"{error.msg}{where}. `re.escape` quotes what is meant literally."
        ) from None


def _slashed(pattern: str) -> str:
    """A path as `jax.tree_util.keystr` writes it, `['head'].kernel`, with slashes."""
    key = r"""\[(?:(['"])(.*?)\1|(\d+))\]|\.([A-Za-z_]\w*)"""
    return re.sub(key, r"/\2\3\4", pattern).strip("/").removesuffix("/value")


def _checked(pattern: Any, value: Any) -> Any:
    """The multiplier of a rule, as a tuple if it is one a layer."""
    compiled = _compiled("rules", pattern)
    if not _is_sequence(value):
        _check_multiplier("rules", value, at=f" at {pattern!r}")
        return value
    if compiled.groups != 1:
        raise ValueError(
            f"`rules` at {pattern!r} has one multiplier a layer, and its pattern {compiled.groups} "
            r"groups: one is needed, where the number of the layer stands, as in r'layers_(\d+)/.*'. "
            "Layers that are stacked in one array have no number there: give them one multiplier."
        )
    for index, multiplier in enumerate(value):
        _check_multiplier("rules", multiplier, at=f" at {pattern!r}, layer {index},")
    return tuple(value)


def _checked_stacked(stacked: Any) -> int | tuple[tuple[str, int], ...]:
    if not isinstance(stacked, Mapping):
        _check.check_integer("stacked", stacked, minimum=0)
        return int(stacked)
    for pattern, axes in stacked.items():
        _compiled("stacked", pattern)
        _check.check_integer("stacked", axes, minimum=0)
    return tuple((pattern, int(axes)) for pattern, axes in stacked.items())


# Records: resolved where they meet the parameters


def _resolved(mask: Rules | Preset, params: Params) -> Any:
    """A multiplier for every leaf of the parameters, False where nothing can decay, as a prefix."""
    keyed, treedef = _tree.flatten_arrays(params)
    leaves = [(_tree.path_name(path), leaf) for path, leaf in keyed]
    paths = [path for path, _ in leaves]
    whole = not any(isinstance(leaf, optax.MaskedNode) for _, leaf in leaves)
    rules = mask if isinstance(mask, Rules) else Rules((), True, strict=False, times=mask)
    if whole:
        _check_matches(rules, paths)
    found = [_first_match(rules, path) for path in paths]
    missed = [
        path
        for (path, leaf), match in zip(leaves, found, strict=True)
        if match is None and _tree.is_inexact(leaf)
    ]
    if rules.strict and missed:
        raise ValueError(
            f"`mask` is strict, and none of its rules reaches {_tree.listed(missed)}. Add a rule for "
            "each, or '.*' as the last one."
        )
    return treedef.unflatten(
        _tree.is_inexact(leaf)
        and (rules.times is None or _decays(rules.times, path, leaf))
        and (match[0] if match else rules.otherwise)
        for (path, leaf), match in zip(leaves, found, strict=True)
    )


def _first_match(rules: Rules, path: str) -> tuple[Any] | None:
    """The multiplier of the first rule that matches, in a tuple of its own."""
    for pattern, value in rules.rules:
        match = re.fullmatch(pattern, path)
        if match:
            return (value[_layer(match, value)] if isinstance(value, tuple) else value,)
    return None


def _layer(match: re.Match[str], multipliers: tuple[Any, ...]) -> int:
    number = match[1]
    if number is None or not number.isdecimal():
        raise ValueError(
            f"`mask` has the rule {match.re.pattern!r}, whose group matches {number!r} in "
            rf"{match.string!r}, and the number of a layer is needed: write (\d+) there."
        )
    if int(number) >= len(multipliers):
        raise ValueError(
            f"`mask` has the rule {match.re.pattern!r} with {len(multipliers)} multipliers, and "
            f"{match.string!r} is of layer {number}, counted from 0. Pass a multiplier for every layer."
        )
    return int(number)


def _check_matches(rules: Rules, paths: list[str]) -> None:
    """Require that every pattern matches, and every multiplier of a layer has its layer."""
    stacked = () if rules.times is None else rules.times.stacked
    for pattern, value in (*rules.rules, *(() if isinstance(stacked, int) else stacked)):
        matches = [match for path in paths if (match := re.fullmatch(pattern, path))]
        if not matches:
            what = "a multiplier" if (pattern, value) in rules.rules else "`stacked` axes"
            raise ValueError(
                f"`mask` has {what} for {pattern!r}, which matches the whole of no path. "
                f"{_near_misses(pattern, paths)}"
            )
        if isinstance(value, tuple):
            layers = {_layer(match, value) for match in matches}
            absent = sorted(set(range(len(value))) - layers)
            if absent:
                raise ValueError(
                    f"`mask` has {len(value)} multipliers for {pattern!r}, and there is no layer "
                    f"{', '.join(map(str, absent))}, counted from 0. Pass one for each of the "
                    f"{len(layers)} layers."
                )


def _near_misses(pattern: str, paths: list[str]) -> str:
    """What a pattern that matches nothing may have meant."""
    if not pattern:
        return f"It is the path of a bare array, and the paths are {_tree.listed(paths)}."
    below = [path.removeprefix("params/") for path in paths if path.startswith("params/")]
    wider = _widened(pattern, below)
    if wider:
        return (
            "The tree has the level 'params' of Flax's variables: pass what is below it, "
            f"variables['params'], with the pattern {wider!r}, or write {f'params/{wider}'!r}."
        )
    parts = [path for path in paths if re.search(pattern, path)]
    if parts:
        wider = _widened(pattern, paths)
        return f"It matches a part of {_tree.listed(parts)}{f': write {wider!r}' if wider else ''}."
    # A word may be spelt wrongly at the end of a long path, so that every end of each is compared.
    literal = re.sub(r"\\.|[^\w/]", "", pattern).strip("/")
    ends = {}
    for path in reversed(paths):
        names = path.split("/")
        ends |= {"/".join(names[start:]): path for start in range(len(names))}
    near = list(dict.fromkeys(ends[x] for x in difflib.get_close_matches(literal, ends, n=4)))
    return f"{'The nearest paths' if near else 'The paths'} are {_tree.listed(near or paths)}."


def _widened(pattern: str, paths: list[str]) -> str:
    """A pattern for the whole of the paths that this one matches a part of; empty if there is none.

    Where it matches names in full, these alone count: 'head' means 'head/kernel', not 'overhead/kernel'.
    """
    names = f"(?<![^/])(?:{pattern})(?![^/])"
    try:
        if any(re.fullmatch(pattern, path) for path in paths):
            return pattern
        full = [match for path in paths if (match := re.search(names, path))]
        found = full or [match for path in paths if (match := re.search(pattern, path))]
        # The one group of a rule for layers is that of their number.
        group = "(?:" if re.compile(pattern).groups else "("
        before = _rest({match.start() > 0 for match in found}, ".*/" if full else ".*", group)
        after = _rest(
            {match.end() < len(match.string) for match in found}, "/.*" if full else ".*", group
        )
        inner = pattern.removeprefix("^").removesuffix("$")
        wider = f"{before}{f'{group}{inner})' if '|' in inner else inner}{after}"
        return wider if any(re.fullmatch(wider, path) for path in paths) else ""
    except re.error:  # Flags stand at the start of an expression alone.
        return ""


def _rest(there: set[bool], rest: str, group: str) -> str:
    """What matches the rest of paths on one side, which may be there in all, in some or in none."""
    if True not in there:
        return ""
    return f"{group}{rest})?" if False in there and rest != ".*" else rest


# A leaf's last name, or a layer's and a leaf's. Each stands for what is named so in Flax linen, NNX,
# Equinox, Haiku, or in the nested dicts of transformers written by hand. Case counts for `b` alone:
# `B` is a matrix of state spaces and of LoRA.
_SUFFIX = r"_?\d*d?(_(?!\w*(proj|linear|dense|kernel|matrix))\w*)?"
_BIAS = (
    r"(?-i:b([a-z]|_?\d+|qkv|kv|ih|hh|in|out|up|down|gate|_\w+)?)|"
    r"(\w*_)?(fc|ffn?|mlp|attn|conv|dense|linear|proj|qkv|head|hidden|in|out|up|down)\d*_b|"
    rf"betas?_?\d*|offsets?|shifts?|(\w*_)?bias(es)?{_SUFFIX}"
)
_NORM_LAYER = rf"(\w*norm(ali[sz]ation)?|(\w*_)?(ln|bn|gn|rms)|lnf){_SUFFIX}"
_NORM = (
    rf"(?!\w*_w$)(\w*scales?|(\w*_)?(gammas?|gains?)){_SUFFIX}|lambda_?\d*|"
    rf"(layer_?scale|ls){_SUFFIX}(/(weight|w))?|"
    rf"({_NORM_LAYER}|\w*norms/\d+)(/(weight|w|g))?"
)
_EMBEDDING = (
    r"(?!\w*(patch|unemb))\w*emb(ed|edding)?s?(_table)?|pos(itional)?_enc(oding)?s?|"
    r"wte|wpe|cls|\w+_tokens?|"
    r"((?!\w*(patch|unemb))\w*emb(ed|edder|edding)?s?(_?\d+|_in|_tokens?|_pos\w*)?|wte|wpe)/(weight|w)"
)
_MATRIX = (
    r"\w*(kernels?|weights?|matrix|proj|dense|linear)|weight_\w+|w\w{0,3}(_\w*)?|\w+_w|lora_[ab]|"
    rf"[qkvo]|qkv|kv|query|key|router|fc_?\d*|(\w*_)?head|\w*embed(ding)?s?|{_EMBEDDING}"
)


def _named(names: str) -> re.Pattern[str]:
    return re.compile(f"(.*/)?({names})", re.IGNORECASE)


_OFF = {
    "matrices": _named(f"{_BIAS}|{_NORM}"),
    "no_bias_norm_embedding": _named(f"{_BIAS}|{_NORM}|{_EMBEDDING}"),
}
_ON = _named(_MATRIX)


def _name(path: str) -> str:
    # Flax linen boxes a parameter that has a partitioning, and the box has a level of its own.
    return path.removesuffix("/value")


def _decays(preset: Preset, path: str, leaf: Any) -> bool:
    axes, rank = _stacked_axes(preset, path) or 0, jnp.ndim(leaf)
    if axes > rank:
        raise ValueError(
            f"`stacked` says that layers are stacked along {axes} axes{_tree.place(path)}, which has "
            f"{rank}. Pass pattern -> number of axes for the leaves that are stacked."
        )
    return rank - axes >= 2 and not _OFF[preset.name].fullmatch(_name(path))


def _stacked_axes(preset: Preset, path: str) -> int | None:
    """The axes that stack a leaf, None if nothing is said of it."""
    if isinstance(preset.stacked, int):
        return preset.stacked or None
    return next((n for pattern, n in preset.stacked if re.fullmatch(pattern, path)), None)


def decided_by_rank(mask: Mask, params: Params) -> list[str]:
    """The leaves that decay by a preset, of which neither a name nor `stacked` says that they should.

    A name such as `weight` says nothing beside a bias of the same shape: those are of a norm.
    """
    preset = mask.times if isinstance(mask, Rules) else mask
    if not isinstance(preset, Preset):
        return []
    keyed, _ = _tree.flatten_arrays(params)
    leaves = {_tree.path_name(path): leaf for path, leaf in keyed if _tree.is_inexact(leaf)}
    sites = {
        path: (_name(path).rpartition("/")[0], jnp.shape(leaf)) for path, leaf in leaves.items()
    }
    on = [path for path, leaf in leaves.items() if _decays(preset, path, leaf)]
    vectors = {site for path, site in sites.items() if path not in on}
    return [
        path
        for path in on
        if path  # A bare array is no layer among others.
        and _stacked_axes(preset, path) is None
        and (not _ON.fullmatch(_name(path)) or sites[path] in vectors)
    ]
