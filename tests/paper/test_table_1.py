import math
from dataclasses import replace

import pytest
from test_network_runs import record

from saddlescope.paper import residual_grid
from saddlescope.paper.network_runs import Cell
from saddlescope.paper.residual_grid import NETWORKS, ResidualGrid, train_residual_grid
from saddlescope.paper.table_1 import BASE, EFFECTIVE, RADII, checks, settings
from saddlescope.sweeps.vectorised import why_alone

LEAVES = {0.5: 0.1, 0.7: 1.0, 1.0: 5.0}
"""Radii, and the effective step size from which SAM leaves in the doctored numbers below."""


def cells(accuracy_of, of=None):
    made = []
    for setting in of or settings():
        accuracy = accuracy_of(setting)
        records = tuple(record(0.1, accuracy + jitter) for jitter in (0.0, 0.001, 0.0005))
        made.append(Cell(setting=setting, records=records))
    return made


def by_effective_step(setting):
    """The accuracy grows with the effective step size, and jumps where SAM leaves; momentum itself does nothing."""
    effective = setting.lr / (1 - setting.momentum)
    if effective < LEAVES.get(setting.rho, 0.0) - 1e-9:
        return 0.1 + 0.01 * effective
    return 0.96 + 0.01 * effective


def outcome(made):
    return [check.passed for check in checks(made)]


def test_what_goes_by_the_effective_step_is_told_from_what_goes_by_momentum():
    assert outcome(cells(by_effective_step)) == [True, True, False, False, False]


def test_inertia_that_helped_by_itself_would_be_seen():
    made = cells(lambda s: by_effective_step(s) + 0.2 * s.momentum + 0.3 * s.momentum * s.rho)
    assert outcome(made)[2] is outcome(made)[4] is True


def test_a_few_points_at_chance_are_no_help():
    made = cells(lambda s: by_effective_step(s) + (0.04 if s.rho == 0.7 and s.momentum == 0.9 and s.lr < 0.05 else 0.0))
    assert outcome(made)[2] is False


def test_momentum_that_surely_harms_one_radius_refutes():
    made = cells(lambda s: by_effective_step(s) - (0.05 if s.rho == 0.5 and s.momentum == 0.5 else 0.0))
    assert outcome(made)[:2] == [False, True]


def test_without_any_effect_nothing_passes():
    assert outcome(cells(lambda s: 0.9)) == [False] * 5


def test_more_help_at_larger_radii_is_seen():
    assert outcome(cells(lambda s: 0.5 + 0.1 * s.momentum * s.rho))[3] is True


def test_the_grid_has_the_papers_column_and_equal_effective_steps():
    made = settings()
    assert len(made) == len(set(made)) == len(RADII) * sum(map(len, EFFECTIVE.values()))
    for rho in RADII:
        row = [s for s in made if s.rho == rho]
        assert sorted(s.momentum for s in row if math.isclose(s.lr, 0.1)) == [0.0, 0.5, 0.9]
        steps = [round(s.lr / (1 - s.momentum), 9) for s in row]
        assert {step: steps.count(step) for step in steps} == {e: len(m) for e, m in EFFECTIVE.items()}
    assert not any(why_alone(s) for s in made)
    assert all(replace(s, optimizer="sgd", rho=0.0, lr=0.1, momentum=0.0) == BASE for s in made)


def test_the_residual_grid_says_its_cost_before_it_starts(monkeypatch, capsys):
    said = []

    def trained(chosen, seeds, workers):
        said.append(capsys.readouterr().err)
        return tuple(cells(by_effective_step, chosen))

    monkeypatch.setattr(residual_grid, "train_cells", trained)
    grid = train_residual_grid()
    assert "150 runs of 200 epochs" in said[0] and "hours of one large GPU" in said[0]
    assert isinstance(grid, ResidualGrid) and len(grid.table.rows) == 30
    assert [check.passed for check in grid.checks] == [False, False] * len(NETWORKS)
    freed = ResidualGrid(cells=tuple(cells(lambda s: 0.5 + 0.3 * s.rho * s.momentum, [c.setting for c in grid.cells])))
    assert [check.passed for check in freed.checks] == [True, True] * len(NETWORKS)


@pytest.mark.parametrize("rho", residual_grid.RADII)
def test_the_residual_grid_has_both_controls(rho):
    for task in NETWORKS:
        steps = [s.lr / (1 - s.momentum) for s in residual_grid.settings() if s.task == task and s.rho == rho]
        assert sorted(round(step, 9) for step in steps) == [0.1, 0.1, 1.0, 1.0, 2.0]
