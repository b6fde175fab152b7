"""The shipped landscapes against plain iteration of every start, ten times as long."""

import numpy as np
import pytest
import torch

from saddlescope import landscapes
from saddlescope.dynamics import GradientMap, SAMMap
from saddlescope.dynamics.ensemble import Ensemble
from saddlescope.stability.basins import map_basins
from saddlescope.stability.capture import StateSpace
from saddlescope.stability.continua import Continua
from saddlescope.stability.fates import DIVERGED, UNDECIDED, label_fates
from saddlescope.stability.settling import observe
from saddlescope.stability.surroundings import Surroundings


def plain_iteration(landscape, update, starts, steps, attractors):
    """Label by the mean over the last tenth: diverged, or the nearest limit set that it is within; else undecided."""
    space = StateSpace(landscape, update)
    ensemble, seen = Ensemble(landscape, update, starts), []
    ensemble.advance(steps - steps // 10)
    for k in range(100):
        ensemble.advance(steps // 1000 + k % 3)  # of every phase of a cycle
        seen.append(space.scaled(ensemble.states))
    mean = torch.stack(seen).mean(0)
    loss = torch.vmap(landscape.loss)(space.points(mean))
    gaps = []
    for a in attractors:
        if a.family:
            level = (loss - a.loss).abs() <= (1e-3 if a.radius else 1e-8)
            near = torch.cdist(mean, a.members).amin(1)
            gaps.append(torch.where(level | (a.kind == "spurious"), near, torch.inf))
        else:
            middle = space.at_rest(torch.tensor([a.point], dtype=torch.float64))
            near = (mean - middle).norm(dim=1)
            wide = max(1e-3, 1.5 * a.radius / float(space.unit[: landscape.dimension].max()))
            gaps.append(torch.where(near <= wide, near, torch.inf))
    gap, label = torch.stack([*gaps, torch.full_like(loss, torch.inf)]).min(0)
    label[~torch.isfinite(gap)] = UNDECIDED
    label[~(seen[-1].abs() <= 100).all(1)] = DIVERGED
    return label.numpy()


def agree(landscape, update, *, side=14, steps=None, **plane):
    """Return the kinds that the starts end at, after a check of every label."""
    basins = map_basins(landscape, update, resolution=side, **plane)
    y, x = np.meshgrid(basins.y, basins.x, indexing="ij")
    starts = torch.from_numpy(basins.origin + np.stack([x.ravel(), y.ravel()], axis=1) @ basins.directions)
    steps = steps or 10 * max(int(basins.steps_to_capture.max()), 5_000)
    truth = plain_iteration(landscape, update, starts, steps, basins.attractors)
    assert basins.undecided <= 0.01
    assert (basins.labels.ravel() != truth).sum() <= 1  # a chaotic band makes single starts depend on rounding
    names = {k: "unstable " * a.unstable + a.kind + " family" * a.family for k, a in enumerate(basins.attractors)}
    return {(names | {DIVERGED: "diverged", UNDECIDED: "undecided"})[k] for k in basins.labels.ravel().tolist()}


@pytest.mark.parametrize(
    ("name", "update", "side", "expected"),
    [
        ("quadratic_saddle", GradientMap(0.01), 14, {"diverged"}),
        ("quadratic_saddle", GradientMap(0.01), 15, {"diverged", "unstable saddle"}),
        ("quadratic_saddle", SAMMap(0.01, 0.6, normalized=False), 15, {"saddle"}),
        ("beale", SAMMap(1e-3, 1.1 * 4 / 111, normalized=False), 14, {"diverged", "minimum", "cycle", "saddle"}),
        ("double_well", SAMMap(0.05, 1.1, normalized=False), 15, {"diverged", "minimum", "saddle"}),
        ("monkey_saddle", SAMMap(0.01, 0.5), 14, {"diverged", "saddle"}),
        ("deep_linear", SAMMap(0.01, 1.1, normalized=False), 15, {"minimum family", "saddle", "diverged"}),
        ("one_neuron", SAMMap(0.01, 0.5), 14, {"minimum", "saddle", "spurious family", "diverged"}),
        (
            "one_neuron",
            SAMMap(0.01, 0.5, normalized=False),
            14,
            {"minimum family", "saddle family", "spurious family", "diverged"},
        ),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_labels_are_those_of_plain_iteration(name, update, side, expected):
    assert agree(landscapes.get(name), update, side=side) == expected


def test_the_critical_rho_of_a_factorization_decides_on_a_plane_through_eight_dimensions():
    """At 1.05 times the critical rho of the origin and of its other saddles all that stays is trapped."""
    generator = torch.Generator().manual_seed(3)
    origin, *directions = torch.randn(3, 8, generator=generator) / 10
    trapped = agree(
        landscapes.get("matrix_factorization"),
        SAMMap(0.01, 1.05, normalized=False),
        side=8,
        origin=origin,
        directions=[x.tolist() for x in directions],
    )
    assert trapped == {"saddle family", "saddle"}


def test_which_way_a_saddle_is_left_is_not_changed_by_extrapolation():
    """Below it they pass a saddle slowly, and the least of components, 1e-10, decides for det U > 0 or < 0."""
    landscape, update = landscapes.get("matrix_factorization"), SAMMap(0.01, 0.95, normalized=False)
    generator = torch.Generator().manual_seed(0)
    starts = 0.4 * torch.randn(24, 8, generator=generator, dtype=torch.float64)[[0, 4, 6, 11, 14, 15]]
    fates = label_fates(landscape, update, starts)
    ensemble = Ensemble(landscape, update, starts)
    ensemble.advance(1_000_000)
    sign = torch.linalg.det(ensemble.points[:, :4].reshape(-1, 2, 2)).sign()
    assert (fates.labels >= 0).all()
    assert [fates.attractors[k].kind for k in fates.labels] == ["minimum"] * 6
    for k in np.unique(fates.labels):
        assert len(sign[torch.from_numpy(fates.labels == k)].unique()) == 1
    assert len(sign.unique()) == 2


def test_cycles_about_a_continuum_are_a_family():
    """Normalized SAM on a factorization bounces about one of a group of minima, and nothing brings it back along it."""
    generator = torch.Generator().manual_seed(3)
    landscape, update = landscapes.get("matrix_factorization"), SAMMap(0.01, 0.1)
    starts = 0.4 * torch.randn(6, 8, generator=generator, dtype=torch.float64)
    fates = label_fates(landscape, update, starts)
    truth = plain_iteration(landscape, update, starts, 1_000_000, fates.attractors)
    held = [fates.attractors[k] for k in fates.labels]
    assert (fates.labels >= 0).all()
    assert all(a.family for a in held if a.kind == "minimum")
    assert any(a.family and 0 < a.radius < 0.01 for a in held)
    assert [fates.attractors[k].kind for k in truth] == [a.kind for a in held]


def test_a_cycle_that_drifts_along_a_continuum_is_not_held_by_it():
    """SAM bounces across a line of minima and climbs it: a short window sees it stand still, a long look does not."""
    landscape, update = landscapes.get("one_neuron"), SAMMap(0.01, 0.1)
    space, ensemble = StateSpace(landscape, update), Ensemble(landscape, update, [[-1.47, -4.0]])
    ensemble.advance(2_000)
    mean, radius = observe(ensemble, space, 256)
    continua, states = Continua(space, Surroundings(landscape)), space.scaled(ensemble.states)
    assert not continua.cycling(states, mean, radius, steps=20_000)[0].any()


def test_a_drift_for_millions_of_steps_is_followed_to_its_end():
    """SAM climbs a line of saddles to where lr times the curvature at ``w_p`` is too much, and diverges."""
    landscape, update = landscapes.get("one_neuron"), SAMMap(0.01, 0.1)
    starts = [[-1.47, -4.0], [0.6, -0.5]]
    ensemble = Ensemble(landscape, update, torch.tensor(starts, dtype=torch.float64))
    ensemble.advance(2_000_000)
    assert (ensemble.points[:, 1] > 85).all()
    ensemble.advance(2_000_000)
    assert not torch.isfinite(ensemble.points).any()
    assert label_fates(landscape, update, starts).labels.tolist() == [DIVERGED, DIVERGED]
    assert label_fates(landscape, update, starts[1:], steps=100_000).labels.tolist() == [UNDECIDED]


def test_growth_is_the_logarithm_of_the_largest_multiplier():
    space = StateSpace(landscapes.get("quadratic", eigenvalues=[2.0, -1.0]), GradientMap(0.1))
    states = torch.tensor([[0.3, -0.2], [0.0, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(space.growth(states), torch.full((2,), 1.1, dtype=torch.float64).log())
