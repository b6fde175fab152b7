"""The Hessian of a model's mean loss over a data set, as matrix-vector products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import refuse


class HessianOperator:
    """Products ``H v`` with the Hessian ``H = sum_b n_b H_b / sum_b n_b`` over batches of ``n_b`` samples.

    Each product is exact, by double backward (Pearlmutter 1994): ``H_b v = grad <grad l_b, v>``. Batches are
    weighted by their number of samples, so that a short last batch counts for what it holds.

    Args:
        loss_fn: takes a batch and returns its **mean** loss, a 0-d tensor. Put the model in the mode you mean:
            in training mode, dropout makes the products noisy and batch norm counts every evaluation.
        parameters: the tensors to differentiate in; vectors are their entries one after the other.
        batches: what can be walked again and again, a list or a ``DataLoader``. The length of a batch's first
            tensor is its number of samples; a batch ``None`` counts 1.

    Raises:
        ValueError: when nothing requires a gradient, or ``batches`` is a one-shot iterator or empty.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian = HessianOperator(lambda x: (x * w[0] * w[1]).mean(), [w], [torch.ones(3), torch.zeros(1)])
    >>> hessian.matvec(torch.tensor([1.0, 0.0]))
    tensor([0.0000, 0.7500])
    """

    def __init__(self, loss_fn: Callable[[Any], Tensor], parameters: Iterable[Tensor], batches: Iterable[Any]):
        self.loss_fn = loss_fn
        self.parameters = [p for p in parameters if p.requires_grad]
        self.batches = batches
        if not self.parameters:
            raise refuse("parameters", self.parameters, "at least one tensor that requires a gradient")
        if isinstance(batches, Iterator):
            raise refuse("batches", batches, "batches to walk once a product", "pass list(batches)")
        self.dimension = sum(p.numel() for p in self.parameters)

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``H v``, shape ``(dimension,)``."""
        total, samples = torch.zeros_like(vector), 0
        for batch in self.batches:
            with torch.enable_grad():
                gradients = gradients_of(self.loss_fn(batch), self.parameters, create_graph=True)
            count = sample_count(batch)
            total += count * hessian_product(gradients, self.parameters, vector)
            samples += count
        if samples == 0:
            raise refuse("batches", self.batches, "at least one sample")
        return total / samples

    def random_vector(self, seed: int) -> Tensor:
        """Return a Gaussian vector of shape ``(dimension,)``; the same one on every device."""
        generator = torch.Generator().manual_seed(seed)
        first = self.parameters[0]
        return torch.randn(self.dimension, generator=generator, dtype=first.dtype).to(first.device)


def hessian_product(
    gradients: Sequence[Tensor], parameters: Sequence[Tensor], vector: Tensor, *, retain_graph: bool = False
) -> Tensor:
    """Return ``H v = grad <g, v>``, shape ``(n,)``, for gradients ``g`` taken with ``create_graph=True``.

    Args:
        gradients: of a loss, one for each parameter.
        parameters: what they were taken in.
        vector: shape ``(n,)``, with the entries of all parameters one after the other.
        retain_graph: keep the graph of the gradients for the next product.
    """
    size = sum(p.numel() for p in parameters)
    if vector.shape != (size,):
        raise refuse("vector", tuple(vector.shape), f"shape ({size},)")
    pieces = vector.split([p.numel() for p in parameters])
    with torch.enable_grad():
        slope = torch.stack([g.flatten() @ v for g, v in zip(gradients, pieces, strict=True)]).sum()
    if not slope.requires_grad:  # the loss is linear
        return torch.zeros_like(vector)
    return flat(gradients_of(slope, parameters, retain_graph=retain_graph))


def gradients_of(output: Tensor, parameters: Sequence[Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Return the gradient of a 0-d tensor in each parameter, zero where it does not depend on one."""
    return torch.autograd.grad(output, parameters, allow_unused=True, materialize_grads=True, **options)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return the entries of all tensors one after the other."""
    return torch.cat([t.flatten() for t in tensors])


def sample_count(batch: Any) -> int:
    """Return the length of a batch's first tensor; a batch ``None`` counts 1.

    >>> sample_count((torch.zeros(5, 3), torch.zeros(5)))
    5
    """
    if batch is None:
        return 1
    while not isinstance(batch, Tensor):
        parts = list(batch.values()) if isinstance(batch, Mapping) else batch
        if not isinstance(parts, Sequence) or len(parts) == 0 or isinstance(parts, str):
            raise refuse("batch", type(batch).__name__, "a tensor, or a tuple, list or dict that starts with one")
        batch = parts[0]
    return len(batch)
