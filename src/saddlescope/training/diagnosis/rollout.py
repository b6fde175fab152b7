"""A stretch of training from where a model is, watched on fixed samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from saddlescope._checks import refuse, require_count
from saddlescope.curvature.hessian import sample_count
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.tasks import Task


@dataclass(frozen=True, eq=False)
class Rollout:
    """What was seen of a stretch of training."""

    steps: np.ndarray
    """Steps made at each look, shape ``(looks,)``, the first 0."""
    losses: np.ndarray
    """Loss on the fixed samples there, shape ``(looks,)``; ends early, with the first that is not finite."""
    cosines: np.ndarray
    """Of the two gradients of each step, shape ``(steps,)``."""

    @property
    def finite(self) -> bool:
        """Whether every loss was finite."""
        return bool(np.isfinite(self.losses).all())

    @property
    def fall(self) -> Estimate:
        """By how much the loss falls over the stretch, from a line through the looks.

        The error is that of the slope, for looks that scatter independently around the line.
        """
        x, y = self.steps - self.steps.mean(), self.losses
        if len(x) < 3 or not self.finite:
            return Estimate(math.nan, math.nan, 0)
        slope = float(x @ y / (x @ x))
        rest = y - y.mean() - slope * x
        error = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(x @ x))
        return Estimate(-slope * float(self.steps[-1]), error * float(self.steps[-1]), len(x) - 1)


def rollout(
    task: Task, settings: OptimizerSettings, steps: int, *, watched: Sequence[Any], looks: int = 20, seed: int = 0
) -> Rollout:
    """Train the task's model for some steps, in place, and return what was seen.

    Args:
        task: whose model is trained; wrap the call in `untouched` to have it back.
        settings: of the optimizer, whose state is new.
        steps: at most; a loss that is not finite ends the stretch.
        watched: batches on which the loss is looked at, in the mode that the model is in.
        looks: evenly spread over the steps.
        seed: of the training batches: two rollouts with the same one see the same batches.
    """
    require_count("steps", steps, minimum=1)
    optimizer = settings.build(task.model.parameters())
    every = max(1, steps // looks)
    seen, losses, cosines = [0], [mean_loss_on(task, watched)], []
    for step, batch in enumerate(training_batches(task, settings.batch_size, steps, seed), start=1):
        if not math.isfinite(losses[-1]):
            break
        _step(task, optimizer, batch, settings.micro_batch)
        cosines.append(math.nan if optimizer.last_step is None else optimizer.last_step.cosine)
        if step % every == 0 or step == steps:
            seen.append(step)
            losses.append(mean_loss_on(task, watched))
    return Rollout(np.array(seen), np.array(losses), np.array(cosines))


def training_batches(task: Task, size: int, count: int, seed: int) -> Iterator[Any]:
    """Yield training batches: drawn in the size asked for, or else those of ``task.batches``, again and again."""
    if task.draw is None:
        return islice(cycle_of(task.batches), count)
    generator = Generator().manual_seed(seed)
    return (task.draw(size, generator) for _ in range(count))


def cycle_of(batches: Iterable[Any]) -> Iterator[Any]:
    """Walk through the batches again and again, in a new order where a loader shuffles."""
    first = next(iter(batches), None)
    if first is None:
        raise refuse("batches", "none", "one or more")
    return chain.from_iterable(iter(walk) for walk in cycle([batches]))


@torch.no_grad()
def mean_loss_on(task: Task, batches: Iterable[Any]) -> float:
    """Return the mean loss over the samples of some batches, in the mode that the model is in."""
    pairs = [(sample_count(batch), float(task.loss_fn(batch))) for batch in batches]
    return math.fsum(count * loss for count, loss in pairs) / sum(count for count, _ in pairs)


def _step(task: Task, optimizer: Any, batch: Any, micro_batch: int | None) -> None:
    def closure_of(part: Any) -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = task.loss_fn(part)
            loss.backward()
            return loss

        return closure

    if micro_batch is None:
        optimizer.step(closure_of(batch))
    else:
        pieces = zip(*(t.split(micro_batch) for t in batch), strict=True)
        optimizer.step(micro_batches=[closure_of(piece) for piece in pieces])
