"""Basins of attraction of an optimizer's map: which start ends where, on a plane of starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from saddlescope._checks import refuse, require_count
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.landscapes.landscape import Landscape
from saddlescope.stability.attractors import Attractor, text
from saddlescope.stability.basin_statistics import Fraction, basin_entropy, boundary_basin_entropy, label_fractions
from saddlescope.stability.fates import DIVERGED, UNDECIDED, label_fates


@dataclass(frozen=True, eq=False)
class BasinMap:
    """The fates of a square grid of starts; what `map_basins` returns."""

    labels: NDArray[np.int64]
    """Index into ``attractors``, -1 undecided, -2 diverged; shape ``(r, r)``, row = y, column = x."""
    attractors: tuple[Attractor, ...]
    """In the order in which they were found; see `Attractor`, those that are ``unstable`` in particular."""
    steps_to_capture: NDArray[np.int64]
    """Steps until the capture region was seen to be entered, at most an eighth too many; -1 where there is none."""
    x: NDArray[np.float64]
    """Of the columns, shape ``(r,)``: the first coordinate, or that along the first direction of the plane."""
    y: NDArray[np.float64]
    """Of the rows, shape ``(r,)``."""
    origin: NDArray[np.float64]
    """Start at ``(x, y)`` is ``origin + x * directions[0] + y * directions[1]``; shape ``(d,)``."""
    directions: NDArray[np.float64]
    """Shape ``(2, d)``."""
    landscape: Landscape
    update: UpdateMap
    steps: int
    """Budget of each start."""
    seconds: float
    """What the map took, wall clock."""
    trajectory_steps: int
    """Steps of the starts' trajectories that were computed; those of pilots and probes come on top."""

    @property
    def fractions(self) -> dict[int, Fraction]:
        """Share of each label in the box with its 95% confidence interval, see `label_fractions`."""
        return label_fractions(self.labels, len(self.attractors))

    @property
    def undecided(self) -> float:
        """Share of the starts whose fate was not decided within the budget."""
        return float((self.labels == UNDECIDED).mean())

    @property
    def diverged(self) -> float:
        """Share of the starts that left for good."""
        return float((self.labels == DIVERGED).mean())

    @property
    def steps_per_second(self) -> float:
        """Trajectory steps per second of wall clock, the search for attractors included."""
        return self.trajectory_steps / self.seconds

    def names(self) -> dict[int, str]:
        """Return a name for each label: the kind, with the mean point where several attractors are of one kind."""
        kinds = ["unstable " * a.unstable + a.kind for a in self.attractors]
        named = {DIVERGED: "diverged", UNDECIDED: "undecided"}
        for k, (kind, a) in enumerate(zip(kinds, self.attractors, strict=True)):
            named[k] = kind if kinds.count(kind) == 1 else f"{kind} {text(a.point, digits=4)}"
        return named

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the grid, JSON-ready; fractions by the names of the labels."""
        names = self.names()
        return {
            "landscape": self.landscape.name,
            "update": repr(self.update),
            "resolution": len(self.x),
            "fractions": {names[k]: f.value for k, f in self.fractions.items()},
            "intervals": {names[k]: [f.low, f.high] for k, f in self.fractions.items()},
            "attractors": [a.to_dict() for a in self.attractors],
            "basin_entropy": basin_entropy(self.labels),
            "boundary_basin_entropy": boundary_basin_entropy(self.labels),
            "steps": self.steps,
            "seconds": self.seconds,
            "steps_per_second": self.steps_per_second,
        }


def map_basins(
    landscape: Landscape,
    update: UpdateMap,
    *,
    bounds: Sequence[Sequence[float]] | None = None,
    resolution: int = 256,
    steps: int = 4_000_000,
    seed: int = 0,
    origin: ArrayLike | None = None,
    directions: ArrayLike | None = None,
) -> BasinMap:
    """Tell for a grid of starts, at rest, which attractor of a map captures each.

    `label_fates` decides, and says how. In two dimensions the grid covers the box. In ``d`` dimensions it lies in
    the plane ``origin + x * directions[0] + y * directions[1]``.

    Args:
        landscape: the loss.
        update: the optimizer map.
        bounds: ``(low, high)`` of x and of y; default those of the landscape's first two coordinates.
        resolution: starts along each side, ``r``.
        steps: budget of each start; what is not decided by then is labelled undecided.
        seed: of the pilot sample and of the probes.
        origin: a point of the plane, shape ``(d,)``; default zero.
        directions: two independent vectors that span it, shape ``(2, d)``; default the first two axes.

    Raises:
        ValueError: for a landscape with ``d != 2`` and no plane, bounds that are not two pairs ``low < high``,
            directions of the wrong shape or parallel.

    >>> from saddlescope.dynamics.maps import SAMMap
    >>> well = Landscape("well", lambda w: (w[0] ** 2 - 1) ** 2 / 4 + w[1] ** 2 / 2, 2, [(-2, 2), (-2, 2)])
    >>> basins = map_basins(well, SAMMap(lr=0.1, rho=0.3), resolution=16)
    >>> sorted(a.kind for a in basins.attractors), basins.undecided
    (['minimum', 'minimum', 'saddle'], 0.0)
    """
    d = landscape.dimension
    resolution = require_count("resolution", resolution, minimum=2)
    base = np.zeros(d) if origin is None else np.asarray(origin, dtype=float)
    if directions is None and d != 2:
        raise refuse("directions", None, f"two vectors of shape (2, {d})", "give the plane of starts in d dimensions")
    spanned = np.eye(2) if directions is None else np.asarray(directions, dtype=float)
    if base.shape != (d,) or not np.isfinite(base).all():
        raise refuse("origin", origin, f"a point of shape ({d},)")
    if spanned.shape != (2, d) or not np.isfinite(spanned).all() or np.linalg.matrix_rank(spanned) < 2:
        raise refuse("directions", directions, f"two independent vectors, shape (2, {d})")
    # A landscape of two variables checks the bounds of any plane.
    (x0, x1), (y0, y1) = Landscape("plane", landscape.loss, 2, bounds or landscape.bounds[:2]).bounds  # type: ignore[arg-type]
    x, y = np.linspace(x0, x1, resolution), np.linspace(y0, y1, resolution)
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    starts = base + np.stack([grid_x.ravel(), grid_y.ravel()], axis=1) @ spanned
    began = time.perf_counter()
    fates = label_fates(landscape, update, torch.from_numpy(starts), steps=steps, seed=seed)
    shape = resolution, resolution
    return BasinMap(
        labels=fates.labels.reshape(shape),
        attractors=fates.attractors,
        steps_to_capture=fates.steps_to_capture.reshape(shape),
        x=x,
        y=y,
        origin=base,
        directions=spanned,
        landscape=landscape,
        update=update,
        steps=steps,
        seconds=time.perf_counter() - began,
        trajectory_steps=fates.trajectory_steps,
    )
