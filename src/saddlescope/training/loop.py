"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from saddlescope._checks import refuse, require_count
from saddlescope.optim import SAM
from saddlescope.provenance import provenance
from saddlescope.training.batches import Batches
from saddlescope.training.checkpoints import load_checkpoint, save_checkpoint
from saddlescope.training.diagnosis.rollout import mean_loss_on
from saddlescope.training.experiment import ExperimentConfig, Record
from saddlescope.training.ranks import mean_over_ranks, own_device, own_share, process_group, rank, ranks
from saddlescope.training.schedules import factor
from saddlescope.training.tasks import Task, make_task

READ_EVERY = 50
"""Steps between reads of the losses from a GPU, so that it need not wait for the CPU in every step."""


def run_experiment(
    config: ExperimentConfig,
    *,
    progress: bool = False,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 500,
) -> Record:
    """Train as ``config`` says and return what came out.

    The same config gives the same losses and accuracy bit for bit, on the same machine with the same number
    of threads, also through any number of interruptions. The caller's random numbers are untouched. Started by
    ``torchrun``, every rank takes its share of each batch and returns the same record, its own times aside.

    Args:
        config: the whole run.
        progress: show a bar on stderr.
        checkpoint: file to continue from, if it is there, and to write.
        checkpoint_every: steps from one write to the next; one more follows the last step.

    Raises:
        ValueError: if the checkpoint is of another run, or the ranks cannot share a batch evenly.

    >>> record = run_experiment(ExperimentConfig(steps=2))
    >>> record.status, len(record.losses)
    ('completed', 2)
    """
    require_count("checkpoint_every", checkpoint_every, minimum=1)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise refuse("device", "cuda", "a device of this machine", "use cpu")
    with process_group(config.device), settled(config):
        run = _Run(config)
        run.train(progress, Path(checkpoint) if checkpoint else None, checkpoint_every)
        return run.record()


class _Run:
    """A run between its first step and its last."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.device = own_device(config.device)
        self.task = _laid_out(
            make_task(config.task, device=self.device, label_smoothing=config.label_smoothing), config
        )
        self.loss_fn = self.task.loss_fn
        if ranks() > 1:
            if self.task.loss_through is None:
                raise refuse("task", config.task, "one with loss_through, to train on several ranks")
            self.loss_fn = self.task.loss_through(DistributedDataParallel(self.task.model))
        self.optimizer = _optimizer(self.task, config)
        self.batches = Batches(self.task, config.batch_size, seed=config.seed, epochs=config.epochs)
        self.steps = self.batches.steps if config.steps is None else config.steps
        self.losses: list[float] = []
        self.unread: list[Tensor] = []
        self.seconds = 0.0

    def train(self, progress: bool, checkpoint: Path | None, every: int) -> None:
        state = load_checkpoint(checkpoint, self.config.to_dict()) if checkpoint else None
        if state:
            self.load_state_dict(state)
        first, since = len(self.losses), time.perf_counter()
        if not self.finite():
            return
        for step in _bar(range(first, self.steps), self.config, progress and rank() == 0):
            self.step(step)
            last, due = step + 1 == self.steps, checkpoint is not None and (step + 1) % every == 0
            if last or due or self.device == "cpu" or len(self.unread) == READ_EVERY:
                self.read()
            if checkpoint is not None and (last or due or not self.finite()):
                now = time.perf_counter()
                self.seconds, since = self.seconds + now - since, now
                state = self.state_dict()
                if rank() == 0:
                    save_checkpoint(checkpoint, state)
            if not self.finite():
                break
        self.seconds += time.perf_counter() - since

    def step(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor(self.config.schedule, step, self.steps, self.config.warmup)
        batch = own_share(self.batches.next(), self.config.batch_size)
        closure: Any = partial(self.evaluate, batch)
        loss: Any = self.optimizer.step(closure)
        self.unread.append(loss.detach())

    def evaluate(self, batch: Any) -> Tensor:
        self.optimizer.zero_grad()
        with _precision(self.config):
            loss = self.loss_fn(batch)
        loss.backward()
        return loss

    def read(self) -> None:
        """Fetch the losses from the device, up to the first that is not finite."""
        values = mean_over_ranks(torch.stack(self.unread)).tolist()
        self.unread.clear()
        for value in values:
            if self.finite():
                self.losses.append(value)

    def finite(self) -> bool:
        return not self.losses or math.isfinite(self.losses[-1])

    def record(self) -> Record:
        sam = self.optimizer if isinstance(self.optimizer, SAM) else None
        return finished(
            self.config,
            self.task,
            self.losses,
            skipped_steps=sam.skipped_steps if sam else 0,
            hessian_products=sam.hessian_products if sam else 0,
            seconds=self.seconds,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.config.device == "cuda" else None,
            "losses": self.losses,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])
        self.losses, self.seconds = list(state["losses"]), state["seconds"]


def finished(
    config: ExperimentConfig,
    task: Task,
    losses: Sequence[float],
    *,
    skipped_steps: int,
    hessian_products: int,
    seconds: float,
) -> Record:
    """Return the record of a run that has made its steps, with the task's model as they have left it."""
    with _precision(config):
        final_loss = mean_loss(task)
        accuracy = task.accuracy() if task.accuracy else math.nan
    sound = math.isfinite(final_loss) and (not losses or math.isfinite(losses[-1]))
    return Record(
        config=config,
        status="completed" if sound else "diverged",
        losses=tuple(losses),
        final_loss=final_loss,
        test_accuracy=accuracy,
        skipped_steps=skipped_steps,
        hessian_products=hessian_products,
        seconds=seconds,
        provenance=provenance(),
        data=task.data.digest if task.data else "",
    )


@torch.no_grad()
def mean_loss(task: Task) -> float:
    """Return the mean loss over all training samples of a task, in evaluation mode."""
    was_training = task.model.training
    task.model.eval()
    loss = mean_loss_on(task, task.batches)
    task.model.train(was_training)
    return loss


@contextmanager
def settled(config: ExperimentConfig) -> Iterator[None]:
    """Within the block, random numbers come from the seed and operations are as the config says."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    devices = [int(own_device("cuda")[5:])] if config.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        torch.use_deterministic_algorithms(deterministic or config.deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)


def _precision(config: ExperimentConfig) -> torch.autocast:
    return torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")


def _laid_out(task: Task, config: ExperimentConfig) -> Task:
    """Return the task with its model in the memory layout, and compiled, as the config says."""
    if config.channels_last:
        task.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        task.model.compile()
    return task


def _optimizer(task: Task, config: ExperimentConfig) -> Optimizer:
    base = SGD(task.model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    if config.optimizer == "sgd":
        return base
    options = {"normalized": config.normalized, "radius_cap": config.radius_cap}
    return SAM(base, rho=config.rho, variant=config.variant(), **options)


def _bar(steps: range, config: ExperimentConfig, progress: bool) -> Iterable[int]:
    label = f"{config.task}, {config.optimizer}"
    return track(steps, label, console=Console(stderr=True)) if progress else steps
