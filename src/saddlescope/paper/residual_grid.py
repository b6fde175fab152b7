"""The grid of table-1 on residual networks, for a GPU: ResNet-18 on CIFAR-10, with and without batch normalisation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from saddlescope.findings import Check, Table
from saddlescope.paper.network_runs import Cell, accuracy_gain, find_cell, points, surely_above, train_cells
from saddlescope.training import ExperimentConfig

NETWORKS = {
    "cifar10-full-resnet18": "ResNet-18 without batch normalisation",
    "cifar10-full-resnet18-bn": "ResNet-18 with batch normalisation",
}
SEEDS, EPOCHS, BATCH, SAMPLES = 5, 200, 512, 50_000
RADII = (0.0, 0.1, 0.5)
STEPS = ((0.1, 0.0), (0.1, 0.9), (0.1, 0.95), (0.01, 0.9), (1.0, 0.0))
"""Pairs of step size and momentum; the last two are the controls at the effective steps of the first two."""
PASS = 6 * 5.56e8
"""Floating-point operations of ResNet-18 a sample of 32 x 32, forward and backward: three times its products, twice."""
SPEED = 1e14
"""Operations a second that one large GPU reaches on it in bfloat16, to the order of magnitude."""


@dataclass(frozen=True, kw_only=True)
class ResidualGrid:
    """What came out."""

    cells: tuple[Cell, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        """For each network: momentum at equal step size, and at equal effective step size."""
        return tuple(check for task in NETWORKS for check in network_checks(NETWORKS[task], self.of(task)))

    @property
    def table(self) -> Table:
        """Test accuracy of every cell."""
        rows = [(NETWORKS[c.setting.task], c.rho, c.setting.lr, c.setting.momentum, c) for c in self.cells]
        return Table(
            caption=f"Residual networks on CIFAR-10 with flips and crops, {EPOCHS} epochs: means with 95% intervals",
            columns=("network", "ρ", "η", "γ", "loss", "test accuracy"),
            rows=tuple((*setting, str(cell.loss), str(cell.accuracy)) for *setting, cell in rows),
        )

    def of(self, task: str) -> list[Cell]:
        """Return the cells of a task."""
        return [cell for cell in self.cells if cell.setting.task == task]


def train_residual_grid() -> ResidualGrid:
    """Say what it costs, and train the grid, one run after another on the GPU."""
    print(f"saddlescope: {cost()}", file=sys.stderr, flush=True)
    return ResidualGrid(cells=train_cells(settings(), SEEDS, workers=1))


def settings() -> list[ExperimentConfig]:
    """Return the settings: every network, radius, and pair of step size and momentum."""
    return [
        ExperimentConfig(
            task=task,
            optimizer="sam" if rho else "sgd",
            rho=rho,
            lr=lr,
            momentum=momentum,
            batch_size=BATCH,
            epochs=EPOCHS,
            schedule="cosine",
            weight_decay=5e-4,
            precision="bfloat16",
            channels_last=True,
            device="cuda",
        )
        for task in NETWORKS
        for rho in RADII
        for lr, momentum in STEPS
    ]


def cost() -> str:
    """Return what the grid costs, in a sentence.

    >>> cost()
    'table-1 trains 150 runs of 200 epochs of CIFAR-10: 8.3e+18 operations, about 23 hours of one large GPU'
    """
    passes = sum(2 if setting.rho else 1 for setting in settings()) * SEEDS * EPOCHS * SAMPLES
    return (
        f"table-1 trains {len(settings()) * SEEDS} runs of {EPOCHS} epochs of CIFAR-10: {passes * PASS:.2g} "
        f"operations, about {passes * PASS / SPEED / 3600:.0f} hours of one large GPU"
    )


def network_checks(name: str, cells: Sequence[Cell]) -> tuple[Check, ...]:
    """Compare momenta of one network at the largest radius."""
    rho = RADII[-1]
    gain = accuracy_gain(find_cell(cells, rho, 0.1, 0.9), find_cell(cells, rho, 0.1, 0.0))
    gain_sgd = accuracy_gain(find_cell(cells, 0.0, 0.1, 0.9), find_cell(cells, 0.0, 0.1, 0.0))
    equal = accuracy_gain(find_cell(cells, rho, 0.01, 0.9), find_cell(cells, rho, 0.1, 0.0))
    return (
        Check(
            statement=f"{name}: at one η, momentum raises SAM's accuracy at ρ = {rho:g} more than SGD's.",
            passed=surely_above(gain, gain_sgd),
            measured=f"By {points(gain)} and {points(gain_sgd)} points.",
        ),
        Check(
            statement=f"{name}: at equal η/(1 − γ) = 0.1 it raises SAM's accuracy at ρ = {rho:g}.",
            passed=surely_above(equal),
            measured=f"By {points(equal)} points.",
            essential=False,
        ),
    )
