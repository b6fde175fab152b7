"""How SAM answers a displacement from a saddle: the trap number, along one direction and along several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlescope._checks import refuse
from saddlescope.curvature.hessian import HessianOperator
from saddlescope.training.diagnosis.estimate import Estimate


@dataclass(frozen=True, eq=False)
class Responses:
    """What each of ``m`` batches says of ``k`` orthonormal directions ``V``."""

    curvature: np.ndarray
    """``V^T H_B V``, shape ``(m, k, k)``."""
    response: np.ndarray
    """``(H_B V)^T (H_B V) / |g_B|``, shape ``(m, k, k)``."""
    alignment: np.ndarray
    """``V^T H_B g_B / |g_B|``, shape ``(m, k)``: what turning the gradient does not see of the response."""
    gradient_norms: np.ndarray
    """``|g_B|``, shape ``(m,)``."""
    products: int
    """Hessian-vector products spent."""

    def joined(self, more: Responses) -> Responses:
        """Return the answers of these batches and of more, in this order."""
        return Responses(
            np.concatenate([self.curvature, more.curvature]),
            np.concatenate([self.response, more.response]),
            np.concatenate([self.alignment, more.alignment]),
            np.concatenate([self.gradient_norms, more.gradient_norms]),
            self.products + more.products,
        )

    def effective(self, rho: float) -> np.ndarray:
        """Return ``V^T H_B V + rho (H_B V)^T (I - n n^T) (H_B V) / |g_B|`` with ``n = g_B / |g_B|``, ``(m, k, k)``.

        The mean over batches is the Jacobian of the mean SAM gradient in the plane of ``V``, to first order in
        ``rho``: SAM leaves along its negative eigenvectors only. ``I - n n^T`` is what normalising leaves of a change
        of the gradient.
        """
        norms = np.maximum(self.gradient_norms, np.finfo(float).tiny)[:, None, None]
        along = self.alignment[:, :, None] * self.alignment[:, None, :]
        return self.curvature + rho * (self.response - along / norms)


def measure_responses(
    loss_fn: Callable[[Any], Tensor], parameters: Iterable[Tensor], directions: Tensor, batches: Iterable[Any]
) -> Responses:
    """Measure curvature and response of each batch along the rows of ``directions``.

    Args:
        loss_fn: takes a batch and returns its mean loss.
        parameters: of the model.
        directions: orthonormal rows, shape ``(k, n)``; chosen on other batches, or the curvature is biased downwards.
        batches: of the size that the training takes; independent draws for the errors to be right.

    >>> w = torch.tensor([0.1, 0.3], requires_grad=True)
    >>> measure_responses(lambda _: w[0] ** 2 - w[1] ** 2, [w], torch.tensor([[0.0, 1.0]]), [None]).response.round(3)
    array([[[6.325]]])
    """
    kept = list(parameters)
    curvature, response, alignment, norms = [], [], [], []
    for batch in batches:
        operator = HessianOperator(loss_fn, kept, [batch])
        with operator.retained():
            products = operator.matmat(directions.T)
        gradient = operator.gradient()
        norm = float(gradient.norm())
        scale = max(norm, torch.finfo(torch.float64).tiny)
        curvature.append((directions @ products).double().cpu().numpy())
        response.append((products.T @ products).double().cpu().numpy() / scale)
        alignment.append((products.T @ gradient).double().cpu().numpy() / scale)
        norms.append(norm)
    spent = len(norms) * len(directions)
    return Responses(np.array(curvature), np.array(response), np.array(alignment), np.array(norms), spent)


def trap_number(responses: Responses, rho: float, direction: int = 0) -> Estimate:
    """Return ``tau = rho E[|H_B v|^2 / |g_B|] / |E[v.H_B v]|`` along one of the directions.

    A displacement ``x v`` from a saddle changes the batch gradient by ``x H_B v`` and SAM's perturbation by
    ``rho x H_B v / |g_B|``, and so the mean SAM gradient along ``v`` by ``x lam (1 - tau)`` with
    ``lam = E[v.H_B v] < 0``: above 1 SAM turns back, below it leaves ``1 / (1 - tau)`` times slower than SGD. The
    derivative of the normalisation is left out, see `predicted_curvature`. NaN where the mean curvature is not
    negative. The error is by the jackknife over batches.
    """
    curvature, response = (a[:, direction, direction] for a in (responses.curvature, responses.response))
    if not curvature.mean() < 0.0:
        return Estimate(np.nan, np.nan, len(curvature))
    return Estimate.jackknife(lambda i: rho * response[i].mean() / -curvature[i].mean(), len(curvature))


def predicted_curvature(responses: Responses, rho: float, direction: int = 0) -> Estimate:
    """Return the effective curvature along one of the directions, to first order in ``rho``: `Responses.effective`.

    It is below ``lam (1 - tau)`` by ``rho E[(g_B.H_B v)^2 / |g_B|^3]``, what normalising takes off the response.
    """
    return Estimate.mean(responses.effective(rho)[:, direction, direction])


def escape_direction(responses: Responses, rho: float) -> np.ndarray:
    """Return the unit combination of directions, shape ``(k,)``, along which SAM holds least.

    With several directions of negative curvature the most negative one has the largest trap number on a full batch
    (``tau_i = rho |lam_i| / |g|``), and SAM may leave along a weaker one. The first half of the batches chooses.
    """
    half = len(responses.curvature) // 2
    return np.linalg.eigh(responses.effective(rho)[:half].mean(axis=0))[1][:, 0]


def escape_curvature(responses: Responses, rho: float) -> Estimate:
    """Return the effective curvature along `escape_direction`, on the second half of the batches.

    Below zero beyond its error SAM leaves along it; above zero no direction in the plane was found that it leaves by.
    The halves are apart since a smallest eigenvalue is biased downwards on the batches that it is chosen on.

    Raises:
        ValueError: for fewer than 4 batches, two to choose the direction and two to measure it.
    """
    count = len(responses.curvature)
    if count < 4:
        raise refuse("batches", count, "4 or more, two to choose the direction and two to measure it")
    along = escape_direction(responses, rho)
    return Estimate.mean(np.einsum("i,mij,j->m", along, responses.effective(rho)[count // 2 :], along))
