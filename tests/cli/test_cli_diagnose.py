import json
import sys

import pytest
import torch
from command_line import document, run

import saddlescope.cli.diagnose  # noqa: F401  adds the command
from saddlescope.training.diagnosis.diagnose import diagnose
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings

KEYS = {"verdict", "trap_number", "slowdown", "lambda_min", "lambda_max", "gradient_norm"}
KEYS |= {"residuals", "hessian_products", "advice"}
MODULE = '''
import math

import torch
from torch import nn

from saddlescope.training import Task


def saddle(noise=1.0):
    """w1 w2 with noise that keeps the gradient from vanishing: held by a radius of 5."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()

    def loss_fn(batch):
        w = model.weight[:, 0]
        return w[0] * w[1] + 1.0 + (batch[0] @ w).mean()

    def draw(size, generator):
        return (noise * torch.randn(size, 2, generator=generator, dtype=torch.float64),)

    return Task(model, loss_fn, [draw(512, torch.Generator().manual_seed(0))], draw)


def undefined():
    task = saddle()
    with torch.no_grad():
        task.model.weight.fill_(math.nan)
    return task


def number():
    return 7


def wants(argument):
    return saddle()


constant = 3
'''
QUICK = ("--watch", "20", "--samples", "64", "--curvature-samples", "4096", "--batch-size", "16")


@pytest.fixture(autouse=True)
def own_tasks(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(MODULE)
    (tmp_path / "broken_tasks.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)


def test_answers_with_the_library_s_numbers():
    answer = document("diagnose", "own_tasks:saddle", "--rho", "5", "--lr", "0.01", *QUICK)
    assert KEYS <= set(answer)
    import own_tasks  # pyright: ignore[reportMissingImports]

    settings = OptimizerSettings(rho=5.0, lr=0.01, batch_size=16)
    twin = diagnose(own_tasks.saddle(), settings, watch=20, samples=64, curvature_samples=4096).to_dict()
    assert answer["measurement"] == json.loads(json.dumps(twin["measurement"]))
    assert (answer["verdict"], answer["advice"]) == (twin["verdict"], json.loads(json.dumps(twin["advice"])))
    assert answer["lambda_min"] == pytest.approx(-1.0) and answer["trap_number"] > 1.0


def test_prints_verdict_numbers_advice_and_trials():
    result = run("diagnose", "own_tasks:saddle", "--rho", "5", "--lr", "0.002", "--try", "--try-steps", "5", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("trapped: The loss stands still")
    for word in ("trap number", "radius that lets go", "momentum-sam", "unchanged", "5 steps each"):
        assert word in result.stdout


def test_a_loss_that_is_nan_is_one_clear_line():
    result = run("diagnose", "own_tasks:undefined")
    assert result.exit_code == 0
    assert "undetermined: The loss is not finite at these weights" in result.stdout
    assert document("diagnose", "own_tasks:undefined")["lambda_min"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_tasks", "expected MODULE:FUNCTION"),
        ("no_such_module:task", "expected a module no_such_module"),
        ("own_tasks:nothing", "it has saddle, undefined, number, wants"),
        ("own_tasks:constant", "expected a function of own_tasks"),
        ("own_tasks:number", "'own_tasks:number() -> int', expected a Task"),
        ("own_tasks:wants", "without arguments"),
    ],
)
def test_wrong_use_is_one_line(name, message):
    result = run("diagnose", name)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_a_module_that_the_task_s_module_lacks_is_the_user_s_error():
    result = run("diagnose", "broken_tasks:task")
    assert isinstance(result.exception, ModuleNotFoundError) and result.exception.name == "a_module_that_nobody_has"


def test_the_seed_is_that_of_the_initialisation():
    from saddlescope.cli.diagnose import load_task

    with torch.random.fork_rng():
        tasks = [load_task("examples.tasks:digits_mlp", seed) for seed in (0, 0, 1)]
    first, same, other = (next(task.model.parameters()) for task in tasks)
    assert torch.equal(first, same) and not torch.equal(first, other)
