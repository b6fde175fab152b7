"""Limit sets that rings of probes do not show: basins thinner than the set is wide, and stable manifolds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from saddlescope.stability.capture import AWAY, PROBES, StateSpace, directions

FINER = (8, 32, 128)
"""Radii of the balls along a limit set, as parts of its size."""
SEEN, MOST_BALLS = 1024, 32
"""States of a limit set that are looked at, and those that become the middle of a ball."""
KICK, KICKED = 1e-12, 8
"""How far in half-widths, and how many states, are put beside one that may lie on a stable manifold."""
SURE = 64
"""It has to stay this many times as long as they do: the smallest number above zero would have grown by then."""


def balls_along(
    space: StateSpace, states: Tensor, size: float, *, patience: int, elsewhere: Callable[[Tensor], Tensor]
) -> tuple[Tensor, float] | None:
    """Return balls along a limit set that capture, for one whose basin is too thin for rings around its middle.

    Chaotic bands and cycles may attract only what is much closer to them than they are wide. So probes are put beside
    states on the set itself, at a distance of an eighth of its size, then less. They must all come back to half that
    distance from some state on it, twice: neither do those beside a saddle, nor those on a slow drift.

    Args:
        space: states and their units.
        states: on the limit set, shape ``(n, variables)``.
        size: its radius in half-widths.
        patience: steps to wait for a probe at first, then four times the step at which the last came back.
        elsewhere: as for `capture_radii`.

    Returns:
        Middles ``(m, variables)`` and radius of the balls in half-widths; None if none capture.
    """
    ensemble, seen = space.ensemble(states), []
    for _ in range(max(16, SEEN // len(states))):
        ensemble.advance(1)
        seen.append(space.scaled(ensemble.states))
    path = torch.cat(seen)
    for part in FINER:
        reach, left, cloud = size / part, path[:SEEN], path[:0]
        while len(left):
            cloud = torch.cat([cloud, left[:1]])
            left = left[(left - left[0]).norm(dim=1) > reach / 4]
        middles = cloud[:: math.ceil(len(cloud) / MOST_BALLS)]
        beside = middles[:, None] + reach * directions(1, path.shape[1], 0)[0, :: PROBES // KICKED]
        if _come_back(space, beside.flatten(0, 1), cloud, reach / 2, patience, elsewhere):
            return middles, reach
    return None


def _come_back(
    space: StateSpace,
    probes: Tensor,
    cloud: Tensor,
    reach: float,
    patience: int,
    elsewhere: Callable[[Tensor], Tensor],
) -> bool:
    ensemble, last, left_at = space.ensemble(probes), patience / 4, math.inf
    back = torch.zeros(len(probes), dtype=torch.int8)
    while len(ensemble.replicas) and ensemble.steps < min(4 * last, AWAY * max(left_at, patience)):
        ensemble.advance(max(16, ensemble.steps // 4))
        scaled = space.scaled(ensemble.states)
        apart = torch.cdist(scaled, cloud).amin(1)
        near = apart <= reach
        if bool((elsewhere(scaled) & ~near).any()):
            return False
        back[ensemble.replicas] += near.to(torch.int8)
        last = max(last, ensemble.steps) if bool(near.any()) else last
        open_ = back[ensemble.replicas] < 2
        fled = bool((open_ & ~(apart <= 4 * reach)).any())
        left_at = min(left_at, ensemble.steps) if fled else math.inf
        ensemble.keep(open_)
    return not len(ensemble.replicas)


def exactly_on_stable_manifold(
    space: StateSpace, states: Tensor, middles: Tensor, sizes: Tensor, *, steps: int
) -> tuple[Tensor, int]:
    """Return which states stay within a limit set that all beside them leave, and by when those had left.

    Such a state lies exactly on the stable manifold of the set: on a line of symmetry, say, which rounding respects.
    It has to stay 64 times as long as states 1e-12 half-widths beside it: an offset as small as 1e-320 would have
    grown to full size by then, so that a slow passage does not count.

    Args:
        space: states and their units.
        states: as in an ensemble, exact, shape ``(variables, n)``.
        middles: of what they rest on, shape ``(n, variables)``.
        sizes: who is farther from there has left, shape ``(n,)``.
        steps: most steps to follow the states.
    """
    count, variables = middles.shape
    generator = torch.Generator().manual_seed(0)
    kicks = KICK * torch.randn(variables, count, KICKED, dtype=torch.float64, generator=generator)
    beside = states[:, :, None] + space.unit[:, None, None] * kicks
    ensemble = space.continued(torch.cat([states, beside.flatten(1)], dim=1))
    owner = torch.cat([torch.arange(count), torch.arange(count).repeat_interleave(KICKED)])
    gone = torch.zeros(len(owner), dtype=torch.bool)
    left, enough = torch.zeros(count, dtype=torch.bool), torch.full((count,), steps + 1)
    while ensemble.steps < steps and len(ensemble.replicas):
        ensemble.advance(min(max(16, ensemble.steps // 4), steps - ensemble.steps))
        which = owner[ensemble.replicas]
        apart = (space.scaled(ensemble.states) - middles[which]).norm(dim=1)
        gone[ensemble.replicas] = ~(apart <= sizes[which])
        just = gone[count:].reshape(count, KICKED).all(1) & ~left
        enough[just] = SURE * ensemble.steps
        left |= just
        over = gone[:count] | (ensemble.steps >= enough) | ((SURE * ensemble.steps > steps) & ~left)
        ensemble.keep(~gone[ensemble.replicas] & ~over[which])
    held = left & ~gone[:count] & (enough <= ensemble.steps)
    return held, int(enough[held].amax()) // SURE if bool(held.any()) else 0
