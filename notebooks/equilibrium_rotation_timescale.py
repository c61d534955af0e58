# %% [markdown]
# # Equilibrium, rotation and timescale
#
# Once gradients push back, decay no longer shrinks the weights: it decides how long they are, how far a
# step turns them, and how long a step is remembered. Three formulas say so. Here they are derived in a
# few lines, measured on pure noise and then on a network, where two of them hold for some layers and one
# does not mean what it seems to; and used to choose a decay.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import diagnostics, plots, sweep

# %% [markdown]
# ## Three formulas
#
# Let decay remove the part $\lambda$ of a layer of $C$ weights in every step (in Optax and PyTorch
# $\lambda$ is learning rate times `weight_decay`), and let $s_t$ be the rest of the step:
#
# $$\theta_{t+1} = (1-\lambda)\,\theta_t - s_t .$$
#
# **Norm.** Behind a normalization the length of $\theta$ does not matter to the loss, so gradients stand
# at right angles to it, and lengths add as by Pythagoras: in a step $|\theta|^2$ loses
# $2\lambda|\theta|^2$ and gains $|s|^2$. Adam makes each of the $C$ coordinates of a step about as large
# as the learning rate $a$, so that without momentum gain and loss balance at
# $|\theta| = a\sqrt{C/2\lambda}$. Momentum spreads a gradient over many steps and does not change
# what they add up to: the norm is the same.
#
# **Rotation.** A step turns the layer by $|s|/|\theta|$. Where gradients are noise, momentum makes each
# step shorter by $\sqrt{(1-b_1)/(1+b_1)}$, so the angle is $\sqrt{2\lambda\,(1-b_1)/(1+b_1)}$. The
# learning rate is not in it: it makes steps and layer longer alike.
#
# **Timescale.** Written out, $\theta_t = -\sum_k (1-\lambda)^k s_{t-k}$ is a moving average of the
# steps: one that was made $k$ steps ago counts $(1-\lambda)^k \approx e^{-k/\tau}$, with
# $\tau = 1/\lambda$. If steps are noise, that is also the cosine between the layer and what it was $k$
# steps ago.
#
# `diagnostics.adamw_equilibrium` has norm and rotation without approximations in $\lambda$;
# `dwd.timescale` and `dwd.half_life` turn a decay into times, and others turn them back.
#
# ## Noise

# %%
RATES, DECAYS = 2.0 ** np.array([-11, -8]), 2.0 ** np.arange(-11, -5)
SIZE, STEPS, MEMORY = 1024, 10_000, 4_000


def noise(learning_rate, weight_decay):
    """A layer behind a normalization whose gradients are noise: late rotation and norm, and memory."""
    tx = dwd.adamw(learning_rate, weight_decay=weight_decay)
    key = jax.random.key(0)

    def step(carry, t):
        theta, state, earlier = carry
        g = jax.random.normal(jax.random.fold_in(key, t), theta.shape)
        g = g - theta * jnp.vdot(theta, g) / jnp.vdot(theta, theta)
        u, state = tx.update(g, state, theta)
        log = diagnostics.scalars(theta, u)
        earlier = jnp.where(t == STEPS - MEMORY, theta, earlier)
        cosine = jnp.vdot(earlier, theta) / jnp.linalg.norm(earlier) / log["norm"]
        return (theta + u, state, earlier), (log["rotation"], log["norm"], cosine)

    start = diagnostics.adamw_equilibrium(weight_decay, learning_rate, SIZE).norm
    theta = start * jax.random.normal(key, (SIZE,)) / SIZE**0.5
    carry = theta, tx.init(theta), theta
    rotation, norm, cosine = jax.lax.scan(step, carry, jnp.arange(STEPS))[1]
    late = {"rotation": rotation[-MEMORY:], "norm": norm[-MEMORY:]}
    return {name: jnp.sqrt(jnp.mean(x**2)) for name, x in late.items()}, cosine[-MEMORY:]


measured, cosines = sweep.grid(noise, learning_rate=RATES, weight_decay=DECAYS)

# %% [markdown]
# Momentum adds a memory of its own: it holds a gradient back by $b_1/(1-b_1) = 9$ steps on average, so
# that what is expected of the cosine is $e^{-(k-9)/\tau}$.

# %%
predicted = sweep.grid(
    lambda learning_rate, weight_decay: diagnostics.adamw_equilibrium(
        weight_decay, learning_rate, SIZE
    ),
    learning_rate=RATES,
    weight_decay=DECAYS,
)
k = np.arange(MEMORY)
timescales = jax.vmap(dwd.timescale)(jnp.array(DECAYS))
expected = np.exp(-np.maximum(k - 9, 0) / timescales[:, None])
assert np.allclose(measured["rotation"], predicted.rotation, rtol=0.01)
assert np.allclose(measured["norm"], predicted.norm, rtol=0.01)
assert np.abs(cosines - expected).max() < 0.1
for name in ("rotation", "norm"):
    off = np.abs(measured[name] / getattr(predicted, name) - 1).max()
    print(f"{name:8} off by {off:.2%} at most")
print(f"memory   off by {np.abs(cosines - expected).max():.2f} at most, of a cosine")

# %%
with plots.house_style():
    figure, panels = plt.subplots(1, 3, figsize=(9, 2.8))
    for i, rate in enumerate(RATES):
        colour, label = plots.OKABE_ITO[i], f"learning rate {rate:.1e}"
        for panel, name in zip(panels, ("rotation", "norm"), strict=False):
            style = {"color": colour, "markersize": (9, 5)[i]}
            panel.loglog(DECAYS, measured[name][i], "o", label=label, **style)
            panel.loglog(DECAYS, getattr(predicted, name)[i], "--", color=colour)
            panel.set(xlabel="decay per step", ylabel=plots.LABELS[name])
    for j, tau in enumerate(timescales[:5]):
        shown = k < 4 * tau
        panels[2].plot(k[shown] / tau, cosines[0, j, shown], color=plots.OKABE_ITO[j], linewidth=1)
    panels[2].plot(np.linspace(0, 4), np.exp(-np.linspace(0, 4)), "k--", label=r"$e^{-k/\tau}$")
    panels[2].set(xlabel=r"$k/\tau$", ylabel="cosine with itself, $k$ steps ago")
    panels[1].legend()
    panels[2].legend()
    plt.show()

# %% [markdown]
# Rotation does not know the learning rate: the points of the two coincide. The memory of five decays,
# a factor of 16 apart, is one curve, once time is counted in timescales.
#
# ## A network
#
# A perceptron learns scikit-learn's digits, every image with fresh noise. Its two hidden layers are
# followed by a LayerNorm, and the head is not. `diagnostics.scalars` gives all of it from what a step
# has at hand, the prediction included; `effective_decay` measures the decay that reaches a leaf, so
# that mask, schedule and coupling need no thought.

# %%
RATE, DECAYS, STEPS, PIECE, MEMORY = 2**-8, (2**-9, 2**-8), 4000, 200, 1000
LAYERS = ("hidden1/kernel", "hidden2/kernel", "head/kernel")
IMAGES, LABELS = map(jnp.asarray, load_digits(return_X_y=True))


class Network(nn.Module):
    """A perceptron whose hidden layers may be of any length."""

    @nn.compact
    def __call__(self, x):
        for name in ("hidden1", "hidden2"):
            x = nn.Dense(64, use_bias=False, name=name)(x)
            x = nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(x))
        return nn.Dense(10, name="head")(x)


def loss_of(params, key):
    which, noise = jax.random.split(key)
    rows = jax.random.randint(which, (64,), 0, len(LABELS))
    logits = Network().apply(
        {"params": params}, IMAGES[rows] / 16 + 0.5 * jax.random.normal(noise, (64, 64))
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[rows]).mean()


def start(weight_decay):
    key = jax.random.key(0)
    params = Network().init(key, jnp.zeros(64))["params"]
    return params, dwd.adamw(RATE, weight_decay=weight_decay).init(params), params, key, 0


def advance(carry, weight_decay):
    """Train a run by a piece, and log every step."""
    tx = dwd.adamw(RATE, weight_decay=weight_decay)

    def predict(leaf):
        return diagnostics.adamw_equilibrium(leaf.weight_decay, RATE, leaf.size)

    def step(carry, _):
        params, state, earlier, key, t = carry
        key, now = jax.random.split(key)
        grads = jax.grad(loss_of)(params, now)
        decay = diagnostics.effective_decay(tx, grads, state, params)
        updates, state = tx.update(grads, state, params)
        log = diagnostics.scalars(params, updates, weight_decay=decay, equilibrium=predict)
        earlier = jax.tree.map(lambda x, y: jnp.where(t == STEPS - MEMORY, y, x), earlier, params)
        for path, leaf in diagnostics.leaf_statistics(params, earlier).items():
            log[f"memory/{path}"] = diagnostics.cosine(leaf)
        return (optax.apply_updates(params, updates), state, earlier, key, t + 1), log

    return jax.lax.scan(step, carry, length=PIECE)


carry, logs = sweep.grid(start, weight_decay=DECAYS), []
for _ in tqdm(range(STEPS // PIECE)):
    carry, log = sweep.grid(advance, carry, weight_decay=DECAYS)
    logs.append(log)
history = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=-1), *logs)

# %%
means = {name: values[0].reshape(-1, 40).mean(axis=1) for name, values in history.items()}
plots.equilibrium(means, steps=np.arange(20, STEPS, 40), paths=LAYERS)
plt.show()

print(
    "decay   layer           rotation  norm, measured/predicted  cosine with itself 1/λ steps ago"
)
ratios, memory = {}, {}
for i, decay in enumerate(DECAYS):
    for layer in LAYERS:
        for name in ("rotation", "norm"):
            late = np.sqrt(np.mean(history[f"{name}/{layer}"][i, STEPS // 2 :] ** 2))
            ratios[name, layer, i] = late / history[f"{name}_equilibrium/{layer}"][i, -1]
        memory[layer, i] = history[f"memory/{layer}"][i, STEPS - MEMORY + round(1 / decay)]
        rotation, norm = ratios["rotation", layer, i], ratios["norm", layer, i]
        print(f"{decay:.4f}  {layer:14}  {rotation:<8.2f}  {norm:<24.2f}  {memory[layer, i]:.2f}")

for (name, layer, _), ratio in ratios.items():
    if layer != "head/kernel":
        assert abs(ratio - 1) < 0.15
    else:
        assert ratio < 0.6 if name == "rotation" else ratio > 1.5
assert min(memory.values()) > 0.6 > 1.5 * np.exp(-1)

# %% [markdown]
# **The hidden layers are where they were predicted**, to about a tenth, at both decays. It takes right
# angles and steps of Adam's size, and a normalization and noisy gradients provide them.
#
# **The head is not.** The loss wants it long, gradients stand at no right angle to it, and so it is more
# than twice as long as predicted and turns less than half as far. A prediction that fails so is the sign
# of a leaf whose scale the loss sees: decay is regularization there and not a speed of rotation.
#
# **Layers remember more than their steps.** If gradients were noise the cosine with the layer of a
# timescale ago would be $e^{-1} = 0.37$, and it is 0.8 or more: old steps are forgotten, but new ones
# pull to the same place. The timescale says for how long one gradient counts. It does not say for how
# long the network knows what it learned.
#
# ## What to do
#
# * *Choose the decay by its time.* With $\tau$ longer than the run, more than a third of the initial
#   weights is left at its end, and there is no equilibrium. With $\tau$ below an epoch, the steps of an
#   example are forgotten before it returns. In between lies the range to search, on a logarithmic grid:

# %%
EPOCHS, EPOCH = 25, 400  # in steps
for tau in (1, 5, 25):
    decay = dwd.weight_decay_of_timescale(tau, EPOCH)
    half_life = dwd.half_life(decay, EPOCH)
    per_rate = dwd.weight_decay_of_timescale(tau, EPOCH, learning_rate=3e-4)
    left = np.exp(-EPOCHS / tau)
    print(
        f"{tau:2} epochs: decay {decay:.1e} a step, {per_rate:6.2f} in optax.adamw(3e-4); "
        f"half-life {half_life:4.1f} epochs; of a first step {left:.1e} is left at the end"
    )
    assert np.isclose(decay, per_rate * 3e-4)

# %% [markdown]
# * *Then see whether that time carries over.* In language models the timescale in epochs did, across
#   batch sizes and lengths (`dwd.suggest` names the sources); in the small setting of
#   scaling_decay.ipynb it is the worst of the rules.
# * *Mind the start.* Where the initial norm is not that of the equilibrium, rotation is off as well: in
#   the picture the hidden layers first turn at little more than half their later speed, and it takes a
#   half-life or two to get over it.
# * *Look at it.* Log `diagnostics.scalars`. A normalized layer whose rotation is far from the predicted
#   one is not yet in equilibrium, or its gradients are hardly noise.
#
# Sources: equilibrium and rotation, Kosson, Messmer and Jaggi, arXiv 2305.17212; timescale, Wang and
# Aitchison, arXiv 2405.13698.
