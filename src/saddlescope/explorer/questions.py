"""What takes longer than a frame: critical points, basins, bifurcations and escape times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from saddlescope.diffusion import estimate_escape, simulate_escape
from saddlescope.diffusion.arguments import finite_or_none
from saddlescope.dynamics import GradientMap, SAMMap
from saddlescope.dynamics.ensemble import listening
from saddlescope.explorer.packing import finite, pack
from saddlescope.explorer.paths import critical_points
from saddlescope.explorer.state import ExplorerState
from saddlescope.stability import CriticalPoint, classify, continue_in_rho, critical_rho, map_basins
from saddlescope.stability.long_run import LongRunSet, long_run_sets

Report = Callable[[float], None]
"""Takes the share that is done, from 0 to 1."""
SAMPLED_STARTS, SAMPLED_STEPS = 24, 13_000
BASIN_STEPS = 200_000
BINS = 40
NO_BRANCHES = "Branches are followed for SAM, whose multipliers have a closed form; the dots show where runs end up."


def points(state: ExplorerState, report: Report) -> dict[str, Any]:
    """Return the critical points in the box, for `verdicts` to complete."""
    return {"points": [point.to_dict() for point in critical_points(state)]}


def verdicts(state: ExplorerState, found: dict[str, Any]) -> dict[str, Any]:
    """Return the critical points with what the optimizer does at each: ``rho_star``, ``verdict`` and ``reason``.

    >>> saddle = points(ExplorerState(landscape="quadratic_saddle"), print)
    >>> verdicts(ExplorerState(landscape="quadratic_saddle"), saddle)["points"][0]["verdict"]
    'trap'
    """
    update, rows = state.to_update(), []
    for row in found["points"]:
        point = CriticalPoint(**row)
        verdict, reason = "unknown", "no closed form for this optimizer; see the basins"
        if isinstance(update, GradientMap | SAMMap):
            stability = classify(point, update)
            verdict, reason = stability.verdict, stability.reason
        rows.append({**row, "rho_star": critical_rho(point.eigenvalues), "verdict": verdict, "reason": reason})
    return {"points": rows}


def basins(state: ExplorerState, report: Report) -> dict[str, Any]:
    """Return which start ends where: ``labels`` with row = y, column = x, and for each label its name and share."""
    landscape, update, size = state.to_landscape(), state.to_update(), int(state.resolution)
    with listening(_share_of("mapping basins", report)):
        found = map_basins(landscape, update, resolution=size, steps=BASIN_STEPS, seed=state.seed)
    names, attractors = found.names(), found.attractors
    rows = [
        {
            "label": label,
            "name": names[label],
            "kind": attractors[label].kind if label >= 0 else names[label],
            "unstable": label >= 0 and attractors[label].unstable,
            "point": list(attractors[label].point) if label >= 0 else None,
            "share": share.value,
            "low": share.low,
            "high": share.high,
            "evidence": attractors[label].evidence if label >= 0 else "",
        }
        for label, share in sorted(found.fractions.items(), key=lambda item: -item[1].value)
        if label >= 0 or share.value > 0
    ]
    ends = [[float(side[0]), float(side[-1])] for side in (found.x, found.y)]
    return {"labels": pack(found.labels, "<i2"), "bounds": ends, "rows": rows, "seconds": found.seconds}


def bifurcation(state: ExplorerState, report: Report) -> dict[str, Any]:
    """Return branches, bifurcations and sampled attractors as rho varies, one coordinate of each.

    Of a variant of SAM there are no branches: ``note`` says why.

    Raises:
        ValueError: for gradient descent, which has no rho.
    """
    landscape, update = state.to_landscape(), state.to_update()
    if isinstance(update, GradientMap):
        raise ValueError("gradient descent has no ρ to vary; choose another optimizer")
    rhos = np.linspace(state.rho_from, state.rho_to, state.values)
    axis, branches, events, note = "xy".index(state.coordinate), (), (), NO_BRANCHES
    if isinstance(update, SAMMap):
        known = critical_points(state)
        report(0.05)
        diagram = continue_in_rho(landscape, update, rhos, starts=[], critical_points=known, seed=state.seed)
        branches, events, note = diagram.branches, diagram.events, ""
    report(0.4)
    low, high = np.array(landscape.bounds).T
    starts = torch.from_numpy(low + (high - low) * np.random.default_rng(state.seed).random((SAMPLED_STARTS, 2)))
    sets: tuple[LongRunSet, ...] = ()
    samples = []
    for number, rho in enumerate(rhos.tolist(), start=1):
        sets = long_run_sets(landscape, replace(update, rho=rho), starts, SAMPLED_STEPS, rho, sets).sets  # type: ignore[call-arg]
        samples += [[rho, float(x)] for each in sets for x in each.points[:, axis]]
        report(0.4 + 0.6 * number / len(rhos))
    return {
        "branches": [
            {
                "kind": branch.kind,
                "rho": branch.values.tolist(),
                "heights": finite_or_none(branch.points[..., axis].T),
                "stable": branch.stable.tolist(),
            }
            for branch in branches
        ],
        "events": [{"kind": e.kind, "rho": e.value, "height": e.point[axis]} for e in events],
        "samples": samples,
        "note": note,
    }


def escape(state: ExplorerState, report: Report) -> dict[str, Any]:
    """Return simulated escape times of unnormalized SAM along one direction, as a histogram, and the theory's means."""
    setting: Any = {"radius": state.radius, "batch_size": state.batch, "noise": state.sharing}
    numbers = {"lr": state.lr, "rho": state.rho, "momentum": state.momentum}
    update = SAMMap(**numbers, normalized=False)
    with listening(_share_of("escaping", report)):
        times = simulate_escape(
            state.eigenvalue, update, **setting, replicas=state.replicas, max_steps=state.longest, seed=state.seed
        )
    estimates = {}
    for formula in ("exact", "diffusion", *(["paper"] if state.sharing == "additive" else [])):
        estimate = estimate_escape(state.eigenvalue, **numbers, **setting, formula=formula)
        estimates[formula] = {"steps": finite(estimate.steps), "error": finite(estimate.error)}
    left = times.times[times.escaped]
    end = max(float(left.max()), 2.0) if left.size else float(state.longest)
    counts, edges = np.histogram(left, bins=BINS, range=(0.0, end))
    summary = times.to_dict()
    kept = ("mean", "standard_error", "confidence_interval", "median", "replicas", "censored", "max_steps")
    return {
        "density": (counts / state.replicas / np.diff(edges)).tolist(),
        "edges": edges.tolist(),
        "theory": estimates,
        "simulated": {name: summary[name] for name in kept},
        "exponential": _exponential(estimates["exact"]["steps"], edges),
    }


def _share_of(wanted: str, report: Report) -> Callable[[str, float], None]:
    """Return what listens to one of the computations within a question."""
    return lambda description, share: report(share) if description == wanted else None


def _exponential(mean: float | None, edges: np.ndarray) -> list[float] | None:
    """Return the share per step of an exponential law in each bin; a trap's times follow it, a saddle's do not."""
    if mean is None or not mean > 0:
        return None
    inside = np.exp(-edges / mean)
    return ((inside[:-1] - inside[1:]) / np.diff(edges)).tolist() if math.isfinite(mean) else None
