"""table-1: test accuracy over radius and momentum, at equal step size and at equal effective step size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from saddlescope.findings import Check, Evidence, Illustration, Scale, Table
from saddlescope.paper.network_runs import (
    Cell,
    a_share_of,
    accuracy_gain,
    find_cell,
    points,
    surely_above,
    surely_below,
    train_cells,
)
from saddlescope.paper.residual_grid import train_residual_grid
from saddlescope.plots.style import new_axes
from saddlescope.plots.training import plot_grid
from saddlescope.sweeps.over_seeds import Mean
from saddlescope.training import ExperimentConfig

SEEDS = {"quick": 5, "full": 20}
BASE = ExperimentConfig(batch_size=64, steps=500)
RADII = (0.0, 0.5, 0.7, 1.0)
MOMENTA = (0.0, 0.5, 0.9)
LR = 0.1
EFFECTIVE = {0.1: (0.0, 0.5, 0.9), 0.2: (0.0, 0.5), 1.0: (0.0, 0.9)}
"""Momenta at each effective step size η/(1 − γ). The last of each group has η = 0.1 but for the first group's, where
it is γ = 0 that has."""


COLUMNS = tuple((effective, momentum) for effective, momenta in EFFECTIVE.items() for momentum in momenta)
"""Pairs of effective step size and momentum."""


def examine(scale: Scale) -> Evidence:
    """Train the grid, with η/(1 − γ) as an axis of its own; at full scale on a GPU residual networks too."""
    seeds = SEEDS[scale]
    cells = train_cells(settings(), seeds)
    residual = train_residual_grid() if scale == "full" and torch.cuda.is_available() else None
    return Evidence(
        setting="scikit-learn's handwritten digits (1,797 images of 8 × 8), perceptron 64-128-128-128-10 with ReLU, "
        f"cross-entropy, batches of 64, 500 steps, normalized SAM with one batch for both gradients, {seeds} seeds; "
        "95% intervals (Student's t), gains taken seed by seed. The paper's table is of ResNet-18 with batch "
        "normalisation and augmentation on CIFAR-10"
        + (", which is below." if residual else "; --scale full trains it where there is a GPU.")
        + " Its column for γ is at one η, so that η/(1 − γ) grows along it; here both are axes.",
        ours=_summary(cells),
        checks=checks(cells) + (residual.checks if residual else ()),
        numbers={"cells": [_numbers(cell) for cell in (*cells, *(residual.cells if residual else ()))]},
        tables=(_table(cells), *((residual.table,) if residual else ())),
        illustrations=(_grid(cells),),
    )


def settings() -> list[ExperimentConfig]:
    """Return the settings of the grid: every radius, effective step size and momentum."""
    return [
        replace(BASE, optimizer="sam" if rho else "sgd", rho=rho, lr=_lr(effective, momentum), momentum=momentum)
        for rho in RADII
        for effective, momentum in COLUMNS
    ]


def checks(cells: Sequence[Cell]) -> tuple[Check, ...]:
    """Compare momenta at equal step size and at equal effective step size."""
    at_equal_lr = {rho: [_gain(cells, rho, LR, momentum) for momentum in MOMENTA[1:]] for rho in RADII}
    best = {rho: max(gains, key=lambda gain: gain.value) for rho, gains in at_equal_lr.items()}
    equal_step = {
        (rho, effective, momentum): accuracy_gain(
            find_cell(cells, rho, _lr(effective, momentum), momentum), find_cell(cells, rho, effective, 0.0)
        )
        for rho in RADII[1:]
        for effective, momenta in EFFECTIVE.items()
        for momentum in momenta[1:]
    }
    small = {key: gain for key, gain in equal_step.items() if key[1] == LR}
    large = {key: gain for key, gain in equal_step.items() if key[1] != LR}
    rescued = max(RADII[1:], key=lambda rho: best[rho].value)
    return (
        Check(
            statement="At one η, momentum raises SAM's accuracy at some radius, and surely lowers it at none.",
            passed=any(surely_above(best[rho]) for rho in RADII[1:])
            and not any(surely_below(gain) for rho in RADII[1:] for gain in at_equal_lr[rho]),
            measured=_list({f"ρ = {rho:g}": best[rho] for rho in RADII[1:]})
            + " points, best of γ = 0.5 and 0.9 over 0.",
        ),
        Check(
            statement="At one η, it raises SAM's accuracy more than SGD's.",
            passed=surely_above(best[rescued], best[0.0]),
            measured=f"By {points(best[rescued])} points at ρ = {rescued:g}, by {points(best[0.0])} for SGD.",
        ),
        Check(
            statement="At equal η/(1 − γ) = 0.1 it does at some radius a tenth of that, or more.",
            passed=any(a_share_of(gain, best[rescued]) for gain in small.values()),
            measured=_list({f"ρ = {rho:g}, γ = {momentum:g}": gain for (rho, _, momentum), gain in small.items()})
            + " points.",
            essential=False,
        ),
        Check(
            statement="At one η, the larger the radius the more momentum helps.",
            passed=all(best[a].value < best[b].value for a, b in zip(RADII[:-1], RADII[1:], strict=True)),
            measured=_list({f"ρ = {rho:g}": gain for rho, gain in best.items()}) + " points.",
            essential=False,
        ),
        Check(
            statement="At the longer equal η/(1 − γ) of 0.2 and 1 it does so at every radius.",
            passed=all(surely_above(gain) for gain in large.values()),
            measured=_list({f"ρ = {rho:g}, η/(1 − γ) = {step:g}": gain for (rho, step, _), gain in large.items()})
            + " points over γ = 0.",
            essential=False,
        ),
    )


def _lr(effective: float, momentum: float) -> float:
    return effective * (1 - momentum)


def _gain(cells: Sequence[Cell], rho: float, lr: float, momentum: float) -> Mean:
    return accuracy_gain(find_cell(cells, rho, lr, momentum), find_cell(cells, rho, lr, 0.0))


def _list(gains: dict[str, Mean]) -> str:
    return "; ".join(f"{name}: {points(gain)}" for name, gain in gains.items())


def _summary(cells: Sequence[Cell]) -> str:
    rho = 0.7
    plain, fixed = find_cell(cells, rho, LR, 0.0), _gain(cells, rho, LR, 0.9)
    equal, longer = (accuracy_gain(find_cell(cells, rho, *step), plain) for step in ((0.01, 0.9), (1.0, 0.0)))
    return (
        f"At η = 0.1 and ρ = {rho:g}, γ = 0.9 changes SAM's accuracy by {points(fixed)} points, SGD's by "
        f"{points(_gain(cells, 0.0, LR, 0.9))}. At equal η/(1 − γ) = 0.1 it changes SAM's by {points(equal)}; the "
        f"longer step η = 1 without momentum by {points(longer)}."
    )


def _numbers(cell: Cell) -> dict[str, object]:
    return {
        "task": cell.setting.task,
        "rho": cell.rho,
        "lr": cell.setting.lr,
        "momentum": cell.setting.momentum,
        "lr_effective": cell.lr_effective,
        "test_accuracy": cell.accuracy.to_dict(),
        "training_loss": cell.loss.to_dict(),
        "diverged": cell.diverged,
    }


def _row(cells: Sequence[Cell], rho: float) -> list[Cell]:
    """Return the cells of a radius, column by column."""
    return [find_cell(cells, rho, _lr(effective, momentum), momentum) for effective, momentum in COLUMNS]


def _loss_text(cell: Cell) -> str:
    return f"{cell.loss}{f' ({cell.diverged} diverge)' if cell.diverged else ''}"


def _table(cells: Sequence[Cell]) -> Table:
    rows = [(f"{rho:g}" if rho else "SGD", *(_loss_text(cell) for cell in _row(cells, rho))) for rho in RADII]
    return Table(
        caption="Training loss at the end (2.303 is chance), means with 95% intervals, over those that do not diverge",
        columns=("ρ", *(f"η/(1 − γ) = {effective:g}, γ = {momentum:g}" for effective, momentum in COLUMNS)),
        rows=tuple(rows),
    )


def _grid(cells: Sequence[Cell]) -> Illustration:
    means = [[cell.accuracy for cell in _row(cells, rho)] for rho in RADII]
    axes = plot_grid(
        np.array([[mean.value for mean in row] for row in means]),
        np.array([[mean.half_width for mean in row] for row in means]),
        rows=[f"ρ = {rho:g}" if rho else "SGD" for rho in RADII],
        columns=[f"γ = {momentum:g}{'*' if math.isclose(_lr(e, momentum), LR) else ''}" for e, momentum in COLUMNS],
        groups={f"η/(1 − γ) = {effective:g}": len(momenta) for effective, momenta in EFFECTIVE.items()},
        label="test accuracy, %",
        ax=new_axes(width=5.4, height=3.2),
    )
    return Illustration(
        axes=axes,
        caption="Test accuracy on the digits with 95% intervals. Within a group η/(1 − γ) is equal; the starred "
        "columns are those of one η = 0.1, as in the paper's table.",
        alt="A table of test accuracies: rows are radii, columns are momenta in groups of equal effective step size. "
        "Accuracies differ between groups and little within the first two.",
    )
