"""Data sets that need no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Training and test samples of a classification task, in memory."""

    inputs: Tensor
    """Training inputs, shape ``(n, features)``."""
    targets: Tensor
    """Training classes, shape ``(n,)``, int64."""
    test_inputs: Tensor
    test_targets: Tensor


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
