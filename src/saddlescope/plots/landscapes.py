"""A loss of two variables and what moves on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from saddlescope.plots.style import COLOURS, FAINT, INK, add_legend, new_axes

MARKERS = {"minimum": ("*", "#F0E442", 12), "saddle": ("X", "#FFFFFF", 8), "start": ("P", "#FFFFFF", 8)}


def plot_contours(x: ArrayLike, y: ArrayLike, loss: ArrayLike, *, levels: int = 14, ax: Axes | None = None) -> Axes:
    """Draw level lines of ``loss`` of shape (rows, columns) over ``x`` (columns,) and ``y`` (rows,).

    The levels are quantiles of the loss, so that a valley shows beside a wall.
    """
    ax = ax or new_axes()
    values = np.asarray(loss)
    lines = np.unique(np.quantile(values, np.linspace(0.0, 1.0, levels + 2)[1:-1]))
    ax.contour(np.asarray(x), np.asarray(y), values, levels=lines, colors=FAINT, linewidths=0.7, linestyles="solid")
    ax.grid(False)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return ax


def plot_paths(paths: Mapping[str, ArrayLike], colours: Mapping[str, str] = COLOURS, *, ax: Axes | None = None) -> Axes:
    """Draw trajectories, each of shape (records, 2), under their labels, with a dot at the end."""
    ax = ax or new_axes()
    for label, path in paths.items():
        points = np.asarray(path)
        ax.plot(*points.T, color=colours[label], linewidth=1.8, label=label)
        ax.plot(*points[-1], "o", color=colours[label], markeredgecolor=INK, markersize=6, zorder=4)
    add_legend(ax)
    return ax


def mark_points(points: Mapping[str, Sequence[float]], *, ax: Axes) -> Axes:
    """Mark points given as ``{"minimum" | "saddle" | "start": (x, y)}``."""
    for kind, point in points.items():
        marker, face, size = MARKERS[kind]
        ax.plot(
            *point, marker, color=face, markeredgecolor=INK, markersize=size, linestyle="none", label=kind, zorder=3
        )
    add_legend(ax)
    return ax
