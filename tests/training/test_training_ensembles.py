"""Ensembles against the loop that trains one run: the same losses, weights and records, to rounding."""

from dataclasses import replace

import pytest
import torch

from saddlescope.optim import RadiusCap
from saddlescope.training import ExperimentConfig, run_experiment
from saddlescope.training.data.datasets import Dataset, digits
from saddlescope.training.ensembles import run_ensemble, why_alone
from saddlescope.training.networks import mlp
from saddlescope.training.tasks import TASKS, Recipe


def doubles():
    data = digits()
    return Dataset(
        inputs=data.inputs.double(),
        targets=data.targets,
        test_inputs=data.test_inputs.double(),
        test_targets=data.test_targets,
    )


@pytest.fixture(autouse=True)
def in_double_precision(monkeypatch):
    """A smaller network too, so that the tests are quick."""
    monkeypatch.setitem(TASKS, "digits-mlp", Recipe(lambda: mlp([64, 32, 32, 10]).double(), doubles))


BASE = ExperimentConfig(batch_size=32, steps=150)
SAM = replace(BASE, optimizer="sam", rho=0.3)


def alone_and_together(configs):
    return [run_experiment(config) for config in configs], run_ensemble(configs)


def assert_equal_to_rounding(configs, tolerance=1e-10):
    for one, member in zip(*alone_and_together(configs), strict=True):
        assert member.config == one.config and member.status == one.status == "completed"
        assert len(member.losses) == len(one.losses)
        assert max(abs(a - b) for a, b in zip(member.losses, one.losses, strict=True)) < tolerance
        assert member.final_loss == pytest.approx(one.final_loss, abs=tolerance)
        assert member.test_accuracy == one.test_accuracy


def test_sam_of_many_settings_equals_its_single_runs():
    configs = [
        SAM,
        replace(SAM, rho=0.1, seed=1),
        replace(SAM, rho=0.5, momentum=0.9, lr=0.05, seed=2),
        replace(SAM, momentum=0.5, weight_decay=0.01),
        replace(SAM, normalized=False, rho=0.2, seed=2),
        replace(SAM, schedule="cosine", warmup=10, lr=0.3),
        replace(SAM, rho=0.0, seed=1),
    ]
    assert_equal_to_rounding(configs)


def test_sgd_equals_its_single_runs():
    assert_equal_to_rounding([BASE, replace(BASE, momentum=0.9, weight_decay=1e-3, seed=3), replace(BASE, lr=0.5)])


def test_walks_through_the_training_set_and_smoothed_labels_too():
    walk = replace(SAM, steps=None, epochs=3, batch_size=100, label_smoothing=0.1)
    assert_equal_to_rounding([walk, replace(walk, seed=1, schedule="step")])


def test_single_precision_differs_by_rounding_at_first(monkeypatch):
    """By 2e-7 in a loss of 2.3; what a run makes of it later is its own sensitivity, not the ensemble's."""
    monkeypatch.undo()
    config = replace(SAM, steps=20)
    for one, member in zip(*alone_and_together([config, replace(config, seed=1, momentum=0.9)]), strict=True):
        assert max(abs(a - b) for a, b in zip(member.losses, one.losses, strict=True)) < 5e-6


def test_a_member_that_diverges_ends_as_alone_and_the_others_go_on():
    configs = [replace(BASE, lr=1e6, steps=60), replace(BASE, steps=60), replace(BASE, lr=1e150, steps=60)]
    alone, together = alone_and_together(configs)
    assert [record.status for record in together] == ["diverged", "completed", "diverged"]
    for one, member in zip(alone, together, strict=True):
        assert (member.status, len(member.losses)) == (one.status, len(one.losses))
        assert member.skipped_steps == one.skipped_steps == 0
    assert together[1].losses == pytest.approx(alone[1].losses, abs=1e-10)


def test_steps_without_a_finite_gradient_are_skipped_as_alone():
    """Unnormalized SAM with a huge radius: the second gradient overflows, the weights stay, the loss stays finite."""
    huge = replace(SAM, normalized=False, rho=1e160, steps=30)
    configs = [huge, replace(SAM, steps=30), replace(huge, rho=1e200, seed=1)]
    alone, together = alone_and_together(configs)
    assert [record.skipped_steps for record in together] == [record.skipped_steps for record in alone] == [30, 0, 30]
    for one, member in zip(alone, together, strict=True):
        assert member.losses == pytest.approx(one.losses, abs=1e-10)


def test_all_diverged_ends_the_training():
    (record,) = run_ensemble([replace(BASE, lr=1e150, steps=10**6)])
    assert record.status == "diverged" and len(record.losses) < 20


def test_the_callers_random_numbers_stay_and_the_order_is_the_callers():
    configs = [replace(SAM, steps=3, seed=seed, rho=rho) for seed, rho in [(1, 0.2), (0, 0.1), (1, 0.1)]]
    state = torch.get_rng_state()
    records = run_ensemble(configs)
    assert torch.equal(torch.get_rng_state(), state)
    assert [record.config for record in records] == configs
    assert records[0].losses[0] == records[2].losses[0] != records[1].losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "cifar10-convnet-bn"}, "network: got 'Conv2d'"),
        ({"radius_cap": RadiusCap()}, "radius_cap: got RadiusCap"),
        ({"optimizer": "friendly-sam"}, "optimizer: got 'friendly-sam', expected sgd or sam"),
        ({"precision": "bfloat16"}, "precision: got 'bfloat16', expected float32"),
        ({"device": "cuda"}, "device: got 'cuda', expected cpu"),
        ({"compile": True}, "compile: got True, expected False"),
    ],
)
def test_what_must_run_alone_is_told(changes, message):
    config = replace(SAM, **changes)
    assert message in why_alone(config) and "run it alone" in why_alone(config)
    with pytest.raises(ValueError, match="run it alone"):
        run_ensemble([config])


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "fashion-mnist-mlp"},
        {"batch_size": 16},
        {"steps": 7},
        {"label_smoothing": 0.1},
        {"optimizer": "sgd", "rho": 0},
    ],
)
def test_members_that_do_not_fit_together_are_refused(changes):
    name = next(iter(changes))
    with pytest.raises(ValueError, match=f"^{name}: got .* as in the first config; put it into another ensemble"):
        run_ensemble([SAM, replace(SAM, **changes)])


def test_no_configs_are_refused():
    with pytest.raises(ValueError, match="configs: got 'none'"):
        run_ensemble([])
