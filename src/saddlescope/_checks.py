"""Checks of arguments whose messages read "got / expected / do this"."""

from __future__ import annotations

import math
from typing import Any


def refuse(name: str, got: Any, expected: str, do: str = "") -> ValueError:
    """Build the ``ValueError`` of wrong use: what was given, what is expected, what to do.

    >>> print(refuse("rho", -1.0, "a finite number >= 0", "use rho=0 for plain gradient descent"))
    rho: got -1.0, expected a finite number >= 0; use rho=0 for plain gradient descent
    """
    text = f"{name}: got {got!r}, expected {expected}"
    return ValueError(f"{text}; {do}" if do else text)


def require_finite(name: str, value: Any, *, minimum: float | None = None, exclusive: bool = False) -> float:
    """Return ``value`` as a float, or refuse it unless it is a finite number above ``minimum``."""
    bound = "" if minimum is None else f" {'>' if exclusive else '>='} {minimum:g}"
    expected = f"a finite number{bound}"
    if isinstance(value, bool):
        raise refuse(name, value, expected)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise refuse(name, value, expected) from None
    too_low = minimum is not None and (number <= minimum if exclusive else number < minimum)
    if not math.isfinite(number) or too_low:
        raise refuse(name, value, expected)
    return number


def require_count(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return ``value`` as an int, or refuse it unless it is a whole number >= ``minimum``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < minimum:
        raise refuse(name, value, f"a whole number >= {minimum}")
    return int(value.__index__())


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``, or refuse it."""
    if value not in choices:
        raise refuse(name, value, "one of " + ", ".join(choices))
    return value
