"""The command that runs a grid of trainings."""

from __future__ import annotations

import json
import sys
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
from saddlescope.sweeps.engine import Engine
from saddlescope.sweeps.grid import MAX_CELLS, read_grid
from saddlescope.sweeps.live_table import LiveTable, result_table
from saddlescope.sweeps.local import LocalEngine
from saddlescope.sweeps.sweep import run_sweep


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The grid.")],
    store: Annotated[str, typer.Option(help="URL of the results: sqlite:///FILE or postgresql+psycopg://...")] = (
        DEFAULT_URL
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Keep the results that the store has of this grid.")] = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; by default one is started here.")] = None,
    workers: Annotated[int | None, typer.Option(help="Runs at once; by default the cores.")] = None,
    max_cells: Annotated[int, typer.Option(help="More cells are taken for a mistake.")] = MAX_CELLS,
    data: Data = None,
    export: Annotated[Path | None, typer.Option(help="Write the whole store as .parquet or .csv at the end.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train every cell of a grid, keep the results, and continue where a sweep was cut off."""
    configs = read_grid(grid, max_cells=max_cells)
    use_data(data)
    runner = _engine(engine, address, workers)
    if export is not None and export.suffix not in (".parquet", ".csv"):
        raise refuse("export", str(export), "a file name that ends in .parquet or .csv")
    try:
        with Store(store) as kept:
            known = len(kept.get(config.key for config in configs))
            if known and not resume:
                raise refuse("store", f"{known} of the {len(configs)} cells", "none", "use --resume to keep them")
            table = LiveTable(len(configs), known, runner.workers)
            with Live(table, console=Console(stderr=True), refresh_per_second=4):
                result = run_sweep(configs, engine=runner, store=kept, on_outcome=table.add)
            if export is not None:
                kept.export(export)
    except StoreError as error:
        print(f"saddlescope: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("saddlescope: stopped; every finished run is kept, repeat with --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        stdout.print(result_table(result))
    for key, error in result.failures.items():
        print(f"saddlescope: run {key} failed: {error}", file=sys.stderr)
    raise typer.Exit(1 if result.failures else 0)


def _engine(name: str, address: str | None, workers: int | None) -> Engine:
    if name == "local":
        if address is not None:
            raise refuse("address", address, "none for the engine local", "use --engine ray")
        return LocalEngine(workers)
    if name == "ray":
        from saddlescope.sweeps.ray import RayEngine

        return RayEngine(address, workers)
    raise refuse("engine", name, "local or ray")
