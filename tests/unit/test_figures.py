"""Figures show what their tidy rows say: marks, intervals inside their range, the paper's values, units, counts of runs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nagkit.errors import NagkitError
from nagkit.spaces.base import get_space
from nagkit.study import drawing, figures, front_figures


def tidy(*rows: tuple) -> pd.DataFrame:
    """Rows of (row, column, metric, value, half-width, n, unit, origin)."""
    names = ("row", "column", "metric", "value", "half", "n", "unit", "origin")
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(lo=frame["value"] - frame["half"], hi=frame["value"] + frame["half"])


POOLS = tidy(
    *((row, column, "mean", value, 0.5, 5, "%", "ours")
      for row, value in (("random", 87.0), ("published", 90.0), ("ours-exact", 99.8)) for column in ("cifar10", "cifar100")),
    *(("ours-exact minus " + row, "cifar10", "difference of mean", value, 1.0, 5, "%", "ours")
      for row, value in (("random", 12.0), ("published", 0.2))),
    *(("DiffusionNAG", column, "mean", 93.1, 0.1, 3, "%", "paper") for column in ("cifar10", "cifar100")),
    ("empty", "cifar10", "mean", np.nan, np.nan, 5, "%", "ours"),
)  # fmt: skip
STEPS = tidy(
    *((row, str(n), "error", 1 / n, 0.01, 5, "probability", "ours") for row in ("ddim", "heun") for n in (5, 10, 50)),
    *((row, str(calls), "time", calls / 10, 0.0, 5, "s", "ours") for row in ("ddim", "heun") for calls in (5, 10, 50)),
    ("exact draws", "0", "error", 0.01, 0.005, 20, "probability", "ours"),
    ("theirs", "10", "error", 0.2, np.nan, np.nan, "probability", "paper"),
)  # fmt: skip


def words(figure: Figure) -> str:
    """Everything that is written on a figure."""
    return " | ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def marks(figure: Figure) -> int:
    """The points that seaborn drew."""
    drawn = [collection for ax in figure.axes for collection in ax.collections]
    return sum(len(dots.get_offsets()) for dots in drawn if isinstance(dots, PathCollection))


def segments(ax) -> np.ndarray:
    return np.concatenate([np.array(lines.get_segments()) for lines in ax.collections if hasattr(lines, "get_segments")])


def test_points_have_a_panel_a_column_and_a_mark_a_row_and_say_unit_and_runs():
    figure = figures.points(POOLS, "mean", rows=["random", "published", "ours-exact"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["CIFAR-10", "CIFAR-100"]
    assert marks(figure) == 6
    assert "mean (%)" in words(figure) and "95 % intervals, n = 5" in words(figure) and "Ours, exact prior" in words(figure)


def test_no_interval_leaves_the_range_of_its_quantity_but_a_difference_may():
    ends = segments(figures.points(POOLS, "mean", rows="ours-exact", columns="cifar10").axes[0])
    assert ends[..., 0].max() == 100.0 and ends[..., 0].min() == pytest.approx(99.3)
    low = segments(figures.points(POOLS, "difference of mean", zero=0).axes[0])[..., 0].min()
    assert low == pytest.approx(-0.8)


def test_the_papers_value_is_a_hollow_diamond_or_a_dashed_line():
    plain = figures.points(POOLS, "mean", rows=["random", "published"])
    diamond = figures.points(POOLS, "mean", rows=["random", "published"], paper={"published": "DiffusionNAG"})
    assert marks(diamond) - marks(plain) == 2 and "the paper's" in words(diamond) and "the paper's" not in words(plain)
    some = POOLS[(POOLS["origin"] == "ours") | (POOLS["column"] == "cifar10")]  # the paper need not have every column of ours
    assert marks(figures.points(some, "mean", rows=["published"], paper={"published": "DiffusionNAG"})) == 3
    dashed = figures.points(POOLS, "mean", rows=["random", "published"], reference="DiffusionNAG")
    assert "CIFAR-10; paper 93.10" in words(dashed)


def test_differences_from_one_row_are_coloured_by_the_side_of_zero_on_which_they_lie():
    ax = figures.points(POOLS, "difference of mean", zero=0).axes[0]
    dots = next(collection for collection in ax.collections if isinstance(collection, PathCollection))
    assert [to_hex(colour).upper() for colour in dots.get_facecolors()] == [drawing.PALETTE[0], drawing.PALETTE[7]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Random architectures", "As published"]


def test_curves_draw_bands_only_from_four_runs_on():
    many, few = (figures.curves(STEPS.assign(n=n), "error", rows=["ddim", "heun"], x="network calls") for n in (4, 3))
    bands = [sum(len(ax.patches) for ax in figure.axes) for figure in (many, few)]
    assert bands[0] >= 2 and bands[1] == 0
    assert "bands: 95 %, n = 4" in words(many) and "means, n = 3" in words(few)


def test_few_runs_are_shown_one_by_one():
    runs = pd.DataFrame({"row": "random", "column": ["cifar10"] * 3 + ["cifar100"], "metric": "mean", "value": 87.0})
    plain, dotted = (figures.points(POOLS, "mean", rows="random", columns="cifar10", single=each) for each in (None, runs))
    assert marks(dotted) - marks(plain) == 3
    runs = pd.DataFrame({"row": "ddim", "column": "5", "metric": "error", "value": [0.1, 0.2, 0.3]})
    ax = figures.curves(STEPS.assign(n=3), "error", rows=["ddim"], single=runs).axes[0]
    assert sorted(line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 1) == [0.1, 0.2, 0.3]


def test_curves_stand_against_columns_and_against_another_metric_with_plain_numbers_on_logarithmic_axes():
    options = {"x": "network calls", "log": "xy", "grey": ["exact draws"], "paper": {"ddim": "theirs"}}
    figure = figures.curves(STEPS, ["error", ("error", "time")], **options)
    calls, time = figure.axes
    assert (calls.get_xlabel(), time.get_xlabel()) == ("network calls", "time (s)")
    assert [text.get_text() for text in calls.get_xticklabels() if text.get_text()] == ["5", "10", "50"]
    assert max(line.get_xdata().max() for line in time.lines if len(line.get_xdata()) == 3) == 5.0
    assert "the paper's" in words(figure) and "Exact draws, as many" in words(figure)


def test_a_regret_is_the_distance_to_the_optimum_and_never_below_its_floor():
    frame = tidy(*(("random", str(k), "mean", value, 0.1, 9, "%", "ours") for k, value in ((1, 90.0), (10, 94.0))))
    ax = figures.curves(frame, "mean", log="y", optimum={"mean": 94.0}, floor=0.05).axes[0]
    assert sorted(ax.lines[0].get_ydata()) == [0.05, 4.0] and "points below 94.00 %" in ax.get_title(loc="left")


def test_runs_become_tidy_rows_with_t_intervals():
    frame = drawing.runs({"best": {"random": np.array([[1.0, 2.0, 3.0], [1.0, 4.0, 5.0]])}}, first=2)
    assert list(frame["column"]) == [2, 3] and list(frame["value"]) == [3.0, 4.0] and set(frame["n"]) == {2}
    assert frame["hi"].iloc[0] == pytest.approx(3 + 12.706, abs=1e-3)


def test_pools_show_their_means_the_papers_mean_and_what_is_off_the_axis():
    values = {"cifar10": {"random": np.array([50.0, 90.0, 94.0]), "none": []}}
    figure = figures.pools(values, low={"cifar10": 80}, paper={"cifar10": 93})
    assert "mean 78.00, min 50.00, 33.3 % off" in words(figure) and "no valid draw" in words(figure)
    assert "CIFAR-10, paper 93.00" in words(figure) and len(figure.axes) == 2


def test_samples_scatter_heat_shares_and_strip_draw_what_they_are_given():
    single = pd.DataFrame({"row": ["random"] * 4, "column": "mnist", "run": [0, 0, 1, 1], "value": [1.0, 2.0, 2.0, 3.0]})
    assert marks(figures.samples(single, xlabel="errors")) == 4
    pairs = pd.DataFrame({"row": ["measured", "found", "found"], "cost": [1.0, 2.0, 30.0], "accuracy": [80.0, 90.0, 91.0]})
    steps = np.array([[1.0, 80.0], [2.0, 92.0]])
    front = figures.scatter(pairs, "cost", "accuracy", faint=["measured"], steps=steps, log="x", ylabel="accuracy (%)")
    assert "accuracy (%)" in words(front) and "front of the whole space" in words(front)
    heat = figures.heat(POOLS, "mean", rows=["random", "published", "ours-exact"])
    assert {"87.0", "90.0", "99.8", "mean (%)\n(means, n = 5)"} <= set(words(heat).split(" | "))
    parts = tidy(*(("clean", part, "share", value, 0.0, 5, "%", "ours") for part, value in (("skip", 40.0), ("3×3", 60.0))))
    bars = figures.shares(parts, "share").axes[0].patches
    assert sorted((bar.get_x(), bar.get_width()) for bar in bars) == [(0.0, 40.0), (40.0, 60.0)]

    class Space:
        def draw(self, ax, arch):
            ax.text(0, 0, str(arch.tolist()))

    strip = figures.strip(Space(), np.array([[0, 1], [2, 3]]), ["first", "second"])
    assert "[2, 3]" in words(strip) and "second" in words(strip)


def test_no_window_holds_a_figure():
    assert isinstance(figures.points(POOLS, "mean", rows=["random"]), Figure) and not plt.get_fignums()


def test_the_same_data_give_the_same_bytes():
    kinds = ("svg", "svg", "png", "png")
    made = [drawing.rendered(figures.points(POOLS, "mean", rows=["random"]), "table3", kind) for kind in kinds]
    assert made[0] == made[1] and made[2] == made[3] and made[0].startswith(b"<?xml")


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: figures.points(POOLS, "maen"), "unknown metric 'maen' .did you mean 'mean'"),
        (lambda: figures.points(POOLS, "mean", rows=["ours"]), "unknown row 'ours'"),
        (lambda: figures.points(POOLS, "mean", rows=["random"], reference="nobody"), "unknown row 'nobody'"),
        (lambda: figures.points(POOLS, "mean", rows=["empty"]), "nothing to draw of metric .*mean"),
        (lambda: figures.points(POOLS, "mean", rows=[]), "nothing to draw of metric .*mean"),
        (lambda: figures.curves(POOLS, "mean"), "column 'cifar10' is no number"),
        (lambda: figures.pools({"cifar10": {}}), "no pool to draw"),
        (lambda: figures.scatter(pd.DataFrame({"row": []}), "a", "b"), "no architectures to draw"),
        (lambda: figures.strip(None, np.empty((0, 6))), "no architecture to draw"),
        (lambda: figures.strip(get_space("nb201"), np.full((1, 6), 7)), "row 0 is not valid in nb201"),
        (lambda: front_figures.front("pool", {}), "unknown front figure 'pool'"),
    ],
)
def test_bad_choices_are_told_in_a_line(draw, says):
    with pytest.raises(NagkitError, match=says) as error:
        draw()
    assert "\n" not in str(error.value)
