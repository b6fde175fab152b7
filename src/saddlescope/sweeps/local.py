"""Processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from saddlescope._checks import require_count
from saddlescope._interrupts import left_to_this_process
from saddlescope.sweeps.attempts import Attempts
from saddlescope.sweeps.engine import ATTEMPTS, Outcome, attempt
from saddlescope.training import ExperimentConfig


class LocalEngine:
    """Runs configs in processes of their own.

    One process and one pipe a worker, rather than a pool: when a worker is killed, it is known which run it had,
    that run alone is begun again, and the others go on. When the driver is killed, the workers end at once.

    Args:
        workers: how many; by default the cores of this process.
        attempts: how often a run is begun whose worker died.
        task: what a worker does with a config.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        attempts: int = ATTEMPTS,
        task: Callable[[ExperimentConfig], Outcome] = attempt,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = require_count("workers", cores if workers is None else workers, minimum=1)
        self._attempts = require_count("attempts", attempts, minimum=1)
        self._task = task

    def run(self, configs: Iterable[ExperimentConfig]) -> Iterator[Outcome]:
        """Yield outcomes in the order in which they come; closing the iterator ends all that runs."""
        attempts, workers = Attempts(configs, self._attempts), list[_Worker]()
        try:
            while True:
                busy = [worker for worker in workers if worker.config is not None]
                while len(busy) < self.workers and (config := attempts.next()) is not None:
                    idle = next((worker for worker in workers if worker.config is None), None)
                    if idle is None:
                        idle = _Worker(self._task)
                        workers.append(idle)
                    idle.begin(config)
                    busy.append(idle)
                if not busy:
                    return
                for ready in wait([worker.pipe for worker in busy]):
                    worker = next(worker for worker in busy if worker.pipe is ready)
                    config = worker.config
                    assert config is not None
                    outcome = worker.outcome()
                    if outcome is None:
                        workers.remove(worker)
                        code = worker.end(patience=1.0)
                        outcome = attempts.died(config, "its process", f"exit code {code}")
                    if outcome is not None:
                        yield attempts.over(outcome)
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A process and the run it has."""

    def __init__(self, task: Callable[[ExperimentConfig], Outcome]) -> None:
        # Not forked: torch's threads and the store's connections do not survive that.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, task), daemon=True)
        with left_to_this_process():
            self._process.start()
        theirs.close()
        self.config: ExperimentConfig | None = None

    def begin(self, config: ExperimentConfig) -> None:
        """Hand over a run; that the process is dead shows when its outcome is asked for."""
        self.config = config
        try:
            self.pipe.send(config)
        except OSError:
            pass

    def outcome(self) -> Outcome | None:
        """Return what came out, None if the process died."""
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            return None
        self.config = None
        return outcome

    def end(self, patience: float = 0.0) -> int | None:
        """Wait for the process some seconds, end it, whatever it does, and return its exit code."""
        self.pipe.close()
        self._process.join(patience)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _serve(pipe: Connection[Any, Any], task: Callable[[ExperimentConfig], Outcome]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also in what a run starts
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    while True:
        try:
            config = pipe.recv()
            pipe.send(task(config))
        except (EOFError, OSError):
            return


def _end_with_the_driver() -> None:
    # Also in the middle of a run: nobody is left to keep it, and the next driver wants the cores.
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
