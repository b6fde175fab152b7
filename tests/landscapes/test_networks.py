"""The smallest networks against their definitions and the Hessians worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlescope.landscapes import get
from saddlescope.landscapes.networks import one_neuron_data

TOY = json.loads((Path(__file__).parents[1] / "reference" / "theory.json").read_text())["toy_nn"]
C, M4 = TOY["c"], TOY["m4"]


def deep_linear(w):
    return (np.prod(w) - 1) ** 2 / 2


def one_neuron(w):
    x, y = np.array(TOY["data"]["x"]), np.array(TOY["data"]["y"])
    return np.mean((w[1] * (w[0] * x) ** 2 - y) ** 2) / 2


def matrix_factorization(w):
    return np.linalg.norm(np.diag([2.0, 1.0]) - w[:4].reshape(2, 2) @ w[4:].reshape(2, 2)) ** 2 / 2


@pytest.mark.parametrize(
    ("name", "parameters", "formula"),
    [
        ("deep_linear", {"depth": 2}, deep_linear),
        ("deep_linear", {"depth": 5}, deep_linear),
        ("one_neuron", {}, one_neuron),
        ("one_neuron", {"data": (TOY["data"]["x"], TOY["data"]["y"])}, one_neuron),
        ("matrix_factorization", {}, matrix_factorization),
    ],
)
def test_equals_its_definition(name, parameters, formula):
    landscape = get(name, **parameters)
    w = np.random.default_rng(0).uniform(-2, 2, (50, landscape.dimension))
    loss = torch.func.vmap(landscape.loss)
    expected = [formula(row) for row in w]
    np.testing.assert_allclose(loss(torch.tensor(w)).numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(loss(torch.tensor(w).float()).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        # the two weights of the origin couple with -1; at (1, ..., 1) the Hessian is the all-ones matrix
        ("deep_linear", {"depth": 2}, [[-1, 1], [0, 2]]),
        ("deep_linear", {"depth": 3}, [[0, 0, 0], [0, 0, 3]]),
        # diag(-2 c w2, 0) on the line w1 = 0; m4 times the outer square of (2u, 1) at the global minimum
        ("one_neuron", {}, [[0, 0], [-2 * C, 0], [0, 2 * C], [0, M4 * (1 + 4 * (C / M4) ** 2)]]),
        # |dU V + U dV|^2 - 2 <M - U V, dU dV>, block by block
        (
            "matrix_factorization",
            {},
            [
                [-2, -2, -1, -1, 1, 1, 2, 2],
                [-1, 0, 0, 0, 1, 1, 3, 4],
                [-2, -1, 0, 0, 0, 2, 2, 3],
                [0, 0, 0, 0, 2, 3, 3, 4],
            ],
        ),
    ],
)
def test_eigenvalues_at_the_stored_points(name, parameters, expected):
    landscape = get(name, **parameters)
    hessians = torch.stack([landscape.hessian(torch.tensor(p, dtype=torch.float64)) for p in landscape.critical_points])
    np.testing.assert_allclose(torch.linalg.eigvalsh(hessians).numpy(), expected, rtol=1e-8, atol=1e-12)


def test_default_data_are_those_of_the_reference():
    np.testing.assert_allclose(one_neuron_data(), [TOY["data"]["x"], TOY["data"]["y"]], rtol=1e-15)


def test_one_neuron_losses_of_the_reference():
    toy = get("one_neuron")
    losses = [toy.loss(torch.tensor(point, dtype=torch.float64)).item() for point in toy.critical_points]
    expected = [TOY["loss_saddle"]] * 3 + [TOY["loss_min"]]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    assert toy.critical_points[-1][1] == pytest.approx(TOY["ustar"], rel=1e-14)
