"""Test functions in closed form, with their critical points.

Losses are module functions or frozen dataclasses of numbers, never closures: they print, pickle and
compare by value, so that whatever is compiled for one serves every equal one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import e, pi

import torch
from torch import Tensor

from saddlescope._checks import refuse, require_count, require_finite
from saddlescope.landscapes.landscape import Landscape


@dataclass(frozen=True)
class Quadratic:
    """The loss ``sum_i lambda_i w_i^2 / 2``."""

    eigenvalues: tuple[float, ...]
    """The curvatures ``lambda_i``, shape ``(d,)``."""

    def __call__(self, w: Tensor) -> Tensor:
        """Return the loss, shape ``()``, at ``w`` of shape ``(d,)``."""
        return 0.5 * (torch.tensor(self.eigenvalues, dtype=w.dtype, device=w.device) * w * w).sum()


def quadratic(eigenvalues: Iterable[float] = (-1.0, 1.0)) -> Landscape:
    """Return ``sum_i lambda_i w_i^2 / 2``: the model of every nondegenerate critical point.

    Raises:
        ValueError: for no eigenvalue, or one that is not a finite number.

    >>> quadratic([1.0, -0.5, -2.0]).loss(torch.tensor([2.0, 2.0, 0.0])).item()
    1.0
    """
    if not isinstance(eigenvalues, Iterable) or not (values := tuple(eigenvalues)):
        raise refuse("eigenvalues", eigenvalues, "one number for each coordinate")
    values = tuple(require_finite("eigenvalues", value) for value in values)
    return Landscape(
        "quadratic",
        Quadratic(values),
        dimension=len(values),
        bounds=((-2.0, 2.0),) * len(values),
        critical_points=((0.0,) * len(values),),
        source="sum(lambda_i * w_i**2) / 2; the critical point is isolated unless an eigenvalue is 0",
    )


def quadratic_saddle() -> Landscape:
    """Return ``x^2 - y^2``, the saddle of the demonstration in Kim et al. (arXiv 2301.06308).

    >>> quadratic_saddle().loss(torch.tensor([3.0, 1.0])).item()
    8.0
    """
    return Landscape(
        "quadratic_saddle",
        _quadratic_saddle,
        dimension=2,
        bounds=((-4.0, 4.0),) * 2,
        critical_points=((0.0, 0.0),),
        source="x**2 - y**2 (Kim et al., arXiv 2301.06308)",
    )


def _quadratic_saddle(w: Tensor) -> Tensor:
    x, y = w.unbind()
    return x**2 - y**2


def beale() -> Landscape:
    """Return ``sum_k (c_k - x (1 - y^k))^2`` with ``c = 1.5, 2.25, 2.625`` (Beale 1958).

    Its three critical points are all there are: eliminating ``x`` leaves
    ``(y - 1)^4 (2y - 1) (7y^2 + 13y + 17) (3y^3 + 11y^2 + 10y + 5)``, whose real roots are ``1, 1/2`` and
    one of the cubic. The last stored point is that root to full double precision.

    >>> beale().loss(torch.tensor([0.0, 1.0], dtype=torch.float64)).item()
    14.203125
    """
    return Landscape(
        "beale",
        _beale,
        dimension=2,
        bounds=((-4.5, 4.5),) * 2,
        critical_points=((3.0, 0.5), (0.0, 1.0), (0.10053793732415836, -2.644513585023125)),
        source="(1.5 - x + x*y)**2 + (2.25 - x + x*y**2)**2 + (2.625 - x + x*y**3)**2 (Beale 1958)",
    )


def _beale(w: Tensor) -> Tensor:
    x, y = w.unbind()
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def double_well() -> Landscape:
    """Return ``(x^2 - 1)^2 / 4 + y^2 / 2``: two minima and the saddle between them.

    >>> double_well().loss(torch.tensor([0.0, 0.0])).item()
    0.25
    """
    return Landscape(
        "double_well",
        _double_well,
        dimension=2,
        bounds=((-2.0, 2.0),) * 2,
        critical_points=((-1.0, 0.0), (0.0, 0.0), (1.0, 0.0)),
        source="(x**2 - 1)**2 / 4 + y**2 / 2",
    )


def _double_well(w: Tensor) -> Tensor:
    x, y = w.unbind()
    return (x**2 - 1.0) ** 2 / 4.0 + y**2 / 2.0


def rosenbrock(dimension: int = 2) -> Landscape:
    """Return ``sum_i 100 (w_{i+1} - w_i^2)^2 + (1 - w_i)^2``, i = 1..d-1 (Rosenbrock 1960).

    ``(1, ..., 1)`` is the only critical point for d = 2 and 3; from d = 4 on there are others, not stored.

    Raises:
        ValueError: for a dimension below 2.

    >>> rosenbrock(3).loss(torch.zeros(3)).item()
    2.0
    """
    d = require_count("dimension", dimension, minimum=2)
    return Landscape(
        "rosenbrock",
        _rosenbrock,
        dimension=d,
        bounds=((-2.0, 2.0),) * d,
        critical_points=((1.0,) * d,),
        source="sum(100*(w[i+1] - w[i]**2)**2 + (1 - w[i])**2) (Rosenbrock 1960); all for d <= 3",
    )


def _rosenbrock(w: Tensor) -> Tensor:
    return (100.0 * (w[1:] - w[:-1] ** 2) ** 2 + (1.0 - w[:-1]) ** 2).sum()


def monkey_saddle() -> Landscape:
    """Return ``x^3 - 3 x y^2``: a degenerate saddle, its Hessian at the origin is zero.

    >>> monkey_saddle().loss(torch.tensor([1.0, 1.0])).item()
    -2.0
    """
    return Landscape(
        "monkey_saddle",
        _monkey_saddle,
        dimension=2,
        bounds=((-2.0, 2.0),) * 2,
        critical_points=((0.0, 0.0),),
        source="x**3 - 3*x*y**2",
    )


def _monkey_saddle(w: Tensor) -> Tensor:
    x, y = w.unbind()
    return x**3 - 3.0 * x * y**2


def ackley(dimension: int = 2) -> Landscape:
    """Return ``20 + e - 20 exp(-|w| / (5 sqrt(d))) - exp(mean_i cos(2 pi w_i))`` (Ackley 1987).

    The global minimum at the origin is a kink, without a gradient. No critical point is stored, and there
    are many: local minima near the integer lattice and saddles between them.

    Raises:
        ValueError: for a dimension below 1.

    >>> abs(ackley().loss(torch.zeros(2, dtype=torch.float64)).item()) < 1e-14
    True
    """
    d = require_count("dimension", dimension, minimum=1)
    return Landscape(
        "ackley",
        _ackley,
        dimension=d,
        bounds=((-5.0, 5.0),) * d,
        source="20 + e - 20*exp(-sqrt(mean(w**2)) / 5) - exp(mean(cos(2*pi*w))) (Ackley 1987)",
    )


def _ackley(w: Tensor) -> Tensor:
    return 20.0 + e - 20.0 * torch.exp(-0.2 * (w * w).mean().sqrt()) - torch.exp(torch.cos(2.0 * pi * w).mean())
