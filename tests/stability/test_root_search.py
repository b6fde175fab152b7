import pytest
import torch

from saddlescope.landscapes import Landscape
from saddlescope.stability.root_search import ScaledLoss, find_zeros


def steps_from(loss, start):
    """Distance to the zero at the origin after each number of steps."""
    scaled = ScaledLoss(Landscape("probe", loss, 1, [(-1, 1)]))
    starts = torch.tensor([[start]], dtype=torch.float64)
    return [abs(find_zeros(scaled, starts, tolerance=1e-30, free_steps=0, max_steps=n).item()) for n in range(1, 8)]


def test_regular_zeros_are_approached_quadratically():
    distances = steps_from(lambda w: (w**2 / 2 + w**3 / 3).sum(), 0.1)
    constants = [b / a**2 for a, b in zip(distances, distances[1:], strict=False) if a > 1e-7]
    assert len(constants) >= 2 and all(0.5 < c < 1.5 for c in constants)  # Newton on w + w^2: 1


@pytest.mark.parametrize("power", [4, 6])
def test_degenerate_zeros_are_approached_at_the_rate_of_their_order(power):
    distances = steps_from(lambda w: (w**power).sum(), 0.1)
    assert distances[6] / distances[5] == pytest.approx((power - 2) / (power - 1), rel=1e-3)
