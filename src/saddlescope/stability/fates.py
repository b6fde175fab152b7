"""Where trajectories end: an attractor, nowhere (diverged), or not decided within the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescope._checks import require_count
from saddlescope.dynamics.ensemble import Ensemble, progress
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.trajectories import DIVERGENCE_LIMIT
from saddlescope.landscapes.landscape import Landscape
from saddlescope.stability.attractors import Attractor
from saddlescope.stability.capture import StateSpace
from saddlescope.stability.continua import Continua
from saddlescope.stability.explainer import Explainer
from saddlescope.stability.settling import HORIZON, STILL, settled
from saddlescope.stability.surroundings import Surroundings

UNDECIDED, DIVERGED = -1, -2
PILOTS = 512
GROWTH = 0.125
"""Capture is looked for each time the number of steps has grown by this share."""
ALONE_AFTER = 16_384
"""Steps after which starts that have come together are followed by representatives."""
CELL = 1 / 1024
"""Size of a cell of states that are followed together, in half-widths."""
FEW = 8
PILOT_STEPS = 131_072
INNER, QUARTERS, ROUNDS = 256, 4, 48
LONGEST_JUMP, BEND = 0.05, 0.2
RESOLVED = 1e-9
"""A drift below this is not told from rounding."""
GROWN = 1.0
"""A drift is extrapolated only while what is unstable beside it would have grown since the start by less than the
exponential of this. Beside a saddle that is passed slowly the smallest of components decides where a start goes."""


@dataclass(frozen=True, eq=False)
class Fates:
    """What became of ``n`` starts."""

    labels: NDArray[np.int64]
    """Index into ``attractors``, -1 undecided, -2 diverged; shape ``(n,)``."""
    attractors: tuple[Attractor, ...]
    """In the order in which they were found; one may have captured no start. The ``unstable`` among them hold only
    starts exactly on their stable manifold."""
    steps_to_capture: NDArray[np.int64]
    """Step at which the capture region was seen to be entered, at most an eighth too late; -1 where there is none,
    shape ``(n,)``."""
    steps: int
    """Budget of each start."""
    trajectory_steps: int
    """Steps of trajectories that were computed for all this, probes and pilots not counted."""


def label_fates(
    landscape: Landscape, update: UpdateMap, starts: Any, *, steps: int = 4_000_000, seed: int = 0
) -> Fates:
    """Tell where each of any set of starts, at rest, ends under a map.

    1. *Attractors.* A sample of the starts, and starts beside every critical point that `classify` says holds, are
       followed until their mean stands still (a drift, however slow, is told from rest by comparing two windows of
       time). What they rest on becomes an attractor if `classify` does not call it a saddle or repeller, if the
       multipliers of a fixed point are inside the unit circle, and if rings of probes around it come back
       (`capture_radii`). Too slow for probes, a two-cycle is accepted on its multipliers, and it then captures
       only what has reached its own size. So a slow passage near a saddle is never an attractor.
    2. *Capture.* Every start is followed until it is within the capture radius of an attractor, or overflows.
    3. *What creeps.* Starts that are left after 16,384 steps and have come together, to 1/1024 of the half-width, are
       followed by the outermost of each cell, which speak for the others if they agree; if not, every one is
       followed. Where a drift is straight and steady over four windows of time it is extrapolated (projective
       integration, Gear and Kevrekidis 2003, SIAM J. Sci. Comput. 24:1091), by at most the time in which it changes
       by a fifth, and not where what is unstable beside it has had the time to grow: there the smallest of components
       decides. On a slow curve that changes when a start arrives, not where. Steps are counted as if taken. What
       settles on the way may become a new attractor.
    4. *What never leaves a saddle.* A start exactly on the stable manifold of a limit set, on a line of symmetry say,
       stays there, rounding included. It gets an entry marked ``unstable`` once it has stayed 64 times as long as
       states 1e-12 half-widths beside it, see `exactly_on_stable_manifold`.

    Labels: an index into the attractors; -2 for starts that overflow or creep beyond 100 half-widths of the box; -1
    for those on which the budget ends first. A start exactly on the stable manifold of a degenerate saddle is one of
    these: nothing beside it leaves in time. One that crosses a capture region exactly on a line of symmetry, or begins
    there on a repelling fixed point, has the label of all that is beside it.

    Args:
        landscape: the loss.
        update: the optimizer map.
        starts: points, shape ``(n, d)``.
        steps: budget of each start in steps that are computed.
        seed: of the sample and of the probes.

    Raises:
        ValueError: for starts of another shape or not finite, or ``steps < 1``.

    >>> from saddlescope.dynamics.maps import GradientMap
    >>> well = Landscape("well", lambda w: (w[0] ** 2 - 1) ** 2 / 4, 1, [(-2, 2)])
    >>> fates = label_fates(well, GradientMap(lr=0.1), [[0.5], [1.5], [-0.1], [0.0]])
    >>> [round(fates.attractors[k].point[0], 6) for k in fates.labels]
    [1.0, 1.0, -1.0, 0.0]
    >>> [a.unstable for a in fates.attractors]
    [False, False, True]
    """
    steps = require_count("steps", steps, minimum=1)
    seed = require_count("seed", seed)
    points = Ensemble(landscape, update, starts).points
    space = StateSpace(landscape, update)
    return _Follower(space, points, steps, seed).run()


class _Follower:
    def __init__(self, space: StateSpace, starts: Tensor, steps: int, seed: int) -> None:
        self.space, self.starts, self.steps, self.seed = space, starts, steps, seed
        surroundings = Surroundings(space.landscape)
        self.continua, self.explainer = (Continua(space, surroundings), Explainer(space, surroundings, seed=seed))
        self.attractors: list[Attractor] = []
        self.members = torch.empty(0, space.unit.numel(), dtype=torch.float64)
        self.owner, self.reach = (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.float64))
        self.work = 0

    def run(self) -> Fates:
        count = len(self.starts)
        labels, captured_at = torch.full((count,), UNDECIDED), torch.full((count,), -1)
        self._pilot()
        ensemble = Ensemble(self.space.landscape, self.space.update, self.starts)
        end, doubled = min(self.steps, ALONE_AFTER), 1024
        with progress("mapping basins", count) as report:
            while len(ensemble.replicas):
                scaled = self.space.scaled(ensemble.states)
                fate = self.fate(scaled)
                if ensemble.steps >= doubled:
                    fate, doubled = self.fate_on_continua(scaled, fate), 2 * doubled
                labels[ensemble.replicas] = fate
                captured_at[ensemble.replicas[fate >= 0]] = ensemble.steps
                ensemble.keep(fate == UNDECIDED)
                report(int((fate != UNDECIDED).sum()))
                if ensemble.steps >= end:
                    break
                more = min(max(16, int(GROWTH * ensemble.steps)), end - ensemble.steps)
                self.work += more * len(ensemble.replicas)
                ensemble.advance(more)
            if len(ensemble.replicas) and ensemble.steps < self.steps:
                fate, at = self._late(ensemble.states, ensemble.steps)
                labels[ensemble.replicas] = fate
                captured_at[ensemble.replicas] = torch.where(fate >= 0, at.long(), -1)
        return Fates(labels.numpy(), tuple(self.attractors), captured_at.numpy(), self.steps, self.work)

    def fate(self, scaled: Tensor) -> Tensor:
        """Return the label of states ``(n, variables)``: captured, diverged, or not decided yet."""
        fate = torch.full((len(scaled),), UNDECIDED)
        columns = scaled.unbind(1)  # each is contiguous: the states of an ensemble lie so
        if len(self.members) <= FEW:
            for member, owner, reach in zip(self.members, self.owner, self.reach, strict=True):
                apart = sum((x - y).square_() for x, y in zip(columns, member, strict=True))
                fate.masked_fill_(apart <= reach**2, int(owner))
        else:
            rows = max(1, 4_000_000 // len(self.members))
            for k in range(0, len(scaled), rows):
                part = scaled[k : k + rows]
                apart = torch.cdist(part, self.members, compute_mode="donot_use_mm_for_euclid_dist")
                least, which = (apart / self.reach).min(1)
                fate[k : k + rows][least <= 1] = self.owner[which[least <= 1]]
        for x in columns:
            fate.masked_fill_(~(x.abs() <= DIVERGENCE_LIMIT), DIVERGED)
        return fate

    def fate_on_continua(self, scaled: Tensor, fate: Tensor, *, new: bool = False) -> Tensor:
        """Return ``fate`` with the label of a continuum where a state rests on one; ``new`` ones may be added."""
        open_ = (fate == UNDECIDED).nonzero()[:, 0]
        if not len(open_) or not (new or any(a.family for a in self.attractors)):
            return fate
        on, ends = self.continua.holds(scaled[open_])
        if not bool(on.any()):
            return fate
        if new:
            self._refresh(self.continua.add(self.attractors, ends[on]))
        fate = fate.clone()
        fate[open_[on]] = self.continua.owners(self.attractors, ends[on])
        return fate

    def _refresh(self, attractors: list[Attractor]) -> None:
        self.attractors = attractors
        held = [(k, a) for k, a in enumerate(attractors) if not (a.family or a.unstable)]
        if held:
            self.members = torch.cat([a.members for _, a in held])
            self.owner = torch.cat([torch.full((len(a.members),), k) for k, a in held])
            self.reach = torch.cat([torch.full((len(a.members),), a.capture_radius) for _, a in held]).double()

    def _pilot(self) -> None:
        """Find the attractors that a sample of the starts, and starts beside critical points that hold, settle on."""
        generator = torch.Generator().manual_seed(self.seed)
        some = self.starts[torch.randperm(len(self.starts), generator=generator)[:PILOTS]]
        beside = self.explainer.held()
        if len(beside) > PILOTS:
            beside = beside[torch.cdist(beside, some[:, : beside.shape[1]]).amin(1).argsort()[:PILOTS]]
        kick = torch.randn(beside.shape, dtype=torch.float64, generator=generator)
        some = torch.cat([some, beside + 1e-4 * self.space.unit[: beside.shape[1]] * kick])
        ensemble = Ensemble(self.space.landscape, self.space.update, some)
        ensemble.advance(1024)
        while len(ensemble.replicas):
            fate = self._settle(ensemble)
            ensemble.keep(fate == UNDECIDED)
            ensemble.keep(_representatives(self.space.scaled(ensemble.states))[0])
            if ensemble.steps >= min(self.steps, PILOT_STEPS):
                break
            ensemble.advance(ensemble.steps)

    def _settle(self, ensemble: Ensemble, taken: int = 0) -> Tensor:
        """Add what trajectories have settled on to the attractors, and return their fates."""
        rest, mean, radius = settled(ensemble, self.space, max(256, ensemble.steps // 8))
        rest &= (self.fate(mean) == UNDECIDED) & (mean.abs() <= HORIZON).all(1)
        scaled = self.space.scaled(ensemble.states)
        fate = self.fate_on_continua(scaled, self.fate(scaled), new=True)
        rest &= fate == UNDECIDED
        still = rest & (radius <= STILL)
        if bool(still.any()):
            which = still.nonzero()[:, 0]
            which = which[self.continua.holds_spurious(scaled[which])]
            if len(which):
                self._refresh(self.continua.add_spurious(self.attractors, scaled[which]))
                fate[which] = self._nearest_spurious(scaled[which])
                rest &= fate == UNDECIDED
        known = rest & self.explainer.beside(self.attractors, mean, radius)
        fate = self._hold(ensemble, known, mean, radius, fate, taken)
        rest &= fate == UNDECIDED
        if bool(rest.any()):
            probed = 4 * (taken + ensemble.steps)
            settled_ = scaled[rest], mean[rest], radius[rest]
            self._refresh(
                self.explainer.discover(
                    self.attractors, *settled_, steps=probed, elsewhere=lambda states: self.fate(states) >= 0
                )
            )
            fate = torch.where(fate == UNDECIDED, self.fate(scaled), fate)
            left = (rest & (fate == UNDECIDED)).nonzero()[:, 0]
            cycles, ends = self.continua.cycling(scaled[left], mean[left], radius[left], steps=probed)
            if bool(cycles.any()):
                wide = float(radius[left][cycles].amax() * self.space.unit[: ends.shape[1]].max())
                self._refresh(self.continua.add(self.attractors, ends[cycles], wide))
                fate[left[cycles]] = self.continua.owners(self.attractors, ends[cycles])
            fate = self._hold(ensemble, rest & (fate == UNDECIDED) & ~known, mean, radius, fate, taken)
        return fate

    def _nearest_spurious(self, scaled: Tensor) -> Tensor:
        """Return which continuum of spurious fixed points has the member closest to each state, shape ``(n,)``."""
        families = [k for k, a in enumerate(self.attractors) if a.family and a.kind == "spurious"]
        gaps = torch.stack([torch.cdist(scaled, self.attractors[k].members).amin(1) for k in families], dim=1)
        return torch.tensor(families)[gaps.argmin(1)]

    def _hold(
        self, ensemble: Ensemble, which: Tensor, mean: Tensor, radius: Tensor, fate: Tensor, taken: int
    ) -> Tensor:
        """Return ``fate`` with the labels of those among ``which`` that unstable limit sets hold."""
        if not bool(which.any()):
            return fate
        left = max(0, self.steps - taken - ensemble.steps)
        self.attractors, labels = self.explainer.hold(
            self.attractors, ensemble.states[:, which], mean[which], radius[which], steps=left
        )
        return fate.masked_scatter(which, labels)

    def _late(self, states: Tensor, taken: int) -> tuple[Tensor, Tensor]:
        """Return fate and step of states ``(variables, n)`` that are still open after ``taken`` steps.

        Each cell of states is followed by its outermost ones. Where those agree they speak for the cell; the
        members of the other cells are followed one by one.
        """
        chosen, cell = _representatives(self.space.scaled(states))
        fate, at = (torch.full((len(cell),), UNDECIDED), torch.full((len(cell),), -1.0, dtype=torch.float64))
        fate[chosen], at[chosen] = self._creep(states[:, chosen], taken)
        count = int(cell.max()) + 1
        low, high = (
            torch.zeros(count, dtype=torch.long).scatter_reduce(0, cell[chosen], fate[chosen], how, include_self=False)
            for how in ("amin", "amax")
        )
        when = torch.zeros(count, dtype=torch.float64).scatter_reduce(
            0, cell[chosen], at[chosen], "mean", include_self=False
        )
        spoken_for = ~chosen & (low == high)[cell]
        fate[spoken_for], at[spoken_for] = low[cell[spoken_for]], when[cell[spoken_for]]
        alone = ~chosen & ~spoken_for
        if bool(alone.any()):
            fate[alone], at[alone] = self._creep(states[:, alone], taken)
        return fate, at

    def _creep(self, states: Tensor, taken: int) -> tuple[Tensor, Tensor]:
        """Return fate and step of states, in jumps along their drift where it is steady (projective integration)."""
        count = states.shape[1]
        fate, at = (torch.full((count,), UNDECIDED), torch.full((count,), -1.0, dtype=torch.float64))
        ensemble, inner, round_ = self.space.continued(states), INNER, 0
        clock = torch.full((count,), float(taken), dtype=torch.float64)
        while len(ensemble.replicas) and taken + ensemble.steps < self.steps:
            path = [self.space.scaled(ensemble.states)]
            for _ in range(QUARTERS):
                ensemble.advance(inner)
                path.append(self.space.scaled(ensemble.states))
            self.work += QUARTERS * inner * len(ensemble.replicas)
            clock += QUARTERS * inner
            after, moves = path[-1], torch.stack(path).diff(dim=0)
            pace, bend = moves[-1].norm(dim=1), moves.diff(dim=0).norm(dim=2).amax(0)
            size = after.abs().amax(1).clamp(min=1.0)
            jump = torch.minimum(BEND * pace / bend, LONGEST_JUMP * size / pace)
            jumped = (bend <= BEND * pace) & (pace > RESOLVED) & torch.isfinite(jump)
            if bool(jumped.any()):
                jumped[jumped.clone()] = self.space.growth(after[jumped]) * clock[jumped] <= GROWN
            # The others keep every bit: they may lie exactly on a line of symmetry.
            jump = torch.where(jumped, jump, 0.0)
            after = after + jump[:, None] * moves[-1]
            clock += jump * inner
            ensemble.states[:, jumped] = self.space.states(after[jumped]).T
            now = self.fate(after)
            now[(after.abs() > HORIZON).any(1)] = DIVERGED
            round_ += 1
            if round_ % (ROUNDS // 2) == 0:
                inner *= 2 if round_ % ROUNDS == 0 else 1
                steps_before = ensemble.steps
                held = self._settle(ensemble, taken)
                clock += ensemble.steps - steps_before
                now = torch.where(now == UNDECIDED, held, now)
            fate[ensemble.replicas] = now
            at[ensemble.replicas] = clock
            clock = clock[now == UNDECIDED]
            ensemble.keep(now == UNDECIDED)
        return fate, at


def _representatives(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return which states represent their cell, the outermost ones along each axis, and the cell of each state."""
    _, cell = torch.unique(torch.floor(scaled / CELL), dim=0, return_inverse=True)
    count = int(cell.max()) + 1 if len(cell) else 0
    chosen = torch.zeros(len(scaled), dtype=torch.bool)
    for axis in range(scaled.shape[1]):
        order = scaled[:, axis].argsort()
        rank = order.argsort()
        for extreme in ("amin", "amax"):
            ranks = torch.zeros(count, dtype=torch.long)
            chosen[order[ranks.scatter_reduce(0, cell, rank, extreme, include_self=False)]] = True
    return chosen, cell
