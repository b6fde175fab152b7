"""Who listens to a computation hears how far it is; nobody else pays for it. Recorded states are the ensemble's."""

import pytest
import torch

from saddlescope import landscapes
from saddlescope.dynamics import SAMMap, VaSSOMap, ensemble, simulate
from saddlescope.dynamics.ensemble import Ensemble, listening, progress

BEALE = landscapes.get("beale")


@pytest.fixture
def at_once(monkeypatch):
    """Every report is passed on, however soon it comes after the last."""
    monkeypatch.setattr(ensemble, "_SECONDS_BETWEEN_REPORTS", -1.0)


def test_a_listener_is_told_every_share_and_nothing_is_drawn(at_once, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    heard = []
    with listening(lambda *told: heard.append(told)):
        simulate(BEALE, SAMMap(lr=1e-3, rho=0.1), [[1.0, 2.0]], 4, record_every=1)
    assert heard == [("simulating", share) for share in (0.25, 0.5, 0.75, 1.0)]
    simulate(BEALE, SAMMap(lr=1e-3, rho=0.1), [[1.0, 2.0]], 4, record_every=1)
    assert len(heard) == 4  # not after the block
    assert capfd.readouterr() == ("", "")


def test_listeners_within_listeners_and_after_an_error(at_once):
    outer, inner = [], []
    with listening(lambda *told: outer.append(told)):
        with pytest.raises(KeyError), listening(lambda *told: inner.append(told)), progress("inner", 2) as report:
            report(1)
            raise KeyError
        with progress("outer", 2) as report:
            report(3)
    assert (outer, inner) == ([("outer", 1.0)], [("inner", 0.5)])


def test_reports_are_a_tenth_of_a_second_apart():
    heard = []
    with listening(lambda *told: heard.append(told)), progress("counting", 100_000) as report:
        for _ in range(100_000):
            report(1)
    assert 1 <= len(heard) < 1000


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_a_bar_once_a_run_turns_out_long(terminal, at_once, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(ensemble, "_SECONDS_BEFORE_PROGRESS", -1.0)
    with progress("counting", 4) as report:
        report(3)
    said = capfd.readouterr()
    assert said.out == "" and ("counting" in said.err) == terminal


@pytest.mark.parametrize("update", [SAMMap(1e-3, 0.1, momentum=0.5), VaSSOMap(1e-3, 0.1, momentum=0.5)])
def test_recorded_states_are_those_of_the_ensemble(update):
    starts = torch.tensor([[1.0, 2.0], [0.5, 0.5]], dtype=torch.float64)
    run, twin = simulate(BEALE, update, starts, 6, record_every=2), Ensemble(BEALE, update, starts)
    for record in range(4):
        assert torch.equal(run.states[:, record], twin.states.T)
        assert torch.equal(run.points[:, record], twin.points)
        twin.advance(2)
    assert run.states.shape == (2, 4, len(update.initial(starts[0])) * 2)
    assert simulate(BEALE, update, starts, 6).states is None
