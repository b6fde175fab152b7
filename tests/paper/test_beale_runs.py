import json
from pathlib import Path

import pytest

from saddlescope.paper.beale_runs import STEP_SIZES, run

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/theory.json").read_text())["beale"]


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.5, 1.0])
def test_runs_agree_with_the_reference(rho):
    lr = STEP_SIZES["text"]
    expected = next(r for r in REFERENCE["long_runs"] if (r["eta"], r["rho"], r["gamma"]) == (lr, rho, 0.0))
    ours = run(lr, rho)
    assert ours.end == {"min": "minimum", "saddle": "saddle"}[expected["end"]]
    if ours.end == "minimum":
        assert ours.nearest_approach == pytest.approx(expected["min_dist_saddle"], abs=1e-9)
        assert ours.final.tolist() == pytest.approx([expected["mean_x"], expected["mean_y"]], abs=2e-4)
        assert ours.arrival is None
    else:
        assert ours.arrival == expected["first_step_within_0.01_of_saddle"]
