# %% [markdown]
# # Where the decay goes
#
# You pass `weight_decay=0.1`. How much of a weight does one step remove? That depends on where in the
# optimizer the term $\lambda\theta$ is added, and five places are in use. Here each is derived in a
# line, built from its parts, and measured: on a weight without gradient, where decay is all there is,
# and on weights with gradients of many sizes, where L2 regularization and weight decay part.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import decoupled_wd as dwd
from decoupled_wd import plots, sweep

# %% [markdown]
# ## One chain, four places, five meanings
#
# An Optax optimizer is a chain. Adam's, with the paper's two symbols for the learning rate, a base
# $\alpha$ and a schedule $\eta_t$ that peaks at 1:
#
# $$g \;\to\; [A] \;\to\; \text{Adam} \;\to\; [B] \;\to\; \times\alpha \;\to\; [C] \;\to\; \times\eta_t
# \;\to\; [D] \;\to\; \times(-1) \;\to\; u, \qquad \theta \leftarrow \theta + u$$
#
# What stands behind Adam is linear. A term that is added there reaches the weight multiplied by what
# is still to come, and nothing else:
#
# | place | a step removes, of a weight $\theta$ | who does this |
# |---|---|---|
# | A | not a multiple of $\theta$: $\lambda'\theta$ goes through Adam | Adam + L2, `torch.optim.Adam` |
# | B | $\alpha\,\eta_t\,\lambda\,\theta$ | `optax.adamw`, `torch.optim.AdamW`, Keras |
# | C | $\eta_t\,\lambda\,\theta$ | the paper's AdamW |
# | D | $\lambda\,\theta$ | TensorFlow Addons |
# | B with $\lambda\eta_t$ | $\alpha\,\eta_t^2\,\lambda\,\theta$ | AdamC |
#
# The chain as code:

# %%
STEPS = 1000
schedule = optax.cosine_decay_schedule(1.0, STEPS)


def chain(place, learning_rate, weight_decay, schedule=schedule):
    """Adam with a decay in one of the five places."""
    adam = dwd.scale_by_adam()
    alpha, eta = optax.scale(learning_rate), optax.scale_by_schedule(schedule)
    decay = dwd.decoupled_weight_decay(weight_decay)
    corrected = dwd.decoupled_weight_decay(lambda step: weight_decay * schedule(step))
    parts = {
        "A": [dwd.add_l2_to_grad(weight_decay), adam, alpha, eta],
        "B": [adam, decay, alpha, eta],
        "C": [adam, alpha, decay, eta],
        "D": [adam, alpha, eta, decay],
        "corrected": [adam, corrected, alpha, eta],
    }
    return optax.chain(*parts[place], optax.scale(-1.0))


# %% [markdown]
# The library's optimizers are these chains, and so is Optax's. `equivalence.check` runs two optimizers
# side by side on a small stochastic problem and says whether they differ by more than rounding.

# %%
ALPHA, SHARE = 1e-3, 2.4e-3  # In the first step all but A are to remove this share of a weight.
LAMBDA = {"A": 0.1, "B": SHARE / ALPHA, "C": SHARE, "D": SHARE, "corrected": SHARE / ALPHA}
named = {
    "A": dwd.adam_l2(ALPHA, weight_decay=LAMBDA["A"], schedule=schedule),
    "B": optax.adamw(lambda step: ALPHA * schedule(step), weight_decay=LAMBDA["B"]),
    "C": dwd.adamw(ALPHA, weight_decay=LAMBDA["C"], schedule=schedule),
    "D": dwd.adamw(ALPHA, weight_decay=LAMBDA["D"], schedule=schedule, coupling="none"),
    "corrected": dwd.adamw(
        ALPHA, weight_decay=LAMBDA["corrected"], schedule=schedule, coupling="corrected"
    ),
}
for place, optimizer in named.items():
    found = dwd.equivalence.check(chain(place, ALPHA, LAMBDA[place]), optimizer, steps=100)
    print(f"{place:10} {str(found).splitlines()[0]}")
    assert found.verdict != "difference"

# %% [markdown]
# ## A weight without gradient
#
# Here decay acts alone, so that after $t$ steps $\prod_{s<t} (1 - d_s)$ of the weight is left, with
# $d_s$ as in the table. At the base learning rate the decays are chosen to begin alike; then the same
# decays run at twice the learning rate. `sweep.grid` makes one program of the runs.


# %%
def without_gradient(place):
    """From a learning rate to the path of a weight that starts at 1."""

    def run(learning_rate):
        tx = chain(place, learning_rate, LAMBDA[place])

        def step(carry, _):
            theta, state = carry
            u, state = tx.update(jnp.zeros(()), state, theta)
            theta = optax.apply_updates(theta, u)
            return (theta, state), theta

        theta = jnp.ones(())
        return jax.lax.scan(step, (theta, tx.init(theta)), length=STEPS)[1]

    return run


rates = ALPHA * np.array([1.0, 2.0])
paths = {
    place: np.asarray(sweep.grid(without_gradient(place), learning_rate=rates)) for place in LAMBDA
}

alpha, eta = rates[:, None], np.asarray(schedule(jnp.arange(STEPS)))
removed = {  # a step, by the table
    "B": alpha * eta * LAMBDA["B"],
    "C": np.ones_like(alpha) * eta * LAMBDA["C"],
    "D": np.full((2, STEPS), LAMBDA["D"]),
    "corrected": alpha * eta**2 * LAMBDA["corrected"],
}
for place, d in removed.items():
    assert np.abs(paths[place] - np.cumprod(1 - d, axis=1)).max() < 1e-4

small_and_large, tx = jnp.array([1.0, 100.0]), chain("A", ALPHA, LAMBDA["A"])
step, _ = tx.update(jnp.zeros(2), tx.init(small_and_large), small_and_large)
assert np.allclose(step, -ALPHA, rtol=1e-3)  # A moves both by the learning rate.

print("left at the end   at α    at 2α")
for place, path in paths.items():
    print(f"{place:15} {path[0, -1]:7.3f}  {path[1, -1]:7.3f}")

# %%
COLOURS = dict(zip(("B", "A", "C", "D", "corrected"), plots.OKABE_ITO, strict=False))

with plots.house_style():
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.1), sharey=True)
    for i, panel in enumerate(panels):
        for place, path in paths.items():
            style = {"color": COLOURS[place], "label": place}
            if place == "B":  # B and C coincide on the left.
                style["linewidth"] = 4
            panel.plot(path[i], "--" if place == "corrected" else "-", **style)
        panel.set(title=f"learning rate {rates[i]:g}", xlabel="step", ylim=(0, 1.02))
    panels[0].set_ylabel("a weight without gradient")
    panels[0].legend(ncols=2)
    plt.show()

# %% [markdown]
# To the right the learning rate is twice as large. C and D do not notice: their decay is a number of
# its own, which is what the paper calls decoupled. B and its correction decay twice as much: in them a
# search over the learning rate is one over the decay as well. D goes on when the schedule has come to
# its end, and the corrected form stops earliest.
#
# A is no exponential at all. Adam divides the penalty's gradient $\lambda'\theta$ by its own size, so
# the first step is $\alpha$, whatever $\lambda'$ and $\theta$ are: for a weight of 100 as for one of 1.

# %% [markdown]
# ## A weight with gradients
#
# Now let gradients be noise of size $\sigma$. Behind Adam nothing changes: B, C and D do not see
# gradients. In place A Adam's second moment is $v \approx \sigma^2 + (\lambda'\theta)^2$, and the
# penalty's part of a step is $\alpha\lambda'\theta / \sqrt{v}$, a decay per step of
#
# $$d_A \approx \frac{\alpha\,\lambda'}{\sqrt{\sigma^2 + (\lambda'\theta)^2}}.$$
#
# A weight with large gradients is hardly regularized: its decay falls as $1/\sigma$. And one with small
# gradients loses $\alpha$ a step at most, whatever $\lambda'$. To measure $d$ two copies of a weight,
# started at $1$ and $-1$, get the same noise: the distance between them shrinks by decay alone.

# %%
RATE, PENALTY, DECAY, MEASURED_STEPS = 1e-4, 0.01, 1e-5, 500
SIZES = 10.0 ** np.arange(-4, 1.6, 0.5)


def distance(place, weight_decay, weights=64):
    """From the size of gradients to what is left of a distance of 1."""

    def run(size):
        tx = chain(place, RATE, weight_decay, optax.constant_schedule(1.0))
        gradients = size * jax.random.normal(jax.random.key(0), (MEASURED_STEPS, weights))

        def step(carry, g):
            theta, state = carry
            u, state = tx.update(g, state, theta)
            return (optax.apply_updates(theta, u), state), None

        def end(start):
            theta = jnp.full(weights, start)
            return jax.lax.scan(step, (theta, tx.init(theta)), gradients)[0][0]

        return (end(1.0) - end(-1.0)) / 2

    return run


decays = {}
for place, weight_decay in {"A": PENALTY, "B": DECAY / RATE, "C": DECAY, "D": DECAY}.items():
    left = np.asarray(sweep.grid(distance(place, weight_decay), size=SIZES), np.float64)
    decays[place] = -np.log(left).mean(axis=1) / MEASURED_STEPS
predicted = RATE * PENALTY / np.sqrt(SIZES**2 + PENALTY**2)
for place in "BCD":
    assert np.allclose(decays[place], DECAY, rtol=0.01)
assert np.allclose(decays["A"], predicted, rtol=0.05)
print(f"A: {decays['A'][-1]:.1e} to {decays['A'][0]:.1e} a step; B, C, D: {DECAY:.1e} for all")

# %%
with plots.house_style():
    axes = plt.figure(figsize=(5.6, 3.2)).add_subplot()
    for place in "AC":
        label = "A" if place == "A" else "C (B and D too)"
        axes.loglog(SIZES, decays[place], "o", color=COLOURS[place], label=f"{label}, measured")
    axes.loglog(SIZES, predicted, "--", color=COLOURS["A"], label="A, predicted")
    axes.set(xlabel=r"size $\sigma$ of the gradients", ylabel="decay per step")
    axes.legend()
    plt.show()

# %% [markdown]
# Five and a half powers of ten in the size of gradients are three and a half in what A removes.
# Embeddings of rare words, the first layers of a deep network, a loss that is divided by a constant:
# whatever changes the size of gradients changes what "the same" $\lambda'$ does. No constant turns
# one form into the other; that is row N1 of the catalogue, with a witness worked out by hand.

# %%
dwd.equivalence.explain("N1")

# %% [markdown]
# ## What to do
#
# * Know your place. `dwd.convert` says what a library's numbers are elsewhere, and `dwd.like` builds the
#   optimizer that makes the same steps. `optax.adamw(3e-4, weight_decay=0.1)` removes 3e-5 a step:

# %%
print(dwd.convert("optax.adamw", "paper", learning_rate=3e-4, weight_decay=0.1))

# %% [markdown]
# * When you search over the learning rate, search at a fixed decay *per step* as well as at a fixed
#   `weight_decay`: B and C are one family (row k1), and only the axes of the search differ.
# * Compare with a paper by what a step removes, or by the half-life `dwd.half_life(d)`, and not by
#   the number in its table.
# * Leave A to SGD, where it is weight decay (row a1), unless a penalty is what you mean.
#
# Next: [what_equals_what](what_equals_what.ipynb), the checker on your own optimizer;
# [equilibrium_rotation_timescale](equilibrium_rotation_timescale.ipynb), what decay does once gradients
# push back.
