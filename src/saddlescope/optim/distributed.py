"""Weights in pieces on several ranks, and data-parallel training with a direction of its own on every rank."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, all_reduce, is_available, is_initialized
from torch.nn.parallel import DistributedDataParallel
from torch.utils.weak import WeakTensorKeyDictionary

from saddlescope.optim.module_hook import before_every_module

PLAIN = (Tensor, nn.Parameter)
"""Types of tensors that are held whole."""


@contextmanager
def unsynchronized() -> Iterator[None]:
    """Within the block, gradients of a ``DistributedDataParallel`` model stay each rank's own.

    Does what the model's ``no_sync()`` does, without being handed the model.
    """
    silenced: list[DistributedDataParallel] = []

    def keep_gradients(module: nn.Module, _inputs: Any) -> None:
        if isinstance(module, DistributedDataParallel) and module.require_backward_grad_sync:
            silenced.append(module)
            module.require_backward_grad_sync = False

    def undo() -> None:
        for module in silenced:
            module.require_backward_grad_sync = True

    with before_every_module(keep_gradients, undo):
        yield


@torch.no_grad()
def over_all_ranks(evidence: Tensor) -> Tensor:
    """Return the sum over all ranks, which is finite only if every rank's number is."""
    if is_available() and is_initialized():
        evidence = evidence.clone()
        all_reduce(evidence)
    return evidence


def own(tensor: Tensor) -> Tensor:
    """Return this rank's piece of a tensor that several hold (``DTensor``: FSDP2, tensor parallelism), or all of it."""
    if type(tensor) in PLAIN:  # what is asked a dozen times for each of them in a step
        return tensor
    return tensor._local_tensor if _is_distributed(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def own_gradient(parameter: Tensor) -> Tensor:
    """Return this rank's piece of a parameter's gradient, cut as the parameter is."""
    gradient: Any = parameter.grad
    if _is_distributed(gradient) and gradient.placements != (cut := cast(Any, parameter).placements):
        gradient = gradient.redistribute(placements=cut)
    return own(gradient)


@torch.no_grad()
def summed(values: Tensor, owners: Sequence[Tensor]) -> Tensor:
    """Return the sum of numbers, 0-d, that belong to parameters, over all ranks that hold pieces of them.

    All ranks have the result bit for bit, and so make the same steps. What they hold in full counts once.

    Args:
        values: one for each owner, from this rank's piece.
        owners: parameters, in the same order on all ranks.
    """
    cuts = [_sharing(p) for p in owners]
    if not any(cuts):
        return values.sum()
    total = values.new_zeros(())
    for cut in dict.fromkeys(cuts):
        part = values[[i for i, other in enumerate(cuts) if other == cut]].sum()
        for group in cut:
            all_reduce(part, group=group)
        total += part
    return total


def joint_norm(sizes: Tensor, owners: Sequence[Tensor]) -> Tensor:
    """Return the norm, 0-d, of tensors with pieces of these norms, over all ranks that hold any; see `summed`."""
    if not any(map(_sharing, owners)):
        return torch.linalg.vector_norm(sizes)
    return summed(sizes.square(), owners).sqrt()


def _sharing(parameter: Tensor) -> tuple[ProcessGroup, ...]:
    """Return the groups of ranks that a parameter is cut over, one after the other."""
    if _is_distributed(parameter):
        shared: Any = parameter
        return tuple(shared.device_mesh.get_group(i) for i, p in enumerate(shared.placements) if not p.is_replicate())
    return _fsdp1_group(parameter) if getattr(parameter, "_fsdp_flattened", False) else ()


_fsdp1_groups = WeakTensorKeyDictionary()


def _fsdp1_group(parameter: Tensor) -> tuple[ProcessGroup, ...]:
    """Return what FSDP1 cuts a parameter over, which only its handles know, and these only the garbage collector."""
    if parameter not in _fsdp1_groups:
        from torch.distributed.fsdp._flat_param import FlatParamHandle

        for handle in [found for found in gc.get_objects() if issubclass(type(found), FlatParamHandle)]:
            group = (handle.process_group,) if handle.uses_sharded_strategy else ()
            for p in (handle.flat_param, *(handle.flat_param._params or ())):
                _fsdp1_groups[p] = group
    return _fsdp1_groups[parameter]


def _is_distributed(tensor: Tensor | None) -> bool:
    if type(tensor) in PLAIN:
        return False
    module = sys.modules.get("torch.distributed.tensor")  # a second to import, and there is none without it
    return module is not None and isinstance(tensor, module.DTensor)
