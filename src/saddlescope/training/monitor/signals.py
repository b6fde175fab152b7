"""The free signals of a training, collected on the device and read many steps at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlescope.optim.gradients import gradient_of, total_norm
from saddlescope.optim.step_statistics import StepStatistics
from saddlescope.training.monitor.log import COLUMNS

_TENSORS = ("norm", "perturbed_norm", "slope", "perturbed_slope", "length")


class SignalReader:
    """Keeps the by-products of the latest steps as tensors until someone asks for the numbers.

    Reading costs one transfer from the device for each precision in use, whatever the number of steps.

    >>> reader = SignalReader()
    >>> reader.add(torch.tensor(2.5), None)
    >>> reader.read()["loss"]
    [2.5]
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Tensor | float, StepStatistics | None]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, loss: Tensor | float | None, statistics: StepStatistics | None) -> None:
        """Take one step's loss and by-products, without waiting for the device."""
        if isinstance(loss, Tensor):
            loss = loss.detach().mean()  # a copy: a captured graph writes the next loss into the same memory
        self._rows.append((math.nan if loss is None else loss, statistics))

    def wait(self) -> None:
        """Wait until the device has finished the latest step."""
        if self._rows:
            loss, statistics = self._rows[-1]
            last = loss if statistics is None else statistics.perturbed_norm
            float(last)

    def read(self) -> dict[str, list[float]]:
        """Return the columns ``COLUMNS`` of all steps since the last reading, in order; NaN where there is none."""
        rows, self._rows = self._rows, []
        tensors = [t for loss, statistics in rows for t in (loss, *_parts(statistics)) if isinstance(t, Tensor)]
        numbers = iter(_to_host(tensors))
        columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for loss, statistics in rows:
            columns["loss"].append(next(numbers) if isinstance(loss, Tensor) else float(loss))
            on_host = None
            if statistics is not None:
                values = {
                    name: None if t is None else next(numbers)
                    for name, t in zip(_TENSORS, _parts(statistics), strict=True)
                }
                on_host = StepStatistics(rho_used=statistics.rho_used, **cast(Any, values))  # numbers for tensors
            for name in COLUMNS[1:]:
                columns[name].append(math.nan if on_host is None else getattr(on_host, name))
        return columns


@torch.no_grad()
def plain_statistics(optimizer: Optimizer) -> StepStatistics | None:
    """Return what an optimizer with one gradient a step leaves to see: the norm of that gradient."""
    gradients = [gradient_of(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return None
    norm = total_norm(gradients)
    return StepStatistics(rho_used=0.0, norm=norm, perturbed_norm=norm)


def _parts(statistics: StepStatistics | None) -> list[Tensor | None]:
    return [] if statistics is None else [getattr(statistics, name) for name in _TENSORS]


def _to_host(tensors: Sequence[Tensor]) -> list[float]:
    """Return the numbers in 0-d tensors, with one transfer for each device and precision."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, t in enumerate(tensors):
        groups.setdefault((t.device, t.dtype), []).append(i)
    numbers = [math.nan] * len(tensors)
    for indices in groups.values():
        for i, number in zip(indices, torch.stack([tensors[i] for i in indices]).tolist(), strict=True):
            numbers[i] = number
    return numbers
