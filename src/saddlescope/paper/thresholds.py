"""Where, along one parameter, an outcome begins."""

from __future__ import annotations

from collections.abc import Callable


def bisect_threshold(happens: Callable[[float], bool], low: float, high: float, *, relative: float = 1e-5) -> float:
    """Return the parameter where ``happens`` turns from false to true, to a relative width of ``relative``.

    An outcome that is already there at ``low``, or is not yet there at ``high``, gives that end.

    >>> round(bisect_threshold(lambda x: x * x > 2, 0.5, 4.0), 4)
    1.4142
    """
    if happens(low):
        return low
    if not happens(high):
        return high
    while high - low > relative * high:
        middle = (low + high) / 2
        low, high = (low, middle) if happens(middle) else (middle, high)
    return (low + high) / 2
