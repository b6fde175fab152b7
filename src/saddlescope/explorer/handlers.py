"""What the server says to each address: files of the page, and answers to questions that are all in their address."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from tornado import web
from tornado.iostream import StreamClosedError

from saddlescope.explorer.answers import Explorer, Settings
from saddlescope.explorer.fields import FIELDS
from saddlescope.explorer.jobs import JOBS
from saddlescope.explorer.snippet import snippet
from saddlescope.explorer.state import ExplorerState, read_query
from saddlescope.explorer.training_log import read_log, version
from saddlescope.explorer.workers import Busy, Refused, TooLong

STATIC = Path(__file__).with_name("static")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Handler(web.RequestHandler):
    def initialize(self, explorer: Explorer) -> None:
        self.explorer = explorer

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def prepare(self) -> None:
        _check_host(self)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": self._reason}))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, StreamClosedError | web.HTTPError):  # what a visitor did is no event of ours
            super().log_exception(typ, value, tb)


class _Page(_Handler):
    def get(self) -> None:
        file = "training.html" if self.request.path == "/training" else "index.html"
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.write((STATIC / file).read_bytes())


class _Files(_Handler, web.StaticFileHandler):
    def initialize(self, explorer: Explorer, path: str) -> None:  # type: ignore[override]
        _Handler.initialize(self, explorer)
        web.StaticFileHandler.initialize(self, path)


class _Nothing(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise web.HTTPError(404)


class _State(_Handler):
    """What an address means: the state, the form that sets it, and the program that does the same."""

    def get(self) -> None:
        state, notes = read_query(self.request.query)
        values, defaults = _written(state), _written(ExplorerState())
        landscape = state.to_landscape()
        form = {name: {"kind": type(field).__name__, **vars(field)} for name, field in FIELDS.items()}
        self.write(
            {
                "query": state.to_query(),
                "notes": notes,
                "values": values,
                "defaults": defaults,
                "bounds": landscape.bounds,
                "form": form,
                "depends": {name: job.depends for name, job in JOBS.items()},
                "snippet": snippet(state),
                "logs": [path.name for path in self.explorer.settings.logs],
            }
        )


def _written(state: ExplorerState) -> dict[str, str]:
    return {name: field.write(getattr(state, name)) for name, field in FIELDS.items()}


class _Answer(_Handler):
    """One computation: lines of JSON, of which the last holds the result and the others the progress."""

    task: asyncio.Task[None] | None = None

    async def get(self, name: str) -> None:
        self.task = asyncio.ensure_future(self._respond(name))
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    def on_connection_close(self) -> None:
        if self.task:
            self.task.cancel()

    async def _respond(self, name: str) -> None:
        if name not in JOBS:
            self.send_error(404, reason="no such computation")
            return
        state, notes = read_query(self.request.query)
        self.set_header("Content-Type", "application/x-ndjson")
        started = False

        def report(share: float) -> None:
            nonlocal started
            started = True
            with contextlib.suppress(StreamClosedError):
                self.write(json.dumps({"progress": share}) + "\n")
                self.flush()

        head: dict[str, Any] = {"query": state.to_query(), "notes": notes, "snippet": snippet(state)}
        try:
            result = await self.explorer.answer(name, state, report)
        except Refused as error:
            if not started:
                self.set_status(503 if isinstance(error, Busy) else 504 if isinstance(error, TooLong) else 422)
            self.finish(json.dumps({**head, "error": str(error)}) + "\n")
            return
        self.finish(json.dumps(head).encode()[:-1] + b', "result": ' + result + b"}\n")


class _Training(_Handler):
    """A log of the training monitor: one of those the server was started with, by its number."""

    async def get(self) -> None:
        logs = self.explorer.settings.logs
        number = self.get_query_argument("log", "0")
        if not (number.isascii() and number.isdigit() and int(number[:4]) < len(logs)):
            self.send_error(404, reason="no such log")
            return
        path = logs[int(number[:4])]
        try:
            now = version(path)
            # The visitor who has seen this version gets a short answer.
            seen = self.get_query_argument("seen", "") == now
            self.write({"version": now} if seen else {"version": now, "log": await self._read(path, now)})
        except (ValueError, OSError) as error:
            self.write({"error": str(error) if isinstance(error, ValueError) else f"{path.name} cannot be read"})

    async def _read(self, path: Path, now: str) -> dict[str, Any]:
        kept = self.explorer.logs
        if kept.get(path, ("",))[0] != now:
            kept[path] = now, await asyncio.to_thread(read_log, path)
        return kept[path][1]


def _check_host(handler: web.RequestHandler) -> None:
    """Answer on loopback to names of this machine only, so that no web site can have its name point here."""
    settings: Settings = handler.settings["explorer"]
    if settings.host in LOOPBACK and handler.request.host_name.strip("[]") not in LOOPBACK:
        raise web.HTTPError(403, reason="this explorer answers to localhost only")


def application(explorer: Explorer) -> web.Application:
    """Return the routes."""
    shared = {"explorer": explorer}
    return web.Application(
        [
            (r"/(?:training)?", _Page, shared),
            (r"/api/state", _State, shared),
            (r"/api/training", _Training, shared),
            (r"/api/([a-z]+)", _Answer, shared),
            (r"/static/([a-z]+\.[a-z]+)", _Files, {**shared, "path": str(STATIC)}),  # no name leads out of the folder
        ],
        default_handler_class=_Nothing,
        default_handler_args=shared,
        explorer=explorer.settings,
        log_function=lambda handler: None,
    )
