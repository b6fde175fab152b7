from dataclasses import replace

import pytest

from saddlescope import landscapes
from saddlescope.paper import saddle_attractor
from saddlescope.paper.saddle_attractor import checks, disc_fates, spurious_attractor, window


@pytest.fixture(scope="module")
def single():
    return [window("beale", landscapes.get("beale"), (0.0, 1.0))]


@pytest.fixture(scope="module")
def several():
    return [window("three", landscapes.quadratic([1.0, -0.5, -2.0]), (0.0, 0.0, 0.0))]


def outcome(*arguments):
    return [check.passed for check in checks(*arguments)]


def test_simulation_finds_the_window_of_beales_saddle(single):
    (beale,) = single
    assert beale.predicted == pytest.approx((4 / 111, 2 / (beale.lr * 27.75**2) - 1 / 27.75))
    assert beale.simulated[0] == pytest.approx(4 / 111, rel=1e-5)
    assert beale.simulated[1] == pytest.approx(beale.predicted[1], rel=1e-4)


def test_the_least_negative_eigenvalue_decides(several):
    (three,) = several
    assert three.simulated[0] == pytest.approx(2.0, rel=1e-4)
    assert three.predicted == pytest.approx((2.0, 8.0))  # the step size puts the upper edge at 4 / |lambda|
    assert three.simulated[1] == pytest.approx(8.0, rel=1e-4)


def test_the_theorem_holds_with_three_conditions(single, several):
    assert outcome(single, several, 0.485) == [True, False, False, False]


def test_a_wrong_threshold_fails_the_claim(single, several):
    wrong = [replace(w, predicted=(1.01 * w.predicted[0], w.predicted[1])) for w in single]
    assert outcome(wrong, several, 0.485)[0] is False


def test_a_wrong_critical_rho_in_the_library_fails_the_claim(monkeypatch, several):
    monkeypatch.setattr(saddle_attractor, "critical_rho", lambda eigenvalues: 1.01 / 27.75)
    wrong = [window("beale", landscapes.get("beale"), (0.0, 1.0))]
    assert outcome(wrong, several, 0.485)[0] is False


def test_conditions_disappear_with_their_evidence(single, several):
    endless = [replace(w, simulated=(w.predicted[0], 12 * w.predicted[0])) for w in single]
    literal = [replace(w, simulated=(0.5, 24.0)) for w in several]
    assert outcome(endless, literal, 0.0) == [True, True, True, True]


def test_a_spurious_attractor_lies_below_the_threshold():
    beale = landscapes.get("beale")
    assert spurious_attractor(beale, 0.9) == pytest.approx([-0.10749280727995687, 1.111681507795967], abs=1e-8)
    assert disc_fates(beale, 0.8, 100)["spurious"] == 0.0
    assert 0.4 < disc_fates(beale, 0.95, 100)["spurious"] < 0.6
    assert disc_fates(beale, 1.5, 100)["saddle"] == 1.0
