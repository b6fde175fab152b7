"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch.optim import SGD, Optimizer

from saddlescope._checks import refuse
from saddlescope.curvature.hessian import sample_count
from saddlescope.optim import SAM
from saddlescope.provenance import provenance
from saddlescope.training.experiment import ExperimentConfig, Record
from saddlescope.training.tasks import Task, make_task


def run_experiment(config: ExperimentConfig, *, progress: bool = False) -> Record:
    """Train as ``config`` says and return what came out.

    The same config gives the same losses and accuracy bit for bit, on the same machine with the same number
    of threads. The caller's random numbers are untouched.

    Args:
        config: the whole run.
        progress: show a bar on stderr.

    >>> record = run_experiment(ExperimentConfig(steps=2))
    >>> record.status, len(record.losses)
    ('completed', 2)
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return _train(make_task(config.task), config, progress)


def _train(task: Task, config: ExperimentConfig, progress: bool) -> Record:
    optimizer = _optimizer(task, config)
    draw, batches = task.draw, torch.Generator().manual_seed(config.seed)
    if draw is None or task.accuracy is None:
        raise refuse("task", config.task, "one with draw and accuracy")
    losses: list[float] = []
    start = time.perf_counter()
    for _ in _bar(range(config.steps), config, progress):
        closure = partial(_evaluate, task, optimizer, draw(config.batch_size, batches))
        loss: Any = optimizer.step(closure)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
    seconds = time.perf_counter() - start
    final_loss = mean_loss(task)
    is_sam = isinstance(optimizer, SAM)
    return Record(
        config=config,
        status="completed" if math.isfinite(losses[-1]) and math.isfinite(final_loss) else "diverged",
        losses=tuple(losses),
        final_loss=final_loss,
        test_accuracy=task.accuracy(),
        skipped_steps=optimizer.skipped_steps if is_sam else 0,
        hessian_products=optimizer.hessian_products if is_sam else 0,
        seconds=seconds,
        provenance=provenance(),
    )


def _evaluate(task: Task, optimizer: Optimizer, batch: Any) -> Any:
    optimizer.zero_grad()
    loss = task.loss_fn(batch)
    loss.backward()
    return loss


@torch.no_grad()
def mean_loss(task: Task) -> float:
    """Return the mean loss over all training samples of a task."""
    pairs = [(sample_count(batch), float(task.loss_fn(batch))) for batch in task.batches]
    return math.fsum(count * loss for count, loss in pairs) / sum(count for count, _ in pairs)


def _optimizer(task: Task, config: ExperimentConfig) -> Optimizer:
    base = SGD(task.model.parameters(), lr=config.lr, momentum=config.momentum)
    if config.optimizer == "sgd":
        return base
    return SAM(base, rho=config.rho, normalized=config.normalized, radius_cap=config.radius_cap)


def _bar(steps: range, config: ExperimentConfig, progress: bool) -> Iterable[int]:
    label = f"{config.task}, {config.optimizer}"
    return track(steps, label, console=Console(stderr=True)) if progress else steps
