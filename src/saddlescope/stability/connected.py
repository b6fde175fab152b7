"""Which points of continua of critical points hang together: joined by a path that stays on the continuum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saddlescope.stability.attractors import FAMILY_GAP
from saddlescope.stability.settling import chains
from saddlescope.stability.surroundings import Surroundings, is_critical

HALVINGS, SHORTER = 12, 0.9
"""Most times a path is refined, and how much shorter than their whole both halves have to be."""
SAME_LOSS = 1e-9


def connected(around: Surroundings, starts: Tensor, ends: Tensor) -> Tensor:
    """Return which pairs of degenerate critical points ``(m, d)`` a path of such points joins, shape ``(m,)``.

    Midpoints are brought back to where the gradient vanishes, until neighbours on the path are within `FAMILY_GAP`.
    All have the same loss, as there is no slope along a continuum. A pair for which that fails may still be joined by
    a longer way round.

    >>> from saddlescope.landscapes.landscape import Landscape
    >>> pair = Landscape("hyperbola", lambda w: (w[0] * w[1] - 1) ** 2 / 2, 2, [(-2, 2), (-2, 2)])
    >>> here = torch.tensor([[0.25, 1.0], [0.25, 1.0]], dtype=torch.float64)  # in half-widths
    >>> there = torch.tensor([[1.0, 0.25], [-1.0, -0.25]], dtype=torch.float64)
    >>> connected(Surroundings(pair), here, there).tolist()
    [True, False]
    """
    joined, owner = torch.ones(len(starts), dtype=torch.bool), torch.arange(len(starts))
    for _ in range(HALVINGS):
        length = (starts - ends).norm(dim=1)
        open_ = (length > FAMILY_GAP) & joined[owner]
        if not bool(open_.any()):
            return joined
        starts, ends, owner, length = starts[open_], ends[open_], owner[open_], length[open_]
        middle = around.zeros((starts + ends) / 2)
        halves = torch.maximum((middle - starts).norm(dim=1), (middle - ends).norm(dim=1))
        middle = torch.where((halves <= SHORTER * length)[:, None], middle, starts)  # NaN is not
        model, loss = around.model(middle), around.scaled.loss(torch.stack([starts, middle, ends]).flatten(0, 1))
        start, here, end = loss.reshape(3, -1)
        on = (halves <= SHORTER * length) & is_critical(model) & model.is_zero_eigenvalue().any(1)
        on &= torch.maximum((here - start).abs(), (here - end).abs()) <= SAME_LOSS * (1 + here.abs())
        joined[owner[~on]] = False
        starts, ends, owner = torch.cat([starts, middle]), torch.cat([middle, ends]), torch.cat([owner, owner])
    joined[owner[(starts - ends).norm(dim=1) > FAMILY_GAP]] = False
    return joined


def parts(around: Surroundings, points: Tensor, known: Sequence[Tensor] = ()) -> Tensor:
    """Return the number of the connected part that each degenerate critical point ``(n, d)`` is on, shape ``(n,)``.

    Points within `FAMILY_GAP` hang together. Then each part looks for its closest point of another (Boruvka's way to
    a spanning tree), and the two are one if a path joins them, until no path does.

    Args:
        around: the loss.
        points: in half-widths.
        known: other points, of which those in one tensor are known to hang together; they come first in what is
            returned.
    """
    part = torch.empty(len(points), dtype=torch.long)
    for k, chain in enumerate(chains(points, torch.full((len(points),), FAMILY_GAP, dtype=torch.float64))):
        part[chain] = k + len(known)
    part = torch.cat([*(torch.full((len(group),), k) for k, group in enumerate(known)), part])
    points = torch.cat([*known, points])
    if not len(points):
        return part
    apart, loss = torch.cdist(points, points), around.scaled.loss(points)
    apart[(loss[:, None] - loss).abs() > SAME_LOSS * (1 + loss.abs())] = torch.inf
    while True:
        apart[part[:, None] == part] = torch.inf
        numbers = part.unique().tolist()
        closest = [(rows := (part == k).nonzero()[:, 0])[apart[rows].amin(1).argmin()] for k in numbers]
        a = torch.stack(closest)
        b = apart[a].argmin(1)
        tried = torch.isfinite(apart[a, b])
        a, b = a[tried], b[tried]
        joined = connected(around, points[a], points[b])
        if not bool(joined.any()):
            return part
        apart[a, b] = apart[b, a] = torch.inf
        for i, j in torch.stack([a, b], dim=1)[joined].tolist():
            part[part == part[j]] = part[i].clone()
