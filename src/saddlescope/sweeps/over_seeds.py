"""The runs of a sweep that differ in nothing but the seed, as means with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from saddlescope.training import ExperimentConfig, Record


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds."""

    value: float
    """NaN without runs."""
    half_width: float
    """Of the interval of `CONFIDENCE` around it, by Student's t; NaN with fewer than two runs."""

    def __str__(self) -> str:
        if math.isnan(self.half_width):
            return "" if math.isnan(self.value) else f"{self.value:.4g}"
        return f"{self.value:.4g} ± {self.half_width:.2g}"

    def to_dict(self) -> dict[str, float | None]:
        """Return value and half width as JSON-ready data; NaN becomes None."""
        numbers = {"value": self.value, "half_width": self.half_width}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()}


CONFIDENCE = 0.95
"""Probability that an interval holds the mean over all seeds, if the runs are normally distributed."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one setting."""

    setting: Mapping[str, Any]
    """What sets the group apart from others of its sweep."""
    completed: int
    """Runs in the means."""
    diverged: int
    """Runs whose loss stopped being finite; they are in no mean."""
    failed: int
    """Runs without a result."""
    final_loss: Mean
    """Training loss at the end."""
    test_accuracy: Mean
    """Fraction of test samples that are right at the end."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready data."""
        means = {"final_loss": self.final_loss.to_dict(), "test_accuracy": self.test_accuracy.to_dict()}
        counts = {name: getattr(self, name) for name in ("completed", "diverged", "failed")}
        return {"setting": dict(self.setting), **counts, **means}


def over_seeds(configs: Sequence[ExperimentConfig], records: Mapping[str, Record]) -> tuple[Group, ...]:
    """Group runs by what they differ in but the seed, in the order of the configs.

    Args:
        configs: the cells of a sweep, each once.
        records: what came out, by key of the config; a config without one has failed.

    >>> [(group.setting, group.failed) for group in over_seeds([ExperimentConfig(), ExperimentConfig(seed=1)], {})]
    [({}, 2)]
    """
    rows = {config.key: config.to_dict() for config in configs}
    first = next(iter(rows.values()))
    varied = [name for name in first if name != "seed" and any(row[name] != first[name] for row in rows.values())]
    groups: dict[str, list[str]] = {}
    for key, row in rows.items():
        groups.setdefault(repr([row[name] for name in varied]), []).append(key)
    return tuple(
        _group({name: rows[keys[0]][name] for name in varied}, [records.get(key) for key in keys])
        for keys in groups.values()
    )


def _group(setting: Mapping[str, Any], records: Sequence[Record | None]) -> Group:
    completed = [record for record in records if record and record.status == "completed"]
    return Group(
        setting=setting,
        completed=len(completed),
        diverged=sum(record is not None for record in records) - len(completed),
        failed=records.count(None),
        final_loss=mean_of([record.final_loss for record in completed]),
        test_accuracy=mean_of([record.test_accuracy for record in completed]),
    )


def mean_of(values: Iterable[float]) -> Mean:
    """Return a mean with Student's interval, half of it ``t_{(1 + c) / 2, n - 1} s / sqrt(n)``.

    >>> str(mean_of([0.0, 1.0, 2.0]))
    '1 ± 2.5'
    """
    numbers = [float(value) for value in values]
    n = len(numbers)
    if n < 2:
        return Mean(value=numbers[0] if n else math.nan, half_width=math.nan)
    error = statistics.stdev(numbers) / math.sqrt(n)
    return Mean(value=statistics.fmean(numbers), half_width=float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error)
