"""Plots in one style: planes, learning curves, schedules, decay tables, diagnostics, relations.

They need matplotlib, which `decoupled_wd` itself does not. Each function takes arrays and returns the
Axes it drew on, a new figure's unless `axes` is given; `house_style()` gives other figures the look.
The colours are those of Okabe and Ito, and viridis, which colour-blind readers can tell apart.

| function | of |
|---|---|
| `plane`, `share_colours` | test errors over learning rates and decays |
| `learning_curves` | what was measured at every step of some runs, of one seed or more |
| `schedule` | a multiplier and the decay that follows it |
| `decay_table` | `describe_decay(params, ...)` |
| `quantity`, `equilibrium`, `overview` | a history of diagnostics |
| `relations` | what equals what |

A history is the dictionaries of `diagnostics.scalars` with the values of all steps in one array a
name, as `jax.lax.scan` stacks them:

    _, history = jax.lax.scan(step_that_returns_scalars, carry, batches)
    plots.overview(history)

What is predicted is dashed. What has no place on a logarithmic axis (a norm of 0, the infinite
timescale of a leaf without decay) is left out.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LogNorm
from matplotlib.patches import FancyArrowPatch
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike

from decoupled_wd._describe import DecayTable

__all__ = [
    "OKABE_ITO",
    "LABELS",
    "house_style",
    "plane",
    "share_colours",
    "learning_curves",
    "schedule",
    "decay_table",
    "relations",
    "quantity",
    "equilibrium",
    "overview",
]

OKABE_ITO = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442",
)  # fmt: skip

LABELS = {
    "norm": r"norm $|\theta|$",
    "rotation": "rotation per step (rad)",
    "cosine": r"cosine of $\theta$ and $u$",
    "decay": "decay per step",
    "decay_to_update": r"decay / update",
    "timescale": "timescale (steps)",
    "half_life": "half-life (steps)",
    "timescale_epochs": "timescale (epochs)",
    "half_life_epochs": "half-life (epochs)",
    "gamma_mean": r"mean $\Gamma_t$",
    "gamma_minimum": r"smallest $\Gamma_t$",
    "gamma_negative": r"fraction of $\Gamma_t < 0$",
    "noise_variance": r"noise $E|g - \nabla f|^2$",
    "noise_intercept": "noise without loss, $a$",
    "noise_slope": "noise per loss, $b$",
}
"""The quantities of `diagnostics.scalars`, in the order of `overview`, and their axes' labels."""

_LOGARITHMIC = {
    "norm", "rotation", "decay_to_update", "timescale", "half_life", "timescale_epochs",
    "half_life_epochs", "noise_variance",
}  # fmt: skip
_SIGNED = {"gamma_mean", "gamma_minimum", "noise_intercept", "noise_slope"}
"""Of either sign, and over many powers of ten in the first steps: linear near 0 alone."""
_VERDICTS = {"=": ("-", OKABE_ITO[0]), "≠": ("--", OKABE_ITO[1])}
_BEHIND_TEXT: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
_CONSTANT = 1e-5  # Some roundings of float32, to the size of the values.
_MOST_COLOURS = len(OKABE_ITO)
_EQUILIBRIUM = "equilibrium"

_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=OKABE_ITO),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "axes.labelsize": "medium",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "lines.linewidth": 1.4,
    "figure.constrained_layout.use": True,
}


def house_style() -> AbstractContextManager[None]:
    """Enter the look of these plots, for figures of one's own beside them.

    It holds for what is made inside it: make the figure there, and draw there.

    Returns:
        A context manager; after it matplotlib looks as it did.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> with plots.house_style():
        ...     plt.rcParams["axes.spines.top"]
        False
    """
    return mpl.rc_context(_STYLE)


def plane(
    values: ArrayLike,
    learning_rates: ArrayLike,
    weight_decays: ArrayLike,
    *,
    label: str = "error",
    best: int = 10,
    axes: Axes | None = None,
) -> Axes:
    """Plot an error over learning rates and decays, its best cells circled.

    Colours are logarithmic, from the lowest error, dark, to four times that; what lies above is as
    yellow as that, and what is not finite is grey. A new figure gets the bar that explains them; on Axes
    of one's own it is that of `share_colours`.

    Args:
        values: the error, of shape (learning rates, decays); 0 or more, the lower the better.
        learning_rates: of the rows, rising; positive.
        weight_decays: of the columns, rising; 0 or more.
        label: what the error is, for the bar.
        best: how many of the lowest are circled.
        axes: where to draw; a new figure if None.

    Returns:
        The Axes, a cell a unit.

    Raises:
        TypeError: values of another shape.
        ValueError: a negative value.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> axes = plots.plane([[0.3, 0.2], [0.1, 0.4]], [0.25, 0.5], [0.0, 0.5], best=1)
        >>> axes.collections[0].get_offsets().tolist()  # decay, learning rate
        [[0.0, 1.0]]
        >>> [text.get_text() for text in axes.get_xticklabels()]
        ['0', '$2^{-1}$']
        >>> plt.close(axes.figure)
    """
    errors, rates, decays = (np.asarray(x, float) for x in (values, learning_rates, weight_decays))
    if errors.shape != (rates.size, decays.size):
        raise TypeError(
            f"`values` has shape {errors.shape}, and there are {rates.size} learning rates and "
            f"{decays.size} decays: {(rates.size, decays.size)} is needed. Of seeds, pass the mean."
        )
    if (errors < 0).any():
        raise ValueError(
            f"`values` has {errors[errors < 0].min():g}, and colours are logarithmic: pass an error, "
            "0 or more."
        )
    finite = np.isfinite(errors)
    lowest = errors.min(where=finite & (errors > 0), initial=np.inf)
    # The scale has no zero: what is 0 everywhere is as dark as can be.
    lowest = lowest if np.isfinite(lowest) else 1.0
    with house_style():
        new = axes is None
        axes = _given_or_new(axes)
        axes.imshow(
            np.where(finite, np.maximum(errors, lowest), np.nan),
            origin="lower", norm=LogNorm(lowest, 4 * lowest),
            cmap=mpl.colormaps["viridis"].with_extremes(bad="0.75"),
        )  # fmt: skip
        axes.grid(visible=False)
        order = np.where(finite, errors, np.inf).argsort(axis=None, kind="stable")
        i, j = np.unravel_index(order[: min(best, finite.sum())], errors.shape)
        size = np.full(i.shape, 0.5)  # Of a cell, however small it is drawn.
        axes.add_collection(
            EllipseCollection(
                size, size, np.zeros_like(size), units="xy", facecolors="none", edgecolors="white",
                linewidths=1.6, offsets=np.column_stack((j, i)), offset_transform=axes.transData,
            )
        )  # fmt: skip
        for axis, numbers in ((axes.yaxis, rates), (axes.xaxis, decays)):
            every = -(-len(numbers) // 8)  # More than eight labels would overlap.
            labels = _powers(numbers)[::every]
            axis.set_ticks(range(len(numbers))[::every], labels)
        if not labels[-1].startswith("$"):
            axes.tick_params(axis="x", rotation=45)
        axes.set_xlabel(r"weight decay $\lambda$")
        axes.set_ylabel(r"learning rate $\alpha$")
        if new:
            share_colours([axes], label)
    return axes


def share_colours(planes: Sequence[Axes], label: str = "error") -> Axes:
    """Give planes beside one another the same colours, and a bar that explains them.

    Args:
        planes: Axes of one figure that `plane` drew on.
        label: what the error is.

    Returns:
        The Axes of the bar.

    Raises:
        ValueError: Axes without a plane.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> figure, all_axes = plt.subplots(1, 2)
        >>> for lowest, axes in zip((0.1, 0.2), all_axes):
        ...     _ = plots.plane([[lowest]], [0.5], [0.5], axes=axes)
        >>> bar = plots.share_colours(all_axes, "test error")
        >>> [round(float(axes.images[0].norm.vmax), 1) for axes in all_axes]  # four times the lowest
        [0.4, 0.4]
        >>> plt.close(figure)
    """
    images: list[Any] = [image for axes in planes for image in axes.images]
    if not images:
        raise ValueError(
            "`planes` has no picture of a plane. Pass Axes that `plots.plane` drew on."
        )
    lowest = min(image.norm.vmin for image in images)
    norm = LogNorm(lowest, 4 * lowest)
    for image in images:
        image.set_norm(norm)
    with house_style():
        bar = planes[0].figure.colorbar(
            images[0], ax=list(planes), extend="max", format="%g", label=label, shrink=0.8, pad=0.01,
            ticks=LogLocator(subs=(1, 1.5, 2, 2.5, 3, 4, 6, 8)),
        )  # fmt: skip
        bar.minorticks_off()
    return bar.ax


def learning_curves(
    curves: Mapping[str, ArrayLike | Mapping[str, ArrayLike]],
    *,
    steps: ArrayLike | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Plot what was measured along some runs: their mean over seeds, and its range.

    Args:
        curves: by the name of a run, values of shape (steps,) or (seeds, steps); or of two kinds, such
            as `{"train": values, "test": values}`, the second of which is dashed.
        steps: the time of each value; 0, 1, 2, ... if None.
        axes: where to draw; a new figure if None.

    Returns:
        The Axes. Its vertical axis has no name yet: `axes.set_ylabel("loss")`.

    Raises:
        TypeError: values of another shape.
        ValueError: more than two kinds, or not as many values as steps.

    Example:
        Two seeds, whose mean is drawn:

        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> test = [[2.0, 1.0], [4.0, 3.0]]
        >>> axes = plots.learning_curves({"AdamW": {"train": [2.0, 1.0], "test": test}})
        >>> [line.get_ydata().tolist() for line in axes.get_lines()[:2]]
        [[2.0, 1.0], [3.0, 2.0]]
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['AdamW', 'train', 'test']
        >>> plt.close(axes.figure)
    """
    if not isinstance(curves, Mapping) or not curves:
        raise TypeError(
            f"`curves` is {'empty' if isinstance(curves, Mapping) else type(curves).__name__}, and a "
            'mapping from names to values is needed, such as `{"AdamW": losses}`.'
        )
    runs = {name: of if isinstance(of, Mapping) else {"": of} for name, of in curves.items()}
    kinds = list(dict.fromkeys(kind for of in runs.values() for kind in of))
    if len(kinds) > 2:
        raise ValueError(
            f"`curves` has the kinds {', '.join(map(repr, kinds))}, and two can be told apart, solid "
            "and dashed. Draw the others on Axes of their own."
        )
    lines = dict(zip(kinds, ("-", "--"), strict=False))
    with house_style():
        axes = _given_or_new(axes)
        for (name, of), colour in zip(runs.items(), _colours(len(runs)), strict=True):
            label = name
            for kind, given in of.items():
                values = np.asarray(given, float)
                if values.ndim not in (1, 2):
                    raise TypeError(
                        f"`curves` at {name!r} has values of shape {values.shape}, and (steps,) or "
                        "(seeds, steps) is needed."
                    )
                seeds = np.atleast_2d(values)
                time = _time("curves", {name: seeds[0]}, steps)
                axes.plot(time, seeds.mean(axis=0), lines[kind], color=colour, label=label)
                label = None
                if len(seeds) > 1:
                    _draw_range(axes, time, seeds, colour)
        if len(kinds) > 1:
            for kind, line in lines.items():
                axes.plot([], [], line, color="0.4", label=kind)
        axes.set_xlabel("step")
        axes.legend()
    return axes


def schedule(
    multiplier: ArrayLike,
    decay: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    axes: Axes | None = None,
) -> Axes:
    r"""Plot a schedule, the decay of each step, and what they leave of a weight without gradient.

    $$\prod_{s \le t} (1 - d_s)$$

    Args:
        multiplier: $\eta_t$ at every step, of shape (steps,).
        decay: $d_t$, the part of a weight that the step removes, of shape (steps,): per step, and so
            $\eta_t \lambda$ under `coupling="schedule"`.
        steps: the time of each value; 0, 1, 2, ... if None.
        axes: where to draw; a new figure if None.

    Returns:
        The Axes of the multiplier and of what is left. The decay has the right-hand axis, on
        `axes.figure.axes[-1]`.

    Raises:
        TypeError: values of another shape.
        ValueError: not as many decays, or steps, as multipliers.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> axes = plots.schedule([1.0, 0.5], [0.2, 0.1])
        >>> [line.get_ydata().round(2).tolist() for line in axes.get_lines()[:2]]
        [[1.0, 0.5], [0.8, 0.72]]
        >>> plt.close(axes.figure)
    """
    for name, values in {"multiplier": multiplier, "decay": decay}.items():
        if callable(values):
            raise TypeError(
                f"`{name}` is a callable, and its values are needed: pass `{name}(np.arange(steps))`."
            )
        if np.ndim(values) != 1:
            raise TypeError(
                f"`{name}` has shape {np.shape(values)}, and one axis, time, is needed: one value a "
                "step."
            )
    eta, removed = np.asarray(multiplier, float), np.asarray(decay, float)
    time = _time("multiplier", {"multiplier": eta}, steps)
    time = _time("decay", {"decay": removed}, time)
    with house_style():
        axes = _given_or_new(axes)
        right = axes.twinx()
        blue, red, green = OKABE_ITO[:3]
        # Where decay follows the schedule the two are one curve: the wide line shows under the narrow.
        axes.plot(time, eta, color=blue, alpha=0.35, linewidth=5, label=r"multiplier $\eta_t$")
        right.plot(time, removed, color=red)
        axes.plot(time, np.cumprod(1 - removed), color=green, label="left of a weight")
        axes.plot([], [], color=red, label="decay per step (right)")
        axes.set_ylim(bottom=min(0.0, eta.min()))
        right.set_ylim(bottom=min(0.0, removed.min()))
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
        right.tick_params(axis="y", colors=red)
        axes.set_xlabel("step")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1, handlelength=1.5
        )
    return axes


def decay_table(table: DecayTable, *, axes: Axes | None = None) -> Axes:
    """Plot what a step removes of every leaf: a bar a leaf, with its half-life.

    Args:
        table: as `describe_decay` makes it.
        axes: where to draw; a new figure, as high as the table is long, if None.

    Returns:
        The Axes, the first leaf on top.

    Raises:
        TypeError: not a table.

    Example:
        >>> import jax.numpy as jnp
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import describe_decay, masks, plots
        >>> params = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
        >>> table = describe_decay(params, masks.by_path({"bias": 0}), weight_decay=0.004)
        >>> axes = plots.decay_table(table)
        >>> [f"{bar.get_width():g}" for bar in axes.patches]
        ['0', '0.004']
        >>> [text.get_text() for text in axes.texts]
        ['no decay', 'half in 173 steps']
        >>> plt.close(axes.figure)
    """
    if not isinstance(table, DecayTable):
        raise TypeError(
            f"`table` is {type(table).__name__}, and a DecayTable is needed: pass what "
            "`describe_decay(params, mask, ...)` returns."
        )
    rows = list(table)
    with house_style():
        axes = _given_or_new(axes, (6.4, 0.9 + 0.27 * len(rows)))
        bars = axes.barh(range(len(rows)), [row.decay_per_step for row in rows], color=OKABE_ITO[0])
        says = [
            f"half in {row.half_life:,.0f} steps" if row.decay_per_step else "no decay"
            for row in rows
        ]
        axes.bar_label(bars, says, padding=4, color="0.35", fontsize="small")
        axes.set_yticks(range(len(rows)), [row.path or "(bare array)" for row in rows])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.28, y=0.02)  # There is text beside the longest.
        axes.set_xlabel("decay per step")
    return axes


def relations(pairs: Sequence[tuple[str, str, str]], *, axes: Axes | None = None) -> Axes:
    """Draw what equals what as a graph: solid where two are one, dashed where they part.

    Args:
        pairs: (left, right, verdict); the verdict begins with `=` or `≠`, and what follows, such as the
            name of a row, is written on the line. Names stand on a circle in the order in which they
            first come, so neighbours are best named together; what half of them relate to stands in
            the middle.
        axes: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        ValueError: nothing to draw, another verdict, something related to itself.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> axes = plots.relations([("SGD + L2", "SGDW", "= a1"), ("SGD + L2", "Adam + L2", "≠")])
        >>> [line.get_linestyle() for line in axes.patches]
        ['-', '--']
        >>> [text.get_text() for text in axes.texts]
        ['a1', 'SGD + L2', 'SGDW', 'Adam + L2']
        >>> plt.close(axes.figure)
    """
    if not pairs:
        raise ValueError("`pairs` is empty. Pass (left, right, verdict) for every relation.")
    between = defaultdict(list)
    for left, right, verdict in pairs:
        if verdict[:1] not in _VERDICTS or left == right:
            raise ValueError(
                f"`pairs` has {(left, right, verdict)!r}, and two names are needed, and a verdict that "
                "begins with = or ≠."
            )
        pair = (right, left) if (right, left) in between else (left, right)
        between[pair].append(verdict)
    places = _places(list(between))
    with house_style():
        axes = _given_or_new(axes, (8, 6))
        axes.set(xlim=(-1.7, 1.7), ylim=(-1.25, 1.25), aspect="equal")
        axes.set_axis_off()
        for (left, right), verdicts in between.items():
            for k, verdict in enumerate(verdicts):
                aside = k - (len(verdicts) - 1) / 2
                _join(axes, places[left], places[right], verdict, 0.24 * aside, 0.5 + 0.18 * aside)
        for name, (x, y) in places.items():
            if x == y == 0:
                box = {**_BEHIND_TEXT, "edgecolor": "0.25", "pad": 4}
                axes.text(0, 0, name, ha="center", va="center", bbox=box)
                continue
            axes.plot(x, y, "o", color="0.25", markersize=7)
            # Outside of the circle no line crosses them.
            side = "center" if abs(x) < 0.1 else "left" if x > 0 else "right"
            axes.text(1.07 * x, 1.1 * y, name, ha=side, va="center")
    return axes


def _places(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Names on a circle, from the top and clockwise, and what half of them relate to in its middle."""
    partners = Counter(name for pair in pairs for name in pair)
    ((hub, most),) = partners.most_common(1)
    has_hub = most >= max(3, len(partners) / 2)
    ring = [name for name in partners if not (has_hub and name == hub)]
    places = dict.fromkeys(partners, (0.0, 0.0))
    for k, name in enumerate(ring):
        angle = 2 * math.pi * k / len(ring)
        places[name] = (math.sin(angle), math.cos(angle))
    return places


def _join(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    verdict: str,
    bend: float,
    part: float,
) -> None:
    """A line with what a verdict has to say on it, after that part of its way."""
    line, colour = _VERDICTS[verdict[0]]
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-", connectionstyle=f"arc3,rad={bend}", linestyle=line,
            color=colour, linewidth=1.8,
        )
    )  # fmt: skip
    if verdict[1:].strip():
        dx, dy = end[0] - start[0], end[1] - start[1]
        # How far matplotlib's parabola is off the straight line.
        aside = 2 * bend * part * (1 - part)
        axes.text(
            start[0] + part * dx + aside * dy, start[1] + part * dy - aside * dx,
            verdict[1:].strip(), color=colour, ha="center", va="center", fontsize="small",
            bbox=_BEHIND_TEXT,
        )  # fmt: skip


def quantity(
    history: Mapping[str, ArrayLike],
    name: str,
    *,
    steps: ArrayLike | None = None,
    paths: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Plot one diagnostic of every leaf against time, and its equilibrium where there is one.

    Args:
        history: diagnostics, each stacked over time into one axis.
        name: a quantity, such as `"norm"`: what stands before the slash.
        steps: the time of each value; 0, 1, 2, ... if None.
        paths: the leaves to draw; all if None.
        axes: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        TypeError: values that are not stacked over time.
        ValueError: a quantity or path that is not in the history, lengths that differ.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> history = {"norm/w": [2.0, 1.5], "norm_equilibrium/w": [1.0, 1.0]}
        >>> axes = plots.quantity(history, "norm")
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['w', 'equilibrium']
        >>> plt.close(axes.figure)
    """
    with house_style():
        axes = _given_or_new(axes)
        _draw(history, name, steps, paths, axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    return axes


def equilibrium(
    history: Mapping[str, ArrayLike],
    *,
    steps: ArrayLike | None = None,
    paths: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Plot rotation and norm of every leaf, and dashed what they are predicted to tend to.

    Args:
        history: diagnostics with `rotation` and `norm`, and their `_equilibrium` for the dashed lines.
        steps: as in `quantity`.
        paths: as in `quantity`.
        axes: where to draw, two; a new figure if None.

    Returns:
        The two Axes, of the rotation and of the norm; the second has the legend.

    Raises:
        ValueError: as in `quantity`.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> turned, sized = plots.equilibrium({"rotation/w": [0.2, 0.1], "norm/w": [2.0, 1.0]})
        >>> turned.get_ylabel(), sized.get_yscale()
        ('rotation per step (rad)', 'log')
        >>> plt.close(turned.figure)
    """
    with house_style():
        if axes is None:
            axes = plt.figure(figsize=(8.4, 3.2)).subplots(1, 2)
        panels = np.asarray(axes)
        for name, panel in zip(("rotation", "norm"), panels, strict=True):
            _draw(history, name, steps, paths, panel)
        if panels[1].get_legend_handles_labels()[1]:
            panels[1].legend()
    return panels


def overview(
    history: Mapping[str, ArrayLike],
    *,
    steps: ArrayLike | None = None,
    paths: Sequence[str] | None = None,
) -> np.ndarray:
    """Plot every diagnostic there is against time, a panel each.

    Args:
        history: diagnostics, each stacked over time into one axis.
        steps: as in `quantity`.
        paths: as in `quantity`.

    Returns:
        The Axes, in a flat array, in the order of `LABELS`; `[0].figure` is the figure.

    Raises:
        ValueError: nothing to draw, or as in `quantity`.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from decoupled_wd import plots
        >>> panels = plots.overview({"cosine/w": [0.1, 0.0], "norm/w": [2.0, 1.0]})
        >>> len(panels)
        2
        >>> plt.close(panels[0].figure)
    """
    if not isinstance(history, Mapping):
        raise TypeError(
            f"`history` is a {type(history).__name__}, and a mapping is needed. Stack a list of steps: "
            "`{name: [step[name] for step in steps] for name in steps[0]}`."
        )
    given = {key.partition("/")[0] for key in history}
    names = [name for name in LABELS if name in given]
    if not names:
        raise ValueError(
            "`history` has no diagnostics: its names are none of those that "
            f"`diagnostics.scalars` gives. It has {', '.join(map(repr, history)) or 'nothing'}."
        )
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    with house_style():
        figure = plt.figure(figsize=(4.2 * columns, 2.7 * rows + 0.4))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        legend: dict[str, Any] = {}
        for panel, name in zip(panels, names, strict=False):
            of_leaves = any(key.startswith(f"{name}/") for key in history)
            _draw(history, name, steps, paths if of_leaves else None, panel)
            handles, labels = panel.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
        for panel in panels[len(names) :]:
            panel.remove()
        if legend:
            legend = dict(sorted(legend.items(), key=lambda entry: entry[0] == _EQUILIBRIUM))
            entries = {"handles": list(legend.values()), "labels": list(legend)}
            figure.legend(**entries, loc="outside lower center", ncols=2 * columns)
    return panels[: len(names)]


def _given_or_new(axes: Axes | None, size: tuple[float, float] = (5, 3.4)) -> Axes:
    return plt.figure(figsize=size).add_subplot() if axes is None else axes


def _colours(count: int) -> Sequence[Any]:
    """Okabe and Ito's while they last; more are an ordered row of runs, as of a sweep."""
    if count <= _MOST_COLOURS:
        return OKABE_ITO[:count]
    return [mpl.colormaps["viridis"](x) for x in np.linspace(0, 0.95, count)]


def _powers(numbers: np.ndarray) -> list[str]:
    """Numbers as powers of 2, or of 10, where all are."""
    for base in (2, 10):
        exponents = [math.log(x, base) if x > 0 else None for x in numbers]
        if all(x is None or abs(x - round(x)) < 1e-5 for x in exponents):
            return ["0" if x is None else f"${base}^{{{round(x)}}}$" for x in exponents]
    return [f"{x:.2g}" for x in numbers]


def _draw_range(axes: Axes, time: np.ndarray, curves: np.ndarray, colour: Any) -> None:
    low, high = curves.min(axis=0), curves.max(axis=0)
    axes.fill_between(time, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw(
    history: Mapping[str, ArrayLike],
    name: str,
    steps: ArrayLike | None,
    paths: Sequence[str] | None,
    axes: Axes,
) -> None:
    """Everything but the legend."""
    curves = _curves(history, name, paths)
    # Predictions go with a quantity; they are no quantity of their own.
    predicted = _curves(history, f"{name}_equilibrium", paths, needed=False)
    time = _time("history", {**predicted, **curves}, steps)
    if name in _LOGARITHMIC:
        curves, predicted = _positive(curves), _positive(predicted)
        axes.set_yscale("log", nonpositive="mask")
    if name in _SIGNED:
        sizes = np.abs(np.concatenate(list(curves.values())))
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        if sizes.size:
            axes.set_yscale("symlog", linthresh=float(np.median(sizes)), linscale=2)
    # A leaf has its colour in every panel, whether or not the others are there.
    shown = dict.fromkeys(key.partition("/")[2] for key in history if "/" in key)
    colours = dict(zip(paths or shown, itertools.cycle(OKABE_ITO), strict=False))
    _draw_curves(axes, time, curves, "-", colours)
    _draw_curves(axes, time, predicted, "--", colours)
    if predicted:
        axes.plot([], [], "--", color="0.4", label=_EQUILIBRIUM)
    _widen_if_constant(axes, [*curves.values(), *predicted.values()])
    axes.set_xlabel("step")
    axes.set_ylabel(LABELS.get(name, name))


def _widen_if_constant(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    """Show what is constant up to rounding as a straight line, and not its rounding."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if size > 0 and high - low <= _CONSTANT * size:
        # Two powers of ten on a logarithmic axis have labels.
        logarithmic = axes.get_yscale() == "log"
        axes.set_ylim((low / 10, high * 10) if logarithmic else (low - size / 2, high + size / 2))


def _curves(
    history: Mapping[str, ArrayLike],
    name: str,
    paths: Sequence[str] | None,
    *,
    needed: bool = True,
) -> dict[str, np.ndarray]:
    """The values of one quantity by path; a quantity without path has the empty one."""
    split = {key: key.partition("/") for key in history}
    found = {path: history[key] for key, (head, _, path) in split.items() if head == name}
    if paths is not None:
        missing = [path for path in paths if path not in found]
        if missing and needed:
            raise ValueError(
                f"`paths` has {missing[0]!r}, and {name!r} is there for "
                f"{', '.join(map(repr, found)) or 'no leaf'}."
            )
        found = {path: found[path] for path in paths if path in found}
    if needed and not found:
        heads = dict.fromkeys(head for head, _, _ in split.values())
        raise ValueError(
            f"`name` is {name!r}, and `history` has {', '.join(map(repr, heads)) or 'nothing'}."
        )
    curves = {path: np.asarray(values) for path, values in found.items()}
    for path, values in curves.items():
        if values.ndim != 1:
            raise TypeError(
                f"`history` at {f'{name}/{path}'!r} has shape {values.shape}, and one axis, time, "
                "is needed. Stack the scalars of all steps, as `jax.lax.scan` does; of several runs "
                "plot one at a time."
            )
    return curves


def _time(argument: str, curves: dict[str, np.ndarray], steps: ArrayLike | None) -> np.ndarray:
    length = len(next(iter(curves.values())))
    time = np.arange(length) if steps is None else np.asarray(steps)
    for path, values in curves.items():
        if time.shape != values.shape:
            raise ValueError(
                f"`{argument}` has {len(values)} values for {path!r}, and {time.size} steps are to be "
                "drawn: one value for each step is needed."
            )
    return time


def _draw_curves(
    axes: Axes,
    time: np.ndarray,
    curves: dict[str, np.ndarray],
    line: str,
    colours: Mapping[str, str],
) -> None:
    """Solid curves carry the labels."""
    measured = line == "-"
    if len(curves) <= _MOST_COLOURS:
        for path, values in curves.items():
            label = path if path and measured else None
            axes.plot(time, values, line, color=colours.get(path, OKABE_ITO[0]), label=label)
        return
    stacked = np.ma.masked_invalid(np.stack(list(curves.values())))
    label = f"median and range of {len(curves)} leaves" if measured else None
    colour = OKABE_ITO[0]
    axes.plot(time, np.ma.median(stacked, axis=0), line, color=colour, label=label)
    if measured:
        _draw_range(axes, time, stacked, colour)


def _positive(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """NaN, which is not drawn, for what a logarithmic axis has no place for."""
    return {
        path: np.where((values > 0) & np.isfinite(values), values, np.nan)
        for path, values in curves.items()
    }
