"""When trajectories of a map have settled, and which of them have settled on the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saddlescope.dynamics.ensemble import Ensemble
from saddlescope.stability.capture import StateSpace

SAMPLES, UNEVEN = 63, 8
"""Looks at a trajectory in a window of time; the steps between them grow by one, eight times, and again, so that more
than one point is seen of a cycle, or of a set of bands that follow each other, whatever its period."""
STILL = 1e-7
"""A mean that moves less than this between windows has arrived. Half-widths of the box."""
DRIFT = 0.25
"""A mean that moves less than this share of what it is the mean of has arrived too; a pure drift moves by 2."""
HORIZON = 100.0
"""How far from the centre of the box limit sets are looked for."""


def observe(ensemble: Ensemble, space: StateSpace, steps: int) -> tuple[Tensor, Tensor]:
    """Advance by about ``steps`` and return mean ``(n, variables)`` and radius ``(n,)`` of what was passed."""
    stride = max(1, steps // SAMPLES - UNEVEN // 2)
    seen = []
    for k in range(SAMPLES):
        ensemble.advance(stride + k % UNEVEN)
        seen.append(space.scaled(ensemble.states))
    path = torch.stack(seen)
    mean = path.mean(0)
    return mean, (path - mean).norm(dim=2).amax(0)


def settled(ensemble: Ensemble, space: StateSpace, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Watch two windows of ``steps``; return which trajectories stay where they are, with mean and radius.

    A drift moves the mean by as much as the window is long, so slow passages do not pass for rest by being slow; a
    start exactly on the stable manifold of a saddle does, and is refused by the probes around it.
    """
    first, before = observe(ensemble, space, steps)
    second, radius = observe(ensemble, space, steps)
    radius = torch.maximum(before, radius)
    moved = (second - first).norm(dim=1)
    return (moved <= STILL) | (moved <= DRIFT * radius), second, radius


def chains(points: Tensor, reach: Tensor) -> Iterator[Tensor]:
    """Yield the indices of points that hang together: each within reach of another."""
    left = torch.arange(len(points))
    while len(left):
        inside = torch.zeros(len(left), dtype=torch.bool)
        inside[0] = True
        frontier = inside.clone()
        while bool(frontier.any()) and not bool(inside.all()):
            out = (~inside).nonzero()[:, 0]
            near = torch.cdist(points[left[out]], points[left[frontier]]).amin(1) <= reach[left[out]]
            frontier = torch.zeros_like(inside)
            frontier[out[near]] = True
            inside |= frontier
        yield left[inside]
        left = left[~inside]
