"""Whether a noisy loss still falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from saddlescope._checks import require_count, require_finite


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The last two windows of a loss, compared."""

    flat: bool
    """Whether the fall from one to the other is below what would count: the larger of twice its error and a
    share of the level. False when there are too few losses, or one is not finite."""
    fall: float
    """Mean of the older window less that of the newer one; NaN when it cannot be told."""
    error: float
    """Standard error of the fall, for losses that scatter independently around each window's mean."""
    level: float
    """Mean of the newer window."""

    @property
    def falls(self) -> bool:
        """Whether a fall was shown."""
        return not self.flat and math.isfinite(self.fall)

    def __str__(self) -> str:
        return "the loss stands still" if self.flat else "the loss falls" if self.falls else "too few losses to tell"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def find_plateau(losses: Sequence[float], *, window: int = 50, least: float = 0.01) -> Plateau:
    """Compare the last ``window`` losses with the ``window`` before.

    ``flat`` is ``fall < max(2 error, least * |level|)``. It says that a fall was not shown, not that there is
    none; what stands still while its curvature says otherwise is for a check to find out.

    Args:
        losses: one a step, the newest last; shape ``(steps,)``.
        window: steps, >= 2.
        least: share of the level that a window must bring to count as falling, >= 0.

    >>> find_plateau([2.3] * 100).flat
    True
    >>> find_plateau([2.3 - 0.01 * step for step in range(100)]).flat
    False
    """
    require_count("window", window, minimum=2)
    require_finite("least", least, minimum=0.0)
    last = np.asarray(losses, dtype=float)[-2 * window :]
    if len(last) < 2 * window or not np.isfinite(last).all():
        return Plateau(flat=False, fall=math.nan, error=math.nan, level=math.nan)
    older, newer = last[:window], last[window:]
    fall = float(older.mean() - newer.mean())
    error = math.sqrt((older.var(ddof=1) + newer.var(ddof=1)) / window)
    level = float(newer.mean())
    return Plateau(flat=fall < max(2 * error, least * abs(level)), fall=fall, error=error, level=level)
