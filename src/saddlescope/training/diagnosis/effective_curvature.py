"""The curvature that SAM feels along a direction, measured by stepping aside and looking which way it pushes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

from saddlescope._checks import refuse, require_finite
from saddlescope.curvature.hessian import HessianOperator
from saddlescope.training.diagnosis.estimate import Estimate


def effective_curvature(
    loss_fn: Callable[[Any], Tensor],
    parameters: Iterable[Tensor],
    direction: Tensor,
    batches: Iterable[Any],
    *,
    rho: float,
    displacement: float,
) -> Estimate:
    """Return ``lam_eff = (v.g_p(w + x v) - v.g_p(w - x v)) / 2x``, the mean over batches.

    ``g_p`` is the batch gradient at ``w + rho g / |g|``; both displacements see the same batch, and the error is that
    of the mean over batches. Negative: SAM is driven away along ``v``, at ``eta |lam_eff|`` a step; positive: it is
    driven back. The trap number predicts ``lam (1 - tau)`` to first order in ``rho`` and ``x``. Four gradients a batch
    (two for ``rho = 0``, which gives the plain curvature).

    Args:
        loss_fn: takes a batch and returns its mean loss.
        parameters: of the model; they come back bit for bit.
        direction: unit vector ``v``, shape ``(n,)``.
        batches: of the size that the training takes.
        rho: radius of SAM, >= 0.
        displacement: ``x``, > 0. Too large it leaves the linear range, ``x |H_B v| << |g_B|``; too small it is lost
            among the kinks of ReLUs.

    >>> import torch
    >>> w = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
    >>> v = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> loss_fn = lambda _: w[0] ** 2 - w[1] ** 2
    >>> value = effective_curvature(loss_fn, [w], v, [None], rho=6.0, displacement=1e-4).value
    >>> round(value, 6)  # lam (1 - tau) = -2 (1 - 6 * 2 / 6)
    2.0
    """
    slopes = slopes_aside(loss_fn, parameters, direction, batches, rho=rho, displacement=displacement)
    if not len(slopes):
        raise refuse("batches", "none", "one or more")
    return Estimate.mean(slopes)


def slopes_aside(
    loss_fn: Callable[[Any], Tensor],
    parameters: Iterable[Tensor],
    direction: Tensor,
    batches: Iterable[Any],
    *,
    rho: float,
    displacement: float,
) -> np.ndarray:
    """Return what `effective_curvature` is the mean of, one number a batch, shape ``(m,)``; arguments as there."""
    require_finite("rho", rho, minimum=0.0)
    require_finite("displacement", displacement, minimum=0.0, exclusive=True)
    kept = [p for p in parameters if p.requires_grad]
    slopes = []
    for batch in batches:
        operator = HessianOperator(loss_fn, kept, [batch])
        here = operator.point()
        pushes = [float(direction @ _sam_gradient(operator, here + s * displacement * direction, rho)) for s in (1, -1)]
        slopes.append((pushes[0] - pushes[1]) / (2 * displacement))
    return np.array(slopes)


def _sam_gradient(operator: HessianOperator, point: Tensor, rho: float) -> Tensor:
    with operator.at(point):
        gradient = operator.gradient()
    norm = gradient.norm()
    if rho == 0.0 or not norm > 0.0:
        return gradient
    with operator.at(point + rho / norm * gradient):
        return operator.gradient()
