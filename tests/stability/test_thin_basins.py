"""Limit sets that rings of probes do not show: thin chaotic bands, and stable manifolds held by rounding."""

import torch

from saddlescope import landscapes
from saddlescope.dynamics import GradientMap, SAMMap, simulate
from saddlescope.stability.capture import StateSpace
from saddlescope.stability.fates import label_fates
from saddlescope.stability.thin_basins import balls_along, exactly_on_stable_manifold

WELL = landscapes.get("double_well")
START = [[-1.62766, 0.287234]]


def test_only_what_is_exactly_on_the_stable_manifold_is_held():
    """An offset of 1e-300 takes 14,000 steps to grow to size 1, and still does not pass for none."""
    space = StateSpace(WELL, GradientMap(0.05))
    starts = torch.tensor([[0.0, 0.0], [1e-300, 0.0], [1e-320, 0.0], [1e-9, 0.0], [1.0, 0.0]], dtype=torch.float64)
    middles = space.at_rest(starts)
    sizes = torch.full((5,), 2e-5, dtype=torch.float64)
    held, left = exactly_on_stable_manifold(space, starts.T, middles, sizes, steps=100_000)
    assert held.tolist() == [True, False, False, False, False]
    assert 300 < left < 600  # ln(2e-5 / 1e-12) / ln 1.05 = 345, seen at most a quarter late
    assert not exactly_on_stable_manifold(space, starts.T, middles, sizes, steps=0)[0].any()


def test_a_start_on_a_line_of_symmetry_is_held_by_an_unstable_saddle():
    starts = [[0.0, 1.0], [1e-12, 1.0]]
    fates = label_fates(WELL, GradientMap(0.05), starts)
    held, free = (fates.attractors[k] for k in fates.labels)
    assert (held.kind, held.unstable, held.capture_radius) == ("saddle", True, 0.0)
    assert (free.kind, free.unstable) == ("minimum", False)
    assert simulate(WELL, GradientMap(0.05), starts, 200_000).final[:, 0].tolist()[0] == 0.0


def test_balls_do_not_lie_along_a_saddles_orbit():
    """On the line x = 0 gradient descent stays, y alternating; what is beside the line leaves."""
    space = StateSpace(WELL, GradientMap(1.9))  # y alternates about 0 with multiplier -0.9
    states = space.at_rest(torch.tensor([[0.0, 0.5]], dtype=torch.float64))

    def nowhere(scaled):
        return torch.zeros(len(scaled), dtype=torch.bool)

    assert balls_along(space, states, 0.1, patience=512, elsewhere=nowhere) is None


def test_a_band_too_thin_for_rings_is_captured_where_plain_iteration_stays():
    """Beale, lr = .01, normalized SAM, rho = .1: a band as long as .7 that attracts only closely beside it."""
    beale, update = landscapes.get("beale"), SAMMap(0.01, 0.1)
    late = simulate(beale, update, START, 200_000).final
    fates = label_fates(beale, update, START)
    band = fates.attractors[fates.labels[0]]
    assert (band.kind, band.unstable) == ("cycle", False)
    assert len(band.members) > 8
    assert float((late - torch.tensor(band.point)).norm()) <= 1.5 * band.radius
