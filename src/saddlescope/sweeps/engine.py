"""What an engine does: run configs elsewhere, each until it is done or has failed for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from saddlescope.training import ExperimentConfig, Record, run_experiment

ATTEMPTS = 3
"""How often a run is begun whose worker died under it."""


@dataclass(frozen=True)
class Outcome:
    """A run that is over."""

    config: ExperimentConfig
    record: Record | None
    """None if it failed."""
    error: str = ""
    """Why it failed, in one line."""
    attempts: int = 1
    """How often it was begun; more than once if a worker or a node died under it."""


class Engine(Protocol):
    """Runs configs; takes the next one only when it can begin it."""

    workers: int

    def run(self, configs: Iterable[ExperimentConfig]) -> Iterator[Outcome]:
        """Yield outcomes in the order in which they come; closing the iterator ends all that runs."""
        ...


def attempt(config: ExperimentConfig, run: Callable[[ExperimentConfig], Record] = run_experiment) -> Outcome:
    """Run one config on one thread, so that its numbers do not depend on where it runs.

    An error of the run is its outcome; only the death of the process is not.

    >>> attempt(ExperimentConfig(steps=1)).record.status
    'completed'
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Outcome(config, run(config))
    except Exception as error:
        return failure(config, error)
    finally:
        torch.set_num_threads(threads)


def failure(config: ExperimentConfig, error: BaseException) -> Outcome:
    """Return the outcome of a run that an error has ended.

    >>> failure(ExperimentConfig(), OSError("disk full")).error
    'OSError: disk full'
    """
    return Outcome(config, None, f"{type(error).__name__}: {error}".splitlines()[0])
