"""Which points of a continuum hang together: where that is known exactly."""

import math

import pytest
import torch

from saddlescope import landscapes
from saddlescope.stability.connected import connected, parts
from saddlescope.stability.surroundings import Surroundings

FACTORS = Surroundings(landscapes.get("matrix_factorization"))


def minima(count, seed):
    """Return global minima ``V = U^-1 diag(2, 1)`` of the factorization in half-widths, and the sign of ``det U``."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(count, 2, 2, dtype=torch.float64, generator=generator))[0]
    u[::2, 0] *= -1  # reflections and rotations
    u = u * torch.empty(count, 1, 1, dtype=torch.float64).uniform_(0.8, 1.25, generator=generator)
    v = torch.linalg.inv(u) @ torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    return torch.cat([u.flatten(1), v.flatten(1)], dim=1) / 2, torch.linalg.det(u).sign()


def test_the_minima_of_a_factorization_are_two_parts():
    """The set ``{(U, U^-1 M)}`` is the group GL(2), four-dimensional, whose two parts the sign of det U tells apart."""
    points, sign = minima(40, 1)
    assert float(torch.cdist(points, points).fill_diagonal_(9.0).amin(1).median()) > 0.1  # farther apart than one gap
    part = parts(FACTORS, points)
    assert len(part.unique()) == 2
    assert len(torch.stack([part, sign.long()], dim=1).unique(dim=0)) == 2


def test_no_path_joins_the_two_parts():
    points, sign = minima(40, 2)
    plus, minus = points[sign > 0], points[sign < 0]
    count = min(len(plus), len(minus))
    assert not connected(FACTORS, plus[:count], minus[:count]).any()


@pytest.mark.parametrize(("angle", "same"), [(0.5, True), (1.5, True), (math.pi, False)])
def test_a_circle_is_followed_but_not_across_its_middle(angle, same):
    """The hat ``(x^2 + y^2 - 1)^2``: halfway between opposite points lies its maximum."""
    hat = Surroundings(landscapes.from_expression("(x**2 + y**2 - 1)**2", [(-2, 2), (-2, 2)]))
    ends = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64) / 2
    assert connected(hat, torch.tensor([[0.5, 0.0]], dtype=torch.float64), ends).tolist() == [same]


def test_a_closed_curve_is_one_part_from_few_points():
    """Seven points of the hat's circle are .43 half-widths apart, and one more at another loss is alone."""
    hat = Surroundings(landscapes.from_expression("(x**2 + y**2 - 1)**2*(x**2 + y**2 - 4)**2", [(-2, 2), (-2, 2)]))
    angle = 2 * math.pi * torch.arange(7, dtype=torch.float64) / 7
    circle = torch.stack([angle.cos(), angle.sin()], dim=1) / 2
    between = math.sqrt(2.5) / 2 * torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # the ring of maxima
    assert parts(hat, torch.cat([circle, between])).unique(return_counts=True)[1].tolist() == [7, 1]


def test_nothing_is_no_part():
    assert len(parts(FACTORS, torch.empty(0, 8, dtype=torch.float64))) == 0
    assert len(connected(FACTORS, torch.empty(0, 8).double(), torch.empty(0, 8).double())) == 0
