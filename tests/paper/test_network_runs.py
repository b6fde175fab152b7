"""Cells of trainings: intervals, escapes, and that a setting is trained once."""

import math

import numpy as np
import pytest
from scipy.stats import t

from saddlescope.paper import network_runs
from saddlescope.paper.network_runs import (
    Cell,
    accuracy_gain,
    find_cell,
    images_at_hand,
    points,
    surely_above,
    train_cells,
)
from saddlescope.provenance import provenance
from saddlescope.sweeps.over_seeds import Mean, mean_of
from saddlescope.training import ExperimentConfig, Record, run_experiment
from saddlescope.training.ensembles import Ensemble


def record(loss, accuracy, losses=None):
    return Record(
        config=ExperimentConfig(),
        status="completed" if math.isfinite(loss) else "diverged",
        losses=losses or (2.3,) * 10 + (loss,) * 30,
        final_loss=loss,
        test_accuracy=accuracy,
        skipped_steps=0,
        hessian_products=0,
        seconds=0.0,
        provenance=provenance(),
    )


def cell(*pairs, **setting):
    return Cell(setting=ExperimentConfig(**setting), records=tuple(record(*pair) for pair in pairs))


def test_the_interval_is_students():
    numbers = [0.3, 0.7, 0.4, 0.9, 0.1]
    mean = mean_of(numbers)
    low, high = t.interval(0.95, 4, loc=np.mean(numbers), scale=np.std(numbers, ddof=1) / 5**0.5)
    assert (mean.value - mean.half_width, mean.value + mean.half_width) == pytest.approx((low, high), rel=1e-12)
    assert math.isnan(mean_of([1.0]).half_width) and mean_of([1.0]).value == 1.0 and math.isnan(mean_of([]).value)


def test_a_gain_is_taken_seed_by_seed():
    before, after = cell((1.0, 0.1), (1.0, 0.5), (1.0, 0.3)), cell((1.0, 0.3), (1.0, 0.7), (1.0, 0.5))
    gain = accuracy_gain(after, before)
    assert gain.value == pytest.approx(0.2) and gain.half_width == pytest.approx(0.0, abs=1e-12)
    assert surely_above(gain) and not surely_above(accuracy_gain(before, after))
    assert points(gain) == "+20.0 ± 0.0"


@pytest.mark.parametrize(("value", "other", "above"), [(0.3, 0.1, True), (0.3, 0.25, False), (-0.1, 0.0, False)])
def test_means_are_told_apart_by_their_intervals(value, other, above):
    assert surely_above(Mean(value=value, half_width=0.05), Mean(value=other, half_width=0.05)) is above
    assert not surely_above(Mean(value=math.nan, half_width=math.nan), 0.0)


def test_escape_is_the_first_step_of_a_low_average():
    some = cell((0.003, 0.9), (2.2, 0.1))
    assert some.escapes == [2, None]  # (10 - k) * 2.3 + k * 0.003 < 20 first at k = 2
    assert not some.stuck and not some.trained
    assert cell((0.4, 0.9), (0.49, 0.9)).trained and cell((2.1, 0.1)).stuck
    short = Cell(setting=ExperimentConfig(), records=(record(math.nan, 0.1, (2.3, math.nan)),))
    assert short.escapes == [None]


def test_a_diverged_run_is_neither_stuck_nor_trained_and_not_in_the_mean_loss():
    some = cell((math.nan, 0.1), (0.1, 0.9), (0.3, 0.8))
    assert some.diverged == 1 and some.loss.value == pytest.approx(0.2) and some.accuracy.value == pytest.approx(0.6)
    assert not some.stuck and not some.trained


def test_a_cell_is_found_by_what_it_is():
    cells = [cell((1.0, 0.1), optimizer="sam", rho=0.5, lr=0.1 * (1 - 0.9), momentum=0.9), cell((1.0, 0.1))]
    assert find_cell(cells, 0.5, 0.01, 0.9) is cells[0] and find_cell(cells, 0.0, 0.1, 0.0) is cells[1]
    assert cells[0].lr_effective == pytest.approx(0.1)
    with pytest.raises(StopIteration):
        find_cell(cells, 0.5, 0.1, 0.9)


def test_a_setting_is_trained_once_and_as_the_loop_does(monkeypatch):
    monkeypatch.setattr(network_runs, "_made", {})
    setting = ExperimentConfig(optimizer="sam", rho=0.5, steps=3, batch_size=16)
    (first,) = train_cells([setting], 2, workers=1)
    assert [r.config.seed for r in first.records] == [0, 1] and first.setting == setting
    assert first.records[1].losses == pytest.approx(run_experiment(first.records[1].config).losses, abs=1e-5)
    again, more = train_cells([setting, setting], 3, workers=1)
    assert again.records[:2] == first.records and more == again


def test_a_run_that_fails_is_an_error(monkeypatch):
    def no_memory(*_):
        raise MemoryError("no memory for the weights")

    monkeypatch.setattr(Ensemble, "run", no_memory)
    with pytest.raises(RuntimeError, match="a run of digits-mlp failed: MemoryError: no memory for the weights"):
        train_cells([ExperimentConfig(steps=1, lr=0.123)], 2, workers=1)


def test_missing_data_are_said_before_anything_is_trained(monkeypatch, tmp_path):
    monkeypatch.setenv("SADDLESCOPE_DATA", str(tmp_path))
    assert not images_at_hand()
    with pytest.raises(FileNotFoundError, match="found no train"):
        train_cells([ExperimentConfig(steps=10**9), ExperimentConfig(task="cifar10-mlp", steps=1)], 1, workers=1)
    (tmp_path / "cifar10").mkdir()
    assert images_at_hand()
    monkeypatch.delenv("SADDLESCOPE_DATA")
    assert not images_at_hand()
