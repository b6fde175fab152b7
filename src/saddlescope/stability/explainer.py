"""What settled trajectories rest on, and whether that attracts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescope.dynamics.maps import GradientMap, SAMMap
from saddlescope.stability.attractors import Attractor, gap, text, with_limit
from saddlescope.stability.capture import PROBES, StateSpace, capture_radii
from saddlescope.stability.classify import Stability, classify
from saddlescope.stability.critical_points import CriticalPoint, known_critical_points
from saddlescope.stability.fixed_points import attracting_two_cycle, fixed_points, without_critical_point
from saddlescope.stability.multipliers import is_normalized, map_multipliers
from saddlescope.stability.settling import SAMPLES, STILL, chains, observe
from saddlescope.stability.surroundings import CLOSE, Surroundings, is_critical
from saddlescope.stability.thin_basins import KICK, balls_along, exactly_on_stable_manifold

SMALLEST_CORE = 1e-5
SAME = 1e-5
"""Zeros of the gradient closer than this are one."""
BESIDE = 1e-4
"""Limit sets this close, and twice their radius, are taken for one."""
WINDOW = 4096
PATIENCE = 512
"""Least number of steps to wait for the first of the probes beside a limit set."""
FEWEST, PROBE_STEPS = 64, 1_000_000_000
"""Limit sets probed at a time: at least so many, and as many more as take this many steps of probes."""
WIDER = 2.0
"""What counts as one limit set when several cycles lie about one critical point, in cores of one of them."""
ONE_SIDED = 0.4
"""Share of the probes that must come back to a degenerate critical point that others only stay beside."""


@dataclass(frozen=True)
class _Candidate:
    """A limit set that may attract."""

    critical: CriticalPoint | None
    stability: Stability | None
    member: Tensor
    """Mean state in the units of `StateSpace`, shape ``(variables,)``."""
    size: float
    """Largest distance from it, in half-widths."""
    point: Tensor
    fixed: bool
    multipliers: NDArray[np.complex128] | None
    states: Tensor
    """On it, or on trajectories that are close to it, shape ``(m, variables)``."""

    @property
    def flat(self) -> bool:
        return self.critical is not None and self.critical.degenerate

    @property
    def core(self) -> float:
        return max(1.25 * self.size, SMALLEST_CORE)


class Explainer:
    """Says what limit sets rest on, and which of them attract."""

    def __init__(self, space: StateSpace, surroundings: Surroundings, *, seed: int) -> None:
        self.space, self.landscape, self.update = space, space.landscape, space.update
        self.around, self.seed = surroundings, seed
        self.judged = isinstance(self.update, GradientMap | SAMMap)
        self.smooth = self.judged and not is_normalized(self.update)
        self.reach = float(getattr(self.update, "rho", 0.0)) if not self.smooth else 0.0
        self.refused = torch.empty(0, space.unit.numel(), dtype=torch.float64)

    def held(self) -> Tensor:
        """Return the isolated critical points in the box that `classify` calls attractors or traps, ``(m, d)``."""
        known = known_critical_points(self.landscape, self.seed) if self.judged else ()
        regular = [p for p in known if not p.degenerate]
        held = [p.point for p in regular if classify(p, self.update).verdict in ("attractor", "trap")]
        return torch.tensor(held, dtype=torch.float64).reshape(-1, self.landscape.dimension)

    def discover(
        self,
        found: Sequence[Attractor],
        states: Tensor,
        means: Tensor,
        radii: Tensor,
        *,
        steps: int,
        elsewhere: Callable[[Tensor], Tensor],
    ) -> list[Attractor]:
        """Return ``found`` extended by what trajectories rest on: ``states`` and ``means`` ``(n, variables)``.

        What ``elsewhere`` says of states is as for `capture_radii`. The largest groups are tried, with probes that are
        followed for ``steps``; who is refused may come again, but after the others. About a saddle or repeller a limit
        set may attract that is larger than the point.
        """
        tried, again = [], (torch.cdist(means, self.refused) <= BESIDE).any(1)
        for critical, group in sorted(
            self._groups(means, radii), key=lambda pair: (bool(again[pair[1]].any()), -len(pair[1]))
        ):
            stability = classify(critical, self.update) if critical and self.judged else None
            leaves = stability is not None and stability.verdict in ("saddle", "repeller")
            if not leaves or float(radii[group].amin()) > STILL:
                tried.append((critical, stability, states[group[:: max(1, len(group) // SAMPLES)]]))
        candidates = list(self._candidates(tried, most=max(FEWEST, PROBE_STEPS // (PROBES * steps))))
        attractors = list(found)
        if candidates:
            members = torch.stack([c.member for c in candidates])
            cores = torch.tensor([c.core for c in candidates], dtype=torch.float64)
            captures, shares = capture_radii(
                self.space, members, cores, steps=steps, seed=self.seed, elsewhere=elsewhere
            )
            # Beside a cycle there may be others about the same critical point: they count as one. For points of a
            # continuum see `Continua.cycling`.
            split = torch.tensor([c.critical is not None and not c.flat and c.size > STILL for c in candidates])
            split &= (captures == 0) & (shares >= ONE_SIDED)
            if bool(split.any()):
                wide = WIDER * cores[split]
                captures[split], _ = capture_radii(self.space, members[split], wide, steps=steps, seed=self.seed)
            for candidate, capture, share in zip(candidates, captures.tolist(), shares.tolist(), strict=True):
                balls = None
                if not capture and candidate.multipliers is None and candidate.size > STILL and not candidate.flat:
                    patience = max(PATIENCE, steps // PROBES)
                    balls = balls_along(
                        self.space, candidate.states, candidate.size, patience=patience, elsewhere=elsewhere
                    )
                limit = self._judge(candidate, capture, share, balls)
                if limit is None:
                    self.refused = torch.cat([self.refused, candidate.member[None]])
                else:
                    attractors = with_limit(attractors, limit)
        return attractors

    def hold(
        self, found: Sequence[Attractor], states: Tensor, means: Tensor, radii: Tensor, *, steps: int
    ) -> tuple[list[Attractor], Tensor]:
        """Return ``found`` extended by unstable limit sets, and which of them holds a state, -1 for none, ``(n,)``.

        ``states`` ``(variables, n)`` are those of an ensemble, to the last bit; ``means`` as for `discover`.
        """
        attractors, labels = list(found), torch.full((len(means),), -1)
        within = 2 * (1.25 * radii).clamp(min=SMALLEST_CORE)
        on, left = exactly_on_stable_manifold(self.space, states, means, within, steps=steps)
        which = on.nonzero()[:, 0]
        for critical, group in self._groups(means[which], radii[which]) if len(which) else ():
            middle, size = means[which[group[0]]], float(radii[which[group]].amax())
            # What `classify` says of a critical point is not what it would say of a larger set beside it.
            stability = classify(critical, self.update) if critical and self.judged and size <= STILL else None
            point = self.space.points(middle[None])[0]
            candidate = _Candidate(critical, stability, middle, size, point, size <= STILL, None, middle[None])
            reach = (
                f"unstable: all states {KICK:g} half-widths beside it left within {left} steps, and it holds only what "
                "lies exactly on its stable manifold"
            )
            limit = self._attractor(candidate, 0.0, reach, unstable=True)
            known = [k for k, a in enumerate(attractors) if a.unstable and gap(a, limit) <= BESIDE + 2 * size]
            labels[which[group]] = known[0] if known else len(attractors)
            attractors += [] if known else [limit]
        return attractors, labels

    def beside(self, found: Sequence[Attractor], means: Tensor, radii: Tensor) -> Tensor:
        """Return which limit sets are one of the unstable ones that are known, shape ``(n,)``."""
        known = [a.members for a in found if a.unstable]
        if not known:
            return torch.zeros(len(means), dtype=torch.bool)
        return torch.cdist(means, torch.cat(known)).amin(1) <= BESIDE + 2 * radii

    def _groups(self, means: Tensor, radii: Tensor) -> Iterator[tuple[CriticalPoint | None, Tensor]]:
        """Yield the critical point, if any, and the indices of limit sets that rest on the same."""
        d = self.landscape.dimension
        starts, unit = means[:, :d], self.space.unit[:d]
        zeros = self.around.zeros(starts)
        reach = torch.where(radii > STILL, self.reach, 0.0)  # a fixed point is not what SAM sees from there
        near = ((zeros - starts) * unit).norm(dim=1) <= reach + (2 * radii + CLOSE) * unit.max()
        if bool(near.any()):
            near[near.clone()] = is_critical(self.around.model(zeros[near]))
        where = near.nonzero()[:, 0]
        described = self.around.describe(zeros[where])
        regular = torch.tensor([not p.degenerate for p in described], dtype=torch.bool)
        same = torch.full((len(where),), SAME, dtype=torch.float64)
        for chain in chains(zeros[where[regular]], same[regular]):
            group = where[regular][chain]
            critical = described[int(regular.nonzero()[chain[0], 0])]
            for part in chains(means[group], BESIDE + 2 * radii[group]):
                yield critical, group[part]
        # Means on a continuum, or with nothing below them, are told apart by where they are.
        free = (~near).nonzero()[:, 0]
        loose = free if self.smooth else torch.cat([where[~regular], free])  # else `Continua` decides
        flat = dict(zip(where.tolist(), described, strict=True))
        for chain in chains(means[loose], BESIDE + 2 * radii[loose]):
            yield flat.get(int(loose[chain[0]])), loose[chain]

    def _candidates(
        self, tried: Sequence[tuple[CriticalPoint | None, Stability | None, Tensor]], *, most: int
    ) -> Iterator[_Candidate]:
        """Yield the limit sets of groups of states ``(m, variables)``: fixed points that attract, ``most`` others."""
        if not tried:
            return
        counts = [len(states) for _, _, states in tried]
        ensemble = self.space.ensemble(torch.cat([states for _, _, states in tried]))
        ensemble.advance(WINDOW)  # for some may have been on their way
        mean, radius = observe(ensemble, self.space, WINDOW)
        ends = ensemble.states.T.split(counts)
        means, radii = mean.split(counts), radius.split(counts)
        members = torch.stack([each.mean(0) for each in means])
        points = self.space.points(members)
        # At a critical point normalized SAM jumps; at its other fixed points it has a Jacobian.
        sought = torch.tensor([self.smooth or (self.judged and critical is None) for critical, _, _ in tried])
        roots = torch.full_like(points, torch.nan)
        if bool(sought.any()):
            roots[sought] = fixed_points(self.space, points[sought])
        for k, (critical, stability, _) in enumerate(tried):
            member, point, root = members[k], points[k], roots[k]
            size = float((radii[k] + (means[k] - member).norm(dim=1)).amax())  # they may be on different cycles
            multipliers, fixed = None, False
            if bool(torch.isfinite(root).all()) and not (critical and critical.degenerate):
                multipliers = map_multipliers(self.landscape, self.update, root)
                fixed = bool(np.abs(multipliers).max() < 1 - 1e-14)
                if not fixed and size <= STILL:
                    continue
            if fixed:
                size, point, member = 0.0, root, self.space.at_rest(root[None])[0]
            elif not most:
                continue
            elif critical is None or self.smooth:
                multipliers = None
                cycle = attracting_two_cycle(self.space, ends[k][0])
                if cycle:
                    multipliers, two = (np.asarray(cycle[0].numpy()), self.space.scaled(cycle[1].T))
                    member = two.mean(0)
                    size, point = (float((two[0] - member).norm()), self.space.points(member[None])[0])
            most -= not fixed
            states = self.space.scaled(ends[k].T)
            yield _Candidate(critical, stability, member, size, point, fixed, multipliers, states)

    def _judge(
        self, limit: _Candidate, capture: float, share: float, balls: tuple[Tensor, float] | None
    ) -> Attractor | None:
        """Return the attractor, if the probes say so."""
        critical, multipliers, size = limit.critical, limit.multipliers, limit.size
        reach = f"every probe within {capture:.3g} half-widths of the box came back"
        if balls:
            capture = balls[1]
            reach = f"every probe {capture:.3g} half-widths beside a state on it came back, to half of that"
        elif not capture:
            # Proven to attract, too slowly for probes to come back; or at rest on a degenerate point, and what is
            # pushed away to the other sides stays where it was put.
            degenerate = critical is not None and critical.degenerate and size <= STILL and share >= ONE_SIDED
            if multipliers is None and not degenerate:
                return None
            capture = limit.core
            reach = (
                f"what comes within {capture:.3g} half-widths of it is captured; {share:.0%} of the probes came back"
            )
        return self._attractor(limit, capture, reach, members=balls[0] if balls else None)

    def _attractor(
        self,
        limit: _Candidate,
        capture: float,
        reach: str,
        *,
        members: Tensor | None = None,
        unstable: bool = False,
    ) -> Attractor:
        critical, stability, multipliers = limit.critical, limit.stability, limit.multipliers
        radius = limit.size * float(self.space.unit[: len(limit.point)].max())
        kind, evidence = self._kind(limit.point, radius, critical, limit.fixed)
        if stability:
            evidence += f"; {stability.verdict}: {stability.reason}"
        elif multipliers is not None:
            period = "" if limit.fixed else " of the two-cycle, over two steps"
            evidence += f"; multipliers up to {np.abs(multipliers).max():.9g} in modulus{period}"
        return Attractor(
            kind=kind,
            point=tuple(limit.point.tolist()),
            radius=radius,
            loss=float(self.landscape.loss(limit.point)),
            capture_radius=capture,
            family=False,
            unstable=unstable,
            evidence=f"{evidence}; {reach}",
            critical_point=critical,
            stability=stability,
            multipliers=multipliers,
            members=limit.member[None] if members is None else members,
        )

    def _kind(self, point: Tensor, radius: float, critical: CriticalPoint | None, fixed: bool) -> tuple[str, str]:
        if critical:
            apart = float((torch.tensor(critical.point, dtype=torch.float64) - point).norm())
            said = f"{critical.kind} of the loss at {text(critical.point)}, {apart:.3g} from the mean"
            return self.around.kind(critical), said
        if (fixed or radius < 1e-6) and isinstance(self.update, SAMMap):
            return "spurious", without_critical_point(self.space, point)
        reach = f"{self.reach + 2 * radius:.3g}"
        return ("cycle", f"limit set of radius {radius:.3g} with no critical point within {reach} of its mean")
