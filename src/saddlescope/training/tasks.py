"""What is trained: a model, its loss and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from saddlescope._checks import require_choice
from saddlescope.training.data.augmentation import Augmentation, flip_and_crop
from saddlescope.training.data.datasets import Dataset, cifar10, cifar100, digits, fashion_mnist
from saddlescope.training.networks import convnet, mlp
from saddlescope.training.residual_networks import resnet, resnet18, wide_resnet

CHUNK = 2_000
"""Samples a batch when a whole data set is walked through."""


@dataclass(frozen=True, eq=False)
class Task:
    """A model with its training loss, as a function ``make_task() -> Task`` returns it."""

    model: nn.Module
    loss_fn: Callable[[Any], Tensor]
    """Takes a batch and returns its mean loss, a 0-d tensor."""
    batches: Iterable[Any]
    """The training set, to be walked again and again."""
    draw: Callable[[int, Generator], Any] | None = None
    """Returns a random training batch of a size, drawn with replacement."""
    accuracy: Callable[[], float] | None = None
    """Returns the fraction of test samples that the model gets right now."""
    take: Callable[[Tensor, Generator], Any] | None = None
    """Returns the training batch of these samples, indices of shape ``(k,)`` on the CPU, with its augmentation."""
    loss_through: Callable[[nn.Module], Callable[[Any], Tensor]] | None = None
    """Returns ``loss_fn`` with another module in the model's place, such as a wrapper of it."""
    data: Dataset | None = None
    """The samples behind ``batches``, where a task has them in memory."""


def classification(
    model: nn.Module,
    data: Dataset,
    *,
    augmentation: Augmentation | None = None,
    label_smoothing: float = 0.0,
    chunk: int = CHUNK,
) -> Task:
    """Return the task of training a classifier by cross-entropy on samples in memory.

    Args:
        model: takes inputs ``(n, ...)``, returns logits ``(n, classes)``.
        data: on the model's device.
        augmentation: random change of every batch drawn; whole walks see the data as they are.
        label_smoothing: share of every target that is spread over all classes, in [0, 1).
        chunk: samples a batch of ``Task.batches``.

    >>> task = classification(mlp([64, 10]), digits())
    >>> task.loss_fn(task.batches[0]).shape
    torch.Size([])
    """

    def loss_through(network: nn.Module) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
        def loss_fn(batch: tuple[Tensor, Tensor]) -> Tensor:
            inputs, targets = batch
            return cross_entropy(network(inputs), targets, label_smoothing=label_smoothing)

        return loss_fn

    def take(index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        index = index.to(data.inputs.device)
        inputs = data.inputs[index]
        return inputs if augmentation is None else augmentation(inputs, generator), data.targets[index]

    def draw(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        return take(torch.randint(len(data.inputs), (size,), generator=generator), generator)

    @torch.no_grad()
    def accuracy() -> float:
        was_training = model.training
        model.eval()
        right = sum(
            int((model(inputs).argmax(1) == targets).sum())
            for inputs, targets in zip(data.test_inputs.split(chunk), data.test_targets.split(chunk), strict=True)
        )
        model.train(was_training)
        return right / len(data.test_targets)

    batches = list(zip(data.inputs.split(chunk), data.targets.split(chunk), strict=True))
    return Task(model, loss_through(model), batches, draw, accuracy, take, loss_through, data)


@dataclass(frozen=True)
class Recipe:
    """How a task is made: what `TASKS` holds."""

    network: Callable[[], nn.Module]
    data: Callable[[], Dataset]
    augmentation: Augmentation | None = None

    def make(self, *, device: str = "cpu", label_smoothing: float = 0.0) -> Task:
        """Return a new task, initialised from torch's global generator on the CPU, whatever the device."""
        model, data = self.network().to(device), self.data().to(device)
        return classification(model, data, augmentation=self.augmentation, label_smoothing=label_smoothing)


def flat_mlp(widths: list[int]) -> nn.Sequential:
    """Return a perceptron for inputs of any shape."""
    return nn.Sequential(nn.Flatten(), *mlp(widths))


_small_cifar10 = partial(cifar10, size=16, samples=10_000)

TASKS: dict[str, Recipe] = {
    "digits-mlp": Recipe(partial(mlp, [64, 128, 128, 128, 10]), digits),
    "fashion-mnist-mlp": Recipe(partial(flat_mlp, [784, 128, 128, 128, 10]), fashion_mnist),
    "cifar10-mlp": Recipe(partial(flat_mlp, [768, 128, 128, 128, 10]), _small_cifar10),
    "cifar10-mlp-deep": Recipe(partial(flat_mlp, [768, *[128] * 5, 10]), _small_cifar10),
    "cifar10-convnet": Recipe(convnet, _small_cifar10),
    "cifar10-convnet-bn": Recipe(partial(convnet, batch_norm=True), _small_cifar10),
    "cifar10-resnet8": Recipe(partial(resnet, 8, batch_norm=False), _small_cifar10),
    "cifar10-resnet8-bn": Recipe(partial(resnet, 8), _small_cifar10),
    "cifar10-resnet20": Recipe(partial(resnet, 20, batch_norm=False), _small_cifar10),
    "cifar10-resnet20-bn": Recipe(partial(resnet, 20), _small_cifar10),
    "cifar10-full-resnet20": Recipe(partial(resnet, 20, batch_norm=False), cifar10, flip_and_crop),
    "cifar10-full-resnet20-bn": Recipe(partial(resnet, 20), cifar10, flip_and_crop),
    "cifar10-full-resnet18": Recipe(partial(resnet18, batch_norm=False), cifar10, flip_and_crop),
    "cifar10-full-resnet18-bn": Recipe(resnet18, cifar10, flip_and_crop),
    "cifar10-full-wrn28-10": Recipe(partial(wide_resnet, batch_norm=False), cifar10, flip_and_crop),
    "cifar10-full-wrn28-10-bn": Recipe(wide_resnet, cifar10, flip_and_crop),
    "cifar100-full-wrn28-10-bn": Recipe(partial(wide_resnet, classes=100), cifar100, flip_and_crop),
}
"""Tasks by name. ``cifar10-`` alone is the first 10,000 images of CIFAR-10, average-pooled to 16 x 16; ``-full-`` is
the whole set with flips and crops; ``-bn`` has batch normalisation."""


def make_task(name: str, *, device: str = "cpu", label_smoothing: float = 0.0) -> Task:
    """Return a new task by name, initialised from torch's global generator.

    Raises:
        ValueError: for a name that is not in ``TASKS``.
        FileNotFoundError: if the task's data are not where ``SADDLESCOPE_DATA`` says.

    >>> sum(p.numel() for p in make_task("digits-mlp").model.parameters())
    42634
    """
    recipe = TASKS[require_choice("task", name, tuple(TASKS))]
    return recipe.make(device=device, label_smoothing=label_smoothing)
