"""Tasks on a Ray cluster."""

from __future__ import annotations

import itertools
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from saddlescope._checks import require_count
from saddlescope.sweeps.engine import ATTEMPTS, Outcome, attempt
from saddlescope.training import ExperimentConfig


class RayEngine:
    """Runs configs as tasks of Ray, one core each.

    A task whose worker or node dies is begun again elsewhere, by Ray, as often as ``attempts`` say.

    Args:
        address: of a cluster, such as ``"auto"`` or ``"ray://host:10001"``; None starts one on this machine,
            bound to the loopback interface and ends it afterwards; unless Ray was imported before, it is closed to
            others by a token (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``).
        workers: tasks at once; by default the cores of the cluster.
        attempts: how often a run is begun whose worker died.
        task: what a worker does with a config.

    Raises:
        ModuleNotFoundError: without Ray.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        *,
        attempts: int = ATTEMPTS,
        task: Callable[[ExperimentConfig], Outcome] = attempt,
    ) -> None:
        if address is None and "ray" not in sys.modules:
            # Read once, when Ray is imported; without a token anyone on this machine could run code by it.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the engine ray needs Ray, which is not installed; do: pip install 'saddlescope[ray]'"
            ) from error
        self._ray: Any = ray
        self._address = address
        self._asked = None if workers is None else require_count("workers", workers, minimum=1)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = self._asked or cores
        self._attempts = require_count("attempts", attempts, minimum=1)
        self._task = task

    def run(self, configs: Iterable[ExperimentConfig]) -> Iterator[Outcome]:
        """Yield outcomes in the order in which they come; closing the iterator ends all that runs."""
        ray, mine = self._ray, not self._ray.is_initialized()
        if mine:
            self._connect()
        self.workers = self._asked or max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=self._attempts - 1)(self._task)
        waiting, running = iter(configs), {}
        try:
            while True:
                for config in itertools.islice(waiting, self.workers - len(running)):
                    running[remote.remote(config)] = config
                if not running:
                    return
                (done,), _ = ray.wait(list(running), num_returns=1)
                config = running.pop(done)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    yield Outcome(config, None, f"{type(error).__name__} after {self._attempts} attempts")
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if mine:
                ray.shutdown()

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            self._ray.init(num_cpus=self.workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            self._ray.init(address=self._address, **quiet)
