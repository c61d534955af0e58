"""Does a small transformer learn to spell with weight decay on its matrices alone? In Flax linen.

    python examples/language_model_linen.py

trains a character language model on the manual that ships with Python.
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

STEPS, CHUNK, WARMUP, BATCH, CONTEXT = 500, 50, 50, 32, 32
CHARACTERS, LAYERS, HEADS, WIDTH = 128, 2, 4, 64
LEARNING_RATE, WEIGHT_DECAY, DROPOUT, SMOOTHING = 1e-2, 1e-3, 0.1, 0.05
# No decay for embeddings, since rows of rare characters have hardly a gradient to hold against it.
MASK = masks.by_path({".*embed/.*": False, "head/.*": 0.5}, times=masks.matrices())


class Block(nn.Module):
    """Attention to what came before, and a perceptron."""

    @nn.compact
    def __call__(self, x, train):
        dropout = nn.Dropout(DROPOUT, deterministic=not train)
        attention = nn.MultiHeadDotProductAttention(HEADS, use_bias=False, name="attention")
        h = nn.LayerNorm(name="attention_norm")(x)
        x = x + dropout(attention(h, mask=nn.make_causal_mask(x[..., 0])))
        h = nn.Dense(4 * WIDTH, name="widen")(nn.LayerNorm(name="mlp_norm")(x))
        return x + dropout(nn.Dense(WIDTH, name="narrow")(nn.gelu(h)))


class LanguageModel(nn.Module):
    """Logits of the next character at every place of a text."""

    @nn.compact
    def __call__(self, tokens, train=False):
        x = nn.Embed(CHARACTERS, WIDTH, name="embed")(tokens)
        x = x + nn.Embed(CONTEXT, WIDTH, name="position_embed")(jnp.arange(tokens.shape[-1]))
        for layer in range(LAYERS):
            x = Block(name=f"blocks_{layer}")(x, train)
        return nn.Dense(CHARACTERS, name="head")(nn.LayerNorm(name="norm")(x))


def make_state(key):
    """Model, parameters, and an optimizer whose schedule multiplies step and decay."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, WARMUP, STEPS)
    tx = dwd.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=MASK, schedule=schedule)
    model = LanguageModel()
    params = model.init(key, jnp.zeros((1, CONTEXT), int))["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


def loss_function(params, apply, batch, key):
    """Cross entropy of smoothed labels, in nats."""
    logits = apply({"params": params}, batch[:, :-1], train=True, rngs={"dropout": key})
    labels = optax.smooth_labels(jax.nn.one_hot(batch[:, 1:], CHARACTERS), SMOOTHING)
    return optax.softmax_cross_entropy(logits, labels).mean()


def train_step(state, batch, key):
    """One step, and its loss."""
    loss, grads = jax.value_and_grad(loss_function)(state.params, state.apply_fn, batch, key)
    return state.apply_gradients(grads=grads), loss


@jax.jit
def train_chunk(state, windows, key):
    """Many steps in one compiled loop."""

    def step(state, key):
        batch_key, dropout_key = jax.random.split(key)
        return train_step(state, jax.random.choice(batch_key, windows, (BATCH,)), dropout_key)

    return jax.lax.scan(step, state, jax.random.split(key, CHUNK))


@jax.jit
def bits_per_character(state, windows):
    """Cross entropy of the characters that came."""
    logits = state.apply_fn({"params": state.params}, windows[:, :-1])
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
    return nats.mean() / jnp.log(2)


def main():
    """Train, and print the validation loss beside that of character frequencies."""
    text = "".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), CONTEXT + 1)
    train, valid = jnp.split(windows, [len(windows) * 9 // 10])
    valid = valid[CONTEXT::CONTEXT]  # Beside each other, and not over the border.
    init_key, key = jax.random.split(jax.random.key(0))
    state = make_state(init_key)
    print(dwd.describe_decay(state.params, MASK, weight_decay=WEIGHT_DECAY))
    progress = tqdm(jax.random.split(key, STEPS // CHUNK), unit_scale=CHUNK, unit="step")
    for chunk_key in progress:
        state, _ = train_chunk(state, train, chunk_key)
        progress.set_postfix(bits=f"{bits_per_character(state, valid):.2f}")
    frequency = jnp.bincount(train[:, 0], length=CHARACTERS)[valid] / len(train)
    print(f"bits per character, by frequency  {-jnp.log2(frequency).mean():.2f}")
    print(f"bits per character, by the model  {bits_per_character(state, valid):.2f}")


if __name__ == "__main__":
    main()
