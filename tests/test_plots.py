"""Plots: what is drawn, from the artists; their look is for eyes."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import decoupled_wd as dwd
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


# Planes


def plane(**options):
    values = np.arange(9.0)[::-1].reshape(3, 3)
    values[0, 1] = np.nan
    return plots.plane(values, [0.25, 0.5, 1.0], [0.0, 0.01, 0.1], **options)


def test_a_plane_has_its_values_at_their_rates_and_decays():
    axes = plane()
    (image,) = axes.images
    drawn = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(drawn, [[8, np.nan, 6], [5, 4, 3], [2, 1, 1]])  # No log of 0.
    assert image.origin == "lower"
    alone = plane(axes=plt.figure().add_subplot()).images[0].norm
    assert (image.norm.vmin, image.norm.vmax) == (alone.vmin, alone.vmax) == (1, 4)
    assert [x.get_text() for x in axes.get_yticklabels()] == ["$2^{-2}$", "$2^{-1}$", "$2^{0}$"]
    assert [x.get_text() for x in axes.get_xticklabels()] == ["0", "$10^{-2}$", "$10^{-1}$"]


def test_the_best_cells_of_a_plane_are_circled():
    assert plane(best=2).collections[0].get_offsets().tolist() == [[2, 2], [1, 2]]
    assert len(plane(best=10).collections[0].get_offsets()) == 8  # One is not finite.


def test_a_new_plane_has_a_bar_and_one_beside_others_has_none():
    _, bar = plane(label="test error").figure.axes
    assert bar.get_ylabel() == "test error"
    mine = plt.figure().add_subplot()
    assert plane(axes=mine) is mine
    assert mine.figure.axes == [mine]


def test_planes_beside_one_another_share_scale_and_bar():
    all_axes = plt.figure().subplots(1, 2)
    for factor, axes in zip((2, 1), all_axes, strict=True):
        plots.plane(factor * np.arange(1.0, 5).reshape(2, 2), [1, 2], [1, 2], axes=axes)
    bar = plots.share_colours(all_axes, "test error")
    assert bar.figure.axes == [*all_axes, bar]
    assert bar.get_ylabel() == "test error"
    assert [(x.norm.vmin, x.norm.vmax) for axes in all_axes for x in axes.images] == [(1, 4)] * 2


def test_many_rates_that_are_no_powers_have_few_labels():
    axes = plots.plane(np.ones((20, 2)), np.arange(1, 21), [3, 7])
    assert [x.get_text() for x in axes.get_yticklabels()] == "1 4 7 10 13 16 19".split()
    assert plots.plane(np.zeros((1, 1)), [1], [1]).images[0].norm.vmin > 0


# Curves, schedules, tables


def test_a_learning_curve_is_the_mean_over_seeds_in_their_range():
    seeds = np.array([[5.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    axes = plots.learning_curves({"a": {"train": [3, 2], "test": seeds}, "b": {"test": seeds + 1}})
    (solid,) = drawn(axes, "-")
    dashed = drawn(axes, "--")
    assert [colour for colour, _ in (solid, *dashed)] == [plots.OKABE_ITO[k] for k in (0, 0, 1)]
    np.testing.assert_array_equal(solid[1], [3, 2])
    np.testing.assert_array_equal([values for _, values in dashed], [[2, 1], [3, 2]])
    heights = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    assert [(x.min(), x.max()) for x in heights] == [(0, 5), (1, 6)]
    assert legend_of(axes) == ["a", "b", "train", "test"]


def test_curves_of_one_kind_have_no_kinds_in_the_legend_and_each_its_colour():
    runs = {str(k): np.full(STEPS, k) for k in range(12)}
    axes = plots.learning_curves(runs, steps=[1, 2, 4, 8])
    assert legend_of(axes) == list(runs)
    assert len({line.get_color() for line in axes.get_lines()}) == 12
    np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [1, 2, 4, 8])


def test_a_schedule_has_its_decay_on_the_right_and_what_is_left_on_the_left():
    axes = plots.schedule([1, 0.5, 0], [0.2, 0.1, 0.0], steps=[0, 10, 20])
    right = axes.figure.axes[-1]
    (_, eta), (_, left) = drawn(axes, "-")
    ((colour, removed),) = drawn(right, "-")
    np.testing.assert_allclose(eta, [1, 0.5, 0])
    np.testing.assert_allclose(left, [0.8, 0.72, 0.72])
    np.testing.assert_allclose(removed, [0.2, 0.1, 0])
    np.testing.assert_array_equal(right.get_lines()[0].get_xdata(), [0, 10, 20])
    assert right is not axes
    handle = axes.get_legend().legend_handles[legend_of(axes).index("decay per step (right)")]
    assert handle.get_color() == colour == right.yaxis.get_ticklabels()[0].get_color()


def test_a_decay_table_has_a_bar_a_leaf_from_the_top():
    params = {"bias": np.ones(2, np.float32), "kernel": np.ones((2, 2), np.float32)}
    table = dwd.describe_decay(params, {"bias": 0.0, "kernel": 0.5}, weight_decay=0.002)
    axes = plots.decay_table(table)
    assert [bar.get_width() for bar in axes.patches] == [0, pytest.approx(0.001)]
    assert [x.get_text() for x in axes.get_yticklabels()] == ["bias", "kernel"]
    assert [x.get_text() for x in axes.texts] == ["no decay", "half in 693 steps"]
    assert axes.yaxis_inverted()
    (name,) = plots.decay_table(dwd.describe_decay(params["bias"])).get_yticklabels()
    assert name.get_text() == "(bare array)"


# Relations


def test_what_is_one_is_joined_by_a_solid_line_and_what_is_not_by_a_dashed_one():
    rows = [("a", "b", "= x"), ("c", "d", "≠ by 0.1"), ("a", "b", "≠"), ("d", "e", "=")]
    axes = plots.relations(rows)
    assert [line.get_linestyle() for line in axes.patches] == ["-", "--", "--", "-"]
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert list(texts) == ["x", "by 0.1", "a", "b", "c", "d", "e"]
    points = dict(zip("abcde", ([*line.get_xydata()[0]] for line in axes.get_lines()), strict=True))
    np.testing.assert_allclose(axes.patches[3]._posA_posB, [points["d"], points["e"]])
    # Two lines between two names are two: the ones of a and b bend to either side.
    bends = [line.get_connectionstyle().rad for line in axes.patches]
    assert bends[0] == -bends[1] != 0
    assert bends[2:] == [0, 0]


def test_what_half_of_them_relate_to_stands_in_the_middle():
    axes = plots.relations([("hub", name, "=") for name in "abcdef"])
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["hub"] == (0, 0)
    assert len(axes.get_lines()) == 6
    axes = plots.relations([("a", "b", "="), ("b", "c", "=")])
    assert (0, 0) not in {text.get_position() for text in axes.texts}


def test_the_text_of_a_bent_line_is_on_it():
    axes = plots.relations([("a", "b", "= x"), ("b", "a", "≠ y"), ("c", "d", "=")])
    assert len({text.get_position() for text in axes.texts[:2]}) == 2
    for line, text in zip(axes.patches[:2], axes.texts[:2], strict=True):
        line.shrinkA = line.shrinkB = 0
        *_, (curve, _) = line.get_path().iter_bezier()
        points = np.array([curve(t) for t in np.linspace(0, 1, 101)])
        assert np.hypot(*(points - text.get_position()).T).min() < 0.02


# Diagnostics


def test_measured_and_predicted_of_a_leaf_share_a_colour():
    axes = plots.quantity(HISTORY, "norm")
    solid, dashed = drawn(axes, "-"), drawn(axes, "--")
    assert [colour for colour, _ in solid] == list(plots.OKABE_ITO[:2])
    assert [colour for colour, _ in dashed] == list(plots.OKABE_ITO[:2])
    np.testing.assert_array_equal(solid[0][1], HISTORY["norm/a"])
    np.testing.assert_array_equal(dashed[1][1], HISTORY["norm_equilibrium/b"])
    assert legend_of(axes) == ["a", "b", "equilibrium"]


def test_what_a_logarithmic_axis_has_no_place_for_is_left_out():
    axes = plots.quantity(HISTORY, "norm")
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
    axes = plots.quantity(HISTORY, "rotation", steps=[10, 20, 30, 40], paths=["a"], axes=mine)
    assert axes is mine
    np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [10, 20, 30, 40])
    axes = plots.quantity(HISTORY, "norm", paths=["b"])
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


def test_equilibrium_is_rotation_beside_norm_with_one_legend():
    rotation, norm = plots.equilibrium(HISTORY, steps=[1, 2, 3, 4], paths=["a"])
    assert [axes.get_ylabel() for axes in (rotation, norm)] == [
        plots.LABELS["rotation"], plots.LABELS["norm"],
    ]  # fmt: skip
    for axes, name in ((rotation, "rotation"), (norm, "norm")):
        (measured,), (predicted,) = drawn(axes, "-"), drawn(axes, "--")
        np.testing.assert_array_equal(measured[1], HISTORY[f"{name}/a"])
        np.testing.assert_array_equal(predicted[1], HISTORY[f"{name}_equilibrium/a"])
        np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [1, 2, 3, 4])
    assert rotation.get_legend() is None
    assert legend_of(norm) == ["a", "equilibrium"]
    mine = plt.figure().subplots(1, 2)
    assert list(plots.equilibrium(HISTORY, axes=mine)) == list(mine)


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
    "no such leaf": (
        lambda: plots.quantity(HISTORY, "norm", paths=["c"]), ValueError, "`paths` has 'c'",
    ),
    "one step": (
        lambda: plots.quantity({"norm/a": 1.0}, "norm"), TypeError, "`history` at 'norm/a' has shape ()",
    ),
    "many runs": (
        lambda: plots.quantity({"norm/a": np.ones((2, 3))}, "norm"), TypeError, "has shape (2, 3)",
    ),
    "other steps": (
        lambda: plots.quantity(HISTORY, "norm", steps=[1, 2]), ValueError, "`history` has 4 values for",
    ),
    "seeds in a plane": (
        lambda: plots.plane(np.ones((4, 3, 2)), [1, 2, 3], [1, 2]), TypeError, "Of seeds, pass",
    ),
    "a plane on its side": (
        lambda: plots.plane(np.ones((2, 3)), [1, 2, 3], [1, 2]), TypeError, "(3, 2) is needed",
    ),
    "a negative error": (
        lambda: plots.plane([[-1.0, 1.0]], [1], [1, 2]), ValueError, "`values` has -1",
    ),
    "no planes": (
        lambda: plots.share_colours([plt.figure().add_subplot()]), ValueError, "`planes` has no",
    ),
    "three axes": (
        lambda: plots.learning_curves({"a": np.ones((1, 2, 3))}), TypeError, "`curves` at 'a'",
    ),
    "three kinds": (
        lambda: plots.learning_curves({"a": {kind: [1.0] for kind in "xyz"}}), ValueError,
        "`curves` has the kinds 'x', 'y', 'z'",
    ),
    "curves of another length": (
        lambda: plots.learning_curves({"a": [1.0, 2.0]}, steps=[1]), ValueError, "`curves` has 2",
    ),
    "decay of another length": (
        lambda: plots.schedule([1.0, 0.5], [0.1]), ValueError, "`decay` has 1 values",
    ),
    "a number as decay": (lambda: plots.schedule([1.0], 0.1), TypeError, "`decay` has shape ()"),
    "no table": (lambda: plots.decay_table([1]), TypeError, "`table` is list"),
    "no relations": (lambda: plots.relations([]), ValueError, "`pairs` is empty"),
    "no verdict": (
        lambda: plots.relations([("a", "b", "same")]), ValueError, "`pairs` has ('a', 'b', 'same')",
    ),
    "itself": (lambda: plots.relations([("a", "a", "=")]), ValueError, "two names are needed"),
    "nothing": (lambda: plots.overview({}), ValueError, "`history` has no diagnostics"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, kind, said = BAD[case]
    with pytest.raises(kind) as error:
        call()
    assert said in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: plots.learning_curves([1.0, 2.0]), "`curves` is list"),
        (lambda: plots.learning_curves({}), "`curves` is empty"),
        (lambda: plots.schedule(lambda t: t, [0.1]), "`multiplier` is a callable"),
        (lambda: plots.overview([{"norm/w": 1.0}]), "`history` is a list"),
    ],
)
def test_what_a_plot_cannot_draw_is_refused_with_what_to_pass(draw, says):
    with pytest.raises(TypeError, match=says):
        draw()


def test_a_negative_error_is_named_beside_one_that_is_none():
    with pytest.raises(ValueError, match="`values` has -1"):
        plots.plane([[np.nan, -1.0]], [0.1], [0.1, 0.2])
