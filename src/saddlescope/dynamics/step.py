"""One step of (loss, map, noise) for one trajectory, as a torch function of plain tensors.

This is the only place where the three meet. Engines run it: eager torch batches it with ``vmap``, the compiled engine
traces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saddlescope.dynamics.maps import State, UpdateMap
from saddlescope.dynamics.noise import GaussianNoise
from saddlescope.landscapes.landscape import Landscape, Loss


@dataclass(frozen=True)
class Step:
    """The function ``(state (variables,), parameters (p,), normals (lanes,)) -> state (variables,)``."""

    loss: Loss
    dimension: int
    update: UpdateMap
    noise: GaussianNoise | None

    @property
    def lanes(self) -> int:
        """Standard normals that one step consumes."""
        return self.noise.lanes(self.dimension, self.update.passes) if self.noise else 0

    def parameters(self) -> list[float]:
        """Return the numbers of the map, then the deviations of the noise."""
        scales = self.noise.scales(self.dimension) if self.noise else []
        return [*self.update.parameters().values(), *scales]

    def structure(self) -> tuple[Any, ...]:
        """Return what decides the form of the function: equal for steps that differ in parameters only."""
        return (
            self.loss,
            self.dimension,
            self.update.structure(),
            self.noise.sharing if self.noise else None,
        )

    def pack(self, state: State) -> Tensor:
        """Return a state as one tensor ``(..., variables)``."""
        return torch.cat(state, dim=-1)

    def unpack(self, packed: Tensor) -> State:
        """Return the point and the buffers, each ``(..., d)``."""
        return tuple(packed.split(self.dimension, dim=-1))

    def initial(self, points: Tensor) -> Tensor:
        """Return the packed states at rest in ``points`` ``(n, d)``, shape ``(n, variables)``."""
        return self.pack(self.update.initial(points))

    def __call__(self, packed: Tensor, parameters: Tensor, normals: Tensor) -> Tensor:
        """Return the packed state after one step."""
        names = list(self.update.parameters())
        update = self.update.bound_to(dict(zip(names, parameters.unbind(), strict=False)))
        gradient = torch.func.grad(self.loss)
        if self.noise:
            scales = parameters[len(names) :]
            gradient = self.noise.disturb(gradient, self.update.passes, scales, normals)
        return self.pack(update(self.unpack(packed), gradient))


def step_of(landscape: Landscape, update: UpdateMap, noise: GaussianNoise | None) -> Step:
    """Return the step of a map on a landscape."""
    return Step(landscape.loss, landscape.dimension, update, noise)
