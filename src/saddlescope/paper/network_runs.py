"""Trainings of small networks that the claims compare: one setting, several seeds, means with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from saddlescope.sweeps.over_seeds import Mean, mean_of
from saddlescope.sweeps.vectorised import VectorisedEngine
from saddlescope.training import ExperimentConfig, Record
from saddlescope.training.data.datasets import CIFAR10
from saddlescope.training.data.image_files import data_folder
from saddlescope.training.tasks import TASKS

STUCK, TRAINED = 2.0, 0.5
"""Training losses; chance is log 10 = 2.303."""
SHARE = 0.1
"""What a gain has to exceed of another to count: at chance, accuracies differ by a few points for no reason."""
WINDOW = 10
"""Batch losses that are averaged where an escape is looked for."""

_made: dict[str, Record] = {}
"""By key of the config: two claims that look at one setting train it once."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting with several seeds."""

    setting: ExperimentConfig
    """That of the first seed."""
    records: tuple[Record, ...]

    @property
    def rho(self) -> float:
        """Radius; 0 for SGD."""
        return self.setting.rho

    @property
    def lr_effective(self) -> float:
        """Effective step size ``lr / (1 - momentum)``."""
        return self.setting.lr / (1 - self.setting.momentum)

    @property
    def capped(self) -> bool:
        """Whether the radius cap is on."""
        return self.setting.radius_cap is not None

    @property
    def losses(self) -> np.ndarray:
        """Training loss at the end, shape ``(seeds,)``; NaN where the run diverged."""
        return np.array([r.final_loss if r.status == "completed" else math.nan for r in self.records])

    @property
    def loss(self) -> Mean:
        """Mean training loss over the seeds that have not diverged."""
        return mean_of(self.losses[np.isfinite(self.losses)])

    @property
    def accuracies(self) -> np.ndarray:
        """Test accuracy at the end, shape ``(seeds,)``."""
        return np.array([record.test_accuracy for record in self.records])

    @property
    def accuracy(self) -> Mean:
        """Mean test accuracy over all seeds."""
        return mean_of(self.accuracies)

    @property
    def diverged(self) -> int:
        """Seeds whose loss stopped being finite."""
        return sum(record.status == "diverged" for record in self.records)

    @property
    def escapes(self) -> list[int | None]:
        """For each seed the first step from which ten steps average a loss below 2, None if there is none."""
        return [_first_below(record.losses, STUCK) for record in self.records]

    @property
    def escapes_text(self) -> str:
        """The same in words, seed by seed."""
        return ", ".join("never" if step is None else str(step) for step in self.escapes)

    @property
    def stuck(self) -> bool:
        """Whether every seed ends above a loss of 2."""
        return bool((self.losses > STUCK).all())

    @property
    def trained(self) -> bool:
        """Whether every seed ends below a loss of 0.5."""
        return bool((self.losses < TRAINED).all())


def train_cells(settings: Iterable[ExperimentConfig], seeds: int, *, workers: int | None = None) -> tuple[Cell, ...]:
    """Train every setting with the seeds ``0, 1, ..., seeds - 1``, many at once; what was trained before is not again.

    Args:
        settings: their seeds do not count.
        seeds: how many.
        workers: runs or ensembles at once; by default the cores.

    Raises:
        RuntimeError: if a run fails.
        FileNotFoundError, ModuleNotFoundError: if a data set, or what it comes with, is not there.
    """
    rows = [[replace(setting, seed=seed) for seed in range(seeds)] for setting in settings]
    missing = {config.key: config for row in rows for config in row if config.key not in _made}
    for task in {config.task for config in missing.values()}:
        TASKS[task].data()  # what is wrong with them is said before anything runs, and once
    for outcome in VectorisedEngine(workers).run(missing.values()):
        if outcome.record is None:
            raise RuntimeError(f"a run of {outcome.config.task} failed: {outcome.error}")
        _made[outcome.config.key] = outcome.record
    return tuple(Cell(setting=row[0], records=tuple(_made[config.key] for config in row)) for row in rows)


def find_cell(cells: Sequence[Cell], rho: float, lr: float, momentum: float, *, capped: bool = False) -> Cell:
    """Return the cell of these settings."""
    return next(
        cell
        for cell in cells
        if (cell.rho, cell.setting.momentum, cell.capped) == (rho, momentum, capped)
        and math.isclose(cell.setting.lr, lr)
    )


def accuracy_gain(after: Cell, before: Cell) -> Mean:
    """Return by how much the test accuracy is higher, seed by seed: equal seeds share initial weights and batches."""
    return mean_of(after.accuracies - before.accuracies)


def surely_above(mean: Mean, other: Mean | float = 0.0) -> bool:
    """Return whether a mean's interval lies above another's, or above a number."""
    high = other.value + other.half_width if isinstance(other, Mean) else other
    return mean.value - mean.half_width > high


def a_share_of(gain: Mean, whole: Mean) -> bool:
    """Return whether a gain is surely more than a tenth of another."""
    return surely_above(gain, SHARE * abs(whole.value))


def surely_below(mean: Mean) -> bool:
    """Return whether a mean's interval lies below zero."""
    return mean.value + mean.half_width < 0.0


def points(gain: Mean) -> str:
    """Return a difference of accuracies in percentage points.

    >>> points(Mean(value=0.754, half_width=0.021))
    '+75.4 ± 2.1'
    """
    return f"{100 * gain.value:+.1f} ± {100 * gain.half_width:.1f}"


def images_at_hand() -> bool:
    """Return whether CIFAR-10 is in the folder of data sets, so that it can be trained on too."""
    folder = data_folder()
    return folder is not None and (folder / CIFAR10.name).is_dir()


def _first_below(losses: Sequence[float], limit: float) -> int | None:
    if len(losses) < WINDOW:
        return None
    means = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")
    steps = np.flatnonzero(means < limit)
    return int(steps[0]) if steps.size else None
