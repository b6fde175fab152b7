"""Which run is to begin next, when workers may die under runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from saddlescope.sweeps.engine import Outcome
from saddlescope.training import ExperimentConfig


class Attempts:
    """Hands out runs, those whose worker died again before new ones.

    Args:
        configs: taken one by one, as runs can begin.
        most: how often a run is begun whose worker dies.
    """

    def __init__(self, configs: Iterable[ExperimentConfig], most: int) -> None:
        self._waiting, self._most = iter(configs), most
        self._again: list[ExperimentConfig] = []
        self._begun = Counter[str]()

    def next(self) -> ExperimentConfig | None:
        """Return the run to begin now; None if there is none."""
        config = self._again.pop() if self._again else next(self._waiting, None)
        if config is not None:
            self._begun[config.key] += 1
        return config

    def over(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a run with how often it was begun."""
        return replace(outcome, attempts=self._begun[outcome.config.key])

    def died(self, config: ExperimentConfig, under: str, how: str) -> Outcome | None:
        """Have a run begun again; or return that it has failed, if it was begun often enough."""
        times = self._begun[config.key]
        if times < self._most:
            self._again.append(config)
            return None
        return Outcome(config, None, f"{under} died {times} times ({how})")
