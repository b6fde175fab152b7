"""fig-beale: gradient descent and SAM on Beale's function, and whether T1 explains the picture."""

from __future__ import annotations

import numpy as np
import torch

from saddlescope import landscapes
from saddlescope.dynamics.maps import SAMMap
from saddlescope.dynamics.trajectories import Outcome, simulate
from saddlescope.findings import Check, Evidence, Illustration, Scale, Table
from saddlescope.paper.beale_runs import (
    CAPTURED,
    CRITICAL_RHO,
    MINIMUM,
    RADII,
    SADDLE,
    START,
    STEP_SIZES,
    Run,
    follow,
    level_grid,
    optimizer,
    run,
)
from saddlescope.paper.thresholds import bisect_threshold
from saddlescope.plots.dynamics import plot_series
from saddlescope.plots.landscapes import mark_points, plot_contours, plot_paths
from saddlescope.plots.style import INK, add_legend, colour, new_axes

OFFICIAL_STEPS = 87_683
"""Where the official code's stopping rule ends its gradient descent."""


def examine(scale: Scale) -> Evidence:
    """Run the figure with both step sizes and locate the radius at which capture begins."""
    runs = {name: [run(lr, rho) for rho in RADII] for name, lr in STEP_SIZES.items()}
    thresholds = {name: capture_threshold(lr) for name, lr in STEP_SIZES.items()}
    official_end = follow(optimizer(STEP_SIZES["code"], 0.0), START, OFFICIAL_STEPS)
    first_failing_step = _first_divergence(1.05 * CRITICAL_RHO, STEP_SIZES["text"])
    return Evidence(
        setting="Beale's function from (1, 2), γ = 0, float64, ρ in {0, 0.1, 0.5, 1}, normalized SAM as in the "
        "official "
        "code, followed to time ηt = 40. Step size: η = 1e-4 as in the paper's text, and η = 1e-3/80 as in its code. "
        "The capture threshold is bisected on the end point at ηt = 3.",
        ours=_summary(runs, thresholds),
        checks=checks(runs, thresholds, diverges=first_failing_step is not None),
        numbers={
            "critical_rho_of_T1": CRITICAL_RHO,
            **{f"capture_threshold_{name}": value for name, value in thresholds.items()},
            "official_GD_after_87683_steps": official_end.tolist(),
            "official_GD_distance_to_minimum": float(np.linalg.norm(official_end - MINIMUM)),
            "unnormalized_SAM_diverges_at_step": first_failing_step,
        },
        tables=tuple(_table(name, runs[name]) for name in STEP_SIZES),
        illustrations=(_landscape_figure(runs["text"]), _capture_figure(thresholds["text"])),
    )


def capture_threshold(lr: float) -> float:
    """Return the radius above which normalized SAM from (1, 2) ends at the saddle."""
    steps = round(3 / lr)

    def captured(rho: float) -> bool:
        return bool(np.linalg.norm(follow(SAMMap(lr=lr, rho=rho), START, steps) - SADDLE) < CAPTURED)

    return bisect_threshold(captured, 0.02, 1.0)


def checks(runs: dict[str, list[Run]], thresholds: dict[str, float], *, diverges: bool) -> tuple[Check, ...]:
    """Compare the runs with the picture, and the threshold with T1's."""
    everything = [r for group in runs.values() for r in group]
    free = [r for r in everything if r.rho == 0]
    large = [r for r in everything if r.rho >= 0.5]
    above = [r for r in everything if r.rho > CRITICAL_RHO]
    ratios = [value / CRITICAL_RHO for value in thresholds.values()]
    escaped = sorted({r.rho for r in above if r.end != "saddle"})
    return (
        Check(
            statement="Gradient descent reaches the minimum (3, 0.5).",
            passed=all(r.end == "minimum" for r in free),
            measured="; ".join(f"η = {r.lr:g}: it ends at ({r.final[0]:.4f}, {r.final[1]:.4f})" for r in free) + ".",
        ),
        Check(
            statement="SAM with ρ = 0.5 and ρ = 1 ends at the saddle (0, 1).",
            passed=all(r.end == "saddle" for r in large),
            measured="First within 0.01 of it: "
            + "; ".join(f"ρ = {r.rho:g}, η = {r.lr:g}, step {_steps(r.arrival)}" for r in large)
            + ".",
        ),
        Check(
            statement="T1's condition ρ > 1/|λ₁| decides which radii are captured.",
            passed=not escaped,
            measured=f"1/|λ₁| = {CRITICAL_RHO:.4f}, yet ρ = {', '.join(f'{rho:g}' for rho in escaped)} reaches the "
            "minimum."
            if escaped
            else f"All radii above {CRITICAL_RHO:.4f} are captured.",
        ),
        Check(
            statement="Capture begins at ρ = 1/|λ₁|, within a factor of 1.1.",
            passed=all(1 / 1.1 < ratio < 1.1 for ratio in ratios),
            measured="It begins at "
            + ", ".join(
                f"ρ = {value:.4f} ({ratio:.1f} times)" for value, ratio in zip(thresholds.values(), ratios, strict=True)
            )
            + ": set by how near the path passes, not by λ₁.",
        ),
        Check(
            statement="Unnormalized SAM, the map T1 is about, can be run from (1, 2) at ρ just above 1/|λ₁|.",
            passed=not diverges,
            measured="It diverges within a few steps: |g| is about 300 there." if diverges else "It stays finite.",
            essential=False,
        ),
    )


def _summary(runs: dict[str, list[Run]], thresholds: dict[str, float]) -> str:
    ends = "; ".join(f"ρ = {r.rho:g} → {r.end}" for r in runs["text"])
    text, code = thresholds["text"], thresholds["code"]
    return (
        f"The trajectories end as follows: {ends}. Capture begins at ρ = {text:.4f} (η = 1e-4) or {code:.4f} (η = "
        f"1e-3/80), {text / CRITICAL_RHO:.1f} times T1's 1/|λ₁| = {CRITICAL_RHO:.4f}."
    )


def _first_divergence(rho: float, lr: float) -> int | None:
    """Return the first of ten steps at which unnormalized SAM has diverged, None if it has not."""
    update = SAMMap(lr=lr, rho=rho, normalized=False)
    starts = torch.tensor([START], dtype=torch.float64)
    for steps in range(1, 11):
        if int(simulate(landscapes.get("beale"), update, starts, steps).status[0]) == Outcome.DIVERGED:
            return steps
    return None


def _steps(step: int | None) -> str:
    return "never" if step is None else f"{step:,}"


def _table(name: str, runs: list[Run]) -> Table:
    rows = tuple(
        (r.rho, f"({r.final[0]:z.4f}, {r.final[1]:z.4f})".replace("-", "−"), r.end, r.nearest_approach, r.arrival)
        for r in runs
    )
    source = {"text": "the paper's text", "code": "the official code"}[name]
    return Table(
        caption=f"η = {runs[0].lr:g}, as in {source}: smallest distance to the saddle, first step within 0.01 of it",
        columns=("ρ", "end point", "ends at", "nearest", "arrives"),
        rows=rows,
    )


def _landscape_figure(runs: list[Run]) -> Illustration:
    labels = ["GD", *(f"SAM, ρ = {r.rho:g}" for r in runs[1:])]
    shades = [colour("GD"), *(colour("SAM", lightness=x) for x in (0.6, 0.3, 0.0))]
    paths = {label: np.vstack([_thin(r.early), r.final]) for label, r in zip(labels, runs, strict=True)}
    axes = plot_contours(*level_grid((-1.5, 3.7), (-0.5, 2.7)), ax=new_axes(height=3.6))
    plot_paths(paths, dict(zip(labels, shades, strict=True)), ax=axes)
    mark_points({"start": START, "saddle": tuple(SADDLE), "minimum": tuple(MINIMUM)}, ax=axes)
    return Illustration(
        axes=axes,
        caption="Beale's function, η = 1e-4. SAM with ρ = 0.1, nearly three times T1's threshold, still goes to the "
        "minimum.",
        alt="Level lines of Beale's function with four trajectories from (1, 2): gradient descent and SAM with radius "
        "0.1 end at the minimum (3, 0.5), SAM with radii 0.5 and 1 end at the saddle (0, 1).",
    )


def _capture_figure(threshold: float) -> Illustration:
    lr = STEP_SIZES["text"]
    rhos = np.linspace(0.02, 0.6, 59)
    ends = [np.linalg.norm(follow(optimizer(lr, rho), START, round(3 / lr)) - SADDLE) for rho in rhos]
    axes = plot_series(
        {"end": (rhos, ends)}, {"end": colour("SAM")}, marker="o", linestyle="none", ax=new_axes(height=3.6)
    )
    axes.axvline(CRITICAL_RHO, color=colour("GD"), linestyle="--", linewidth=1.2, label=f"T1: {CRITICAL_RHO:.3f}")
    axes.axvline(threshold, color=INK, linestyle=":", linewidth=1.2, label=f"measured: {threshold:.4f}")
    axes.set(xlabel="ρ", ylabel="distance to the saddle at ηt = 3")
    add_legend(axes, loc="center right")
    return Illustration(
        axes=axes,
        caption="Where normalized SAM from (1, 2) is at ηt = 3, η = 1e-4. Capture begins at the dotted line; nothing "
        "happens at T1's threshold, the dashed one.",
        alt=f"Distance to the saddle against radius: more than 1 up to {threshold:.2f}, then 0; T1's threshold lies at "
        "the far left.",
    )


def _thin(path: np.ndarray) -> np.ndarray:
    """Return a path with points at least 0.01 apart: what a line can show."""
    travelled = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    return path[np.unique(np.searchsorted(travelled, np.arange(0.0, travelled[-1], 0.01)))]
