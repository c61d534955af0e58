"""Masks that are data: rules by path, one multiplier a layer, and presets."""

import copy
import pickle
import re
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

import decoupled_wd as dwd
from decoupled_wd import masks
from tests.helpers import assert_close, public_transformations, run, small_params

MASKED = [tx for tx in public_transformations() if tx.takes("mask")]
each_masked = pytest.mark.parametrize("tx", MASKED, ids=str)

NO_BIAS = masks.by_path({".*bias": False})


def decay_of(mask, params):
    """What decay at rate 1/2 adds to updates of zero."""
    tx = dwd.decoupled_weight_decay(0.5, mask)
    return tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)[0]


def resolved(mask, params):
    """Path -> multiplier."""
    return {row.path: row.multiplier for row in dwd.describe_decay(params, mask)}


def off(mask, params):
    return {path for path, multiplier in resolved(mask, params).items() if multiplier == 0}


# Trees of every kind


class Layer(NamedTuple):
    bias: Any
    kernel: Any


class Net(NamedTuple):
    body: Any
    head: Any


class EqxLayer(eqx.Module):
    bias: Any
    kernel: Any

    def __call__(self, x):
        return self.kernel @ x + self.bias


class EqxNet(eqx.Module):
    body: Any
    head: Any

    def __call__(self, x):
        return self.head(self.body(x))


class NnxLayer(nnx.Module):
    def __init__(self, bias, kernel):
        self.bias, self.kernel = nnx.Param(bias), nnx.Param(kernel)


class NnxNet(nnx.Module):
    def __init__(self, body, head):
        self.body, self.head = body, head


def mapping(kind):
    return lambda *leaves: kind(
        {
            name: {"bias": bias, "kernel": kernel}
            for name, bias, kernel in zip(("body", "head"), leaves[::2], leaves[1::2], strict=True)
        }
    )


TREES = {
    "dict": mapping(dict),
    "FrozenDict": mapping(FrozenDict),
    "NamedTuple": lambda a, b, c, d: Net(Layer(a, b), Layer(c, d)),
    "Equinox": lambda a, b, c, d: EqxNet(EqxLayer(a, b), EqxLayer(c, d)),
    "NNX module": lambda a, b, c, d: NnxNet(NnxLayer(a, b), NnxLayer(c, d)),
    "NNX state": lambda a, b, c, d: nnx.state(NnxNet(NnxLayer(a, b), NnxLayer(c, d))),
    "pure NNX state": lambda a, b, c, d: nnx.as_pure(
        nnx.state(NnxNet(NnxLayer(a, b), NnxLayer(c, d)))
    ),
}
LEAVES = [jnp.arange(1.0, 4.0) + i for i in range(4)]


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_rules_read_the_same_on_every_kind_of_tree(make):
    mask = masks.by_path({"body/bias": False, "head/.*": 0.5}, otherwise=2)
    expected = make(*(0.5 * m * x for m, x in zip((0, 2, 0.5, 0.5), LEAVES, strict=True)))
    chex.assert_trees_all_equal(decay_of(mask, make(*LEAVES)), expected)


def test_lists_and_tuples_are_numbered():
    params = [{"bias": LEAVES[0]}, (LEAVES[1], LEAVES[2])]
    mask = masks.by_path({"0/bias": 0, "1/1": 0.5})
    assert resolved(mask, params) == {"0/bias": 0, "1/0": 1, "1/1": 0.5}


def test_the_path_of_a_bare_array_is_empty():
    chex.assert_trees_all_equal(decay_of(masks.by_path({"": 0.5}), LEAVES[0]), 0.25 * LEAVES[0])


def test_an_absent_leaf_is_matched_and_gets_nothing():
    params = EqxLayer(None, LEAVES[0])
    mask = masks.by_path({"bias": 0.25, "kernel": 0.5}, strict=False)
    decay = decay_of(mask, params)
    assert decay.bias is None
    chex.assert_trees_all_equal(decay.kernel, 0.25 * LEAVES[0])
    assert resolved(masks.by_path({"kernel": 0.5}, strict=True), params) == {"kernel": 0.5}


class NnxModel(nnx.Module):
    """Of modules that have a dtype, of their arithmetic, and one that has a shape besides."""

    def __init__(self):
        given = {"dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}
        self.embed = nnx.Embed(5, 4, **given)
        self.linear = nnx.Linear(4, 4, **given)
        self.norm = nnx.LayerNorm(4, **given)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, **given)
        self.gain = NnxGain()


class NnxGain(nnx.Module):
    def __init__(self):
        self.shape, self.dtype = (2,), jnp.dtype("float32")
        self.scale = nnx.Param(jnp.ones(self.shape))


NNX_LEAVES = {
    "embed/embedding", "linear/bias", "linear/kernel", "norm/bias", "norm/scale", "gain/scale",
    *(f"attention/{x}/{y}" for x in ("query", "key", "value", "out") for y in ("bias", "kernel")),
}  # fmt: skip


@pytest.mark.parametrize(
    "mask", [None, masks.by_path({"embed/.*": False}), masks.no_bias_norm_embedding()], ids=repr
)
def test_an_nnx_module_reads_as_its_state_and_as_its_optimizer_does(mask):
    model = NnxModel()
    params = nnx.state(model, nnx.Param)
    table = dwd.describe_decay(model, mask, weight_decay=2**-8)
    assert table == dwd.describe_decay(params, mask, weight_decay=2**-8)
    assert {row.path for row in table} == NNX_LEAVES
    assert {row.path: row.shape for row in table}["embed/embedding"] == (5, 4)
    off = [row.path for row in table if not row.multiplier]
    assert ("embed/embedding" in off) == (mask is not None)

    ones = jax.tree.map(jnp.ones_like, params)
    nnx.update(model, ones)
    optimizer = nnx.Optimizer(
        model, dwd.sgdw(0.1, None, weight_decay=2**-8, mask=mask), wrt=nnx.Param
    )
    optimizer.update(model, jax.tree.map(jnp.zeros_like, params))
    after = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    removed = {jax.tree_util.keystr(p, simple=True, separator="/"): 1 - x.max() for p, x in after}
    assert removed == {row.path: row.decay_per_step for row in table}


@pytest.mark.parametrize(
    "mask", [NO_BIAS, masks.matrices(), masks.no_bias_norm_embedding()], ids=repr
)
def test_an_nnx_optimizer_decays_by_rules_and_presets(mask):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    model.bias[...] = jnp.ones(3)
    kernel = jnp.copy(model.kernel[...])
    tx = dwd.sgdw(0.1, None, weight_decay=2**-8, mask=mask)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    chex.assert_trees_all_equal(model.bias[...], jnp.ones(3))
    chex.assert_trees_all_equal(model.kernel[...], kernel - 2**-8 * kernel)


# First match wins

PATHS = ["a", "b", "a/b", "b/a", "ab/a", "ab/b/a"]
PATTERNS = ["a", "b", ".*", "a.*", ".*b", "[ab]", "ab?/.*", ".*/a", "(a|ab)/b", "b|.*/b.*"]


def first_full_match(rules, path):
    for pattern, multiplier in rules.items():
        if re.fullmatch(pattern, path):
            return multiplier
    return 1.0


@hypothesis.given(
    st.sets(st.sampled_from(PATHS), min_size=1),
    st.permutations(PATTERNS),
    st.randoms(use_true_random=False),
)
def test_the_first_rule_that_matches_the_whole_path_wins(paths, patterns, random):
    matching = [p for p in patterns if any(re.fullmatch(p, path) for path in paths)]
    rules = {pattern: random.choice([0.0, 0.5, 1.0, 2.0]) for pattern in matching}
    # The slashes in the keys of a flat dict are those of its paths.
    params = dict.fromkeys(sorted(paths), jnp.ones(2))
    expected = {path: first_full_match(rules, path) for path in params}
    hypothesis.assume(any(expected.values()))
    assert resolved(masks.by_path(rules), params) == expected


def test_a_rule_that_never_matches_first_is_legal():
    assert off(masks.by_path({".*": 1, "bias": 0}), small_params()) == set()


def test_one_compilation_serves_traced_multipliers():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def decay(multiplier):
        return decay_of(masks.by_path({"kernel": multiplier, "bias": 0}), small_params())

    for multiplier in (0.0, 0.25, 2.0):
        expected = {"bias": jnp.zeros(3), "kernel": 0.5 * multiplier * small_params()["kernel"]}
        chex.assert_trees_all_equal(decay(multiplier), expected)


# Rules that match nothing, leaves that no rule reaches

NESTED = {
    "encoder": {"attention": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0}},
    "head": {"kernel": 1.0},
    "overhead": {"kernel": 1.0},
}
NEAR_MISSES = {
    "bias": r"It matches a part of 'encoder/attention/bias': write '\.\*/bias'\.",
    "bias|scale": (
        r"It matches a part of 'encoder/attention/bias', 'encoder/norm/scale': "
        r"write '\.\*/\(bias\|scale\)'\."
    ),
    "head": r"It matches a part of 'head/kernel', 'overhead/kernel': write 'head/\.\*'\.",
    "^head": r"It matches a part of 'head/kernel': write 'head/\.\*'\.",
    "scale$": r"It matches a part of 'encoder/norm/scale': write '\.\*/scale'\.",
    "norm": r"It matches a part of 'encoder/norm/scale': write '\.\*/norm/\.\*'\.",
    "attention|head": r"It matches .*: write '\(\.\*/\)\?\(attention\|head\)/\.\*'\.",
    "(attention|head)": r"It matches .*: write '\(\?:\.\*/\)\?\(\?:\(attention\|head\)\)/\.\*'\.",
    "enc": r"It matches a part of 'encoder/attention/bias', .*: write 'enc\.\*'\.",
    "(?i)SCALE": r"It matches a part of 'encoder/norm/scale'\.",
    "head/kernal": r"The nearest paths are 'head/kernel'.*\.",
    r".*/atention/kernel": r"The nearest paths are 'encoder/attention/kernel'",
    r"params/head/kernel": r"The nearest paths are 'head/kernel'",
    r"head\.kernal": r"The nearest paths are 'head/kernel'",
    "zzzzzz": r"The paths are 'encoder/attention/bias', .*'overhead/kernel'\.",
}


@pytest.mark.parametrize(("pattern", "says"), NEAR_MISSES.items(), ids=NEAR_MISSES)
def test_a_rule_that_matches_nothing_is_refused_with_near_misses(pattern, says):
    params = jax.tree.map(jnp.asarray, NESTED)
    tx = dwd.adamw(0.1, mask=masks.by_path({".*scale": 0, pattern: 0}))
    what = f"`mask` has a multiplier for {pattern!r}, which matches the whole of no path. "
    with pytest.raises(ValueError, match=re.escape(what) + f"({says})"):
        tx.init(params)


def test_a_pattern_that_is_empty_is_refused_on_a_tree():
    says = r"`mask` has a multiplier for '', .*path of a bare array, and the paths are 'bias', 'kernel'"
    with pytest.raises(ValueError, match=says):
        dwd.adamw(0.1, mask=masks.by_path({"": 0})).init(small_params())


OF_VARIABLES = {
    "head/.*": r"pattern 'head/\.\*', or write 'params/head/\.\*'\.",
    "bias": r"pattern '\.\*/bias', or write 'params/\.\*/bias'\.",
    "params": r"It matches a part of .*: write 'params/\.\*'\.",
}


@pytest.mark.parametrize(("pattern", "says"), OF_VARIABLES.items(), ids=OF_VARIABLES)
def test_the_level_above_the_parameters_is_told(pattern, says):
    variables = {"params": NESTED, "batch_stats": {"norm": {"mean": 1.0}}}
    above = "level 'params' of Flax's variables: .*" if pattern != "params" else ""
    with pytest.raises(ValueError, match=above + says):
        resolved(masks.by_path({pattern: 0}), variables)


def test_advice_for_layers_has_the_one_group_of_their_number():
    mask = masks.by_layer(r"a/layers_(\d+)|layers_(?:9)", [0.5])
    with pytest.raises(ValueError, match=r"write '(.*)'\.$") as error:
        resolved(mask, {"a": {"layers_0": NESTED["head"]}, "b": {"layers_9": NESTED["head"]}})
    advice = eval(str(error.value).split("write ")[1].removesuffix("."))
    assert re.compile(advice).groups == 1
    assert re.fullmatch(advice, "a/layers_0/kernel")


def test_the_update_refuses_what_init_would():
    tx, params = dwd.decoupled_weight_decay(0.5, masks.by_path({"kernl": 0})), small_params()
    state = dwd.decoupled_weight_decay(0.5).init(params)
    with pytest.raises(ValueError, match="nearest paths are 'kernel'"):
        tx.update(params, state, params)


def test_strict_rules_must_reach_every_leaf():
    rules = {"kernel": 1.0}
    assert resolved(masks.by_path(rules), small_params()) == {"bias": 1, "kernel": 1}
    says = r"`mask` is strict, and none of its rules reaches 'bias'\. Add a rule .*'\.\*'"
    with pytest.raises(ValueError, match=says):
        dwd.adamw(0.1, mask=masks.by_path(rules, strict=True)).init(small_params())
    strict = masks.by_path({**rules, ".*": 0}, strict=True)
    assert resolved(strict, small_params()) == {"bias": 0, "kernel": 1}


@each_masked
@pytest.mark.parametrize("rules", [{".*": 0}, {"bias": False, "kernel": 0.0}], ids=repr)
def test_rules_that_leave_nothing_to_decay_are_refused(tx, rules):
    with pytest.raises(ValueError, match=r"`mask` leaves nothing to decay.*'bias', 'kernel'"):
        tx(mask=masks.by_path(rules)).init(small_params())


@each_masked
@pytest.mark.parametrize("empty", [{}, (), {"layer": {}}], ids=repr)
def test_rules_are_not_held_against_an_empty_tree(tx, empty):
    built = tx(mask=masks.by_path({"nothing": 0}, strict=True))
    updates, _ = built.update(empty, built.init(empty), empty)
    assert updates == empty


@pytest.mark.parametrize("wrap", ["masked", "prefix", "partition"])
def test_rules_are_not_held_against_leaves_that_a_wrapper_took(wrap):
    params = {"body": small_params(), "head": small_params()}
    tx = dwd.decoupled_weight_decay(0.5, masks.by_path({"head/bias": 0, "body/kernel": 0}))
    if wrap == "masked":
        built = optax.masked(tx, {"body": {"bias": True, "kernel": False}, "head": False})
    elif wrap == "prefix":
        built = optax.masked(tx, {"body": True, "head": False})
    else:
        labels = {"body": "this", "head": "that"}
        built = optax.partition({"this": tx, "that": optax.set_to_zero()}, labels)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = built.update(zeros, built.init(params), params)
    expected = zeros | {"body": zeros["body"] | {"bias": 0.5 * params["body"]["bias"]}}
    chex.assert_trees_all_equal(updates, expected)


# One multiplier a layer

LAYERS = {f"layers_{i}": {"kernel": jnp.ones(2)} for i in range(3)} | {"head": jnp.ones(2)}
LAYER = r"layers_(\d+)/.*"


@pytest.mark.parametrize("make", [tuple, list, np.asarray, jnp.asarray])
def test_every_layer_has_its_multiplier(make):
    multipliers = make([0.25, 0.5, 0.0])
    mask = masks.by_layer(LAYER, multipliers, otherwise=2.0)
    expected = {"head": 2.0, "layers_0/kernel": 0.25, "layers_1/kernel": 0.5, "layers_2/kernel": 0}
    assert resolved(mask, LAYERS) == expected


def test_layers_in_a_list_are_numbered_by_their_place():
    model = eqx.nn.MLP(2, 2, 2, 2, key=jax.random.key(0))
    mask = masks.by_path({".*bias": 0, r"layers/(\d+)/.*": [0.25, 0.5, 1.0]})
    found = resolved(mask, eqx.filter(model, eqx.is_array))
    assert [found[f"layers/{i}/weight"] for i in range(3)] == [0.25, 0.5, 1.0]
    assert not any(found[f"layers/{i}/bias"] for i in range(3))


WRONG_LAYERS = {
    "more layers": ([1.0, 0.5], r"with 2 multipliers, and 'layers_2/kernel' is of layer 2"),
    "fewer layers": ([1.0] * 5, r"5 multipliers for .*there is no layer 3, 4, .*the 3 layers"),
}


@pytest.mark.parametrize(("multipliers", "says"), WRONG_LAYERS.values(), ids=WRONG_LAYERS)
def test_another_number_of_layers_is_refused(multipliers, says):
    with pytest.raises(ValueError, match=says):
        dwd.adamw(0.1, mask=masks.by_layer(LAYER, multipliers)).init(LAYERS)


def test_a_group_that_matches_no_number_is_refused():
    with pytest.raises(
        ValueError, match=r"group matches 'kernel' in 'layers_0/kernel'.*write \(\\d\+\)"
    ):
        dwd.adamw(0.1, mask=masks.by_layer("layers_0/(.*)", [1.0])).init(LAYERS)


KEYSTR = {
    "['head']['kernel']": "head/kernel",
    '["head"].*': "head.*",
    "params['layers'][0].weight": "params/layers/0/weight",
    "['head']['kernel'].value": "head/kernel",  # of an NNX state
}


@pytest.mark.parametrize(("pattern", "path"), KEYSTR.items(), ids=KEYSTR)
def test_a_path_with_brackets_is_told_with_slashes(pattern, path):
    with pytest.raises(
        ValueError, match=rf"{re.escape(repr(pattern))}, .*write '{re.escape(path)}'\."
    ):
        masks.by_path({pattern: 0})
    with pytest.raises(ValueError, match=r"`stacked` holds the pattern .*write"):
        masks.matrices(stacked={pattern: 1})


def test_brackets_that_are_a_class_or_quoted_are_an_expression():
    assert resolved(masks.by_path({r"[hx]|\['q'\]": 0}), {"x": 1.0, "['q']": 1.0, "z": 1.0}) == {
        "['q']": 0, "x": 0, "z": 1,
    }  # fmt: skip


# What is refused at construction

REFUSED = {
    "a list": (lambda: masks.by_path(["bias"]), TypeError, r"`rules` is \['bias'\], and a mapping"),
    "a number for a pattern": (lambda: masks.by_path({3: 0}), TypeError, "`rules` .* 3, and a string"),
    "a bad expression": (
        lambda: masks.by_path({"bias": 0, "a(b": 0}), ValueError,
        r"`rules` holds the pattern 'a\(b', .*unterminated subpattern at its character 1\.",
    ),
    "a negative multiplier": (lambda: masks.by_path({"b": -1}), ValueError, "`rules` at 'b' is -1"),
    "a word": (lambda: masks.by_path({"b": "no"}), TypeError, "`rules` at 'b' is 'no', and a number"),
    "None": (lambda: masks.by_path({"b": None}), TypeError, "`rules` at 'b' is None"),
    "a matrix": (lambda: masks.by_path({"b": np.ones((2, 2))}), TypeError, "`rules` at 'b'"),
    "16 bits": (lambda: masks.by_path({"b": jnp.bfloat16(1)}), TypeError, "`rules` at 'b' is bfloat16"),
    "both defaults": (
        lambda: masks.by_path({}, otherwise=0.5, strict=True), ValueError,
        "`otherwise` is 0.5 and `strict` is True.*pass one",
    ),
    "rules behind rules": (lambda: masks.by_path({}, otherwise=NO_BIAS), TypeError, "`otherwise`"),
    "a preset behind rules": (
        lambda: masks.by_path({}, otherwise=masks.matrices(stacked=1)), TypeError,
        r"`otherwise` is the preset .*times=masks\.matrices\(stacked=1\)",
    ),
    "rules times rules": (lambda: masks.by_path({}, times=NO_BIAS), TypeError, "`times` is masks.by_p"),
    "rules times a number": (lambda: masks.by_layer("(a)", [1], times=2), TypeError, "`times` is 2"),
    "times what makes a preset": (
        lambda: masks.by_path({}, times=masks.matrices), TypeError,
        r"`times` is the function `masks\.matrices`.* Call it: masks\.matrices\(\)\.",
    ),
    "a bad default": (lambda: masks.by_path({}, otherwise=-1), ValueError, "`otherwise` is -1"),
    "strict is a word": (lambda: masks.by_path({}, strict="yes"), TypeError, "`strict` is 'yes'"),
    "layers without a group": (
        lambda: masks.by_layer("layers/.*", [1, 0.5]), ValueError,
        r"`rules` at 'layers/\.\*' has one multiplier a layer, and its pattern 0 groups.*stacked",
    ),
    "layers with two groups": (lambda: masks.by_layer("(a)(b)", [1]), ValueError, "2 groups"),
    "a negative layer": (
        lambda: masks.by_layer(LAYER, [1, -1]), ValueError, r"`rules` at .*, layer 1, is -1",
    ),
    "a number for layers": (lambda: masks.by_layer(LAYER, 0.5), TypeError, "`multipliers` is 0.5"),
    "stacked by a word": (lambda: masks.matrices(stacked="all"), TypeError, "`stacked` is 'all'"),
    "stacked by -1": (lambda: masks.matrices(stacked=-1), ValueError, "`stacked` is -1"),
    "stacked by True": (lambda: masks.matrices(stacked={"a": True}), TypeError, "`stacked` is True"),
    "a bad expression in stacked": (
        lambda: masks.matrices(stacked={"*": 1}), ValueError, r"`stacked` holds the pattern '\*'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_rule_is_refused_at_construction(make, error, says):
    with pytest.raises(error, match=says):
        make()


# Records

RECORDS = {
    "masks.by_path({'bias': 0.5, 'kernel': True})": masks.by_path({"bias": 0.5, "kernel": True}),
    "masks.by_path({'.*': 0.5}, strict=True)": masks.by_path({".*": 0.5}, strict=True),
    "masks.by_path({'bias': 0}, otherwise=0.5, times=masks.matrices())": masks.by_path(
        {"bias": 0}, otherwise=0.5, times=masks.matrices()
    ),
    "masks.matrices()": masks.matrices(),
    "masks.no_bias_norm_embedding(stacked={'x': 1})": masks.no_bias_norm_embedding(
        stacked={"x": 1}
    ),
}
each_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)


@pytest.mark.parametrize(("text", "record"), RECORDS.items())
def test_a_record_reads_as_the_call_that_makes_it(text, record):
    assert repr(record) == text
    assert eval(text, {"masks": masks}) == record


@each_record
def test_a_record_is_plain_data(record):
    assert not callable(record)
    assert jax.tree.leaves(record) == [record]
    for other in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):
        assert other == record
        assert hash(other) == hash(record)


def test_a_record_is_a_static_argument_of_jit():
    decay = jax.jit(decay_of, static_argnums=0)
    expected = {"bias": jnp.zeros(3), "kernel": 0.5 * small_params()["kernel"]}
    chex.assert_trees_all_equal(decay(masks.by_path({"bias": 0}), small_params()), expected)
    decay(masks.by_path({"bias": 0}), small_params())
    assert decay._cache_size() == 1


@each_masked
@pytest.mark.parametrize(
    "record", [masks.by_path({"bias": 0.5}), masks.matrices()], ids=["rules", "preset"]
)
def test_a_record_is_left_alone_by_inject_hyperparams(tx, record):
    inject = optax.inject_hyperparams(tx.function, hyperparam_dtype=jnp.float32)
    injected, plain = inject(**tx.arguments, mask=record), inject(**tx.arguments)
    params = small_params()
    chex.assert_trees_all_equal(injected.init(params), plain.init(params))
    tree = {"bias": 0.5 if isinstance(record, masks.Rules) else 0.0, "kernel": 1.0}
    chex.assert_trees_all_equal(
        *(
            jax.jit(run, static_argnums=0)(inject(**tx.arguments, mask=m), params)
            for m in (record, tree)
        )
    )


@each_masked
def test_an_injected_optimizer_with_rules_is_the_plain_one(tx):
    mask, params = masks.by_path({"bias": 0.5}), small_params()
    injected = optax.inject_hyperparams(tx.function)(**tx.arguments, mask=mask)
    one, state = jax.jit(lambda p: run(injected, p))(params)
    other, plain = jax.jit(lambda p: run(tx(mask=mask), p))(params)
    assert_close(one, other)
    chex.assert_trees_all_equal_structs(state.inner_state, plain)


# Presets


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(y)
        y = nn.RMSNorm()(x)
        return x + nn.Dense(4, name="out")(nn.gelu(nn.Dense(8, name="up")(y))), None


class Transformer(nn.Module):
    scan: bool

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 4, name="embed")(tokens)
        x = x + self.param("pos_embedding", nn.initializers.ones, (1, 3, 4))
        if self.scan:
            layers = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
            )
            x, _ = layers(name="layers")(x, None)
        else:
            for index in range(2):
                x, _ = Block(name=f"layers_{index}")(x)
        return nn.Dense(11, name="head")(nn.LayerNorm(name="final_norm")(x))


def transformer(scan):
    model = Transformer(scan)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    return shapes["params"]


TABLES = {"embed/embedding", "pos_embedding"}


@pytest.mark.parametrize("scan", [False, True], ids=["layers", "scan"])
@pytest.mark.parametrize("stacked", [0, {"layers/.*": 1}], ids=["names", "stacked"])
def test_presets_decay_the_kernels_of_a_linen_transformer(scan, stacked):
    params = transformer(scan)
    stacked = stacked if scan else 0
    paths = {"/".join(k.key for k in p) for p, _ in jax.tree_util.tree_leaves_with_path(params)}
    kernels = {path for path in paths if path.endswith("/kernel")}
    assert len(paths) > 20
    assert len(kernels) > 6
    assert paths - off(masks.matrices(stacked=stacked), params) == kernels | TABLES
    assert paths - off(masks.no_bias_norm_embedding(stacked=stacked), params) == kernels


def test_a_rule_of_rank_alone_takes_stacked_biases_for_matrices():
    """What the presets are for: by rank alone, all of a scanned block decays."""
    params = transformer(scan=True)
    found = resolved(lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree), params)
    assert all(found[path] for path in found if path.startswith("layers/"))


class Named(nnx.Module):
    """Names that say nothing: only the rank, less the stacked axes, tells the vector."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 2, rngs=rngs)
        self.A_log = nnx.Param(jnp.ones(2))


def vmapped_nnx():
    stack = nnx.vmap(Named, in_axes=0, out_axes=0)(nnx.Rngs(0).split(3))
    return {
        "layers": nnx.state(stack, nnx.Param),
        "norm": nnx.state(nnx.LayerNorm(2, rngs=nnx.Rngs(0))),
    }


def vmapped_equinox():
    make = eqx.filter_vmap(lambda key: eqx.nn.Linear(2, 2, key=key))
    layers = {"linear": make(jax.random.split(jax.random.key(0), 3)), "A_log": jnp.ones((3, 2))}
    return {"layers": layers, "norm": eqx.nn.LayerNorm(2)}


STACKS = {"NNX": (vmapped_nnx, "scale"), "Equinox": (vmapped_equinox, "weight")}


@pytest.mark.parametrize(("make", "scale"), STACKS.values(), ids=STACKS)
def test_stacked_says_what_names_do_not(make, scale):
    params = make()
    named = {"layers/linear/bias", "norm/bias", f"norm/{scale}"}
    assert off(masks.matrices(), params) == named
    assert off(masks.matrices(stacked={"layers/.*": 1}), params) == named | {"layers/A_log"}


def test_more_stacked_axes_than_a_leaf_has_are_refused():
    with pytest.raises(
        ValueError, match=r"stacked along 2 axes at 'bias', which has 1\. Pass pattern"
    ):
        dwd.adamw(0.1, mask=masks.matrices(stacked=2)).init(small_params())


def test_a_pattern_of_stacked_that_matches_nothing_is_refused():
    mask = masks.by_path({"bias": 0}, times=masks.matrices(stacked={"kernal": 1}))
    with pytest.raises(
        ValueError, match=r"`mask` has `stacked` axes for 'kernal'.*paths are 'kernel'"
    ):
        dwd.adamw(0.1, mask=mask).init(small_params())


NAMES = {
    # path of a leaf of rank 2 -> matrices, no_bias_norm_embedding
    "linear/w": (1, 1),  # Haiku
    "linear/b": (0, 0),
    "transformer/~/layer_norm/offset": (0, 0),
    "transformer/~/layer_norm/scale": (0, 0),
    "embed/embeddings": (1, 0),
    "layers/0/weight": (1, 1),  # Equinox
    "layers/0/bias": (0, 0),
    "cell/bias_n": (0, 0),
    "cell/weight_ih": (1, 1),
    "norm1/weight": (0, 0),
    "LayerNorm/weight": (0, 0),
    "q_norm/weight": (0, 0),
    "ln_f/weight": (0, 0),
    "normal_dense/weight": (1, 1),
    "token_embedding/weight": (1, 0),
    "wte/weight": (1, 0),
    "patch_embed/weight": (1, 1),
    "Embed_0/embedding": (1, 0),  # Flax
    "BatchNorm_0/scale": (0, 0),
    "PreNorm_0/attention/kernel": (1, 1),
    "patch_embed/proj/kernel": (1, 1),
    "cls_token": (1, 0),
    "pos_embed": (1, 0),
    "block/gamma_1": (0, 0),
    "dense/lora_b": (1, 1),
    "attention/q_bias": (0, 0),
    "dense/bias/value": (0, 0),  # Flax linen, with a partitioning
    "unbiased/kernel": (1, 1),
}


@pytest.mark.parametrize(("path", "expected"), NAMES.items(), ids=NAMES)
def test_presets_know_the_names_of_flax_equinox_and_haiku(path, expected):
    params = {path: jnp.ones((2, 2)), "plain": jnp.ones((2, 2)), "vector": jnp.ones(2)}
    for preset, multiplier in zip(
        (masks.matrices(), masks.no_bias_norm_embedding()), expected, strict=True
    ):
        assert resolved(preset, params) == {path: multiplier, "plain": 1, "vector": 0}


# Leaves of layers as libraries and hand-written transformers name them. Of one layer a vector has rank 1
# and a matrix 2; stacked, 2 and 3. What is no vector is a matrix or, behind +, a table of tokens.
VECTORS = {
    "linen": """Dense_0/bias LayerNorm_0/scale LayerNorm_0/bias RMSNorm_0/scale BatchNorm_0/scale
        attention/query/bias attention/query_ln/scale ls1/gamma dense/bias/value""",
    "NNX": "linear/bias norm/scale norm1/bias attention/query_ln/scale cell/ih/bias ls1/scale",
    "Equinox": """layers/0/bias norm/weight ln_f/weight norms/0/weight norm_mlp/weight rms/weight
        attention_norm/weight input_layernorm/weight BatchNorm2d/weight norm_f/weight bias_n""",
    "Haiku": "linear/b mlp/~/linear_0/b layer_norm/scale layer_norm/offset rms_norm/scale",
    "GPT-2": "ln_1/g ln_1/b ln1/g ln_f/g ln_f/w attn/c_attn/b mlp/c_fc/b fc1_b attn_b ln1_w ln1_b",
    "LLaMA": """bq bk bv bo bqkv norm attn_norm ffn_norm q_norm rms rms_1 rms_att_weight
        input_norm_weight input_layernorm post_attention_layernorm/weight ln1 ln_2 lnf final_ln""",
    "MLP": "b1 b_1 b_in b_out b_gate bias1 bias_out beta gamma gamma_1 gain scales scale_1 shift",
    "layer scale": "ls1 ls_2 ls1/weight layer_scale layer_scale_1 layerscale layer_scale1/lambda1",
}
OTHERS = {
    "linen": """Dense_0/kernel attention/query/kernel PreNorm_0/attention/kernel patch_embed/kernel
        norm1/linear/kernel dense/kernel/value + Embed_0/embedding pos_embedding""",
    "NNX": "linear/kernel lora/lora_a lora/lora_b adaln/norm_proj/kernel + embed/embedding",
    "Equinox": """layers/0/weight norm_out_proj/weight norm_proj/weight normal_dense/weight
        cell/weight_ih upscale/weight norm1_linear/weight embed_out/weight unembed/weight
        + embed/weight token_embedding/weight wte/weight embed_in/weight""",
    "Haiku": "linear/w mlp/~/linear_0/w + embed/embeddings",
    "GPT-2": "attn/c_attn/w mlp/c_fc/w fc1_w attn_w ssm/B block basis + wte wpe",
    "LLaMA": """wq wk wv wo wqkv wq_a wq_b wkv_b w_gate up_proj o_proj lm_head norm_out_proj
        unembed + tok_embeddings tok_embeddings/weight embed_tokens/weight embed_tokens""",
    "MLP": "w1 w_1 w_in w_out w2 bias_proj/kernel scale_w base/kernel B w + cls_token",
    "layer scale": "layer_scale_proj/kernel gammatone/kernel",
}  # fmt: skip


@pytest.mark.parametrize(
    ("lead", "stacked"),
    [((), 0), ((12,), 0), ((12,), 1)],
    ids=["one layer", "stacked, names", "stacked, told"],
)
@pytest.mark.parametrize("style", VECTORS)
def test_presets_tell_vectors_and_matrices_by_their_usual_names(style, lead, stacked):
    matrices, tables = (*(x.split() for x in OTHERS[style].split("+")), [])[:2]
    vectors = VECTORS[style].split()
    params = {f"h/{x}": jnp.ones((*lead, 8)) for x in vectors}
    params |= {f"h/{x}": jnp.ones((*lead, 8, 8)) for x in matrices + tables}
    decaying = {f"h/{x}" for x in matrices}
    assert params.keys() - off(masks.no_bias_norm_embedding(stacked=stacked), params) == decaying
    decaying |= {f"h/{x}" for x in tables}
    assert params.keys() - off(masks.matrices(stacked=stacked), params) == decaying


@pytest.mark.parametrize("otherwise", [None, 2.0])
def test_a_preset_multiplies_rules(otherwise):
    mask = masks.by_path({"head/.*": 0.5}, otherwise=otherwise, times=masks.matrices())
    params = {"body": small_params(), "head": small_params()}
    kernel = 1 if otherwise is None else otherwise
    expected = {"body/bias": 0, "body/kernel": kernel, "head/bias": 0, "head/kernel": 0.5}
    assert resolved(mask, params) == expected


def test_a_preset_multiplies_the_multipliers_of_layers():
    mask = masks.by_layer(LAYER, [0.25, 0.5], times=masks.matrices())
    params = {f"layers_{i}": small_params() for i in range(2)} | {"head": small_params()}
    kernels = {"layers_0/kernel": 0.25, "layers_1/kernel": 0.5, "head/kernel": 1}
    assert {path: m for path, m in resolved(mask, params).items() if m} == kernels


def test_a_preset_reaches_no_leaf_for_strict_rules():
    mask = masks.by_path({"kernel": 1}, strict=True, times=masks.matrices())
    with pytest.raises(ValueError, match="none of its rules reaches 'bias'"):
        resolved(mask, small_params())


def test_a_preset_multiplies_traced_multipliers():
    decay = jax.jit(
        lambda m: decay_of(masks.by_path({".*": m}, times=masks.matrices()), small_params())
    )
    expected = {"bias": jnp.zeros(3), "kernel": 0.125 * small_params()["kernel"]}
    chex.assert_trees_all_equal(decay(0.25), expected)


@each_masked
@pytest.mark.parametrize("make", [masks.matrices, masks.no_bias_norm_embedding])
def test_a_preset_that_is_not_called_is_refused(tx, make):
    says = (
        rf"`mask` is the function `masks\.{make.__name__}`.* Call it: masks\.{make.__name__}\(\)\."
    )
    with pytest.raises(TypeError, match=says):
        tx(mask=make)
    with pytest.raises(TypeError, match=says):
        dwd.describe_decay(small_params(), make)


@pytest.mark.parametrize("preset", [masks.matrices(), masks.no_bias_norm_embedding()], ids=repr)
def test_a_preset_may_match_nothing(preset):
    assert resolved(preset, {"w": jnp.ones((2, 2))}) == {"w": 1}


def test_leaves_that_cannot_decay_are_not_asked_for():
    """An Equinox module holds functions, too."""
    model = eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))
    layers = {".*/bias": 0, ".*/weight": 0.5}
    assert set(resolved(masks.by_path(layers, strict=True), model).values()) == {0, 0.5}
    with pytest.raises(ValueError, match="leaves nothing to decay"):
        resolved(masks.by_path({"layers/.*": 0}), model)
    assert off(masks.matrices(stacked={".*": 0}), model) == {"layers/0/bias", "layers/1/bias"}
    with pytest.raises(ValueError, match="leaves nothing to decay"):
        resolved(masks.matrices(stacked=1), model)


@pytest.mark.parametrize("mask", [dwd.masks.matrices(), dwd.masks.by_path({"w": False})], ids=str)
def test_a_record_that_optax_would_take_for_true_is_refused(mask):
    params = {"w": jnp.ones(2)}
    tx = optax.adamw(0.1, mask=mask)
    with pytest.raises(TypeError, match="is used as a bool, as Optax uses the leaves of a mask"):
        tx.update(params, tx.init(params), params)
