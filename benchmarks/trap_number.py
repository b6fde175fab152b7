"""Predicted against measured: what SAM feels along the most negative curvature, and how long it takes to leave.

1. Quadratic model with additive noise (d = 200, half the eigenvalues 2, half -2, noise of standard deviation
   .2 / sqrt(B) a coordinate, lr .01), where the trap number is known: median steps for SAM and SGD from the
   centre until the loss is below ``LEVEL``; predicted is ``1 / (1 - tau)``.
2. Trainings on the digits: median steps until the loss leaves its plateau, for SAM and SGD; predicted is the same with
   the trap number of the first step.
3. Networks along trainings: ``lam (1 - tau)``, the prediction with what normalising takes off, and what is felt a
   step aside. CIFAR-10 where SADDLESCOPE_DATA is set.

    python benchmarks/trap_number.py [--quadratic] [--trainings] [--networks] [--json FILE] [--figure FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from saddlescope.paper.network_runs import train_cells
from saddlescope.plots.trap import plot_calibration
from saddlescope.provenance import provenance
from saddlescope.training import ExperimentConfig
from saddlescope.training.diagnosis.measure import curvature_batches, measure
from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings as Settings
from saddlescope.training.diagnosis.rollout import rollout
from saddlescope.training.diagnosis.verdict import judge_measurement
from saddlescope.training.tasks import make_task

DIMENSION, CURVATURE, NOISE, LR, REPLICAS, STEPS, LEVEL = 200, 2.0, 0.2, 0.01, 64, 4_000, -10.0
SEEDS, TRAINED = 8, 3_000
COLOURS = {
    "digits-mlp": "#0072B2",
    "cifar10-mlp": "#D55E00",
    "cifar10-convnet": "#009E73",
    "cifar10-convnet-bn": "#56B4E9",
    "cifar10-resnet20": "#CC79A7",
    "cifar10-resnet20-bn": "#E69F00",
}


def states() -> list[tuple[str, Settings, tuple[int, ...]]]:
    """Return tasks, settings and the steps of training at which to measure."""
    found = [("digits-mlp", Settings(rho=rho), (0, 60, 200, 600)) for rho in (0.1, 0.3, 0.5, 1.0, 2.0)]
    found += [("digits-mlp", Settings(rho=0.5, batch_size=size), (60,)) for size in (8, 32, 1024)]
    found += [("digits-mlp", Settings(rho=1.0, momentum=0.9), (30, 200))]
    found += [("digits-mlp", Settings(rho=1.0, lr=lr), (200,)) for lr in (0.02, 0.5)]
    if os.environ.get("SADDLESCOPE_DATA"):
        found += [("cifar10-mlp", Settings(rho=0.5, batch_size=size), (150,)) for size in (512, 32)]
        found += [(f"cifar10-{net}", Settings(rho=0.5, momentum=0.9), (30,)) for net in ("convnet", "convnet-bn")]
        found += [(f"cifar10-{net}", Settings(rho=0.5), (8,)) for net in ("resnet20", "resnet20-bn")]
    return found


def along(name: str, settings: Settings, looks: tuple[int, ...]) -> list[tuple[int, Measurement]]:
    torch.manual_seed(0)
    task, done, rows = make_task(name), 0, []
    large = "resnet" in name
    for look in looks:
        if look > done:
            rollout(task, settings, look - done, watched=curvature_batches(task, 1, 0), looks=1, seed=look)
        done = look
        options = {"curvature_samples": 512, "samples": 6, "watch": 0} if large else {"watch": 0}
        rows.append((look, measure(task, settings, **options)))
    return rows


def escape(batch_size: int, rho: float) -> float:
    """Return the median steps to leave, over replicas that see noise of their own; infinite if half of them stay."""
    generator = torch.Generator().manual_seed(batch_size)
    lam = CURVATURE * torch.where(torch.arange(DIMENSION) % 2 == 0, 1.0, -1.0)
    w, left = torch.zeros(REPLICAS, DIMENSION), torch.full((REPLICAS,), math.inf)
    for step in range(1, STEPS + 1):
        noise = NOISE / math.sqrt(batch_size) * torch.randn(w.shape, generator=generator)
        g = lam * w + noise
        w = w - LR * (lam * (w + rho * g / g.norm(dim=1, keepdim=True)) + noise)
        out = (0.5 * (lam * w.square()).sum(1) < LEVEL) & left.isinf()
        left[out] = step
        if not left.isinf().any():
            break
    return float(np.median(left.numpy()))


def quadratic(console: Console) -> list[dict[str, float | int | None]]:
    table = Table("rho", "B", "tau", "predicted slow-down", "measured", title="quadratic, additive noise")
    rows = []
    for rho, size in ((0.5, 1), (0.5, 2), (0.5, 4), (0.5, 16), (0.1, 8), (0.1, 32), (0.1, 128)):
        # |g_B| at the centre is the noise's, of which 1 / E|.| and E[1 / |.|] agree to 1 / d
        tau = rho * CURVATURE * math.sqrt(size) / (NOISE * math.sqrt(DIMENSION))
        predicted = 1 / (1 - tau) if tau < 1 else math.inf
        measured = escape(size, rho) / escape(size, 0.0)
        finite = [x if math.isfinite(x) else None for x in (predicted, measured)]
        rows.append({"rho": rho, "batch_size": size, "tau": tau, "predicted": finite[0], "measured": finite[1]})
        table.add_row(f"{rho:g}", str(size), f"{tau:.2f}", f"{predicted:.2f}", f"{measured:.2f}")
    console.print(table)
    return rows


def trainings(console: Console) -> list[dict[str, object]]:
    sizes, radii = (32, 256), (0.1, 0.2, 0.3, 0.4, 0.5)
    keys = [(size, rho) for size in sizes for rho in (0.0, *radii)]
    configs = [
        ExperimentConfig(optimizer="sam" if rho else "sgd", rho=rho, batch_size=size, steps=TRAINED)
        for size, rho in keys
    ]
    escapes = {key: cell.escapes for key, cell in zip(keys, train_cells(configs, SEEDS), strict=True)}
    table = Table("rho", "B", "tau", "predicted slow-down", "measured", title=f"digits, {SEEDS} seeds")
    rows: list[dict[str, object]] = []
    for size, rho in keys:
        if rho:
            torch.manual_seed(0)
            number = measure(make_task("digits-mlp"), Settings(rho=rho, batch_size=size), watch=0).trap_number
            predicted = 1 / (1 - number.value) if number.value < 1 else math.inf
            own, plain = ([TRAINED if e is None else e for e in escapes[size, r]] for r in (rho, 0.0))
            each = sorted(a / b for a, b in zip(own, plain, strict=True))
            measured = f"{np.median(each):.2f} [{each[0]:.2f}, {each[-1]:.2f}]"
            rows.append({"rho": rho, "batch_size": size, "tau": number.value, "slow_downs": each})
            table.add_row(f"{rho:g}", str(size), str(number), f"{predicted:.2f}", measured)
    console.print(table)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quadratic", action="store_true")
    parser.add_argument("--trainings", action="store_true")
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=150)
    everything = not (options.quadratic or options.trainings or options.networks)
    data: dict[str, object] = {"provenance": provenance().to_dict()}
    if options.quadratic or everything:
        data["quadratic"] = quadratic(console)
    if options.trainings or everything:
        data["trainings"] = trainings(console)
    if options.networks or everything:
        found: dict[str, list[Measurement]] = {}
        rows = []
        for name, settings, looks in states():
            for step, m in along(name, settings, looks):
                found.setdefault(name, []).append(m)
                rows.append({"task": name, "step": step, "verdict": judge_measurement(m), **m.to_dict()})
                first = m.curvature.value * (1 - m.trap_number.value)
                what = f"{name} rho={settings.rho:g} lr={settings.lr:g} g={settings.momentum:g} B={settings.batch_size}"
                numbers = f"tau {m.trap_number}, lam(1-tau) {first:.3g}, predicted {m.predicted_curvature}"
                felt = f"felt {m.effective_curvature}, plain {m.curvature}, a step aside {m.plain_curvature}"
                console.print(f"{what} step {step}: {numbers}, {felt}", soft_wrap=True)
        data["networks"] = rows
        _summary([m for each in found.values() for m in each], console)
        if options.figure:
            figure = plot_calibration(found, COLOURS).figure
            assert isinstance(figure, Figure)
            figure.savefig(options.figure, dpi=200)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1))


def _summary(found: list[Measurement], console: Console) -> None:
    """Print how often the prediction has the sign of what is felt, where SGD leaves."""
    kept = [m for m in found if m.plain_curvature.high < 0.0 and m.curvature.high < 0.0]
    sure = [m for m in kept if m.effective_curvature.low > 0.0 or m.effective_curvature.high < 0.0]
    for label, predict in (
        ("1 - tau", lambda m: m.curvature.value * (1 - m.trap_number.value)),
        ("with the turn", lambda m: m.predicted_curvature.value),
    ):
        right = sum((predict(m) > 0) == (m.effective_curvature.value > 0) for m in sure)
        off = [abs(predict(m) - m.effective_curvature.value) / abs(m.plain_curvature.value) for m in kept]
        console.print(f"{label}: sign right at {right} of {len(sure)}, median error {np.median(off):.2f} of |lam|")
    console.print(f"{len(found) - len(kept)} of {len(found)} states left out: SGD is not shown to leave a step aside")


if __name__ == "__main__":
    main()
