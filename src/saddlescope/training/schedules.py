"""How the step size changes over a training run, as factors of its first value."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(progress: float) -> float:
    """Return 1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """Return ``(1 + cos(pi t)) / 2`` at a fraction ``t`` of the run (Loshchilov and Hutter 2017, without restarts).

    >>> [round(cosine(t), 2) for t in (0.0, 0.5, 0.75)]
    [1.0, 0.5, 0.15]
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def step(progress: float) -> float:
    """Return 1, from half of the run on 1/10, from three quarters on 1/100 (He et al. 2016, section 4.2).

    >>> [step(t) for t in (0.49, 0.5, 0.75)]
    [1.0, 0.1, 0.01]
    """
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "step": step}
"""Factors of the step size by name, each of the fraction of the run that is over, in [0, 1)."""


def factor(schedule: str, step: int, steps: int, warmup: int = 0) -> float:
    """Return the factor of the step size in a step, counted from 0, of a run of so many.

    The first ``warmup`` steps rise linearly to the schedule: ``(step + 1) / (warmup + 1)`` of it.

    >>> [factor("constant", t, 4, warmup=3) for t in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    return SCHEDULES[schedule](step / steps) * min(1.0, (step + 1) / (warmup + 1))
