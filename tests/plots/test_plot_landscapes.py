import numpy as np

from saddlescope.plots.landscapes import mark_points, plot_contours, plot_paths
from saddlescope.plots.style import new_axes


def test_contours_are_levels_of_the_given_loss():
    x, y = np.linspace(-1, 1, 21), np.linspace(0, 2, 11)
    axes = plot_contours(x, y, x[None, :] ** 2 + y[:, None], levels=5)
    (lines,) = axes.collections
    assert len(lines.levels) == 5
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        column, row = path.vertices[:, 0], path.vertices[:, 1]
        assert np.abs(column**2 + row - level).max() < 0.01


def test_paths_and_points_are_drawn_where_they_are():
    axes = new_axes()
    path = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert plot_paths({"SAM": path}, {"SAM": "red"}, ax=axes) is axes
    mark_points({"saddle": (5.0, 6.0)}, ax=axes)
    line, end, saddle = axes.lines
    assert line.get_xydata().tolist() == path.tolist()
    assert end.get_xydata().tolist() == [[2.0, 3.0]]
    assert saddle.get_xydata().tolist() == [[5.0, 6.0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SAM", "saddle"]
