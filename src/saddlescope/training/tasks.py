"""What is trained: a model, its loss and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from saddlescope._checks import require_choice
from saddlescope.training.datasets import digits
from saddlescope.training.networks import mlp


@dataclass(frozen=True, eq=False)
class Task:
    """A model with its training loss, as a function ``make_task() -> Task`` returns it."""

    model: nn.Module
    loss_fn: Callable[[Any], Tensor]
    """Takes a batch and returns its mean loss, a 0-d tensor."""
    batches: Iterable[Any]
    """The training set, to be walked again and again."""
    draw: Callable[[int, Generator], Any] | None = None
    """Returns a random training batch of a size; what the training loop draws from."""
    accuracy: Callable[[], float] | None = None
    """Returns the fraction of test samples that the model gets right now."""


def digits_mlp() -> Task:
    """Return the perceptron 64-128-128-128-10 on scikit-learn's digits, with cross-entropy.

    Batches are drawn with replacement. Initialised from torch's global generator.
    """
    data, model = digits(), mlp([64, 128, 128, 128, 10])

    def loss_fn(batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return cross_entropy(model(inputs), targets)

    def draw(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(data.inputs), (size,), generator=generator)
        return data.inputs[index], data.targets[index]

    @torch.no_grad()
    def accuracy() -> float:
        return float((model(data.test_inputs).argmax(1) == data.test_targets).float().mean())

    return Task(model, loss_fn, [(data.inputs, data.targets)], draw, accuracy)


TASKS: dict[str, Callable[[], Task]] = {"digits-mlp": digits_mlp}


def make_task(name: str) -> Task:
    """Return a new task by name.

    Raises:
        ValueError: for a name that is not in ``TASKS``.

    >>> sum(p.numel() for p in make_task("digits-mlp").model.parameters())
    42634
    """
    return TASKS[require_choice("task", name, tuple(TASKS))]()
