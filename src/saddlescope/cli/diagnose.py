"""The command that says whether SAM holds up a training of the user's own."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from saddlescope._checks import refuse
from saddlescope.cli.app import app, stdout
from saddlescope.cli.options import AsJson, LearningRate, Momentum
from saddlescope.training.diagnosis.diagnose import Diagnosis
from saddlescope.training.diagnosis.diagnose import diagnose as run_diagnosis
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.tasks import Task

TRIES = 3
"""Changes that ``--try`` runs."""


@app.command()
def diagnose(
    task: Annotated[str, typer.Argument(metavar="MODULE:TASK", help="A function that returns a Task; it is imported.")],
    rho: Annotated[float, typer.Option(help="Radius of SAM.")] = 0.05,
    lr: LearningRate = 0.1,
    momentum: Momentum = 0.0,
    batch_size: Annotated[int, typer.Option(help="For tasks that draw; others bring batches of their own.")] = 256,
    steps: Annotated[int, typer.Option(help="Steps of training before the examination.")] = 0,
    watch: Annotated[int, typer.Option(help="Steps to watch the loss for.")] = 60,
    samples: Annotated[int | None, typer.Option(help="Batches to begin with; doubled while they do not tell.")] = None,
    curvature_samples: Annotated[int, typer.Option(help="Samples of the Hessian.")] = 1_000,
    try_changes: Annotated[bool, typer.Option("--try", help=f"Run the first {TRIES} changes advised.")] = False,
    try_steps: Annotated[int, typer.Option(help="Steps of each.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the model's initialisation and of batches.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say whether SAM holds up a training at the weights where the task's model is, and what to change."""
    settings = OptimizerSettings(lr=lr, momentum=momentum, rho=rho, batch_size=batch_size)
    found = run_diagnosis(
        load_task(task, seed),
        settings,
        steps=steps,
        tries=TRIES if try_changes else 0,
        try_steps=try_steps,
        seed=seed,
        watch=watch,
        samples=samples,
        curvature_samples=curvature_samples,
    )
    if as_json:
        print(json.dumps(found.to_dict(), allow_nan=False))
    else:
        _show(found)


def load_task(name: str, seed: int = 0) -> Task:
    """Return the task that ``MODULE:FUNCTION`` makes, from the current folder or the path; torch is seeded before.

    Raises:
        ValueError: for a module that is not there, one that has no such function, and one that returns no `Task`.
    """
    import torch

    module, _, function = name.partition(":")
    if not module or not function:
        raise refuse("task", name, "MODULE:FUNCTION", "for example examples.tasks:resnet20_cifar10")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        home: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):  # one that the module asks for
            raise
        raise refuse("task", name, f"a module {module}", "run in the folder that holds it") from None
    make: Callable[[], Any] | None = getattr(home, function, None)
    if not callable(make):
        have = [k for k, v in vars(home).items() if inspect.isfunction(v) and v.__module__ == home.__name__]
        raise refuse("task", name, f"a function of {module}", f"it has {', '.join(have) or 'none'}")
    if _needs_arguments(make):
        raise refuse("task", name, "a function to call without arguments", "wrap it: def task(): return ...")
    torch.manual_seed(seed)
    made = make()
    if not isinstance(made, Task):
        raise refuse("task", f"{name}() -> {type(made).__name__}", "a Task", "return Task(model, loss_fn, batches)")
    return made


def _needs_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a builtin without a signature
        return False
    return False


def _show(found: Diagnosis) -> None:
    m = found.measurement
    stdout.print(f"[bold]{found.verdict.replace('_', ' ')}[/bold]: {found.because}", soft_wrap=True)
    if m.status == "complete":
        table = Table("", "", show_header=False)
        for label, value in _numbers(found):
            table.add_row(label, value)
        stdout.print(table)
    if found.advice.changes:
        advice = Table("", "change", "from", "to", "because", "predicted", title=found.advice.reason)
        for rank, change in enumerate(found.advice.changes, start=1):
            row = (change.change, str(change.before), str(change.after), change.because, change.predicted)
            advice.add_row(str(rank), *row)
        stdout.print(advice)
    else:
        stdout.print(f"No advice: {found.advice.reason}", soft_wrap=True)
    if found.trials:
        trials = Table("tried", "to", "loss before", "half way", "after", title=f"{found.trials[0].steps} steps each")
        for trial in found.trials:
            losses = (trial.losses[0], trial.losses[len(trial.losses) // 2], trial.losses[-1])
            after = "" if trial.after is None else str(trial.after)
            trials.add_row(trial.change, after, *(f"{loss:.4g}" for loss in losses))
        stdout.print(trials)
    stdout.print(f"{m.hessian_products} Hessian products, {found.seconds:.0f} s")


def _by_quarters(number: Estimate) -> str:
    return f"; by quarters of a batch {number}" if number.samples else ""


def _numbers(found: Diagnosis) -> list[tuple[str, str]]:
    m = found.measurement
    numbers = [
        ("loss, norm of its gradient", f"{m.loss:.4g}, {m.gradient_norm:.3g}; of a batch {m.batch_gradient_norm:.3g}"),
        ("Hessian, from", f"{m.lambda_min:.3g} (residual {m.residual_min:.1g})"),
        ("  to", f"{m.lambda_max:.3g} (residual {m.residual_max:.1g}), {m.theta:.2g} of the edge of stability"),
        ("curvature along v", f"{m.curvature}; a step aside {m.plain_curvature}"),
        ("felt by SAM", f"{m.effective_curvature}; predicted {m.predicted_curvature}"),
        ("felt along the best exit", f"{m.escape_effective_curvature}; predicted {m.escape_curvature}"),
    ]
    if m.trap_number.value == m.trap_number.value:
        numbers += [
            ("trap number", f"{m.trap_number}{_by_quarters(m.micro_trap_number)}"),
            ("slow-down along v", f"{m.slowdown:.3g}; predicted {m.predicted_slowdown:.3g}"),
            ("radius that lets go", f"below {m.critical_rho:.3g}"),
            ("held on a full batch", "possible" if m.full_batch_window else "not at this step size"),
        ]
    if m.watched_steps:
        numbers.append((f"fall of the loss in {m.watched_steps} steps", f"{m.fall}; mean cosine {m.cosine:.2f}"))
    return numbers
