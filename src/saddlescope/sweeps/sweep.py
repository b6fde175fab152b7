"""Run many configs, keep every result as it comes, and never run twice what is kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saddlescope._checks import refuse
from saddlescope.store import Store, StoredRun
from saddlescope.sweeps.engine import Engine, Outcome
from saddlescope.sweeps.local import LocalEngine
from saddlescope.sweeps.over_seeds import Group, over_seeds
from saddlescope.sweeps.vectorised import VectorisedEngine
from saddlescope.training import ExperimentConfig, Record

METRICS = ("final_loss", "test_accuracy", "skipped_steps", "hessian_products", "seconds", "data")


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What came out of a sweep."""

    configs: tuple[ExperimentConfig, ...]
    """The cells, each once, in the order in which they were given."""
    records: Mapping[str, Record]
    """By key of the config; the failed ones are missing."""
    failures: Mapping[str, str]
    """Why a run failed, by key of its config; a sweep over the same store tries it again."""
    computed: int
    """Runs made by this call."""
    retries: int
    """Runs begun once more because a worker or a node died under them."""
    reused: int
    """Runs that the store had, or got from another driver meanwhile."""
    seconds: float
    """Wall time."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The runs that differ in nothing but the seed, as means with their 95% intervals."""
        return over_seeds(self.configs, self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data, without the curves."""
        return {
            "cells": len(self.configs),
            "computed": self.computed,
            "retries": self.retries,
            "reused": self.reused,
            "failed": len(self.failures),
            "seconds": self.seconds,
            "groups": [group.to_dict() for group in self.groups],
            "runs": [
                {
                    "key": config.key,
                    "config": config.to_dict(),
                    **(_row(self.records[config.key]) if config.key in self.records else {"status": "failed"}),
                    **({"error": self.failures[config.key]} if config.key in self.failures else {}),
                }
                for config in self.configs
            ],
        }


def run_sweep(
    configs: Iterable[ExperimentConfig],
    *,
    engine: str | Engine = "local",
    store: Store | str | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> SweepResult:
    """Run the configs that the store does not have, and return all results.

    Every run is written to the store as it ends. A sweep that was killed continues with another call; several
    drivers may work on one store at once: each looks again before it begins a run, and begins in an order of its
    own, so that they seldom do the same run, and of two results of one run the first stays.

    Args:
        configs: the cells; equal ones are run once.
        engine: ``"local"`` (processes on this machine), ``"vectorised"`` (small networks side by side, the rest as
            with ``"local"``), ``"ray"``, or an engine with its settings.
        store: a store, or the URL of one; None keeps the results in memory only.
        on_outcome: is called with every run that ends.

    Raises:
        ValueError: for no configs, or an unknown engine.
        StoreError: if the store fails; what it holds by then is intact.

    >>> result = run_sweep([ExperimentConfig(steps=1, seed=seed) for seed in range(2)], engine=LocalEngine(1))
    >>> result.computed, result.failures
    (2, {})
    """
    began = time.monotonic()
    cells = {config.key: config for config in configs}
    if not cells:
        raise refuse("configs", "none", "at least one")
    runner = _engine(engine)
    kept = Store(store) if isinstance(store, str) else store
    try:
        records = _read(kept, cells)
        failures: dict[str, str] = {}
        todo = [config for key, config in cells.items() if key not in records]
        computed = retries = 0
        outcomes = runner.run(_missing(todo, kept))
        try:
            for outcome in outcomes:
                key = outcome.config.key
                retries += outcome.attempts - 1
                if outcome.record is None:
                    failures[key] = outcome.error
                elif kept is None or kept.add(stored(outcome.record)):
                    records[key] = outcome.record
                    computed += 1
                if on_outcome:
                    on_outcome(outcome)
        finally:
            close = getattr(outcomes, "close", None)
            if close:
                close()
        lost = {key: config for key, config in cells.items() if key not in records and key not in failures}
        records.update(_read(kept, lost))
    finally:
        if isinstance(store, str) and kept is not None:
            kept.close()
    return SweepResult(
        configs=tuple(cells.values()),
        records=records,
        failures=failures,
        computed=computed,
        retries=retries,
        reused=len(records) - computed,
        seconds=time.monotonic() - began,
    )


def _missing(configs: Sequence[ExperimentConfig], store: Store | None) -> Iterator[ExperimentConfig]:
    """Yield what is still missing when it is asked for, in an order that no other driver has."""
    for config in random.Random().sample(configs, len(configs)):
        if store is None or not store.has(config.key):
            yield config


def _engine(engine: str | Engine) -> Engine:
    if not isinstance(engine, str):
        return engine
    if engine == "local":
        return LocalEngine()
    if engine == "vectorised":
        return VectorisedEngine()
    if engine == "ray":
        from saddlescope.sweeps.ray import RayEngine

        return RayEngine()
    raise refuse("engine", engine, "local, vectorised or ray")


def _read(store: Store | None, cells: Mapping[str, ExperimentConfig]) -> dict[str, Record]:
    return {} if store is None else {key: record_of(run) for key, run in store.get(cells).items()}


def _row(record: Record) -> dict[str, Any]:
    data = record.to_dict()
    return {"status": record.status, **{name: data[name] for name in METRICS}}


def stored(record: Record) -> StoredRun:
    """Return the row of a record."""
    data = record.to_dict()
    return StoredRun(
        key=record.config.key,
        status=record.status,
        config=data["config"],
        metrics={name: data[name] for name in METRICS},
        curves={"losses": data["losses"]},
        provenance=data["provenance"],
    )


def record_of(run: StoredRun) -> Record:
    """Return the record of a row."""
    parts: dict[str, Any] = {"config": run.config, "status": run.status, "provenance": run.provenance}
    return Record.from_dict({**parts, **run.metrics, **run.curves})
