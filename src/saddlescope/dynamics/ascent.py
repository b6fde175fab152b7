"""Where SAM looks: the perturbed points of a trajectory and the angle between its two gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saddlescope.dynamics.maps import SAMMap
from saddlescope.landscapes.landscape import Landscape


@dataclass(frozen=True, eq=False)
class AscentSeries:
    """What SAM sees at points of shape ``(..., d)``."""

    perturbed: Tensor
    """The points ``w_p`` where the descent gradient is taken, shape ``(..., d)``."""
    cosine: Tensor
    """``cos(g(w), g(w_p))``, shape ``(...,)``; NaN where one of the gradients vanishes."""
    gradient_norm: Tensor
    """``||g(w)||``, shape ``(...,)``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as nested lists."""
        return {name: getattr(self, name).tolist() for name in ("perturbed", "cosine", "gradient_norm")}


def ascent_series(landscape: Landscape, update: SAMMap, points: Tensor) -> AscentSeries:
    """Return ``w_p``, ``cos(g(w), g(w_p))`` and ``||g(w)||`` at each of ``points`` ``(..., d)``.

    >>> bowl = Landscape("bowl", lambda w: (w**2).sum() / 2, 2, [(-1, 1), (-1, 1)])
    >>> ascent_series(bowl, SAMMap(lr=0.1, rho=1.0), torch.tensor([[3.0, 4.0]])).perturbed
    tensor([[3.6000, 4.8000]])
    """
    flat = points.reshape(-1, landscape.dimension)
    gradient = torch.func.vmap(torch.func.grad(landscape.loss))
    ascent = gradient(flat)
    perturbed = torch.func.vmap(update.perturbed)(flat, ascent)
    descent = gradient(perturbed)
    norm = ascent.norm(dim=-1)
    cosine = (ascent * descent).sum(-1) / (norm * descent.norm(dim=-1))
    return AscentSeries(
        perturbed.reshape(points.shape), cosine.reshape(points.shape[:-1]), norm.reshape(points.shape[:-1])
    )
