import math

import pytest
from test_network_runs import record

from saddlescope.paper import batch_networks
from saddlescope.paper.batch_networks import (
    BATCHES,
    CONTROL,
    MOMENTUM,
    PLAIN,
    SAMPLES,
    SAMPLES_WIDE,
    SETTINGS,
    SGD,
    STEPS,
    TRAINING_SET,
    WIDE,
    BatchGrid,
    network_checks,
    network_figure,
    network_numbers,
    network_summary,
    network_table,
)
from saddlescope.paper.network_runs import Cell, train_cells
from saddlescope.training.data.datasets import digits

MEASURED = {
    SGD: (48, 46, 45),
    PLAIN: (850, 370, 230),
    CONTROL: (870, 390, 250),
    MOMENTUM: (85, 40, 26),
    WIDE: (2200, None, None),
}


def grid(**changes):
    """Three seeds a cell that leave chance around the given step, or never."""
    cells = {}
    for name, escapes in (MEASURED | changes).items():
        for batch_size, step in zip(BATCHES, escapes, strict=True):
            setting = batch_networks._setting(name, batch_size)
            curves = [
                (2.3,) * setting.steps if step is None else (2.3,) * (step + 5 + k) + (1.0,) * (3000 - step)
                for k in range(3)
            ]
            cells[name, batch_size] = Cell(setting=setting, records=tuple(record(1.0, 0.5, c) for c in curves))
    return BatchGrid(seeds=3, cells=cells)


def outcome(**changes):
    return [check.passed for check in network_checks(grid(**changes))]


def test_small_batches_help_by_samples_not_by_steps():
    assert outcome() == [True, False, True, False, False]
    assert "by more steps an epoch" in network_summary(grid())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({PLAIN: (200, 210, 230)}, [True, True, True, True, False]),
        ({PLAIN: (5000, 370, 230)}, [False, False, True, False, False]),
        ({WIDE: (2200, None, 500)}, [True, False, False, False, False]),
        ({WIDE: (None, None, None)}, [True, False, False, False, False]),
        ({SGD: (480, 46, 45)}, [True, False, True, True, False]),
        ({CONTROL: (870, 300, 250)}, [True, False, True, False, True]),
        ({PLAIN: (None, 370, 230)}, [False, False, True, False, False]),
    ],
)
def test_doctored_numbers_change_the_checks(changes, expected):
    assert outcome(**changes) == expected


def test_the_summary_follows_the_numbers():
    assert "by each of their steps" in network_summary(grid(**{PLAIN: (200, 210, 230)}))
    assert "do not help" in network_summary(grid(**{PLAIN: (5000, 370, 230)}))


def test_steps_and_epochs():
    made = grid()
    # The window of ten steps first averages below 2 when three of its losses are 1: 2 steps before the last 2.3 leaves.
    assert made.steps(PLAIN, 8).value == pytest.approx(850 - 1, abs=2)
    assert made.epochs(PLAIN, 8).value == pytest.approx(made.steps(PLAIN, 8).value * 8 / 1437)
    assert math.isnan(made.steps(WIDE, 128).value)
    assert made.saving(PLAIN) == pytest.approx(
        128 * made.steps(PLAIN, 128).value / (8 * made.steps(PLAIN, 8).value), rel=1e-12
    )


def test_table_figure_and_numbers_show_who_stays():
    made = grid()
    rows = {row[0]: row[1:] for row in network_table(made).rows}
    assert rows[WIDE][2:] == ("never, never, never", "–", "never, never, never", "–")
    assert network_numbers(made)[WIDE][128] == {"value": None, "half_width": None}
    axes = network_figure(made).axes
    assert len(axes.containers) == len(SETTINGS)
    assert axes.containers[-1].lines[0].get_xdata().tolist() == [8]


def test_runs_are_long_enough_and_the_control_has_the_same_effective_step():
    assert len(digits().inputs) == TRAINING_SET
    for name, (_, lr, momentum) in SETTINGS.items():
        for batch_size in BATCHES:
            setting = batch_networks._setting(name, batch_size)
            assert setting.steps >= STEPS
            assert setting.steps * batch_size >= (SAMPLES_WIDE if name == WIDE else SAMPLES)
        assert name == MOMENTUM or lr / (1 - momentum) == pytest.approx(0.1)


def test_a_seed_of_the_real_runs_leaves_later_at_a_small_batch():
    settings = [batch_networks._setting(name, b) for name, b in [(SGD, 8), (PLAIN, 8), (PLAIN, 32), (MOMENTUM, 32)]]
    sgd, small, middle, moving = (cell.escapes[0] for cell in train_cells(settings, 1, workers=1))
    assert sgd < 100 and moving < 150 and 250 < middle < 500 and 600 < small < 1_200
    assert small * 8 < middle * 32
