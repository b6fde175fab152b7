"""What a radius cap costs where plain SAM trains: test accuracy over rho and seeds, without a cap and under each.

Digits (embedded) and, with SADDLESCOPE_DATA set, CIFAR-10's first 10,000 images pooled to 16x16 with the perceptron and
the convolutional net of ``who_gets_out.py``; SGD with lr = 0.1 and momentum 0.9. Means over seeds with 95% intervals of
Student's t; under a cap, in brackets, the mean difference to the same seeds without, with its interval: one that
excludes zero is marked. Caps at their defaults.

    python benchmarks/cap_accuracy.py [--tasks digits,mlp,mlp-long,convnet] [--rhos 0.1,0.2,0.3,0.5] [--seeds 5]
                                      [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, stdev

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student
from who_gets_out import FORMS, Row, train

from saddlescope.optim import RadiusCap
from saddlescope.provenance import provenance

TASKS = {
    "digits": ("digits-mlp", 256, 600),
    "mlp": ("cifar10-mlp", 512, 570),
    "mlp-long": ("cifar10-mlp", 512, 1_500),
    "convnet": ("cifar10-convnet", 512, 285),
}


def interval(values: list[float]) -> tuple[float, float]:
    """Return mean and half width."""
    n = len(values)
    return fmean(values), float(student.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n) if n > 1 else math.nan


def percent(values: list[float], sign: str = "") -> str:
    mean, half = interval(values)
    return f"{100 * mean:{sign}.2f} ± {100 * half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rhos", default="0.1,0.2,0.3,0.5")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=120)
    where = provenance()
    console.print(f"{where.machine}, {where.cores} cores, {arguments.threads} threads; torch {where.torch}")
    document = []

    def accuracies(task: str, rho: float, form: str | None) -> list[float]:
        name, batch, steps = TASKS[task]
        row = Row("", "", rho, 0.9, options={} if form is None else {"radius_cap": RadiusCap(form=form)})
        runs = [train(name, row, batch, steps, seed) for seed in range(arguments.seeds)]
        document.append({"task": task, "rho": rho, "cap": form, "runs": runs})
        return [accuracy for _, accuracy in runs]

    for task in arguments.tasks.split(","):
        name, batch, steps = TASKS[task]
        title = f"{name}, momentum 0.9, B = {batch}, {steps} steps: test accuracy in %, n = {arguments.seeds} seeds"
        shown = Table(title=title)
        for heading in ("rho", "no cap", *(f"{form} cap" for form in FORMS)):
            shown.add_column(heading)
        shown.add_row("0 (SGD)", percent(accuracies(task, 0.0, None)))
        for rho in map(float, arguments.rhos.split(",")):
            plain = accuracies(task, rho, None)
            cells = [percent(plain)]
            for form in FORMS:
                capped = accuracies(task, rho, form)
                gains = [a - b for a, b in zip(capped, plain, strict=True)]
                mean, half = interval(gains)
                cells.append(f"{percent(capped)} [{percent(gains, '+')}]" + (" *" if abs(mean) > half else ""))
            shown.add_row(f"{rho:g}", *cells)
        console.print(shown, markup=False)
    if arguments.json:
        arguments.json.write_text(json.dumps({"provenance": where.to_dict(), "cells": document}, indent=1))


if __name__ == "__main__":
    main()
