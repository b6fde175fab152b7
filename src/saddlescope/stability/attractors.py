"""The limit sets of a map: those that capture what is around them, and those that hold only what lies on a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescope.stability.classify import Stability
from saddlescope.stability.critical_points import CriticalPoint

FAMILY_GAP = 0.1
"""Points of a continuum this close, in half-widths, hang together; farther apart ones may too, when all are."""
MOST_MEMBERS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Attractor:
    """A limit set of a map that captures everything around it, or a connected family of them.

    One that is ``unstable`` does not: it is listed because starts end there that lie exactly on its stable manifold.

    ``repr`` and `to_dict` leave out the sample of states that the capture region is made of.
    """

    kind: str
    """What it rests on: "minimum", "saddle" or "maximum" (a critical point of the loss), "spurious" (a fixed point
    with a nonzero gradient, where SAM sees ``g(w_p) = 0``) or "cycle" (no such point within SAM's radius)."""
    point: tuple[float, ...]
    """Mean over the limit set, shape ``(d,)``; of a family, that of one member."""
    radius: float
    """Largest distance from ``point`` seen on the limit set, in the units of ``w``; 0 for a fixed point."""
    loss: float
    """At ``point``."""
    capture_radius: float
    """Everything this close (half-widths of the box, velocity included) was captured, see `capture.capture_radii`."""
    family: bool
    """Whether it is one of a continuum: its limit sets are counted as one attractor."""
    unstable: bool = False
    """Whether everything beside it leaves, and it holds only starts exactly on its stable manifold, such as a line of
    symmetry that rounding respects: no trap."""
    evidence: str
    """One sentence with the numbers that decided."""
    critical_point: CriticalPoint | None
    """What it rests on, None for "spurious" and "cycle"; of a continuum of critical points, one."""
    stability: Stability | None
    """What `classify` says about that point; None for other maps than gradient descent and SAM."""
    multipliers: NDArray[np.complex128] | None
    """Eigenvalues of the Jacobian of one step at a fixed point, of two steps on a two-cycle that rests on no critical
    point, shape ``(k,)``; None elsewhere."""
    members: Tensor = field(repr=False)
    """States of the limit set that capture, in the units of `StateSpace`, shape ``(m, variables)``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields but ``members`` and ``stability``, JSON-ready."""
        multipliers = None if self.multipliers is None else [[z.real, z.imag] for z in self.multipliers.tolist()]
        return {
            "kind": self.kind,
            "point": list(self.point),
            "radius": self.radius,
            "loss": self.loss,
            "capture_radius": self.capture_radius,
            "family": self.family,
            "unstable": self.unstable,
            "evidence": self.evidence,
            "critical_point": self.critical_point and list(self.critical_point.point),
            "verdict": self.stability and self.stability.verdict,
            "multipliers": multipliers,
        }


def gap(a: Attractor, b: Attractor) -> float:
    """Return the least distance between members of two attractors, in half-widths."""
    return float(torch.cdist(a.members, b.members).amin())


def with_limit(found: Sequence[Attractor], limit: Attractor) -> list[Attractor]:
    """Return ``found`` with one limit set more, unless one of the two lies where the other is known to capture."""
    stable = [k for k, known in enumerate(found) if not known.unstable]
    if stable:
        counts = torch.tensor([len(found[k].members) for k in stable])
        reach = torch.tensor([found[k].capture_radius for k in stable]).double().clamp(min=limit.capture_radius)
        apart = torch.cdist(torch.cat([found[k].members for k in stable]), limit.members).amin(1)
        inside = torch.tensor(stable).repeat_interleave(counts)[apart <= reach.repeat_interleave(counts)]
        if len(inside):
            k = int(inside[0])
            return [*found[:k], replace(found[k], radius=max(found[k].radius, limit.radius)), *found[k + 1 :]]
    return [*found, limit]


def with_family(found: Sequence[Attractor], limit: Attractor, reach: float) -> list[Attractor]:
    """Return ``found`` with one continuum more, joined to the first of its kind within ``reach``."""
    for k, known in enumerate(found):
        if known.family and known.kind == limit.kind and gap(known, limit) <= reach:
            return [*found[:k], with_members(known, limit.members), *found[k + 1 :]]
    return [*found, limit]


def with_members(family: Attractor, states: Tensor) -> Attractor:
    """Return a continuum with more states ``(m, variables)`` of it known."""
    return replace(family, members=spread(torch.cat([family.members, states])))


def spread(points: Tensor) -> Tensor:
    """Return a sample of a continuum ``(m, variables)`` without close pairs."""
    kept = points[:1]
    for point in points[1:]:
        if len(kept) < MOST_MEMBERS and float((kept - point).norm(dim=1).amin()) >= FAMILY_GAP / 4:
            kept = torch.cat([kept, point[None]])
    return kept


def text(point: Sequence[float], *, digits: int = 6) -> str:
    """Return coordinates to six digits, and what rounding leaves of a zero as zero.

    >>> text([0.5, 1 / 3, -2e-190])
    '(0.5, 0.333333, 0)'
    """
    return "(" + ", ".join(f"{round(x, 15) + 0.0:.{digits}g}" for x in point) + ")"
