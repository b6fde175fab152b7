"""How far around a limit set everything is captured: rings of probes that must all come back."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from saddlescope.dynamics.ensemble import Ensemble
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.landscapes.landscape import Landscape

PROBES = 48
"""On a ring; in two dimensions neighbours are an eighth of its radius apart."""
FIRST, RATIO, WIDEST = 1.25, math.sqrt(2.0), 1.0
"""The first ring in cores, the widest in half-widths of the box."""
MOST_RINGS = 20
BLOCK = 4
"""Rings that are followed together."""
PATIENCE = 5
"""A ring is awaited until this many times the step at which the one inside it was back."""
AGAIN = 16
"""The outer rings may take this many times as long as the first was allowed to."""

AWAY = 32
"""A ring is given up when one of its probes stays away this many times as long as it took to leave."""


class StateSpace:
    """The states of a map as points of one space, lengths in half-widths of the landscape's box.

    A buffer of the map, such as the velocity, counts as the step ``lr * v`` that it causes.
    """

    def __init__(self, landscape: Landscape, update: UpdateMap) -> None:
        self.landscape, self.update = landscape, update
        low, high = torch.tensor(landscape.bounds, dtype=torch.float64).T
        buffers = len(update.initial(low)) - 1
        self.unit = torch.cat([(high - low) / 2, *[(high - low) / (2 * getattr(update, "lr", 1.0))] * buffers])
        self.centre = torch.cat([(low + high) / 2, *[torch.zeros_like(low)] * buffers])

    def step(self, state: Tensor) -> Tensor:
        """Return one step of the map from a state ``(variables,)`` in the units of ``w``."""
        return torch.cat(self.update(state.reshape(-1, self.landscape.dimension).unbind(), self.landscape.gradient))

    def growth(self, scaled: Tensor) -> Tensor:
        """Return the rate per step at which what is beside states ``(n, variables)`` grows, shape ``(n,)``.

        The logarithm of the largest multiplier over two steps, halved, as states may alternate; NaN without a Jacobian.
        """
        slopes = torch.vmap(torch.func.jacrev(lambda state: self.step(self.step(state))))(self.states(scaled))
        usable = torch.isfinite(slopes).flatten(1).all(1)
        largest = torch.linalg.eigvals(torch.where(usable[:, None, None], slopes, 0.0)).abs().amax(1)
        return torch.where(usable, largest.log() / 2, torch.nan)

    def states(self, scaled: Tensor) -> Tensor:
        """Return states ``(n, variables)`` in the units of ``w``."""
        return self.centre + self.unit * scaled

    def scaled(self, states: Tensor) -> Tensor:
        """Return states ``(variables, n)`` of an ensemble in these coordinates, ``(n, variables)``."""
        return (states.T - self.centre) / self.unit

    def at_rest(self, points: Tensor) -> Tensor:
        """Return the states at rest in points ``(n, d)``, shape ``(n, variables)``."""
        return (torch.cat(self.update.initial(points), dim=1) - self.centre) / self.unit

    def points(self, scaled: Tensor) -> Tensor:
        """Return the points ``(n, d)`` of states ``(n, variables)``."""
        return self.states(scaled)[:, : self.landscape.dimension]

    def ensemble(self, scaled: Tensor) -> Ensemble:
        """Return trajectories that begin in the states ``(n, variables)``."""
        return self.continued(self.states(scaled).T)

    def continued(self, states: Tensor) -> Ensemble:
        """Return trajectories that go on from the states ``(variables, n)`` of an ensemble, bit by bit the same."""
        ensemble = Ensemble(self.landscape, self.update, states[: self.landscape.dimension].T)
        ensemble.states.copy_(states)
        return ensemble


def capture_radii(
    space: StateSpace,
    members: Tensor,
    cores: Tensor,
    *,
    steps: int,
    seed: int = 0,
    elsewhere: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the radii around ``m`` limit sets within which every probe came back to its core.

    Rings of `PROBES` states around each member, each ring wider than the last by the square root of two (coarser near
    the core), are followed until they are within the core, twice. The first ring, a little outside the core, is
    awaited for ``steps`` steps: a saddle lets some of its probes go, however slowly, and gets no second ring. The
    rings up to the answer came back completely, and so did the one beyond it. Probing is evidence, not a proof: a gap
    in the basin narrower than the distance between probes is not seen.

    Args:
        space: states and their units.
        members: the middle of each limit set, shape ``(m, variables)``.
        cores: how far from it counts as being back, shape ``(m,)``.
        steps: most steps to follow the probes of the first ring.
        seed: of the directions.
        elsewhere: which states ``(n, variables)`` are known to be captured by something else; a limit set is given up
            when it loses a probe of the first ring to that.

    Returns:
        Lengths ``(m,)`` in half-widths of the box, 0 when not even the first ring came back; and the share ``(m,)`` of
        the first ring that came back, 0 if any of it went farther than twice its radius.
    """
    radii, count = _ladders(cores)
    probes = directions(radii.shape[1], members.shape[1], seed)
    patience = torch.full_like(count, steps)
    _, back, share = _returns(space, probes[:1], radii[:, :1], members, cores, steps, patience, elsewhere)
    going, patience = (share == 1).nonzero()[:, 0], PATIENCE * back
    good = torch.zeros_like(count)
    held = share == 1
    for k in range(1, radii.shape[1], BLOCK):
        if not len(going):
            break
        rings, block = probes[k : k + BLOCK], radii[going, k : k + BLOCK]
        these = members[going], cores[going]
        complete, back, _ = _returns(space, rings, block, *these, AGAIN * steps, patience[going])
        good[going] += complete
        patience[going] = torch.maximum(patience[going], PATIENCE * back)
        going = going[complete == len(rings)]
    good = torch.minimum(good, count - 1)
    inner = radii.gather(1, (good - 1).clamp(min=0)[:, None])[:, 0]
    return torch.where(good > 0, inner, cores).where(held, 0.0), share


def _ladders(cores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the radii of the rings, shape ``(m, rings)``, and how many each has; those beyond are 0: back at once."""
    ladders = []
    for core in cores.tolist():
        first = FIRST * core
        radii = [first * RATIO**k for k in range(max(3, math.ceil(math.log(WIDEST / first, RATIO)) + 1))]
        if len(radii) > MOST_RINGS:
            ends = math.log10(radii[0]), math.log10(radii[-13])
            radii = [*torch.logspace(*ends, MOST_RINGS - 12, dtype=torch.float64).tolist(), *radii[-12:]]
        ladders.append(torch.tensor(radii, dtype=torch.float64))
    return torch.nn.utils.rnn.pad_sequence(ladders, batch_first=True), torch.tensor([len(x) for x in ladders])


def directions(rings: int, variables: int, seed: int) -> Tensor:
    """Return the unit vectors towards the probes, shape ``(rings, PROBES, variables)``."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(rings, PROBES, variables, dtype=torch.float64, generator=generator)
    if variables == 2:
        angle = (torch.arange(PROBES) + torch.rand(rings, 1, generator=generator)) * (2 * math.pi / PROBES)
        direction = torch.stack([angle.cos(), angle.sin()], dim=2).double()
    return direction / direction.norm(dim=2, keepdim=True)


def _returns(
    space: StateSpace,
    towards: Tensor,
    radii: Tensor,
    members: Tensor,
    cores: Tensor,
    steps: int,
    patience: Tensor,
    elsewhere: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow rings ``(m, rings)`` about members, all at once.

    Return how many rings came back, inside out, at which step the last did, and the share of probes that did, 0 if
    some fled; shapes ``(m,)``.
    """
    m, rings = radii.shape
    probes = members[:, None, None] + radii[:, :, None, None] * towards
    ensemble = space.ensemble(probes.reshape(-1, members.shape[1]))
    back = torch.zeros(len(ensemble.replicas), dtype=torch.int8)
    farthest, limit = 2 * radii.amax(1), patience.clone()
    complete, at = torch.zeros(m, dtype=torch.long), torch.zeros(m, dtype=torch.long)
    fled, left_at = torch.zeros(m, dtype=torch.bool), torch.full((m,), steps)
    while len(ensemble.replicas) and ensemble.steps < steps:
        ensemble.advance(max(16, ensemble.steps // 4))
        owner = ensemble.replicas // (rings * PROBES)
        distance = (space.scaled(ensemble.states) - members[owner]).norm(dim=1)
        back[ensemble.replicas] += (distance <= cores[owner]).to(torch.int8)  # False for NaN
        open_ = back[ensemble.replicas] < 2
        fled[owner] = False
        fled[owner[open_ & ~(distance <= farthest[owner])]] = True
        left_at = torch.where(fled, left_at.clamp(max=ensemble.steps), steps)
        done = (back >= 2).reshape(m, rings, PROBES).all(2).cumprod(1).sum(1)
        more = done > complete
        at[more] = ensemble.steps
        limit[more] = limit[more].clamp(min=PATIENCE * ensemble.steps)
        complete = done
        over = (limit <= ensemble.steps) | (ensemble.steps > AWAY * left_at)
        if rings == 1:
            over[owner[~(distance <= WIDEST)]] = True
        if elsewhere is not None:
            lost = owner[elsewhere(space.scaled(ensemble.states)) & (distance > farthest[owner])]
            over[lost] = True
        ensemble.keep(open_ & ~over[owner])
    share = (back >= 2).reshape(m, -1).double().mean(1)
    return complete, at, share.where(~fled, 0.0)
