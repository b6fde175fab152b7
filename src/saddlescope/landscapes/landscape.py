"""A loss in few variables together with what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescope._checks import refuse, require_count, require_finite

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Landscape:
    """A loss ``l: R^d -> R`` written once in torch, with a box to look at and its known critical points.

    Every question of the package (dynamics, stability, diffusion) is asked of such an object. The loss
    must be pure torch: no in-place writes and no Python branch on the values of its argument, so that
    it can be batched with ``vmap``, differentiated with ``torch.func`` and compiled.

    Raises:
        ValueError: for a dimension below 1 or bounds that are not ``d`` pairs ``low < high``.

    >>> bowl = Landscape("bowl", lambda w: (w**2).sum(), dimension=2, bounds=[(-1, 1), (-1, 1)])
    >>> bowl.loss(torch.tensor([3.0, 4.0])).item()
    25.0
    """

    name: str
    loss: Loss
    """Takes a point of shape ``(d,)`` and returns a 0-d tensor of the same dtype and device."""
    dimension: int
    bounds: tuple[tuple[float, float], ...]
    """One ``(low, high)`` pair for each coordinate: where to search and what to draw, not a constraint."""
    critical_points: tuple[tuple[float, ...], ...] = ()
    """The points of shape ``(d,)`` where the gradient is known to vanish; empty when nothing is known."""
    source: str = ""
    """The formula and where it comes from."""

    def __post_init__(self) -> None:
        require_count("dimension", self.dimension, minimum=1)
        object.__setattr__(self, "bounds", _box("bounds", self.bounds, self.dimension))
        points = tuple(tuple(float(x) for x in point) for point in self.critical_points)
        for point in points:
            if len(point) != self.dimension:
                raise refuse("critical_points", point, f"points of {self.dimension} coordinates")
        object.__setattr__(self, "critical_points", points)

    def gradient(self, point: Tensor) -> Tensor:
        """Return the gradient at one point, shape ``(d,)``; differentiable and batchable with ``vmap``."""
        return torch.func.grad(self.loss)(point)

    def hessian(self, point: Tensor) -> Tensor:
        """Return the Hessian at one point, shape ``(d, d)``."""
        return torch.func.hessian(self.loss)(point)


def _box(name: str, bounds: Sequence[Sequence[float]], dimension: int) -> tuple[tuple[float, float], ...]:
    expected = f"{dimension} pairs (low, high) with low < high"
    try:
        pairs = [tuple(pair) for pair in bounds]
    except TypeError:
        raise refuse(name, bounds, expected) from None
    if len(pairs) != dimension or any(len(pair) != 2 for pair in pairs):
        raise refuse(name, bounds, expected)
    box = tuple((require_finite(name, low), require_finite(name, high)) for low, high in pairs)
    if any(low >= high for low, high in box):
        raise refuse(name, bounds, expected)
    return box
