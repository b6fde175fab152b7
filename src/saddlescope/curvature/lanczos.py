"""Both ends of the spectrum of a symmetric operator from one Krylov space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from saddlescope._checks import require_count, require_finite


class Operator(Protocol):
    """A symmetric matrix known through its products with vectors."""

    def matvec(self, vector: Tensor) -> Tensor:
        """Return the product with a vector of shape ``(n,)``."""
        ...

    def random_vector(self, seed: int) -> Tensor:
        """Return a reproducible Gaussian vector of shape ``(n,)`` to start from."""
        ...


@dataclass(frozen=True, eq=False)
class KrylovSpace:
    """What ``k`` Lanczos steps know of a symmetric ``H``: ``H Q = Q T + beta_k q_{k+1} e_k^T`` (Lanczos 1950).

    An eigenpair ``(theta, s)`` of the tridiagonal ``T`` gives the Ritz pair ``(theta, Q s)`` with the exact
    residual ``|H Q s - theta Q s| = beta_k |s_k|``: some eigenvalue of ``H`` lies that close to ``theta``.
    """

    basis: Tensor
    """Orthonormal rows ``Q^T``, shape ``(k, n)``."""
    values: np.ndarray
    """Ritz values ascending, shape ``(k,)``."""
    coefficients: np.ndarray
    """Eigenvectors of ``T`` as columns, shape ``(k, k)``."""
    next_norm: float
    """``beta_k``, the norm of the part of ``H q_k`` outside the space."""

    def residual(self, index: int) -> float:
        """Return ``|H u - theta u|`` of one Ritz pair."""
        return abs(self.next_norm * float(self.coefficients[-1, index]))

    def vector(self, index: int) -> Tensor:
        """Return one Ritz vector, of length 1 and shape ``(n,)``."""
        vector = torch.as_tensor(self.coefficients[:, index]).to(self.basis) @ self.basis
        return vector / vector.norm()


def lanczos(matvec: Callable[[Tensor], Tensor], start: Tensor, max_products: int) -> Iterator[KrylovSpace]:
    """Yield the Krylov space after each product, with full reorthogonalisation; the caller decides when to stop.

    Ends by itself when the space is invariant (every eigenvalue present in ``start`` is then found) or when
    a product is not finite. Memory: ``max_products`` vectors.

    >>> spectrum = torch.tensor([-1.0, 2.0, 5.0], dtype=torch.float64)
    >>> *_, space = lanczos(lambda v: spectrum * v, torch.ones(3, dtype=torch.float64), max_products=10)
    >>> space.values.round(12)
    array([-1.,  2.,  5.])
    """
    basis = start.new_empty((min(max_products, start.numel()), start.numel()))
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    new = start / start.norm()
    for k in range(len(basis)):
        basis[k] = new
        known = basis[: k + 1]
        new = matvec(known[k])
        overlap = known @ new
        new = new - overlap @ known
        new = new - (known @ new) @ known  # the second sweep brings orthogonality down to round-off
        alpha, beta = overlap[k].item(), new.norm().item()
        if not math.isfinite(alpha + beta):
            return
        diagonal.append(alpha)
        values, coefficients = eigh_tridiagonal(np.array(diagonal), np.array(off_diagonal))
        yield KrylovSpace(known, values, coefficients, beta)
        if beta <= _round_off(new, values) * (k + 1):
            return
        off_diagonal.append(beta)
        new = new / beta


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """The two ends of the spectrum, each with its residual ``|H u - theta u|``."""

    minimum: float
    maximum: float
    residual_minimum: float
    """Some eigenvalue lies within this distance of ``minimum``."""
    residual_maximum: float
    vector_minimum: Tensor
    """Unit vector, shape ``(n,)``."""
    vector_maximum: Tensor
    products: int
    """Matrix-vector products spent."""
    converged: bool
    """Whether both residuals met the tolerance; when False the numbers are the best so far, not the ends."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as a JSON-ready dictionary, without the two vectors; NaN becomes None."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("vector")}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in numbers.items()}


def extreme_eigenvalues(
    operator: Operator, *, tolerance: float = 0.03, max_products: int = 64, seed: int = 0
) -> Spectrum:
    """Return the smallest and the largest eigenvalue of a symmetric operator such as `HessianOperator`.

    One Lanczos run from a random start serves both ends. It stops when each residual is at most
    ``tolerance * |eigenvalue|`` (or round-off of the whole spectrum, for an end that is zero). The error of
    an eigenvalue is of second order in its residual, so 3% is mostly well below 1% of error.

    Args:
        operator: gives ``matvec(v)`` and ``random_vector(seed)``.
        tolerance: relative residual at which an end counts as found, > 0.
        max_products: budget; when it is spent the result says ``converged=False``.
        seed: of the start vector.

    Raises:
        ValueError: for a tolerance <= 0 or a budget below 1.

    >>> from saddlescope.curvature import HessianOperator
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> ends = extreme_eigenvalues(HessianOperator(lambda _: w[0] ** 2 - 3 * w[1] ** 2, [w], [None]))
    >>> round(ends.minimum, 4), round(ends.maximum, 4), ends.converged
    (-6.0, 2.0, True)
    """
    require_finite("tolerance", tolerance, minimum=0.0, exclusive=True)
    require_count("max_products", max_products, minimum=1)
    start = operator.random_vector(seed)
    space, products, converged = None, 0, False
    for space in lanczos(operator.matvec, start, max_products):
        products += 1
        floor = _round_off(start, space.values) * products
        ends = [(space.residual(i), abs(float(space.values[i]))) for i in (0, -1)]
        converged = all(residual <= max(tolerance * size, floor) for residual, size in ends)
        if converged:
            break
    if space is None:  # the very first product was not finite
        space = KrylovSpace(start[None] / start.norm(), np.array([np.nan]), np.ones((1, 1)), math.nan)
    return Spectrum(
        minimum=float(space.values[0]),
        maximum=float(space.values[-1]),
        residual_minimum=space.residual(0),
        residual_maximum=space.residual(-1),
        vector_minimum=space.vector(0),
        vector_maximum=space.vector(-1),
        products=products,
        converged=converged,
    )


def _round_off(vector: Tensor, values: np.ndarray) -> float:
    return torch.finfo(vector.dtype).eps * float(np.abs(values).max())
