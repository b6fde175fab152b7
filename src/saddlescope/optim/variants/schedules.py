"""SAM for a part of the training only; the other steps are plain ones of the base, of one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from saddlescope._checks import refuse, require_count, require_finite
from saddlescope.optim.distributed import over_all_ranks


@dataclass(frozen=True)
class Schedule:
    """SAM in every step, and the start of other schedules: settings only, so that one may serve several optimizers.

    Steps count from 0, with those that are skipped for a gradient that is not finite.
    """

    def perturbs(self, step: int, memory: tuple[float, ...]) -> bool:
        """Tell whether this step is one of SAM."""
        return True

    def listens(self, memory: tuple[float, ...]) -> bool:
        """Tell whether the loss of this step matters, which has to be read from the device then."""
        return False

    def remember(self, loss: float, memory: tuple[float, ...]) -> tuple[float, ...]:
        """Return the memory after a step with this loss; it starts empty."""
        return memory


@dataclass(frozen=True)
class Every(Schedule):
    """SAM in every ``interval``-th step, the first among them: ``1 + 1 / interval`` passes a step.

    >>> [Every(3).perturbs(step, ()) for step in range(5)]
    [True, False, False, True, False]
    """

    interval: int
    """Steps from one of SAM to the next, >= 1."""

    def __post_init__(self) -> None:
        require_count("interval", self.interval, minimum=1)

    def perturbs(self, step: int, memory: tuple[float, ...]) -> bool:
        """Tell whether this step is one of SAM."""
        return step % self.interval == 0


@dataclass(frozen=True)
class Phase(Schedule):
    """SAM in the steps ``start <= t < stop``: a warm start of the base, or late-phase SAM (arXiv 2410.10373).

    A saddle that holds SAM is left if the base comes out of the trap in time; see ``ScheduledSAMMap``.

    >>> [Phase(start=1, stop=3).perturbs(step, ()) for step in range(4)]
    [False, True, True, False]
    """

    start: int = 0
    """First step of SAM, >= 0."""
    stop: int | None = None
    """First step without it again, > ``start``; None goes on to the end."""

    def __post_init__(self) -> None:
        require_count("start", self.start)
        if self.stop is not None and require_count("stop", self.stop) <= self.start:
            raise refuse("stop", self.stop, f"a step after start={self.start}", "use None to go on to the end")

    def perturbs(self, step: int, memory: tuple[float, ...]) -> bool:
        """Tell whether this step is one of SAM."""
        return step >= self.start and (self.stop is None or step < self.stop)


@dataclass(frozen=True)
class AfterPlateau(Schedule):
    """The base alone until the loss has left its first plateau, and SAM from the next step on, for good.

    The loss counts as a running mean ``m <- m + (1 - decay) (l - m)`` from the first loss on, over all ranks; a loss
    that is not finite is passed over. It is read from the device in each step until then.

    >>> schedule, memory = AfterPlateau(fraction=0.8, decay=0.5), ()
    >>> for step, loss in enumerate([2.0, 1.0, 1.0, 3.0]):
    ...     print(schedule.perturbs(step, memory), end=" ")
    ...     memory = schedule.remember(loss, memory)
    False False True True
    """

    below: float | None = None
    """SAM once the loss is at most this..."""
    fraction: float | None = None
    """...or at most this fraction of the first, in (0, 1); exactly one of the two."""
    decay: float = 0.9
    """Weight of the past in the mean, in [0, 1); 0 goes by single minibatches."""

    _LEFT: ClassVar[tuple[float, ...]] = (-math.inf,)

    def __post_init__(self) -> None:
        if (self.below is None) == (self.fraction is None):
            raise refuse("below", self.below, "either it or fraction", "give a loss, or a fraction of the first one")
        if self.below is not None:
            require_finite("below", self.below)
        if self.fraction is not None and not require_finite("fraction", self.fraction, minimum=0.0, exclusive=True) < 1:
            raise refuse("fraction", self.fraction, "a number in (0, 1)")
        if require_finite("decay", self.decay, minimum=0.0) >= 1.0:
            raise refuse("decay", self.decay, "a number in [0, 1)")

    def perturbs(self, step: int, memory: tuple[float, ...]) -> bool:
        """Tell whether the plateau is left."""
        return memory == self._LEFT

    def listens(self, memory: tuple[float, ...]) -> bool:
        """Tell whether the plateau is not left yet."""
        return memory != self._LEFT

    def remember(self, loss: float, memory: tuple[float, ...]) -> tuple[float, ...]:
        """Return the first loss and the mean, or that the plateau is left."""
        if memory == self._LEFT or not math.isfinite(loss):
            return memory
        first, mean = memory or (loss, loss)
        mean += (1.0 - self.decay) * (loss - mean)
        goal = self.below if self.fraction is None else self.fraction * first
        assert goal is not None
        return self._LEFT if mean <= goal else (first, mean)


@dataclass
class Progress:
    """Where a training run is in its schedule."""

    schedule: Schedule = field(default_factory=Schedule)
    step: int = 0
    """The next one."""
    memory: tuple[float, ...] = ()
    """What the schedule remembers of the losses."""

    @property
    def perturbs(self) -> bool:
        """Whether the next step is one of SAM."""
        return self.schedule.perturbs(self.step, self.memory)

    def require(self, loss: Tensor | None) -> None:
        """Refuse to go on without a loss where the schedule goes by it."""
        if loss is None and self.schedule.listens(self.memory):
            raise refuse("loss", None, f"the loss, as {self.schedule} goes by it", "second_step(loss=loss)")

    def advance(self, loss: Tensor | None) -> None:
        """Go on to the next step."""
        if loss is not None and self.schedule.listens(self.memory):
            loss = torch.as_tensor(loss).detach()
            total, ranks = over_all_ranks(torch.stack([loss, torch.ones_like(loss)]))
            self.memory = self.schedule.remember(float(total / ranks), self.memory)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return step and memory, for `load_state_dict`."""
        return {"step": self.step, "memory": list(self.memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another run was."""
        self.step, self.memory = state["step"], tuple(state["memory"])
