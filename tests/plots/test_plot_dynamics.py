import numpy as np
import pytest

from saddlescope.plots.dynamics import plot_agreement, plot_histogram, plot_jumps, plot_series
from saddlescope.plots.style import new_axes


@pytest.mark.parametrize(("count", "image"), [(10, False), (5000, True)])
def test_series_hold_their_data_and_many_points_become_an_image(count, image):
    x = np.arange(count)
    (line,) = plot_series({"a": (x, 2 * x)}, {"a": "red"}).lines
    assert line.get_xydata().tolist() == np.column_stack([x, 2 * x]).tolist()
    assert bool(line.get_rasterized()) is image


def test_histogram_shares_sum_to_one():
    axes = plot_histogram({"a": np.linspace(-1, 1, 400)}, {"a": "red"}, limits=(-1.0, 1.0))
    (outline,) = axes.patches
    heights = outline.get_path().vertices[1:-1:2, 1]
    assert len(heights) == 40
    assert heights.sum() == pytest.approx(1.0)


def test_agreement_shows_pairs_beside_the_diagonal():
    axes = plot_agreement({"a": [0.5, 4.0]}, {"a": [0.6, 4.1]}, {"a": "red"})
    diagonal, points = axes.lines
    assert np.all(diagonal.get_xdata() == diagonal.get_ydata())
    assert points.get_xydata().tolist() == [[0.5, 0.6], [4.0, 4.1]]


def test_jumps_draw_one_arrow_a_step():
    path = np.array([[0.5, 1.0], [-0.5, 1.0], [0.4, 1.1]])
    axes = plot_jumps(path, [0.0, 1.0], colour="red", ax=new_axes())
    assert [(note.xyann, note.xy) for note in axes.texts] == [
        (pytest.approx(path[0]), pytest.approx(path[1])),
        (pytest.approx(path[1]), pytest.approx(path[2])),
    ]
