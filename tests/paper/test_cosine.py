import numpy as np
import pytest

from saddlescope.paper.beale_runs import STEP_SIZES
from saddlescope.paper.cosine import CosineStatistics, checks, measure


@pytest.mark.parametrize("lr", STEP_SIZES.values())
def test_on_the_trap_the_cosine_fills_the_interval_but_seldom_its_ends(lr):
    statistics = measure(lr, 0.5, 20_000)
    assert 0.02 < statistics.cosine.mean() < 0.12
    assert 0.005 < statistics.near_one < 0.06
    assert [c.passed for c in checks([statistics])] == [True, False]


def test_an_alternation_would_pass_both_checks():
    alternating = CosineStatistics(lr=1.0, rho=1.0, cosine=np.tile([-0.99, 0.99], 50))
    assert [c.passed for c in checks([alternating])] == [True, True]


@pytest.mark.parametrize("ends", [(-0.5, 1.0), (-1.0, 0.5)])
def test_a_one_sided_distribution_fails_the_claim(ends):
    narrow = CosineStatistics(lr=1.0, rho=1.0, cosine=np.linspace(*ends, 11))
    assert checks([narrow])[0].passed is False
