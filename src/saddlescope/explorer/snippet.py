"""The Python program that computes what the explorer shows."""

from __future__ import annotations

from dataclasses import MISSING, fields

from saddlescope.explorer.state import ExplorerState


def snippet(state: ExplorerState) -> str:
    """Return a program of a few lines that gives the numbers of the page.

    >>> print(snippet(ExplorerState(landscape="double_well", lr=0.1)))
    import saddlescope as ss
    <BLANKLINE>
    landscape = ss.landscapes.get('double_well')
    starts = [(1.0, 2.0)]
    gd = ss.simulate(landscape, ss.GradientMap(lr=0.1), starts, 500, record_every=1)
    update = ss.SAMMap(lr=0.1, rho=0.5)
    run = ss.simulate(landscape, update, starts, 500, record_every=1)
    points = ss.find_critical_points(landscape)
    basins = ss.map_basins(landscape, update, resolution=256)
    """
    noise = state.to_noise()
    extra = f", noise={noise!r}, seed={state.seed}".replace("GaussianNoise", "ss.GaussianNoise") if noise else ""
    plain = f"ss.GradientMap(lr={state.lr!r}{_unless_zero('momentum', state.momentum)})"
    seed = _unless_zero("seed", state.seed)
    return "\n".join(
        [
            *(["from dataclasses import replace", ""] if state.bounds and not state.loss else []),
            "import saddlescope as ss",
            "",
            f"landscape = {_landscape(state)}",
            f"starts = {list(state.starts)!r}",
            f"gd = ss.simulate(landscape, {plain}, starts, {state.steps}, record_every=1{extra})",
            f"update = {_update(state)}",
            f"run = ss.simulate(landscape, update, starts, {state.steps}, record_every=1{extra})",
            "points = ss.find_critical_points(landscape)",
            f"basins = ss.map_basins(landscape, update, resolution={state.resolution}{seed})",
        ]
    )


def _landscape(state: ExplorerState) -> str:
    bounds = list(state.to_landscape().bounds)
    if state.loss:
        return f"ss.landscapes.from_expression({state.loss!r}, bounds={bounds!r})"
    found = f"ss.landscapes.get({state.landscape!r})"
    if not state.bounds:
        return found
    return f"replace({found}, bounds={bounds!r}, critical_points=())"


def _update(state: ExplorerState) -> str:
    update = state.to_update()
    given = {
        f.name: getattr(update, f.name)
        for f in fields(update)
        if f.default is MISSING or getattr(update, f.name) != f.default
    }
    return f"ss.{type(update).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _unless_zero(name: str, value: float) -> str:
    return f", {name}={value!r}" if value else ""
