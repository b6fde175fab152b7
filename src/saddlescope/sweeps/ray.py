"""Tasks on a Ray cluster."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from saddlescope._checks import require_count
from saddlescope.sweeps.attempts import Attempts
from saddlescope.sweeps.engine import ATTEMPTS, Outcome, attempt, failure
from saddlescope.training import ExperimentConfig
from saddlescope.training.data.image_files import ENVIRONMENT


class RayEngine:
    """Runs configs as tasks of Ray, one core each.

    A task whose worker or node dies is begun again, where there is a free core.

    Args:
        address: of a cluster, such as ``"auto"`` or ``"ray://host:10001"``; None starts one on this machine and ends
            it afterwards. Unless Ray was imported before, that one listens on the loopback interface only, and is
            closed to others by a token (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``).
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
            # Read once, when Ray is imported. Without clusters of several machines, as on Windows, a node's address
            # is that of the loopback interface; without a token anyone on this machine could run code by it.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
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
        """Yield outcomes in the order in which they come; closing the iterator ends all that runs.

        Raises:
            ConnectionError: if no cluster answers at the address, or this machine's node of it died.
        """
        ray, task, mine = self._ray, self._task, not self._ray.is_initialized()
        if mine:
            self._connect()
        self.workers = self._asked or max(1, int(ray.cluster_resources().get("CPU", 1)))

        # Ray's own retries are off: it does not tell how many there were.
        @ray.remote(num_cpus=1, max_retries=0)
        def run(config: ExperimentConfig) -> Outcome:
            return task(config)

        attempts, running = Attempts(configs, self._attempts), {}
        try:
            while True:
                while len(running) < self.workers and (config := attempts.next()) is not None:
                    running[run.remote(config)] = config
                if not running:
                    return
                (done,), _ = ray.wait(list(running), num_returns=1)
                config = running.pop(done)
                try:
                    outcome = ray.get(done)
                except ray.exceptions.RayTaskError as error:  # such as a node without this package
                    outcome = failure(config, error.cause)
                except ray.exceptions.LocalRayletDiedError:  # of this machine, so that no run can begin any more
                    message = "ray: this machine's node of the cluster died; start it and repeat with --resume"
                    raise ConnectionError(message) from None
                except ray.exceptions.RayError as error:
                    outcome = attempts.died(config, "its worker", type(error).__name__)
                if outcome is not None:
                    yield attempts.over(outcome)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if mine:
                ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            # Not None, for which Ray takes a cluster that it finds.
            options |= {"address": "local", "num_cpus": self.workers, "include_dashboard": False}
        else:
            options |= {"address": self._address}
            if ENVIRONMENT in os.environ:
                options["runtime_env"] = {"env_vars": {ENVIRONMENT: os.environ[ENVIRONMENT]}}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _knock(self._address)
            self._ray.init(**options)
        except OSError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConnectionError(f"ray: no cluster answers at {self._address or 'this machine'} ({reason})") from None
        # Ray's own handler would end this process without a word.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def _knock(address: str | None) -> None:
    """Raise OSError if nobody listens there; Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
