"""fig-saddle: gradient descent and SAM on x^2 - y^2 from (-3, -0.01), as published and as the script runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlescope import landscapes
from saddlescope.dynamics.maps import Gradient, GradientMap, SAMMap, UpdateMap
from saddlescope.dynamics.trajectories import simulate
from saddlescope.findings import Check, Evidence, Illustration, Scale, Table
from saddlescope.paper.thresholds import bisect_threshold
from saddlescope.plots.dynamics import plot_series
from saddlescope.plots.landscapes import mark_points, plot_contours, plot_paths
from saddlescope.plots.style import colour, new_axes
from saddlescope.stability.multipliers import critical_rho
from saddlescope.stability.traps import two_cycle_amplitude

START = (-3.0, -0.01)
LR, RHO, STEPS = 0.01, 0.5, 500
"""As in the official script."""
SETTLED = 20_000
EIGENVALUE = 2.0
"""The Hessian of x^2 - y^2 is diag(2, -2)."""


@dataclass(frozen=True)
class UnclearedSAMMap(SAMMap):
    """SAM as the official demo script runs it: the first gradient is not cleared, the direction is ``g(w) + g(w_p)``.

    On a quadratic loss this is exactly normalized SAM with ``(2 lr, rho / 2)``, because
    ``g(w) + g(w + rho n) = 2 g(w + (rho / 2) n)``.

    >>> w, g = torch.tensor([1.0, 2.0]), lambda w: torch.stack([2 * w[0], -2 * w[1]])
    >>> script, sam = UnclearedSAMMap(lr=0.01, rho=0.5), SAMMap(lr=0.02, rho=0.25)
    >>> torch.allclose(script((w,), g)[0], sam((w,), g)[0])
    True
    """

    def _direction(self, point: Tensor, gradient: Gradient) -> Tensor:
        first = gradient(point)
        return first + gradient(self.perturbed(point, first))


def examine(scale: Scale) -> Evidence:
    """Run the demo both ways, locate the radius at which capture begins and the cycle it ends on."""
    maps: dict[str, UpdateMap] = {
        "GD": GradientMap(lr=LR),
        "SAM": SAMMap(lr=LR, rho=RHO),
        "script": UnclearedSAMMap(lr=LR, rho=RHO),
        "unnormalized SAM": SAMMap(lr=LR, rho=RHO, normalized=False),
    }
    paths = {name: _path(update, STEPS) for name, update in maps.items()}
    amplitude = {name: abs(float(_end(maps[name], SETTLED)[0])) for name in ("SAM", "script")}
    threshold = {"SAM": capture_threshold(SAMMap), "script": capture_threshold(UnclearedSAMMap)}
    drift = float(paths["unnormalized SAM"][-1, 1] / START[1])
    predicted = {"SAM": two_cycle(LR, RHO), "script": two_cycle(2 * LR, RHO / 2)}
    return Evidence(
        setting=f"x² − y² from {START}, η = {LR:g}, ρ = {RHO:g}, γ = 0, {STEPS} steps as in the official script (its "
        "float32 "
        "replaced by float64). “SAM” takes g(w_p) as published; “script” steps along g(w) + g(w_p), because the script "
        "never "
        f"clears the first gradient. Amplitudes after {SETTLED:,} steps; capture thresholds bisected over as many.",
        ours=f"SAM and the script both end at the saddle, on two-cycles of amplitude {amplitude['SAM']:.6f} and "
        f"{amplitude['script']:.6f}. Capture begins at ρ = {threshold['SAM']:.4f} for SAM but at "
        f"{threshold['script']:.4f} for "
        "the script, which is normalized SAM with (2η, ρ/2). T1's λ + ρλ² is exactly 0 at this ρ, so T1 is silent "
        "here.",
        checks=checks(paths, amplitude, threshold, drift),
        numbers={
            "capture_threshold": threshold["SAM"],
            "capture_threshold_script": threshold["script"],
            "two_cycle_amplitude": amplitude["SAM"],
            "two_cycle_amplitude_script": amplitude["script"],
            "critical_rho_of_T1": critical_rho((-EIGENVALUE, EIGENVALUE)),
            "unnormalized_SAM_growth_of_y": drift,
        },
        tables=(
            Table(
                caption="Two-cycle amplitude and capture threshold",
                columns=("optimizer", "amplitude", "ηρλ/(2 − ηλ)", "captured from ρ"),
                rows=tuple((name, amplitude[name], predicted[name], threshold[name]) for name in ("SAM", "script")),
            ),
        ),
        illustrations=(_plane(paths), _distance(paths)),
    )


def two_cycle(lr: float, rho: float) -> float:
    """Return the amplitude of normalized SAM's cycle along an eigenvalue 2: ``lr rho lambda / (2 - lr lambda)``."""
    amplitude = two_cycle_amplitude(EIGENVALUE, lr=lr, rho=rho)
    assert amplitude is not None  # lr * EIGENVALUE < 2 in every run here
    return amplitude


def capture_threshold(kind: type[SAMMap]) -> float:
    """Return the radius above which the map from (-3, -0.01) stays at the saddle."""

    def captured(rho: float) -> bool:
        return bool(np.abs(_end(kind(lr=LR, rho=rho), SETTLED)).max() < 1.0)

    return bisect_threshold(captured, 0.01, 1.0)


def checks(
    paths: dict[str, np.ndarray], amplitude: dict[str, float], threshold: dict[str, float], drift: float
) -> tuple[Check, ...]:
    """Compare the runs with the figure, with a point attractor, with the published map and with T1."""
    end = {name: float(np.linalg.norm(path[-1])) for name, path in paths.items()}
    condition = -EIGENVALUE + RHO * EIGENVALUE**2
    return (
        Check(
            statement="Gradient descent leaves the saddle.",
            passed=end["GD"] > math.hypot(*START),
            measured=f"Distance {end['GD']:.3g} after {STEPS} steps.",
        ),
        Check(
            statement="SAM with ρ = 0.5 stays at the saddle, as published and as the script runs it.",
            passed=max(end["SAM"], end["script"]) < 0.02,
            measured=f"Distances {end['SAM']:.5f} and {end['script']:.5f}.",
        ),
        Check(
            statement="It converges to the saddle point.",
            passed=max(amplitude.values()) < 1e-6,
            measured=f"It ends on a two-cycle of amplitude {amplitude['SAM']:.6f} (script: {amplitude['script']:.6f}).",
            essential=False,
        ),
        Check(
            statement="The script runs SAM as published: both are captured from the same radius (to 1%).",
            passed=abs(threshold["script"] / threshold["SAM"] - 1) < 0.01,
            measured=f"Captured from ρ = {threshold['SAM']:.4f}, the script from {threshold['script']:.4f}.",
            essential=False,
        ),
        Check(
            statement="T1's condition λ + ρλ² > 0 holds in the figure's setting.",
            passed=condition > 0,
            measured=f"It is {condition:g}: the map T1 is about leaves y unchanged (factor {drift:.6f} in {STEPS} "
            "steps).",
            essential=False,
        ),
    )


def _path(update: UpdateMap, steps: int) -> np.ndarray:
    starts = torch.tensor([START], dtype=torch.float64)
    points = simulate(landscapes.get("quadratic_saddle"), update, starts, steps, record_every=1).points
    assert points is not None
    return points[0].numpy()


def _end(update: UpdateMap, steps: int) -> np.ndarray:
    starts = torch.tensor([START], dtype=torch.float64)
    return simulate(landscapes.get("quadratic_saddle"), update, starts, steps).final[0].numpy()


def _plane(paths: dict[str, np.ndarray]) -> Illustration:
    x, y = np.linspace(-3.4, 1.0, 90), np.linspace(-1.5, 1.5, 90)
    loss = x[None, :] ** 2 - y[:, None] ** 2
    axes = plot_contours(x, y, loss, ax=new_axes())
    inside = {name: path[np.abs(path[:, 1]) < 1.5] for name, path in paths.items() if name != "unnormalized SAM"}
    plot_paths(inside, {name: colour(name) for name in inside}, ax=axes)
    mark_points({"start": START, "saddle": (0.0, 0.0)}, ax=axes)
    return Illustration(
        axes=axes,
        caption="500 steps on x² − y². Gradient descent turns away along y; SAM and the script stop at the saddle.",
        alt="Level lines of a saddle with three paths from (−3, −0.01): gradient descent leaves downwards, the others "
        "end at 0.",
    )


def _distance(paths: dict[str, np.ndarray]) -> Illustration:
    series = {name: (np.arange(len(path)), np.linalg.norm(path, axis=1)) for name, path in paths.items()}
    axes = plot_series(series, {name: colour(name) for name in series}, ax=new_axes())
    axes.set(xlabel="step", ylabel="distance to the saddle", yscale="log")
    return Illustration(
        axes=axes,
        caption="Distance to the saddle. Unnormalized SAM at ρ = 0.5 is exactly neutral in y: it keeps the 0.01 of the "
        "start.",
        alt="Four curves on a logarithmic scale: gradient descent grows, unnormalized SAM levels off at 0.01, SAM and "
        "the script fall to a two-cycle near 0.005.",
    )
