import numpy as np
import pytest

from saddlescope.plots.monitor import VERDICT_COLOURS, plot_monitored_loss, plot_trap_numbers
from saddlescope.training.monitor.log import COLUMNS, collect


def check(step, number, error, finding):
    return {"type": "check", "step": step, "trap_number": number, "trap_number_error": error, "finding": finding}


@pytest.fixture
def log():
    records = [
        {"type": "signals", "step": 10, **{name: [float(i) for i in range(10)] for name in COLUMNS}},
        check(4, 1.5, 0.2, "trapped"),
        {"type": "verdict", "step": 4, "verdict": "trapped", "before": "undetermined", "because": ""},
        check(8, 0.3, 0.1, "free"),
        {"type": "verdict", "step": 8, "verdict": "free", "before": "trapped", "because": ""},
        check(9, None, None, "undetermined"),
    ]
    return collect({}, records)


def test_the_ground_shows_the_verdict_of_the_time(log):
    axes = plot_monitored_loss(log)
    assert axes.lines[0].get_ydata().tolist() == [float(i) for i in range(10)]
    assert list(axes.lines[1].get_xdata()) == [4, 8, 9]
    spans = [(p.get_x(), p.get_x() + p.get_width(), p.get_label()) for p in axes.patches]
    assert spans == [(1, 4, "undetermined"), (4, 8, "trapped"), (8, 10, "free")]


def test_trap_numbers_have_two_standard_errors(log):
    axes = plot_trap_numbers(log)
    bars = {bar.get_label(): bar for bar in axes.containers}
    assert set(bars) == {"trapped", "free"}  # the third showed no negative curvature
    line, _, (error,) = bars["trapped"]
    assert line.get_xydata().tolist() == [[4.0, 1.5]] and line.get_color() == VERDICT_COLOURS["trapped"]
    assert np.allclose(error.get_segments()[0][:, 1], [1.1, 1.9])


def test_a_log_without_anything_is_drawn():
    empty = collect({}, [])
    assert plot_monitored_loss(empty).get_ylabel() == "batch loss"
    assert plot_trap_numbers(empty).get_ylim()[0] == 0.0
