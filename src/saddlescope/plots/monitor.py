"""What a monitor saw of a training: the loss under its verdicts, and trap numbers."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from saddlescope.plots.style import COLOURS, FAINT, INK, add_legend, new_axes
from saddlescope.training.monitor.log import MonitorLog

VERDICT_COLOURS = {
    "trapped": COLOURS["SAM"],
    "slowed": COLOURS["script"],
    "free": COLOURS["SAM + cap"],
    "undetermined": FAINT,
}


def plot_monitored_loss(log: MonitorLog, *, ax: Axes | None = None) -> Axes:
    """Draw the loss of every step on a ground in the colour of the verdict then, and a tick below for every check."""
    ax = ax or new_axes()
    steps, losses = np.asarray(log.signals["step"]), np.asarray(log.signals["loss"])
    ax.plot(steps, losses, color=INK, linewidth=0.9)
    if len(steps):
        changes = [("undetermined", steps[0]), *((v["verdict"], v["step"]) for v in log.verdicts), ("", steps[-1])]
        named: set[str] = set()
        for (verdict, start), (_, end) in zip(changes[:-1], changes[1:], strict=True):
            if end > start:
                label = None if verdict in named else verdict
                ax.axvspan(start, end, color=VERDICT_COLOURS[verdict], alpha=0.22, linewidth=0, label=label)
                named.add(verdict)
        add_legend(ax)
    ax.plot(
        [c["step"] for c in log.checks], [0.02] * len(log.checks), "|", color=INK, transform=ax.get_xaxis_transform()
    )
    ax.set_xlabel("step")
    ax.set_ylabel("batch loss")
    return ax


def plot_trap_numbers(log: MonitorLog, *, ax: Axes | None = None) -> Axes:
    """Draw the trap number of every check with two standard errors, in the colour of what the check found.

    Checks that showed no negative curvature have none. Above the line at 1 SAM turns back to the saddle.
    """
    ax = ax or new_axes()
    for finding, colour in VERDICT_COLOURS.items():
        rows = [
            (c["step"], c["trap_number"], 2 * (c["trap_number_error"] or math.nan))
            for c in log.checks
            if c["finding"] == finding and c["trap_number"] is not None
        ]
        if rows:
            steps, numbers, errors = np.array(rows, dtype=float).T
            ax.errorbar(
                steps, numbers, yerr=errors, fmt="o", color=colour, markersize=4.5, capsize=2.5, label=f"{finding}"
            )
    ax.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("step")
    ax.set_ylabel("trap number")
    if ax.get_legend_handles_labels()[0]:
        add_legend(ax)
    return ax
