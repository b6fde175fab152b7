"""Who answers: pools of workers for what is quick, typed or long, and the answers that were given lately."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from saddlescope._checks import refuse, require_count
from saddlescope.explorer.jobs import JOBS, Job
from saddlescope.explorer.state import ExplorerState
from saddlescope.explorer.workers import Pool, Refused

KEPT_ANSWERS = 128


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the explorer is served.

    Raises:
        ValueError: for counts below 1, or a log that is not a file.
    """

    host: str = "127.0.0.1"
    """Address to listen at; the default is reachable from this machine only."""
    port: int = 5006
    """0 takes a free one."""
    quick_workers: int = 2
    """Processes for what answers the move of a slider, and as many for that on a formula."""
    heavy_workers: int = 2
    """Processes for what takes longer."""
    waiting: int = 200
    """Questions that may wait for a worker, of each kind, before more are sent away."""
    logs: tuple[Path, ...] = ()
    """Logs of the training monitor that the second page may show."""

    def __post_init__(self) -> None:
        for name in ("quick_workers", "heavy_workers", "waiting"):
            require_count(name, getattr(self, name), minimum=1)
        if require_count("port", self.port) > 65535:
            raise refuse("port", self.port, "a whole number from 0 to 65535")


class Explorer:
    """The running server's parts: worker pools, and answers that were given lately."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = tempfile.TemporaryDirectory(prefix="saddlescope-explorer-")
        kernels, waiting = Path(self.folder.name), settings.waiting
        self.quick = Pool(settings.quick_workers, threads=1, waiting=waiting, niceness=0, kernels=kernels)
        # A new formula is compiled first, which must not hold up those who have none.
        self.typed = Pool(settings.quick_workers, threads=1, waiting=waiting, niceness=2, kernels=kernels)
        cores = os.cpu_count() or 1
        self.heavy = Pool(settings.heavy_workers, threads=cores, waiting=waiting, niceness=5, kernels=kernels)
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self.logs: dict[Path, tuple[str, dict[str, Any]]] = {}
        """The version of each log that was read last, and what the page shows of it."""
        self._locks: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()

    async def warm(self) -> None:
        """Have every worker answer once: then it is there, and has done what takes long the first time."""
        state = ExplorerState(steps=1)
        pools = {self.quick: self.settings.quick_workers, self.typed: self.settings.quick_workers}
        pools[self.heavy] = self.settings.heavy_workers
        asked = [
            pool.run("trajectories", state, lambda share: None) for pool, size in pools.items() for _ in range(size)
        ]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Refused):
                raise answer

    async def answer(self, name: str, state: ExplorerState, report: Callable[[float], None]) -> bytes:
        """Return the answer as JSON, computed once for all who ask the same at the same time.

        Raises:
            Refused: when there is none.
        """
        job = JOBS[name]
        pool = self.heavy if job.heavy else self.typed if state.loss else self.quick
        if not job.kept:
            return await pool.run(name, state, report)
        key = (name, *state.part(*job.depends))
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self._kept:
                self._kept[key] = await pool.run(name, state, report)
                while len(self._kept) > KEPT_ANSWERS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._finished(job, state, self._kept[key])

    def close(self) -> None:
        """End the workers and delete what they compiled."""
        for pool in (self.quick, self.typed, self.heavy):
            pool.close()
        self.folder.cleanup()

    def _finished(self, job: Job, state: ExplorerState, answer: bytes) -> bytes:
        return json.dumps(job.finish(state, json.loads(answer))).encode() if job.finish else answer
