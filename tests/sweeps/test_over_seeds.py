import math
from dataclasses import replace

import pytest

from saddlescope.sweeps.over_seeds import over_seeds
from saddlescope.training import ExperimentConfig, run_experiment


@pytest.fixture(scope="module")
def record():
    return run_experiment(ExperimentConfig(steps=1))


def test_means_and_intervals_by_hand(record):
    """In the first group losses 1, 2, 3: s = 1, and with two degrees of freedom t = c sqrt(2 / (1 - c^2))."""
    first = [ExperimentConfig(seed=seed) for seed in range(5)]
    second = [ExperimentConfig(momentum=0.5, seed=seed) for seed in range(2)]
    records = {
        config.key: replace(record, config=config, final_loss=loss, test_accuracy=0.5, status="completed")
        for config, loss in zip(first, (1.0, 2.0, 3.0), strict=False)
    }
    records[first[3].key] = replace(record, config=first[3], status="diverged", final_loss=math.nan)
    records[second[1].key] = replace(record, config=second[1], final_loss=7.0)
    one, two = over_seeds([first[0], second[0], *first[1:], second[1]], records)
    assert (one.setting, one.completed, one.diverged, one.failed) == ({"momentum": 0.0}, 3, 1, 1)
    assert one.final_loss.value == 2.0
    assert one.final_loss.half_width == pytest.approx(0.95 * math.sqrt(2 / 0.0975) / math.sqrt(3), rel=1e-9)
    assert (one.test_accuracy.value, one.test_accuracy.half_width) == (0.5, 0.0)
    assert (two.setting, two.completed, two.diverged, two.failed) == ({"momentum": 0.5}, 1, 0, 1)
    assert two.final_loss.value == 7.0 and math.isnan(two.final_loss.half_width) and str(two.final_loss) == "7"
    assert two.to_dict()["final_loss"] == {"value": 7.0, "half_width": None}


def test_a_group_without_results_has_no_mean():
    (group,) = over_seeds([ExperimentConfig(), ExperimentConfig(seed=1)], {})
    assert group.failed == 2 and math.isnan(group.final_loss.value) and str(group.final_loss) == ""


def test_settings_that_are_tables_set_groups_apart():
    configs = [ExperimentConfig(optimizer="friendly-sam", rho=0.1, settings={"decay": d}) for d in (0.5, 0.9)]
    assert [group.setting["settings"] for group in over_seeds(configs, {})] == [{"decay": 0.5}, {"decay": 0.9}]
