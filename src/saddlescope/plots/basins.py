"""Maps of basins of attraction, and of how long capture takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from saddlescope.plots.style import FAINT, INK, add_legend, new_axes
from saddlescope.stability.basins import BasinMap
from saddlescope.stability.fates import DIVERGED, UNDECIDED

# Okabe and Ito's colours, lightened: what must stand out on a basin is drawn on top of it.
BASIN_COLOURS = {
    "minimum": ("#7DB8DC", "#B5DDE9", "#4F93BF", "#9CCBC4"),
    "saddle": ("#E8935A", "#F2C08E"),
    "maximum": ("#D9A5C4",),
    "spurious": ("#E9D36B", "#F3E7A6"),
    "cycle": ("#8CCBAE", "#BFE3D2", "#5FAE8C"),
    "unstable": ("#5B6470", "#747D89"),
}
MARKERS = {"minimum": "*", "saddle": "X", "maximum": "^", "spurious": "D", "cycle": "o"}
DIVERGED_COLOUR, UNDECIDED_COLOUR = "#F3F4F6", "#9AA1AB"
LONGEST_LEGEND = 8


def plot_basins(
    basins: BasinMap,
    ax: Axes | None = None,
    *,
    contours: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> Axes:
    """Draw which attractor captures which start, with the attractors marked where they lie in the map.

    The colour tells the kind, the shade which of its kind: blue minimum, orange saddle, pink maximum, yellow
    spurious, green cycle. Diverged starts are nearly white, undecided ones grey and hatched.

    Args:
        basins: what ``map_basins`` returned.
        ax: where to draw; default new axes.
        contours: level lines to lay over the map, ``(x (columns,), y (rows,), loss (rows, columns))``.
    """
    ax = ax or new_axes(width=5.6, height=4.4)
    colours = _colours(basins)
    keys = sorted(colours)
    image = np.searchsorted(keys, basins.labels)
    ax.imshow(
        image,
        origin="lower",
        extent=_extent(basins),
        cmap=ListedColormap([colours[k] for k in keys]),
        vmin=-0.5,
        vmax=len(keys) - 0.5,
        interpolation="nearest",
        aspect="auto",
    )
    undecided = basins.labels == UNDECIDED
    if undecided.any():
        hatch = np.where(undecided, 1.0, 0.0)
        ax.contourf(basins.x, basins.y, hatch, levels=[0.5, 1.5], colors="none", hatches=["////"])
    if contours is not None:
        x, y, loss = (np.asarray(part) for part in contours)
        finite = loss[np.isfinite(loss)]
        lines = np.unique(np.quantile(finite, np.linspace(0.03, 0.97, 14)))
        ax.contour(x, y, loss, levels=lines, colors="white", linewidths=0.5, alpha=0.6)
    _mark(basins, ax)
    _label_axes(basins, ax)
    _legend(basins, colours, ax)
    return ax


def plot_capture_times(basins: BasinMap, ax: Axes | None = None) -> Axes:
    """Draw how many steps each start takes until it is captured, on a logarithmic scale; white where it never is."""
    ax = ax or new_axes(width=5.6, height=4.4)
    steps = np.ma.masked_less(basins.steps_to_capture, 0)
    top = max(float(steps.max()), 2.0) if steps.count() else 2.0
    image = ax.imshow(
        np.ma.maximum(steps, 1),
        origin="lower",
        extent=_extent(basins),
        cmap="cividis_r",
        norm=LogNorm(vmin=max(1.0, float(np.percentile(steps.compressed(), 1)) if steps.count() else 1.0), vmax=top),
        interpolation="nearest",
        aspect="auto",
    )
    ax.figure.colorbar(image, ax=ax, label="steps to capture", pad=0.02)
    _mark(basins, ax)
    _label_axes(basins, ax)
    return ax


def _colours(basins: BasinMap) -> Mapping[int, str]:
    colours = {DIVERGED: DIVERGED_COLOUR, UNDECIDED: UNDECIDED_COLOUR}
    used: dict[str, int] = {}
    for k, attractor in enumerate(basins.attractors):
        kind = "unstable" if attractor.unstable else attractor.kind
        colours[k] = BASIN_COLOURS[kind][used.get(kind, 0) % len(BASIN_COLOURS[kind])]
        used[kind] = used.get(kind, 0) + 1
    return colours


def _extent(basins: BasinMap) -> tuple[float, float, float, float]:
    """Return the edges of the image: starts are the centres of its pixels."""
    dx, dy = (float(axis[1] - axis[0]) / 2 for axis in (basins.x, basins.y))
    return float(basins.x[0]) - dx, float(basins.x[-1]) + dx, float(basins.y[0]) - dy, float(basins.y[-1]) + dy


def _mark(basins: BasinMap, ax: Axes) -> None:
    left, right, bottom, top = _extent(basins)
    for attractor in basins.attractors:
        place = _in_plane(basins, attractor.point)
        if place is not None and left <= place[0] <= right and bottom <= place[1] <= top:
            ax.plot(
                *place,
                MARKERS[attractor.kind],
                color="white",
                markeredgecolor=INK,
                markeredgewidth=1.0,
                markersize=11 if attractor.kind == "minimum" else 8,
                linestyle="none",
                zorder=4,
            )
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


def _in_plane(basins: BasinMap, point: Sequence[float]) -> tuple[float, float] | None:
    """Return the coordinates of a point in the plane of the starts, None when it lies outside."""
    offset = np.asarray(point) - basins.origin
    place, *_ = np.linalg.lstsq(basins.directions.T, offset, rcond=None)
    apart = np.linalg.norm(basins.directions.T @ place - offset)
    return (float(place[0]), float(place[1])) if apart <= 1e-2 * max(1.0, np.linalg.norm(offset)) else None


def _label_axes(basins: BasinMap, ax: Axes) -> None:
    plain = basins.directions.shape[1] == 2 and np.array_equal(basins.directions, np.eye(2)) and not basins.origin.any()
    ax.set_xlabel("x" if plain else "along the first direction")
    ax.set_ylabel("y" if plain else "along the second direction")
    ax.grid(False)


def _legend(basins: BasinMap, colours: Mapping[int, str], ax: Axes) -> None:
    names, fractions = basins.names(), basins.fractions
    shown = sorted((k for k in fractions if fractions[k].value > 0), key=lambda k: (k < 0, -fractions[k].value))
    entries = [
        Patch(
            facecolor=colours[k],
            edgecolor=INK if k == UNDECIDED else FAINT,
            hatch="////" if k == UNDECIDED else None,
            label=f"{names[k]}  {100 * fractions[k].value:.1f}%",
        )
        for k in shown[:LONGEST_LEGEND]
    ]
    if len(shown) > LONGEST_LEGEND:
        entries.append(Patch(facecolor="none", edgecolor="none", label=f"and {len(shown) - LONGEST_LEGEND} more"))
    add_legend(ax, handles=entries, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
