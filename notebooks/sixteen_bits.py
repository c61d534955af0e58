# %% [markdown]
# # Sixteen bits
#
# Store weights in bfloat16, ask for a decay of one in a thousand a step, and nothing decays. Why, from
# which decay on, and what to do about it? Here the threshold is derived from eight bits, measured for
# each way to round, and followed into Adam's moments, into a training, and into bytes.

# %%
import warnings

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
# A bfloat16 number has eight significant bits. Between 1 and 2 there are 128 of them, $2^{-7}$ apart,
# and between 1/2 and 1 as many, $2^{-8}$ apart. A step of decay asks for $(1-\lambda)\theta$, which is
# no bfloat16 number and is rounded to the nearest: to $\theta$ itself, if $\lambda\theta$ is less than
# half of the distance to the next number. Of the weight that half is $2^{-9}$ to $2^{-8}$, so that no
# weight moves at all up to
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
# * **With a residual**: round to nearest, keep what that took in a second 16-bit array, and add it to
#   the next step. No noise; two bytes a weight. The residual has eight bits of its own, so that it ends
#   too: a decay below $2^{-18}$ is lost again.
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


def without_gradient(dtype, rounding):
    """From the decay per step to what is left of the weights' sum."""

    def run(weight_decay):
        tx = dwd.sgdw(1.0, momentum=0.0, weight_decay=weight_decay, rounding=rounding)

        def step(carry, _):
            theta, state = carry
            u, state = tx.update(jnp.zeros_like(theta), state, theta)
            return (optax.apply_updates(theta, u), state), None

        theta = jnp.asarray(WEIGHTS, dtype)
        (left, _), _ = jax.lax.scan(step, (theta, tx.init(theta)), length=STEPS)
        return left.astype("float32").sum() / theta.astype("float32").sum()

    return run


def part_shown(form, decays):
    """How much of a decay per step the weights show."""
    left = sweep.grid(without_gradient(*form), weight_decay=decays)
    # In float32 the last bit of this root would be 6 % of the smallest decay.
    return (1 - np.asarray(left, np.float64) ** (1 / STEPS)) / decays


part = {name: part_shown(form, DECAYS) for name, form in FORMS.items()}
assert np.allclose(part["float32"], 1, atol=0.01)
assert np.all(part["bfloat16, nearest"][DECAYS <= 2**-9] == 0)
assert np.allclose(part["bfloat16, stochastic"][DECAYS >= 2**-16], 1, atol=0.02)
assert np.all(part["bfloat16, compensated"][DECAYS < 2**-18] == 0)
assert np.allclose(part["bfloat16, compensated"][DECAYS >= 2**-15], 1, atol=0.02)

above = 2.0 ** np.array([-9, -8.9, -8.5, -8, -7.5, -7, -6])
print("to nearest, log2 of the decay " + "".join(f"{np.log2(x):8.1f}" for x in above))
found = part_shown(FORMS["bfloat16, nearest"], above)
print("of it the weights show        " + "".join(f"{x:8.1%}" for x in found))
assert np.all(found[1:3] < 0.05)
assert found[3] > 1.3
assert np.allclose(found[4:], 1, atol=0.1)

# %%
with plots.house_style():
    axes = plt.figure(figsize=(6.4, 3.2)).add_subplot()
    for name, x in part.items():
        axes.semilogx(DECAYS, x, ".-", label=name, base=2)
    axes.axvline(1e-4, color="0.6", linestyle=":")
    axes.annotate("0.1 × 1e-3", (1e-4, 1.3), (5, 0), textcoords="offset points", color="0.4")
    axes.set(xlabel=r"decay per step $\lambda$", ylabel="of it the weights show")
    axes.legend(loc="center")
    plt.show()

# %% [markdown]
# To nearest, decay is absent up to $2^{-9}$. Between that and $2^{-8}$ the larger weights of an octave
# move, until half of the distance stops them too: of a decay of $2^{-8.5}$ they show 2 %. At $2^{-8}$
# all move, and by 138 % of what they should, as every step is rounded up. From $2^{-7.5}$ on it is right
# to a tenth. At random it is right on average at every $\lambda$; what is seen on the far left is
# chance over 4096 weights. With a residual it is right to 2 % from $2^{-15}$ on.
#
# The AdamW of Optax and that of PyTorch round to nearest and say nothing. This library says what will be
# lost when the state is made:

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
def second_moment(rounding):
    """What 2000 gradients of 0.1 make of a second moment of 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says what this cell shows.
        tx = dwd.scale_by_adam(moment_rounding=rounding)
        state = tx.init(jnp.zeros(4096, jnp.bfloat16))
    state = state._replace(nu=jnp.ones_like(state.nu))
    g = jnp.full(4096, 0.1, jnp.bfloat16)
    step = jax.jit(lambda _, state: tx.update(g, state)[1])
    return jax.lax.fori_loop(0, 2000, step, state).nu.astype(jnp.float32).mean()


exact = 0.999**2000 + (1 - 0.999**2000) * 0.01
nearest, stochastic = map(second_moment, (None, "stochastic"))
print(f"exactly {exact:.3f}, to nearest {nearest:.3f}, at random {stochastic:.3f}")
assert nearest == 1
assert abs(stochastic - exact) < 0.01

# %% [markdown]
# ## A training
#
# Gradients are larger than decay, and they are noise that may carry a weight over the threshold: is it
# all as bad in a training? A perceptron learns 400 of scikit-learn's digits, 60 of them with a random
# label; weights of pixels that are dark in all of them have no gradient.

# %%
RATE, DECAY, TRAINING, SEEDS = 1e-3, 1e-3, 1000, 4
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
X, Y = np.float32(images[order] / 16), labels[order]
UNLIT = ~X[:400].any(axis=0)  # Their weights get no gradient.
schedule = optax.cosine_decay_schedule(1.0, TRAINING)


def draw(seed):
    """Initial weights, labels and minibatches of a seed."""
    rng, y = np.random.default_rng(seed), Y[:400].copy()
    y[:60] = rng.integers(10, size=60)
    shapes = {"hidden": (64, 64), "head": (64, 10)}
    params = {name: np.float32(rng.normal(size=shape) / 8) for name, shape in shapes.items()}
    return {"params": params, "y": y, "rows": rng.integers(400, size=(TRAINING, 64))}


def loss_of(params, x, y):
    logits = jax.nn.relu(x @ params["hidden"]) @ params["head"]  # In float32.
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def training(dtype, rounding, decay=DECAY):
    """From a seed to loss on test digits, norm, and what is left of weights without gradient."""
    tx = dwd.adamw(RATE, weight_decay=decay, schedule=schedule, rounding=rounding)

    def step(carry, batch):
        params, state = carry
        grads = jax.grad(loss_of)(params, *batch)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def run(seed):
        params = jax.tree.map(lambda p: p.astype(dtype), seed["params"])
        batches = jnp.asarray(X)[seed["rows"]], seed["y"][seed["rows"]]
        (end, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
        end = jax.tree.map(lambda p: p.astype(jnp.float32), end)
        first, last = seed["params"]["hidden"][UNLIT], end["hidden"][UNLIT]
        left = jnp.linalg.norm(last) / jnp.linalg.norm(first)
        return {"loss": loss_of(end, X[400:], Y[400:]), "norm": optax.tree.norm(end), "left": left}

    return run


seeds = jax.tree.map(lambda *x: np.stack(x), *map(draw, range(SEEDS)))
runs = {}
for name, form in FORMS.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Known by now.
        runs[name] = sweep.grid(training(*form), seed=seeds)
runs["float32, no decay"] = sweep.grid(training("float32", None, 0.0), seed=seeds)

exact = float(jnp.prod(1 - DECAY * schedule(jnp.arange(TRAINING))))
print(
    f"Without gradient {exact:.3f} of a weight should be left. Mean ± deviation over {SEEDS} seeds:"
)
print("                       left   test loss      ... less float32's  norm less float32's")
for name, run in runs.items():
    loss, norm = (run[key] - runs["float32"][key] for key in ("loss", "norm"))
    spread = {key: x.std(ddof=1) for key, x in {**run, "Δloss": loss, "Δnorm": norm}.items()}
    assert (abs(loss.mean()) < 0.01) == (name not in ("bfloat16, nearest", "float32, no decay"))
    print(
        f"{name:21}  {run['left'].mean():.3f}  {run['loss'].mean():.3f} ± {spread['loss']:.3f}  "
        f"{loss.mean():+.3f} ± {spread['Δloss']:.3f}     {norm.mean():+.2f} ± {spread['Δnorm']:.2f}"
    )

# %% [markdown]
# Where there is no gradient, to nearest nothing decays, and the two ways out leave what they should.
# Where there is one, to nearest the test loss is higher by 0.1, many times the spread over seeds, and
# not for want of decay: without decay it is *lower*, in this short training. Lost is every step of less
# than 1/512 of its weight, Adam's own too: of a weight of 1/8 those below 2e-4, where the schedule ends
# up. Rounded at random, or with a residual, the training is that of float32.
#
# ## Bytes
#
# What does it cost to store, and what does a step have to move? Parameters and state are read and
# written once, gradients read once; on accelerators nothing else limits a step of an optimizer.

# %%
CHOICES = {
    "float32": ("float32", {}),
    "bfloat16, stochastic": ("bfloat16", {"rounding": "stochastic"}),
    "bfloat16, compensated": ("bfloat16", {"rounding": "compensated"}),
    "... with nu in float32": ("bfloat16", {"rounding": "compensated", "nu_dtype": "float32"}),
    "bfloat16, moments in float32": (
        "bfloat16",
        {"rounding": "stochastic", "mu_dtype": "float32", "nu_dtype": "float32"},
    ),
}
SIZE = 1_000_000
print("AdamW, bytes a parameter:      stored  moved in a step")
for name, (dtype, arguments) in CHOICES.items():
    params = jax.ShapeDtypeStruct((SIZE,), dtype)
    state = jax.eval_shape(dwd.adamw(1e-3, weight_decay=1e-4, **arguments).init, params)
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((params, state))) / SIZE
    print(f"{name:29}  {stored:6.1f}  {2 * stored + params.dtype.itemsize:6.1f}")

# %% [markdown]
# The last column is not only a count: the TPU's compiler, asked about the first three programs, has them
# move 28.0, 14.0 and 18.0 bytes (`benchmarks/traffic.py` asks it, without a TPU). Both ways out move as
# little as can be: half and two thirds of float32.
#
# ## The same bits on every device
#
# The random bits are no stream of keys. They are a hash of seed, step, the leaf's path and an element's
# index in the whole array: nothing to thread through the program or to store beside a count, and the
# same however the arrays are spread. Here over all devices there are, and on one:

# %%
tx = dwd.adamw(1e-3, weight_decay=0.1, coupling="learning_rate", rounding="stochastic")


@jax.jit
def ten_steps(theta):
    def step(carry, t):
        theta, state = carry
        u, state = tx.update(jnp.cos(theta + t), state, theta)
        return (optax.apply_updates(theta, u), state), None

    return jax.lax.scan(step, (theta, tx.init(theta)), jnp.arange(10.0))[0][0]


mesh = jax.make_mesh((jax.device_count(),), ("data",))
theta = jnp.linspace(-2, 2, 1024 * jax.device_count(), dtype=jnp.bfloat16)
spread = jax.device_put(theta, NamedSharding(mesh, PartitionSpec("data")))
one, all_ = ten_steps(theta), ten_steps(spread)
print(f"{len(all_.sharding.device_set)} devices and 1: {int(jnp.sum(one != all_))} weights differ")
assert np.array_equal(one, all_)

# %% [markdown]
# ## What to do
#
# * Weights in float32, or `rounding="stochastic"`, or `"compensated"`: as an argument of every optimizer
#   of this library, and by `dwd.with_rounding(tx, ...)` for any other of Optax.
# * At random for the fewest bytes, and for decays below $2^{-15}$. With a residual where nothing random
#   is wanted: it then follows float32 most closely.
# * Nothing may come after the rounding, and `optax.apply_updates` applies it, as Flax does by itself.
#   (Of Equinox, use not `eqx.apply_updates`: it would make the weights float32.)
# * Numbers stay in float32: a decay, a rate or a beta of 16 bits is refused, since $b_2 = 0.999$ in
#   bfloat16 is 1.
#
# Sources: rounding at random, Gupta et al., arXiv 1502.02551; the residual, Kahan 1965, and Zamirai et
# al., arXiv 2010.06192, who train so.
