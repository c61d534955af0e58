"""The examples of language models: they learn, and in three libraries they are one."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.helpers import load_example
from tests.tolerances import RELATIVE

pytest.importorskip("tqdm")
LIBRARIES = ("linen", "nnx", "equinox")
SMALL = {"STEPS": 60, "CHUNK": 30, "WARMUP": 5, "CONTEXT": 16, "WIDTH": 32, "LAYERS": 1}


@pytest.fixture(autouse=True)
def compile_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def load(library, patch, **constants):
    return load_example(f"language_model_{library}", patch, **constants)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_short_run_predicts_better_than_frequencies(library, monkeypatch, capsys):
    load(library, monkeypatch, **SMALL).main()
    printed = capsys.readouterr().out
    by_frequency, by_model = map(float, re.findall(r"^bits .*  (.*)$", printed, re.MULTILINE))
    assert by_model < by_frequency - 0.4
    # The output layer by half, and nothing of the embeddings.
    assert re.search(r"^head/(kernel|weight) .* 0\.5 ", printed, re.MULTILINE)
    assert len(re.findall(r"embed/\w+ .* 0  +0  +inf$", printed, re.MULTILINE)) == 2


def in_nnx(params):
    """Parameters of the linen model, as the tree of the NNX one."""
    blocks = {i: params[f"blocks_{i}"] for i in range(SMALL["LAYERS"])}
    return {**{k: v for k, v in params.items() if not k.startswith("blocks")}, "blocks": blocks}


def in_equinox(params, model):
    """The Equinox model, with the parameters of the linen one."""
    width = len(params["norm"]["scale"])

    def leaves(model):
        yield from (model.embed.weight, model.position_embed.weight)
        yield from (
            model.norms[-1].weight,
            model.norms[-1].bias,
            model.head.weight,
            model.head.bias,
        )
        for i, (attention, mlp) in enumerate(zip(model.attention, model.mlp, strict=True)):
            yield from (attention.query_proj.weight, attention.key_proj.weight)
            yield from (attention.value_proj.weight, attention.output_proj.weight)
            for layer in (*model.norms[2 * i : 2 * i + 2], *mlp.layers):
                yield from (layer.weight, layer.bias)

    def values():
        yield from (params["embed"]["embedding"], params["position_embed"]["embedding"])
        yield from (params["norm"]["scale"], params["norm"]["bias"])
        yield from (params["head"]["kernel"].T, params["head"]["bias"])
        for i in range(SMALL["LAYERS"]):
            block = params[f"blocks_{i}"]
            for name in ("query", "key", "value", "out"):
                yield block["attention"][name]["kernel"].reshape(width, width).T
            for name in ("attention_norm", "mlp_norm"):
                yield from (block[name]["scale"], block[name]["bias"])
            for name in ("widen", "narrow"):
                yield from (block[name]["kernel"].T, block[name]["bias"])

    return eqx.tree_at(lambda model: list(leaves(model)), model, list(values()))


def test_from_equal_parameters_without_dropout_the_three_libraries_make_equal_steps(monkeypatch):
    constants = {**SMALL, "DROPOUT": 0.0, "WEIGHT_DECAY": 4e-3}
    linen, in_flax_nnx, equinox = (load(name, monkeypatch, **constants) for name in LIBRARIES)
    monkeypatch.setattr(eqx.nn, "LayerNorm", functools.partial(eqx.nn.LayerNorm, eps=1e-6))
    batches = np.random.default_rng(0).integers(128, size=(6, 4, SMALL["CONTEXT"] + 1))
    key = jax.random.key(0)
    with jax.enable_x64(True):
        state = linen.make_state(key)
        params = jax.tree.map(lambda x: jnp.asarray(x, float), state.params)
        state = state.replace(params=params, opt_state=state.tx.init(params))
        state, losses = linen.train_chunk(state, batches, key)

        model, optimizer = in_flax_nnx.make_state(0)
        nnx.update(model, in_nnx(params))
        optimizer = nnx.Optimizer(model, optimizer.tx, wrt=nnx.Param)
        scanned = nnx.jit(nnx.scan(in_flax_nnx.train_step))
        _, others = scanned((model, optimizer), jnp.asarray(batches))
        np.testing.assert_allclose(others, losses, rtol=RELATIVE["float32"])

        model, tx, _ = equinox.make_state(key)
        model = in_equinox(params, model)
        opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        _, _, others = equinox.train_chunk(model, tx, opt_state, batches, key)
        np.testing.assert_allclose(others, losses, rtol=RELATIVE["float32"])
