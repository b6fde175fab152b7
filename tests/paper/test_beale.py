import json
from pathlib import Path

import pytest

from saddlescope.paper.beale import OFFICIAL_STEPS, capture_threshold, checks
from saddlescope.paper.beale_runs import CRITICAL_RHO, RADII, START, STEP_SIZES, follow, optimizer, run

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/theory.json").read_text())["beale"]


@pytest.fixture(scope="module")
def runs():
    return {"text": [run(STEP_SIZES["text"], rho) for rho in RADII]}


@pytest.mark.parametrize("lr", STEP_SIZES.values())
def test_capture_threshold_agrees_with_the_reference(lr):
    rows = REFERENCE["capture_threshold_from_1_2"]
    expected = next(r for r in rows if (r["eta"], r["gamma"]) == (lr, 0.0))
    middle = (expected["rho_c_low"] + expected["rho_c_high"]) / 2
    assert capture_threshold(lr) == pytest.approx(middle, abs=2e-5)


def test_official_gradient_descent_stops_short_of_the_minimum():
    expected = REFERENCE["official_protocol"][0]["official_cap100000"]
    assert expected["steps"] == OFFICIAL_STEPS
    end = follow(optimizer(STEP_SIZES["code"], 0.0), START, OFFICIAL_STEPS)
    assert end.tolist() == pytest.approx([expected["x"], expected["y"]], abs=1e-9)


def test_the_picture_reproduces_and_its_explanation_does_not(runs):
    results = checks(runs, {"text": 0.3027}, diverges=True)
    assert [(c.passed, c.essential) for c in results] == [
        (True, True),
        (True, True),
        (False, True),
        (False, True),
        (False, False),
    ]


def test_the_explanation_would_pass_if_the_numbers_said_so(runs):
    captured = {"text": [r for r in runs["text"] if r.rho != 0.1]}
    results = checks(captured, {"text": 1.02 * CRITICAL_RHO}, diverges=False)
    assert all(c.passed for c in results)
