"""Random changes of a batch of images, on the device where the batch is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

Augmentation = Callable[[Tensor, Generator], Tensor]
"""Takes inputs ``(n, ...)`` and a generator on the CPU, returns inputs of the same shape."""


def flip_and_crop(images: Tensor, generator: Generator, *, margin: int = 4) -> Tensor:
    """Mirror half of the images and shift each by up to ``margin`` pixels, filling with 0 (He et al. 2016, 4.2).

    Args:
        images: shape ``(n, channels, height, width)``.
        generator: on the CPU, so that a seed gives the same batches on every device.
        margin: largest shift, in pixels.

    >>> images = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> flip_and_crop(images, Generator().manual_seed(1), margin=0)[0, 0, 0]
    tensor([0., 1., 2.])
    """
    n, _, height, width = images.shape
    mirrored = torch.rand(n, generator=generator) < 0.5
    shifts = torch.randint(2 * margin + 1, (2, n, 1), generator=generator)
    rows, columns = shifts[0] + torch.arange(height), shifts[1] + torch.arange(width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    each = torch.arange(n, device=images.device)[:, None, None]
    # Indices beside a slice move to the front: (n, height, width, channels).
    return pad(images, (margin,) * 4)[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
