"""fig-cosine: the angle between the gradients at w and at w_p while SAM sits on the saddle of Beale's function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from saddlescope import landscapes
from saddlescope.dynamics.ascent import ascent_series
from saddlescope.dynamics.maps import SAMMap
from saddlescope.findings import Check, Evidence, Illustration, Scale, Table
from saddlescope.paper.beale_runs import STEP_SIZES, Path, on_the_trap, run
from saddlescope.plots.dynamics import plot_histogram, plot_series
from saddlescope.plots.style import colour, new_axes

RHOS = (0.5, 1.0)
SAMPLES = {"quick": 20_000, "full": 200_000}
"""Steps on the trap over which the statistics are taken."""


@dataclass(frozen=True, kw_only=True)
class CosineStatistics:
    """The distribution of cos(g(w), g(w_p)) over consecutive steps on the trap."""

    lr: float
    rho: float
    cosine: Path
    """One value a step, shape (steps + 1,)."""

    @property
    def near_one(self) -> float:
        """The share of steps with |cos| > 0.9."""
        return float((np.abs(self.cosine) > 0.9).mean())


def examine(scale: Scale) -> Evidence:
    """Measure the cosine on the way to the trap and on it."""
    statistics = [measure(lr, rho, SAMPLES[scale]) for lr in STEP_SIZES.values() for rho in RHOS]
    mean = [float(s.cosine.mean()) for s in statistics]
    share = [s.near_one for s in statistics]
    return Evidence(
        setting="Normalized SAM on Beale's function from (1, 2), ρ = 0.5 and 1, η = 1e-4 (text) and 1e-3/80 (code), γ "
        "= 0. "
        f"Statistics over {SAMPLES[scale]:,} consecutive steps after time ηt = 1, when SAM has settled on the saddle.",
        ours=f"On the saddle the cosine reaches both ends of [−1, 1], but its mean is {min(mean):+.2f} to "
        f"{max(mean):+.2f} and only "
        f"{min(share):.1%} to {max(share):.1%} of the steps lie beyond ±0.9: it stays near 0 most of the time.",
        checks=checks(statistics),
        numbers={"mean_cosine": mean, "share_beyond_0.9": share},
        tables=(
            Table(
                caption="cos(g(w), g(w_p)) on the saddle",
                columns=("η", "ρ", "mean", "share > 0.9", "share < −0.9"),
                rows=tuple(
                    (
                        s.lr,
                        s.rho,
                        float(s.cosine.mean()),
                        float((s.cosine > 0.9).mean()),
                        float((s.cosine < -0.9).mean()),
                    )
                    for s in statistics
                ),
            ),
        ),
        illustrations=(_series(STEP_SIZES["code"], 0.5), _histogram(statistics)),
    )


def measure(lr: float, rho: float, steps: int) -> CosineStatistics:
    """Return the cosine over ``steps`` + 1 points on the trap."""
    return CosineStatistics(lr=lr, rho=rho, cosine=_cosine(lr, rho, on_the_trap(lr, rho, steps)))


def checks(statistics: list[CosineStatistics]) -> tuple[Check, ...]:
    """Compare the distributions with a swing over [-1, 1] and with an alternation between its ends."""
    low, high = max(s.cosine.min() for s in statistics), min(s.cosine.max() for s in statistics)
    shares = [s.near_one for s in statistics]
    return (
        Check(
            statement="At the saddle the cosine takes values over the whole of [−1, 1].",
            passed=bool(low < -0.9 and high > 0.9),
            measured=f"Lowest value at most {low:.4f}, highest at least {high:.4f}, in each of {len(statistics)} runs.",
        ),
        Check(
            statement="It alternates between values near −1 and near 1 (more than half of the steps beyond ±0.9).",
            passed=min(shares) > 0.5,
            measured=f"{min(shares):.1%} to {max(shares):.1%} of the steps.",
            essential=False,
        ),
    )


def _cosine(lr: float, rho: float, points: Path) -> Path:
    return ascent_series(landscapes.get("beale"), SAMMap(lr=lr, rho=rho), torch.from_numpy(points)).cosine.numpy()


def _series(lr: float, rho: float) -> Illustration:
    points = run(lr, rho).early[:5000]
    axes = plot_series(
        {"cosine": (np.arange(len(points)), _cosine(lr, rho, points))},
        {"cosine": colour("SAM")},
        marker=".",
        linestyle="none",
        ax=new_axes(),
    )
    axes.set(xlabel="step", ylabel="cos(g(w), g(w$_p$))", ylim=(-1.1, 1.1))
    return Illustration(
        axes=axes,
        caption=f"The first 5,000 steps with the official step size, ρ = {rho:g}: the angle turns smoothly on the way "
        "in; once SAM has arrived, it jumps, mostly near a right angle and now and then to either end.",
        alt="Cosine over 5,000 steps: a smooth fall from 1 to −0.8, then from about step 2,280 a scatter between −1 "
        "and 1, dense around 0.",
    )


def _histogram(statistics: list[CosineStatistics]) -> Illustration:
    cases = {f"η = {s.lr:g}, ρ = {s.rho:g}": s for s in statistics}
    tones = [colour(name, lightness=lightness) for name in ("SAM", "GD") for lightness in (0.0, 0.5)]
    shades = dict(zip(cases, tones, strict=True))
    axes = plot_histogram({label: s.cosine for label, s in cases.items()}, shades, limits=(-1.0, 1.0))
    axes.set(xlabel="cos(g(w), g(w$_p$)) on the saddle", ylabel="share of steps")
    return Illustration(
        axes=axes,
        caption="Distribution on the saddle. An alternation between −1 and 1 would put all weight at the two ends.",
        alt="Four overlaid histograms of the cosine, spread over −1 to 1 and highest around 0.",
    )
