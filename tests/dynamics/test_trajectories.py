"""What simulate promises about shapes, records, outcomes and wrong use."""

import pytest
import torch

from saddlescope import landscapes
from saddlescope.dynamics import GradientMap, Outcome, SAMMap, ascent_series, simulate

SADDLE = landscapes.get("quadratic_saddle")


def test_records_hold_the_start_and_every_kth_point():
    run = simulate(SADDLE, GradientMap(lr=0.01), [[1.0, 0.5], [2.0, 0.0]], 10, record_every=4)
    assert run.points.shape == (2, 3, 2)
    assert run.recorded_steps.tolist() == [0, 4, 8]
    for k, steps in enumerate([0, 4, 8]):
        exact = torch.tensor([[0.98**steps, 0.5 * 1.02**steps], [2 * 0.98**steps, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(run.points[:, k], exact, rtol=1e-14, atol=0)
    assert simulate(SADDLE, GradientMap(lr=0.01), [1.0, 0.5], 10).points is None


def test_divergence_is_a_status_of_each_start():
    run = simulate(SADDLE, GradientMap(lr=0.01), [[1.0, 0.0], [1.0, 1e-3]], 40_000)
    assert [Outcome(s) for s in run.status.tolist()] == [Outcome.COMPLETED, Outcome.DIVERGED]
    assert run.to_dict()["status"] == ["completed", "diverged"]


def test_a_state_that_became_nan_has_diverged():
    run = simulate(landscapes.get("beale"), SAMMap(lr=1e-4, rho=0.0365, normalized=False), [1.0, 2.0], 50)
    assert run.status.tolist() == [Outcome.DIVERGED]
    assert not torch.isfinite(run.final).all()


def test_no_steps_and_float32():
    run = simulate(SADDLE, SAMMap(lr=0.1, rho=0.1), [1.0, 2.0], 0, dtype=torch.float32)
    assert run.final.dtype == torch.float32
    assert run.final.tolist() == [[1.0, 2.0]]


def test_starts_are_not_modified():
    starts = torch.ones(5, 2, dtype=torch.float64)
    simulate(SADDLE, GradientMap(lr=0.1), starts, 3)
    assert torch.equal(starts, torch.ones(5, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    "arguments",
    [
        {"starts": [1.0, 2.0, 3.0]},
        {"starts": torch.zeros(0, 2)},
        {"starts": [float("nan"), 0.0]},
        {"steps": -1},
        {"steps": 1.5},
        {"record_every": 0},
        {"dtype": torch.float16},
        {"engine": "quick"},
        {"starts": torch.zeros(1000, 2), "steps": 10**7, "record_every": 1},
    ],
)
def test_wrong_use_is_refused(arguments):
    with pytest.raises(ValueError, match="got .* expected "):
        simulate(**{"landscape": SADDLE, "update": GradientMap(lr=0.1), "starts": [1.0, 0.0], "steps": 1, **arguments})


@pytest.mark.parametrize("normalized", [True, False])
def test_ascent_series_is_what_the_map_does(normalized):
    """The step the map takes is -lr g(w_p) with the w_p of the series."""
    update = SAMMap(lr=0.1, rho=0.3, normalized=normalized)
    landscape = landscapes.get("double_well")
    run = simulate(landscape, update, [[0.4, 0.3], [-1.2, 0.8]], 20, record_every=1)
    series = ascent_series(landscape, update, run.points)
    gradient = torch.func.vmap(torch.func.vmap(landscape.gradient))
    step = (run.points[:, :-1] - run.points[:, 1:]) / update.lr
    torch.testing.assert_close(gradient(series.perturbed)[:, :-1], step, rtol=1e-10, atol=1e-12)
    g, p = gradient(run.points), gradient(series.perturbed)
    cosine = torch.nn.functional.cosine_similarity(g, p, dim=-1)
    torch.testing.assert_close(series.cosine, cosine, rtol=1e-10, atol=1e-12)
