"""fig-wp: where SAM takes its gradient while it sits on the saddle of Beale's function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from saddlescope import landscapes
from saddlescope.dynamics.ascent import ascent_series
from saddlescope.dynamics.maps import SAMMap
from saddlescope.findings import Check, Evidence, Illustration, Scale, Table
from saddlescope.paper.beale_runs import SADDLE, START, STEP_SIZES, Path, follow, level_grid
from saddlescope.plots.dynamics import plot_jumps, plot_series
from saddlescope.plots.landscapes import plot_contours
from saddlescope.plots.style import colour, new_axes

RHO = 0.5
FIRST_STEP = 5000
"""The paper's figure starts here."""
SAMPLES = {"quick": 5_000, "full": 100_000}


@dataclass(frozen=True, kw_only=True)
class Jumps:
    """Consecutive points ``w`` on the trap and the perturbed points ``w_p`` that belong to them, each (steps, 2)."""

    lr: float
    points: Path
    perturbed: Path

    @property
    def distance(self) -> Path:
        """|w - saddle|, shape (steps,)."""
        return np.linalg.norm(self.points - SADDLE, axis=1)

    @property
    def perturbed_distance(self) -> Path:
        """|w_p - saddle|, shape (steps,)."""
        return np.linalg.norm(self.perturbed - SADDLE, axis=1)

    @property
    def crossings(self) -> float:
        """The share of steps that turn ``w_p`` by more than 90 degrees about the saddle."""
        offsets = self.perturbed - SADDLE
        return float(((offsets[:-1] * offsets[1:]).sum(axis=1) < 0).mean())


def examine(scale: Scale) -> Evidence:
    """Compare how far the weights and the perturbed weights are from the saddle, step by step."""
    jumps = [measure(lr, SAMPLES[scale]) for lr in STEP_SIZES.values()]
    widest = max(float(j.distance.max()) for j in jumps)
    crossings = [j.crossings for j in jumps]
    return Evidence(
        setting=f"Normalized SAM on Beale's function from (1, 2), ρ = {RHO:g}, η = 1e-4 (text) and 1e-3/80 (code), γ = "
        f"0; {SAMPLES[scale]:,} consecutive steps from step {FIRST_STEP:,}.",
        ours=f"The weights stay within {widest:.4f} of the saddle while w_p stays ρ = {RHO:g} away on a circle around "
        f"it and lands on the opposite side after {min(crossings):.0%} to {max(crossings):.0%} of the steps.",
        checks=checks(jumps),
        numbers={
            "largest_distance_of_w": [float(j.distance.max()) for j in jumps],
            "share_of_steps_across_the_saddle": crossings,
        },
        tables=(
            Table(
                caption="Distances to the saddle (0, 1), and share of steps across it",
                columns=("η", "w: rms", "w: max", "w_p: mean", "across"),
                rows=tuple(
                    (
                        j.lr,
                        float(np.sqrt((j.distance**2).mean())),
                        float(j.distance.max()),
                        float(j.perturbed_distance.mean()),
                        j.crossings,
                    )
                    for j in jumps
                ),
            ),
        ),
        illustrations=(_jumps(jumps[-1]), _distances(jumps[-1])),
    )


def measure(lr: float, steps: int) -> Jumps:
    """Return ``steps`` consecutive points from step 5,000 on."""
    update = SAMMap(lr=lr, rho=RHO)
    points = follow(update, follow(update, START, FIRST_STEP), steps - 1, record_every=1)
    perturbed = ascent_series(landscapes.get("beale"), update, torch.from_numpy(points)).perturbed
    return Jumps(lr=lr, points=points, perturbed=perturbed.numpy())


def checks(jumps: list[Jumps]) -> tuple[Check, ...]:
    """Compare distances with ``rho`` and count the jumps across the saddle."""
    widest = max(float(j.distance.max()) for j in jumps)
    offset = max(float(np.abs(j.perturbed_distance - RHO).max()) for j in jumps)
    crossings = min(j.crossings for j in jumps)
    return (
        Check(
            statement="The weights are pinned: w never leaves the saddle by more than ρ/100.",
            passed=widest < RHO / 100,
            measured=f"Largest distance {widest:.5f}.",
        ),
        Check(
            statement="The perturbed point is not: it stays ρ away, to 1%.",
            passed=offset < RHO / 100,
            measured=f"| |w_p − d| − ρ | is at most {offset:.5f}.",
        ),
        Check(
            statement="The perturbed point jumps across the saddle on most steps.",
            passed=crossings > 0.5,
            measured=f"On at least {crossings:.1%} of the steps; on the others it moves along the circle on one side.",
        ),
    )


def _jumps(jumps: Jumps) -> Illustration:
    axes = plot_contours(*level_grid((-0.8, 0.8), (0.4, 1.6)), ax=new_axes(height=3.6))
    plot_jumps(jumps.perturbed[:8], SADDLE, colour=colour("SAM"), ax=axes)
    axes.set_aspect("equal")
    return Illustration(
        axes=axes,
        caption=f"w_p at 8 consecutive steps from step {FIRST_STEP:,}, η = {jumps.lr:g}. The weights w themselves are "
        "inside the white cross.",
        alt="Eight points at distance 0.5 from the saddle, left and right of it in turn, joined by arrows through it.",
    )


def _distances(jumps: Jumps) -> Illustration:
    update = SAMMap(lr=jumps.lr, rho=RHO)
    points = follow(update, START, FIRST_STEP, record_every=1)
    perturbed = ascent_series(landscapes.get("beale"), update, torch.from_numpy(points)).perturbed.numpy()
    paths = {"w": points, "w$_p$": perturbed}
    series = {name: (np.arange(len(path)), np.linalg.norm(path - SADDLE, axis=1)) for name, path in paths.items()}
    axes = plot_series(series, {"w": colour("GD"), "w$_p$": colour("SAM")}, ax=new_axes(height=3.6))
    axes.set(xlabel="step", ylabel="distance to the saddle", yscale="log", ylim=(1e-6, 3))
    return Illustration(
        axes=axes,
        caption=f"The {FIRST_STEP:,} steps before: w falls onto the saddle, w_p stays ρ = {RHO:g} away from it.",
        alt="Two curves on a logarithmic scale: the distance of w drops below 0.001, that of the perturbed point "
        "settles at 0.5.",
    )
