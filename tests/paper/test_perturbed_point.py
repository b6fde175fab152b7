from dataclasses import replace

import numpy as np
import pytest

from saddlescope.paper.beale_runs import SADDLE
from saddlescope.paper.perturbed_point import RHO, Jumps, checks, measure


@pytest.fixture(scope="module")
def jumps():
    return measure(1e-4, 2000)


def test_the_perturbed_point_is_rho_ahead_of_the_weights(jumps):
    assert np.linalg.norm(jumps.perturbed - jumps.points, axis=1) == pytest.approx(RHO, rel=1e-12)


def test_weights_are_pinned_and_the_perturbed_point_jumps(jumps):
    assert all(c.passed for c in checks([jumps]))


def test_doctored_points_fail_the_checks(jumps):
    loose = replace(jumps, points=jumps.points + 0.1)
    near = replace(jumps, perturbed=SADDLE + 0.5 * (jumps.perturbed - SADDLE))
    one_sided = replace(jumps, perturbed=np.tile(SADDLE + [RHO, 0.0], (len(jumps.points), 1)))
    assert [[c.passed for c in checks([j])] for j in (loose, near, one_sided)] == [
        [False, True, True],
        [True, False, True],
        [True, True, False],
    ]


def test_crossings_count_turns_of_more_than_a_right_angle():
    offsets = np.array([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [0.0, -1.0]])
    assert Jumps(lr=1.0, points=SADDLE + 0 * offsets, perturbed=SADDLE + offsets).crossings == pytest.approx(2 / 3)
