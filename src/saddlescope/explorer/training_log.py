"""A training monitor's log as the second page shows it."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from saddlescope._checks import refuse
from saddlescope.training.monitor.log import MonitorLog, read_monitor_log

MOST_POINTS = 1500
MOST_CHECKS = 2000
LARGEST_LOG = 256 * 2**20
NOTHING_YET = "No check has been made yet."


def version(path: Path) -> str:
    """Return a text that changes when the log does.

    Raises:
        FileNotFoundError: when there is none.
    """
    status = path.stat()
    return f"{status.st_mtime_ns}-{status.st_size}"


def read_log(path: Path) -> dict[str, Any]:
    """Return what the page draws, JSON-ready: signals as means over equal numbers of steps, checks, verdicts, advice.

    Raises:
        ValueError: for a file that is no such log, or larger than 256 MiB.
        FileNotFoundError: when there is none.
    """
    if path.stat().st_size > LARGEST_LOG:
        raise refuse("log", f"{path.stat().st_size / 2**20:.0f} MiB", f"at most {LARGEST_LOG / 2**20:.0f} MiB")
    return summary(read_monitor_log(path))


def summary(log: MonitorLog) -> dict[str, Any]:
    """Return what the page draws of a log; see `read_log`."""
    every = max(1, math.ceil(len(log.signals["step"]) / MOST_POINTS))
    checks = [dict(check) for check in log.checks[-MOST_CHECKS:]]
    share = log.budget.get("share")
    spent = f"The monitor has taken {share:.1%} of the training's time." if isinstance(share, float) else ""
    return {
        "verdict": log.verdict,
        "advice": log.verdicts[-1]["because"] if log.verdicts else NOTHING_YET,
        "account": spent,
        "every": every,
        "signals": {name: _means(values, every) for name, values in log.signals.items()},
        "checks": checks,
        "verdicts": [dict(verdict) for verdict in log.verdicts],
        "errors": [dict(error) for error in log.errors],
    }


def _means(values: tuple[float, ...], every: int) -> list[float | None]:
    """Return the means of ``every`` values each, those that are not known left out."""
    padded = np.full(-(-len(values) // every) * every, math.nan)
    padded[: len(values)] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a stretch without any
        means = np.nanmean(padded.reshape(-1, every), axis=1) if len(values) else padded
    return [x if math.isfinite(x) else None for x in means.tolist()]
