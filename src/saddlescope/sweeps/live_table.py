"""A sweep as it runs, and its results, as tables for a terminal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from saddlescope.sweeps.engine import Outcome
from saddlescope.sweeps.sweep import SweepResult
from saddlescope.training import ExperimentConfig, Record

LATEST = 8


class LiveTable:
    """Counts, the time that is left, and the latest runs; anything that can print rich tables shows it.

    Args:
        cells: of the sweep.
        known: of them, already in the store.
        workers: runs at once.
    """

    def __init__(self, cells: int, known: int, workers: int) -> None:
        self._cells, self._known, self._workers = cells, known, workers
        self._outcomes: list[Outcome] = []
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Take note of a run that is over."""
        self._outcomes.append(outcome)

    def __rich__(self) -> Table:
        made = len(self._outcomes)
        failed = sum(outcome.record is None for outcome in self._outcomes)
        passed, left = time.monotonic() - self._began, self._cells - self._known - made
        remaining = f", about {passed / made * left:.0f} s left" if made and left else ""
        table = Table(title=f"{self._known + made} of {self._cells} cells, {failed} failed, {passed:.0f} s{remaining}")
        for column in ("run", "training loss", "test accuracy", "seconds"):
            table.add_column(column, justify="left" if column == "run" else "right")
        for outcome in self._outcomes[-LATEST:]:
            record = outcome.record
            table.add_row(_label(outcome.config), *(_numbers(record) if record else (outcome.error, "", "")))
        return table


def result_table(result: SweepResult) -> Table:
    """Return one row a group of runs that differ in nothing but the seed: means and ranges over the seeds."""
    varied = _varied(result.configs)
    title = f"{len(result.records)} of {len(result.configs)} cells, {result.computed} computed, {result.reused} reused"
    table = Table(*varied, "runs", "training loss", "test accuracy", title=f"{title}, {result.seconds:.0f} s")
    groups: dict[tuple[str, ...], list[Record]] = {}
    for config in result.configs:
        if config.key in result.records:
            values = config.to_dict()
            label = tuple(_text(values[name]) for name in varied)
            groups.setdefault(label, []).append(result.records[config.key])
    for label, records in groups.items():
        losses = [record.final_loss for record in records]
        accuracy = statistics.fmean(record.test_accuracy for record in records)
        spread = f"{statistics.fmean(losses):.4g} [{min(losses):.4g}, {max(losses):.4g}]"
        table.add_row(*label, str(len(records)), spread, f"{accuracy:.1%}")
    return table


def _varied(configs: tuple[ExperimentConfig, ...]) -> list[str]:
    rows: list[Mapping[str, Any]] = [config.to_dict() for config in configs]
    return [name for name in rows[0] if name != "seed" and any(row[name] != rows[0][name] for row in rows)]


def _label(config: ExperimentConfig) -> str:
    return f"{config.task}, {config.optimizer}, rho={config.rho:g}, lr={config.lr:g}, momentum={config.momentum:g}"


def _numbers(record: Record) -> tuple[str, str, str]:
    return f"{record.final_loss:.4g}", f"{record.test_accuracy:.1%}", f"{record.seconds:.1f}"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
