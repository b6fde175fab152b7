import math

import pytest

from saddlescope.paper.momentum import STEPS, Group, accuracy_gain, checks, find
from saddlescope.provenance import provenance
from saddlescope.training import ExperimentConfig, Record, run_experiment

LOSSES = {(0.0, 0.0): 0.02, (0.7, 0.0): 2.26, (1.0, 0.0): 2.30, (0.0, 0.9): 0.0, (0.7, 0.9): 0.003, (1.0, 0.9): 1.5}


def record(loss, accuracy):
    return Record(
        config=ExperimentConfig(),
        status="completed",
        losses=(2.3,) * 10 + (loss,) * 30,
        final_loss=loss,
        test_accuracy=accuracy,
        skipped_steps=0,
        hessian_products=0,
        seconds=0.0,
        provenance=provenance(),
    )


def groups(control=2.26, **changes):
    losses = LOSSES | changes.get("losses", {})
    made = []
    for rho in (0.0, 0.7, 1.0):
        for lr, momentum in STEPS:
            loss = losses[rho, momentum]
            if (lr, momentum) == (0.01, 0.9):
                loss = control
            if (lr, momentum) == (1.0, 0.0):
                loss = 0.04
            records = (record(loss, 0.97 if loss < 1 else 0.1),) * 2
            made.append(Group(rho=rho, lr=lr, momentum=momentum, capped=False, records=records))
    return made


def outcome(made):
    return [c.passed for c in checks(made)]


def test_momentum_helps_with_two_conditions():
    assert outcome(groups()) == [True, True, False, False]


def test_doctored_numbers_change_the_checks():
    assert outcome(groups(control=0.01))[2] is True
    assert outcome(groups(losses={(1.0, 0.9): 0.01}))[3] is True
    assert outcome(groups(losses={(0.7, 0.9): 2.2}))[:2] == [False, False]
    assert outcome(groups(losses={(0.7, 0.0): 0.01}))[:2] == [False, False]


def test_a_diverged_run_is_neither_stuck_nor_trained():
    group = Group(rho=1.0, lr=1.0, momentum=0.0, capped=False, records=(record(math.nan, 0.1),))
    assert not group.stuck
    assert not group.trained


def test_escape_is_the_first_step_of_a_low_average():
    group = find(groups(), 0.7, 0.1, 0.9)
    assert group.escapes == [2, 2]  # (10 - k) * 2.3 + k * 0.003 < 20 first at k = 2
    assert find(groups(), 0.7, 0.1, 0.0).escapes == [None, None]
    assert accuracy_gain(groups(), 0.7) == pytest.approx(0.87)


@pytest.mark.parametrize(("lr", "momentum", "trained"), [(0.1, 0.0, False), (0.01, 0.9, False), (0.1, 0.9, True)])
def test_one_seed_of_the_real_runs(lr, momentum, trained):
    run = run_experiment(ExperimentConfig(optimizer="sam", rho=0.7, lr=lr, momentum=momentum))
    group = Group(rho=0.7, lr=lr, momentum=momentum, capped=False, records=(run,))
    assert (group.trained, group.stuck) == (trained, not trained)
