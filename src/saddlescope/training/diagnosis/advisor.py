"""What to change in a training that SAM holds up, and what that is predicted to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.diagnosis.verdict import falls, judge_measurement

FRACTION = 0.5
"""The trap number that a smaller radius leaves."""
CAP = 0.15
"""That of a `RadiusCap`, which leaves about twice as large a trap number."""
E_FOLDS = 5
"""Of growth along ``v`` that a warm start waits for: a factor of 150."""


@dataclass(frozen=True)
class Change:
    """One change of settings."""

    change: str
    """Which setting: ``"rho"``, ``"cap"``, ``"variant"``, ``"warm_start"``, ``"micro_batch"`` or ``"lr"``."""
    before: Any
    after: Any
    because: str
    predicted: str
    """What the measurement predicts; a number where the theory gives one."""
    settings: OptimizerSettings
    """With the change made."""

    def to_dict(self) -> dict[str, Any]:
        """Return what to change, from what, to what, and why, ready for JSON."""
        numbers = {"change": self.change, "from": self.before, "to": self.after}
        return {**numbers, "because": self.because, "predicted": self.predicted}


@dataclass(frozen=True)
class Advice:
    """Changes, the most promising first."""

    changes: tuple[Change, ...]
    reason: str
    """Why there is advice, or why there is none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the advice, ready for JSON."""
        return {"changes": [change.to_dict() for change in self.changes], "reason": self.reason}


def advise(measurement: Measurement) -> Advice:
    """Turn a measurement into changes, the most promising first; none where it does not carry any.

    A trapped or slowed SAM is let go by what takes the trap number below 1: an ascent that is not along the
    gradient, a smaller radius, one that is capped where the loss curves down, or a start without SAM. The order is
    that of how soon they got stuck networks below half of chance level, see ``benchmarks/ground_truth.py``.

    Args:
        measurement: from `measure`.
    """
    m, verdict = measurement, judge_measurement(measurement)
    if verdict in ("trapped", "slowed") and m.settings.rho > 0.0 and m.settings.variant == "sam":
        return Advice(tuple(_letting_go(m)), f"SAM holds the run up: {verdict}.")
    if m.status == "complete" and m.theta > 1.0 and not falls(m):
        return Advice((_smaller_step(m),), "The step size is beyond the edge of stability, and the loss does not fall.")
    reasons = {
        "free": "SAM does not hold the run up.",
        "at_minimum": "The run is at a minimum, as far as its curvature tells.",
        "undetermined": "The measurement does not say what holds the run up: more samples, products or steps may.",
    }
    return Advice((), reasons.get(verdict, "The trap number is about plain SAM with a radius above 0."))


def _letting_go(m: Measurement) -> Iterator[Change]:
    s, tau = m.settings, m.trap_number
    e_fold = f"an e-fold along v in {m.sgd_steps:.0f} steps"
    held = f"SAM's ascent along the gradient turns the escape around (trap number {tau})"
    momentum = s.momentum or 0.9
    fast = replace(s, variant="momentum-sam", momentum=momentum, cap=None)
    e_fold_then = 1 / replace(m, settings=fast).growth(m.curvature.value)
    with_momentum = "" if s.momentum else f" and momentum {momentum}"
    yield Change(
        "variant",
        s.variant,
        "momentum-sam" + with_momentum,
        f"{held}; Momentum-SAM climbs along the motion instead, for one gradient a step",
        f"no slow-down: an e-fold along v in {e_fold_then:.0f} steps or fewer, as the gradient is taken further along",
        fast,
    )
    if s.cap is None:
        yield Change(
            "cap",
            None,
            CAP,
            f"{held}; the cap keeps it near {2 * CAP:.2g}, at no cost",
            f"slow-down about {1 / (1 - 2 * CAP):.2g}: {e_fold} for SGD; the radius stays small while it is set",
            replace(s, cap=CAP, micro_batch=None),
        )
    small = FRACTION * m.critical_rho
    yield Change(
        "rho",
        s.rho,
        float(f"{small:.2g}"),
        f"a radius above {m.critical_rho:.2g} is driven back to this saddle",
        f"slow-down {1 / (1 - FRACTION):.2g}: {e_fold} for SGD; less of SAM's effect for good",
        replace(s, rho=float(f"{small:.2g}")),
    )
    wait = math.ceil(E_FOLDS * m.sgd_steps)
    yield Change(
        "warm_start",
        s.warm_start,
        wait,
        f"SGD is not held: {e_fold}",
        f"{E_FOLDS} e-folds along v within {wait} steps; SAM begins after",
        replace(s, warm_start=wait),
    )
    micro = m.micro_trap_number
    if micro.high < 1.0:
        size = s.batch_size // 4
        yield Change(
            "micro_batch",
            s.micro_batch or s.batch_size,
            size,
            f"each quarter of a batch has a longer gradient: trap number {micro}",
            f"slow-down {1 / (1 - micro.value):.2g}",
            replace(s, micro_batch=size, cap=None),
        )


def _smaller_step(m: Measurement) -> Change:
    lr = float(f"{m.settings.lr / (2 * m.theta):.2g}")
    return Change(
        "lr",
        m.settings.lr,
        lr,
        f"lr lambda_max / (2 (1 + momentum)) is {m.theta:.2g}: above 1 descent diverges along the top eigenvector",
        "half of the edge of stability at these weights",
        replace(m.settings, lr=lr),
    )
