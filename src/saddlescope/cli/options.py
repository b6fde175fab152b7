"""What several commands share: how a landscape and an optimizer's map are given, and how numbers are printed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Annotated, Any

import typer

from saddlescope import landscapes
from saddlescope._checks import refuse, require_choice
from saddlescope.dynamics import GradientMap, SAMMap
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.names import MAPS
from saddlescope.landscapes import Landscape

LandscapeName = Annotated[str, typer.Option("--landscape", help=f"One of {', '.join(landscapes.names())}.")]
Loss = Annotated[str, typer.Option("--loss", help="A formula such as 'x**2 - y**2', instead of --landscape.")]
Bounds = Annotated[str, typer.Option(help="Low and high of each variable: '-4,4,-4,4'.")]
Variables = Annotated[
    str, typer.Option(help="Names of the formula's variables: 'x,y' (default x; x,y; x,y,z; or w1,w2,...).")
]
Optimizer = Annotated[str, typer.Option(help=f"One of {', '.join(MAPS)}.")]
Rho = Annotated[float, typer.Option(help="Radius of SAM.")]
LearningRate = Annotated[float, typer.Option("--lr", help="Step size.")]
Momentum = Annotated[float, typer.Option(help="Heavy-ball coefficient in [0, 1).")]
Unnormalized = Annotated[bool, typer.Option("--unnormalized", help="SAM that does not divide by the gradient's norm.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A number of a variant of SAM, such as fraction=0.5; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def landscape_of(
    landscape: LandscapeName = "", loss: Loss = "", bounds: Bounds = "", variables: Variables = ""
) -> Landscape:
    """Return the landscape that the options name, with their bounds if they give any."""
    if bool(landscape) == bool(loss):
        raise refuse("landscape", landscape or loss or "nothing", "either --landscape NAME or --loss EXPR --bounds ...")
    numbers = numbers_of("bounds", bounds) if bounds else []
    if len(numbers) % 2:
        raise refuse("bounds", bounds, "an even count of numbers: low,high for each variable")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if landscape:
        found = landscapes.get(landscape)
        return replace(found, bounds=pairs, critical_points=()) if pairs else found
    if not pairs:
        raise refuse("bounds", "nothing", "low,high for each variable", "for example --bounds='-4,4,-4,4'")
    default = ["x", "y", "z"][: len(pairs)] if len(pairs) <= 3 else [f"w{k + 1}" for k in range(len(pairs))]
    return landscapes.from_expression(loss, pairs, [v.strip() for v in variables.split(",")] if variables else default)


def update_of(
    optimizer: Optimizer = "sam",
    rho: Rho = 0.05,
    lr: LearningRate = 0.01,
    momentum: Momentum = 0.0,
    unnormalized: Unnormalized = False,
    settings: Settings = None,
) -> UpdateMap:
    """Return the map that the options describe."""
    kind = MAPS[require_choice("optimizer", optimizer, tuple(MAPS))]
    own = [f.name for f in fields(kind) if f.name not in ("lr", "rho", "momentum", "normalized")]
    values: dict[str, Any] = {"lr": lr, "momentum": momentum}
    if kind is not GradientMap:
        values["rho"] = rho
    if unnormalized:
        if kind is not SAMMap:
            raise refuse("unnormalized", optimizer, "--optimizer sam")
        values["normalized"] = False
    for setting in settings or ():
        name, _, text = setting.partition("=")
        if name not in own:
            raise refuse("set", setting, f"name=number with a name among: {', '.join(own) or 'none'}")
        (number,) = numbers_of(f"set {name}", text, 1)
        values[name] = int(number) if number.is_integer() else number
    return kind(**values)


BUILDERS: dict[type, Callable[..., Any]] = {Landscape: landscape_of, UpdateMap: update_of}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options that describe a `Landscape` or `UpdateMap` in place of each such parameter.

    Typer reads options from a signature, and has no other way to share them.
    """
    own = inspect.signature(command, eval_str=True).parameters
    built = {name: BUILDERS[p.annotation] for name, p in own.items() if p.annotation in BUILDERS}
    shared = {name: inspect.signature(builder, eval_str=True).parameters for name, builder in built.items()}

    def run(**values: Any) -> None:
        for name, builder in built.items():
            values[name] = builder(**{option: values.pop(option) for option in shared[name]})
        command(**values)

    kept = [p for name, p in own.items() if name not in built]
    required = [p for p in kept if p.default is p.empty]
    options = [
        *required,
        *(p for each in shared.values() for p in each.values()),
        *(p for p in kept if p not in required),
    ]
    options = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in options]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def numbers_of(name: str, text: str, count: int | None = None) -> list[float]:
    """Return numbers separated by commas, ``count`` of them, or refuse the text."""
    expected = "numbers separated by commas" if count is None else f"{count} numbers separated by commas"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise refuse(name, text, expected) from None
    if count is not None and len(numbers) != count:
        raise refuse(name, text, expected)
    return numbers


def vector(numbers: Any) -> str:
    """Return numbers as text in brackets."""
    return "(" + ", ".join(f"{x:.6g}" for x in numbers) + ")"
