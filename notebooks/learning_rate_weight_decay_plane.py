# %% [markdown]
# # The learning-rate × weight-decay plane
#
# You tune two numbers, the learning rate $\alpha$ and the decay $\lambda$. If the best decay is the
# same at every learning rate, two searches along a line will do; if not, you search a plane, or move
# along a diagonal without knowing it. Whether it is the same depends on *what the decay is per*. So:
# **in which unit of the decay does the valley of the test error stand upright, in your setting?**
#
# All runs of the plane are one compiled program. Put your own data and network into the next cell.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import plots, sweep

TRAINING, NOISE, HIDDEN, CLASSES = 400, 0.15, 64, 10  # 15 % of the training labels are wrong.
STEPS, BATCH_SIZE = 400, 64

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])


def init(key):
    """Two hidden layers."""
    sizes = (images.shape[1], HIDDEN, HIDDEN, CLASSES)
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (n, m)) / n**0.5, "b": jnp.zeros(m)}
        for k, n, m in zip(keys, sizes, sizes[1:], strict=False)
    ]


def logits(params, x):
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


# %% [markdown]
# ## The plane
#
# `train` is one run of AdamW as the paper has it: a step moves by $\alpha\eta_t u_t$ and removes
# $\eta_t\lambda$ of every weight, with a cosine $\eta_t$ from 1 to 0. It takes its numbers as
# arguments, and `sweep.grid` makes a program of all of them, spread over the devices. A seed is what is
# random in a run: start, wrong labels, minibatches.

# %%
schedule = optax.cosine_decay_schedule(1.0, STEPS)


def train(seed, learning_rate, weight_decay):
    """The error of a run on each half of the digits it has not seen."""
    start, shift, which, batches = jax.random.split(jax.random.key(seed), 4)
    others = (labels[:TRAINING] + jax.random.randint(shift, (TRAINING,), 1, CLASSES)) % CLASSES
    replaced = jax.random.uniform(which, (TRAINING,)) < NOISE
    targets = jnp.where(replaced, others, labels[:TRAINING])
    tx = dwd.adamw(learning_rate, weight_decay=weight_decay, schedule=schedule)

    def step(carry, key):
        params, state = carry
        batch = jax.random.randint(key, (BATCH_SIZE,), 0, TRAINING)

        def loss(params):
            out = logits(params, images[batch])
            return optax.softmax_cross_entropy_with_integer_labels(out, targets[batch]).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = init(start)
    carry = params, tx.init(params)
    (params, _), _ = jax.lax.scan(step, carry, jax.random.split(batches, STEPS))
    wrong = logits(params, images).argmax(axis=1) != labels
    return jnp.stack([wrong[TRAINING::2].mean(), wrong[TRAINING + 1 :: 2].mean()])


RATES, DECAYS, SEEDS = np.arange(-10, -3), np.arange(-13, -2), 3  # powers of two
alpha, lam = 2.0**RATES, 2.0**DECAYS
halves = 100 * np.stack(
    [  # Seed by seed, for the bar; the program is compiled once.
        sweep.grid(train, seed=[seed], learning_rate=alpha, weight_decay=lam)[0]
        for seed in tqdm(range(SEEDS))
    ]
)
errors = halves.mean(axis=-1)
error = errors.mean(axis=0)
i, j = np.unravel_index(error.argmin(), error.shape)
spread = errors[:, i, j].std(ddof=1)
print(f"best: {error[i, j]:.1f} % ± {spread:.1f} % at rate 2^{RATES[i]}, decay 2^{DECAYS[j]}")

# The lowest of many is partly luck, but not on digits that had no part in the choice.
first, second = np.moveaxis(halves.mean(axis=0), -1, 0)
of_other_half = second.flat[first.argmin()], first.flat[second.argmin()]
print(f"chosen on one half of the digits and read on the other: {np.mean(of_other_half):.1f} %")

# %% [markdown]
# ## The same runs in another unit
#
# Optax, PyTorch and Keras state the decay per unit of learning rate: a step removes
# $\alpha\eta_t\tilde\lambda$. That is the same algorithm for $\tilde\lambda = \lambda/\alpha$, under any
# schedule (row `k1` of the catalogue). So their plane needs no new runs. It is this one sheared: cell
# $(\alpha, \lambda)$ moves to column $\lambda/\alpha$. What was not run is grey.

# %%
dwd.equivalence.explain("k1")
per_rate = np.arange(-6, 5)
sheared = np.full((len(RATES), len(per_rate)), np.nan)
for row, rate in enumerate(RATES):
    for column, decay in enumerate(per_rate + rate):
        if decay in DECAYS:
            sheared[row, column] = error[row, list(DECAYS).index(decay)]

with plots.house_style():
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.4))
plots.plane(error, alpha, lam, axes=panels[0])
plots.plane(sheared, alpha, 2.0**per_rate, axes=panels[1])
panels[0].set(title="the paper's unit", xlabel=r"$\lambda$ per step")
panels[1].set(
    title="Optax's, PyTorch's and Keras's", xlabel=r"$\tilde\lambda$ per unit of learning rate"
)
plots.share_colours(panels, "test error (%)")
plt.show()

# %% [markdown]
# To the left the valley leans; to the right it stands. A unit is good for tuning where **one decay
# serves all learning rates**. What does it cost to use one? Of each unit the decay is taken whose
# largest loss is smallest, a loss being what the error at a learning rate has over the best one there.

# %%
lowest = error.min(axis=1)
for unit, exponents, plane in (("step", DECAYS, error), ("unit of rate", per_rate, sheared)):
    loss = np.where(np.isnan(plane), np.inf, plane - lowest[:, None]).max(axis=0)
    print(
        f"one decay per {unit:13} 2^{exponents[loss.argmin()]:<4} costs up to {loss.min():.1f} points"
    )

# %% [markdown]
# ## Why it leans, and why not at its foot
#
# A decayed weight is a moving average of its own updates. Under a constant schedule
#
# $$\theta_t = (1-\lambda)\,\theta_{t-1} - \alpha u_t \quad\Longrightarrow\quad
# \theta_t = (1-\lambda)^t\,\theta_0 \;-\; \frac{\alpha}{\lambda} \sum_{s \le t}
# \lambda\,(1-\lambda)^{t-s}\, u_s .$$
#
# The sum is an average of updates of size about 1, with weights that add up to nearly 1. After some
# $1/\lambda$ steps the start is forgotten, and what bounds the weights is $\alpha/\lambda =
# 1/\tilde\lambda$: **the size that decay allows is a matter of the quotient**, and how fast it is
# reached one of $\lambda$ alone. That predicts a valley along $\lambda \propto \alpha$, which is slope 1
# per step and slope 0 per unit of learning rate, as far as the run is longer than $1/\lambda$. The
# multipliers of a cosine add up to half of the steps, so that this is where
#
# $$\lambda \sum_t \eta_t \;=\; \lambda\,\frac{\text{steps} + 1}{2} \;\gtrsim\; 1 .$$
#
# Below that most of the start is still there at the end. Decay takes off a part of the weights and no
# more, nothing asks for a diagonal, and the best decay is the smallest or any.

# %%
best = error.argmin(axis=1)
total = float(schedule(jnp.arange(STEPS)).sum())
helps = lowest < 0.9 * error[:, 0]  # by a tenth or more
print("rate   best: per step  per unit of rate  λ Σ η   error   hardly any decay   decay helps")
for row, column in enumerate(best):
    per_step, of_rate = f"2^{DECAYS[column]}", f"2^{DECAYS[column] - RATES[row]}"
    print(
        f"2^{RATES[row]:<4} {per_step:>14} {of_rate:>17} {lam[column] * total:6.2f} "
        f"{error[row, column]:5.1f} % {error[row, 0]:16.1f} % {'yes' if helps[row] else 'no':>13}"
    )
slope, *of_seeds = (
    np.polyfit(RATES[helps], DECAYS[plane.argmin(axis=1)][helps], 1)[0]
    for plane in (error, *errors)
)
print(
    f"\nWhere it helps, log2 of the best decay rises by {slope:.1f} for each doubling of the rate"
)
print(
    f"(single seeds: {min(of_seeds):.1f} to {max(of_seeds):.1f}); per unit of rate by {slope - 1:+.1f}."
)

# %% [markdown]
# Decay begins to help where $\lambda\sum\eta_t$ comes near 1, and from there on the two go up together,
# a little less than in proportion. At the top the quotient gives way, presumably because with $\lambda =
# 2^{-4}$ a weight lives for 16 steps, and is hardly an average over minibatches any more.
#
# So in this setting the unit of Optax, PyTorch and Keras separates the two numbers, and the paper's does
# not, although it is the one that is called decoupled. In a run too short to forget its start, or where
# another effect than the size of weights is what decay is for, it may be the other way round. That is
# why the plane is worth its minute.
#
# ## The number in every unit
#
# For a single run the unit is a matter of words. Here is the best cell in all of them; `convert` writes
# it for another library, and says what is equal and why.

# %%
best_rate, best_decay = float(alpha[i]), float(lam[j])
epoch = dwd.hyperparams.steps_per_epoch(BATCH_SIZE, TRAINING)
normalized = dwd.normalize_weight_decay(best_decay, BATCH_SIZE, TRAINING, STEPS / epoch)
print(f"per step, at the peak         {best_decay:.4g}")
print(f"per unit of learning rate     {best_decay / best_rate:.4g}")
print(f"timescale, at the peak        {dwd.timescale(best_decay):.0f} of {STEPS} steps, ", end="")
print(f"{dwd.timescale(best_decay, epoch):.0f} of {STEPS / epoch:.0f} epochs")
print(f"half-life without gradient    {dwd.half_life(best_decay):.0f} steps")
print(f"normalized (the paper's)      {normalized:.3f}")
print()
print(dwd.convert("paper.AdamW", "optax.adamw", learning_rate=best_rate, weight_decay=best_decay))

# %% [markdown]
# ## What to do
#
# * Run this on your data: change the first cell, and the powers of two until the valley is inside.
# * Upright per unit of learning rate? Then search there: `dwd.adamw(..., coupling="learning_rate")`, or
#   `optax.adamw`, first along one number and then along the other.
# * Upright per step? Then the paper's unit, `coupling="schedule"`, which is the default of this library.
# * If you keep a unit in which the valley leans, move along it: here, double both.
# * If $\lambda\sum\eta_t$ is far below 1, look for the decay last. It hardly matters.
# * `examples/learning_rate_weight_decay_plane.py` does the same for L2 regularization and SGD, with
#   statistics. What happens to the best cell when batch, data or width change is in
#   [scaling_decay](scaling_decay.ipynb).
