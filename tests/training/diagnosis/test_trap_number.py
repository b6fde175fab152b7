"""The trap number against quadratics, where it is known, and against batches written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from saddlescope.training.diagnosis.effective_curvature import effective_curvature
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.trap_number import (
    escape_curvature,
    escape_direction,
    measure_responses,
    predicted_curvature,
    trap_number,
)

EIGENVALUES = torch.tensor([-2.0, -0.5, 1.0, 3.0], dtype=torch.float64)
V = torch.eye(4, dtype=torch.float64)[:2]


def additive(noise):
    """A quadratic whose batch is a vector added to the gradient."""
    return 0.5 * (EIGENVALUES * weights.square()).sum() + noise[0] @ weights


weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)


def draws(count, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(1, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_additive_noise_gives_rho_lam_over_the_mean_inverse_norm():
    batches = draws(40)
    inverse = np.mean([1 / b.norm().item() for b in batches])
    found = measure_responses(additive, [weights], V, batches)
    for i, lam in enumerate((-2.0, -0.5)):
        tau = trap_number(found, 0.3, i)
        assert tau.value == pytest.approx(0.3 * abs(lam) * inverse, rel=1e-12)
        assert found.curvature[:, i, i] == pytest.approx(lam)
    assert found.gradient_norms == pytest.approx([b.norm().item() for b in batches])
    assert found.products == 80


def test_prediction_is_the_derivative_of_the_mean_sam_gradient():
    """On a quadratic it is exact in rho; the step aside tends to it as the square of its length."""
    batches = draws(12, seed=1)
    for rho in (0.1, 2.0):
        predicted = predicted_curvature(measure_responses(additive, [weights], V, batches), rho)
        errors = []
        for x in (0.02, 0.01):
            felt = effective_curvature(additive, [weights], V[0], batches, rho=rho, displacement=x)
            errors.append(abs(felt.value - predicted.value))
        assert errors[1] < 1e-3
        assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)
        assert felt.error == pytest.approx(predicted.error, rel=1e-2)


def test_turning_the_gradient_takes_off_what_the_trap_number_leaves_in():
    """With the gradient along v the direction of ascent does not turn, and SAM's curvature is the plain one."""
    batch = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = measure_responses(additive, [weights], V, [batch] * 4)
    assert trap_number(found, 5.0).value == pytest.approx(10.0)
    assert predicted_curvature(found, 5.0).value == pytest.approx(-2.0)


def test_sample_curvature_counts_beyond_the_mean():
    """H_B = -1 +- s along v: E|H_B v|^2 = 1 + s^2, which the square of the mean curvature leaves out."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def loss_fn(batch):
        return -0.5 * (1 + batch[0]) * w[0] ** 2 + w[1]

    batches = [torch.tensor([s], dtype=torch.float64) for s in (-3.0, 3.0)] * 5
    found = measure_responses(loss_fn, [w], torch.tensor([[1.0, 0.0]], dtype=torch.float64), batches)
    assert trap_number(found, 0.2).value == pytest.approx(0.2 * (1 + 9))


def test_without_negative_curvature_there_is_no_trap_number():
    found = measure_responses(additive, [weights], torch.eye(4, dtype=torch.float64)[2:3], draws(4))
    assert math.isnan(trap_number(found, 0.3).value)


def test_the_weak_direction_is_the_exit_on_a_full_batch():
    """|g| = 1 and rho = .8 on (-2, -.5): effective curvatures -2 + 3.2 and -.5 + .2."""
    full = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    found = measure_responses(additive, [weights], V, [full] * 8)
    assert np.abs(escape_direction(found, 0.8)) == pytest.approx([0.0, 1.0], abs=1e-12)
    assert escape_curvature(found, 0.8).value == pytest.approx(-0.3)
    assert trap_number(found, 0.8).value == pytest.approx(1.6)
    assert escape_curvature(found, 2.5).value == pytest.approx(0.125)  # all held: -.5 + .625


def test_choice_and_measurement_of_the_exit_are_on_different_batches():
    """Zero-mean curvature noise: chosen on the batches it is measured on, the smallest eigenvalue is below zero."""
    w = torch.zeros(6, dtype=torch.float64, requires_grad=True)

    def loss_fn(batch):
        return 0.5 * (batch[0] * w.square()).sum() + w[0]

    values = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        batches = list(torch.randn(8, 1, 6, generator=generator, dtype=torch.float64))
        found = measure_responses(loss_fn, [w], torch.eye(6, dtype=torch.float64)[:5], batches)
        values.append(escape_curvature(found, 0.0).value)
    mean = Estimate.mean(values)
    assert abs(mean.value) < 3.3 * mean.error  # 99.9%
    assert mean.error < 0.1


def test_jackknife_error_is_that_of_repeated_draws():
    singles = [trap_number(measure_responses(additive, [weights], V, draws(16, seed=s)), 1.0) for s in range(80)]
    spread = np.std([t.value for t in singles], ddof=1)
    # the ratio of two standard deviations from 80 draws is within 30% with 99.9% confidence
    assert np.mean([t.error for t in singles]) == pytest.approx(spread, rel=0.3)


def test_curvature_and_response_of_a_batch_go_together_in_the_error():
    """H_B = -1 + s: |H_B|^2 / |lam| moves half as much with s as |H_B|^2 does alone."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def loss_fn(batch):
        return -0.5 * (1 - batch[0]) * w[0] ** 2 + w[1]

    v = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = []
    for seed in range(80):
        generator = torch.Generator().manual_seed(seed)
        batches = list(0.3 * torch.randn(16, 1, generator=generator, dtype=torch.float64))
        found.append(trap_number(measure_responses(loss_fn, [w], v, batches), 1.0))
    spread = np.std([t.value for t in found], ddof=1)
    assert np.mean([t.error for t in found]) == pytest.approx(spread, rel=0.3)


def test_intervals_hold_at_their_rate():
    covered = 0
    for seed in range(400):
        found = Estimate.mean(np.random.default_rng(seed).normal(1.0, 2.0, 5))
        covered += found.low < 1.0 < found.high
    assert 365 <= covered <= 394  # binomial, 95%, 99.9% of the time


def test_a_single_sample_has_no_interval():
    one = Estimate.mean([3.0])
    assert one.low == -math.inf and one.high == math.inf
    assert one.to_dict() == {"value": 3.0, "error": None, "samples": 1}


def test_stepping_aside_leaves_the_weights_as_they_were():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    before = [p.detach().clone() for p in model.parameters()]
    batch = torch.randn(5, 3)
    v = torch.ones(4) / 2
    effective_curvature(lambda b: model(b).square().mean(), model.parameters(), v, [batch], rho=0.5, displacement=0.1)
    assert all(torch.equal(a, p) for a, p in zip(before, model.parameters(), strict=True))


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="displacement: got 0.0"):
        effective_curvature(additive, [weights], V[0], draws(1), rho=0.1, displacement=0.0)
    with pytest.raises(ValueError, match="batches: got 'none'"):
        effective_curvature(additive, [weights], V[0], [], rho=0.1, displacement=0.1)
    with pytest.raises(ValueError, match="4 or more"):
        escape_curvature(measure_responses(additive, [weights], V, draws(3)), 0.1)


@pytest.mark.parametrize("rho", [0.5, 1.0])
def test_the_one_neuron_network_has_the_trap_number_of_its_formula(rho):
    """l = E(a tanh(b x) - y)^2 / 2 near the origin: H = -[[0, c], [c, 0]] with c = E[x y], v = (1, 1) / sqrt 2."""
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)
    y = torch.tanh(2 * x)
    w = torch.full((2,), 1e-4, dtype=torch.float64)
    w[1] *= -1.0  # on the stable direction, where g is along it
    w.requires_grad_()

    def loss_fn(batch):
        return 0.5 * (w[0] * torch.tanh(w[1] * batch[0]) - batch[1]).square().mean()

    c = float((x * y).mean())
    v = torch.full((1, 2), math.sqrt(0.5), dtype=torch.float64)
    found = measure_responses(loss_fn, [w], v, [(x, y)] * 4)
    norm = c * 1e-4 * math.sqrt(2)
    assert found.curvature[0, 0, 0] == pytest.approx(-c, rel=1e-6)
    assert trap_number(found, rho * 1e-4).value == pytest.approx(rho * 1e-4 * c / norm, rel=1e-6)
