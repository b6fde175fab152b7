import numpy as np

from saddlescope.plots.training import plot_escape_steps, plot_final_values, plot_grid, plot_loss_curves


def test_curves_show_the_median_and_the_range():
    runs = np.array([[3.0, 2.0], [5.0, 1.0], [4.0, 9.0]])
    axes = plot_loss_curves({"SAM": runs}, {"SAM": "red"}, dashed=frozenset({"SAM"}))
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_ydata().tolist() == [4.0, 2.0]
    assert line.get_linestyle() == "--"
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 1.0
    assert corners[:, 1].max() == 9.0


def test_bars_show_the_mean_and_every_run():
    axes = plot_final_values({"a": [1.0, 3.0], "b": [2.0]}, {"a": "red", "b": "blue"}, label="loss")
    assert [bar.get_width() for bar in axes.patches] == [2.0, 2.0]
    assert axes.lines[1].get_xdata().tolist() == [1.0, 3.0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]


def test_escapes_are_points_with_intervals_and_a_line_of_equal_samples():
    escapes = {"SGD": ([8, 32], [50.0, 48.0], [2.0, 1.0]), "SAM": ([8], [900.0], [30.0])}
    axes = plot_escape_steps(escapes, {"SGD": "red", "SAM": "blue"}, dashed=frozenset({"SAM"}))
    first, second = axes.containers
    assert first.lines[0].get_xdata().tolist() == [8, 32] and first.lines[0].get_ydata().tolist() == [50.0, 48.0]
    assert second.lines[0].get_linestyle() == "--"
    (bars,) = first.lines[2]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[48.0, 52.0], [47.0, 49.0]]
    guide = next(line for line in axes.lines if line.get_label() == "equal samples")
    steps, sizes = guide.get_ydata(), guide.get_xdata()
    assert steps[0] * sizes[0] == steps[1] * sizes[1]


def test_a_grid_shows_every_share_and_its_interval():
    axes = plot_grid(
        [[0.97, 0.1], [0.5, 1.0]],
        [[0.01, 0.02], [0.0, 0.0]],
        rows=["SGD", "SAM"],
        columns=["a", "b"],
        groups={"left": 1, "right": 1},
        label="test accuracy, %",
    )
    words = [text.get_text() for text in axes.texts]
    assert words == ["97.0", "± 1.0", "10.0", "± 2.0", "50.0", "± 0.0", "100.0", "± 0.0", "left", "right"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SGD", "SAM"]
    assert axes.yaxis_inverted()  # the first row is on top
    light, dark = (sum(axes.patches[k].get_facecolor()[:3]) for k in (1, 3))
    assert light > dark
    gaps = [label.get_position()[0] for label in axes.texts[-2:]]
    assert gaps == [0.0, 1.25]
