"""Who gets off the plateau: SGD, SAM, momentum, step sizes, caps, variants and a warm start, on small nets.

Digits (embedded; perceptron 64-128-128-128-10, B = 256, 600 steps) and, with SADDLESCOPE_DATA set, CIFAR-10's first
10,000 images pooled to 16x16: perceptrons of three (B = 512, 570 steps) and five hidden layers, a convolutional net
(B = 512, 285 steps) and ResNet-20 without batch normalisation (B = 128, 200 steps). Base SGD with lr = 0.1 unless said
otherwise; batches drawn with replacement, the same for both passes. Printed: the mean of the last 20 batch losses and
the test accuracy of each seed; "out" if every seed's loss is below 95% of chance (ln 10), "stuck" if none is; and,
beside it, what was expected from the trap number and from earlier trials. Caps at their defaults.

    python benchmarks/who_gets_out.py [--tasks digits,mlp,mlp-deep,convnet,resnet20] [--seeds 2] [--threads 1]
                                      [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from radius_cap import training
from rich.console import Console
from rich.table import Table

from saddlescope.optim import SAM, FriendlySAM, MomentumSAM, RadiusCap, StableSAM
from saddlescope.optim.variants import Phase
from saddlescope.provenance import provenance
from saddlescope.training.tasks import make_task

LAST, CHANCE = 20, math.log(10.0)
FORMS = ("ascent", "response", "batch")


@dataclass(frozen=True)
class Row:
    """A way to train."""

    name: str
    expected: str
    rho: float = 0.0
    momentum: float = 0.0
    lr: float = 0.1
    options: dict[str, Any] = field(default_factory=dict)
    """Of `SAM`."""


def caps(rho: float, momentum: float = 0.0) -> list[Row]:
    beside = f", momentum {momentum:g}" if momentum else ""
    return [
        Row(f"{form} cap, rho = {rho:g}{beside}", "out", rho, momentum, options={"radius_cap": RadiusCap(form=form)})
        for form in FORMS
    ]


def with_momentum(rho: float) -> list[Row]:
    return [
        Row("SGD", "out", momentum=0.9),
        Row(f"SAM, rho = {rho:g}", "stuck", rho, 0.9),
        *caps(rho, 0.9),
        Row("Friendly-SAM", "out", rho, 0.9, options={"variant": FriendlySAM()}),
        Row("Momentum-SAM", "out", rho, 0.9, options={"variant": MomentumSAM()}),
    ]


TASKS: dict[str, tuple[str, int, int, list[Row]]] = {
    "digits": (
        "digits-mlp",
        256,
        600,
        [
            Row("SGD", "out"),
            Row("SAM, rho = 0.5", "out", 0.5),
            Row("SAM, rho = 1", "stuck", 1.0),
            Row("SAM, rho = 1, momentum 0.9", "stuck", 1.0, 0.9),
            Row("SAM, rho = 1, lr = 1", "stuck", 1.0, lr=1.0),
            *caps(1.0),
            Row("Friendly-SAM, rho = 1", "out", 1.0, options={"variant": FriendlySAM()}),
            Row("Momentum-SAM, rho = 1, momentum 0.9", "out", 1.0, 0.9, options={"variant": MomentumSAM()}),
            Row("Stable SAM, rho = 1", "stuck", 1.0, options={"variant": StableSAM()}),
        ],
    ),
    "mlp": (
        "cifar10-mlp",
        512,
        570,
        [
            Row("SGD", "out"),
            Row("SAM, rho = 0.5", "stuck", 0.5),
            Row("SAM, momentum 0.9", "out", 0.5, 0.9),
            Row("SAM, lr = 1 (equal effective step)", "out", 0.5, lr=1.0),
            Row("SAM, momentum 0.9, lr = 0.01 (equal effective step)", "stuck", 0.5, 0.9, 0.01),
            *caps(0.5),
            *caps(0.5, 0.9),
            Row("Friendly-SAM", "out", 0.5, options={"variant": FriendlySAM()}),
            Row("Friendly-SAM, momentum 0.9", "out", 0.5, 0.9, options={"variant": FriendlySAM()}),
            Row("Momentum-SAM, momentum 0.9", "out", 0.5, 0.9, options={"variant": MomentumSAM()}),
            Row("SGD for 100 steps, then SAM", "out", 0.5, options={"schedule": Phase(start=100)}),
            Row("Stable SAM", "stuck", 0.5, options={"variant": StableSAM()}),
        ],
    ),
    "mlp-deep": ("cifar10-mlp-deep", 512, 570, with_momentum(0.5)),
    "convnet": ("cifar10-convnet", 512, 285, with_momentum(0.5)),
    "resnet20": ("cifar10-resnet20", 128, 200, with_momentum(0.5)[:3]),
}


def train(task_name: str, row: Row, batch: int, steps: int, seed: int) -> tuple[float, float]:
    """Return the mean of the last losses, and the test accuracy."""
    torch.manual_seed(seed)
    task, generator = make_task(task_name), torch.Generator().manual_seed(seed)
    assert task.accuracy is not None
    base = torch.optim.SGD(task.model.parameters(), lr=row.lr, momentum=row.momentum)
    opt = SAM(base, rho=row.rho, **row.options) if row.rho > 0.0 else base
    losses = [loss for loss, _ in training(task, opt, batch, steps, generator)]
    return fmean(losses[-LAST:]), task.accuracy()


def state(losses: list[float]) -> str:
    out = [loss < 0.95 * CHANCE for loss in losses]
    return "out" if all(out) else "some out" if any(out) else "stuck"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=120)
    where = provenance()
    console.print(f"{where.machine}, {where.cores} cores, {arguments.threads} threads; torch {where.torch}")
    document: list[dict[str, Any]] = []
    for key in arguments.tasks.split(","):
        name, batch, steps, rows = TASKS[key]
        shown = Table(title=f"{name}, B = {batch}, {steps} steps, seeds 0 to {arguments.seeds - 1}")
        for heading in ("way", "loss", "accuracy", "state", "expected"):
            shown.add_column(heading)
        for row in rows:
            losses, accuracies = zip(
                *(train(name, row, batch, steps, seed) for seed in range(arguments.seeds)), strict=True
            )
            columns = [" ".join(f"{value:.3f}" for value in values) for values in (losses, accuracies)]
            shown.add_row(row.name, *columns, state(losses), row.expected)
            document.append({"task": name, **asdict(row), "losses": losses, "accuracies": accuracies})
        console.print(shown)
    if arguments.json:
        text = json.dumps({"provenance": where.to_dict(), "rows": document}, indent=1, default=str)
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
