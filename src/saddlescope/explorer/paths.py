"""What is asked at every move of a slider: the loss over the box, the two trajectories, and the cases along one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlescope.dynamics import GradientMap, SAMMap, Trajectories, simulate
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.explorer.fields import OPTIMIZERS
from saddlescope.explorer.packing import finite, pack
from saddlescope.explorer.state import ExplorerState
from saddlescope.landscapes import Landscape
from saddlescope.stability import CriticalPoint, label_phases
from saddlescope.stability.critical_points import known_critical_points

PICTURE = 121
"""Points along each side of the box at which the loss is drawn."""


def picture(state: ExplorerState) -> dict[str, Any]:
    """Return the loss over the box: ``x`` and ``y`` ends, and ``loss`` with row = y, column = x.

    >>> picture(ExplorerState())["bounds"]
    [[-4.5, 4.5], [-4.5, 4.5]]
    """
    landscape = state.to_landscape()
    sides = [torch.linspace(low, high, PICTURE, dtype=torch.float64) for low, high in landscape.bounds]
    y, x = torch.meshgrid(sides[1], sides[0], indexing="ij")
    loss = torch.vmap(landscape.loss)(torch.stack([x.ravel(), y.ravel()], dim=1)).reshape(PICTURE, PICTURE)
    return {
        "name": landscape.name,
        "source": landscape.source,
        "bounds": [list(side) for side in landscape.bounds],
        "loss": pack(loss, "<f4"),
    }


def trajectories(state: ExplorerState) -> dict[str, Any]:
    """Return what gradient descent and the optimizer do from the starts, every step of it.

    Keys "gd" and "optimizer" each hold ``label``, ``points`` of shape ``(n, steps + 1, 2)``, and for each start its
    ``status``, ``final`` point and ``loss`` there. With SAM and its variants come ``perturbed`` of the shape of the
    points and ``cosine`` of shape ``(n, steps + 1)``, see `seen_from`; with gradient descent they are None.

    >>> run = trajectories(ExplorerState(steps=2))
    >>> run["gd"]["points"]["shape"], run["optimizer"]["status"]
    ([1, 3, 2], ['completed'])
    """
    return {"gd": _descent(replace(state, optimizer="gd", rho=0.0)), "optimizer": _path(state)}


def phases(state: ExplorerState) -> dict[str, Any]:
    """Return the paper's cases along the optimizer's trajectories: ``cases`` ``(n, steps)`` and their ``shares``.

    Raises:
        ValueError: for variants of SAM, trajectories that diverge, or no saddle.

    >>> sorted(phases(ExplorerState(landscape="double_well", lr=0.1, steps=5))["shares"])
    ['0', '1', '2', '3']
    """
    landscape, update = state.to_landscape(), state.to_update()
    if not isinstance(update, GradientMap | SAMMap):
        raise ValueError("the paper tells its cases of gradient descent and SAM; of a variant the angle is drawn alone")
    saddles = None if landscape.critical_points else [p for p in critical_points(state) if p.kind == "saddle"]
    labelled = label_phases(landscape, update, _simulated(state, update), saddles=saddles)
    shares = {str(case): share for case, share in labelled.shares().items()}
    return {"cases": pack(labelled.cases, "<i1"), "shares": shares}


def seen_from(landscape: Landscape, update: UpdateMap, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a step from each state ``(..., variables)`` takes its last gradient, ``w_p``, and the cosine there.

    Without gradient noise. Shapes ``(..., d)`` and ``(...,)``: the cosine is that between ``g(w)`` and ``g(w_p)``.

    >>> bowl = Landscape("bowl", lambda w: (w**2).sum() / 2, 2, [(-1, 1), (-1, 1)])
    >>> seen_from(bowl, SAMMap(lr=0.1, rho=1.0), torch.tensor([3.0, 4.0]))
    (tensor([3.6000, 4.8000]), tensor(1.))
    """

    def look(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        asked: list[tuple[Tensor, Tensor]] = []

        def gradient(point: Tensor) -> Tensor:
            asked.append((point, landscape.gradient(point)))
            return asked[-1][1]

        variables = state.reshape(-1, landscape.dimension).unbind()
        update(variables, gradient)
        return landscape.gradient(variables[0]), *asked[-1]

    flat = states.reshape(-1, states.shape[-1])
    here, perturbed, there = torch.vmap(look)(flat)
    cosine = (here * there).sum(-1) / (here.norm(dim=-1) * there.norm(dim=-1))
    return perturbed.reshape(*states.shape[:-1], landscape.dimension), cosine.reshape(states.shape[:-1])


def critical_points(state: ExplorerState) -> tuple[CriticalPoint, ...]:
    """Return the critical points in the box."""
    return known_critical_points(state.to_landscape(), 0)


def _simulated(state: ExplorerState, update: UpdateMap) -> Trajectories:
    noise, seed = state.to_noise(), state.seed
    return simulate(state.to_landscape(), update, state.starts, state.steps, noise=noise, record_every=1, seed=seed)


@lru_cache(maxsize=16)
def _descent(state: ExplorerState) -> dict[str, Any]:
    """Gradient descent stays as it is while the radius is turned."""
    return _path(state)


def _path(state: ExplorerState) -> dict[str, Any]:
    landscape, update = state.to_landscape(), state.to_update()
    run = _simulated(state, update)
    assert run.points is not None and run.states is not None
    perturbed = cosine = None
    if not isinstance(update, GradientMap):
        perturbed, cosine = map(pack, seen_from(landscape, update, run.states))
    return {
        "label": OPTIMIZERS[state.optimizer][0],
        "points": pack(run.points),
        "status": run.to_dict()["status"],
        "final": [[finite(x) for x in point] for point in run.final.tolist()],
        "loss": [finite(x) for x in np.atleast_1d(torch.vmap(landscape.loss)(run.final).numpy()).tolist()],
        "perturbed": perturbed,
        "cosine": cosine,
    }
