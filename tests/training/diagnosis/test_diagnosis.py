"""The whole examination on runs whose state is known, and that it leaves no trace."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from saddlescope.optim import SAM
from saddlescope.training.diagnosis.diagnose import diagnose
from saddlescope.training.diagnosis.measure import measure
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.diagnosis.rollout import Rollout, rollout, training_batches
from saddlescope.training.diagnosis.untouched import untouched
from saddlescope.training.tasks import Task, make_task

SAM_AT_ONE = OptimizerSettings(rho=1.0)
QUICK = {"samples": 8, "curvature_samples": 512, "watch": 40}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def digits_task():
    torch.manual_seed(0)
    return make_task("digits-mlp")


class Quadratic(nn.Module):
    """sum_i lam_i w_i^2 / 2 + noise.w, with everything known."""

    def __init__(self, eigenvalues, at):
        super().__init__()
        self.eigenvalues = torch.tensor(eigenvalues, dtype=torch.float64)
        self.w = nn.Parameter(torch.tensor(at, dtype=torch.float64))

    def forward(self, noise):
        return 0.5 * (self.eigenvalues * self.w.square()).sum() + (noise @ self.w).mean()


def quadratic_task(eigenvalues, at, noise=1.0):
    model = Quadratic(eigenvalues, at)

    def draw(size, generator):
        return (noise * torch.randn(size, len(at), generator=generator, dtype=torch.float64),)

    still = [(torch.zeros(1, len(at), dtype=torch.float64),)]
    return Task(model, lambda batch: model(batch[0]), still, draw if noise else None)


def test_numbers_of_a_quadratic():
    task = quadratic_task([-2.0, 1.0, 3.0], [0.0, 0.0, 0.0])
    settings = OptimizerSettings(lr=0.01, rho=0.3, batch_size=16)
    m = measure(task, settings, samples=32, watch=20)
    assert m.status == "complete" and m.directions == 1
    assert (m.lambda_min, m.lambda_max) == pytest.approx((-2.0, 3.0))
    assert m.residual_min < 1e-12
    assert m.curvature.value == pytest.approx(-2.0)
    for found, size, seed in ((m.trap_number, 16, 1), (m.micro_trap_number, 4, 2)):
        inverse = [1 / batch[0].mean(0).norm().item() for batch in training_batches(task, size, found.samples, seed)]
        assert found.value == pytest.approx(0.3 * 2.0 * np.mean(inverse))
    assert m.plain_curvature.value == pytest.approx(-2.0)
    assert m.theta == pytest.approx(0.01 * 3 / 2)
    # Lanczos at most three, one for each direction and batch, one for each quarter
    assert m.hessian_products == 3 + m.trap_number.samples + 32
    json.dumps(m.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("share", "asked"), [(0.3, 8), (1.0, 64), (3.0, 8)])
def test_sampling_goes_on_while_the_interval_spans_1(share, asked):
    """At the radius with tau = 1, by E[1 / |noise|] = Gamma((d - 1) / 2) / (sqrt 2 Gamma(d / 2)), no number tells."""
    inverse = math.sqrt(16) * math.gamma(3.5) / math.gamma(4.0) / math.sqrt(2)
    settings = OptimizerSettings(lr=0.01, rho=share / (2.0 * inverse), batch_size=16)
    m = measure(quadratic_task([-2.0, *[1.0] * 7], [0.0] * 8), settings, samples=8, watch=0)
    assert {m.trap_number.samples, m.effective_curvature.samples, m.curvature.samples} == {asked}
    assert m.escape_curvature.samples == m.escape_effective_curvature.samples == asked // 2
    assert m.trap_number.low < share < m.trap_number.high
    assert m.open is m.trap_number.spans(1.0) is (share == 1.0)


def test_stuck_sam_is_trapped_and_the_first_advice_frees_it(digits_task):
    found = diagnose(digits_task, SAM_AT_ONE, steps=100, tries=1, try_steps=100, **QUICK)
    assert found.verdict == "trapped"
    unchanged, advised = found.trials
    assert unchanged.losses[-1] > 2.25 and advised.losses[-1] < math.log(10) / 2
    assert unchanged.losses[0] == advised.losses[0]
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["trap_number"] > 1.0 and data["slowdown"] is None and data["lambda_min"] < 0.0
    assert len(data["residuals"]) == 2 and data["trials"][1]["change"] == data["advice"][0]["change"]


def test_healthy_training_is_free(digits_task):
    found = diagnose(digits_task, OptimizerSettings(rho=0.05, momentum=0.9), steps=20, **QUICK)
    assert found.verdict == "free" and found.advice.changes == ()
    assert found.measurement.fall.low > 0.0


def test_weights_that_are_nan_are_one_line(digits_task):
    with torch.no_grad():
        digits_task.model[0].weight[0, 0] = math.nan
    found = diagnose(digits_task, SAM_AT_ONE, tries=2, **QUICK)
    assert found.verdict == "undetermined" and found.trials == ()
    assert found.because == "The loss is not finite at these weights: nothing can be measured here."
    assert found.to_dict()["trap_number"] is None


def test_a_training_that_diverges_while_watched_is_a_result(digits_task):
    found = diagnose(digits_task, OptimizerSettings(rho=0.05, lr=1e8), **QUICK)
    assert found.measurement.status == "complete"
    assert found.verdict == "undetermined" and "grows without bounds" in found.because
    json.dumps(found.to_dict(), allow_nan=False)


def batch_norm_task():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    inputs, targets = torch.randn(96, 6), torch.randint(3, (96,))
    batches = list(zip(inputs.split(32), targets.split(32), strict=True))
    return Task(model, lambda batch: cross_entropy(model(batch[0]), batch[1]), batches)


def test_the_model_comes_back_bit_for_bit():
    task = batch_norm_task()
    task.loss_fn(task.batches[0]).backward()
    model, gradients = task.model, [p.grad for p in task.model.parameters()]
    kept = [g.clone() for g in gradients]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = diagnose(task, OptimizerSettings(rho=2.0), steps=3, tries=2, try_steps=3, samples=4, watch=8)
    assert found.measurement.micro_trap_number.samples == 0  # its batches come in one size
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for p, gradient, value in zip(model.parameters(), gradients, kept, strict=True):
        assert p.grad is gradient and torch.equal(gradient, value)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert model.training


def test_the_model_comes_back_when_something_throws():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(KeyError), untouched(model):
        model.eval()
        model[1].running_mean = torch.full((2,), 7.0)
        with torch.no_grad():
            model[0].weight.zero_()
        raise KeyError
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_same_seed_gives_the_same_diagnosis():
    first, second = (diagnose(batch_norm_task(), SAM_AT_ONE, samples=4, watch=8, seed=5) for _ in range(2))
    assert first.measurement.to_dict() == second.measurement.to_dict()


def test_rollout_is_the_plain_loop(digits_task):
    settings = OptimizerSettings(rho=0.3, momentum=0.9, lr=0.05, batch_size=32)
    watched = [digits_task.batches[0]]
    with untouched(digits_task.model):
        seen = rollout(digits_task, settings, 6, watched=watched, looks=3, seed=4)
    model = digits_task.model
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.3)
    losses = [digits_task.loss_fn(watched[0]).item()]
    for step, batch in enumerate(training_batches(digits_task, 32, 6, 4), start=1):

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = digits_task.loss_fn(batch)
            loss.backward()
            return loss

        optimizer.step(closure)
        if step % 2 == 0:
            losses.append(digits_task.loss_fn(watched[0]).item())
    assert seen.steps.tolist() == [0, 2, 4, 6]
    assert seen.losses.tolist() == losses
    assert len(seen.cosines) == 6 and seen.finite


def test_micro_batches_climb_apart(digits_task):
    """One that holds the whole batch is plain SAM; quarters are not."""
    watched = [digits_task.batches[0]]
    ends = []
    for size in (None, 64, 16):
        with untouched(digits_task.model):
            settings = OptimizerSettings(rho=1.0, batch_size=64, micro_batch=size)
            ends.append(rollout(digits_task, settings, 3, watched=watched, seed=1).losses[-1])
    assert ends[1] == pytest.approx(ends[0], abs=1e-6)
    assert abs(ends[2] - ends[0]) > 1e-4


def test_a_warm_start_is_sgd(digits_task):
    watched = [digits_task.batches[0]]
    ends = []
    for settings in (OptimizerSettings(rho=0.0), OptimizerSettings(rho=1.0, warm_start=5)):
        with untouched(digits_task.model):
            ends.append(rollout(digits_task, settings, 5, watched=watched).losses[-1])
    assert ends[0] == ends[1]


def test_the_fall_of_a_line_is_exact_and_of_noise_within_its_interval():
    steps = np.arange(0, 101, 5)
    line = Rollout(steps, 3.0 - 0.02 * steps, np.array([])).fall
    assert (line.value, line.error) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-12))
    generator = np.random.default_rng(0)
    noisy = [Rollout(steps, 3.0 - 0.02 * steps + generator.normal(0, 0.3, 21), np.array([])).fall for _ in range(400)]
    assert 365 <= sum(f.low < 2.0 < f.high for f in noisy) <= 394  # binomial, 95%, 99.9% of the time
    assert math.isnan(Rollout(steps[:2], np.array([1.0, math.inf]), np.array([])).fall.value)


def test_batches_without_draw_go_round():
    task = replace(batch_norm_task(), draw=None)
    seen = list(training_batches(task, 7, 5, 0))
    assert seen[3][0] is task.batches[0][0]


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="task: got 'Linear', expected a Task"):
        diagnose(nn.Linear(1, 1))
    task = batch_norm_task()
    for options, name in (({"steps": -1}, "steps"), ({"samples": 3}, "samples"), ({"try_steps": 0}, "try_steps")):
        with pytest.raises(ValueError, match=f"{name}: got"):
            diagnose(task, **options)
    with pytest.raises(ValueError, match="batches: got 'none'"):
        list(training_batches(replace(task, batches=[]), 1, 1, 0))
    with pytest.raises(ValueError, match="None beside a cap"):
        OptimizerSettings(cap=0.5, micro_batch=4)
    with pytest.raises(ValueError, match="momentum: got 1.0"):
        OptimizerSettings(momentum=1.0)
