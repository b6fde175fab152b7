"""The command that trains one network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from saddlescope.cli.app import app, stdout
from saddlescope.cli.options import AsJson, LearningRate, Momentum, Unnormalized
from saddlescope.optim import RadiusCap
from saddlescope.training import ExperimentConfig, run_experiment
from saddlescope.training.data.image_files import ENVIRONMENT
from saddlescope.training.experiment import OPTIMIZERS
from saddlescope.training.schedules import SCHEDULES
from saddlescope.training.tasks import TASKS

Data = Annotated[Path | None, typer.Option(help=f"Folder of image data sets in parquet; by default ${ENVIRONMENT}.")]


def use_data(folder: Path | None) -> None:
    """Make a folder of data sets the one of this process and of those it starts."""
    if folder is not None:
        os.environ[ENVIRONMENT] = str(folder.resolve())


@app.command()
def train(
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")] = "digits-mlp",
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.")] = "sam",
    rho: Annotated[float, typer.Option(help="Radius of SAM; ignored by sgd.")] = 0.05,
    lr: LearningRate = 0.1,
    momentum: Momentum = 0.0,
    radius_cap: Annotated[
        bool, typer.Option("--radius-cap", help="Cap SAM's radius where it would be trapped.")
    ] = False,
    unnormalized: Unnormalized = False,
    batch_size: int = 256,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; 600 unless --epochs are given.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Walks through the training set, instead of --steps.")] = None,
    schedule: Annotated[str, typer.Option(help=f"Of the step size: {', '.join(SCHEDULES)}.")] = "constant",
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 0,
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last")] = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the model.")] = False,
    deterministic: Annotated[bool, typer.Option("--deterministic")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: int = 0,
    data: Data = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File to continue from, if it is there, and write.")] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Train a network and report whether it learned; under torchrun on several processes."""
    use_data(data)
    is_sam = optimizer != "sgd"
    config = ExperimentConfig(
        task=task,
        optimizer=optimizer,
        rho=rho if is_sam else 0.0,
        lr=lr,
        momentum=momentum,
        normalized=not unnormalized,
        radius_cap=RadiusCap() if radius_cap else None,
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        precision=precision,
        channels_last=channels_last,
        compile=compile_,
        deterministic=deterministic,
        device=device,
        seed=seed,
    )
    record = run_experiment(config, progress=True, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        print(json.dumps(record.to_dict(), allow_nan=False))
        return
    table = Table("", "", show_header=False, title=f"{task}, {optimizer}")
    table.add_row("status", record.status)
    table.add_row("training loss", f"{record.final_loss:.4g}")
    table.add_row("test accuracy", f"{record.test_accuracy:.1%}")
    table.add_row("seconds", f"{record.seconds:.1f}")
    stdout.print(table)
