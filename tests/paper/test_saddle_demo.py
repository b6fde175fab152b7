import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlescope import landscapes
from saddlescope.dynamics.maps import SAMMap
from saddlescope.dynamics.trajectories import simulate
from saddlescope.paper.saddle_demo import START, UnclearedSAMMap, capture_threshold, checks, two_cycle

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/theory.json").read_text())["x2_minus_y2"]
METHODS = {"nSAM": SAMMap, "demo_bug": UnclearedSAMMap}


def follow(update, steps):
    starts = torch.tensor([START], dtype=torch.float64)
    result = simulate(landscapes.get("quadratic_saddle"), update, starts, steps, record_every=1)
    return result.points[0].numpy()


@pytest.mark.parametrize("method", METHODS)
def test_capture_threshold_agrees_with_the_reference(method):
    rows = REFERENCE["capture_threshold"]
    expected = next(r["rho_c"] for r in rows if (r["method"], r["eta"]) == (method, 0.01))
    assert capture_threshold(METHODS[method]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("method", "lr", "rho"), [("nSAM", 0.01, 0.5), ("demo_bug", 0.02, 0.25)])
def test_both_end_on_the_predicted_two_cycle(method, lr, rho):
    runs = REFERENCE["runs"]
    expected = next(r["x"] for r in runs if (r["method"], r["rho"], r["T"]) == (method, 0.5, 20000))
    x = follow(METHODS[method](lr=0.01, rho=0.5), 20000)[-1, 0]
    assert x == pytest.approx(expected, abs=1e-14)
    assert abs(x) == pytest.approx(two_cycle(lr, rho), rel=1e-12)


def test_the_script_is_sam_with_twice_the_step_and_half_the_radius():
    script, sam = UnclearedSAMMap(lr=0.01, rho=0.5), SAMMap(lr=0.02, rho=0.25)
    assert np.abs(follow(script, 300) - follow(sam, 300)).max() < 1e-12


@pytest.mark.parametrize("rho", [0.49, 0.5, 0.51])
def test_unnormalized_sam_is_neutral_at_the_demo_radius(rho):
    growth = follow(SAMMap(lr=0.01, rho=rho, normalized=False), 500)[-1, 1] / START[1]
    assert growth == pytest.approx((1 + 0.02 * (1 - 2 * rho)) ** 500, rel=1e-10)


PATHS = {"GD": [[0.0, 200.0]], "SAM": [[0.005, 0.0]], "script": [[0.005, 0.0]], "unnormalized SAM": [[0.0, 0.01]]}
CYCLES, THRESHOLDS = {"SAM": 0.005, "script": 0.0051}, {"SAM": 0.0948, "script": 0.1865}


def outcome(paths=PATHS, amplitude=CYCLES, threshold=THRESHOLDS):
    return [c.passed for c in checks({k: np.array(v) for k, v in paths.items()}, amplitude, threshold, 1.0)]


def test_the_figure_holds_with_three_conditions():
    assert outcome() == [True, True, False, False, False]


def test_doctored_numbers_change_the_checks():
    assert outcome(paths=PATHS | {"GD": [[0.0, 0.1]]})[0] is False
    assert outcome(paths=PATHS | {"SAM": [[0.0, 5.0]]})[1] is False
    assert outcome(amplitude={"SAM": 1e-9, "script": 0.0})[2] is True
    assert outcome(threshold={"SAM": 0.0948, "script": 0.0949})[3] is True
