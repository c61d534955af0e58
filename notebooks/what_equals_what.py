# %% [markdown]
# # What equals what
#
# Two optimizers with different names, numbers and orders of operations may take the same path; two of
# one name may not. Which is it for the one in *your* training script? `equivalence.check` runs two
# optimizers side by side and says whether, where and when they part; `equivalence.fit` looks for the
# numbers that bring one closest to another; the catalogue says what is known, with proofs, and runs it.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import decoupled_wd as dwd
from decoupled_wd import equivalence, masks, plots

# %% [markdown]
# ## Your optimizer
#
# Put yours here. This one is an AdamW as many scripts have it: the weight is multiplied by one minus
# learning rate times decay, and then makes Adam's step.

# %%
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1
schedule = optax.cosine_decay_schedule(1.0, 300)


def my_adamw(learning_rate, weight_decay, schedule, b1=0.9, b2=0.999, eps=1e-8):
    """AdamW by hand."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"step": jnp.zeros((), jnp.int32), "m": zeros, "v": zeros}

    def update(gradients, state, params):
        t = state["step"] + 1
        rate = learning_rate * schedule(state["step"])
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], gradients)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state["v"], gradients)

        def move(theta, m, v):
            decayed = theta * (1 - learning_rate * weight_decay)
            adam = (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + eps)
            return decayed - rate * adam - theta

        return jax.tree.map(move, params, m, v), {"step": t, "m": m, "v": v}

    return optax.GradientTransformation(init, update)


mine = my_adamw(LEARNING_RATE, WEIGHT_DECAY, schedule)
paper = dwd.adamw(LEARNING_RATE, weight_decay=LEARNING_RATE * WEIGHT_DECAY, schedule=schedule)
found = equivalence.check(mine, paper)
print(found)
assert found.verdict == "difference"
assert found.step == 1

# %% [markdown]
# They agree in the first step and part in the second. Not by rounding: both were also run with the last
# bits of every operation changed, and that moves them far less. What is it, then? Ask the
# other meanings of decay:

# %%
meanings = {
    "learning_rate": WEIGHT_DECAY,
    "none": WEIGHT_DECAY * LEARNING_RATE,
    "corrected": WEIGHT_DECAY,
}
verdicts = {}
for coupling, weight_decay in meanings.items():
    theirs = dwd.adamw(
        LEARNING_RATE, weight_decay=weight_decay, schedule=schedule, coupling=coupling
    )
    verdicts[coupling] = equivalence.check(mine, theirs).verdict
    print(f"{coupling:14} {verdicts[coupling]}")
assert [c for c, verdict in verdicts.items() if verdict == "rounding"] == ["none"]

# %% [markdown]
# It is AdamW with `coupling="none"`: `learning_rate`, where `rate` was meant, so that the decay ignores
# the schedule. A test of shapes does not see that, and a loss curve hardly shows it. At the end of this
# cosine the step is zero, and the weights still shrink.
#
# With your own model the answer has paths. Pass `params`, and `problem` (the gradient as a function of
# parameters and step) or `gradients` that you recorded. Here one side has a mask:

# %%
params = {
    "embed": jnp.ones((8, 4)),
    "block": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
}
found = equivalence.check(
    optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
    dwd.adamw(
        LEARNING_RATE, weight_decay=WEIGHT_DECAY, coupling="learning_rate", mask=masks.matrices()
    ),
    params=params,
)
print(found)
assert [path for path, step in found.parted] == ["block/bias"]

# %% [markdown]
# ## Which numbers come closest?
#
# A switch from one form to another needs new numbers. Is there an L2 coefficient that makes Adam + L2
# do what AdamW does? `fit` searches from 16 starts, through the optimizers' own trajectories:

# %%
found = equivalence.fit(
    lambda h: dwd.adam_l2(LEARNING_RATE, weight_decay=h["l2"]),
    optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
    free={"l2": (1e-6, 10.0)},
)
print(found)
assert found.verdict == "a gap remains"

# %% [markdown]
# All starts agree on the best one, and it is not good enough: within 60 steps there is a gap of one part
# in a few hundred, where rounding is one in $10^{15}$. A search is evidence; row N1 of the catalogue is
# the proof.
#
# And SGD with momentum? Let the other side choose its momentum, its L2 coefficient, and what its
# buffer starts from, $n_0 = c\,\theta_0$:

# %%
numbers = {"alpha": 0.05, "beta": 0.9, "lam": 0.02}
found = equivalence.fit(
    lambda h: dwd.sgd_l2(h["alpha"], h["momentum"], weight_decay=h["l2"]),
    lambda h: dwd.sgdw(h["alpha"], h["beta"], weight_decay=h["lam"]),
    free={"l2": (1e-4, 10.0), "momentum": (0.5, 0.99)},
    start_scale=(-1.0, 1.0),
    values=numbers,
)
print(found)
assert found.verdict == "equal"

# %% [markdown]
# Equal to the last digits, at numbers that ask to be read: $0.882 = 0.9\,(1 - 0.02)$,
# $0.04 = 0.02\,(1 - 0.9)/0.05$ and $0.0204 = 0.02/(1 - 0.02)$. That is row b1. Its derivation is short:
# both optimizers are linear filters of the gradients. Without their buffers,
#
# $$\theta_t = (1 - \lambda + \beta)\,\theta_{t-1} - \beta(1 - \lambda)\,\theta_{t-2} - \alpha g_t
# \qquad\text{and}\qquad
# \theta_t = (1 + \beta' - \alpha\lambda')\,\theta_{t-1} - \beta'\,\theta_{t-2} - \alpha g_t,$$
#
# and equal coefficients give $\beta' = \beta(1-\lambda)$ and $\lambda' = \lambda(1-\beta)/\alpha$.

# %%
best = found.minimizers[0]
alpha, beta, lam = numbers.values()
assert abs(best.values["momentum"] - beta * (1 - lam)) < 1e-9
assert abs(best.values["l2"] - lam * (1 - beta) / alpha) < 1e-9
assert abs(best.start_scale - lam / (1 - lam)) < 1e-9
equivalence.explain("b1")

# %% [markdown]
# The map takes a new momentum *and* a new start of the buffer. "SGD needs no decoupling, it is the same
# there" holds without momentum (row a1), and with it only at other numbers: at the same momentum and
# $\lambda' = \lambda/\alpha$ the two part (row N3).
#
# ## The catalogue
#
# Rows are run, not quoted. An equality is held to $10^{-10}$ in float64 over hundreds of steps, while a
# mutant, one constant of its map changed, must fail; a separation has a gap worked out by hand.

# %%
DRAWN = [
    ("SGD + L2", "SGDW", "a1"),
    ("SGDW, momentum", "heavy ball + L2", "b3"),
    ("SGDW, momentum", "heavy ball + L2", "N3"),
    ("AdamW", "optax.adamw", "k1"),
    ("AdamW", "AdamC", "k2"),
    ("AdamW", "decay first (PyTorch)", "c3"),
    ("AdamW", "Adam, then proximal decay", "d2"),
    ("AdamW", "decay without schedule", "N13"),
    ("AdamW", "Adam + L2", "N1"),
]
rows = [equivalence.relation(name) for _, _, name in DRAWN]
reports = equivalence.check_relations(rows)
print(equivalence.text_table(rows, reports))
assert all(report.holds for report in reports)

# %%
signs = {True: "≠", False: "="}
pairs = [
    (left, right, f"{signs[row.verdict == 'never']} {name}")
    for (left, right, name), row in zip(DRAWN, rows, strict=True)
]
axes = plots.relations(pairs)
plt.show()

# %% [markdown]
# Solid lines are equalities, each under the map of its row; dashed ones part whatever the map, or, as
# N3 and N13, at the numbers one would think of. All rows, with proofs: `docs/relations.md`.

# %%
kinds = [row.verdict for row in equivalence.CATALOGUE]
print(f"{kinds.count('bitwise') + kinds.count('rounding')} equalities")
print(f"{kinds.count('never')} separations")
print(f"{kinds.count('limit')} limits, where a gap goes to zero with a number")
print(f"{len(equivalence.PROPERTIES)} properties of single optimizers")

# %% [markdown]
# ## What to do
#
# * Before you trust an optimizer of your own, a port, or a new version of a library, `check` it against
#   the one that you mean, with the schedule and the steps in which they could differ: a warm-up, a
#   restart, an end. A difference shows only where it acts.
# * Put `equivalence.assert_equivalent(mine, theirs)` into your tests: its message is the report above.
# * Before you tune a form of decay against another one, look for their row. If they are equal the
#   search is over one family, and what differs is which axis you hold fixed.
# * When a number is to be carried over, `dwd.convert` has the maps of 24 libraries, and says so where
#   there is none.
