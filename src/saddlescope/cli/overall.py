"""Commands about a whole landscape: which start ends where, and how that changes with the radius."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from saddlescope._checks import refuse
from saddlescope.cli.app import app, stdout
from saddlescope.cli.options import AsJson, numbers_of, vector, with_options
from saddlescope.cli.output import OutFile, check_out, save_figure
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.landscapes import Landscape
from saddlescope.stability.basins import map_basins
from saddlescope.stability.bifurcation import continue_in_rho


@app.command()
@with_options
def basins(
    where: Landscape,
    update: UpdateMap,
    resolution: Annotated[int, typer.Option(help="Starts along each side of the box.")] = 256,
    steps: Annotated[int, typer.Option(help="Budget of each start.")] = 4_000_000,
    seed: int = 0,
    out: OutFile = None,
    as_json: AsJson = False,
) -> None:
    """Map which start ends where: minima, saddles that trap, spurious points, cycles, or nowhere."""
    check_out(out)
    result = map_basins(where, update, resolution=resolution, steps=steps, seed=seed)
    if out is not None:
        from saddlescope.plots.basins import plot_basins

        save_figure(plot_basins(result), out)
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
        return
    table = Table("ends at", "share of starts", "95% interval", "why", title=f"{where.name}, {resolution}² starts")
    names = result.names()
    for label, share in sorted(result.fractions.items(), key=lambda item: -item[1].value):
        if label >= 0 or share.value > 0:
            why = result.attractors[label].evidence if label >= 0 else ""
            table.add_row(names[label], f"{share.value:.2%}", f"{share.low:.2%} to {share.high:.2%}", why)
    stdout.print(table)
    written = f": {out}" if out else ""
    stdout.print(f"{result.seconds:.1f} s, {result.steps_per_second:.3g} steps/s{written}", soft_wrap=True)


@app.command()
@with_options
def bifurcation(
    where: Landscape,
    update: UpdateMap,
    rhos: Annotated[
        str, typer.Option("--rhos", help="Values of the parameter: low,high,count or, with more, a list.")
    ] = "0.05,2,40",
    parameter: Annotated[str, typer.Option(help="What the values are of: rho, lr or momentum.")] = "rho",
    coordinate: Annotated[int, typer.Option(help="Which coordinate to draw, from 1.")] = 1,
    seed: int = 0,
    out: OutFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow fixed points, cycles and what trajectories end on as the radius, step size or momentum varies."""
    check_out(out)
    if not 1 <= coordinate <= where.dimension:
        raise refuse("coordinate", coordinate, f"a whole number from 1 to {where.dimension}")
    result = continue_in_rho(where, update, _values(rhos), parameter=parameter, seed=seed)
    if out is not None:
        from saddlescope.plots.bifurcation import plot_bifurcation

        save_figure(plot_bifurcation(result, coordinate=coordinate - 1), out)
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
        return
    table = Table("branch", parameter, "stable", title=f"{where.name}, branches")
    for branch in result.branches:
        span = f"{branch.values[0]:.6g} to {branch.values[-1]:.6g}"
        table.add_row(f"{branch.kind} at {vector(branch.points[0, 0])}", span, _stable(branch.values, branch.stable))
    stdout.print(table)
    events = Table("bifurcation", parameter, "at", title="bifurcations")
    for event in result.events:
        events.add_row(event.kind, f"{event.value:.6g}", vector(event.point))
    stdout.print(events)
    if out:
        stdout.print(str(out), soft_wrap=True)


def _values(text: str) -> list[float]:
    numbers = numbers_of("rhos", text)
    if len(numbers) != 3:
        return numbers
    low, high, count = numbers
    if not (low < high and count >= 2 and count == int(count)):
        raise refuse("rhos", text, "low,high,count with low < high and a whole count >= 2")
    return np.linspace(low, high, int(count)).tolist()


def _stable(values: np.ndarray, stable: np.ndarray) -> str:
    """Return the runs of values at which a branch attracts."""
    if stable.all() or not stable.any():
        return "throughout" if stable.all() else "nowhere"
    edges = np.flatnonzero(np.diff(np.concatenate([[False], stable, [False]]).astype(int)))
    return ", ".join(f"{values[a]:.6g} to {values[b - 1]:.6g}" for a, b in zip(edges[::2], edges[1::2], strict=True))
