# %% [markdown]
# # Scaling the decay with batch, data and width
#
# You found a good decay at one size. Now the batch is larger, there is more data, the network is wider:
# **by which rule does the decay go along, what does each rule keep constant, and does the best decay
# move as it says?** The published rules do not agree. They are derived here in a line each, and then all
# of them are asked to carry one tuned number to other sizes, where the best number is measured too.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import hyperparams, plots, sweep

# %% [markdown]
# ## What each rule keeps
#
# Everything is per step, the paper's unit: a step removes $\eta_t\lambda$ of a weight. With batches of
# $b$ out of $B$ examples an epoch has $n = B/b$ steps. For a given number of epochs every rule is
# $\lambda \propto n^{-p}$:
#
# | rule | keeps constant | $p$ |
# |---|---|---|
# | the same decay per step | $\lambda$, what a step removes | $0$ |
# | normalized decay (Loshchilov, Hutter) | $\lambda\sqrt{n \cdot \text{epochs}}$ | $\tfrac12$ |
# | timescale (Wang, Aitchison) | $1/(\lambda n)$, the epochs that weights remember | $1$ |
# | the same number in `optax.adamw` | $\lambda/\alpha$, and the size of weights | that of $\alpha$ |
#
# The last one depends on what the learning rate does: $p = 0$ where it stays, $p = \tfrac12$ where it
# goes as the root of the batch. Weights under decay are $\alpha/\lambda$ times an average of Adam's
# steps, which is why that quotient sets their size. For the width $d$ it is $\lambda \propto d^{-p}$
# again. The learning rate of an Adam-like optimizer then goes as $1/d$, and the rules are
#
# | rule | keeps constant | $p$ |
# |---|---|---|
# | the same decay per step (Kosson et al.) | $\lambda$ | $0$ |
# | root of the width (Fan et al.) | the matrices' largest singular value | $\tfrac12$ |
# | the same number in `optax.adamw` | $\lambda/\alpha$ | $1$ |
#
# So to measure how the best decay moves is to measure $p$. The library has the rules:

# %%
BATCH, DATA, WIDTH, EPOCHS = 32, 256, 48, 30  # the size at which we tune
scaled = {
    "normalized": dwd.normalized_weight_decay(
        dwd.normalize_weight_decay(0.016, BATCH, DATA, EPOCHS), BATCH, 4 * DATA, EPOCHS
    ),
    "timescale, data": hyperparams.weight_decay_at_dataset_size(0.016, DATA, 4 * DATA),
    "timescale, batch": hyperparams.weight_decay_at_batch_size(0.016, BATCH, BATCH // 4),
    "root of the width": hyperparams.weight_decay_at_width(0.016, WIDTH, 4 * WIDTH),
}
print("four times the steps in an epoch, or the width:")
for rule, decay in scaled.items():
    print(f"{rule:18} 0.016 -> {decay:g}")

# %% [markdown]
# ## One program for all sizes
#
# A perceptron on handwritten digits with 15 % wrong labels, AdamW, a cosine over all steps. The sizes
# are arguments like any other number: a batch is a mask over the largest one, and the steps are the
# bound of a loop. So `sweep.grid` compiles once a width, and fills every device with decays and seeds.
# A seed draws its digits too, to learn from and to be tested on: with the same 256 for all, the seeds
# agree on a best decay that the next 256 do not share.

# %%
CLASSES, NOISE, LARGEST_BATCH = 10, 0.15, 4 * BATCH
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
HELD_OUT = 386  # to choose by; as many again to test; the rest to learn from


def logits(params, x):
    *hidden, (w, b) = params
    for v, c in hidden:
        x = jax.nn.relu(x @ v + c)
    return x @ w + b


def training(width):
    """A run of a network of this width, to its error on held-out digits and on test digits."""
    sizes = (images.shape[1], width, width, CLASSES)

    def train(seed, learning_rate, weight_decay, batch_size, dataset_size):
        start, order, shift, which, batches = jax.random.split(jax.random.key(seed), 5)
        order = jax.random.permutation(order, len(labels))
        x, y = images[order], labels[order]
        params = [
            (jax.random.normal(key, (n, m)) / n**0.5, jnp.zeros(m))
            for key, n, m in zip(jax.random.split(start, 3), sizes, sizes[1:], strict=False)
        ]
        others = (y + jax.random.randint(shift, y.shape, 1, CLASSES)) % CLASSES
        targets = jnp.where(jax.random.uniform(which, y.shape) < NOISE, others, y)
        steps = EPOCHS * dataset_size // batch_size
        schedule = dwd.cosine_warm_restarts_schedule(steps)
        tx = dwd.adamw(learning_rate, weight_decay=weight_decay, schedule=schedule)
        in_batch = jnp.arange(LARGEST_BATCH) < batch_size

        def step(count, carry):
            params, state = carry
            key = jax.random.fold_in(batches, count)
            batch = 2 * HELD_OUT + jax.random.randint(key, (LARGEST_BATCH,), 0, dataset_size)

            def loss(params):
                out = logits(params, x[batch])
                losses = optax.softmax_cross_entropy_with_integer_labels(out, targets[batch])
                return jnp.sum(losses * in_batch) / batch_size

            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        params, _ = jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))
        wrong = logits(params, x[: 2 * HELD_OUT]).argmax(axis=1) != y[: 2 * HELD_OUT]
        return wrong.reshape(2, HELD_OUT).mean(axis=1)

    return train


# %% [markdown]
# At every size the decay is swept, at a learning rate high enough for decay to matter (the notebook on
# the [plane](learning_rate_weight_decay_plane.ipynb) says why). The steps in an epoch change by four in
# three ways: by the batch, by the batch with a learning rate that goes as its root, and by the data. The
# width changes by two, with the learning rate of all leaves.

# %%
RATE, DECAYS, SEEDS = -6, np.arange(-10, -3), 8  # powers of two
TUNED = (BATCH, DATA, WIDTH, RATE)
SIZES = {  # by what changes: log2 of the change, and what is trained with less and with more
    "batch": (2, (BATCH * 4, DATA, WIDTH, RATE), (BATCH // 4, DATA, WIDTH, RATE)),
    "batch, root rate": (
        2,
        (BATCH * 4, DATA, WIDTH, RATE + 1),
        (BATCH // 4, DATA, WIDTH, RATE - 1),
    ),
    "data": (2, (BATCH, DATA // 4, WIDTH, RATE), (BATCH, DATA * 4, WIDTH, RATE)),
    "width": (1, (BATCH, DATA, WIDTH // 2, RATE + 1), (BATCH, DATA, WIDTH * 2, RATE - 1)),
}
trainings = {width: training(width) for width in (WIDTH, WIDTH // 2, WIDTH * 2)}
parts = {}  # of both parts, decays x seeds
for size in tqdm([TUNED, *(size for _, *pair in SIZES.values() for size in pair)]):
    batch_size, dataset_size, width, rate = size
    found = sweep.grid(
        trainings[width], weight_decay=2.0**DECAYS, seed=np.arange(SEEDS), learning_rate=[2.0**rate],
        batch_size=[batch_size], dataset_size=[dataset_size],
    )  # fmt: skip
    parts[size] = 100 * np.moveaxis(np.asarray(found).reshape(len(DECAYS), SEEDS, 2), -1, 0)
errors = {size: of_parts.mean(axis=0) for size, of_parts in parts.items()}

with plots.house_style():
    figure, panels = plt.subplots(1, 4, figsize=(10.5, 2.8), sharey=True)
    for panel, (what, (doublings, less, more)) in zip(panels, SIZES.items(), strict=True):
        names = f"÷ {2**doublings}", "tuned", f"× {2**doublings}"
        for size, name in zip((less, TUNED, more), names, strict=True):
            panel.plot(DECAYS, errors[size].mean(axis=1), "o-", markersize=3, label=name)
        title = "width" if what == "width" else f"steps, by {what}"
        panel.set(title=title, xlabel=r"$\log_2$ of the decay per step", ylim=(0, 40))
        panel.legend()
    panels[0].set_ylabel("error (%)")
    plt.show()

# %% [markdown]
# ## How the best decay moves
#
# The best decay of each seed, and the $p$ between the ends, with its standard error over seeds:

# %%
print("log2 of the best decay    less  tuned   more        p")
for what, (doublings, less, more) in SIZES.items():
    of_seeds = [DECAYS[errors[size].argmin(axis=0)] for size in (less, TUNED, more)]
    p = (of_seeds[0] - of_seeds[2]) / (2 * doublings)
    means = " ".join(f"{x.mean():6.1f}" for x in of_seeds)
    print(f"{what:22} {means}    {p.mean():5.2f} ± {p.std(ddof=1) / SEEDS**0.5:.2f}")

# %% [markdown]
# ## What each rule would have cost
#
# The bottoms of those curves are flat, so where exactly the lowest point lies matters less than what it
# costs to miss it. Take the decay that is best at the tuned size, on average over seeds, carry it to the
# others by each rule, and read off the error. What is best is chosen on one half of the digits that were
# not learned from, and all errors are those of the other half.

# %%
held_out, mean = ({size: x[part].mean(axis=1) for size, x in parts.items()} for part in (0, 1))
best = {size: mean[size][x.argmin()] for size, x in held_out.items()}
tuned = DECAYS[parts[TUNED][0].argmin(axis=0)].mean()
error = np.interp(tuned, DECAYS, mean[TUNED])
epochs = hyperparams.timescale(2.0**tuned, DATA // BATCH)
print(f"tuned: decay 2^{tuned:.1f}, {error:.1f} %, timescale {epochs:.0f} of {EPOCHS} epochs\n")
print("test error (%)            best   p = 0   p = 1/2   p = 1   same λ/α")
cost = []
for what, (doublings, *pair) in SIZES.items():
    for change, size in zip((-doublings, doublings), pair, strict=True):
        of_rate = (RATE - size[3]) / change
        carried = tuned - change * np.array([0, 0.5, 1, of_rate])
        by_rule = np.interp(carried, DECAYS, mean[size])
        cost.append(by_rule - best[size])
        sign = "÷" if change < 0 else "×"
        print(
            f"{what:18} {sign} {2**doublings}  {best[size]:6.1f}"
            "{:8.1f}{:10.1f}{:8.1f}{:11.1f}".format(*by_rule)
        )
print("{:29}{:8.1f}{:10.1f}{:8.1f}{:11.1f}".format("most above the best", *np.max(cost, axis=0)))

# %% [markdown]
# ## What came out
#
# * **Batch.** At a fixed learning rate the best decay per step stays about where it is; with a rate that
#   goes as the root of the batch, so does the decay. Both are the last column: the size $\alpha/\lambda$
#   stays. It is off by three points at most, and the normalized decay by two, as too large a decay costs
#   more than too small a one. A constant timescale in epochs asks for a larger exponent than is found,
#   and is off by eight, although the tuned one lies in the range that its authors advise, from one epoch
#   to all of them.
# * **Data.** There is no power law to find: the best decay is smaller with less data than at the tuned
#   size, and smaller with more as well. The $p$ between the ends is then about 0 with a small error, and
#   describes neither step. The errors say more: with little data a decay that grows in proportion is far
#   too much, and with much data all rules are near the best.
# * **Width.** The three curves nearly coincide: the decay per step stays, or goes as the root, which a
#   factor of two does not tell apart.
#
# This is one small perceptron, with runs of 60 to 960 steps in which the shortest have hardly forgotten
# their start. The timescale was proposed from networks that train far longer. What carries over is the
# way to find out: the rules are three points on a line, and a run at each of them tells which it is.
#
# ## What to do
#
# * Decide on the learning rate first. Where it changes, a rule for $\lambda$ per step and one for
#   $\lambda/\alpha$ are different rules; `hyperparams.weight_decay_at_learning_rate` goes between them.
# * At a new batch size start from the same $\lambda/\alpha$, and try the normalized decay.
# * With much more data try the normalized decay, and the same timescale.
# * Nothing tuned yet? `suggest` shows what the published rules give. They differ by more than ten times,
#   and the tuned decay is among them:

# %%
rules = dwd.suggest(learning_rate=2.0**RATE, batch_size=BATCH, dataset_size=DATA, epochs=EPOCHS)
for row in rules.rows:
    print(f"{row.rule:38} {float(row.per_step):.4f} per step, {row.source}")
print(f"{'tuned':38} {2.0**tuned:.4f} per step, of error {error:.1f} %")
