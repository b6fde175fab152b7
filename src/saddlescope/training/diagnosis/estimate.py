"""A number estimated from several batches, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.975
"""One-sided, so that ``low`` and ``high`` bound a 95% interval."""


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error; ``low`` and ``high`` bound the 95% interval of Student's t.

    >>> Estimate.mean([1.0, 2.0, 3.0])
    Estimate(value=2.0, error=0.577..., samples=3)
    """

    value: float
    error: float
    """Standard error; NaN where a single sample cannot tell."""
    samples: int

    @classmethod
    def mean(cls, values: Any) -> Estimate:
        """Return the mean of independent values, shape ``(m,)``."""
        values = np.asarray(values, dtype=float)
        error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()) if len(values) else math.nan, error, len(values))

    @classmethod
    def jackknife(cls, statistic: Callable[[np.ndarray], float], samples: int) -> Estimate:
        """Return a statistic of all samples, its error from leaving out one at a time (Efron and Stein 1981).

        Args:
            statistic: takes the indices of samples, shape ``(k,)``.
            samples: number of them.

        >>> numbers = np.array([1.0, 2.0, 3.0])
        >>> Estimate.jackknife(lambda i: numbers[i].mean(), 3)
        Estimate(value=2.0, error=0.577..., samples=3)
        """
        every = np.arange(samples)
        value = float(statistic(every))
        if samples < 2:
            return cls(value, math.nan, samples)
        left_out = np.array([statistic(np.delete(every, i)) for i in every])
        return cls(value, math.sqrt((samples - 1) * float(left_out.var())), samples)

    @property
    def low(self) -> float:
        """Lower end of the interval; minus infinity for a single sample."""
        return self.value - self._reach

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self._reach

    def spans(self, threshold: float) -> bool:
        """Whether the interval holds a threshold, so that it does not tell on which side the value is.

        >>> Estimate.mean([1.0, 2.0, 3.0]).spans(0.0), Estimate.mean([1.0, 2.0, 3.0]).spans(5.0)
        (True, False)
        """
        return self.low <= threshold <= self.high

    @property
    def _reach(self) -> float:
        return float(stdtrit(self.samples - 1, CONFIDENCE)) * self.error if self.samples > 1 else math.inf

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.error:.2g}"

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields, ready for JSON; what is not finite becomes None."""
        numbers = {"value": self.value, "error": self.error}
        return {**{k: v if math.isfinite(v) else None for k, v in numbers.items()}, "samples": self.samples}
