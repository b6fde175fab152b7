"""Quantities along trajectories and against a parameter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from saddlescope.plots.style import INK, add_legend, new_axes


def plot_series(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    colours: Mapping[str, str],
    *,
    marker: str = "",
    linestyle: str = "-",
    ax: Axes | None = None,
) -> Axes:
    """Draw ``{label: (x, y)}`` as lines or, with ``linestyle="none"``, as points (many points become one image)."""
    ax = ax or new_axes()
    for label, (x, y) in series.items():
        ax.plot(
            np.asarray(x),
            np.asarray(y),
            color=colours[label],
            linewidth=1.5,
            linestyle=linestyle,
            marker=marker,
            markersize=2 if np.size(x) > 200 else 5,
            label=label,
            rasterized=np.size(x) > 1000,
        )
    if len(series) > 1:
        add_legend(ax)
    return ax


def plot_histogram(
    samples: Mapping[str, ArrayLike], colours: Mapping[str, str], *, limits: tuple[float, float], ax: Axes | None = None
) -> Axes:
    """Draw the share of samples in each of 40 bins over ``limits``, one outline a label."""
    ax = ax or new_axes()
    for label, values in samples.items():
        shares = np.full(np.size(values), 1 / np.size(values))
        ax.hist(
            np.asarray(values),
            bins=40,
            range=limits,
            weights=shares,
            histtype="step",
            color=colours[label],
            linewidth=1.5,
            label=label,
        )
    add_legend(ax)
    return ax


def plot_agreement(
    predicted: Mapping[str, ArrayLike], measured: Mapping[str, ArrayLike], colours: Mapping[str, str]
) -> Axes:
    """Draw measured against predicted values on logarithmic axes, with the line of equality."""
    ax = new_axes()
    everything = np.concatenate([np.ravel(v) for v in predicted.values()])
    ends = everything.min() / 2, everything.max() * 2
    ax.loglog(ends, ends, color=INK, linewidth=0.8, linestyle="--", label="measured = predicted")
    for label, x in predicted.items():
        ax.loglog(np.asarray(x), np.asarray(measured[label]), "o", color=colours[label], label=label)
    add_legend(ax, loc="upper left")
    return ax


def plot_jumps(points: ArrayLike, centre: ArrayLike, *, colour: str, ax: Axes) -> Axes:
    """Draw consecutive points of shape (steps, 2) with arrows from each to the next, numbered, around ``centre``."""
    path = np.asarray(points)
    ax.plot(
        *np.asarray(centre), "X", color="white", markeredgecolor=INK, markersize=9, linestyle="none", label="saddle"
    )
    for start, end in zip(path[:-1], path[1:], strict=True):
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkB": 4})
    ax.plot(*path.T, "o", color=colour, markeredgecolor=INK, markersize=6, label=f"{len(path)} consecutive steps")
    add_legend(ax)
    return ax
