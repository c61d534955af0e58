# %% [markdown]
# # Sixteen bits
#
# Store weights in bfloat16, ask for a decay of one in a thousand a step, and nothing decays. Why, from
# which decay on, and what to do about it? Here the threshold is derived from eight bits, measured for
# each way to round, and followed into Adam's moments, into a training, and into bytes.

# %%
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import decoupled_wd as dwd
from decoupled_wd import plots, sweep

# %% [markdown]
# ## Why nothing decays
#
# A bfloat16 number has eight significant bits. Between 1 and 2 there are 128 of them, $2^{-7}$ apart, and
# between 1/2 and 1 as many, $2^{-8}$ apart. A step of decay asks for $(1-\lambda)\theta$, which is no
# bfloat16 number and is rounded to the nearest: to $\theta$ itself, if $\lambda\theta$ is less than half
# of the distance to the next number. Relative to the weight half of the distance is $2^{-9}$ to $2^{-8}$.
# So no weight moves at all below
#
# $$\lambda = 2^{-9} = 0.002,$$
#
# and a usual decay, 0.1 times a learning rate of 1e-3, is a twentieth of that. Nothing is saved up: the
# next step asks again, and is refused again. In float16, with eleven bits, the threshold is $2^{-12}$.

# %%
theta = jnp.array([1.0, 1.5], jnp.bfloat16)
for decay in (2**-10, 2**-9, 2**-8):
    left = ((1 - decay) * theta.astype(jnp.float32)).astype(jnp.bfloat16)
    print(f"decay {decay:.4f}: of 1 is left {left[0]:.4f}, of 1.5 {left[1]:.4f}")
    assert bool(jnp.all(left == theta)) == (decay <= 2**-9)

# %% [markdown]
# ## Two ways out
#
# Both compute the whole step in float32 and round once, at its end.
#
# * **At random**, to the number above or below, with the chance that makes the mean right: a step of a
#   tenth of the distance is taken by every tenth weight. No bytes; noise that averages out.
# * **With a residual**: round to nearest, keep what that took in a second 16-bit array, and add it to the
#   next step. No noise; two bytes a weight. The residual has eight bits of its own, so that it ends too:
#   a decay below $2^{-18}$ is lost again.
#
# To measure it: weights without gradient, 2000 steps at each of 15 decays, and the decay that the
# weights show for the one that was asked for.

# %%
STEPS, DECAYS = 2048, 2.0 ** np.arange(-20, -5)
WEIGHTS = np.random.default_rng(0).uniform(1, 2, 4096)
FORMS = {
    "float32": ("float32", None),
    "bfloat16, nearest": ("bfloat16", None),
    "bfloat16, stochastic": ("bfloat16", "stochastic"),
    "bfloat16, compensated": ("bfloat16", "compensated"),
}


def decay_shown(dtype, rounding):
    """From the decay per step asked for to the one that weights show."""

    def run(weight_decay):
        tx = dwd.sgdw(1.0, momentum=0.0, weight_decay=weight_decay, rounding=rounding)

        def step(carry, _):
            theta, state = carry
            u, state = tx.update(jnp.zeros_like(theta), state, theta)
            return (optax.apply_updates(theta, u), state), None

        theta = jnp.asarray(WEIGHTS, dtype)
        (left, _), _ = jax.lax.scan(step, (theta, tx.init(theta)), length=STEPS)
        return 1 - (left.astype("float32").sum() / theta.astype("float32").sum()) ** (1 / STEPS)

    return run


shown = {name: sweep.grid(decay_shown(*form), weight_decay=DECAYS) for name, form in FORMS.items()}
part = {name: np.asarray(x) / DECAYS for name, x in shown.items()}
assert np.allclose(part["float32"], 1, atol=0.01)
assert np.all(part["bfloat16, nearest"][DECAYS <= 2**-9] == 0)
assert np.allclose(part["bfloat16, stochastic"][DECAYS >= 2**-16], 1, atol=0.02)
assert np.all(part["bfloat16, compensated"][DECAYS < 2**-18] == 0)
assert np.allclose(part["bfloat16, compensated"][DECAYS >= 2**-15], 1, atol=0.02)

# %%
with plots.house_style():
    axes = plt.figure(figsize=(6.4, 3.2)).add_subplot()
    for name, x in part.items():
        axes.semilogx(DECAYS, x, ".-", label=name, base=2)
    axes.axvline(1e-4, color="0.6", linestyle=":")
    axes.annotate("0.1 × 1e-3", (1e-4, 1.3), (5, 0), textcoords="offset points", color="0.4")
    axes.set(xlabel=r"decay per step $\lambda$", ylabel="of it the weights show")
    axes.legend()
    plt.show()

# %% [markdown]
# To nearest, decay is absent below $2^{-9}$ and wrong by a third right above it. At random it is right on
# average at every $\lambda$; what is seen on the far left is chance over 4096 weights. With a residual
# it is right to 2 % from $2^{-15}$ on.
#
# Optax has no rounding and keeps the weights; PyTorch's AdamW does the same. This library says so when
# the state is made:

# %%
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    params = {"kernel": jnp.ones((64, 64), jnp.bfloat16)}
    dwd.adamw(1e-3, weight_decay=1e-4).init(params)
print(*(w.message for w in said), sep="\n\n")
assert "this decay does nothing" in str(said[-1].message)

# %% [markdown]
# ## Adam's moments
#
# A moment is a moving average, and so decays as well: by $1 - b_2 = 0.001$ of itself a step. In bfloat16
# and to nearest it stands still, whatever the gradients are. With `rounding=` the library rounds moments
# of 16 bits at random, too. Here the second moment begins at 1 and gradients are 0.1, so that after
# 2000 steps $0.999^{2000} + \ldots = 0.14$ should be left.

# %%
exact = 0.999**2000 + (1 - 0.999**2000) * 0.01
for rounding in (None, "stochastic"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says what this cell shows.
        tx = dwd.scale_by_adam(moment_rounding=rounding)
        state = tx.init(jnp.zeros(4096, jnp.bfloat16))
    state = state._replace(nu=jnp.ones_like(state.nu))
    g = jnp.full(4096, 0.1, jnp.bfloat16)
    nu = jax.jit(
        lambda state: jax.lax.fori_loop(0, 2000, lambda _, state: tx.update(g, state)[1], state)
    )(state).nu.astype("float32")
    print(f"{rounding!s:11} {nu.mean():.3f}, exactly {exact:.3f}")
    assert nu.mean() == 1 if rounding is None else abs(nu.mean() - exact) < 0.01

# %% [markdown]
# ## A training
#
# Gradients are larger than decay, and they are noise that may carry a weight over the threshold: is it all
# as bad in a training? A perceptron learns 400 of scikit-learn's digits, 15 % of the labels wrong.

# %%
RATE, DECAY, TRAINING, SEEDS = 1e-3, 1e-3, 1000, 4
IMAGES, LABELS = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(LABELS))
X, Y = jnp.asarray(IMAGES[order] / 16, jnp.float32), jnp.asarray(LABELS[order])
UNLIT = jnp.flatnonzero(~X[:400].any(axis=0))
schedule = optax.cosine_decay_schedule(1.0, TRAINING)


def training(dtype, rounding):
    """From a seed to the loss on test digits, the norm, and what is left of weights without gradient."""
    model = nn.Sequential(
        [nn.Dense(64, param_dtype=dtype), nn.relu, nn.Dense(10, param_dtype=dtype)]
    )

    def loss_of(params, x, y):
        logits = model.apply({"params": params}, x).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def run(seed):
        init, wrong, other, batches = jax.random.split(jax.random.key(seed), 4)
        y = jnp.where(
            jax.random.bernoulli(wrong, 0.15, (400,)),
            jax.random.randint(other, (400,), 0, 10),
            Y[:400],
        )
        tx = dwd.adamw(RATE, weight_decay=DECAY, schedule=schedule, rounding=rounding)
        params = model.init(init, X[:1])["params"]

        def step(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (64,), 0, 400)
            grads = jax.grad(loss_of)(params, X[rows], y[rows])
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), None

        keys = jax.random.split(batches, TRAINING)
        (end, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        start, wide = (jax.tree.map(lambda p: p.astype(jnp.float32), x) for x in (params, end))
        first, last = (x["layers_0"]["kernel"][UNLIT] for x in (start, wide))
        left = jnp.linalg.norm(last) / jnp.linalg.norm(first)
        return {"loss": loss_of(end, X[400:], Y[400:]), "norm": optax.tree.norm(wide), "left": left}

    return run


runs = {}
for name, form in FORMS.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Known by now.
        runs[name] = sweep.grid(training(*form), seed=np.arange(SEEDS))

exact = float(jnp.prod(1 - DECAY * schedule(jnp.arange(TRAINING))))
print(
    f"Without gradient {exact:.3f} of a weight should be left. Mean ± deviation over {SEEDS} seeds:"
)
print("                       left   test loss      ... less float32's  norm less float32's")
for name, run in runs.items():
    loss, norm = (run[key] - runs["float32"][key] for key in ("loss", "norm"))
    print(
        f"{name:21}  {run['left'].mean():.3f}  {run['loss'].mean():.3f} ± {run['loss'].std():.3f}  "
        f"{loss.mean():+.3f} ± {loss.std():.3f}     {norm.mean():+.2f} ± {norm.std():.2f}"
    )
