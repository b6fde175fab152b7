"""A sweep as it runs, and its results, as tables for a terminal."""

from __future__ import annotations

import time
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
    """

    def __init__(self, cells: int, known: int) -> None:
        self._cells, self._known = cells, known
        self._outcomes: list[Outcome] = []
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Take note of a run that is over."""
        self._outcomes.append(outcome)

    @property
    def headline(self) -> str:
        """Return the counts and the time that is left, in one line."""
        made = len(self._outcomes)
        failed = sum(outcome.record is None for outcome in self._outcomes)
        again = sum(outcome.attempts - 1 for outcome in self._outcomes)
        retries = f", {again} begun again" if again else ""
        passed, left = time.monotonic() - self._began, self._cells - self._known - made
        remaining = f", about {passed / made * left:.0f} s left" if made and left else ""
        return f"{self._known + made} of {self._cells} cells, {failed} failed{retries}, {passed:.0f} s{remaining}"

    def __rich__(self) -> Table:
        table = Table(title=self.headline)
        for column in ("run", "training loss", "test accuracy", "seconds"):
            table.add_column(column, justify="left" if column == "run" else "right")
        for outcome in self._outcomes[-LATEST:]:
            record = outcome.record
            table.add_row(_label(outcome.config), *(_numbers(record) if record else (outcome.error, "", "")))
        return table


def result_table(result: SweepResult) -> Table:
    """Return one row a group of runs that differ in nothing but the seed: means and their 95% intervals."""
    groups = result.groups
    title = f"{len(result.records)} of {len(result.configs)} cells, {result.computed} computed, {result.reused} reused"
    if result.retries:
        title += f", {result.retries} begun again"
    counts = [name for name in ("diverged", "failed") if any(getattr(group, name) for group in groups)]
    table = Table(*groups[0].setting, "runs", *counts, title=f"{title}, {result.seconds:.0f} s")
    for column in ("training loss", "test accuracy"):
        table.add_column(column, justify="right")
    for group in groups:
        setting = [_text(value) for value in group.setting.values()]
        numbers = [str(getattr(group, name)) for name in ("completed", *counts)]
        table.add_row(*setting, *numbers, str(group.final_loss), str(group.test_accuracy))
    return table


def failure_lines(result: SweepResult) -> list[str]:
    """Return one line for each reason for which runs failed: how many there are, the reason, and the first of them."""
    groups: dict[str, list[ExperimentConfig]] = {}
    for config in result.configs:
        if config.key in result.failures:
            groups.setdefault(result.failures[config.key], []).append(config)
    return [
        f"{len(failed)} run{'s' if len(failed) > 1 else ''} failed: {error} ({_label(failed[0])}, "
        f"seed={failed[0].seed}{' and others' if len(failed) > 1 else ''})"
        for error, failed in groups.items()
    ]


def _label(config: ExperimentConfig) -> str:
    return f"{config.task}, {config.optimizer}, rho={config.rho:g}, lr={config.lr:g}, momentum={config.momentum:g}"


def _numbers(record: Record) -> tuple[str, str, str]:
    return f"{record.final_loss:.4g}", f"{record.test_accuracy:.1%}", f"{record.seconds:.1f}"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
