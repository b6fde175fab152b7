"""Where a monitor reports to: experiment trackers and plain functions, told apart by what they can do."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from saddlescope._checks import refuse

Sink = Callable[[Mapping[str, Any]], object]
"""Takes one record of a monitor's log."""

PREFIX = "saddlescope/"
_OF_A_CHECK = ("trap_number", "critical_rho", "curvature", "minimum", "maximum")


def sink_of(logger: Any) -> Sink:
    """Return the function that hands records to a logger.

    - TensorBoard's ``SummaryWriter`` (anything with ``add_scalar`` and ``add_text``): scalars at their step, changes
      of the verdict as text.
    - mlflow, the module, or a logger of Lightning's (``log_metrics``): the same scalars.
    - a wandb run (``define_metric`` and ``log``): the same, over a step of their own, so that the run's own steps
      stay the caller's.
    - a ``logging.Logger``: a line for each change of the verdict and each check that failed.
    - any function: every record as it stands in the log.

    Scalars are the means of the free signals over the steps since the last reading, the numbers of checks, and the
    share of time spent; all begin with ``saddlescope/``.

    Raises:
        ValueError: for anything else.

    >>> lines = []
    >>> sink_of(lines.append)({"type": "error", "step": 1, "error": "out of memory"})
    >>> lines[0]["step"]
    1
    """
    if isinstance(logger, logging.Logger):
        return lambda record: _to_logger(logger, record)
    if hasattr(logger, "add_scalar") and hasattr(logger, "add_text"):
        return lambda record: _to_tensorboard(logger, record)
    if hasattr(logger, "define_metric") and hasattr(logger, "log"):
        logger.define_metric(f"{PREFIX}step")
        logger.define_metric(f"{PREFIX}*", step_metric=f"{PREFIX}step")
        return lambda record: _to_wandb(logger, record)
    if hasattr(logger, "log_metrics"):
        return lambda record: _to_metrics(logger, record)
    if callable(logger):
        return logger
    raise refuse(
        "loggers",
        type(logger).__name__,
        "a SummaryWriter, a wandb run, mlflow, a logging.Logger or a function of a record",
    )


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record that make curves, by name; those that are not known are left out.

    >>> scalars({"type": "signals", "step": 2, "loss": [1.0, 3.0], "cosine": [None, None]})
    {'saddlescope/loss': 2.0}
    """
    found: dict[str, float | None] = {}
    if record["type"] == "signals":
        for name, values in record.items():
            known = [v for v in values if v is not None] if isinstance(values, list) else []
            if known:
                found[name] = math.fsum(known) / len(known)
    elif record["type"] == "check":
        found = {name: record[name] for name in _OF_A_CHECK}
        found["trapped"] = float(record["verdict"] == "trapped")
        account = record["budget"]
        if account["training_seconds"]:
            found["share_spent"] = account["spent_seconds"] / account["training_seconds"]
    return {PREFIX + name: float(value) for name, value in found.items() if value is not None}


def line_of(record: Mapping[str, Any]) -> str | None:
    """Return what a record is worth a line of text; None for signals and checks.

    >>> line_of({"type": "error", "step": 7, "error": "out of memory"})
    'step 7: a check failed: out of memory'
    """
    if record["type"] == "verdict":
        return f"step {record['step']}: {record['verdict']} (before: {record['before']}). {record['because']}"
    if record["type"] == "error":
        return f"step {record['step']}: a check failed: {record['error']}"
    return None


def _to_tensorboard(writer: Any, record: Mapping[str, Any]) -> None:
    for name, value in scalars(record).items():
        writer.add_scalar(name, value, record["step"])
    if line := line_of(record):
        writer.add_text(f"{PREFIX}{record['type']}", line, record["step"])


def _to_wandb(run: Any, record: Mapping[str, Any]) -> None:
    if numbers := scalars(record):
        run.log({f"{PREFIX}step": record["step"], **numbers})


def _to_metrics(tracker: Any, record: Mapping[str, Any]) -> None:
    if numbers := scalars(record):
        tracker.log_metrics(numbers, step=record["step"])


def _to_logger(logger: logging.Logger, record: Mapping[str, Any]) -> None:
    if line := line_of(record):
        logger.warning(line) if record.get("verdict") == "trapped" or record["type"] == "error" else logger.info(line)
