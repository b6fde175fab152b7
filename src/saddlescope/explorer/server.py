"""The web server: one process that only listens, and workers that compute."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

from saddlescope.explorer.answers import Explorer, Settings

MOST_HEADERS = 16_384
"""Bytes of a request's head, its address included."""


async def serve(settings: Settings, started: Callable[[str], None] = lambda address: None) -> None:
    """Serve until cancelled; ``started`` is told the address once there are workers.

    Raises:
        OSError: when the port is taken.
        ModuleNotFoundError: without the extra ``explorer``.
    """
    try:
        from tornado import httpserver, netutil

        from saddlescope.explorer.handlers import application
    except ModuleNotFoundError as error:
        message = "the explorer needs tornado; pip install 'saddlescope[explorer]'"
        raise ModuleNotFoundError(message, name="tornado") from error
    sockets = netutil.bind_sockets(settings.port, settings.host, family=socket.AF_UNSPEC)
    explorer = Explorer(settings)
    server = httpserver.HTTPServer(
        application(explorer), max_header_size=MOST_HEADERS, max_body_size=1024, idle_connection_timeout=60
    )
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError, RuntimeError):  # where there are no signals, or not in this thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await explorer.warm()
        server.add_sockets(sockets)
        host, port = sockets[0].getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        await stop.wait()
    finally:
        server.stop()
        explorer.close()
