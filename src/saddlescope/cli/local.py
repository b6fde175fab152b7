"""Commands about one landscape: its critical points, what a map does at them, where a trajectory goes."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from saddlescope._checks import refuse
from saddlescope.cli.app import app, stdout
from saddlescope.cli.options import AsJson, numbers_of, vector, with_options
from saddlescope.dynamics import Outcome
from saddlescope.dynamics import simulate as run_simulation
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.landscapes import Landscape
from saddlescope.stability import CriticalPoint, critical_rho, find_critical_points
from saddlescope.stability import classify as run_classification


@app.command()
@with_options
def points(where: Landscape, seed: int = 0, as_json: AsJson = False) -> None:
    """Find the critical points of a loss in a box, with index, eigenvalues and the radius that makes them traps."""
    found = find_critical_points(where, seed=seed)
    rows = [{**point.to_dict(), "rho_star": critical_rho(point.eigenvalues)} for point in found]
    if as_json:
        print(json.dumps({"points": rows}, allow_nan=False))
        return
    table = Table("kind", "point", "loss", "eigenvalues", "index", "ρ*", title="critical points")
    for row in rows:
        star = "" if row["rho_star"] is None else f"{row['rho_star']:.6g}"
        numbers = vector(row["point"]), f"{row['loss']:.6g}", vector(row["eigenvalues"])
        table.add_row(row["kind"], *numbers, str(row["index"]), star)
    stdout.print(table)
    stdout.print("ρ*: unnormalized SAM is attracted from this radius on; normalized SAM is by every saddle.")


@app.command()
@with_options
def classify(
    at: Annotated[str, typer.Option(help="The critical point, to about 1% of the box: '0,1'.")],
    where: Landscape,
    update: UpdateMap,
    as_json: AsJson = False,
) -> None:
    """Say what an optimizer does near a critical point: attractor, trap, saddle, repeller or marginal."""
    point = _critical_point_near(where, numbers_of("at", at, where.dimension))
    stability = run_classification(point, update)
    data = stability.to_dict()
    data["rho_star"] = data.pop("critical_rho")
    if as_json:
        print(json.dumps({"point": list(point.point), "kind": point.kind, **data}, allow_nan=False))
        return
    table = Table("", "", show_header=False, title=f"{point.kind} at {vector(point.point)}")
    table.add_row("verdict", stability.verdict)
    table.add_row("because", stability.reason)
    table.add_row("eigenvalues", vector(stability.eigenvalues))
    table.add_row("basis", stability.basis)
    stdout.print(table)


@app.command()
@with_options
def simulate(
    start: Annotated[str, typer.Option(help="Where to begin: '1,2'.")],
    steps: Annotated[int, typer.Option(help="How many steps to take.")],
    where: Landscape,
    update: UpdateMap,
    as_json: AsJson = False,
) -> None:
    """Run an optimizer from a start and print where it ends."""
    run = run_simulation(where, update, numbers_of("start", start, where.dimension), steps)
    final, status = run.final[0].tolist(), Outcome(int(run.status[0])).name.lower()
    if as_json:
        # JSON has no infinity: a diverged coordinate may be null.
        finite = [x if abs(x) < float("inf") else None for x in final]
        print(json.dumps({"final": finite, "status": status, "steps": steps}, allow_nan=False))
        return
    if status == "diverged":
        stdout.print(f"diverged within {steps} steps: the start is out of reach of the minima, or --lr is too large")
        return
    stdout.print(f"{status} after {steps} steps at {vector(final)}, loss {float(where.loss(run.final[0])):.6g}")


def _critical_point_near(landscape: Landscape, at: list[float]) -> CriticalPoint:
    """Return the critical point that a rounded position means."""
    reach = [(high - low) / 100 for low, high in landscape.bounds]
    found = find_critical_points(landscape, bounds=[(x - r, x + r) for x, r in zip(at, reach, strict=True)])
    if not found:
        expected = "a critical point within 1% of the box"
        raise refuse("at", vector(at), expected, "list them with: saddlescope points")
    return min(found, key=lambda point: sum((a - b) ** 2 for a, b in zip(point.point, at, strict=True)))
