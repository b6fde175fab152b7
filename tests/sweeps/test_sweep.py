"""Sweeps under faults: every cell once, none torn, none that was done run again."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from faults import alive, interrupted_children, until

from saddlescope.store import Store
from saddlescope.sweeps import run_sweep
from saddlescope.sweeps.engine import Outcome, attempt
from saddlescope.sweeps.local import LocalEngine
from saddlescope.sweeps.sweep import record_of, stored
from saddlescope.training import ExperimentConfig, run_experiment

CONFIGS = [ExperimentConfig(optimizer="sam", rho=0.3, steps=2, seed=seed) for seed in range(4)]


def numbers(record):
    return record.losses, record.final_loss, record.test_accuracy, record.status


class Here:
    """An engine that runs in this process and counts."""

    workers = 1

    def __init__(self):
        self.ran = []

    def run(self, configs):
        for config in configs:
            self.ran.append(config.key)
            yield attempt(config)


def test_the_store_gives_back_the_records_and_what_is_there_is_not_run_again(tmp_path):
    url, engine = f"sqlite:///{tmp_path / 'x.db'}", Here()
    first = run_sweep(CONFIGS[:2], engine=engine, store=url)
    second = run_sweep([*CONFIGS, CONFIGS[0]], engine=engine, store=url)
    assert (first.computed, first.reused, second.computed, second.reused) == (2, 0, 2, 2)
    assert Counter(engine.ran) == {config.key: 1 for config in CONFIGS}
    assert second.configs == tuple(CONFIGS)
    for key, record in first.records.items():
        assert second.records[key] == record
    assert numbers(second.records[CONFIGS[3].key]) == numbers(attempt(CONFIGS[3]).record)


def test_a_diverged_run_is_stored_with_nan_as_none():
    record = run_experiment(ExperimentConfig(lr=1e6, steps=50))
    again = record_of(stored(record))
    assert again.status == "diverged" and again.config == record.config
    assert again.losses[:-1] == record.losses[:-1] and again.losses[-1] != again.losses[-1]


def test_another_driver_between_two_runs_is_noticed(tmp_path):
    """The other one finishes a cell that this one has not begun: it is neither run again nor missing."""
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")

    class Slow(Here):
        def run(self, configs):
            for number, outcome in enumerate(super().run(configs)):
                yield outcome
                if number == 0:
                    rest = [config for config in CONFIGS if config.key not in self.ran]
                    store.add(stored(run_experiment(rest[0])))

    engine = Slow()
    result = run_sweep(CONFIGS, engine=engine, store=store)
    assert len(engine.ran) == 3 and (result.computed, result.reused) == (3, 1) and len(result.records) == 4
    store.close()


def test_of_two_results_of_one_run_the_first_stays_and_is_not_counted(tmp_path):
    store, first = Store(f"sqlite:///{tmp_path / 'x.db'}"), run_experiment(CONFIGS[0])

    class Late(Here):
        def run(self, configs):
            for outcome in super().run(configs):
                store.add(stored(replace(first, seconds=1e9)))
                yield outcome

    result = run_sweep(CONFIGS[:1], engine=Late(), store=store)
    assert (result.computed, result.reused) == (0, 1) and result.records[first.config.key].seconds == 1e9
    store.close()


def test_an_error_of_a_run_is_its_outcome_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SADDLESCOPE_DATA", str(tmp_path))
    bad = ExperimentConfig(task="cifar10-mlp", steps=1)
    result = run_sweep([bad, CONFIGS[0]], engine=Here(), store=f"sqlite:///{tmp_path / 'x.db'}")
    assert list(result.failures) == [bad.key] and "FileNotFoundError: data: found no" in result.failures[bad.key]
    assert list(result.records) == [CONFIGS[0].key]
    data = result.to_dict()
    assert data["failed"] == 1 and data["runs"][0]["status"] == "failed" and data["runs"][1]["final_loss"] > 0


def test_no_configs_and_unknown_engines_are_refused():
    with pytest.raises(ValueError, match="configs: got 'none'"):
        run_sweep([])
    with pytest.raises(ValueError, match="engine: got 'slurm'"):
        run_sweep(CONFIGS, engine="slurm")


def marked(config):
    """Leave a file for every time a run is begun, and die the first time, or with seed 3 always."""
    folder = Path(os.environ["MARKS"])
    mark = folder / f"{config.seed}-{time.time_ns()}"
    mark.touch()
    if config.seed == 3 or (config.seed < 2 and len(list(folder.glob(f"{config.seed}-*"))) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt(config)


def test_a_killed_worker_costs_its_run_one_attempt_and_the_others_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKS", str(tmp_path))
    result = run_sweep(CONFIGS, engine=LocalEngine(2, attempts=2, task=marked))
    begun = Counter(int(mark.name.split("-")[0]) for mark in tmp_path.iterdir())
    assert begun == {0: 2, 1: 2, 2: 1, 3: 2}
    assert "died 2 times (exit code -9)" in result.failures[CONFIGS[3].key]
    assert result.retries == 3 == result.to_dict()["retries"]
    for config in CONFIGS[:3]:
        assert numbers(result.records[config.key]) == numbers(attempt(config).record)


def interrupted(outcome: Outcome):
    raise KeyboardInterrupt


def test_an_interrupt_ends_the_workers(tmp_path):
    engine = LocalEngine(1)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(CONFIGS, engine=engine, store=f"sqlite:///{tmp_path / 'x.db'}", on_outcome=interrupted)
    with Store(f"sqlite:///{tmp_path / 'x.db'}") as store:
        assert len(store.keys()) == 1
    assert not multiprocessing.active_children()


def test_a_worker_does_not_hear_ctrl_c_from_its_first_moment_on():
    with interrupted_children():
        (outcome,) = LocalEngine(1).run(CONFIGS[:1])
    assert outcome.record is not None and outcome.attempts == 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


ORPHAN = """
import os, sys, time
from pathlib import Path
from saddlescope.sweeps import run_sweep
from saddlescope.sweeps.local import LocalEngine
from saddlescope.training import ExperimentConfig

def rest(config):
    Path(sys.argv[1]).write_text(f"{os.getpid()}.")
    time.sleep(1000)

if __name__ == "__main__":
    run_sweep([ExperimentConfig()], engine=LocalEngine(1, task=rest))
"""


def test_a_worker_ends_with_its_driver_in_the_middle_of_a_run(tmp_path):
    script, mark = tmp_path / "script.py", tmp_path / "mark"
    script.write_text(ORPHAN)
    driver = subprocess.Popen([sys.executable, str(script), str(mark)])
    until(lambda: mark.exists() and mark.read_text().endswith("."), driver)
    worker = int(mark.read_text().rstrip("."))
    assert alive(worker)
    driver.kill()
    driver.wait()
    until(lambda: not alive(worker), seconds=60)


DRIVER = """
import sys
from saddlescope.sweeps.grid import read_grid
from saddlescope.sweeps.engine import attempt
from saddlescope.sweeps.sweep import run_sweep

class Here:
    workers = 1
    def run(self, configs):
        for config in configs:
            print(config.key, flush=True)
            yield attempt(config)

print("ready", flush=True)
run_sweep(read_grid(sys.argv[1]), engine=Here(), store=sys.argv[2])
"""


def driver(grid, url):
    return subprocess.Popen([sys.executable, "-c", DRIVER, grid, url], stdout=subprocess.PIPE, text=True)


def test_killed_drivers_and_two_at_once(tmp_path):
    """Two are killed at random moments, then two finish side by side: all cells are there, none from before again."""
    grid, url, cells = str(tmp_path / "grid.toml"), f"sqlite:///{tmp_path / 'x.db'}", 16
    Path(grid).write_text(f"[base]\nsteps = 8\nseed = {{from = 0, to = {cells - 1}, count = {cells}}}\n")
    generator = random.Random(1)
    for _ in range(2):
        killed = driver(grid, url)
        assert killed.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.1, 0.4))
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
    with Store(url) as store:
        before = store.keys()
    begun = []
    for finishing in [driver(grid, url), driver(grid, url)]:
        begun += finishing.communicate()[0].split()[1:]
        assert finishing.returncode == 0
    assert not before & set(begun)
    with Store(url) as store:
        runs = store.select()
    assert sorted(run.config["seed"] for run in runs) == list(range(cells))
    assert all(len(run.curves["losses"]) == 8 and run.status == "completed" for run in runs)
    some = record_of(runs[0])
    assert numbers(some) == numbers(attempt(replace(some.config)).record)
