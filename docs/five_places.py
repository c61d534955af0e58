"""Draw docs/five_places.png: the chain with its places, and what each does to a weight.

    python docs/five_places.py

The curves are measured: optimizers of this library on a weight that gets no gradient.
"""

import pathlib

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import optax
from matplotlib.patches import FancyBboxPatch

import decoupled_wd as dwd

STEPS, RATE, REMOVED = 1000, 1e-3, 2.4e-3
# Okabe and Ito's colours, which colour-blind readers can tell apart.
PLACES = {
    "A": ("A  coupled, L2 regularization", "#D55E00", "-"),
    "B": ("B  decoupled, per unit of learning rate", "#0072B2", "-"),
    "C": ("C  decoupled, per unit of schedule (the paper)", "#009E73", "-"),
    "D": ("D  decoupled, per step", "#CC79A7", "-"),
    "corrected": (r"B with $\lambda\eta_t$, corrected", "#56B4E9", "--"),
}


def optimizer(place, rate):
    """The five, with lambda such that at the first learning rate all but A remove REMOVED a step."""
    schedule = optax.cosine_decay_schedule(1.0, STEPS)
    coupled = {"weight_decay": REMOVED / RATE, "schedule": schedule}
    return {
        "A": lambda: dwd.adam_l2(rate, weight_decay=0.1, schedule=schedule),
        "B": lambda: dwd.adamw(rate, coupling="learning_rate", **coupled),
        "C": lambda: dwd.adamw(rate, weight_decay=REMOVED, schedule=schedule),
        "D": lambda: dwd.adamw(rate, weight_decay=REMOVED, schedule=schedule, coupling="none"),
        "corrected": lambda: dwd.adamw(rate, coupling="corrected", **coupled),
    }[place]()


def path_without_gradient(tx):
    """A weight that starts at 1, after every step."""

    def step(carry, _):
        theta, state = carry
        updates, state = tx.update(jnp.zeros(()), state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    theta = jnp.ones(())
    return jax.lax.scan(step, (theta, tx.init(theta)), length=STEPS)[1]


def draw_chain(axes):
    """The chain, its boxes and the places between them."""
    axes.set(xlim=(0, 100), ylim=(0, 14))
    axes.axis("off")
    parts = [
        (3.5, 1.6, "g", None),
        (14, 2.6, "A", "A"),
        (31, 14.6, "scale_by_adam", None),
        (47, 2.6, "B", "B"),
        (57, 6, r"$\times\,\alpha$", None),
        (66.5, 2.6, "C", "C"),
        (76, 6, r"$\times\,\eta_t$", None),
        (85.5, 2.6, "D", "D"),
        (95.5, 6, r"$\times(-1)$", None),
    ]
    says = {
        "A": "$\\lambda'\\theta$ goes\nthrough the moments",
        "B": r"$\alpha\eta_t\,\lambda\theta$",
        "C": r"$\eta_t\,\lambda\theta$",
        "D": r"$\lambda\theta$",
    }
    axes.plot([parts[0][0], parts[-1][0]], [9, 9], color="0.6", zorder=0)
    for x, width, text, place in parts:
        colour = PLACES[place][1] if place else "0.25"
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2 - 0.8, 6.9), width + 1.6, 4.2, linewidth=1.4,
                boxstyle="round,pad=0.1,rounding_size=0.8",
                facecolor=colour if place else "white", edgecolor=colour,
            )
        )  # fmt: skip
        style = {"color": "white", "weight": "bold"} if place else {"color": colour}
        axes.text(x, 9, text, ha="center", va="center", fontsize=11, **style)
        if place:
            axes.text(x, 4.4, says[place], ha="center", va="center", fontsize=10, color=colour)
    axes.text(50, 0.4, "decay of θ in one step, by the place where the term is added",
              ha="center", fontsize=10, color="0.35")  # fmt: skip


def main():
    """Draw and save."""
    figure = plt.figure(figsize=(10, 5.4), layout="constrained")
    chain, curves = figure.subfigures(2, 1, height_ratios=(1, 2.1))
    draw_chain(chain.add_axes((0, 0, 1, 1)))
    panels = curves.subplots(1, 2, sharey=True)
    for axes, factor in zip(panels, (1, 2), strict=True):
        for place, (label, colour, style) in PLACES.items():
            path = path_without_gradient(optimizer(place, factor * RATE))
            # B and C coincide at the first learning rate: the wide line shows under the narrow one.
            width = 4.5 if place == "B" else 1.8
            axes.plot(path, style, color=colour, label=label, linewidth=width)
        times = "" if factor == 1 else f"{factor} × "
        title = f"learning rate {times}{RATE:g}"
        axes.set(title=title, xlabel="step", ylim=(0, 1.02), xlim=(0, STEPS))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("a weight without gradient")
    figure_legend = panels[1].get_legend_handles_labels()
    curves.legend(*figure_legend, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
