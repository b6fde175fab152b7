"""The response along SAM's ascent against both gradients written out."""

import math

import pytest
import torch
from torch.optim import SGD

from saddlescope.optim import SAM
from saddlescope.optim.ascent_response import ascent_response

MATRIX = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
START = torch.linspace(-1.0, 1.5, 6, dtype=torch.float64)


def loss_of(w):
    return (MATRIX @ w).sin().sum() + 0.1 * (w**4).sum()


def step(dtype=torch.float64, rhos=(0.3, 0.3), **options):
    """Make one step; return its statistics, ``||g_p - g|| / ||e||``, and ``g``, ``g_p`` and ``e``."""
    pieces = [START[:2].to(dtype).clone().requires_grad_(), START[2:].to(dtype).clone().requires_grad_()]
    groups = [{"params": [p], "rho": rho} for p, rho in zip(pieces, rhos, strict=True)]
    opt = SAM(SGD(groups, lr=0.1, maximize=options.pop("maximize", False)), **options)
    points, gradients = [], []

    def closure():
        opt.zero_grad()
        w = torch.cat(pieces)
        loss = loss_of(w.double())
        loss.backward()
        points.append(w.detach().double())
        gradients.append(torch.cat([p.grad for p in pieces]).double())
        return loss

    opt.step(closure)
    g, g_p, e = *gradients, points[1] - points[0]
    return opt.last_step, ((g_p - g).norm() / e.norm()).item(), (g, g_p, e)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("dtype", "rho", "error"), [(torch.float64, 0.3, 1e-12), (torch.float32, 0.3, 2e-6)])
def test_is_the_change_of_the_gradient(dtype, rho, error, maximize):
    statistics, change, _ = step(dtype, (rho, rho), maximize=maximize)
    assert ascent_response(statistics) == pytest.approx(change, rel=error)


def test_allows_for_any_angle_where_the_ascent_is_not_along_the_gradient():
    """A radius for each group: the lengths of the parts across ``e`` add up at most."""
    statistics, change, (g, g_p, e) = step(rhos=(0.3, 0.05))
    unit = e / e.norm()
    along = unit @ (g_p - g)
    across = (g - (unit @ g) * unit).norm() + (g_p - (unit @ g_p) * unit).norm()
    most = (torch.hypot(along, across) / e.norm()).item()
    assert ascent_response(statistics) == pytest.approx(most, rel=1e-12)
    assert change < 0.99 * most


def test_is_unknown_without_statistics_or_perturbation():
    assert math.isnan(ascent_response(step(statistics=False)[0]))
    assert math.isnan(ascent_response(step(rhos=(0.0, 0.0))[0]))
