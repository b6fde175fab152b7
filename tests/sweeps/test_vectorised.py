"""The engine that trains cells side by side: the same cells, each once, whatever fits together."""

import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch

from saddlescope.optim import RadiusCap
from saddlescope.store import Store
from saddlescope.sweeps import run_sweep
from saddlescope.sweeps import vectorised as module
from saddlescope.sweeps.engine import attempt
from saddlescope.sweeps.vectorised import VectorisedEngine
from saddlescope.training import ExperimentConfig

SAM = ExperimentConfig(optimizer="sam", rho=0.3, batch_size=32, steps=10)
CELLS = [
    *(replace(SAM, seed=seed, momentum=momentum) for seed in range(3) for momentum in (0.0, 0.9)),
    *(ExperimentConfig(batch_size=32, steps=10, seed=seed) for seed in range(2)),
    *(replace(SAM, batch_size=16, seed=seed) for seed in range(2)),
]


def test_every_cell_has_the_losses_of_its_single_run():
    result = run_sweep(CELLS, engine="vectorised")
    assert result.computed == len(CELLS) and not result.failures
    for config in CELLS:
        expected = attempt(config).record
        assert result.records[config.key].config == config
        assert result.records[config.key].losses == pytest.approx(expected.losses, abs=1e-5)


def test_teams_fit_together_and_keep_all_threads_busy():
    teams = list(VectorisedEngine(2, members=4)._teams(CELLS))
    assert Counter(config for team in teams for config in team) == Counter(CELLS)
    assert sorted(len(team) for team in teams) == [1, 1, 1, 1, 3, 3]
    assert sorted(len(team) for team in VectorisedEngine(1, members=4)._teams(CELLS)) == [2, 2, 2, 4]


class Alone:
    """In place of processes."""

    seen = None

    def __init__(self, workers):
        self.workers = workers

    def run(self, configs):
        Alone.seen = list(configs)
        return (attempt(config) for config in Alone.seen)


def test_what_must_run_alone_is_handed_on(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LocalEngine", Alone)
    monkeypatch.setattr(module, "WINDOW", 1)
    alone = [replace(SAM, radius_cap=RadiusCap()), replace(SAM, optimizer="friendly-sam")]
    with Store(f"sqlite:///{tmp_path / 'x.db'}") as store:
        result = run_sweep([*CELLS[:2], *alone], engine=VectorisedEngine(1), store=store)
        assert set(store.keys()) == {config.key for config in [*CELLS[:2], *alone]}
    assert {config.key for config in Alone.seen} == {config.key for config in alone}
    assert all(record.status == "completed" for record in result.records.values())


def test_more_cells_than_a_window_are_all_run(monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 3)
    outcomes = list(VectorisedEngine(2).run(iter(CELLS)))
    assert Counter(outcome.config for outcome in outcomes) == Counter(CELLS)


def test_an_error_is_the_outcome_of_its_cells_and_the_others_go_on(monkeypatch, tmp_path):
    monkeypatch.setenv("SADDLESCOPE_DATA", str(tmp_path))
    bad = [ExperimentConfig(task="cifar10-mlp", steps=1, seed=seed) for seed in range(2)]
    result = run_sweep([*bad, CELLS[0]], engine=VectorisedEngine(1))
    assert set(result.failures) == {config.key for config in bad}
    assert all("FileNotFoundError: data: found no" in error for error in result.failures.values())
    assert list(result.records) == [CELLS[0].key]


def test_an_error_in_the_training_too(monkeypatch):
    monkeypatch.setattr(module.Ensemble, "run", lambda self, stop: 1 / 0)
    outcomes = list(VectorisedEngine(2).run(CELLS[:2]))
    assert [outcome.error for outcome in outcomes] == ["ZeroDivisionError: division by zero"] * 2


def test_closing_ends_all_that_runs_and_restores_the_threads():
    threads, others = torch.get_num_threads(), threading.active_count()
    outcomes = VectorisedEngine(2).run([replace(SAM, steps=1), *(replace(SAM, steps=10**6, seed=s) for s in (1, 2))])
    next(outcomes)
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < 10  # a million steps take minutes
    assert (torch.get_num_threads(), threading.active_count()) == (threads, others)
