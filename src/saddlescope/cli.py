"""The command line: each command parses, makes one public call, and prints a table or one JSON document."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from saddlescope import landscapes
from saddlescope._checks import refuse, require_choice
from saddlescope.dynamics import GradientMap, Outcome, SAMMap
from saddlescope.dynamics import simulate as run_simulation
from saddlescope.landscapes import Landscape
from saddlescope.optim import RadiusCap
from saddlescope.provenance import __version__
from saddlescope.stability import CriticalPoint, critical_rho, find_critical_points
from saddlescope.stability import classify as run_classification
from saddlescope.training import ExperimentConfig, run_experiment


class _Commands(TyperGroup):
    """Turns wrong use, wherever it is noticed, into one line on stderr and exit status 2."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except ValueError as error:
            _wrong_use(str(error))
        except Exception as error:
            # The exceptions of the option parser, which its own printer would spread over a box of lines.
            if not hasattr(error, "format_message"):
                raise
            _wrong_use(error.format_message())  # type: ignore[attr-defined]
        sys.exit(status if isinstance(status, int) else 0)


def _wrong_use(message: str) -> NoReturn:
    print(f"saddlescope: {message}", file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    help="Find out whether SAM is stuck at a saddle, why, and what to change.",
    pretty_exceptions_enable=False,
)
_stdout = Console()

LandscapeName = Annotated[str, typer.Option("--landscape", help=f"One of {', '.join(landscapes.names())}.")]
Loss = Annotated[str, typer.Option("--loss", help="A formula such as 'x**2 - y**2', instead of --landscape.")]
Bounds = Annotated[str, typer.Option(help="Low and high of each variable: '-4,4,-4,4'.")]
Variables = Annotated[
    str, typer.Option(help="Names of the formula's variables: 'x,y' (default x; x,y; x,y,z; or w1,w2,...).")
]
Optimizer = Annotated[str, typer.Option(help="gd or sam.")]
Rho = Annotated[float, typer.Option(help="Radius of SAM.")]
LearningRate = Annotated[float, typer.Option("--lr", help="Step size.")]
Momentum = Annotated[float, typer.Option(help="Heavy-ball coefficient in [0, 1).")]
Unnormalized = Annotated[bool, typer.Option("--unnormalized", help="SAM that does not divide by the gradient's norm.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"saddlescope {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Find out whether SAM is stuck at a saddle, why, and what to change."""


@app.command()
def reproduce(
    scale: Annotated[str, typer.Option(help="quick (minutes on two cores) or full.")] = "quick",
    out: Annotated[Path, typer.Option(help="Folder for index.html, results.json and the figures.")] = Path(
        "reproduction"
    ),
    only: Annotated[str, typer.Option(help="Ids of claims, separated by commas; all by default.")] = "",
    as_json: AsJson = False,
) -> None:
    """Test every claim of the paper and write a report: paper, ours, verdict."""
    from saddlescope.paper import run_claims
    from saddlescope.report import summary_table, write_report

    began = time.perf_counter()
    ids = [name.strip() for name in only.split(",") if name.strip()] or None
    findings = run_claims(ids, scale=scale)
    page = write_report(out, findings)
    if as_json:
        print(json.dumps({finding.claim.id: finding.to_dict() for finding in findings}, allow_nan=False))
        return
    _stdout.print(summary_table(findings))
    _stdout.print(f"{len(findings)} claims in {time.perf_counter() - began:.0f} s: {page}", soft_wrap=True)


@app.command()
def points(
    landscape: LandscapeName = "",
    loss: Loss = "",
    bounds: Bounds = "",
    variables: Variables = "",
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Find the critical points of a loss in a box, with index, eigenvalues and the radius that makes them traps."""
    found = find_critical_points(_landscape(landscape, loss, bounds, variables), seed=seed)
    rows = [{**point.to_dict(), "rho_star": critical_rho(point.eigenvalues)} for point in found]
    if as_json:
        print(json.dumps({"points": rows}, allow_nan=False))
        return
    table = Table("kind", "point", "loss", "eigenvalues", "index", "ρ*", title="critical points")
    for row in rows:
        star = "" if row["rho_star"] is None else f"{row['rho_star']:.6g}"
        numbers = _vector(row["point"]), f"{row['loss']:.6g}", _vector(row["eigenvalues"])
        table.add_row(row["kind"], *numbers, str(row["index"]), star)
    _stdout.print(table)
    _stdout.print("ρ*: unnormalized SAM is attracted from this radius on; normalized SAM is by every saddle.")


@app.command()
def classify(
    at: Annotated[str, typer.Option(help="The critical point, to about 1% of the box: '0,1'.")],
    landscape: LandscapeName = "",
    loss: Loss = "",
    bounds: Bounds = "",
    variables: Variables = "",
    optimizer: Optimizer = "sam",
    rho: Rho = 0.05,
    lr: LearningRate = 0.01,
    momentum: Momentum = 0.0,
    unnormalized: Unnormalized = False,
    as_json: AsJson = False,
) -> None:
    """Say what an optimizer does near a critical point: attractor, trap, saddle, repeller or marginal."""
    where = _landscape(landscape, loss, bounds, variables)
    point = _critical_point_near(where, _numbers("at", at, where.dimension))
    stability = run_classification(point, _update(optimizer, rho, lr, momentum, unnormalized))
    data = stability.to_dict()
    data["rho_star"] = data.pop("critical_rho")
    if as_json:
        print(json.dumps({"point": list(point.point), "kind": point.kind, **data}, allow_nan=False))
        return
    table = Table("", "", show_header=False, title=f"{point.kind} at {_vector(point.point)}")
    table.add_row("verdict", stability.verdict)
    table.add_row("because", stability.reason)
    table.add_row("eigenvalues", _vector(stability.eigenvalues))
    table.add_row("basis", stability.basis)
    _stdout.print(table)


@app.command()
def simulate(
    start: Annotated[str, typer.Option(help="Where to begin: '1,2'.")],
    steps: Annotated[int, typer.Option(help="How many steps to take.")],
    landscape: LandscapeName = "",
    loss: Loss = "",
    bounds: Bounds = "",
    variables: Variables = "",
    optimizer: Optimizer = "sam",
    rho: Rho = 0.05,
    lr: LearningRate = 0.01,
    momentum: Momentum = 0.0,
    unnormalized: Unnormalized = False,
    as_json: AsJson = False,
) -> None:
    """Run an optimizer from a start and print where it ends."""
    where = _landscape(landscape, loss, bounds, variables)
    update = _update(optimizer, rho, lr, momentum, unnormalized)
    run = run_simulation(where, update, _numbers("start", start, where.dimension), steps)
    final, status = run.final[0].tolist(), Outcome(int(run.status[0])).name.lower()
    if as_json:
        # JSON has no infinity: a diverged coordinate may be null.
        finite = [x if abs(x) < float("inf") else None for x in final]
        print(json.dumps({"final": finite, "status": status, "steps": steps}, allow_nan=False))
        return
    _stdout.print(f"{status} after {steps} steps at {_vector(final)}, loss {float(where.loss(run.final[0])):.6g}")


@app.command()
def train(
    task: Annotated[str, typer.Option(help="digits-mlp.")] = "digits-mlp",
    optimizer: Annotated[str, typer.Option(help="sgd or sam.")] = "sam",
    rho: Annotated[float, typer.Option(help="Radius of SAM; ignored by sgd.")] = 0.05,
    lr: LearningRate = 0.1,
    momentum: Momentum = 0.0,
    radius_cap: Annotated[
        bool, typer.Option("--radius-cap", help="Cap SAM's radius where it would be trapped.")
    ] = False,
    unnormalized: Unnormalized = False,
    batch_size: int = 256,
    steps: int = 600,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Train a network and report whether it learned."""
    is_sam = optimizer == "sam"
    record = run_experiment(
        ExperimentConfig(
            task=task,
            optimizer=optimizer,
            rho=rho if is_sam else 0.0,
            lr=lr,
            momentum=momentum,
            normalized=not unnormalized,
            radius_cap=RadiusCap() if radius_cap else None,
            batch_size=batch_size,
            steps=steps,
            seed=seed,
        ),
        progress=True,
    )
    if as_json:
        print(json.dumps(record.to_dict(), allow_nan=False))
        return
    table = Table("", "", show_header=False, title=f"{task}, {optimizer}")
    table.add_row("status", record.status)
    table.add_row("training loss", f"{record.final_loss:.4g}")
    table.add_row("test accuracy", f"{record.test_accuracy:.1%}")
    table.add_row("seconds", f"{record.seconds:.1f}")
    _stdout.print(table)


def _landscape(name: str, loss: str, bounds: str, variables: str) -> Landscape:
    if bool(name) == bool(loss):
        raise refuse("landscape", name or loss or "nothing", "either --landscape NAME or --loss EXPR --bounds ...")
    numbers = _numbers("bounds", bounds) if bounds else []
    if len(numbers) % 2:
        raise refuse("bounds", bounds, "an even count of numbers: low,high for each variable")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if name:
        found = landscapes.get(name)
        return Landscape(name, found.loss, found.dimension, pairs, source=found.source) if pairs else found  # type: ignore[arg-type]
    if not pairs:
        raise refuse("bounds", "nothing", "low,high for each variable", "for example --bounds='-4,4,-4,4'")
    default = ["x", "y", "z"][: len(pairs)] if len(pairs) <= 3 else [f"w{k + 1}" for k in range(len(pairs))]
    return landscapes.from_expression(loss, pairs, [v.strip() for v in variables.split(",")] if variables else default)


def _numbers(name: str, text: str, count: int | None = None) -> list[float]:
    expected = "numbers separated by commas" if count is None else f"{count} numbers separated by commas"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise refuse(name, text, expected) from None
    if count is not None and len(numbers) != count:
        raise refuse(name, text, expected)
    return numbers


def _update(optimizer: str, rho: float, lr: float, momentum: float, unnormalized: bool) -> GradientMap | SAMMap:
    if require_choice("optimizer", optimizer, ("gd", "sam")) == "gd":
        return GradientMap(lr, momentum)
    return SAMMap(lr, rho, momentum, normalized=not unnormalized)


def _critical_point_near(landscape: Landscape, at: list[float]) -> CriticalPoint:
    """Return the critical point that a rounded position means."""
    reach = [(high - low) / 100 for low, high in landscape.bounds]
    found = find_critical_points(landscape, bounds=[(x - r, x + r) for x, r in zip(at, reach, strict=True)])
    if not found:
        expected = "a critical point within 1% of the box"
        raise refuse("at", _vector(at), expected, "list them with: saddlescope points")
    return min(found, key=lambda point: sum((a - b) ** 2 for a, b in zip(point.point, at, strict=True)))


def _vector(numbers: Any) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in numbers) + ")"


def main() -> None:
    """Run the command line."""
    app()
