import numpy as np

from saddlescope.plots.training import plot_final_values, plot_loss_curves


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
