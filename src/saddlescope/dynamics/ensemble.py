"""Many trajectories of one map that advance together, can be looked at on the way, and leave when they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from saddlescope._checks import refuse, require_choice
from saddlescope.dynamics.engine import ENGINES, engine_for
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.noise import Noise
from saddlescope.dynamics.step import Region, Step
from saddlescope.landscapes.landscape import Landscape

_SECONDS_BEFORE_PROGRESS = 2.0
_SECONDS_BETWEEN_REPORTS = 0.1
_SECONDS_PER_CHUNK = 0.2
_LISTENER: ContextVar[Callable[[str, float], None] | None] = ContextVar("listener", default=None)


class Ensemble:
    """Trajectories of ``update`` on ``landscape``, at rest in ``starts`` before the first step.

    Trajectory ``i`` of a noisy ensemble depends on ``(seed, i, step)`` only: not on how the steps are divided, nor on
    which others are kept, nor on threads.

    Args:
        landscape: the loss.
        update: the optimizer map.
        starts: points, shape ``(n, d)`` or ``(d,)``.
        noise: on the gradients; None runs the exact map.
        region: when given, a trajectory stops at the first point outside it; the starts are taken to be inside.
        seed: of the noise.
        dtype: ``torch.float64`` or ``torch.float32``.
        device: where to run; default the device of ``starts`` or the CPU.
        engine: "auto", "compiled" (C kernel, CPU) or "eager" (torch ``vmap``).

    Raises:
        ValueError: for starts of the wrong shape or not finite, or another dtype.

    >>> from saddlescope.dynamics.maps import GradientMap
    >>> slope = Landscape("slope", lambda w: -w.sum(), 1, [(-1, 1)])
    >>> ensemble = Ensemble(slope, GradientMap(lr=0.1), [[0.0], [0.5]], region=lambda w: (w < 0.95).all())
    >>> ensemble.advance(7)
    >>> ensemble.exit_steps.tolist()
    [0, 5]
    >>> ensemble.keep(ensemble.exit_steps == 0)
    >>> ensemble.advance(7)
    >>> ensemble.replicas.tolist(), ensemble.exit_steps.tolist()
    ([0], [10])
    """

    def __init__(
        self,
        landscape: Landscape,
        update: UpdateMap,
        starts: Any,
        *,
        noise: Noise | None = None,
        region: Region | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        engine: str = "auto",
    ) -> None:
        require_choice("engine", engine, ENGINES)
        if dtype not in (torch.float64, torch.float32):
            raise refuse("dtype", dtype, "torch.float64 or torch.float32")
        points = _starts(starts, landscape.dimension, dtype, device)
        self._step = step = Step(landscape.loss, landscape.dimension, update, noise, region)
        self._engine = engine_for(step, dtype, points.device, engine)
        self._parameters = torch.tensor(step.parameters(), dtype=dtype, device=points.device)
        self._seed = seed
        self.states = step.initial(points).T.contiguous()
        """The point, the buffers of the map and the clock of the region, shape ``(variables, n)``."""
        self.replicas = torch.arange(len(points), device=points.device)
        """The original number of each trajectory that is left, shape ``(n,)``."""
        self.steps = 0
        """How many steps were taken."""

    @property
    def engine(self) -> str:
        """What runs the steps: "compiled" or "eager"."""
        return self._engine.name

    @property
    def points(self) -> Tensor:
        """Where the trajectories are, shape ``(n, d)``."""
        return self.states[: self._step.dimension].T.contiguous()

    @property
    def exit_steps(self) -> Tensor:
        """The number of the step that left the region, from 1; 0 for those still inside, shape ``(n,)``."""
        return self.states[-1].clamp(min=0).long()

    def advance(self, steps: int) -> None:
        """Take ``steps`` steps."""
        self._engine.advance(
            self.states, self._parameters, replicas=self.replicas, first_step=self.steps, steps=steps, seed=self._seed
        )
        self.steps += steps

    def keep(self, mask: Tensor) -> None:
        """Drop the trajectories where ``mask`` ``(n,)`` is false."""
        self.states = self.states[:, mask].contiguous()
        self.replicas = self.replicas[mask]


def chunks(steps: int, every: int) -> Iterator[int]:
    """Yield numbers of steps to take, up to each multiple of ``every``, sized to hear back a few times a second."""
    first, size = 0, 256
    while first < steps:
        number = min(size, every - first % every, steps - first)
        began = time.perf_counter()
        yield number
        first += number
        seconds = time.perf_counter() - began
        if number == size and seconds < _SECONDS_PER_CHUNK / 2:
            size *= 4
        elif seconds > 2 * _SECONDS_PER_CHUNK:
            size = max(1, size // 2)


@contextmanager
def listening(listener: Callable[[str, float], None]) -> Iterator[None]:
    """Within the block, computations tell what they are and the share that is done, a few times a second, not a bar.

    >>> with listening(lambda description, share: print(description, share)), progress("counting", 4) as report:
    ...     report(1)
    counting 0.25
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to report steps with; a bar appears on a terminal's stderr once a run turns out long."""
    # Asked once: with a record of every step this is called as often as the map.
    listener, console = _LISTENER.get(), Console(stderr=True)
    if listener is None and not console.is_terminal:
        yield lambda number: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True)
    task, done, began, told, shown = bar.add_task(description, total=total), 0, time.perf_counter(), 0.0, False

    def report(number: int) -> None:
        nonlocal done, told, shown
        done, now = done + number, time.perf_counter()
        if now - told < _SECONDS_BETWEEN_REPORTS:
            return
        told = now
        if listener is not None:
            listener(description, min(1.0, done / total))
        elif now - began > _SECONDS_BEFORE_PROGRESS:
            shown = True
            bar.start()
            bar.update(task, completed=done)

    try:
        yield report
    finally:
        if shown:
            bar.stop()


def _starts(starts: Any, dimension: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    points = torch.as_tensor(starts, dtype=dtype, device=device).detach()
    points = points.unsqueeze(0) if points.ndim == 1 else points
    if points.ndim != 2 or points.shape[1] != dimension or not len(points):
        raise refuse("starts", tuple(points.shape), f"points of shape (n, {dimension}) with n >= 1")
    if not torch.isfinite(points).all():
        raise refuse("starts", "NaN or infinity", "finite coordinates")
    return points
