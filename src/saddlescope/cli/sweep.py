"""The command that runs a grid of trainings."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from saddlescope._checks import refuse
from saddlescope.cli.app import app, stdout
from saddlescope.cli.options import AsJson
from saddlescope.cli.train import Data, use_data
from saddlescope.store import DEFAULT_URL, Store, StoreError
from saddlescope.sweeps.engine import Engine, Outcome
from saddlescope.sweeps.grid import MAX_CELLS, read_grid
from saddlescope.sweeps.live_table import LiveTable, failure_lines, result_table
from saddlescope.sweeps.local import LocalEngine
from saddlescope.sweeps.sweep import run_sweep
from saddlescope.sweeps.vectorised import VectorisedEngine


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The grid.")],
    store: Annotated[str, typer.Option(help="URL of the results: sqlite:///FILE or postgresql+psycopg://...")] = (
        DEFAULT_URL
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Keep the results that the store has of this grid.")] = False,
    engine: Annotated[str, typer.Option(help="local, vectorised or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; by default one is started here.")] = None,
    workers: Annotated[int | None, typer.Option(help="Runs at once; by default the cores.")] = None,
    max_cells: Annotated[int, typer.Option(help="More cells are taken for a mistake.")] = MAX_CELLS,
    data: Data = None,
    export: Annotated[Path | None, typer.Option(help="Write the whole store as .parquet or .csv at the end.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train every cell of a grid, keep the results, and continue where a sweep was cut off.

    The exit status is 0 if all cells have a result, 1 if some failed or the store did, 2 for wrong use, 130 after
    Ctrl-C and 143 after SIGTERM.
    """
    configs = read_grid(grid, max_cells=max_cells)
    use_data(data)
    runner = _engine(engine, address, workers)
    if export is not None and (export.suffix not in (".parquet", ".csv") or not export.parent.is_dir()):
        raise refuse("export", str(export), "a file that ends in .parquet or .csv, in a folder that exists")
    console = Console(stderr=True)
    try:
        with _terminable(), Store(store) as kept:
            known = len(kept.get(config.key for config in configs))
            if known and not resume:
                raise refuse("store", f"{known} of the {len(configs)} cells", "none", "use --resume to keep them")
            table = LiveTable(len(configs), known)

            def note(outcome: Outcome) -> None:
                table.add(outcome)
                if not console.is_terminal:  # such as a log file, which takes lines only
                    print(table.headline, file=sys.stderr, flush=True)

            live = Live(table, console=console, refresh_per_second=4) if console.is_terminal else nullcontext()
            # What Ray prints goes to stdout, which is the result's.
            with redirect_stdout(sys.stderr), live:
                result = run_sweep(configs, engine=runner, store=kept, on_outcome=note)
            if export is not None:
                kept.export(export)
    except (StoreError, ConnectionError) as error:
        print(f"saddlescope: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt as stopped:
        print("saddlescope: stopped; every finished run is kept, repeat with --resume", file=sys.stderr)
        raise typer.Exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT)) from None
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        stdout.print(result_table(result))
    for line in failure_lines(result):
        print(f"saddlescope: {line}", file=sys.stderr)
    raise typer.Exit(1 if result.failures else 0)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does: the workers with it."""

    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _engine(name: str, address: str | None, workers: int | None) -> Engine:
    if name in ("local", "vectorised"):
        if address is not None:
            raise refuse("address", address, f"none for the engine {name}", "use --engine ray")
        return LocalEngine(workers) if name == "local" else VectorisedEngine(workers)
    if name == "ray":
        from saddlescope.sweeps.ray import RayEngine

        return RayEngine(address, workers)
    raise refuse("engine", name, "local, vectorised or ray")
