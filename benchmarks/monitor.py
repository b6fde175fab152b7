"""What `StabilityMonitor` costs at its defaults: the same training with and without it, in one process.

Two trainings of every workload take turns, 200 steps each, so that a machine that is busy with something else is busy
for both. (The monitor takes the other's turn for a long pause, of which it counts little as training.) Reported are
the extra wall and CPU time of the monitored one (median and range over the rounds), the share of the time that the
monitor itself accounts for, its Hessian products, and how many evaluations of the model came on top of the optimizer's.

    python benchmarks/monitor.py [--steps 600] [--rounds 3] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from saddlescope.optim import SAM
from saddlescope.provenance import provenance
from saddlescope.training import make_task
from saddlescope.training.monitor.monitor import StabilityMonitor

BLOCK = 200
Workload = tuple[torch.optim.Optimizer, Callable[[], Callable[[], Tensor]]]


def digits(rho: float) -> Workload:
    """Return an optimizer and a source of closures: the digits, in batches of 256."""
    torch.manual_seed(0)
    task, generator = make_task("digits-mlp"), torch.Generator().manual_seed(0)
    draw = task.draw
    assert draw is not None
    return training(task.model, rho, lambda: task.loss_fn, lambda: draw(256, generator))


def images(rho: float) -> Workload:
    """Return the same for random 16x16 images, 64 a batch, and a small convolutional network with batch norm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )
    generator = torch.Generator().manual_seed(0)

    def draw() -> tuple[Tensor, Tensor]:
        return torch.randn(64, 3, 16, 16, generator=generator), torch.randint(10, (64,), generator=generator)

    return training(model, rho, lambda: lambda batch: cross_entropy(model(batch[0]), batch[1]), draw)


def training(model: nn.Module, rho: float, loss: Callable[[], Callable[[Any], Tensor]], draw: Callable) -> Workload:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.0)
    optimizer = SAM(base, rho=rho) if rho else base
    loss_fn = loss()

    def next_closure() -> Callable[[], Tensor]:
        batch = draw()

        def closure() -> Tensor:
            closure.calls += 1
            optimizer.zero_grad()
            value = loss_fn(batch)
            value.backward()
            return value

        closure.calls = 0
        return closure

    return optimizer, next_closure


class Side:
    """One of the two trainings: with a monitor if it has a log."""

    def __init__(self, workload: Workload, log: Path | None) -> None:
        self.optimizer, self.next_closure = workload
        self.monitor = None if log is None else StabilityMonitor(self.optimizer, log=log)
        self.wall = self.cpu = 0.0
        self.evaluations = 0

    def train(self, steps: int) -> None:
        """Make some more steps."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            closure: Any = self.next_closure()
            value = self.optimizer.step(closure)
            if self.monitor is not None:
                self.monitor.update(value, closure)
            self.evaluations += closure.calls
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "digits MLP, SAM rho=1 (stuck)": lambda: digits(1.0),
    "digits MLP, SAM rho=0.3 (healthy)": lambda: digits(0.3),
    "digits MLP, SGD": lambda: digits(0.0),
    "convnet with BN, SAM rho=0.5": lambda: images(0.5),
}


def measure(name: str, make: Callable[[], Workload], steps: int, rounds: int, folder: Path) -> dict[str, Any]:
    walls, cpus, milliseconds = [], [], []
    account, verdict, extra = {}, "", 0
    for round_ in range(rounds):
        alone, watched = Side(make(), None), Side(make(), folder / f"{len(name)}-{round_}.jsonl")
        for block in range(steps // BLOCK):
            for side in (alone, watched) if block % 2 else (watched, alone):
                side.train(BLOCK)
        monitor = watched.monitor
        assert monitor is not None
        monitor.close()
        walls.append(watched.wall / alone.wall - 1.0)
        cpus.append(watched.cpu / alone.cpu - 1.0)
        milliseconds.append(1e3 * alone.wall / steps)
        account, verdict = monitor.account.to_dict(), monitor.verdict
        extra = watched.evaluations - alone.evaluations
    return {
        "workload": name,
        "milliseconds": median(milliseconds),
        "wall": sorted(walls),
        "cpu": sorted(cpus),
        "accounted": account["spent_seconds"] / account["training_seconds"],
        "products": account["products"],
        "extra_evaluations": extra,
        "verdict": verdict,
    }


def spread(values: list[float]) -> str:
    return f"{median(values):.1%} [{values[0]:.1%}, {values[-1]:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console, where = Console(width=140), provenance()
    with TemporaryDirectory() as folder:
        rows = [measure(n, m, arguments.steps, arguments.rounds, Path(folder)) for n, m in WORKLOADS.items()]
    table = Table(title=f"{where.machine}, {arguments.threads} thread(s); {arguments.rounds} rounds")
    for column in ("workload", "ms a step", "wall time", "CPU time", "accounted", "products", "evaluations", "verdict"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["workload"],
            f"{row['milliseconds']:.2f}",
            spread(row["wall"]),
            spread(row["cpu"]),
            f"{row['accounted']:.1%}",
            str(row["products"]),
            f"+{row['extra_evaluations']}",
            row["verdict"],
        )
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"provenance": where.to_dict(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
