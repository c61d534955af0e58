"""Plots of the diagnostics against time; needs matplotlib, which `decoupled_wd` itself does not.

Each function takes a history, that is the dictionaries of `diagnostics.scalars` with the values of
all steps in one array a name, as `jax.lax.scan` stacks them:

    _, history = jax.lax.scan(step_that_returns_scalars, carry, batches)
    plots.overview(history)

and returns the Axes it drew on, a new figure's unless `axes` is given. Up to eight leaves have a
colour each, those of Okabe and Ito, which colour-blind readers can tell apart; more are drawn as
their median and range. What is predicted is dashed. What has no place on a logarithmic axis (a norm
of 0, the infinite timescale of a leaf without decay) is left out.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.rcsetup import cycler
from numpy.typing import ArrayLike

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

    Returns:
        A context manager; after it matplotlib looks as it did.

    Example:
        >>> with house_style():
        ...     plt.rcParams["axes.spines.top"]
        False
    """
    return mpl.rc_context(_STYLE)


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
        >>> history = {"norm/w": [2.0, 1.5], "norm_equilibrium/w": [1.0, 1.0]}
        >>> axes = quantity(history, "norm")
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['w', 'equilibrium']
        >>> plt.close(axes.figure)
    """
    with house_style():
        if axes is None:
            axes = plt.figure(figsize=(5, 3.4)).add_subplot()
        _draw(history, name, steps, paths, axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    return axes


def rotation(
    history: Mapping[str, ArrayLike],
    *,
    steps: ArrayLike | None = None,
    paths: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Plot the rotation per step of every leaf, and dashed what it is predicted to tend to.

    Args:
        history: diagnostics with `rotation`, and `rotation_equilibrium` for the dashed lines.
        steps: as in `quantity`.
        paths: as in `quantity`.
        axes: as in `quantity`.

    Returns:
        The Axes.

    Raises:
        ValueError: as in `quantity`.

    Example:
        >>> axes = rotation({"rotation/w": [0.2, 0.1]})
        >>> axes.get_ylabel()
        'rotation per step (rad)'
        >>> plt.close(axes.figure)
    """
    return quantity(history, "rotation", steps=steps, paths=paths, axes=axes)


def norm(
    history: Mapping[str, ArrayLike],
    *,
    steps: ArrayLike | None = None,
    paths: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Plot the norm of every leaf, and dashed what it is predicted to tend to.

    Args:
        history: diagnostics with `norm`, and `norm_equilibrium` for the dashed lines.
        steps: as in `quantity`.
        paths: as in `quantity`.
        axes: as in `quantity`.

    Returns:
        The Axes.

    Raises:
        ValueError: as in `quantity`.

    Example:
        >>> axes = norm({"norm/w": [2.0, 1.0]})
        >>> axes.get_yscale()
        'log'
        >>> plt.close(axes.figure)
    """
    return quantity(history, "norm", steps=steps, paths=paths, axes=axes)


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
        >>> panels = overview({"cosine/w": [0.1, 0.0], "norm/w": [2.0, 1.0]})
        >>> len(panels)
        2
        >>> plt.close(panels[0].figure)
    """
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
    time = _time({**predicted, **curves}, steps)
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


def _time(curves: dict[str, np.ndarray], steps: ArrayLike | None) -> np.ndarray:
    length = len(next(iter(curves.values())))
    time = np.arange(length) if steps is None else np.asarray(steps)
    for path, values in curves.items():
        if time.shape != values.shape:
            raise ValueError(
                f"`history` has {len(values)} values for {path!r}, and {time.size} steps are to be "
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
        low, high = stacked.min(axis=0), stacked.max(axis=0)
        axes.fill_between(time, low, high, color=colour, alpha=0.2, linewidth=0)


def _positive(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """NaN, which is not drawn, for what a logarithmic axis has no place for."""
    return {
        path: np.where((values > 0) & np.isfinite(values), values, np.nan)
        for path, values in curves.items()
    }
