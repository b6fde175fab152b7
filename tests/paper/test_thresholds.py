import pytest

from saddlescope.paper.thresholds import bisect_threshold


def test_finds_the_threshold_to_the_asked_width():
    assert bisect_threshold(lambda x: x > 0.3027, 0.02, 1.0, relative=1e-9) == pytest.approx(0.3027, rel=1e-9)


def test_an_outcome_outside_the_bracket_gives_its_end():
    assert bisect_threshold(lambda x: True, 0.5, 2.0) == 0.5
    assert bisect_threshold(lambda x: False, 0.5, 2.0) == 2.0
