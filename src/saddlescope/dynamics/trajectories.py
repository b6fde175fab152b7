"""Run a map on a landscape from many starts at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from saddlescope._checks import refuse, require_choice, require_count
from saddlescope.dynamics.engine import ENGINES, engine_for
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.noise import GaussianNoise
from saddlescope.dynamics.step import step_of
from saddlescope.landscapes.landscape import Landscape

DIVERGENCE_LIMIT = 1e12
"""A coordinate beyond this, or one that is not finite, counts as diverged."""
_SECONDS_BEFORE_PROGRESS = 2.0
_SECONDS_PER_CHUNK = 0.2
_MOST_RECORDED_BYTES = 8 * 2**30


class Outcome(IntEnum):
    """How a trajectory ended."""

    COMPLETED = 0
    """All steps were taken and the state is finite."""
    DIVERGED = 1
    """A coordinate of the final state is beyond `DIVERGENCE_LIMIT` or not finite."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What `simulate` returns, for ``n`` starts in ``R^d``."""

    final: Tensor
    """The points after all steps, shape ``(n, d)``."""
    points: Tensor | None
    """The recorded points, the start first, shape ``(n, records, d)``; None without ``record_every``."""
    recorded_steps: Tensor | None
    """The step numbers of the records, shape ``(records,)``, from 0."""
    status: Tensor
    """How each trajectory ended, an `Outcome` for each start, int8, shape ``(n,)``."""
    steps: int
    """How many steps were taken."""
    landscape: Landscape
    update: UpdateMap
    noise: GaussianNoise | None
    seed: int
    engine: str
    """What ran the steps: "compiled" or "eager"."""

    def to_dict(self) -> dict[str, Any]:
        """Return the end points and outcomes as a JSON-ready dictionary."""
        return {
            "landscape": self.landscape.name,
            "update": repr(self.update),
            "noise": repr(self.noise) if self.noise else None,
            "seed": self.seed,
            "steps": self.steps,
            "final": self.final.tolist(),
            "status": [Outcome(s).name.lower() for s in self.status.tolist()],
        }


def simulate(
    landscape: Landscape,
    update: UpdateMap,
    starts: Any,
    steps: int,
    *,
    noise: GaussianNoise | None = None,
    record_every: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    engine: str = "auto",
) -> Trajectories:
    """Iterate ``update`` on ``landscape`` from each of ``starts``.

    Divergence is a status of a trajectory, not an exception. Trajectory ``i`` of a noisy run depends on
    ``(seed, i, step)`` only, not on how many others run beside it.

    Args:
        landscape: the loss.
        update: the optimizer map.
        starts: points, shape ``(n, d)`` or ``(d,)``; trajectories begin there at rest.
        steps: how many steps to take.
        noise: Gaussian noise on the gradients; None runs the exact map.
        record_every: keep every so many-th point in `Trajectories.points`; None keeps the last only.
        seed: of the noise.
        dtype: ``torch.float64`` or ``torch.float32``.
        device: where to run; default the device of ``starts`` or the CPU.
        engine: "auto", "compiled" (C kernel, CPU) or "eager" (torch ``vmap``).

    Raises:
        ValueError: for starts of the wrong shape or not finite, negative counts, another dtype, or records that
            would need more than 8 GiB.

    >>> from saddlescope.dynamics.maps import GradientMap
    >>> bowl = Landscape("bowl", lambda w: (w**2).sum() / 2, 2, [(-1, 1), (-1, 1)])
    >>> simulate(bowl, GradientMap(lr=0.5), [[1.0, -1.0]], steps=3).final
    tensor([[ 0.1250, -0.1250]], dtype=torch.float64)
    """
    steps = require_count("steps", steps)
    require_choice("engine", engine, ENGINES)
    if dtype not in (torch.float64, torch.float32):
        raise refuse("dtype", dtype, "torch.float64 or torch.float32")
    points = _starts(starts, landscape.dimension, dtype, device)
    count, dimension = points.shape
    every = steps + 1 if record_every is None else require_count("record_every", record_every, minimum=1)
    records = steps // every + 1
    size = records * points.numel() * points.element_size()
    if record_every is not None and size > _MOST_RECORDED_BYTES:
        raise refuse(
            "record_every",
            record_every,
            "at most 8 GiB of records",
            "record less often",
        )

    step = step_of(landscape, update, noise)
    runner = engine_for(step, dtype, points.device, engine)
    parameters = torch.tensor(step.parameters(), dtype=dtype, device=points.device)
    states = step.initial(points).T.contiguous()
    kept = points.new_empty((records, count, dimension)) if record_every is not None else None
    if kept is not None:
        kept[0] = points
    with _progress(steps) as advance:
        for first, number in _chunks(steps, every):
            runner.advance(states, parameters, first_step=first, steps=number, seed=seed)
            advance(number)
            if kept is not None and (first + number) % every == 0:
                kept[(first + number) // every] = states[:dimension].T

    final = states[:dimension].T.contiguous()
    diverged = ~(states.abs() <= DIVERGENCE_LIMIT).all(dim=0)
    return Trajectories(
        final=final,
        points=kept.transpose(0, 1) if kept is not None else None,
        recorded_steps=torch.arange(records) * every if kept is not None else None,
        status=diverged.to(torch.int8),
        steps=steps,
        landscape=landscape,
        update=update,
        noise=noise,
        seed=seed,
        engine=runner.name,
    )


def _starts(starts: Any, dimension: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    points = torch.as_tensor(starts, dtype=dtype, device=device).detach()
    points = points.unsqueeze(0) if points.ndim == 1 else points
    if points.ndim != 2 or points.shape[1] != dimension or not len(points):
        raise refuse("starts", tuple(points.shape), f"points of shape (n, {dimension}) with n >= 1")
    if not torch.isfinite(points).all():
        raise refuse("starts", "NaN or infinity", "finite coordinates")
    return points


def _chunks(steps: int, every: int) -> Iterator[tuple[int, int]]:
    """Yield (first step, number of steps) up to each record, sized to hear back a few times a second."""
    first, size = 0, 256
    while first < steps:
        number = min(size, every - first % every, steps - first)
        began = time.perf_counter()
        yield first, number
        first += number
        seconds = time.perf_counter() - began
        if number == size and seconds < _SECONDS_PER_CHUNK / 2:
            size *= 4
        elif seconds > 2 * _SECONDS_PER_CHUNK:
            size = max(1, size // 2)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to report steps with; a bar appears on a terminal's stderr once a run turns out long."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("simulating", total=steps)
    began, shown = time.perf_counter(), False

    def report(number: int) -> None:
        nonlocal shown
        if not shown and console.is_terminal and time.perf_counter() - began > _SECONDS_BEFORE_PROGRESS:
            bar.start()
            shown = True
        bar.advance(task, number)

    try:
        yield report
    finally:
        if shown:
            bar.stop()
