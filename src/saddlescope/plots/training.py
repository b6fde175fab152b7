"""Training runs: loss curves, final values over seeds, and grids of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import ArrayLike

from saddlescope.plots.style import COLOURS, FAINT, INK, add_legend, new_axes


def plot_loss_curves(
    losses: Mapping[str, ArrayLike],
    colours: Mapping[str, str] = COLOURS,
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


def plot_escape_steps(
    escapes: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    colours: Mapping[str, str],
    *,
    dashed: frozenset[str] = frozenset(),
    ax: Axes | None = None,
) -> Axes:
    """Draw steps to escape against the batch size on logarithmic axes, with a line along which samples are equal.

    Args:
        escapes: batch sizes, mean steps and half widths of their intervals, shape ``(k,)`` each, by label.
        colours: of the labels.
        dashed: labels whose lines are dashed.
        ax: axes to draw into; default new ones.
    """
    ax = ax or new_axes()
    for label, (sizes, steps, half_widths) in escapes.items():
        style = {"color": colours[label], "linestyle": "--" if label in dashed else "-", "linewidth": 1.6}
        ax.errorbar(
            np.asarray(sizes), np.asarray(steps), np.asarray(half_widths), fmt="o", markersize=4, label=label, **style
        )
    sizes = np.unique(np.concatenate([np.asarray(sizes) for sizes, *_ in escapes.values()]))
    low, high = ax.get_ylim()
    ax.plot(sizes, high * sizes[0] / sizes, ":", color=FAINT, linewidth=1.4, label="equal samples")
    ax.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="steps to escape", ylim=(max(low, 1), 1.6 * high))
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    add_legend(ax)
    return ax


def plot_grid(
    values: ArrayLike,
    half_widths: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    groups: Mapping[str, int],
    label: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw a table of shares in [0, 1] as coloured fields, each with its percentage and half of its interval.

    Args:
        values: shape ``(rows, columns)``.
        half_widths: of the intervals, the same shape.
        rows: labels, the first at the top.
        columns: labels.
        groups: headings over the columns from the left, and how many columns each has; gaps part them.
        label: what the fields show, below them.
        ax: axes to draw into; default new ones.
    """
    ax = ax or new_axes()
    shares, errors = np.asarray(values), np.asarray(half_widths)
    colours = LinearSegmentedColormap.from_list("share", ["white", COLOURS["GD"]])
    gaps = np.repeat(np.arange(len(groups)), list(groups.values())) * 0.25
    left = np.arange(shares.shape[1]) + gaps
    for (i, j), share in np.ndenumerate(shares):
        # Full blue would hide the numbers.
        ax.bar(left[j], 0.94, 0.94, bottom=i - 0.47, color=colours(0.85 * share))
        ink = "white" if share > 0.6 else INK
        ax.text(left[j], i - 0.06, f"{100 * share:.1f}", ha="center", va="center", fontsize=9.5, color=ink)
        ax.text(left[j], i + 0.24, f"± {100 * errors[i, j]:.1f}", ha="center", va="center", fontsize=6.5, color=ink)
    first = 0
    for heading, count in groups.items():
        middle = left[first : first + count].mean()
        ax.text(middle, -0.62, heading, ha="center", va="bottom", fontsize=8.5, color=INK)
        first += count
    ax.set_xticks(left, list(columns), fontsize=8.5)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=9)
    ax.set(xlim=(-0.55, left[-1] + 0.55), ylim=(len(rows) - 0.45, -1.0), xlabel=label)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
