"""How far a computation is, told to whoever asked instead of to a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import Progress, TaskID

from saddlescope.dynamics import ensemble

SECONDS_BETWEEN = 0.1


@contextmanager
def reporting_to(report: Callable[[float], None], description: str) -> Iterator[None]:
    """Within the block, tell the share that is done of the bar of that description, a few times a second.

    For processes of our own only: the bar of the whole process is exchanged.
    """

    class Told(Progress):
        last = 0.0

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            task, now = self.tasks[task_id], time.perf_counter()
            if task.description == description and now - self.last > SECONDS_BETWEEN:
                self.last = now
                report(min(1.0, task.percentage / 100))

    kept: Any = ensemble.Progress
    ensemble.Progress = Told  # type: ignore[misc]
    try:
        yield
    finally:
        ensemble.Progress = kept
