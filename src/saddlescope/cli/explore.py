"""The command that serves the explorer."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from saddlescope._checks import refuse
from saddlescope.cli.app import app, stdout


@app.command()
def explore(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 5006,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    log: Annotated[
        list[Path] | None, typer.Option(help="Log of the training monitor to show on the second page; repeatable.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes for quick answers, for formulas and for long ones, each.")
    ] = 2,
) -> None:
    """Explore landscapes, optimizers and their traps in a browser."""
    from saddlescope.explorer import Settings, serve

    settings = Settings(host=host, port=port, logs=tuple(log or ()), quick_workers=workers, heavy_workers=workers)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(settings, lambda address: stdout.print(f"{address}  (end with Ctrl-C)", soft_wrap=True)))
    except OSError as error:
        expected = "an address of this machine and a free port"
        raise refuse("host, port", (host, port), expected, "--port 0 takes a free one") from error
