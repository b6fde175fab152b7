"""The registry, and what every registered landscape promises."""

import pickle

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from saddlescope.landscapes import from_expression, get, names

VARIANTS = [
    *(get(name) for name in names()),
    get("quadratic", eigenvalues=[1.0, -0.5, -2.0]),
    get("rosenbrock", dimension=5),
    get("ackley", dimension=3),
    get("deep_linear", depth=3),
    get("one_neuron", seed=1),
    from_expression("sin(x)*exp(-y) + x**2/(1 + abs(y)) - 2**y + tanh(z) + tan(z/4)", [(-1, 1)] * 3, ("x", "y", "z")),
    from_expression("3", [(-1, 1)], ("x",)),
]
every_landscape = pytest.mark.parametrize("landscape", VARIANTS, ids=lambda v: f"{v.name}-{v.dimension}")
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def points(landscape, count, dtype):
    """Random points of the box, shape (count, d)."""
    low, high = torch.tensor(landscape.bounds, dtype=torch.float64).T
    uniform = torch.rand(count, landscape.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (low + (high - low) * uniform).to(dtype)


def test_the_registered_names():
    assert set(names()) >= {
        "quadratic", "quadratic_saddle", "beale", "double_well", "rosenbrock", "monkey_saddle", "ackley",
        "deep_linear", "one_neuron", "matrix_factorization",
    }  # fmt: skip
    assert all(get(name).name == name for name in names())


@every_landscape
def test_stored_points_are_critical(landscape):
    for point in landscape.critical_points:
        gradient = landscape.gradient(torch.tensor(point, dtype=torch.float64))
        assert gradient.norm() < 1e-9


@both_dtypes
@every_landscape
def test_loss_keeps_the_dtype_and_is_a_scalar(landscape, dtype):
    loss = landscape.loss(points(landscape, 1, dtype)[0])
    assert (loss.dtype, loss.shape) == (dtype, ())


@both_dtypes
@every_landscape
def test_gradients_batch_under_vmap(landscape, dtype):
    w = points(landscape, 7, dtype)
    batched = torch.func.vmap(torch.func.grad(landscape.loss))(w)
    rows = []
    for row in w:
        row = row.clone().requires_grad_()
        loss = landscape.loss(row)
        rows.append(torch.autograd.grad(loss, row)[0] if loss.requires_grad else torch.zeros_like(row))
    torch.testing.assert_close(
        batched, torch.stack(rows), rtol=100 * torch.finfo(dtype).eps, atol=1e-4 if dtype == torch.float32 else 1e-12
    )


@both_dtypes
@every_landscape
def test_a_gradient_traced_at_one_point_holds_at_all(landscape, dtype):
    """A Python branch on values, or a constant of the wrong dtype, would be frozen into the graph."""
    w = points(landscape, 7, dtype)
    gradient = torch.func.grad(landscape.loss)
    traced = make_fx(gradient)(w[0])
    for row in w:
        torch.testing.assert_close(traced(row), gradient(row), rtol=0, atol=0)


@every_landscape
def test_pickles_and_compares_by_value(landscape):
    copy = pickle.loads(pickle.dumps(landscape))
    assert copy == landscape and hash(copy) == hash(landscape)
    w = points(landscape, 1, torch.float64)[0]
    assert torch.equal(copy.loss(w), landscape.loss(w))


@pytest.mark.parametrize("name", names())
def test_equal_arguments_give_equal_losses(name):
    assert len({get(name).loss, get(name).loss}) == 1


def test_different_parameters_give_different_losses():
    assert get("quadratic", eigenvalues=[1.0]).loss != get("quadratic", eigenvalues=[2.0]).loss
    assert get("one_neuron", seed=0).loss != get("one_neuron", seed=1).loss


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("himmelblau", {}, r"landscape: got 'himmelblau', expected one of quadratic, .*matrix_factorization"),
        ("rosenbrock", {"depth": 3}, r"parameters of rosenbrock: got \['depth'\], expected dimension"),
        ("rosenbrock", {"dimension": 1}, "dimension: got 1, expected a whole number >= 2"),
        ("ackley", {"dimension": 0}, "dimension: got 0, expected a whole number >= 1"),
        ("deep_linear", {"depth": 1.5}, "depth: got 1.5, expected a whole number >= 2"),
        ("quadratic", {"eigenvalues": []}, "eigenvalues: got .*, expected one number for each coordinate"),
        ("quadratic", {"eigenvalues": -1.0}, "eigenvalues: got -1.0, expected one number for each coordinate"),
        ("quadratic", {"eigenvalues": [float("nan")]}, "eigenvalues: got nan, expected a finite number"),
        ("one_neuron", {"data": ([1.0, 2.0], [1.0])}, "data: got .*, expected .x, y., two equally long arrays"),
        ("one_neuron", {"data": ([0.0, 0.0], [1.0, 1.0])}, "data: got .* with some x != 0"),
        ("one_neuron", {"data": ([1.0], [float("inf")])}, "data: got .* of finite numbers"),
        ("one_neuron", {"data": 3}, "data: got 3, expected"),
        ("one_neuron", {"seed": -1}, "seed: got -1, expected a whole number >= 0"),
    ],
)
def test_wrong_use_is_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        get(name, **parameters)
