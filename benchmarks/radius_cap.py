"""What the radius cap does for stuck runs: SGD, SAM at fixed radii, and SAM at a large radius under each cap.

CIFAR-10, first 10,000 images pooled to 16x16 (found through SADDLESCOPE_DATA), SGD base. For each setting of net,
momentum, batch size and seed: the mean of the last 20 batch losses, test accuracy, the mean radius over the last 20
steps, Hessian-vector products, and the mean time of a step over that of SAM without a cap. "excess" is the loss over
that of the best of the uncapped runs, which contain SGD (rho = 0): the goal is at most 10%.

    python benchmarks/radius_cap.py [--nets mlp,resnet8] [--momenta 0.9] [--batches 128] [--steps 200] [--seeds 1]
                                    [--rho 0.5] [--fixed 0,0.05,0.1,0.2,0.5] [--caps ascent,response,batch]
                                    [--fraction F] [--budget F] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table

from saddlescope.optim import SAM, RadiusCap
from saddlescope.provenance import provenance
from saddlescope.training.tasks import Task, make_task

LR, LAST = 0.1, 20


@dataclass(frozen=True)
class Run:
    """One training."""

    net: str
    momentum: float
    batch: int
    seed: int
    steps: int
    rho: float
    cap: RadiusCap | None
    loss: float
    accuracy: float
    radius: float
    products: int
    seconds: float
    """Mean of a step."""


def training(
    task: Task, opt: torch.optim.Optimizer, batch: int, steps: int, generator: torch.Generator
) -> Iterator[tuple[float, float]]:
    """Yield the loss of each step on a batch drawn with replacement, and the seconds that the step took."""
    assert task.draw is not None
    for _ in range(steps):
        drawn = task.draw(batch, generator)

        def closure(drawn=drawn):
            opt.zero_grad()
            loss = task.loss_fn(drawn)
            loss.backward()
            return loss

        began = time.perf_counter()
        loss = opt.step(closure).item()
        yield loss, time.perf_counter() - began


def train(net: str, momentum: float, batch: int, seed: int, steps: int, rho: float, cap: RadiusCap | None) -> Run:
    torch.manual_seed(seed)
    task, generator = make_task(f"cifar10-{net}"), torch.Generator().manual_seed(seed)
    assert task.accuracy is not None
    base = torch.optim.SGD(task.model.parameters(), lr=LR, momentum=momentum)
    opt = SAM(base, rho=rho, radius_cap=cap) if rho > 0.0 else base
    losses, radii, seconds = [], [], []
    for loss, took in training(task, opt, batch, steps, generator):
        losses.append(loss)
        seconds.append(took)
        radii.append(opt.last_step.rho_used if isinstance(opt, SAM) and opt.last_step is not None else 0.0)
        if not math.isfinite(losses[-1]):
            break
    return Run(
        net,
        momentum,
        batch,
        seed,
        steps,
        rho,
        cap,
        loss=fmean(losses[-LAST:]),
        accuracy=task.accuracy(),
        radius=fmean(radii[-LAST:]),
        products=opt.hessian_products if isinstance(opt, SAM) else 0,
        seconds=fmean(seconds),  # not the median: what a cap takes is not in every step
    )


def table(runs: list[Run]) -> Table:
    first = runs[0]
    best = min((r.loss for r in runs if r.cap is None and math.isfinite(r.loss)), default=math.nan)
    pass_time = next((r.seconds for r in runs if r.cap is None and r.rho > 0.0), math.nan)
    setting = f"{first.net}, momentum {first.momentum:g}, B = {first.batch}, {first.steps} steps, seed {first.seed}"
    caps = {f"{r.cap.fraction:g}" for r in runs if r.cap is not None}
    shown = Table(title=setting + "".join(f"; caps at fraction {fraction}" for fraction in caps))
    for heading in ("run", "loss", "excess", "accuracy", "rho at the end", "products", "time / SAM's"):
        shown.add_column(heading, justify="left" if heading == "run" else "right")
    for r in runs:
        name = "SGD" if r.rho == 0.0 else f"rho = {r.rho:g}"
        name += "" if r.cap is None else f", {r.cap.form} cap"
        shown.add_row(
            name,
            f"{r.loss:.3f}",
            f"{r.loss / best - 1:+.0%}",
            f"{r.accuracy:.3f}",
            f"{r.radius:.3f}",
            str(r.products),
            f"{r.seconds / pass_time:.2f}",
        )
    return shown


def numbers(text: str) -> list[float]:
    return [float(item) for item in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="mlp,resnet8")
    parser.add_argument("--momenta", type=numbers, default=[0.9])
    parser.add_argument("--batches", type=numbers, default=[128])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--rho", type=float, default=0.5, help="radius under the caps")
    parser.add_argument("--fixed", type=numbers, default=[0.0, 0.05, 0.1, 0.2, 0.5])
    parser.add_argument("--caps", default="ascent,response,batch")
    parser.add_argument("--fraction", type=float, default=RadiusCap.fraction)
    parser.add_argument("--budget", type=float, default=RadiusCap.budget)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=110)
    where = provenance()
    console.print(f"{where.machine}, {where.cores} cores, {arguments.threads} threads; torch {where.torch}; lr = {LR}")
    cap = RadiusCap(fraction=arguments.fraction, budget=arguments.budget)
    kinds = [(rho, None) for rho in arguments.fixed]
    kinds += [(arguments.rho, replace(cap, form=form)) for form in arguments.caps.split(",") if form]
    runs: list[Run] = []
    settings = product(arguments.nets.split(","), arguments.momenta, arguments.batches, range(arguments.seeds))
    for net, momentum, batch, seed in settings:
        here = [train(net, momentum, int(batch), seed, arguments.steps, *kind) for kind in kinds]
        console.print(table(here))
        runs += here
    if arguments.json:
        document = {"provenance": where.to_dict(), "runs": [asdict(run) for run in runs]}
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
