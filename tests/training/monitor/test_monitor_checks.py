"""The trap number against the optimizer's own perturbation, dense Hessians and repetition; the verdict's rules."""

import math
from dataclasses import replace

import pytest
import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from saddlescope.optim import SAM
from saddlescope.optim.variants import ASAM, FriendlySAM
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.monitor.plateau import Plateau
from saddlescope.training.monitor.trap_check import TrapCheck, TrapProbe, explain, judge

BATCHES = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
A, B = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.3, 0.8]).double()


def loss_on(batch, w):
    return ((batch @ w).cos() + 0.1 * (batch @ w.tanh()) ** 2).mean() - w[0] * w[1]


def problem(options, rhos=(0.4, 0.4), scaler=None):
    """Two parameter groups of two weights each, and a closure for each batch."""
    first, second = A.clone().requires_grad_(), B.clone().requires_grad_()
    base = SGD([{"params": [first], "rho": rhos[0]}, {"params": [second], "rho": rhos[1]}], lr=0.0)
    opt = base if options is None else SAM(base, **options)

    def closure_of(batch):
        def closure():
            opt.zero_grad()
            loss = loss_on(batch, torch.cat([first, second]))
            (loss if scaler is None else scaler.scale(loss)).backward()
            return loss

        return closure

    return opt, [closure_of(batch) for batch in BATCHES]


def perturbation(opt):
    """Return ``rho D g / n`` as the optimizer makes it, and ``g``."""
    parameters = [p for group in opt.param_groups for p in group["params"]]
    gradient = torch.cat([p.grad for p in parameters])
    before = torch.cat([p.detach().clone() for p in parameters])
    with opt.perturbed():
        return torch.cat([p.detach().clone() for p in parameters]) - before, gradient


@pytest.mark.parametrize(
    ("options", "rhos"),
    [
        ({}, (0.4, 0.4)),
        ({}, (0.4, 0.1)),
        ({"normalized": False}, (0.4, 0.4)),
        ({"variant": ASAM(eta=0.2, biases=True)}, (0.4, 0.4)),
        ({"variant": ASAM(eta=0.2)}, (0.4, 0.4)),
    ],
)
def test_the_trap_number_is_what_the_optimizers_own_perturbation_makes_it(options, rhos):
    """SAM moves by ``M g`` with a diagonal ``M``; along ``v`` that adds ``(H v).M(H v)`` to ``v.H v``."""
    opt, closures = problem(options, rhos)
    probe = TrapProbe(opt)
    opt.step(closures[0])
    assert probe.search(closures[0], 8, lambda: True) == 4
    w = torch.cat([A, B])
    values, vectors = torch.linalg.eigh(torch.func.hessian(lambda w: loss_on(BATCHES[0], w))(w))
    v = vectors[:, 0]
    assert values[0] < 0
    curvatures, responses = [], []
    for batch, closure in zip(BATCHES[1:], closures[1:], strict=True):
        opt.step(closure)
        probe.sample(closure)
        closure()
        moved, gradient = perturbation(opt)
        product = torch.func.hessian(lambda w, batch=batch: loss_on(batch, w))(w) @ v
        curvatures.append((v @ product).item())
        responses.append((product * (moved / gradient) @ product).item())
    check = probe.result(step=9, reason="schedule", products=10, seconds=0.1)
    assert check.minimum == pytest.approx(values[0].item()) and check.maximum == pytest.approx(values[-1].item())
    tau = check.trap_number
    assert check.curvature.value == pytest.approx(sum(curvatures) / 6, rel=1e-9) and check.curvature.value < 0
    assert tau.value == pytest.approx(-sum(responses) / sum(curvatures), rel=1e-9)
    assert check.critical_rho.value == pytest.approx(check.rho / tau.value, rel=1e-9)
    without_one = [-(sum(responses) - r) / (sum(curvatures) - c) for r, c in zip(responses, curvatures, strict=True)]
    spread = math.sqrt(5 / 6 * sum((t - sum(without_one) / 6) ** 2 for t in without_one))  # the jackknife
    assert tau.error == pytest.approx(spread, rel=1e-9) and tau.samples == 6
    assert check.rho == pytest.approx(0.4) and check.batches == 6


def test_at_a_quadratic_saddle_the_trap_number_is_rho_lambda_over_the_gradient():
    w = torch.tensor([0.3, 0.01], dtype=torch.float64, requires_grad=True)
    opt = SAM(SGD([w], lr=0.0), rho=0.2)

    def closure():
        opt.zero_grad()
        loss = w[0] ** 2 - 1.5 * w[1] ** 2
        loss.backward()
        return loss

    probe = TrapProbe(opt)
    opt.step(closure)
    probe.search(closure, 8, lambda: True)
    for _ in range(3):
        probe.sample(closure)
    check = probe.result(step=1, reason="schedule", products=5, seconds=0.0)
    gradient = math.hypot(0.6, 0.03)
    assert (check.minimum, check.maximum, check.curvature.value) == pytest.approx((-3.0, 2.0, -3.0))
    assert check.trap_number.value == pytest.approx(0.2 * 3.0 / gradient) and check.trap_number.error < 1e-9
    assert check.gradient_norm == pytest.approx(gradient)


def test_beside_another_optimizer_it_says_what_radius_would_trap():
    plain, closures = problem(None)
    friendly, closures_of_friendly = problem({"variant": FriendlySAM()})
    sam, closures_of_sam = problem({})
    checks = []
    for opt, of_opt in ((plain, closures), (friendly, closures_of_friendly), (sam, closures_of_sam)):
        probe = TrapProbe(opt)
        for i, closure in enumerate(of_opt):
            opt.step(closure)
            probe.sample(closure) if i else probe.search(closure, 8, lambda: True)
        checks.append(probe.result(step=7, reason="schedule", products=10, seconds=0.0))
    assert checks[0].rho == checks[1].rho == checks[0].trap_number.value == checks[1].trap_number.value == 0.0
    critical = [check.critical_rho.value for check in checks]
    assert critical[0] == critical[1] == pytest.approx(critical[2], rel=1e-12)
    assert critical[2] == pytest.approx(0.4 / checks[2].trap_number.value)


def test_a_gradient_scaler_changes_nothing():
    results = []
    for scaler in (None, GradScaler("cpu", init_scale=1024.0)):
        opt, closures = problem({}, scaler=scaler)
        probe = TrapProbe(opt, scaler)
        for i, closure in enumerate(closures):
            opt.step(closure, scaler=scaler)
            if scaler is not None:
                scaler.update()
            probe.sample(closure) if i else probe.search(closure, 8, lambda: True)
        check = probe.result(step=7, reason="schedule", products=10, seconds=0.0).to_dict()
        results.append([value for value in check.values() if not isinstance(value, str)])
    assert results[0] == pytest.approx(results[1], rel=1e-9)


def test_a_capped_radius_is_the_one_that_counts():
    from saddlescope.optim import RadiusCap

    opt, closures = problem({"radius_cap": RadiusCap(fraction=0.25, every=1, products=4, form="batch")}, (50.0, 50.0))
    probe = TrapProbe(opt)
    opt.step(closures[0])
    probe.search(closures[0], 8, lambda: True)
    for _ in range(2):
        probe.sample(closures[0])
    check = probe.result(step=1, reason="schedule", products=6, seconds=0.0)
    assert check.rho == opt.last_step.rho_used < 1.0
    assert check.trap_number.value == pytest.approx(0.25, rel=1e-6)


def test_the_next_search_starts_from_the_last_direction():
    """In a space of 60, three products find little from a random start, and more each time they start from the last."""
    spectrum = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64)
    w = torch.zeros(60, dtype=torch.float64, requires_grad=True)
    opt = SGD([w], lr=0.0)

    def closure():
        opt.zero_grad()
        loss = (spectrum * w**2).sum() / 2
        loss.backward()
        return loss

    probe, found = TrapProbe(opt), []
    for _ in range(5):
        probe.search(closure, 3, lambda: True)
        found.append(probe.result(step=1, reason="schedule", products=3, seconds=0.0).minimum)
    fresh = TrapProbe(opt)
    fresh.load_state_dict(probe.state_dict())
    fresh.search(closure, 3, lambda: True)
    assert found[-1] < found[0] - 0.1
    assert fresh.result(step=1, reason="schedule", products=3, seconds=0.0).minimum < found[0] - 0.1


def test_a_search_stops_when_it_is_told_to():
    opt, closures = problem({})
    opt.step(closures[0])
    answers = iter([True, False])
    assert TrapProbe(opt).search(closures[0], 4, lambda: next(answers)) == 2


def test_products_that_are_not_finite_are_an_error_and_the_old_direction_stays():
    opt, closures = problem({})
    probe = TrapProbe(opt)
    opt.step(closures[0])
    probe.search(closures[0], 4, lambda: True)
    known = probe.vector.clone()
    with torch.no_grad():
        opt.param_groups[0]["params"][0].fill_(math.nan)
    with pytest.raises(FloatingPointError):
        probe.search(closures[0], 4, lambda: True)
    assert torch.equal(probe.vector, known)


CHECK = TrapCheck(
    step=100,
    reason="schedule",
    curvature=Estimate(-0.2, 0.01, 4),
    trap_number=Estimate(2.0, 0.1, 4),
    critical_rho=Estimate(0.5, 0.025, 4),
    minimum=-0.25,
    maximum=0.5,
    residual=0.01,
    gradient_norm=0.1,
    rho=1.0,
    products=12,
    seconds=0.1,
)
FLAT = Plateau(flat=True, fall=0.0, error=0.01, level=2.3)
FALLING = Plateau(flat=False, fall=0.5, error=0.01, level=1.8)
UNKNOWN = Plateau(flat=False, fall=math.nan, error=math.nan, level=math.nan)
NO_CURVATURE = {"curvature": Estimate(0.01, 0.01, 4), "trap_number": Estimate(math.nan, math.nan, 4)}


def number(value, error=0.1, samples=4):
    return {"trap_number": Estimate(value, error, samples)}


@pytest.mark.parametrize(
    ("changes", "plateau", "finding"),
    [
        ({}, FLAT, "trapped"),
        ({}, FALLING, "slowed"),
        ({}, UNKNOWN, "slowed"),
        (number(1.31), FLAT, "slowed"),  # 3.18 errors, Student's t for four batches, reach to 1
        (number(1.33), FLAT, "trapped"),
        (number(1.31, samples=16), FLAT, "trapped"),
        (number(0.9), FLAT, "slowed"),
        (number(0.6), FLAT, "free"),
        (number(0.75), FLAT, "undetermined"),
        ({**number(0.0, 0.0), "rho": 0.0}, FLAT, "free"),
        ({"curvature": Estimate(-0.2, 0.1, 4)}, FLAT, "undetermined"),
        ({"curvature": Estimate(-0.2, 0.1, 4)}, FALLING, "free"),
        (NO_CURVATURE, FALLING, "free"),
        (NO_CURVATURE, FLAT, "undetermined"),
        (NO_CURVATURE, UNKNOWN, "undetermined"),
        ({"curvature": Estimate(-0.2, math.nan, 1), **number(2.0, math.nan, 1)}, FLAT, "undetermined"),
    ],
)
def test_the_verdicts_rules(changes, plateau, finding):
    assert judge(replace(CHECK, **changes), plateau) == finding


def test_findings_in_words():
    assert explain(CHECK, FLAT) == (
        "The loss curves down (curvature -0.2 ± 0.01 over 4 batches); trap number 2 ± 0.1 at rho = 1, "
        "radii below 0.5 ± 0.025 let go; the loss stands still."
    )
    without = explain(replace(CHECK, rho=0.0, **number(0.0)), FALLING)
    assert "SAM with a radius above 0.5 ± 0.025 is held; the loss falls" in without
    assert explain(replace(CHECK, **NO_CURVATURE), UNKNOWN).startswith("No negative curvature was shown")
