"""Closed-form landscapes against textbook formulas and the reference eigenvalues."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlescope.landscapes import get

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "theory.json").read_text())
REFERENCE_POINTS = [
    pytest.param(get(name), point["point"], point["f"], point["eig"], id=f"{name}-{point['id']}")
    for name, key in [
        ("quadratic_saddle", "x2_minus_y2"),
        ("beale", "beale"),
        ("double_well", "double_well"),
        ("deep_linear", "deep_linear2"),
        ("rosenbrock", "rosenbrock2"),
        ("monkey_saddle", "monkey"),
    ]
    for point in REFERENCE["landscapes"][key]["critical_points"]
]


def eigenvalues(landscape, point):
    return torch.linalg.eigvalsh(landscape.hessian(torch.tensor(point, dtype=torch.float64))).numpy()


def quadratic(w):
    return w @ np.diag([1.0, -0.5, -2.0]) @ w / 2


def beale(w):
    return sum((c - w[0] * (1 - w[1] ** k)) ** 2 for k, c in enumerate((1.5, 2.25, 2.625), start=1))


def rosenbrock(w):
    return sum(100 * (w[i] * w[i] - w[i + 1]) ** 2 + (w[i] - 1) ** 2 for i in range(len(w) - 1))


def ackley(w):
    d = len(w)
    radial = -20 * np.exp(-0.2 * np.linalg.norm(w) / np.sqrt(d))
    return radial - np.exp(np.sum(np.cos(2 * np.pi * w)) / d) + np.exp(1.0) + 20


FORMULAS = [
    ("quadratic", {"eigenvalues": (1.0, -0.5, -2.0)}, quadratic),
    ("quadratic_saddle", {}, lambda w: (w[0] - w[1]) * (w[0] + w[1])),
    ("beale", {}, beale),
    ("double_well", {}, lambda w: w[0] ** 4 / 4 - w[0] ** 2 / 2 + 0.25 + w[1] ** 2 / 2),
    ("rosenbrock", {"dimension": 2}, rosenbrock),
    ("rosenbrock", {"dimension": 6}, rosenbrock),
    ("monkey_saddle", {}, lambda w: (complex(*w) ** 3).real),
    ("ackley", {"dimension": 2}, ackley),
    ("ackley", {"dimension": 7}, ackley),
]


@pytest.mark.parametrize(("name", "parameters", "formula"), FORMULAS)
def test_equals_the_textbook_formula(name, parameters, formula):
    landscape = get(name, **parameters)
    low, high = np.array(landscape.bounds).T
    w = np.random.default_rng(0).uniform(low, high, (50, landscape.dimension))
    loss = torch.func.vmap(landscape.loss)
    expected = [formula(row) for row in w]
    np.testing.assert_allclose(loss(torch.tensor(w)).numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(loss(torch.tensor(w).float()).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("landscape", "point", "loss", "expected"), REFERENCE_POINTS)
def test_reference_critical_points(landscape, point, loss, expected):
    stored = min(landscape.critical_points, key=lambda candidate: np.linalg.norm(np.subtract(candidate, point)))
    np.testing.assert_allclose(stored, point, rtol=0, atol=1e-15)
    assert landscape.loss(torch.tensor(stored, dtype=torch.float64)).item() == pytest.approx(loss, rel=1e-12, abs=1e-15)
    np.testing.assert_allclose(eigenvalues(landscape, stored), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["quadratic_saddle", "beale", "double_well", "rosenbrock", "monkey_saddle"])
def test_no_point_of_the_reference_is_missing(name):
    key = {"quadratic_saddle": "x2_minus_y2", "rosenbrock": "rosenbrock2", "monkey_saddle": "monkey"}.get(name, name)
    assert len(get(name).critical_points) == len(REFERENCE["landscapes"][key]["critical_points"])


def test_beale_second_saddle_is_the_cubic_root():
    """To full double precision: y solves 3y^3 + 11y^2 + 10y + 5 = 0."""
    y = REFERENCE["beale"]["critical_points"][2]
    assert get("beale").critical_points[2] == (float(y["x_str"]), float(y["y_str"]))
    assert np.polyval([3, 11, 10, 5], get("beale").critical_points[2][1]) == pytest.approx(0.0, abs=1e-14)


def test_quadratic_has_its_eigenvalues():
    np.testing.assert_array_equal(
        eigenvalues(get("quadratic", eigenvalues=(1.0, -0.5, -2.0)), (0.0,) * 3), [-2, -0.5, 1]
    )
