"""Many zeros of a gradient at once: damped Newton (Levenberg-Marquardt) searches in a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlescope.landscapes.landscape import Landscape

LONGEST_STEP = 0.5
"""Longer Newton steps come from a nearly singular Hessian and say little. Lengths: half the box's width is 1."""
LOST = 2.0
"""A search that far from the centre is given up; between the edge (1) and there it may still come back."""
PATIENCE = 10
"""Steps within which the step length must halve. Towards a zero of order ``k`` it takes about ``0.7 * k``."""


class ScaledLoss:
    """A loss in the coordinates ``z = (w - centre) / half_width``, its box ``[-1, 1]^d``; all fields batched."""

    def __init__(self, landscape: Landscape) -> None:
        low, high = torch.tensor(landscape.bounds, dtype=torch.float64).T
        self.centre, self.half_width = (low + high) / 2, (high - low) / 2

        def scaled(z: Tensor) -> Tensor:
            return landscape.loss(self.point(z))

        self.loss = torch.vmap(scaled)
        self.gradient = torch.vmap(torch.func.grad(scaled))
        self.hessian = torch.vmap(torch.func.hessian(scaled))

    def point(self, z: Tensor) -> Tensor:
        """Return the point ``w`` with the scaled coordinates ``z``, shape ``(d,)`` or ``(n, d)``."""
        return self.centre + self.half_width * z


def find_zeros(scaled: ScaledLoss, starts: Tensor, *, tolerance: float, free_steps: int, max_steps: int) -> Tensor:
    """Follow every start to where the gradient norm cannot be reduced, shape ``(n, d)``; NaN where lost.

    The step is ``-(H^2 + mu I)^-1 H g`` with ``mu = factor * ||g||^2``: quadratically convergent at regular
    zeros and at continua of zeros, linearly (rate ``(k-2)/(k-1)`` for ``w^k``) at isolated degenerate ones.
    The first ``free_steps`` are taken whatever they do, as Newton's method crosses curved valleys of ``||g||``
    along which it would crawl if every step had to go down. After them ``factor`` falls when a step reduces
    ``||g||`` and grows when it does not. A search ends with a step below ``tolerance`` or when its steps do not
    get shorter: the caller must check where.
    """
    points = starts.clone()
    active = torch.arange(len(points))
    factor = torch.full_like(points[:, 0], 1e-3)
    reference, waited = torch.full_like(factor, torch.inf), torch.zeros_like(factor)
    for count in range(max_steps):
        if not len(active):
            break
        free, here = count < free_steps, points[active]
        gradient = scaled.gradient(here)
        eigenvalues, basis, along = eigendirections(gradient, scaled.hessian(here))
        damping = (factor[active] * along.square().sum(1))[:, None] + 1e-200  # the last only guards 0 / 0
        step = -(basis @ (eigenvalues * along / (eigenvalues.square() + damping))[..., None])[..., 0]
        length = step.norm(dim=1)
        trial = here + step * (LONGEST_STEP / length).clamp(max=1.0)[:, None]
        better = scaled.gradient(trial).norm(dim=1) < gradient.norm(dim=1)
        points[active] = torch.where((better | free)[:, None], trial, here)
        factor[active] *= torch.where(better, 0.1, 1.0 if free else 10.0)

        halved = (length <= reference[active] / 2) | free
        reference[active] = torch.where(halved, length, reference[active])
        waited[active] = torch.where(halved, 0.0, waited[active] + 1)
        lost = ~torch.isfinite(length) | (points[active].abs().amax(1) > LOST)
        points[active[lost]] = torch.nan
        active = active[~lost & (length > tolerance) & (waited[active] < PATIENCE)]
    return points


def eigendirections(gradient: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of ``H / ||H||`` and the coefficients of ``g / ||H||`` along them.

    In the unit of ``||H||`` gradients are lengths, so that nothing depends on the unit of the loss. Shapes
    ``(n, d)`` ascending, ``(n, d, d)`` with vectors as columns, ``(n, d)``; the last is NaN where not finite.
    """
    norm = hessian_norm(hessian)
    finite = torch.isfinite(norm) & torch.isfinite(gradient).all(1)
    unit = torch.where(finite[:, None, None], hessian / norm[:, None, None], 0.0)
    eigenvalues, basis = torch.linalg.eigh(unit)
    along = (basis.mT @ (gradient / norm[:, None])[..., None])[..., 0]
    return eigenvalues, basis, torch.where(finite[:, None], along, torch.nan)


def hessian_norm(hessian: Tensor) -> Tensor:
    """Return the Frobenius norm of each Hessian, 1 for the zero matrix, shape ``(n,)``."""
    norm = torch.linalg.matrix_norm(hessian)
    return norm.where(norm != 0, 1.0)
