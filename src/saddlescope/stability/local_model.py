"""What gradient and Hessian say about a point when both are known to rounding only."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlescope.stability.root_search import ScaledLoss, eigendirections, hessian_norm

RESOLUTION = 1e-6
"""A Newton step shorter than this ends at the point; an eigenvalue that changes sign or cannot be told from zero
within this distance is degenerate. In units of half the width of the box."""
EPSILON = torch.finfo(torch.float64).eps


class LocalModel:
    """Gradient and Hessian at ``n`` points in their eigendirections, with the errors of both, shapes ``(n, d)``.

    In the units of `eigendirections`. The rounding of the gradient is measured: its largest change between the
    point and neighbours a few roundings away.
    """

    def __init__(self, scaled: ScaledLoss, points: Tensor) -> None:
        n, d = points.shape
        gradient, hessian = scaled.gradient(points), scaled.hessian(points)
        norm = hessian_norm(hessian)[:, None]
        self.eigenvalues, basis, self.gradient = eigendirections(gradient, hessian)

        axes = torch.cat([torch.eye(d), -torch.eye(d)]).to(points)
        roundings = 4 * EPSILON * (1 + (scaled.centre / scaled.half_width).abs())
        around = points[:, None] + roundings * torch.cat([axes * 2**k for k in range(6)])
        differences = scaled.gradient(around.reshape(-1, d)).reshape(n, -1, d) - gradient[:, None]
        self.gradient_rounding = (differences @ basis).abs().amax(1) / norm

        around = points[:, None] + RESOLUTION * axes
        nearby = scaled.hessian(around.reshape(-1, d)).reshape(n, -1, d, d)
        changes = basis.mT[:, None] @ (nearby - hessian[:, None]) @ basis[:, None]
        self.eigenvalue_change = changes.diagonal(dim1=2, dim2=3).abs().amax(1) / norm
        self.is_plateau = (hessian == 0).flatten(1).all(1) & (nearby == 0).flatten(1).all(1)

    def is_critical(self) -> Tensor:
        """Whether the Newton step is within the resolution in every direction, shape ``(n,)``."""
        return (self.gradient.abs() <= RESOLUTION * self.eigenvalues.abs()).all(1) & ~self.is_plateau

    def is_zero_eigenvalue(self) -> Tensor:
        """Which eigenvalues cannot be told from zero, shape ``(n, d)``."""
        size = self.eigenvalues.abs()
        drowned = size * RESOLUTION <= 4 * (self.gradient_rounding + EPSILON)
        return drowned | (size <= self.eigenvalue_change)
