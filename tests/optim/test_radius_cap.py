"""The cap against its rule written out with dense Hessians, and what it does at a saddle."""

import pytest
import torch
from torch.optim import SGD

from saddlescope.optim import SAM, RadiusCap

BATCHES = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
START = torch.tensor([0.5, -1.0, 0.3, 0.8], dtype=torch.float64)


def loss_on(batch):
    """A loss in four variables, with negative curvature on every batch."""
    return lambda w: ((batch @ w).cos() + 0.1 * (batch @ w.tanh()) ** 2).mean() - w[0] * w[1]


def run(cap, steps, rho=50.0, lr=0.05):
    """Return for each step the weights before it and the radius used."""
    w = START.clone().requires_grad_()
    opt = SAM(SGD([w], lr=lr), rho=rho, radius_cap=cap)
    points, radii = [], []

    def closure():
        opt.zero_grad()
        value = loss_on(BATCHES[len(radii)])(w)
        value.backward()
        return value

    for _ in range(steps):
        points.append(w.detach().clone())
        opt.step(closure)
        radii.append(opt.last_step.rho_used)
    return points, radii, opt


def dense(step, point):
    """The gradient and the Hessian of one step's batch."""
    loss = loss_on(BATCHES[step])
    return torch.func.grad(loss)(point), torch.func.hessian(loss)(point)


def test_batch_form_is_its_formula():
    points, radii, opt = run(RadiusCap(fraction=0.3, every=2, products=4, form="batch"), steps=4)
    for step in range(4):
        gradient, _ = dense(step, points[step])
        latest = step - step % 2  # of the two steps that share one Lanczos run
        lowest = torch.linalg.eigvalsh(dense(latest, points[latest])[1])[0]
        assert lowest < 0
        assert radii[step] == pytest.approx((0.3 * gradient.norm() / -lowest).item(), rel=1e-9)
    assert opt.hessian_products == 2 * 4


def test_response_form_is_its_formula():
    points, radii, opt = run(RadiusCap(fraction=0.3, every=5, products=4, form="response"), steps=5)
    v = torch.linalg.eigh(dense(0, points[0])[1]).eigenvectors[:, 0]
    curvature = response = 0.0
    for step in range(5):
        gradient, hessian = dense(step, points[step])
        count = min(step + 1, 4)  # the means run over about as many batches as there are products in a run
        curvature += (v @ hessian @ v - curvature) / count
        response += ((hessian @ v).square().sum() - response) / count
        assert curvature < 0
        assert radii[step] == pytest.approx((0.3 * -curvature * gradient.norm() / response).item(), rel=1e-9)
    assert opt.hessian_products == 4 + 5


@pytest.mark.parametrize("form", ["batch", "response"])
def test_a_radius_below_the_cap_is_left_alone(form):
    _, radii, _ = run(RadiusCap(products=4, form=form), steps=3, rho=1e-3)
    assert radii == [1e-3] * 3


@pytest.mark.parametrize("form", ["batch", "response"])
def test_no_cap_where_nothing_curves_down(form):
    w = torch.ones(3, requires_grad=True)
    opt = SAM(SGD([w], lr=0.01), rho=7.0, radius_cap=RadiusCap(every=1, form=form))

    def closure():
        opt.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last_step.rho_used == 7.0


def quadratic_saddle(cap, steps=60):
    """Run on ``x^2 - y^2`` from beside the stable axis and return the path, shape (steps + 1, 2)."""
    w = torch.tensor([0.4, 1e-3], dtype=torch.float64, requires_grad=True)
    opt = SAM(SGD([w], lr=0.05), rho=1.0, radius_cap=cap)

    def closure():
        opt.zero_grad()
        loss = w[0] ** 2 - w[1] ** 2
        loss.backward()
        return loss

    path = [w.detach().clone()]
    for _ in range(steps):
        opt.step(closure)
        path.append(w.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("form", ["batch", "response"])
def test_at_a_quadratic_saddle_the_cap_slows_the_escape_by_exactly_its_fraction(form):
    """With ``rho_t = c |g| / |lam|`` the unstable axis grows by ``1 + lr |lam| (1 - c)`` a step."""
    assert quadratic_saddle(None)[-1, 1].abs() < 1e-3  # uncapped it shrinks
    path = quadratic_saddle(RadiusCap(fraction=0.25, every=10, products=2, form=form))
    growth = path[1:, 1] / path[:-1, 1]
    assert torch.allclose(growth, torch.full_like(growth, 1 + 0.05 * 2 * 0.75), rtol=0, atol=1e-9)


def test_a_frozen_layer_that_thaws_starts_the_search_anew():
    a, b = (torch.ones(2, requires_grad=flag) for flag in (True, False))
    opt = SAM(SGD([a, b], lr=0.1), rho=5.0, radius_cap=RadiusCap(every=100, products=4, form="batch"))

    def closure():
        opt.zero_grad()
        loss = -(a**2).sum() - 4 * (b**2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last_step.rho_used == pytest.approx(0.5 * opt.last_step.gradient_norm / 2, rel=1e-5)
    b.requires_grad_()
    opt.step(closure)
    assert opt.last_step.rho_used == pytest.approx(0.5 * opt.last_step.gradient_norm / 8, rel=1e-5)


@pytest.mark.parametrize("options", [{"fraction": 0.0}, {"every": 0}, {"products": 0.5}, {"form": "mean"}])
def test_wrong_use_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RadiusCap(**options)
