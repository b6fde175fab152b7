"""The cap against its rule written out with dense Hessians, and what it does at a saddle."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from saddlescope.optim import SAM, RadiusCap, closure_hessian
from saddlescope.optim.radius_cap import GRAPH, PRODUCT, RadiusCapState
from saddlescope.optim.second_pass import RandomState

FORMS = ("ascent", "response", "batch")

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


def test_ascent_form_is_its_formula_and_takes_no_products():
    points, radii, opt = run(RadiusCap(fraction=0.3, form="ascent"), steps=6, rho=2.0)
    known, bound = None, 0
    for step in range(6):
        gradient, _ = dense(step, points[step])
        limit = math.inf if known is None else 0.3 * gradient.norm().item() / known
        assert radii[step] == pytest.approx(min(2.0, limit), rel=1e-9)
        bound += limit < 2.0
        perturbed, _ = dense(step, points[step] + radii[step] * gradient / gradient.norm())
        response = (perturbed - gradient).norm().item() / radii[step]
        known = response if known is None else 0.9 * known + 0.1 * response
    assert bound == 5 and opt.hessian_products == 0


@pytest.mark.parametrize("form", FORMS)
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


def quadratic_saddle(cap, steps=60, start=(0.4, 1e-3)):
    """Run on ``x^2 - y^2`` from beside the stable axis and return the path, shape (steps + 1, 2)."""
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
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


@pytest.mark.parametrize("form", FORMS)
def test_at_a_quadratic_saddle_the_cap_slows_the_escape_by_exactly_its_fraction(form):
    """With ``rho_t = c |g| / |lam|`` the unstable axis grows by ``1 + lr |lam| (1 - c)`` a step."""
    assert quadratic_saddle(None)[-1, 1].abs() < 1e-3  # uncapped it shrinks
    path = quadratic_saddle(RadiusCap(fraction=0.25, every=10, products=2, form=form))
    path = path[form == "ascent" :]  # it knows nothing before its first step
    growth = path[1:, 1] / path[:-1, 1]
    assert torch.allclose(growth, torch.full_like(growth, 1 + 0.05 * 2 * 0.75), rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_is_held_already_is_let_go(form):
    """It bounces along the stable axis, at ``|x| = lr rho lam / (2 - lr lam)``: ``g_p`` has no part across ``g``."""
    held = quadratic_saddle(None, steps=150)
    ring = 0.05 * 2 / (2 - 0.05 * 2)
    assert torch.allclose(held[-2:, 0].abs(), torch.full((2,), ring, dtype=torch.float64), rtol=1e-6)
    assert held[-2, 0] * held[-1, 0] < 0 and held[-1, 1].abs() < 1e-12
    path = quadratic_saddle(RadiusCap(fraction=0.25, every=10, products=2, form=form), start=held[-1].tolist())
    path = path[form == "ascent" :]
    growth = path[1:, 1] / path[:-1, 1]
    assert torch.allclose(growth, torch.full_like(growth, 1 + 0.05 * 2 * 0.75), rtol=0, atol=1e-9)


def test_a_frozen_layer_that_thaws_starts_the_search_anew():
    a, b = (torch.ones(2, requires_grad=flag) for flag in (True, False))
    opt = SAM(SGD([a, b], lr=0.1), rho=5.0, radius_cap=RadiusCap(every=100, products=4, form="batch", fraction=0.5))

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


@pytest.mark.parametrize("form", FORMS)
def test_noise_in_the_gradient_does_not_change_the_escape(form):
    """Two runs with the same noise: their difference along the unstable axis grows by exactly ``1 + lr |lam| (1 - c)``.

    Additive noise leaves ``H_B = H``, so that every form has ``rho_t = c |g_B| / |lam|`` and the capped step is linear.
    """
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = []
    for start in (0.0, 1e-3):
        w = torch.tensor([0.4, start], dtype=torch.float64, requires_grad=True)
        cap = RadiusCap(fraction=0.4, every=10, products=2, form=form)
        opt = SAM(SGD([w], lr=0.05), rho=1e-3, radius_cap=cap)
        path = []
        for xi in noise:

            def closure(opt=opt, w=w, xi=xi):
                opt.zero_grad()
                loss = w[0] ** 2 - w[1] ** 2 + w @ xi
                loss.backward()
                return loss

            opt.step(closure)
            opt.param_groups[0]["rho"] = 1e3  # from the second step on, as the ascent form needs a first one
            path.append(w[1].item())
        ends.append(torch.tensor(path, dtype=torch.float64))
    difference = ends[1] - ends[0]
    growth = difference[2:] / difference[1:-1]
    assert torch.allclose(growth, torch.full_like(growth, 1 + 0.05 * 2 * 0.6), rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", ["batch", "response"])
@pytest.mark.parametrize(("budget", "horizon"), [(0.1, 600), (0.5, 50), (1.0, 40)])
def test_the_budget_is_kept_and_used(form, budget, horizon, monkeypatch):
    """At every step the account is what was done, counted apart, and what was due and not done had no room."""
    done = {"products": 0, "graphs": 0}
    true_product, true_gradients = closure_hessian.hessian_product, closure_hessian.gradients_of

    def product(*args, **options):
        done["products"] += 1
        return true_product(*args, **options)

    def gradients(*args, **options):
        done["graphs"] += 1
        return true_gradients(*args, **options)

    monkeypatch.setattr(closure_hessian, "hessian_product", product)
    monkeypatch.setattr(closure_hessian, "gradients_of", gradients)
    state = RadiusCapState(RadiusCap(every=6, products=3, form=form, budget=budget, horizon=horizon))
    w, waited = START.clone().requires_grad_(), 0
    for step in range(700):
        before = dict(done)
        state.observe(lambda: loss_on(BATCHES[0])(w).backward(), [w], RandomState.now([]))
        allowed = 2 * budget * max(step + 1, horizon)
        assert state.products == done["products"]
        assert state.spent == pytest.approx(GRAPH * done["graphs"] + PRODUCT * done["products"], rel=1e-12)
        assert state.spent <= allowed
        if done == before and step % 6 == 0:
            waited += 1
            assert state.spent + GRAPH + 3 * PRODUCT > allowed
    assert waited > 0 or budget == 1.0
    # a run that falls due while another waits is one with it
    assert state.spent > 0.6 * 2 * budget * 700 or budget == 1.0


def test_the_budget_is_kept_when_every_search_is_a_first_one():
    """Layers that freeze and thaw: each run has one product more, and waits for that too."""
    w, u = START.clone().requires_grad_(), torch.ones(4, dtype=torch.float64, requires_grad=True)
    state = RadiusCapState(RadiusCap(every=100, products=3, form="response", budget=0.31, horizon=20))
    shares = []
    for step in range(300):
        parameters = [w, u] if step // 5 % 2 else [w]
        state.observe(lambda: loss_on(BATCHES[0])(w * u).backward(), parameters, RandomState.now([]))
        shares.append(state.spent / (2 * 0.31 * max(step + 1, 20)))
    assert max(shares) <= 1.0 and state.products > 4 * 10


@pytest.mark.parametrize("form", FORMS)
def test_the_scale_of_a_scaler_changes_nothing(form):
    runs = []
    for enabled in (True, False):
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(16, 4)
        scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=2, enabled=enabled)
        cap = RadiusCap(fraction=0.2, every=3, products=4, form=form)
        opt = SAM(SGD(model.parameters(), lr=0.1), rho=3.0, radius_cap=cap)
        radii = []

        def closure(opt=opt, model=model, x=x, scaler=scaler):
            opt.zero_grad()
            loss = model(x).cos().mean()
            scaler.scale(loss).backward()
            return loss

        for _ in range(8):
            opt.step(closure, scaler=scaler)
            scaler.update()
            radii.append(opt.last_step.rho_used)
        assert scaler.get_scale() == (2.0**14 if enabled else 1.0)
        runs.append(radii)
    assert runs[0] == runs[1]
    assert min(runs[0]) < 3.0


@pytest.mark.parametrize("form", FORMS)
def test_a_closure_that_accumulates_is_one_on_the_whole_batch(form):
    radii = []
    for parts in (1, 5):
        w = START.clone().requires_grad_()
        cap = RadiusCap(fraction=0.2, every=2, products=4, form=form)
        opt = SAM(SGD([w], lr=0.05), rho=50.0, radius_cap=cap)

        def closure(opt=opt, w=w, parts=parts, of_step=radii):
            opt.zero_grad()
            for part in BATCHES[len(of_step) % 6].chunk(parts):
                (loss_on(part)(w) / parts).backward()
            return torch.zeros(())

        for _ in range(6):
            opt.step(closure)
            radii.append(opt.last_step.rho_used)
    assert radii[:6] == pytest.approx(radii[6:], rel=1e-9)
    assert min(radii) < 50.0


@pytest.mark.parametrize("form", FORMS)
def test_resumes_bit_for_bit_from_a_file(form):
    cap = RadiusCap(fraction=0.2, every=3, products=2, form=form, budget=0.5, horizon=20)

    def make(weights):
        w = weights.clone().requires_grad_()
        return w, SAM(SGD([w], lr=0.05, momentum=0.9), rho=50.0, radius_cap=cap)

    def go_on(w, opt, steps):
        for step in steps:

            def closure(batch=BATCHES[step % 6]):
                opt.zero_grad()
                loss = loss_on(batch)(w)
                loss.backward()
                return loss

            opt.step(closure)
        return opt.last_step.rho_used

    w, opt = make(START)
    go_on(w, opt, range(5))
    file = io.BytesIO()
    torch.save({"w": w.detach(), "opt": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, opt_resumed = make(saved["w"])
    opt_resumed.load_state_dict(copy.deepcopy(saved["opt"]))
    assert go_on(resumed, opt_resumed, range(5, 12)) == go_on(w, opt, range(5, 12))
    assert torch.equal(resumed, w) and opt_resumed.hessian_products == opt.hessian_products


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_that_is_not_finite_teaches_nothing(form):
    w = START.clone().requires_grad_()
    cap = RadiusCap(fraction=0.2, every=1, products=2, form=form)
    opt = SAM(SGD([w], lr=0.0), rho=50.0, radius_cap=cap)

    def closure(factor):
        opt.zero_grad()
        loss = loss_on(BATCHES[0])(w) * factor
        loss.backward()
        return loss

    for _ in range(20):
        opt.step(lambda: closure(1.0))
    before = opt.last_step.rho_used
    opt.step(lambda: closure(math.inf))
    opt.step(lambda: closure(1.0))
    assert opt.skipped_steps == 1
    assert opt.last_step.rho_used == pytest.approx(before, rel=1e-2) and before < 50.0


def test_a_model_with_attention_has_a_cap():
    torch.manual_seed(0)
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), torch.randn(4, 6, 8)
    opt = SAM(SGD(layer.parameters(), lr=0.1), rho=1e6, radius_cap=RadiusCap(every=1, products=4, form="batch"))

    def closure():
        opt.zero_grad()
        loss = (layer(x) * x).sin().mean()
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.hessian_products == 4 and opt.last_step.rho_used < 1e6


@pytest.mark.parametrize(
    "options",
    [
        {"fraction": 0.0},
        {"every": 0},
        {"products": 0.5},
        {"form": "mean"},
        {"budget": 0.0},
        {"horizon": 0},
        {"products": 200, "form": "batch"},
    ],
)
def test_wrong_use_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RadiusCap(**options)
