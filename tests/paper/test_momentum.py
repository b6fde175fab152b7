import math
from dataclasses import replace

import pytest
from test_network_runs import record

from saddlescope.paper.momentum import CIFAR10, DIGITS, STEPS, checks, settings
from saddlescope.paper.network_runs import Cell, find_cell, train_cells

MEASURED = {
    (0.0, 0.1, 0.0): 0.013,
    (0.0, 0.1, 0.9): 0.0001,
    (0.7, 0.1, 0.0): 2.29,
    (0.7, 0.1, 0.9): 0.03,
    (0.7, 0.01, 0.9): 2.29,
    (0.7, 1.0, 0.0): 0.04,
    (1.0, 0.1, 0.9): 2.25,
}


def cells(network=DIGITS, **changes):
    """Three seeds of every setting, with doctored losses; the accuracy follows from the loss."""
    made = []
    for setting in settings(network):
        key = (setting.rho, setting.lr, setting.momentum)
        loss = changes.get("losses", {}).get(key, MEASURED.get(key, 2.3))
        accuracies = [(0.97 if loss < 1 else 0.1) + jitter for jitter in (0.0, 0.004, 0.009)]
        made.append(Cell(setting=setting, records=tuple(record(loss, accuracy) for accuracy in accuracies)))
    return made


def outcome(made, network=DIGITS):
    return [check.passed for check in checks(network, made)]


def test_momentum_helps_under_conditions():
    assert outcome(cells()) == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("key", "loss", "expected"),
    [
        ((0.7, 0.01, 0.9), 0.01, [True, True, True, False, False]),
        ((1.0, 0.1, 0.9), 0.01, [True, True, False, False, True]),
        ((0.7, 1.0, 0.0), 2.2, [True, True, False, True, False]),
        ((0.7, 0.1, 0.9), 2.2, [False, False, False, False, False]),
        ((0.7, 0.1, 0.0), 0.01, [False, False, False, False, False]),
        ((0.0, 0.1, 0.0), 2.3, [True, False, False, False, False]),
    ],
)
def test_doctored_numbers_change_the_checks(key, loss, expected):
    assert outcome(cells(losses={key: loss})) == expected


def test_one_seed_that_escapes_is_enough_to_refute():
    made = cells()
    plain = find_cell(made, 0.7, 0.1, 0.0)
    made[made.index(plain)] = replace(plain, records=(*plain.records[:2], record(0.1, 0.9)))
    assert outcome(made)[0] is False


def test_a_diverged_run_with_momentum_has_not_been_freed():
    made = cells()
    fast = find_cell(made, 0.7, 0.1, 0.9)
    made[made.index(fast)] = replace(fast, records=(*fast.records[:2], record(math.nan, 0.1)))
    assert outcome(made)[0] is False


@pytest.mark.parametrize("network", [DIGITS, CIFAR10])
def test_each_radius_has_both_controls(network):
    made = settings(network)
    for rho in (0.0, *network.radii):
        pairs = {(s.lr, s.momentum): s.lr / (1 - s.momentum) for s in made if s.rho == rho and not s.radius_cap}
        assert set(pairs) == set(STEPS)
        assert pairs[0.1, 0.0] == pytest.approx(pairs[0.01, 0.9]) and pairs[0.1, 0.9] == pytest.approx(pairs[1.0, 0.0])
    assert sum(s.radius_cap is not None for s in made) == 1


def test_one_seed_of_the_real_runs():
    steps = list(STEPS)[:3]
    chosen = [s for s in settings(DIGITS) if s.rho == 0.7 and (s.lr, s.momentum) in steps]
    cells = train_cells(chosen, 1, workers=1)
    assert [find_cell(cells, 0.7, *step).trained for step in steps] == [False, True, False]
    assert [find_cell(cells, 0.7, *step).stuck for step in steps] == [True, False, True]
