"""The batches of a run: drawn with replacement, or the training set again and again in new orders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from saddlescope._checks import refuse
from saddlescope.training.tasks import Task


class Batches:
    """Training batches from a seed, the same on every rank and every device.

    Args:
        task: with ``draw``, and ``take`` and ``data`` for walks.
        size: samples a batch.
        seed: of the generator.
        epochs: walks through the training set; None draws with replacement.

    Raises:
        ValueError: if the task cannot do so, or has fewer samples than a batch.
    """

    def __init__(self, task: Task, size: int, *, seed: int, epochs: int | None = None) -> None:
        self._task, self._size, self._walks = task, size, epochs is not None
        self._generator = Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        if epochs is not None and (task.take is None or task.data is None):
            raise refuse("task", "one without take and data", "one that has both, for epochs", "set steps instead")
        if epochs is not None and task.data is not None:
            samples = len(task.data.inputs)
            if size > samples:
                raise refuse("batch_size", size, f"at most the {samples} training samples")
            self.steps = epochs * (samples // size)
            """Batches in all walks."""

    def next(self) -> Any:
        """Return the next batch."""
        if not self._walks:
            assert self._task.draw is not None
            return self._task.draw(self._size, self._generator)
        assert self._task.take is not None and self._task.data is not None
        if len(self._order) < self._size:
            self._order = torch.randperm(len(self._task.data.inputs), generator=self._generator)
        index, self._order = self._order[: self._size], self._order[self._size :]
        return self._task.take(index, self._generator)

    def state_dict(self) -> dict[str, Any]:
        """Return where the batches are."""
        return {"generator": self._generator.get_state(), "order": self._order.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where others were."""
        self._generator.set_state(state["generator"])
        self._order = state["order"]
