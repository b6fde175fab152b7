"""What a visitor can set, each with its bounds: the one list that the address, the form and the limits come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saddlescope import landscapes
from saddlescope._checks import refuse
from saddlescope.dynamics.maps import UpdateMap
from saddlescope.dynamics.names import MAPS
from saddlescope.dynamics.noise import SHARING

OPTIMIZERS: dict[str, tuple[str, type[UpdateMap], Callable[[float], dict[str, Any]]]] = {
    "sam": ("SAM", MAPS["sam"], lambda lr: {}),
    "usam": ("unnormalized SAM", MAPS["sam"], lambda lr: {"normalized": False}),
    "asam": ("ASAM", MAPS["asam"], lambda lr: {}),
    "capped": ("SAM + radius cap", MAPS["capped"], lambda lr: {}),
    "friendly": ("Friendly-SAM", MAPS["friendly"], lambda lr: {}),
    "lookahead": ("Lookahead-SAM, η ahead", MAPS["lookahead"], lambda lr: {"lookahead": lr}),
    "m-sam": ("m-SAM, batch in 4 parts", MAPS["m-sam"], lambda lr: {"parts": 4}),
    "momentum-sam": ("Momentum-SAM", MAPS["momentum-sam"], lambda lr: {}),
    "scheduled": ("SAM after 100 steps", MAPS["scheduled"], lambda lr: {"start": 100}),
    "stable": ("Stable SAM", MAPS["stable"], lambda lr: {}),
    "vasso": ("VaSSO", MAPS["vasso"], lambda lr: {}),
    "gd": ("gradient descent", MAPS["gd"], lambda lr: {}),
}
"""By the name in the address: what to call it, its map, and its settings beyond the sliders, given the step size."""
PLANAR = tuple(name for name in landscapes.names() if landscapes.get(name).dimension == 2)
"""The named landscapes of two variables."""
LARGEST_COORDINATE = 1e6


@dataclass(frozen=True)
class Number:
    """A number in ``[low, high]``, ``whole`` without fraction."""

    label: str
    low: float
    high: float
    scale: str = "linear"
    """Of the slider: "linear", "log", or "cubic", which is fine about zero and reaches far."""
    whole: bool = False

    def read(self, name: str, text: str) -> float | int:
        """Return the number that the text is, or refuse it.

        >>> Number("radius", 0, 10).read("rho", "0.5")
        0.5
        """
        kind = "a whole number" if self.whole else "a number"
        refusal = refuse(name, text[:40], f"{kind} from {self.low:g} to {self.high:g}")
        if len(text) > 40:
            raise refusal
        try:
            number = float(text)
        except ValueError:
            raise refusal from None
        if not self.low <= number <= self.high or (self.whole and not number.is_integer()):  # False for NaN
            raise refusal
        return int(number) if self.whole else number

    def write(self, value: float) -> str:
        """Return the shortest text that is read as the same number."""
        return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


@dataclass(frozen=True)
class Choice:
    """One of a closed list of names."""

    label: str
    names: tuple[str, ...]
    titles: tuple[str, ...] = ()

    def read(self, name: str, text: str) -> str:
        """Return the text if it is one of the names, or refuse it."""
        if text not in self.names:
            raise refuse(name, text[:40], "one of " + ", ".join(self.names))
        return text

    def write(self, value: str) -> str:
        """Return the name."""
        return value


@dataclass(frozen=True)
class Text:
    """A formula; what it means is for `Explored.landscape` to say."""

    label: str
    longest: int

    def read(self, name: str, text: str) -> str:
        """Return the text without white space around it, or refuse it when it is too long."""
        if len(text) > self.longest:
            raise refuse(name, f"{len(text)} characters", f"at most {self.longest}")
        return text.strip()

    def write(self, value: str) -> str:
        """Return the text."""
        return value


@dataclass(frozen=True)
class Points:
    """Points of the plane, written ``x,y;x,y``."""

    label: str
    most: int

    def read(self, name: str, text: str) -> tuple[tuple[float, float], ...]:
        """Return the points, or refuse the text.

        >>> Points("starts", 3).read("starts", "1,2;0,-0.5")
        ((1.0, 2.0), (0.0, -0.5))
        """
        parts = text.split(";", self.most)
        if len(parts) > self.most:
            raise refuse(name, f"{text[:40]}...", f"at most {self.most} points")
        return tuple((p[0], p[1]) for p in (_numbers(name, part, 2, "points such as 1,2;0,-0.5") for part in parts))

    def write(self, value: tuple[tuple[float, float], ...]) -> str:
        """Return the points as text."""
        return ";".join(",".join(_short(x) for x in point) for point in value)


@dataclass(frozen=True)
class Box:
    """``x0,x1,y0,y1`` with ``x0 < x1`` and ``y0 < y1``; empty for that of the landscape."""

    label: str

    def read(self, name: str, text: str) -> tuple[float, ...]:
        """Return the four numbers, none for no text, or refuse it."""
        if not text:
            return ()
        expected = "x0,x1,y0,y1 with x0 < x1 and y0 < y1"
        box = _numbers(name, text, 4, expected)
        # Narrower ones drown in rounding.
        if any(high - low < 1e-6 * max(1.0, abs(low), abs(high)) for low, high in (box[:2], box[2:])):
            raise refuse(name, text[:40], expected)
        return box

    def write(self, value: tuple[float, ...]) -> str:
        """Return the numbers as text."""
        return ",".join(_short(x) for x in value)


Field = Number | Choice | Text | Points | Box


def _numbers(name: str, text: str, count: int, expected: str) -> tuple[float, ...]:
    parts = text.split(",", count)
    try:
        numbers = tuple(float(part) for part in parts) if len(text) <= 40 * count else ()
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise refuse(name, text[:40], expected)
    if not all(math.isfinite(x) and abs(x) <= LARGEST_COORDINATE for x in numbers):
        raise refuse(name, text[:40], f"coordinates up to {LARGEST_COORDINATE:g} in size")
    return numbers


def _short(x: float) -> str:
    return repr(int(x)) if x.is_integer() else repr(x)


FIELDS: dict[str, Field] = {
    "landscape": Choice("landscape", PLANAR),
    "loss": Text("formula of x and y", 2000),
    "bounds": Box("box x0, x1, y0, y1"),
    "optimizer": Choice("optimizer", tuple(OPTIMIZERS), tuple(title for title, _, _ in OPTIMIZERS.values())),
    "rho": Number("radius ρ", 0.0, 10.0, scale="cubic"),
    "lr": Number("step size η", 1e-6, 1.0, scale="log"),
    "momentum": Number("momentum γ", 0.0, 0.999),
    "noise": Number("gradient noise", 0.0, 10.0, scale="cubic"),
    "batch": Number("batch size", 1, 4096, scale="log", whole=True),
    "sharing": Choice("noise is", SHARING),
    "seed": Number("seed", 0, 2**31 - 1, whole=True),
    "steps": Number("steps", 1, 5000, scale="log", whole=True),
    "starts": Points("starts", 6),
    "resolution": Choice("basin grid", ("64", "128", "256", "384"), ("64²", "128²", "256²", "384²")),
    "rho_from": Number("from ρ", 0.0, 10.0, scale="cubic"),
    "rho_to": Number("to ρ", 0.0, 10.0, scale="cubic"),
    "values": Number("values", 2, 60, whole=True),
    "coordinate": Choice("draw", ("x", "y")),
    "eigenvalue": Number("eigenvalue λ", -1e3, 1e3, scale="cubic"),
    "radius": Number("escape radius", 1e-6, 1e3, scale="log"),
    "replicas": Number("replicas", 100, 5000, whole=True),
    "longest": Number("give up after steps", 100, 200_000, scale="log", whole=True),
    "show": Choice("compute", ("", "bifurcation", "escape", "all")),
}
