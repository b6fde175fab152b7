"""Gradients as they come, dense or sparse, real or complex, of any precision: norms and inner products."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saddlescope.optim.distributed import joint_norm, own, own_gradient


def as_real(tensor: Tensor) -> Tensor:
    """Return this rank's piece, or of a complex one its view as pairs of real numbers, as torch's optimizers do."""
    tensor = own(tensor)
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def gradient_of(parameter: Tensor) -> Tensor:
    """Return a parameter's gradient, this rank's piece, as real numbers, a sparse one with every index once."""
    gradient = own_gradient(parameter)
    return gradient.coalesce() if gradient.is_sparse else as_real(gradient)


def entries(tensor: Tensor) -> Tensor:
    """Return the stored entries: of a sparse tensor its values, of a dense one itself."""
    return tensor.values() if tensor.is_sparse else tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision to compute in: float32 for half precision, else the same."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each real tensor, shape ``(n,)``, on the first one's device; nothing is read.

    Sums in at least float32, so that half-precision gradients do not overflow.

    >>> norms([torch.tensor([3.0, 4.0]), torch.full((4,), 6e4, dtype=torch.float16)])
    tensor([5.0000e+00, 1.2000e+05])
    """
    if not tensors:
        return torch.zeros(0)
    precision = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    each = torch._foreach_norm([entries(t) for t in tensors], 2, dtype=precision)
    return torch.stack([n.to(each[0].device) for n in each])


def total_norm(tensors: Sequence[Tensor], scale: Tensor | None = None, *, owners: Sequence[Tensor] = ()) -> Tensor:
    """Return the norm over all tensors, 0-d, divided by the ``scale`` of a gradient scaler.

    Args:
        tensors: on this rank.
        scale: None for 1.
        owners: the parameters that the tensors belong to, where other ranks may have pieces of them.
    """
    norm = joint_norm(norms(tensors), owners)
    return norm if scale is None else norm / scale.to(norm.device)


def gradient_norm(parameters: Sequence[Tensor], scale: Tensor | None = None) -> Tensor:
    """Return the norm, 0-d, of the gradients of those parameters that have one, over all ranks with pieces of them."""
    owners = [p for p in parameters if p.grad is not None]
    return total_norm([gradient_of(p) for p in owners], scale, owners=owners)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return ``<a, b>``, 0-d, for a dense ``a``; ``b`` may be sparse.

    >>> inner(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]).to_sparse())
    tensor(6.)
    """
    if b.is_sparse:
        b = b.coalesce()
        a, b = a[tuple(b.indices())], b.values()
    precision = wide(a.dtype)
    return torch.dot(a.to(precision).flatten(), b.to(precision).flatten())
