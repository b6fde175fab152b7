"""What a worker can be asked, with how long it may take and what the answer depends on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saddlescope.explorer import paths, questions
from saddlescope.explorer.fields import FIELDS
from saddlescope.explorer.questions import Report
from saddlescope.explorer.state import ExplorerState


@dataclass(frozen=True, kw_only=True)
class Job:
    """One kind of computation."""

    compute: Callable[[ExplorerState, Report], dict[str, Any]]
    seconds: float
    """When it is stopped."""
    heavy: bool
    """Whether it waits its turn, instead of answering the move of a slider."""
    depends: tuple[str, ...]
    """The fields that decide the answer."""
    kept: bool = True
    """Whether answers are worth keeping for the next visitor."""
    finish: Callable[[ExplorerState, dict[str, Any]], dict[str, Any]] | None = None
    """What completes a kept answer in no time, from fields that it does not depend on."""

    def answer(self, state: ExplorerState, report: Report) -> bytes:
        """Return the result as JSON.

        Raises:
            ValueError: with what is wrong with the question, in words.
        """
        return json.dumps(self.compute(state, report), allow_nan=False).encode()


LANDSCAPE = ("landscape", "loss", "bounds")
UPDATE = ("optimizer", "rho", "lr", "momentum")
PATH = (*LANDSCAPE, *UPDATE, "noise", "batch", "sharing", "seed", "steps", "starts")
ESCAPE = ("rho", "lr", "momentum", "batch", "sharing", "seed", "eigenvalue", "radius", "replicas", "longest")
RANGE = ("optimizer", "lr", "momentum", "seed", "rho_from", "rho_to", "values", "coordinate")


def _at_once(compute: Callable[[ExplorerState], dict[str, Any]]) -> Callable[[ExplorerState, Report], dict[str, Any]]:
    return lambda state, report: compute(state)


JOBS = {
    "picture": Job(compute=_at_once(paths.picture), seconds=5, heavy=False, depends=LANDSCAPE),
    "trajectories": Job(compute=_at_once(paths.trajectories), seconds=5, heavy=False, depends=PATH, kept=False),
    "phases": Job(compute=_at_once(paths.phases), seconds=20, heavy=True, depends=PATH),
    "points": Job(compute=questions.points, seconds=20, heavy=True, depends=LANDSCAPE, finish=questions.verdicts),
    "basins": Job(
        compute=questions.basins, seconds=60, heavy=True, depends=(*LANDSCAPE, *UPDATE, "resolution", "seed")
    ),
    "bifurcation": Job(compute=questions.bifurcation, seconds=120, heavy=True, depends=(*LANDSCAPE, *RANGE)),
    "escape": Job(compute=questions.escape, seconds=60, heavy=True, depends=ESCAPE),
}
assert all(name in FIELDS for job in JOBS.values() for name in job.depends)
