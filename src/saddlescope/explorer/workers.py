"""Processes that compute: each can be stopped at any moment, whatever it is doing, and another takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from saddlescope._interrupts import left_to_this_process
from saddlescope.explorer.jobs import JOBS
from saddlescope.explorer.state import ExplorerState

ANSWERS = 1000
"""Of a worker before it is replaced: kernels that were loaded for formulas are never given back."""
MOST_MEMORY = 3 * 2**30
"""Bytes of data of a worker; a computation that needs more fails, and no other does."""
MOST_KERNELS = 2000
"""Files of compiled formulas that stay on disk."""


class Refused(Exception):
    """The question has no answer; the message says why, in words for the visitor."""


class Busy(Refused):
    """Too many are waiting already."""


class TooLong(Refused):
    """The time was up."""


class Pool:
    """A number of worker processes, and a queue of limited length before them.

    Args:
        size: how many.
        threads: of each.
        waiting: how many questions may wait.
        niceness: added to that of this process, so that some give way to others.
        kernels: folder for compiled formulas.
    """

    def __init__(self, size: int, *, threads: int, waiting: int, niceness: int, kernels: Path) -> None:
        # A fork server has imported everything: a new worker is there within milliseconds.
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(["saddlescope.explorer.warm"])
        self._arguments = threads, niceness, kernels
        self._slots = asyncio.Semaphore(size)
        self._waiting, self._most_waiting = 0, waiting
        self._idle = [self._start() for _ in range(size)]
        self._all = set(self._idle)

    async def run(self, name: str, state: ExplorerState, report: Callable[[float], None]) -> bytes:
        """Return the answer as JSON; when the caller is cancelled, the work ends at once.

        Raises:
            Refused: when there is no answer.
        """
        if self._slots.locked() and self._waiting >= self._most_waiting:
            raise Busy("many visitors are computing just now; try again in a moment")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        worker = None
        try:
            worker = self._idle.pop() if self._idle else self._start()
            if worker.connection.poll():  # one that waits says nothing: it was ended by the system, for want of memory
                worker.stop()
                self._all.discard(worker)
                worker = self._start()
            self._all.add(worker)
            async with asyncio.timeout(JOBS[name].seconds):
                kind, value = await worker.ask(name, state, report)
            if kind == "failed":
                raise Refused(value)
        except BaseException as error:
            if worker:
                worker.stop()
                self._all.discard(worker)
            if isinstance(error, TimeoutError):
                raise TooLong(f"this took more than {JOBS[name].seconds:g} s and was stopped") from None
            raise
        else:
            if worker.answers < ANSWERS:
                self._idle.append(worker)
            else:
                worker.stop()
                self._all.discard(worker)
                _forget_kernels(self._arguments[2])
        finally:
            self._slots.release()
        if kind == "refused":
            raise Refused(value)
        return value

    def close(self) -> None:
        """End every worker, those that compute too."""
        for worker in self._all:
            worker.connection.close()
        for worker in self._all:
            worker.process.join(0.2)
            worker.stop()

    def _start(self) -> _Worker:
        return _Worker(self._context, *self._arguments)


class _Worker:
    """One process and the line to it."""

    def __init__(self, context: Any, threads: int, niceness: int, kernels: Path) -> None:
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, threads, niceness, str(kernels)), daemon=True)
        with left_to_this_process():  # and the fork server with the first
            self.process.start()
        other.close()
        self.answers = 0

    async def ask(self, name: str, state: ExplorerState, report: Callable[[float], None]) -> tuple[str, Any]:
        """Return ``("done", JSON)``, ``("refused", why)`` or, when the process died, ``("failed", why)``."""
        loop, inbox, line = asyncio.get_running_loop(), asyncio.Queue(), self.connection.fileno()
        loop.add_reader(line, lambda: inbox.put_nowait(self._receive()))
        try:
            with contextlib.suppress(OSError):  # a dead process is noticed by the reader
                self.connection.send((name, state))
            while True:
                kind, value = await inbox.get()
                if kind != "progress":
                    self.answers += 1
                    return kind, value
                report(value)
        finally:
            loop.remove_reader(line)

    def stop(self) -> None:
        """End the process and what it has started, a compiler say."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(5)
        self.connection.close()

    def _receive(self) -> tuple[str, Any]:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return "failed", "the computation ended unexpectedly"


def _serve(connection: Connection, threads: int, niceness: int, kernels: str) -> None:
    """Answer questions until the line is closed; runs in the worker."""
    import torch

    import saddlescope.explorer.warm  # noqa: F401  where there is no fork server to have done it

    with contextlib.suppress(OSError):
        os.setsid()  # the worker and its compilers are one group, to be ended together
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    os.environ["XDG_CACHE_HOME"] = kernels  # no formula of a visitor is to stay in the fork server's
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    while True:
        try:
            name, state = connection.recv()
        except EOFError:
            return

        def report(share: float) -> None:
            connection.send(("progress", round(share, 3)))

        try:
            message = "done", JOBS[name].answer(state, report)
        except ValueError as error:
            message = "refused", str(error)
        except Exception as error:  # numbers that no check foresaw, on a landscape that anyone can write
            message = "refused", f"the computation failed: {type(error).__name__}: {str(error)[:200]}"
        connection.send(message)


def _forget_kernels(folder: Path) -> None:
    """Delete the oldest compiled formulas beyond `MOST_KERNELS`."""
    files = sorted(folder.rglob("*.so"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MOST_KERNELS]:
        path.unlink(missing_ok=True)
