"""Plots: what is drawn, from the artists; their look is for eyes."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from decoupled_wd import diagnostics, plots

STEPS = 4
HISTORY = {
    "norm/a": np.array([4.0, 3.0, 2.0, 1.0]),
    "norm/b": np.array([0.0, 1.0, 2.0, np.inf]),
    "norm_equilibrium/a": np.full(STEPS, 1.5),
    "norm_equilibrium/b": np.full(STEPS, 2.5),
    "rotation/a": np.linspace(0.1, 0.4, STEPS),
    "rotation_equilibrium/a": np.full(STEPS, 0.2),
    "gamma_mean/a": np.array([-1e4, -1.0, 0.5, 1.0]),
    "noise_slope": np.linspace(-1, 1, STEPS),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(axes, style):
    """The curves of a line style, as (colour, values); the legend's proxies have none."""
    lines = [line for line in axes.get_lines() if line.get_linestyle() == style]
    return [
        (line.get_color(), np.asarray(line.get_ydata())) for line in lines if len(line.get_ydata())
    ]


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_measured_and_predicted_of_a_leaf_share_a_colour():
    axes = plots.norm(HISTORY)
    solid, dashed = drawn(axes, "-"), drawn(axes, "--")
    assert [colour for colour, _ in solid] == list(plots.OKABE_ITO[:2])
    assert [colour for colour, _ in dashed] == list(plots.OKABE_ITO[:2])
    np.testing.assert_array_equal(solid[0][1], HISTORY["norm/a"])
    np.testing.assert_array_equal(dashed[1][1], HISTORY["norm_equilibrium/b"])
    assert legend_of(axes) == ["a", "b", "equilibrium"]


def test_what_a_logarithmic_axis_has_no_place_for_is_left_out():
    axes = plots.norm(HISTORY)
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(drawn(axes, "-")[1][1], [np.nan, 1, 2, np.nan])


def test_what_may_be_negative_is_drawn_as_it_is():
    axes = plots.quantity(HISTORY, "gamma_mean")
    assert axes.get_yscale() == "symlog"
    np.testing.assert_array_equal(drawn(axes, "-")[0][1], HISTORY["gamma_mean/a"])
    axes = plots.quantity({"gamma_mean/a": np.zeros(STEPS)}, "gamma_mean")
    assert axes.get_yscale() == "linear"


def test_steps_paths_and_axes():
    mine = plt.figure().add_subplot()
    axes = plots.rotation(HISTORY, steps=[10, 20, 30, 40], paths=["a"], axes=mine)
    assert axes is mine
    np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [10, 20, 30, 40])
    axes = plots.norm(HISTORY, paths=["b"])
    assert legend_of(axes) == ["b", "equilibrium"]


def test_many_leaves_are_drawn_as_median_and_range():
    history = {f"cosine/{i}": np.full(STEPS, i / 10) for i in range(9)}
    axes = plots.quantity(history, "cosine")
    ((_, median),) = drawn(axes, "-")
    np.testing.assert_allclose(median, 0.4)
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 0.8)
    assert legend_of(axes) == ["median and range of 9 leaves"]


def test_the_overview_has_a_panel_for_each_quantity_and_one_legend():
    panels = plots.overview(HISTORY)
    expected = [plots.LABELS[name] for name in ("norm", "rotation", "gamma_mean", "noise_slope")]
    assert [axes.get_ylabel() for axes in panels] == expected
    assert all(axes.get_legend() is None for axes in panels)
    (legend,) = panels[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "equilibrium"]
    assert len(panels[0].figure.axes) == len(panels)


def test_a_leaf_has_one_colour_in_all_panels():
    history = {"cosine/b": np.ones(STEPS), **HISTORY}
    cosine, norm, *_ = (drawn(axes, "-") for axes in plots.overview(history)[[2, 0]])
    assert cosine[0][0] == dict(zip(("a", "b"), norm, strict=True))["b"][0]


def test_the_overview_of_some_leaves():
    panels = plots.overview(HISTORY, paths=["a"])
    assert [len(drawn(axes, "-")) for axes in panels] == [1, 1, 1, 1]


def test_every_scalar_has_a_place():
    """Each name that `scalars` can give is a quantity with a label, or a quantity's equilibrium."""
    names = {name for name in diagnostics.scalars.__doc__.replace(",", " ").split() if "`" in name}
    quantities = {name.strip("`") for name in names} & {*plots.LABELS}
    assert quantities == set(plots.LABELS)


def test_the_style_ends_with_its_context():
    before = dict(mpl.rcParams)
    with plots.house_style():
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.OKABE_ITO)
    plots.overview(HISTORY)
    assert dict(mpl.rcParams) == before


def test_the_package_does_not_import_matplotlib():
    code = "import sys, decoupled_wd.diagnostics; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BAD = {
    "no such quantity": (lambda: plots.quantity(HISTORY, "norms"), ValueError, "`name` is 'norms'"),
    "no such leaf": (lambda: plots.norm(HISTORY, paths=["c"]), ValueError, "`paths` has 'c'"),
    "one step": (
        lambda: plots.norm({"norm/a": 1.0}), TypeError, "`history` at 'norm/a' has shape ()",
    ),
    "many runs": (
        lambda: plots.norm({"norm/a": np.ones((2, 3))}), TypeError, "has shape (2, 3)",
    ),
    "other steps": (
        lambda: plots.norm(HISTORY, steps=[1, 2]), ValueError, "`history` has 4 values for",
    ),
    "nothing": (lambda: plots.overview({}), ValueError, "`history` has no diagnostics"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, kind, said = BAD[case]
    with pytest.raises(kind) as error:
        call()
    assert said in str(error.value)
    assert str(error.value).endswith(".")
