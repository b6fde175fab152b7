"""Runs side by side in this process, as ensembles."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from saddlescope._checks import require_count
from saddlescope.sweeps.engine import Outcome, failure
from saddlescope.sweeps.local import LocalEngine
from saddlescope.training import ExperimentConfig, Record
from saddlescope.training.ensembles import Ensemble, shared, why_alone

MEMBERS = 8
"""Of an ensemble, at most: more make a step no cheaper, and keep their results longer."""
WINDOW = 512
"""Configs that are looked through at once for those that fit together."""


class VectorisedEngine:
    """Runs configs that fit together as ensembles, one on each thread, and the rest as `LocalEngine` does.

    The numbers are those of single runs to rounding; see `run_ensemble`. A thread computes on one core, so that its
    speed does not hang on what the others do.

    Args:
        workers: threads, and processes for the rest; by default the cores of this process.
        members: of an ensemble, at most.
    """

    def __init__(self, workers: int | None = None, *, members: int = MEMBERS) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = require_count("workers", cores if workers is None else workers, minimum=1)
        self._members = require_count("members", members, minimum=1)

    def run(self, configs: Iterable[ExperimentConfig]) -> Iterator[Outcome]:
        """Yield outcomes in the order in which they come; closing the iterator ends all that runs."""
        waiting, alone = iter(configs), list[ExperimentConfig]()
        while window := list(itertools.islice(waiting, WINDOW)):
            alone += [config for config in window if why_alone(config)]
            yield from self._together([config for config in window if not why_alone(config)])
        yield from LocalEngine(self.workers).run(alone)

    def _together(self, configs: Sequence[ExperimentConfig]) -> Iterator[Outcome]:
        teams, stop, threads = iter(self._teams(configs)), threading.Event(), torch.get_num_threads()
        pool = ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(1,))
        running: dict[Future[tuple[Record, ...]], Sequence[ExperimentConfig]] = {}
        try:
            while True:
                while len(running) < self.workers and (team := next(teams, None)) is not None:
                    try:
                        # Here, not on the thread: initial weights are drawn from the one global generator.
                        running[pool.submit(Ensemble(team).run, stop)] = team
                    except Exception as error:
                        yield from (failure(config, error) for config in team)
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    team = running.pop(done)
                    if error := done.exception():
                        yield from (failure(config, error) for config in team)
                    else:
                        yield from (Outcome(record.config, record) for record in done.result())
        finally:
            stop.set()
            pool.shutdown()
            torch.set_num_threads(threads)

    def _teams(self, configs: Sequence[ExperimentConfig]) -> Iterator[Sequence[ExperimentConfig]]:
        """Yield configs that fit together, at most ``members`` each, spread evenly over the workers."""
        groups: dict[object, list[ExperimentConfig]] = {}
        for config in configs:
            groups.setdefault(shared(config), []).append(config)
        for group in groups.values():
            size = min(self._members, -(-len(group) // self.workers))
            yield from (group[i : i + size] for i in range(0, len(group), size))
