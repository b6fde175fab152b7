"""Trajectories on Beale's function from (1, 2), the runs behind three of the paper's figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from saddlescope import landscapes
from saddlescope.dynamics.maps import GradientMap, SAMMap, UpdateMap
from saddlescope.dynamics.trajectories import simulate
from saddlescope.stability.multipliers import critical_rho

START = (1.0, 2.0)
SADDLE = np.array([0.0, 1.0])
MINIMUM = np.array([3.0, 0.5])
CRITICAL_RHO = critical_rho((-27.75, 27.75)) or math.inf
"""T1's threshold at (0, 1), where the eigenvalues are -27.75 and 27.75."""
RADII = (0.0, 0.1, 0.5, 1.0)
STEP_SIZES = {"text": 1e-4, "code": 1e-3 / 80}
"""The paper's text says 1e-4; the official code divides its 1e-3 by 80."""
CAPTURED = 0.05
"""A trajectory that ends this near the saddle counts as captured; the next critical point is 3 away."""
ARRIVED = 0.01

Path = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trajectory from (1, 2): an early part with every step, and where it ends."""

    lr: float
    rho: float
    early: Path
    """Every point up to time ``lr * steps`` = 1, shape (steps + 1, 2)."""
    final: Path
    """The point at time 40, shape (2,)."""

    @property
    def nearest_approach(self) -> float:
        """The smallest distance to the saddle."""
        return float(self.distances.min())

    @property
    def arrival(self) -> int | None:
        """The first step within 0.01 of the saddle, None if there is none."""
        steps = np.flatnonzero(self.distances < ARRIVED)
        return int(steps[0]) if steps.size else None

    @property
    def distances(self) -> Path:
        """Distances of the early points to the saddle, shape (steps + 1,)."""
        return np.linalg.norm(self.early - SADDLE, axis=1)

    @property
    def end(self) -> str:
        """Where it ends: "saddle", "minimum" (within 0.1, as SAM drifts off it by up to 0.06) or "elsewhere"."""
        if np.linalg.norm(self.final - SADDLE) < CAPTURED:
            return "saddle"
        return "minimum" if np.linalg.norm(self.final - MINIMUM) < 0.1 else "elsewhere"


def optimizer(lr: float, rho: float) -> UpdateMap:
    """Return gradient descent for ``rho`` = 0, else normalized SAM, as the official code runs it."""
    return SAMMap(lr=lr, rho=rho) if rho else GradientMap(lr=lr)


def follow(
    update: UpdateMap, start: Path | tuple[float, float], steps: int, *, record_every: int | None = None
) -> Path:
    """Return the final point (2,), or with ``record_every`` the recorded points (records, 2), the start first."""
    starts = torch.tensor(np.asarray(start), dtype=torch.float64)[None]
    result = simulate(landscapes.get("beale"), update, starts, steps, record_every=record_every)
    points = result.final if record_every is None else result.points
    assert points is not None
    return points[0].numpy()


def run(lr: float, rho: float) -> Run:
    """Follow one trajectory from (1, 2)."""
    update = optimizer(lr, rho)
    early = follow(update, START, round(1 / lr), record_every=1)
    return Run(lr=lr, rho=rho, early=early, final=follow(update, early[-1], round(39 / lr)))


def on_the_trap(lr: float, rho: float, steps: int) -> Path:
    """Return ``steps`` + 1 consecutive points after time 1, shape (steps + 1, 2)."""
    update = optimizer(lr, rho)
    settled = follow(update, START, round(1 / lr))
    return follow(update, settled, steps, record_every=1)


def level_grid(x_range: tuple[float, float], y_range: tuple[float, float]) -> tuple[Path, Path, Path]:
    """Return x (160,), y (120,) and the loss on their grid (120, 160), for a contour plot."""
    x, y = np.linspace(*x_range, 160), np.linspace(*y_range, 120)
    grid = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1))
    loss = torch.func.vmap(landscapes.get("beale").loss)(grid.reshape(-1, 2))
    return x, y, loss.reshape(len(y), len(x)).numpy()
