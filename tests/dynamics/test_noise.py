"""The generator's published test vectors, and the statistics of the normals."""

import math

import pytest
import torch

from saddlescope.dynamics import GaussianNoise, SAMMap, simulate
from saddlescope.dynamics.noise import philox, standard_normals
from saddlescope.landscapes import quadratic


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123, philox4x32 with 10 rounds
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    first, *rest = counter
    assert tuple(int(x) for x in philox(torch.tensor([first]), *rest, key=key)) == words


def test_normals_have_the_moments_of_a_normal():
    """2^20 draws: mean, variance, third and fourth moment within 5 standard errors (p < 3e-6 for all four)."""
    z = standard_normals(3, torch.arange(2**17), step=0, lanes=8).flatten()
    n = z.numel()
    moments = [(z.mean(), 0, 1), ((z**2).mean(), 1, 2), ((z**3).mean(), 0, 15), ((z**4).mean(), 3, 96)]
    for value, expected, variance in moments:
        assert abs(value - expected) < 5 * math.sqrt(variance / n)


def test_lanes_steps_and_seeds_are_uncorrelated():
    n = 2**16
    replicas = torch.arange(n)
    columns = [standard_normals(seed, replicas, step, 5) for seed, step in [(0, 0), (0, 1), (1, 0)]]
    correlation = torch.corrcoef(torch.cat(columns, dim=1).T)
    off_diagonal = correlation - torch.eye(15, dtype=torch.float64)
    assert off_diagonal.abs().max() < 5 / math.sqrt(n)


@pytest.mark.parametrize("engine", ["compiled", "eager"])
@pytest.mark.parametrize(
    ("sharing", "factor"), [("additive", 1.0), ("shared", (1 - 0.5) ** 2), ("independent", 1 + 0.5**2)]
)
def test_sharing_sets_the_variance_of_one_step(engine, sharing, factor):
    """On l = -w^2/2, unnormalized SAM with rho = .5: one step from 0 has variance lr^2 sd^2 f / B, f as stated."""
    n, lr, deviation, batch = 40_000, 0.1, 2.0, 4
    noise = GaussianNoise(deviation, batch_size=batch, sharing=sharing)
    update = SAMMap(lr=lr, rho=0.5, normalized=False)
    final = simulate(quadratic([-1.0]), update, torch.zeros(n, 1), 1, noise=noise, engine=engine).final
    expected = lr**2 * deviation**2 * factor / batch
    assert abs((final**2).mean() / expected - 1) < 5 * math.sqrt(2 / n)


def test_deviations_may_differ_by_coordinate():
    final = simulate(
        quadratic([-1.0, -1.0]),
        SAMMap(lr=0.1, rho=0.0),
        torch.zeros(40_000, 2),
        1,
        noise=GaussianNoise((1.0, 3.0)),
    ).final
    ratio = (final**2).mean(0) / torch.tensor([0.01, 0.09])
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 40_000)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: GaussianNoise(-1.0),
        lambda: GaussianNoise(1.0, batch_size=0),
        lambda: GaussianNoise(1.0, sharing="both"),
        lambda: simulate(quadratic([1.0]), SAMMap(0.1, 0.1), [0.0], 1, noise=GaussianNoise((1.0, 2.0))),
    ],
)
def test_wrong_noise_is_refused(wrong):
    with pytest.raises(ValueError, match="got .* expected "):
        wrong()
