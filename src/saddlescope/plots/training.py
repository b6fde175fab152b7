"""Training runs: loss curves and final values over seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from saddlescope.plots.style import INK, add_legend, new_axes


def plot_loss_curves(
    losses: Mapping[str, ArrayLike],
    colours: Mapping[str, str],
    *,
    dashed: frozenset[str] = frozenset(),
    ax: Axes | None = None,
) -> Axes:
    """Draw losses of shape (runs, steps): the median over runs as a line, their range as a band."""
    ax = ax or new_axes()
    for label, values in losses.items():
        runs = np.atleast_2d(np.asarray(values))
        steps = np.arange(runs.shape[1])
        ax.plot(
            steps,
            np.median(runs, axis=0),
            color=colours[label],
            linestyle="--" if label in dashed else "-",
            linewidth=1.6,
            label=label,
        )
        ax.fill_between(steps, runs.min(axis=0), runs.max(axis=0), color=colours[label], alpha=0.15, linewidth=0)
    ax.set_xlabel("step")
    ax.set_ylabel("training loss")
    add_legend(ax)
    return ax


def plot_final_values(
    values: Mapping[str, ArrayLike], colours: Mapping[str, str], *, label: str, ax: Axes | None = None
) -> Axes:
    """Draw one horizontal bar a label at the mean over runs, every run as a dot, and the range as a line."""
    ax = ax or new_axes()
    for row, (name, runs) in enumerate(values.items()):
        numbers = np.asarray(runs)
        ax.barh(row, numbers.mean(), color=colours[name], alpha=0.75, height=0.65)
        ax.plot([numbers.min(), numbers.max()], [row, row], color=INK, linewidth=1)
        ax.plot(numbers, np.full(numbers.size, row), ".", color=INK, markersize=5)
    ax.set_yticks(range(len(values)), list(values), fontsize=8.5)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(label)
    return ax
