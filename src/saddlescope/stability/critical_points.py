"""Critical points of a loss in a box: where the gradient vanishes, and what the Hessian is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import require_count, require_finite
from saddlescope.landscapes.landscape import Landscape
from saddlescope.stability.local_model import LocalModel
from saddlescope.stability.root_search import ScaledLoss, find_zeros

SAMPLE, SPREAD, EXTREMES = 32_768, 960, 32
"""Points sampled in a round of the search, and those that start it: the first, the lowest and the highest."""
MARGIN = 1.1
"""How far the sample reaches: points near the edge have part of their basin outside the box."""
STARTS_PER_POINT = 20
"""Fewer would leave some of many points without a start in their basin."""
MAX_ROUNDS = 16
FREE_STEPS = 15
"""Steps of a search that are taken whether they reduce the gradient or not."""
MAX_STEPS = 200
SAME_POINT = 1e-6
"""Zeros closer than this are one. Lengths here are in units of half the width of the box."""
DROWNED = 1e-3
"""A seemingly regular zero this close to a degenerate one is the same one, moved by the rounding of its gradient."""
SEPARATION = 0.1
"""Least distance between degenerate points, of which a continuum holds infinitely many."""
MAX_DEGENERATE = 100


@dataclass(frozen=True, kw_only=True)
class CriticalPoint:
    """A point where the gradient of a loss vanishes."""

    point: tuple[float, ...]
    """Shape ``(d,)``."""
    loss: float
    eigenvalues: tuple[float, ...]
    """Of the Hessian, ascending, shape ``(d,)``."""
    index: int
    """Number of negative eigenvalues, those that are zero to within the resolution not counted."""
    degenerate: bool
    """Whether an eigenvalue is zero: at most about 1e-9 of the largest, or changing sign within 1e-6 of the
    half-width of the box (so the monkey saddle is degenerate although computed points miss it by a rounding)."""
    kind: str
    """"minimum", "saddle", "maximum", or "degenerate" whatever the other eigenvalues are."""
    residual: float
    """Norm of the gradient at ``point``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dictionary."""
        return asdict(self) | {"point": list(self.point), "eigenvalues": list(self.eigenvalues)}


def find_critical_points(
    landscape: Landscape, *, bounds: Sequence[Sequence[float]] | None = None, tolerance: float = 1e-10, seed: int = 0
) -> tuple[CriticalPoint, ...]:
    """Find the critical points of any loss in a box, sorted by loss, then by coordinates.

    Rounds of 1024 starts (scrambled Sobol points, the lowest and the highest of a larger sample) are driven to
    zeros of the gradient by Levenberg-Marquardt with exact Hessians, until a round finds nothing new. The search
    is global but not exhaustive: a point whose basin takes much less than a thousandth of the box can be missed;
    a smaller box finds it.

    What counts as critical. In every eigendirection of the Hessian the remaining Newton step must be below 1e-6
    of half the width of the box. Plateaus and valleys that are critical only at infinity (``exp(-x**2)``,
    ``1/x``) fail this however small the gradient is, as their Newton steps do not shrink. Where a loss is
    constant in floating point around a point, that point is not reported. A zero of order six or more along an
    axis that is not a coordinate's can be missed: rounding of the Hessian hides it.

    Degenerate points are reported as such and never as minima. Of a continuum of critical points at most 100
    representatives are returned, at least 5% of the width of the box apart.

    Args:
        landscape: the loss, twice differentiable by autodiff.
        bounds: one ``(low, high)`` pair for each coordinate; default the landscape's. Points on the edge count.
        tolerance: Newton step at which a search has converged, relative to half the width of the box.
        seed: of the Sobol starts.

    Raises:
        ValueError: for bounds that are not ``d`` pairs ``low < high``, or a tolerance that is not positive.

    >>> double_well = Landscape("double well", lambda w: (w[0] ** 2 - 1) ** 2 / 4, 1, [(-2, 2)])
    >>> [(p.kind, round(p.point[0], 9) + 0.0) for p in find_critical_points(double_well)]
    [('minimum', -1.0), ('minimum', 1.0), ('maximum', 0.0)]
    """
    tolerance = require_finite("tolerance", tolerance, minimum=0.0, exclusive=True)
    seed = require_count("seed", seed)
    if bounds is not None:
        landscape = replace(landscape, bounds=bounds)  # which checks them
    scaled = ScaledLoss(landscape)
    sobol = torch.quasirandom.SobolEngine(landscape.dimension, scramble=True, seed=seed)
    zeros = torch.empty(0, landscape.dimension, dtype=torch.float64)
    for count in range(1, MAX_ROUNDS + 1):
        free = FREE_STEPS if count % 2 else 0  # far-reaching searches, then near ones for points close together
        ends = find_zeros(scaled, _starts(scaled, sobol), tolerance=tolerance, free_steps=free, max_steps=MAX_STEPS)
        ends = ends[ends.abs().amax(1) <= 1 + 10 * tolerance]  # False for NaN
        known, zeros = len(zeros), _merge(scaled, zeros, ends)
        if len(zeros) == known and count * SPREAD >= STARTS_PER_POINT * len(zeros):
            break
    found = describe(landscape, scaled, zeros)
    unit = max((abs(p.loss) for p in found), default=0.0) or 1.0  # equal losses differ by a rounding
    return tuple(sorted(found, key=lambda p: (round(p.loss / unit, 12), [round(x, 6) for x in p.point])))


@lru_cache(maxsize=64)
def known_critical_points(landscape: Landscape, seed: int) -> tuple[CriticalPoint, ...]:
    """Return `find_critical_points` from memory, for those who look at one landscape under many maps."""
    return find_critical_points(landscape, seed=seed)


def _starts(scaled: ScaledLoss, sobol: torch.quasirandom.SobolEngine) -> Tensor:
    """Spread over the box, and the extremes of a larger sample for wells and peaks that are narrow."""
    sample = MARGIN * (2 * sobol.draw(SAMPLE, dtype=torch.float64) - 1)
    order = scaled.loss(sample).nan_to_num(nan=0.0).argsort()
    return torch.cat([sample[:SPREAD], sample[order[:EXTREMES]], sample[order[-EXTREMES:]]])


def _merge(scaled: ScaledLoss, zeros: Tensor, ends: Tensor) -> Tensor:
    """Return the zeros with those of the ends that are new: each regular one, separated ones of the degenerate."""
    if len(ends):
        ends = ends[scaled.gradient(ends).norm(dim=1).argsort()]  # so that the most exact one represents a zero
    points = _separated(torch.cat([zeros, ends]), SAME_POINT)
    if not len(points):
        return points
    model = LocalModel(scaled, points)
    critical, degenerate = model.is_critical(), model.is_zero_eigenvalue().any(1)
    flat, regular = points[critical & degenerate], points[critical & ~degenerate]
    regular = regular[(torch.cdist(regular, flat) > DROWNED).all(1)]
    return torch.cat([regular, _separated(flat, SEPARATION)[:MAX_DEGENERATE]])


def _separated(points: Tensor, distance: float) -> Tensor:
    """Return the points that are farther than ``distance`` from every earlier one that is returned."""
    kept = [points[:0]]
    while len(points):
        kept.append(points[:1])
        points = points[(points - points[0]).norm(dim=1) > distance]
    return torch.cat(kept)


def describe(landscape: Landscape, scaled: ScaledLoss, zeros: Tensor) -> list[CriticalPoint]:
    """Return what the Hessian says about zeros ``(n, d)`` of the gradient, in the coordinates of ``scaled``.

    >>> bowl = Landscape("bowl", lambda w: (w**2).sum(), 1, [(-2, 2)])
    >>> describe(bowl, ScaledLoss(bowl), torch.zeros(1, 1, dtype=torch.float64))[0].kind
    'minimum'
    """
    if not len(zeros):
        return []
    points = scaled.point(zeros)
    eigenvalues = torch.linalg.eigvalsh(torch.vmap(landscape.hessian)(points))
    # Scaling the axes changes eigenvalues, but not how many have which sign (Sylvester's law of inertia).
    zero = LocalModel(scaled, zeros).is_zero_eigenvalue()
    return [
        CriticalPoint(
            point=tuple(point),
            loss=loss,
            eigenvalues=tuple(values),
            index=index,
            degenerate=degenerate,
            kind="degenerate" if degenerate else {0: "minimum", len(point): "maximum"}.get(index, "saddle"),
            residual=residual,
        )
        for point, loss, values, index, degenerate, residual in zip(
            points.tolist(),
            torch.vmap(landscape.loss)(points).tolist(),
            eigenvalues.tolist(),
            ((eigenvalues < 0) & ~zero).sum(1).tolist(),
            zero.any(1).tolist(),
            torch.vmap(landscape.gradient)(points).norm(dim=1).tolist(),
            strict=True,
        )
    ]
