"""Does a small transformer learn to spell, with decay on its matrices alone? In Flax linen.

    python examples/language_model_linen.py

trains a character language model (2 layers, 120,000 parameters) on the manual that ships with Python.
"""

from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import masks

STEPS, CHUNK, WARMUP = 800, 50, 80
BATCH, CONTEXT = 16, 64
CHARACTERS = 128
"""ASCII, of which the text has 98: the decay would take the other rows of an embedding to zero."""
LAYERS, HEADS, WIDTH = 2, 4, 64
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3
DROPOUT, SMOOTHING = 0.1, 0.05

MASK = masks.by_path({".*embed/.*": False, "head/.*": 0.5}, times=masks.matrices())


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        def dropped(y):
            return nn.Dropout(DROPOUT, deterministic=not train)(y)

        causal = nn.make_causal_mask(x[..., 0])
        attention = nn.MultiHeadDotProductAttention(HEADS, use_bias=False, name="attention")
        x = x + dropped(attention(nn.LayerNorm(name="attention_norm")(x), mask=causal))
        h = nn.Dense(4 * WIDTH, name="widen")(nn.LayerNorm(name="mlp_norm")(x))
        return x + dropped(nn.Dense(WIDTH, name="narrow")(nn.gelu(h)))


class LanguageModel(nn.Module):
    @nn.compact
    def __call__(self, tokens, train=False):
        x = nn.Embed(CHARACTERS, WIDTH, name="embed")(tokens)
        x = x + nn.Embed(CONTEXT, WIDTH, name="position_embed")(jnp.arange(tokens.shape[-1]))
        for layer in range(LAYERS):
            x = Block(name=f"blocks_{layer}")(x, train)
        return nn.Dense(CHARACTERS, name="head")(nn.LayerNorm(name="norm")(x))


def make_state(key):
    model = LanguageModel()
    tx = dwd.adamw(
        LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        mask=MASK,
        schedule=optax.warmup_cosine_decay_schedule(0.0, 1.0, WARMUP, STEPS),
    )
    params = model.init(key, jnp.zeros((1, CONTEXT), int))["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


def loss_function(params, apply, batch, key):
    logits = apply({"params": params}, batch[:, :-1], train=True, rngs={"dropout": key})
    labels = optax.smooth_labels(jax.nn.one_hot(batch[:, 1:], CHARACTERS), SMOOTHING)
    return optax.softmax_cross_entropy(logits, labels).mean()


def train_step(state, batch, key):
    loss, grads = jax.value_and_grad(loss_function)(state.params, state.apply_fn, batch, key)
    return state.apply_gradients(grads=grads), loss


def windows(text, starts):
    return text[starts[:, None] + jnp.arange(CONTEXT + 1)].astype(int)


@jax.jit
def train_chunk(state, text, key):
    def step(state, key):
        key, dropout_key = jax.random.split(key)
        starts = jax.random.randint(key, (BATCH,), 0, len(text) - CONTEXT)
        return train_step(state, windows(text, starts), dropout_key)

    return jax.lax.scan(step, state, jax.random.split(key, CHUNK))


@jax.jit
def bits_per_character(state, text):
    batch = windows(text, jnp.arange(0, len(text) - CONTEXT, CONTEXT))
    logits = state.apply_fn({"params": state.params}, batch[:, :-1])
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])
    return nats.mean() / jnp.log(2)


def main():
    text = "".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
    train, valid = np.split(np.frombuffer(text, np.uint8), [len(text) * 9 // 10])
    init_key, key = jax.random.split(jax.random.key(0))
    state = make_state(init_key)
    print(dwd.describe_decay(state.params, MASK, weight_decay=WEIGHT_DECAY))
    progress = tqdm(jax.random.split(key, STEPS // CHUNK), unit_scale=CHUNK, unit="step")
    for key in progress:
        state, _ = train_chunk(state, train, key)
        progress.set_postfix(bits=f"{bits_per_character(state, valid):.3f}")
    frequency = np.bincount(train, minlength=CHARACTERS)[valid] / len(train)
    print(f"bits per character by frequency alone  {-np.log2(frequency).mean():.2f}")
    print(f"bits per character of the model        {bits_per_character(state, valid):.2f}")


if __name__ == "__main__":
    main()
