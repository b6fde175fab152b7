"""Run a map on a landscape from many starts at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import refuse, require_count
from saddlescope.dynamics.ensemble import Ensemble, chunks, progress
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.noise import Noise
from saddlescope.landscapes.landscape import Landscape

DIVERGENCE_LIMIT = 1e12
"""A coordinate beyond this, or one that is not finite, counts as diverged."""
_MOST_RECORDED_BYTES = 8 * 2**30


class Outcome(IntEnum):
    """How a trajectory ended."""

    COMPLETED = 0
    """All steps were taken and the state is finite."""
    DIVERGED = 1
    """A coordinate of the final state is beyond `DIVERGENCE_LIMIT` or not finite."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What `simulate` returns, for ``n`` starts in ``R^d``."""

    final: Tensor
    """The points after all steps, shape ``(n, d)``."""
    points: Tensor | None
    """The recorded points, the start first, shape ``(n, records, d)``; None without ``record_every``."""
    recorded_steps: Tensor | None
    """The step numbers of the records, shape ``(records,)``, from 0."""
    status: Tensor
    """How each trajectory ended, an `Outcome` for each start, int8, shape ``(n,)``."""
    steps: int
    """How many steps were taken."""
    landscape: Landscape
    update: UpdateMap
    noise: Noise | None
    seed: int
    engine: str
    """What ran the steps: "compiled" or "eager"."""
    states: Tensor | None
    """The recorded points with the buffers of the map behind them, shape ``(n, records, variables)``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the end points and outcomes as a JSON-ready dictionary."""
        return {
            "landscape": self.landscape.name,
            "update": repr(self.update),
            "noise": repr(self.noise) if self.noise else None,
            "seed": self.seed,
            "steps": self.steps,
            "final": self.final.tolist(),
            "status": [Outcome(s).name.lower() for s in self.status.tolist()],
        }


def simulate(
    landscape: Landscape,
    update: UpdateMap,
    starts: Any,
    steps: int,
    *,
    noise: Noise | None = None,
    record_every: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    engine: str = "auto",
) -> Trajectories:
    """Iterate ``update`` on ``landscape`` from each of ``starts``.

    Divergence is a status of a trajectory, not an exception. Trajectory ``i`` of a noisy run depends on
    ``(seed, i, step)`` only, not on how many others run beside it.

    Args:
        landscape: the loss.
        update: the optimizer map.
        starts: points, shape ``(n, d)`` or ``(d,)``; trajectories begin there at rest.
        steps: how many steps to take.
        noise: on the gradients, Gaussian or of minibatches; None runs the exact map.
        record_every: keep every so many-th point in `Trajectories.points`; None keeps the last only.
        seed: of the noise.
        dtype: ``torch.float64`` or ``torch.float32``.
        device: where to run; default the device of ``starts`` or the CPU.
        engine: "auto", "compiled" (C kernel, CPU) or "eager" (torch ``vmap``).

    Raises:
        ValueError: for starts of the wrong shape or not finite, negative counts, another dtype, or records that
            would need more than 8 GiB.

    >>> from saddlescope.dynamics.maps import GradientMap
    >>> bowl = Landscape("bowl", lambda w: (w**2).sum() / 2, 2, [(-1, 1), (-1, 1)])
    >>> simulate(bowl, GradientMap(lr=0.5), [[1.0, -1.0]], steps=3).final
    tensor([[ 0.1250, -0.1250]], dtype=torch.float64)
    """
    steps = require_count("steps", steps)
    every = steps + 1 if record_every is None else require_count("record_every", record_every, minimum=1)
    ensemble = Ensemble(landscape, update, starts, noise=noise, seed=seed, dtype=dtype, device=device, engine=engine)
    records, begin = steps // every + 1, ensemble.states
    if record_every is not None and records * begin.numel() * begin.element_size() > _MOST_RECORDED_BYTES:
        raise refuse("record_every", record_every, "at most 8 GiB of records", "record less often")

    kept = begin.new_empty((records, *begin.T.shape)) if record_every is not None else None
    if kept is not None:
        kept[0] = begin.T
    with progress("simulating", steps) as report:
        for number in chunks(steps, every):
            ensemble.advance(number)
            report(number)
            if kept is not None and ensemble.steps % every == 0:
                kept[ensemble.steps // every] = ensemble.states.T

    states = kept.transpose(0, 1) if kept is not None else None
    diverged = ~(ensemble.states.abs() <= DIVERGENCE_LIMIT).all(dim=0)
    return Trajectories(
        final=ensemble.points,
        points=states[..., : landscape.dimension] if states is not None else None,
        recorded_steps=torch.arange(records) * every if kept is not None else None,
        status=diverged.to(torch.int8),
        steps=steps,
        landscape=landscape,
        update=update,
        noise=noise,
        seed=seed,
        engine=ensemble.engine,
        states=states,
    )
