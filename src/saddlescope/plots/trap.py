"""Measurements of how SAM answers at saddles, and what came of the advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from saddlescope.plots.style import FAINT, INK, add_legend, new_axes
from saddlescope.training.diagnosis.diagnose import Trial
from saddlescope.training.diagnosis.measurement import Measurement


def plot_calibration(
    measurements: Mapping[str, Sequence[Measurement]], colours: Mapping[str, str], *, ax: Axes | None = None
) -> Axes:
    """Draw the curvature that SAM feels along ``v`` over the one predicted, with 95% intervals.

    Both are shares of what SGD feels there, so that -1 is SGD's speed of leaving and above 0 SAM is driven back. On
    the dashed line the prediction is exact; in the shaded quarters it has the wrong sign.

    Args:
        measurements: under their labels; those where SGD is not shown to leave are left out.
        colours: of the labels.
        ax: axes to draw on.
    """
    ax = ax or new_axes()
    values = [-1.0, 0.5]
    for label, found in measurements.items():
        kept = [m for m in found if m.plain_curvature.high < 0.0 and m.curvature.high < 0.0]
        pairs = [
            (m.predicted_curvature, -m.curvature.value, m.effective_curvature, -m.plain_curvature.value) for m in kept
        ]
        if not pairs:
            continue
        x, dx, y, dy = np.array(
            [[p.value / a, (p.high - p.value) / a, f.value / b, (f.high - f.value) / b] for p, a, f, b in pairs]
        ).T
        style = {"fmt": "o", "markersize": 4.5, "linewidth": 0.9, "markeredgecolor": INK, "markeredgewidth": 0.4}
        ax.errorbar(x, y, yerr=dy, xerr=dx, color=colours[label], label=label, **style)
        values += [*x, *y]
    ends = [1.1 * min(values), 1.1 * max(values)]  # an interval may lead outside
    ax.plot(ends, ends, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    for x_side, y_side in ((ends[0], ends[1]), (ends[1], ends[0])):
        ax.fill_between([0.0, x_side], 0.0, y_side, color=FAINT, alpha=0.25, linewidth=0)
    ax.axhline(0.0, color=INK, linewidth=0.6)
    ax.axvline(0.0, color=INK, linewidth=0.6)
    ax.set(xlim=ends, ylim=ends)
    ax.set_xlabel("predicted curvature felt by SAM / SGD's")
    ax.set_ylabel("measured, a step aside")
    if ax.containers:
        add_legend(ax)
    return ax


def plot_trials(trials: Sequence[Trial], colours: Mapping[str, str], *, ax: Axes | None = None) -> Axes:
    """Draw the loss of the training unchanged and of each change that was tried.

    Args:
        trials: of a `Diagnosis`.
        colours: of the changes, and of ``"unchanged"``.
        ax: axes to draw on.
    """
    ax = ax or new_axes()
    for trial in trials:
        steps = np.linspace(0, trial.steps, len(trial.losses))
        label = trial.change if trial.after is None else f"{trial.change}: {trial.after}"
        ax.plot(steps, trial.losses, color=colours[trial.change], linewidth=1.6, label=label)
    ax.set_xlabel("step after the examination")
    ax.set_ylabel("training loss")
    add_legend(ax)
    return ax
