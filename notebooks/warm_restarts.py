# %% [markdown]
# # Warm restarts
#
# AdamWR anneals by a cosine, starts again, and doubles the cycle: at the end of every cycle there is a
# result, so that a run need not know its length. What does weight decay do meanwhile, what is it that
# AdamWR recomputes at each restart, and what does an anytime result cost? The first two are derived
# and measured on a weight without gradient, the third on handwritten digits.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import decoupled_wd as dwd
from decoupled_wd import masks, plots, sweep

# %% [markdown]
# ## What a cycle removes
#
# In a cycle of $T$ steps the multiplier is $\eta_t = \frac12(1 + \cos(\pi t/T))$. Cosines at equal
# distances add up to 1, and their squares to $T/2$, so
#
# $$\sum_{t<T} \eta_t = \frac{T+1}{2}, \qquad \sum_{t<T} \eta_t^2 = \frac{3T+4}{8}.$$
#
# A weight without gradient keeps $\prod_t (1 - d_t) \approx e^{-\sum_t d_t}$ of its size, and $d_t$ is
# $\lambda$ times 1, $\eta_t$ or $\eta_t^2$, by the place of the decay.

# %%
CYCLE, LAMBDA, ALPHA = 200, 1e-3, 1e-2
multiplier = dwd.cosine_warm_restarts_schedule(CYCLE, 2)


def path_without_gradient(tx, steps):
    """A weight that starts at 1, after every step, and the decay that its optimizer reports."""

    @jax.jit
    def run():
        def step(carry, _):
            theta, state = carry
            updates, state = tx.update(jnp.zeros(()), state, theta)
            theta = optax.apply_updates(theta, updates)
            return (theta, state), (theta, dwd.applied_weight_decay(state))

        theta = jnp.ones(())
        return jax.lax.scan(step, (theta, tx.init(theta)), length=steps)[1]

    return jax.tree.map(np.asarray, run())


derived = {
    "none": CYCLE,
    "schedule": (CYCLE + 1) / 2,
    "learning_rate": (CYCLE + 1) / 2,
    "corrected": (3 * CYCLE + 4) / 8,
}
for coupling, total in derived.items():
    per_rate = coupling in ("learning_rate", "corrected")
    weight_decay = LAMBDA / ALPHA if per_rate else LAMBDA
    tx = dwd.adamw(ALPHA, weight_decay=weight_decay, schedule=multiplier, coupling=coupling)
    left = path_without_gradient(tx, CYCLE)[0][-1]
    print(f"{coupling:14} left after a cycle {left:.4f}, derived {np.exp(-LAMBDA * total):.4f}")
    assert np.isclose(left, np.exp(-LAMBDA * total), atol=1e-3)

# %% [markdown]
# With `coupling="none"` a restart is nothing to the decay, and when a cycle has come to its end decay
# acts alone. In the others decay starts again with the step. And in all of them *a cycle twice as long
# removes twice as much* (of the logarithm of a weight), if $\lambda$ stays as it is.
#
# The paper found that longer training wants a smaller $\lambda$, and proposes as a rule
#
# $$\lambda_i = \lambda_{norm}\sqrt{\frac{b}{B\,T_i}}$$
#
# for batches of $b$ out of $B$ points and a cycle of $T_i$ epochs. `adamwr` works it out anew in every
# cycle. A cycle twice as long then removes $\sqrt2$ times as much: half way between a constant
# $\lambda$ and one that removes the same in each cycle, $\lambda_i \propto 1/T_i$.

# %%
BATCH, TRAINING, NORMALIZED = 50, 400, 0.025
EPOCH = dwd.steps_per_epoch(BATCH, TRAINING)
PERIOD, CYCLES = 5, 4  # Cycles of 5, 10, 20 and 40 epochs.
ENDS = PERIOD * (2 ** np.arange(1, CYCLES + 1) - 1)
STEPS = EPOCH * ENDS[-1]

sizes = {"batch_size": BATCH, "dataset_size": TRAINING}
tx = dwd.adamwr(1e-3, NORMALIZED, **sizes, period=PERIOD, period_mult=2)
path, weight_decay = path_without_gradient(tx, STEPS)
eta = np.asarray(dwd.cosine_warm_restarts_schedule(EPOCH * PERIOD, 2)(np.arange(STEPS)))
assert np.allclose(path, np.cumprod(1 - eta * weight_decay), rtol=1e-4)

removed = -np.diff(np.log(np.r_[1, path[EPOCH * ENDS - 1]]))
print("cycle  epochs    lambda  removed (log)  to the cycle before")
for i, total in enumerate(removed):
    begin = EPOCH * (ENDS[i] - PERIOD * 2**i)
    ratio = f"{total / removed[i - 1]:.2f}" if i else ""
    print(f"{i:5} {PERIOD * 2**i:7} {weight_decay[begin]:9.5f} {total:14.3f} {ratio:>20}")
assert np.allclose(removed[1:] / removed[:-1], np.sqrt(2), atol=0.03)

plots.schedule(eta, eta * weight_decay)
plt.show()

# %% [markdown]
# Where multiplier and decay part, $\lambda_i$ has changed: after each restart the decay peaks
# $\sqrt2$ times lower, and what is left of a weight falls by a step that is $\sqrt2$ times larger.
#
# ## Anytime results, on digits
#
# A perceptron learns 400 digits, 15 % of them mislabelled. Six trainings, each 75 epochs long:
#
# * restarts, with $\lambda$ recomputed in each cycle (AdamWR), and with $\lambda$ constant;
# * one cosine over 5, 15, 35 and 75 epochs: what one would have run, had one known when to stop.
#
# To be fair, each has its own learning rate and $\lambda_{norm}$, by validation error. *When* it is read
# turns out to matter. One who may stop at any time reads its mean over the ends of all cycles, one who
# will not reads it at the last end; so restarts and the one long cosine that they are compared with are
# chosen by both rules, and shorter cosines at their own end. Every number may be traced, the period too,
# and so all of this is one program.

# %%
HIDDEN, MISLABELLED = 64, 0.15
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = (images[order] / 16).astype(np.float32), labels[order]
parts = np.split(np.arange(len(labels)), [TRAINING, 2 * TRAINING])
train, validation, test = [(jnp.asarray(images[part]), jnp.asarray(labels[part])) for part in parts]


def logits(params, x):
    """The perceptron."""
    hidden = jax.nn.relu(x @ params["in"]["kernel"] + params["in"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def loss(params, x, y):
    """Of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def error(params, data):
    """The part that is not recognised."""
    return (logits(params, data[0]).argmax(axis=1) != data[1]).mean()


def layer(key, inputs, outputs):
    """Kernel and bias."""
    kernel = jax.random.normal(key, (inputs, outputs)) / np.sqrt(inputs)
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def training(setting, cycles, seed):
    """Validation and test error after every `PERIOD` epochs."""
    keys = jax.random.split(jax.random.key(seed), 5)
    params = {"in": layer(keys[0], 64, HIDDEN), "out": layer(keys[1], HIDDEN, 10)}
    wrong = jax.random.bernoulli(keys[2], MISLABELLED, (TRAINING,))
    other = (train[1] + jax.random.randint(keys[3], (TRAINING,), 1, 10)) % 10
    y = jnp.where(wrong, other, train[1])

    recomputed = dwd.normalized_weight_decay_schedule(
        setting["normalized"], **sizes, period=cycles["period"], period_mult=cycles["period_mult"]
    )
    constant = dwd.normalized_weight_decay(setting["normalized"], **sizes, epochs=ENDS[-1])
    tx = dwd.adamw(
        setting["learning_rate"],
        weight_decay=lambda step: jnp.where(cycles["constant"], constant, recomputed(step)),
        schedule=dwd.cosine_warm_restarts_schedule(EPOCH * cycles["period"], cycles["period_mult"]),
        mask=masks.matrices(),
    )

    def step(carry, key):
        params, state = carry
        batch = jax.random.randint(key, (BATCH,), 0, TRAINING)
        gradients = jax.grad(loss)(params, train[0][batch], y[batch])
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epochs(carry, keys):
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, {"validation": error(carry[0], validation), "test": error(carry[0], test)}

    batches = jax.random.split(keys[4], (ENDS[-1] // PERIOD, PERIOD * EPOCH))
    return jax.lax.scan(epochs, (params, tx.init(params)), batches)[1]


# %%
SEEDS, AT_ENDS = 8, ENDS // PERIOD - 1
RULES = {"all": "all ends", "end": "its own end"}
KINDS = {  # the first period in epochs, by what it grows, and whether λ is constant
    "AdamWR": (PERIOD, 2, False),
    "constant λ": (PERIOD, 2, True),
    **{f"cosine over {end}": (end, 1, False) for end in reversed(ENDS)},
}
cycles = zip(("period", "period_mult", "constant"), np.array(list(KINDS.values())).T, strict=True)
cycles = {name: values.astype(bool if name == "constant" else int) for name, values in cycles}
rates, decays = (
    x.ravel() for x in np.meshgrid(2.0 ** np.arange(-7, -3), 0.05 * 2.0 ** np.arange(5))
)
settings = {"learning_rate": rates, "normalized": decays}
errors = sweep.grid(training, setting=settings, cycles=cycles, seed=np.arange(SEEDS))
errors = jax.tree.map(lambda x: 100 * np.asarray(x), errors)  # settings x kinds x seeds x periods

EPOCHS_OF_LAMBDA = [ENDS[-1] - ENDS[-2], ENDS[-1], *reversed(ENDS)]
results = {}
print(
    "test error after epoch".ljust(32) + "".join(f"{end:>12}" for end in ENDS) + "   α, λ norm, λ"
)
for rule, words in RULES.items():
    for kind, name in enumerate(KINDS):
        shorter = max(kind - 2, 0)  # by how many ends
        if rule == "all" and shorter:
            continue
        judged = AT_ENDS if rule == "all" else AT_ENDS[len(ENDS) - 1 - shorter]
        validation = errors["validation"][:, kind][..., judged]
        best = validation.reshape(len(rates), -1).mean(axis=1).argmin()
        results[name, rule] = errors["test"][best, kind]
        at_ends = results[name, rule][:, AT_ENDS]
        line = "".join(
            f"{m:6.1f} ±{s:3.1f}%"
            for m, s in zip(at_ends.mean(axis=0), at_ends.std(axis=0, ddof=1), strict=True)
        )
        last = dwd.normalized_weight_decay(
            decays[best], BATCH, TRAINING, float(EPOCHS_OF_LAMBDA[kind])
        )
        print(
            f"{name:16} by {words}".ljust(32)
            + f"{line}   2^{np.log2(rates[best]):.0f}, {decays[best]:4g}, {last:.4f}"
        )

# %% [markdown]
# (Mean and standard deviation over 8 seeds, which also draw the wrong labels. To the right what was
# chosen, the learning rate and $\lambda_{norm}$, and the $\lambda$ of the last cycle that it gives.)
#
# The two rules choose different rates. How sharply do they? The lowest validation error at each rate:

# %%
print(
    "AdamWR at a rate of " + "".join(f"{f'2^{np.log2(rate):.0f}':>8}" for rate in np.unique(rates))
)
for rule, judged in (("all", AT_ENDS), ("end", AT_ENDS[-1:])):
    of_settings = errors["validation"][:, 0][..., judged].mean(axis=(1, 2))
    lowest = [of_settings[rates == rate].min() for rate in np.unique(rates)]
    print(f"by {RULES[rule]:17}" + "".join(f"{x:6.1f} %" for x in lowest))

# %%
DRAWN = {"restarts, λ constant": "constant λ", "one cosine": "cosine over 75", "AdamWR": "AdamWR"}
own = [
    results[f"cosine over {end}", "end"][:, i].mean() for end, i in zip(ENDS, AT_ENDS, strict=True)
]
with plots.house_style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for panel, rule in zip(panels, RULES, strict=True):
        plots.learning_curves(
            {label: results[name, rule].mean(axis=0) for label, name in DRAWN.items()},
            steps=np.arange(PERIOD, ENDS[-1] + 1, PERIOD),
            axes=panel,
        )
        panel.plot(ENDS, own, "ko", label="a cosine of this length")
        panel.set(title=f"chosen by {RULES[rule]}", xlabel="epoch", ylabel="", ylim=(5, 25))
    panels[0].set_ylabel("test error (%)")
    panels[1].legend()
    plt.show()


# %%
def difference(left, right, rule, ends):
    """Of two trainings, seed by seed: its mean, and the standard error of that."""
    of_seeds = (results[left, rule] - results[right, rule])[:, ends].mean(axis=1)
    return of_seeds.mean(), of_seeds.std(ddof=1) / np.sqrt(SEEDS)


EARLIER, END = AT_ENDS[:-1], AT_ENDS[-1:]
means = {}
print("difference in test error, chosen by".ljust(48) + "all ends    its own end")
for left, right in (
    ("constant λ", "cosine over 75"),
    ("AdamWR", "cosine over 75"),
    ("AdamWR", "constant λ"),
):
    for when, ends in (("earlier ends", EARLIER), ("at the end", END)):
        found = {rule: difference(left, right, rule, ends) for rule in RULES}
        means[left, right, when] = np.array([mean for mean, _ in found.values()])
        cells = "   ".join(f"{mean:+5.1f} ± {error:.1f} %" for mean, error in found.values())
        print(f"{left} - {right}, {when}".ljust(44) + cells)

# What holds by either rule:
assert np.all(means["constant λ", "cosine over 75", "earlier ends"] < -0.5)  # anytime
assert np.all(np.abs(means["constant λ", "cosine over 75", "at the end"]) < 1)  # for nothing,
for when in ("earlier ends", "at the end"):  # and not by recomputing.
    assert np.all(means["AdamWR", "constant λ", when] > -0.5)

# %% [markdown]
# By either rule restarts with a constant $\lambda$ are worth it: at the earlier ends they are about two
# points or more ahead of one cosine that is chosen alike, and in the end nothing is lost. Chosen on all
# ends they are, at each, where a cosine of just that length is, in one run in place of four.
#
# Whether AdamWR is worth it depends on the rule. Chosen on all ends it goes along with the constant
# $\lambda$, and ends a point higher. Chosen by its own end it ends about where the others do, but is
# late before, and no longer surely ahead of one cosine. For in the end all rates are alike, if each has
# its own $\lambda_{norm}$ (the valley of the [plane](learning_rate_weight_decay_plane.ipynb)): chance
# takes a rate, and a small one takes its time. So it is in `examples/warm_restarts.py`, which chooses by
# the end, and has AdamW with restarts behind one cosine at the first two ends.
#
# By neither rule is recomputing $\lambda$ ahead of leaving it. A hint at why is to the right of the
# table: at a rate of $2^{-5}$ cosines over 5, 15 and 35 epochs choose a $\lambda$ that grows with the
# length, perhaps as the wrong labels are learned by heart only in time, and AdamWR's shrinks. With
# `MISLABELLED = 0` the two are within 0.2 points of each other, by either rule.

# %% [markdown]
# ## What to do
#
# * Restart if you do not know when you will stop, and compare with *one cosine of the same budget*, not
#   with a constant rate. Between restarts the error is worse than at either end: read it at the ends.
# * Choose learning rate and decay by the results that you will use. If early ones are among them, the
#   last is no guide.
# * Decide what a restart is to mean for decay. `coupling="schedule"` and `"learning_rate"` restart it
#   with the step, `"none"` goes on through it, `"corrected"` peaks for a shorter time.
# * Take $\lambda_{norm}$ for what its authors called it, one possibility. `adamwr` follows the paper;
#   `dwd.adamw(rate, weight_decay=..., schedule=dwd.cosine_warm_restarts_schedule(period, 2))` keeps
#   $\lambda$, and `weight_decay` may be any function of the step. Try both on your task.
# * You may change your mind in the middle of a run: with another schedule, or a function in place of a
#   number, the optimizer's state is the same tree, and a checkpoint restores.
