"""Evaluating a model beside its training so that the training does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from saddlescope.optim.module_hook import before_every_module


@contextmanager
def without_trace() -> Iterator[None]:
    """Keep what evaluations within the block would leave in modules: buffers, and traffic between ranks.

    Buffers of every module called get their tensors and values back afterwards, also when the block throws. A
    ``DistributedDataParallel`` model sends neither gradients nor buffers, so that one rank may evaluate it alone; batch
    norm over all ranks cannot be evaluated by one, and is refused before it would wait for the others.

    Raises:
        RuntimeError: from the evaluation of a ``SyncBatchNorm`` in training mode under ``torch.distributed``.

    >>> norm = nn.BatchNorm1d(2)
    >>> with without_trace():
    ...     _ = norm(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> norm.running_mean
    tensor([0., 0.])
    """
    with _buffers_kept(), _apart():
        yield


@contextmanager
def _buffers_kept() -> Iterator[None]:
    seen: set[nn.Module] = set()
    kept: list[tuple[nn.Module, str, Tensor, Tensor]] = []

    def keep(outer: nn.Module, _inputs: Any) -> None:
        if torch.compiler.is_compiling() or outer in seen:
            return
        for module in set(outer.modules()) - seen:
            seen.add(module)
            kept.extend((module, name, b, b.clone()) for name, b in module._buffers.items() if b is not None)

    def undo() -> None:
        with torch.no_grad():
            for module, name, buffer, value in kept:
                module._buffers[name] = buffer
                buffer.copy_(value)

    with before_every_module(keep, undo):
        yield


@contextmanager
def _apart() -> Iterator[None]:
    kept: list[tuple[DistributedDataParallel, bool, bool]] = []

    def silence(module: nn.Module, _inputs: Any) -> None:
        if isinstance(module, nn.SyncBatchNorm) and module.training and torch.distributed.is_initialized():
            raise RuntimeError("SyncBatchNorm needs all ranks, a check runs on one")
        if isinstance(module, DistributedDataParallel) and module.require_backward_grad_sync:
            kept.append((module, True, module.require_forward_param_sync))
            module.require_backward_grad_sync = module.require_forward_param_sync = False

    def undo() -> None:
        for module, backward, forward in kept:
            module.require_backward_grad_sync, module.require_forward_param_sync = backward, forward

    with before_every_module(silence, undo):
        yield
