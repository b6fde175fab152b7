"""The loop against plain torch code, its determinism, and the project's subject on the digits."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from saddlescope.curvature import HessianOperator, extreme_eigenvalues
from saddlescope.optim import RadiusCap
from saddlescope.training import ExperimentConfig, make_task, run_experiment
from saddlescope.training.data.datasets import digits
from saddlescope.training.loop import mean_loss
from saddlescope.training.networks import mlp

SAM_AT_ONE = ExperimentConfig(optimizer="sam", lr=0.1, rho=1.0)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_sam_at_radius_one_stays_at_chance_and_the_cap_frees_it():
    stuck = run_experiment(SAM_AT_ONE)
    assert stuck.status == "completed" and stuck.hessian_products == 0
    assert stuck.final_loss > 2.28 and stuck.test_accuracy < 0.2
    for cap in (RadiusCap(), RadiusCap(form="response", fraction=0.5)):
        freed = run_experiment(replace(SAM_AT_ONE, radius_cap=cap))
        assert freed.final_loss < 0.08 and freed.test_accuracy > 0.95
        # at most a tenth of the two passes of 2,000 steps, at 2.6 gradients a product
        assert (freed.hessian_products > 0) == cap.needs_closure and 2.6 * freed.hessian_products < 0.1 * 2 * 2000


def test_the_cap_frees_small_batches_too():
    freed = run_experiment(replace(SAM_AT_ONE, batch_size=32, radius_cap=RadiusCap()))
    assert freed.final_loss < 0.3 and freed.test_accuracy > 0.94


def test_equals_a_plain_torch_loop_bit_for_bit():
    record = run_experiment(ExperimentConfig(lr=0.2, momentum=0.9, steps=20, batch_size=32, seed=5))
    data, generator, losses = digits(), torch.Generator().manual_seed(5), []
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = mlp([64, 128, 128, 128, 10])
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for _ in range(20):
        index = torch.randint(1437, (32,), generator=generator)
        loss = cross_entropy(model(data.inputs[index]), data.targets[index])
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, v, g in zip(model.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(v, alpha=0.2)
    assert record.losses == tuple(losses)
    assert record.final_loss == cross_entropy(model(data.inputs), data.targets).item()
    assert record.test_accuracy == pytest.approx(
        (model(data.test_inputs).argmax(1) == data.test_targets).double().mean().item(), abs=1e-7
    )


@pytest.mark.parametrize("config", [SAM_AT_ONE, replace(SAM_AT_ONE, radius_cap=RadiusCap(every=7, form="response"))])
def test_one_seed_is_one_run_and_the_callers_random_numbers_stay(config):
    short = replace(config, steps=15)
    first = run_experiment(short)
    torch.rand(3)
    state = torch.get_rng_state()
    second = run_experiment(short)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.losses, first.final_loss, first.test_accuracy) == (
        second.losses,
        second.final_loss,
        second.test_accuracy,
    )
    assert run_experiment(replace(short, seed=1)).losses != first.losses


def test_divergence_is_a_status():
    record = run_experiment(ExperimentConfig(lr=1e6, steps=50))
    assert record.status == "diverged" and len(record.losses) < 50


def test_progress_goes_to_stderr(capsys):
    run_experiment(ExperimentConfig(steps=2), progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "digits-mlp" in captured.err


def test_the_loss_of_ragged_batches_is_the_mean_over_samples():
    task = make_task("digits-mlp")
    ((inputs, targets),) = task.batches
    ragged = replace(task, batches=[(inputs[:1000], targets[:1000]), (inputs[1000:], targets[1000:])])
    assert mean_loss(ragged) == pytest.approx(mean_loss(task), rel=1e-6)


def test_a_task_is_what_the_curvature_takes():
    """At initialisation the digits' network sits at a saddle whose two ends are of similar size."""
    torch.manual_seed(0)
    task = make_task("digits-mlp")
    ends = extreme_eigenvalues(HessianOperator(task.loss_fn, task.model.parameters(), task.batches))
    assert ends.converged
    assert -0.5 < ends.minimum < -0.2 < 0.2 < ends.maximum < 0.6
