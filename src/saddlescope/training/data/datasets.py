"""Data sets, normalised and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from saddlescope._checks import refuse
from saddlescope.training.data.image_files import ImageSource, LabelledImages, data_folder, read_images

CIFAR10 = ImageSource(
    name="cifar10",
    hub="uoft-cs/cifar10",
    image=("img", "image"),
    label="label",
    shape=(32, 32, 3),
    classes=10,
    rows=(50_000, 10_000),
)
CIFAR100 = ImageSource(
    name="cifar100",
    hub="uoft-cs/cifar100",
    image=("img", "image"),
    label="fine_label",
    shape=(32, 32, 3),
    classes=100,
    rows=(50_000, 10_000),
)
FASHION_MNIST = ImageSource(
    name="fashion_mnist",
    hub="zalando-datasets/fashion_mnist",
    image=("image", "img"),
    label="label",
    shape=(28, 28),
    classes=10,
    rows=(60_000, 10_000),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Training and test samples of a classification task, in memory."""

    inputs: Tensor
    """Training inputs, shape ``(n, features)`` or ``(n, channels, height, width)``."""
    targets: Tensor
    """Training classes, shape ``(n,)``, int64."""
    test_inputs: Tensor
    test_targets: Tensor
    digest: str = ""
    """SHA-256 of the files, 16 digits; empty for data that come with a package."""

    def to(self, device: torch.device | str) -> Dataset:
        """Return the data on a device."""
        return Dataset(
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            test_inputs=self.test_inputs.to(device),
            test_targets=self.test_targets.to(device),
            digest=self.digest,
        )


@lru_cache(maxsize=1)
def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 pixels: 1,437 to train on, 360 to test on.

    One fixed random split. Pixels are standardised by the training set's mean and standard deviation; those
    that never vary there become 0. Source: UCI "Optical Recognition of Handwritten Digits", Alpaydin and
    Kaynak 1998; it comes with scikit-learn's wheel.

    Raises:
        ModuleNotFoundError: without scikit-learn.

    >>> data = digits()
    >>> tuple(data.inputs.shape), tuple(data.test_inputs.shape)
    ((1437, 64), (360, 64))
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed; do: pip install 'saddlescope[train]'"
        ) from error
    pixels, classes = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    inputs = torch.as_tensor(pixels, dtype=torch.float32)
    targets = torch.as_tensor(classes, dtype=torch.int64)
    deviation, mean = torch.std_mean(inputs[train], dim=0, correction=0)
    inputs = (inputs - mean) / torch.where(deviation > 0, deviation, torch.inf)
    return Dataset(inputs=inputs[train], targets=targets[train], test_inputs=inputs[test], test_targets=targets[test])


def cifar10(folder: Path | str | None = None, *, size: int = 32, samples: int | None = None) -> Dataset:
    """Return CIFAR-10 (Krizhevsky 2009): 50,000 colour images to train on, 10,000 to test on, 10 classes.

    Channels are standardised by the mean and standard deviation of the training images returned.

    Args:
        folder: of the data sets; by default that of the environment variable ``SADDLESCOPE_DATA``.
        size: height and width in pixels; 16, 8, ... average blocks of the original 32.
        samples: how many training images, from the first on; all by default.

    Raises:
        FileNotFoundError: if the folder has no such files.
        ValueError: for a size that does not divide 32, and for files that are truncated or foreign.
    """
    return _images(CIFAR10, data_folder(folder), size, samples)


def cifar100(folder: Path | str | None = None, *, size: int = 32, samples: int | None = None) -> Dataset:
    """Return CIFAR-100 (Krizhevsky 2009), 100 classes; otherwise as `cifar10`."""
    return _images(CIFAR100, data_folder(folder), size, samples)


def fashion_mnist(folder: Path | str | None = None, *, size: int = 28, samples: int | None = None) -> Dataset:
    """Return Fashion-MNIST (Xiao et al. 2017): 60,000 grey images of 28 x 28; otherwise as `cifar10`."""
    return _images(FASHION_MNIST, data_folder(folder), size, samples)


@lru_cache(maxsize=2)
def _images(source: ImageSource, folder: Path | None, size: int, samples: int | None) -> Dataset:
    train, test = (read_images(source, split, folder) for split in ("train", "test"))
    full = source.shape[0]
    if size < 1 or full % size:
        raise refuse("size", size, f"a divisor of {full}")
    if samples is not None and not 1 <= samples <= len(train.images):
        raise refuse("samples", samples, f"1 to {len(train.images)}")
    inputs, test_inputs = _pooled(train, full // size, samples), _pooled(test, full // size, None)
    deviation, mean = torch.std_mean(inputs, dim=(0, 2, 3), correction=0, keepdim=True)
    return Dataset(
        inputs=(inputs - mean) / deviation,
        targets=torch.from_numpy(train.labels[:samples]),
        test_inputs=(test_inputs - mean) / deviation,
        test_targets=torch.from_numpy(test.labels),
        digest=f"{train.digest}-{test.digest}",
    )


def _pooled(split: LabelledImages, block: int, samples: int | None) -> Tensor:
    """Return pixels in [0, 1], shape ``(n, channels, height, width)``, averaged over blocks."""
    pixels = np.array(split.images[:samples])
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)
    return avg_pool2d(images, block) if block > 1 else images
