"""Plain networks of the project's tasks: perceptrons and a small convolutional one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return a ReLU perceptron with torch's default initialisation, from the input's width to the output's.

    >>> mlp([64, 128, 10])
    Sequential(
      (0): Linear(in_features=64, out_features=128, bias=True)
      (1): ReLU()
      (2): Linear(in_features=128, out_features=10, bias=True)
    )
    """
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def convnet(
    classes: int = 10,
    *,
    channels: int = 3,
    size: int = 16,
    widths: Sequence[int] = (16, 32, 64),
    hidden: int = 64,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Return 3x3 convolutions with ReLU and 2x2 maximum pooling, then one hidden layer, with torch's initialisation.

    Args:
        classes: width of the output.
        channels: of the images.
        size: height and width of the images, halved once a convolution.
        widths: channels of the convolutions.
        hidden: width of the hidden layer.
        batch_norm: normalise every convolution over the batch.

    >>> sum(p.numel() for p in convnet().parameters())
    40682
    """
    layers: list[nn.Module] = []
    for inside, outside in pairwise((channels, *widths)):
        layers.append(nn.Conv2d(inside, outside, 3, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(outside)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    pixels = (size >> len(widths)) ** 2
    return nn.Sequential(*layers, nn.Flatten(), *mlp([widths[-1] * pixels, hidden, classes]))
