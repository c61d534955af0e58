"""Does a small transformer learn to spell with weight decay on its matrices alone? In Equinox.

    python examples/language_model_equinox.py

takes 25 s of processor time, prints which leaves decay (matrices; the head by half; embeddings, biases
and norms not), and ends, on the last tenth of the manual that ships with Python, at

    bits per character, by frequency  4.66
    bits per character, by the model  2.47

plus or minus XX over seeds. It is the model of language_model_linen.py from other initial parameters:
the rules of the mask are the same text, the same leaves decay, and from equal parameters the steps
are equal without dropout.
"""

from pydoc_data.topics import topics

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import decoupled_wd as dwd

STEPS, CHUNK, WARMUP, BATCH, CONTEXT = 500, 50, 50, 32, 32
CHARACTERS, LAYERS, HEADS, WIDTH = 128, 2, 4, 64
LEARNING_RATE, WEIGHT_DECAY, DROPOUT, SMOOTHING = 1e-2, 1e-3, 0.1, 0.05
# No decay for embeddings, since rows of rare characters have hardly a gradient to hold against it.
MASK = dwd.masks.by_path({".*embed/.*": False, "head/.*": 0.5}, times=dwd.masks.matrices())


class Block(eqx.Module):
    """Attention to what came before, and a perceptron."""

    attention_norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    mlp_norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        keys = jax.random.split(key)
        self.attention_norm, self.mlp_norm = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)
        self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=keys[0])
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 4 * WIDTH, 1, jax.nn.gelu, key=keys[1])
        self.dropout = eqx.nn.Dropout(DROPOUT)

    def __call__(self, x, keys):
        h, causal = jax.vmap(self.attention_norm)(x), jnp.tri(len(x), dtype=bool)
        x = x + self.dropout(self.attention(h, h, h, causal), key=keys[0])
        h = jax.vmap(self.mlp)(jax.vmap(self.mlp_norm)(x))
        return x + self.dropout(h, key=keys[1])


class LanguageModel(eqx.Module):
    """Logits of the next character at every place of a text."""

    embed: eqx.nn.Embedding
    position_embed: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, LAYERS + 3)
        self.embed = eqx.nn.Embedding(CHARACTERS, WIDTH, key=keys[-1])
        self.position_embed = eqx.nn.Embedding(CONTEXT, WIDTH, key=keys[-2])
        self.blocks = [Block(key) for key in keys[:LAYERS]]
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.head = eqx.nn.Linear(WIDTH, CHARACTERS, key=keys[-3])

    def __call__(self, tokens, key):
        x = jax.vmap(self.embed)(tokens) + self.position_embed.weight[: len(tokens)]
        for block, keys in zip(self.blocks, jax.random.split(key, (LAYERS, 2)), strict=True):
            x = block(x, keys)
        return jax.vmap(self.head)(jax.vmap(self.norm)(x))


def make_state(key):
    """Model, an optimizer whose schedule multiplies step and decay, and its state."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, WARMUP, STEPS)
    tx = dwd.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=MASK, schedule=schedule)
    model = LanguageModel(key)
    return model, tx, tx.init(eqx.filter(model, eqx.is_inexact_array))


def loss_function(model, batch, key, smoothing=0.0):
    """Cross entropy in nats, of labels that may be smoothed."""
    logits = jax.vmap(model)(batch[:, :-1], jax.random.split(key, len(batch)))
    labels = optax.smooth_labels(jax.nn.one_hot(batch[:, 1:], CHARACTERS), smoothing)
    return optax.softmax_cross_entropy(logits, labels).mean()


@eqx.filter_jit
def train_chunk(model, tx, opt_state, batches, key):
    """Many steps in one compiled loop, which carries arrays alone."""
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def step(carry, given):
        model = eqx.combine(carry[0], static)
        loss, grads = eqx.filter_value_and_grad(loss_function)(model, *given, SMOOTHING)
        updates, opt_state = tx.update(grads, carry[1], carry[0])
        return (eqx.apply_updates(carry[0], updates), opt_state), loss

    given = batches, jax.random.split(key, len(batches))
    (params, opt_state), losses = jax.lax.scan(step, (params, opt_state), given)
    return eqx.combine(params, static), opt_state, losses


def main():
    """Train, and print the validation loss beside that of character frequencies."""
    text = "".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), CONTEXT + 1)
    train, valid = np.split(windows, [len(windows) * 9 // 10])
    valid = jnp.asarray(valid[CONTEXT::CONTEXT])  # Beside each other, and not over the border.
    model, tx, opt_state = make_state(jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    print(dwd.describe_decay(params, MASK, weight_decay=WEIGHT_DECAY))
    random = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(1), STEPS // CHUNK)
    for key in (progress := tqdm(keys, unit="chunk")):
        batches = train[random.integers(len(train), size=(CHUNK, BATCH))]
        model, opt_state, losses = train_chunk(model, tx, opt_state, batches, key)
        progress.set_postfix(loss=f"{losses.mean():.2f}")
    frequency = np.bincount(train[:, 0], minlength=CHARACTERS)[valid] / len(train)
    bits = loss_function(eqx.nn.inference_mode(model), valid, key) / jnp.log(2)
    print(f"bits per character, by frequency  {-np.log2(frequency).mean():.2f}")
    print(f"bits per character, by the model  {bits:.2f}")


if __name__ == "__main__":
    main()
