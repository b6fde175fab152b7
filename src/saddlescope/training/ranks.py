"""Data-parallel training, started by ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from saddlescope._checks import refuse


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Within the block, the processes that ``torchrun`` started know each other; alone, nothing happens."""
    mine = int(os.environ.get("WORLD_SIZE", "1")) > 1 and dist.is_available() and not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        if mine:
            dist.destroy_process_group()


def rank() -> int:
    """Return this process's number, 0 if it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def ranks() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_device(device: str) -> str:
    """Return the device of this process: one GPU each."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def own_share(batch: Any, size: int) -> Any:
    """Return this rank's samples of a batch, a tuple of tensors with ``size`` samples in all.

    Raises:
        ValueError: if they cannot be shared out evenly, so that the mean of the ranks' losses is the batch's.
    """
    if ranks() == 1:
        return batch
    if size % ranks():
        raise refuse("batch_size", size, f"a multiple of the {ranks()} ranks")
    return tuple(part[rank() :: ranks()] for part in batch)


@torch.no_grad()
def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of every rank's tensor."""
    if ranks() > 1:
        dist.all_reduce(values)
        values /= ranks()
    return values
