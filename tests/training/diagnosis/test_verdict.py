"""The verdict, number by number: every condition of "trapped" is needed, and none says more than its interval."""

import math
from dataclasses import replace

import pytest
from measurements import FREE, MINIMUM, SLOWED, TRAPPED, near

from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.verdict import VERDICTS, explain_verdict, judge_measurement


def test_one_of_each():
    for found, verdict in ((TRAPPED, "trapped"), (SLOWED, "slowed"), (FREE, "free"), (MINIMUM, "at_minimum")):
        assert judge_measurement(found) == verdict
        assert verdict in VERDICTS


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"curvature": near(-0.2, 0.1)}, "undetermined"),  # within two errors of zero
        ({"plain_curvature": near(0.05)}, "undetermined"),  # kinks within reach curve up
        ({"plain_curvature": near(0.05), "fall": near(0.2)}, "free"),
        ({"plain_curvature": near(-0.009)}, "undetermined"),  # SGD needs more than 1,000 steps an e-fold
        ({"trap_number": near(0.4, 0.01)}, "undetermined"),  # the two measures of the same thing disagree
        ({"trap_number": near(0.9)}, "trapped"),  # first order is too low for small batches
        ({"effective_curvature": near(0.0, 0.2)}, "undetermined"),
        ({"effective_curvature": near(0.02, 0.02)}, "slowed"),  # above zero, but not shown to be
        ({"plain_curvature": near(-0.2, 0.15)}, "undetermined"),  # below zero, but not shown to be
        ({"effective_curvature": near(-0.01)}, "slowed"),  # the trap number says held, a step aside says not
        ({"escape_curvature": near(-0.034)}, "slowed"),  # an e-fold in 300 steps
        ({"escape_effective_curvature": near(-0.034)}, "slowed"),
        ({"escape_curvature": near(-0.028), "escape_effective_curvature": near(-0.028)}, "trapped"),  # in 360
        ({"escape_curvature": near(-0.02, 0.01)}, "slowed"),  # room for one: up to an e-fold in 250 steps
        ({"fall": near(0.1)}, "slowed"),
        ({"fall": near(0.04, 0.01)}, "slowed"),  # not shown to stand still: up to .06 of 2.3 in 100 steps
        ({"fall": Estimate(math.nan, math.nan, 0), "watched_steps": 0}, "slowed"),
        ({"fall": near(0.03, 0.003)}, "trapped"),
        ({"status": "not finite"}, "undetermined"),
        ({"fall": Estimate(math.nan, math.nan, 0)}, "undetermined"),  # watched, and not finite
        ({"fall": near(-2.4)}, "undetermined"),  # it rises by all that it was
    ],
)
def test_what_a_change_makes_of_a_trapped_run(changes, verdict):
    assert judge_measurement(replace(TRAPPED, **changes)) == verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"lambda_min": -0.05, "curvature": near(-0.05, 0.03)}, "undetermined"),
        ({"lambda_max": 0.0}, "undetermined"),
        ({"lambda_max": 50.0}, "undetermined"),  # lr lambda_max / 2 > 1
        ({"fall": near(0.5)}, "free"),
        ({"fall": Estimate(math.nan, math.nan, 0), "watched_steps": 0}, "undetermined"),
        ({"loss": 0.0022, "fall": near(0.001)}, "at_minimum"),  # it falls, but less than a thousandth is left
        ({"loss": 0.0024, "fall": near(0.001)}, "free"),
        ({"loss": 0.0022, "fall": near(0.001), "zero_loss": math.nan}, "free"),
        ({"loss": -0.1, "fall": near(0.1)}, "free"),  # what is left of a loss below zero is not known
        ({"loss": 0.0022, "lambda_min": -0.02, "fall": near(0.001)}, "free"),
    ],
)
def test_what_a_change_makes_of_a_minimum(changes, verdict):
    assert judge_measurement(replace(MINIMUM, **changes)) == verdict


@pytest.mark.parametrize(
    ("changes", "is_open"),
    [
        ({}, False),
        ({"trap_number": near(1.0)}, True),
        ({"effective_curvature": near(0.02, 0.02)}, True),
        ({"escape_curvature": near(-0.03)}, True),  # held along v, and the best exit is at the threshold
        ({"escape_effective_curvature": near(-0.03)}, True),
        ({"escape_curvature": near(-0.06)}, False),
        ({"escape_curvature": near(-0.03), "effective_curvature": near(-0.05)}, False),  # not held anyway
        ({"escape_curvature": near(-0.03), "escape_effective_curvature": near(-0.06)}, False),  # one exit is enough
        ({"trap_number": near(1.0), "curvature": near(0.1)}, False),  # SGD does not leave
    ],
)
def test_a_measurement_is_open_while_more_batches_may_change_the_verdict(changes, is_open):
    assert replace(TRAPPED, **changes).open is is_open


def test_without_sam_nothing_is_open():
    assert not replace(TRAPPED, trap_number=near(1.0), settings=replace(TRAPPED.settings, rho=0.0)).open


def test_momentum_makes_an_exit_of_a_weak_direction():
    weak = replace(TRAPPED, escape_curvature=near(-0.01))
    assert judge_measurement(weak) == "trapped"
    assert judge_measurement(replace(weak, settings=replace(weak.settings, momentum=0.9))) == "slowed"


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_growth_is_that_of_the_heavy_ball(momentum):
    """Against the map itself, run until only the larger root is left."""
    settings = replace(TRAPPED.settings, lr=0.1, momentum=momentum)
    w, velocity, before = 1.0, 0.0, 1.0
    for _ in range(400):
        velocity = momentum * velocity - 0.3 * w
        before, w = w, w - 0.1 * velocity
    assert replace(TRAPPED, settings=settings).growth(-0.3) == pytest.approx(math.log(w / before), rel=1e-6)


def test_words_have_the_numbers_they_speak_of():
    assert "trap number 2 ± 0.02" in explain_verdict(TRAPPED)
    assert "SAM is driven back" in explain_verdict(TRAPPED)
    assert "4 times slower" in explain_verdict(SLOWED)
    assert "SAM does no slower" in explain_verdict(replace(FREE, effective_curvature=near(-0.3)))
    assert "another direction lets go" in explain_verdict(
        replace(TRAPPED, escape_curvature=near(-0.1), escape_effective_curvature=near(-0.1))
    )
    assert "no direction is shown along which it curves down" in explain_verdict(MINIMUM)
    assert "edge of stability" in explain_verdict(replace(MINIMUM, lambda_max=50.0))
    dead = replace(MINIMUM, lambda_max=0.0, gradient_norm=0.0)
    assert "dead ReLUs" in explain_verdict(dead)
    gone = replace(TRAPPED, status="not finite", loss=math.nan)
    assert explain_verdict(gone) == "The loss is not finite at these weights: nothing can be measured here."


def test_derived_numbers():
    assert TRAPPED.critical_rho == pytest.approx(0.25)
    assert TRAPPED.predicted_slowdown == math.inf and TRAPPED.slowdown == math.inf
    assert SLOWED.predicted_slowdown == pytest.approx(5.0) and SLOWED.slowdown == pytest.approx(4.0)
    assert TRAPPED.sgd_steps == pytest.approx(1 / math.log(1.02))
    assert math.isnan(MINIMUM.sgd_steps) or MINIMUM.curvature.value < 0
    assert math.isnan(MINIMUM.slowdown)


def test_the_full_batch_window_closes_at_the_edge_of_stability():
    """|lam-| / lam+ > theta / (1 - theta): for equal moduli at theta = 1/2, lr = (1 + momentum) / lam+."""
    for momentum in (0.0, 0.9):
        edge = (1 + momentum) / 0.2
        for lr, held in ((0.99 * edge, True), (1.01 * edge, False), (2.1 * edge, False)):
            settings = replace(TRAPPED.settings, lr=lr, momentum=momentum)
            assert replace(TRAPPED, settings=settings).full_batch_window is held
