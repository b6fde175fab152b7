"""Everything a visitor has set, as one frozen value that an address holds and that is checked when it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from saddlescope import landscapes
from saddlescope._checks import refuse
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.noise import GaussianNoise
from saddlescope.explorer.fields import FIELDS, OPTIMIZERS
from saddlescope.landscapes import Landscape

LONGEST_QUERY = 8000
MOST_WORK = 12_000
"""Steps of all starts together."""
MOST_NOTES = 5
DEFAULT_BOUNDS = (-4.0, 4.0, -4.0, 4.0)
"""Of a formula."""


@dataclass(frozen=True, kw_only=True)
class ExplorerState:
    """What the explorer shows: a landscape, an optimizer, starts, and what each picture is asked for.

    Fields have the names of the address, and the bounds of ``FIELDS``. Make one with `read_query` to have them checked.

    >>> state, notes = read_query("landscape=double_well&rho=0.3&starts=1,1")
    >>> state.rho, state.starts, notes
    (0.3, ((1.0, 1.0),), ())
    >>> state.to_query()
    'landscape=double_well&rho=0.3&starts=1,1'
    """

    landscape: str = "beale"
    loss: str = ""
    """A formula of x and y, which takes the place of ``landscape`` when there is one."""
    bounds: tuple[float, ...] = ()
    optimizer: str = "sam"
    rho: float = 0.5
    lr: float = 0.001
    momentum: float = 0.0
    noise: float = 0.0
    """Standard deviation of each coordinate of a gradient at batch size 1."""
    batch: int = 1
    sharing: str = "additive"
    seed: int = 0
    steps: int = 500
    starts: tuple[tuple[float, float], ...] = ((1.0, 2.0),)
    resolution: str = "256"
    rho_from: float = 0.02
    rho_to: float = 1.0
    values: int = 24
    coordinate: str = "x"
    eigenvalue: float = -1.0
    """Of the direction that the escape is along."""
    radius: float = 0.5
    replicas: int = 2000
    longest: int = 20_000
    show: str = ""
    """Which of the long computations to start with the page."""

    def to_query(self) -> str:
        """Return the fields that differ from the defaults, as a query string."""
        parts = []
        for name, field in FIELDS.items():
            value = getattr(self, name)
            if value != getattr(_DEFAULT, name):
                parts.append(f"{name}={quote(field.write(value), safe=',;*/()-.')}")
        return "&".join(parts)

    def to_landscape(self) -> Landscape:
        """Return the loss with its box."""
        return _landscape(self.landscape, self.loss, self.bounds)

    def to_update(self) -> UpdateMap:
        """Return the optimizer's map."""
        _, kind, settings = OPTIMIZERS[self.optimizer]
        numbers = {"lr": self.lr, "momentum": self.momentum, **settings(self.lr)}
        if self.optimizer != "gd":
            numbers["rho"] = self.rho
        return kind(**numbers)

    def to_noise(self) -> GaussianNoise | None:
        """Return the noise on the gradients, None for none."""
        return GaussianNoise(self.noise, self.batch, self.sharing) if self.noise else None

    def part(self, *names: str) -> tuple[object, ...]:
        """Return the values of some fields: what a result depends on, as a key."""
        return tuple(getattr(self, name) for name in names)


_DEFAULT = ExplorerState()


def read_query(query: str) -> tuple[ExplorerState, tuple[str, ...]]:
    r"""Return the state that a query string holds, and in words what of it was left out and why.

    Whatever the text is, the result is a state within all bounds: nothing is raised, and nothing of it is executed.

    >>> state, notes = read_query("rho=1e9&colour=red")
    >>> state == ExplorerState()
    True
    >>> print(*notes, sep="\n")
    rho: got '1e9', expected a number from 0 to 10
    colour: no such setting
    """
    if len(query) > LONGEST_QUERY:
        return _DEFAULT, (f"address: got {len(query)} characters, expected at most {LONGEST_QUERY}",)
    values: dict[str, object] = {}
    notes: list[str] = []
    for part in query.split("&") if query else ():
        name, _, text = part.partition("=")
        # A "+" stays a plus sign: formulas are typed into addresses by hand.
        name, text = unquote(name)[:40], unquote(text)
        if name not in FIELDS:
            notes.append(f"{name}: no such setting")
            continue
        try:
            values[name] = FIELDS[name].read(name, text)
        except ValueError as error:
            notes.append(str(error))
    state = replace(_DEFAULT, **values)  # type: ignore[arg-type]
    for check, instead in _CHECKS:
        try:
            check(state)
        except ValueError as error:
            notes.append(str(error))
            state = replace(state, **instead(state))
    more = len(notes) - MOST_NOTES
    return state, (*notes[:MOST_NOTES], *([f"and {more} more settings that were left out"] if more > 0 else ()))


def _check_range(state: ExplorerState) -> None:
    if not state.rho_from < state.rho_to:
        raise refuse("rho_from, rho_to", (state.rho_from, state.rho_to), "rho_from < rho_to")


def _check_work(state: ExplorerState) -> None:
    if state.steps * len(state.starts) > MOST_WORK:
        each = MOST_WORK // len(state.starts)
        raise refuse("steps", state.steps, f"at most {each} with {len(state.starts)} starts", f"{each} are shown")


_CHECKS: tuple[tuple[Callable[[ExplorerState], Any], Callable[[ExplorerState], dict[str, Any]]], ...] = (
    (ExplorerState.to_landscape, lambda state: {"loss": ""}),
    (_check_range, lambda state: {"rho_from": _DEFAULT.rho_from, "rho_to": _DEFAULT.rho_to}),
    (_check_work, lambda state: {"steps": MOST_WORK // len(state.starts)}),
)
"""Of fields together, with what to set instead where they do not fit."""


@lru_cache(maxsize=64)
def _landscape(name: str, loss: str, bounds: tuple[float, ...]) -> Landscape:
    pairs = (bounds[:2], bounds[2:])
    if loss:
        found = _formula(loss)
        return replace(found, bounds=pairs) if bounds else found  # type: ignore[arg-type]
    found = landscapes.get(name)
    return replace(found, bounds=pairs, critical_points=()) if bounds else found  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _formula(loss: str) -> Landscape:
    """Read once, whatever part of the plane is looked at: what is compiled for a loss is found by its function."""
    return landscapes.from_expression(loss, (DEFAULT_BOUNDS[:2], DEFAULT_BOUNDS[2:]))


assert {f.name for f in fields(ExplorerState)} == set(FIELDS)
