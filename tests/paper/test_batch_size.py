import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from statistical_bounds import seed, z_bound
from test_batch_networks import grid

from saddlescope.findings import Claim, Finding, Verdict
from saddlescope.paper import batch_size
from saddlescope.paper.batch_cases import (
    BATCHES,
    LR,
    MAX_STEPS,
    MOMENTUM,
    MOMENTUM_BATCHES,
    MOMENTUM_RADII,
    SETTINGS,
    BatchCase,
    batch_case,
    find,
)
from saddlescope.paper.batch_radius import (
    CURVATURES,
    TrappingRadius,
    noise_dominated_radius,
    sampled_curvature_radius,
)
from saddlescope.paper.batch_size import checks

ROWS = json.loads((Path(__file__).parents[1] / "reference/theory.json").read_text())["mfpt_gamma0"]


@pytest.mark.parametrize(("rho", "model"), [(0.0, "same"), (0.9, "same"), (2.0, "same"), (4.0, "same")])
def test_exact_times_are_those_of_the_reference(rho, model):
    row = next(r for r in ROWS if (r["rho"], r["eta"], r["model"]) == (rho, LR, model))
    case = batch_case("shared", rho, 1, replicas=200)
    assert case.exact == pytest.approx(row["exact_discrete_steps"], rel=1e-6)
    assert case.times.replicas == 200
    assert abs(case.deviation) < z_bound(4)


def test_nothing_is_simulated_where_the_mean_is_beyond_the_last_step():
    case = batch_case("additive", 1.2, 8, replicas=200)
    assert case.exact > MAX_STEPS
    assert (case.times, case.deviation) == (None, 0.0)
    assert batch_case("additive", 0.5, 2, replicas=200, simulated=False).times is None


def test_curvatures_have_mean_and_variance_one():
    assert np.mean(CURVATURES) == pytest.approx(-1.0, abs=1e-15)
    assert np.var(CURVATURES) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("measure", [sampled_curvature_radius, noise_dominated_radius])
def test_measured_radii_are_the_predicted_ones(measure):
    for batch in (1, 8):
        assert abs(measure(batch, replicas=20_000, seed=seed(batch)).deviation) < z_bound(4)


def test_the_error_of_a_radius_is_that_of_repeated_runs():
    """Of forty runs the spread over the mean stated error: chi-square with 39 degrees at a chance of 1e-4."""
    runs = [sampled_curvature_radius(2, replicas=500, seed=seed(500 + k)) for k in range(40)]
    ratio = np.std([r.measured for r in runs], ddof=1) / np.mean([r.standard_error for r in runs])
    assert 0.58 < ratio < 1.47
    low, high = runs[0].interval
    assert (high - low) / 2 == pytest.approx(1.959964 * runs[0].standard_error)


def times(mean):
    """Simulated times whose mean is known to five percent."""
    return SimpleNamespace(mean=mean, confidence_interval=(0.95 * mean, 1.05 * mean), standard_error=mean / 40)


OUTSIDE = {0.0: (37.0, 80.0), 0.5: (56.0, 143.0)}


def doctored(steps_of=None):
    """Cases with plausible times, or those of ``steps_of(noise, rho, B)``."""

    def mean(noise, rho, batch):
        if steps_of and (given := steps_of(noise, rho, batch)):
            return given
        if rho in OUTSIDE:
            first, last = OUTSIDE[rho]
            return first + (last - first) * math.log(batch) / math.log(64)
        return 100.0 * math.exp(batch)

    def case(noise, rho, batch, lr, momentum, factor=1.0):
        steps = factor * mean(noise, rho, batch)
        settings = {"noise": noise, "rho": rho, "lr": lr, "momentum": momentum, "batch_size": batch}
        return BatchCase(**settings, exact=steps, error=0.0, times=times(steps))

    cases = [case(noise, rho, b, LR, 0.0) for noise, rho in SETTINGS for b in BATCHES]
    moving = [
        case("additive", rho, b, lr, MOMENTUM, factor)
        for rho in MOMENTUM_RADII
        for lr, factor in ((LR, 0.1), (LR * (1 - MOMENTUM), 2.0))
        for b in MOMENTUM_BATCHES
    ]
    return cases, moving


def radius(batch, measured):
    return TrappingRadius(batch_size=batch, predicted=measured, measured=measured, standard_error=0.01)


RADII = [radius(1, 0.5), radius(64, 0.98)], [radius(1, 3.2), radius(64, 0.4)]


def passed(steps_of=None, radii=RADII, change=lambda cases, moving: (cases, moving)):
    return [check.passed for check in checks(*change(*doctored(steps_of)), *radii)]


def test_small_batches_help_with_four_conditions():
    assert passed() == [True, True, False, True, False, True, True, False]


def test_doctored_numbers_change_the_checks():
    assert passed(lambda noise, rho, b: 57.0 if (noise, rho, b) == ("shared", 0.5, 64) else None)[0] is False
    assert passed(lambda noise, rho, b: 5.0 if (noise, rho, b) == ("shared", 3.0, 2) else None)[1] is False
    assert passed(lambda noise, rho, b: 56.0 * b if rho == 0.5 else None)[2] is True
    assert passed(lambda noise, rho, b: 40.0 + b if rho == 0.5 and noise == "shared" else None)[3] is True
    assert passed(lambda noise, rho, b: 60.0 + b / 64 if rho == 0.5 and noise == "shared" else None)[3] is False
    assert passed(radii=([radius(1, 1.0), radius(64, 0.99)], RADII[1]))[4] is True
    assert passed(radii=(RADII[0], RADII[1][::-1]))[5] is False

    def scaled(factor, lr):
        return lambda cases, moving: (
            cases,
            [
                replace(c, exact=factor * c.exact, times=times(factor * c.exact)) if math.isclose(c.lr, lr) else c
                for c in moving
            ],
        )

    assert passed(change=scaled(20.0, LR))[6] is False
    assert passed(change=scaled(0.1, LR * (1 - MOMENTUM)))[7] is True


def numbers_of(evidence):
    return json.loads(json.dumps(evidence.to_dict()))["numbers"]["network_escape_steps"]


def test_the_evidence(monkeypatch):
    monkeypatch.setattr(batch_size, "REPLICAS", {"quick": 400})
    monkeypatch.setattr(batch_size, "train_batch_grid", lambda seeds: grid())  # trained below, and by reproduce
    evidence = batch_size.examine("quick")
    finding = Finding(Claim(id="fig-batch-size", title="", statement="", source="", run=batch_size.examine), evidence)
    assert finding.verdict is Verdict.CONDITION
    analytic, network = [True, True, False, False, False, True, True, False], [True, False, True, False, False]
    assert [check.passed for check in evidence.checks] == [*analytic, *network]
    assert "by more steps an epoch" in evidence.ours and numbers_of(evidence)["SGD"]["8"]["value"] == pytest.approx(47)
    numbers = json.loads(json.dumps(finding.to_dict(), allow_nan=False))["evidence"]["numbers"]
    assert numbers["largest_deviation"] < z_bound(numbers["simulated_means"])
    assert numbers["exact_steps"]["additive, rho=1.2"][0] == pytest.approx(168.288, abs=1e-3)
    assert numbers["exact_steps"]["shared, rho=1.2"][-1] is None
    for table in evidence.tables:
        assert {len(cells) for cells in table.rows} == {len(table.columns)}
    assert len(evidence.illustrations) == 6


def test_find_takes_the_step_size_where_it_is_given():
    _, moving = doctored()
    assert find(moving, "additive", 1.2, 4, LR).lr == LR
    assert find(moving, "additive", 1.2, 4, LR * (1 - MOMENTUM)).lr == LR * (1 - MOMENTUM)
