"""Continua of fixed points: which attract, which states rest on one or cycle about it, which of these are one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saddlescope.dynamics.maps import GradientMap, SAMMap
from saddlescope.stability.attractors import FAMILY_GAP, Attractor, spread, text, with_family, with_members
from saddlescope.stability.capture import StateSpace, directions
from saddlescope.stability.classify import classify
from saddlescope.stability.connected import SAME_LOSS, connected, parts
from saddlescope.stability.fixed_points import without_critical_point
from saddlescope.stability.multipliers import is_normalized, map_multipliers
from saddlescope.stability.root_search import hessian_norm
from saddlescope.stability.settling import HORIZON, STILL, chains, observe
from saddlescope.stability.surroundings import CLOSE, Surroundings, is_critical

NEUTRAL = 1e-6
"""A multiplier this close to 1 is that of a continuum."""
KICKED, MOST, ALIKE = 8, 64, 2.0
"""States put beside each of so many cycles on a continuum; others there are like them if they are at most twice as
wide."""
WINDOW = 4096


class Continua:
    """Finds what rests on continua of fixed points: of critical ones, of gradient descent and SAM, or of others."""

    def __init__(self, space: StateSpace, surroundings: Surroundings) -> None:
        self.space, self.landscape, self.update = space, space.landscape, space.update
        self.around = surroundings
        self.smooth = isinstance(self.update, GradientMap | SAMMap) and not is_normalized(self.update)

    def holds(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Return which states ``(n, variables)`` rest on critical points that attract, and where on it, ``(n, d)``.

        Such a state is within `CLOSE` of a degenerate critical point whose directions all contract except the flat
        ones, and no neighbour has a lower loss unless negative directions are among those that contract.
        """
        d = self.landscape.dimension
        ends = torch.full((len(scaled), d), torch.nan, dtype=torch.float64)
        on = (scaled[:, d:].abs() <= CLOSE).all(1) & (scaled.abs() <= HORIZON).all(1)
        if not self.smooth or not bool(on.any()):
            return on & False, ends
        here = scaled[on, :d]
        gradient, hessian = (self.around.scaled.gradient(here), self.around.scaled.hessian(here))
        on[on.clone()] = gradient.norm(dim=1) <= CLOSE * hessian_norm(hessian)
        here = scaled[on, :d]
        if not len(here):
            return on, ends
        zeros = self.around.zeros(here)
        good = (zeros - here).norm(dim=1) <= CLOSE
        good[good.clone()] = self._attract(zeros[good])
        on[on.clone()] = good
        ends[on] = zeros[good]
        return on, ends

    def _attract(self, zeros: Tensor) -> Tensor:
        """Whether points ``(n, d)`` are degenerate and critical, and all but flat directions contract."""
        if not len(zeros):
            return torch.zeros(0, dtype=torch.bool)
        model = self.around.model(zeros)
        flat = model.is_zero_eigenvalue().sum(1, keepdim=True)
        values = torch.linalg.eigvalsh(torch.vmap(self.landscape.hessian)(self.around.scaled.point(zeros)))
        by_size = values.gather(1, values.abs().argsort(dim=1))
        curved = torch.arange(values.shape[1]) >= flat
        rho = getattr(self.update, "rho", 0.0)
        push = self.update.lr * by_size * (1 + rho * by_size)  # type: ignore[attr-defined]
        contracts = (push > 0) & (push < 2 * (1 + self.update.momentum))  # type: ignore[attr-defined]
        negative = ((by_size < 0) & curved).any(1)
        held = is_critical(model) & (flat[:, 0] > 0) & (contracts | ~curved).all(1)
        return held & (negative | (self.around.lower_neighbours(zeros) == 0))

    def cycling(self, states: Tensor, means: Tensor, radii: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
        """Return which settled states ``(n, variables)`` cycle about critical points that hold, and where, ``(n, d)``.

        Normalized SAM never rests on a continuum of critical points, but it can keep bouncing about one of them, with
        nothing that brings it back along the continuum. States beside such a cycle, an eighth of its radius away, are
        within one radius of it after ``steps`` steps. A sample is tested; who cycles about points of the same loss,
        and not in wider cycles, is held as well.
        """
        d = self.landscape.dimension
        zeros, unit = self.around.zeros(means[:, :d]), self.space.unit[:d]
        reach = float(getattr(self.update, "rho", 0.0)) + (2 * radii + CLOSE) * unit.max()
        on = (radii > STILL) & (((zeros - means[:, :d]) * unit).norm(dim=1) <= reach)
        if bool(on.any()):
            model = self.around.model(zeros[on])
            on[on.clone()] = is_critical(model) & model.is_zero_eigenvalue().any(1)
        which = on.nonzero()[:, 0]
        if self.smooth or not len(which):
            return on & False, zeros
        some = which[:: -(-len(which) // MOST)]
        kicks = radii[some, None, None] / 8 * directions(1, means.shape[1], 0)[:, :KICKED]
        ensemble = self.space.ensemble((states[some, None] + kicks).flatten(0, 1))
        ensemble.advance(steps)
        late, wide = (x.reshape(len(some), KICKED, -1) for x in observe(ensemble, self.space, WINDOW))
        stay = (late - means[some, None]).norm(dim=2) <= radii[some, None]
        stay &= wide[:, :, 0] <= ALIKE * radii[some, None]
        good, bad = some[stay.all(1)], some[~stay.all(1)]
        loss = self.around.scaled.loss(zeros)
        level = (loss[:, None] - loss[good]).abs() <= SAME_LOSS * (1 + loss[good].abs())
        on &= (level & (radii[:, None] <= ALIKE * radii[good])).any(1)
        on[bad] = False
        return on, zeros

    def add(self, found: Sequence[Attractor], ends: Tensor, radius: float = 0.0) -> list[Attractor]:
        """Return ``found`` extended by the continua of critical points that hold ``(n, d)``, in half-widths.

        Args:
            found: attractors, of which continua may turn out to hold these points too.
            ends: the points.
            radius: of the cycles about them, in the units of ``w``.
        """
        attractors = list(found)
        ends = spread(ends)
        described = self.around.describe(ends)
        kinds = [self.around.kind(p) for p in described]
        for kind in sorted(set(kinds)):
            chosen = torch.tensor([k == kind for k in kinds]).nonzero()[:, 0]
            known = [k for k, a in enumerate(attractors) if a.family and a.kind == kind]
            members = [self._points(attractors[k]) for k in known]
            part = parts(self.around, ends[chosen], members)
            *parts_known, part = part.split([*map(len, members), len(chosen)])
            for number in part.unique().tolist():
                which = chosen[part == number]
                states = self.space.at_rest(self.around.scaled.point(ends[which]))
                same = [k for k, p in zip(known, parts_known, strict=True) if bool((p == number).any())]
                if same:
                    attractors[same[0]] = with_members(attractors[same[0]], states)
                    continue
                critical = described[which[0]]
                attractors.append(
                    Attractor(
                        kind=kind,
                        point=critical.point,
                        radius=radius,
                        loss=critical.loss,
                        capture_radius=0.0,
                        family=True,
                        evidence=f"continuum of degenerate critical points, loss {critical.loss:.6g} at "
                        f"{text(critical.point)}: "
                        + (
                            f"cycles about it, of radius {radius:.3g}, stay where states beside them are put"
                            if radius
                            else "all but its flat directions contract"
                        ),
                        critical_point=critical,
                        stability=classify(critical, self.update),
                        multipliers=None if radius else map_multipliers(self.landscape, self.update, critical.point),
                        members=states,
                    )
                )
        return attractors

    def _points(self, family: Attractor) -> Tensor:
        scaled = self.around.scaled
        return (self.space.points(family.members) - scaled.centre) / scaled.half_width

    def owners(self, attractors: Sequence[Attractor], ends: Tensor) -> Tensor:
        """Return which continuum each of the critical points ``(n, d)`` is on, shape ``(n,)``; -1 for none.

        The one of the closest member that has the same loss; if that is far away, of one that a path leads to.
        """
        owner = torch.full((len(ends),), -1)
        families = [k for k, a in enumerate(attractors) if a.family and a.kind != "spurious"]
        if not families or not len(ends):
            return owner
        loss = self.around.scaled.loss(ends)
        closest = []
        for k in families:
            members = self._points(attractors[k])
            gap, nearest = torch.cdist(ends, members).min(1)
            level = (loss - attractors[k].loss).abs() <= SAME_LOSS * (1 + abs(attractors[k].loss))
            closest.append((gap.where(level, torch.inf), members[nearest]))
        gaps, ranked = torch.stack([gap for gap, _ in closest]).sort(0)
        members = torch.stack([nearest for _, nearest in closest])
        for gap, which in zip(gaps, ranked, strict=True):
            ask = ((owner < 0) & torch.isfinite(gap)).nonzero()[:, 0]
            ask = ask[connected(self.around, ends[ask], members[which[ask], ask])]
            owner[ask] = torch.tensor(families)[which[ask]]
        return owner

    def holds_spurious(self, scaled: Tensor) -> Tensor:
        """Return which states ``(n, variables)``, all at rest, are fixed points of another continuum that attracts.

        The gradient does not vanish there, however small it is: a step is much shorter than gradient descent's. The map
        has a Jacobian, whose eigenvalues are 1 along the continuum and inside the unit circle otherwise.
        """
        d, states = self.landscape.dimension, self.space.states(scaled)
        slope = torch.vmap(torch.func.jacrev(self.space.step))(states)
        move = (torch.vmap(self.space.step)(states) - states)[:, :d].norm(dim=1)
        pull = self.space.update.lr * torch.vmap(self.landscape.gradient)(states[:, :d]).norm(dim=1)  # type: ignore[attr-defined]
        usable = torch.isfinite(slope).flatten(1).all(1) & (move <= CLOSE * pull) & (pull > 0)
        if not bool(usable.any()):
            return usable
        each = torch.linalg.eigvals(slope[usable])
        neutral = (each - 1).abs() <= NEUTRAL
        usable[usable.clone()] = (neutral | (each.abs() < 1 - NEUTRAL)).all(1) & neutral.any(1)
        return usable

    def add_spurious(self, found: Sequence[Attractor], scaled: Tensor) -> list[Attractor]:
        """Return ``found`` extended by the continua that hold these states ``(n, variables)``."""
        attractors = list(found)
        for chain in chains(scaled, torch.full((len(scaled),), FAMILY_GAP, dtype=torch.float64)):
            members = spread(scaled[chain])
            point = self.space.points(members[:1])[0]
            limit = Attractor(
                kind="spurious",
                point=tuple(point.tolist()),
                radius=0.0,
                loss=float(self.landscape.loss(point)),
                capture_radius=0.0,
                family=True,
                evidence=f"{without_critical_point(self.space, point)}; one of a continuum, along which the multiplier "
                "is 1; the others are less",
                critical_point=None,
                stability=None,
                multipliers=map_multipliers(self.landscape, self.update, point),
                members=members,
            )
            attractors = with_family(attractors, limit, FAMILY_GAP)
        return attractors
