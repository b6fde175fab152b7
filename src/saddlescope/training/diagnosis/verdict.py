"""What a measurement says, in a word and in a sentence."""

from __future__ import annotations

import math

from saddlescope.training.diagnosis.measurement import Measurement

STANDS_STILL = 0.02
"""A loss that falls by a smaller share of itself, per 100 steps, stands still."""
FLAT = 0.05
"""Negative curvature that is a smaller share of the largest is that of the bottom of a valley."""
LEAVES = 0.001
"""Growth a step along a direction that counts as leaving: an e-fold in 1,000 steps."""
EXIT = 0.003
"""Growth a step at which SAM was seen to leave within 500 steps: at 0.0033 it did, at 0.0024 it did not."""
VERDICTS = ("trapped", "slowed", "free", "at_minimum", "undetermined")


def judge_measurement(m: Measurement) -> str:
    """Return the verdict, one of ``VERDICTS``; each says no more than the intervals of the measurement carry.

    - ``"trapped"``: the loss curves down along ``v`` (`curves_down`); SAM is driven back (`holds`); no direction was
      found that it leaves by (`has_exit`); and the loss stood still while it was watched.
    - ``"slowed"``: the loss curves down along ``v``, and SAM leaves along it at less than half the speed of SGD.
    - ``"free"``: it leaves faster, or the loss falls.
    - ``"at_minimum"``: the loss stands still and curves up, but for at most 5% of the largest curvature.
    - ``"undetermined"``: everything else, such as a loss that stands still for want of a gradient.

    What SAM feels is taken from stepping aside. The trap number, which is first order in the radius, may not speak
    against it, but is not enough: with small batches and ReLUs it is too low, with large radii too high.
    """
    if m.status != "complete":
        return "undetermined"
    down, half_speed = curves_down(m), m.plain_curvature.value / 2
    if down and holds(m) and stands_still(m) and not has_exit(m):
        return "trapped"
    if down and m.trap_number.high > 0.5 and m.effective_curvature.low > half_speed:
        return "slowed"
    if falls(m) or (down and m.effective_curvature.high < half_speed):
        return "free"
    small = FLAT * m.lambda_max
    curves_up = not down and m.lambda_max > 0.0 and min(m.lambda_min, m.curvature.low) > -small
    return "at_minimum" if curves_up and stands_still(m) and m.theta < 1.0 else "undetermined"


def curves_down(m: Measurement) -> bool:
    """Whether the loss curves down along ``v``, on batches that ``v`` was not chosen on, so that SGD leaves.

    In the Hessian and, as kinks within reach may curve up, as far as a step aside.
    """
    return m.curvature.high < 0.0 and m.plain_curvature.high < 0.0 and m.growth(m.plain_curvature.value) > LEAVES


def holds(m: Measurement) -> bool:
    """Whether SAM is driven back along ``v`` a step aside, and the trap number does not speak against it."""
    return m.trap_number.high > 0.5 and m.effective_curvature.low > 0.0


def has_exit(m: Measurement) -> bool:
    """Whether a direction was found by which SAM leaves within some 500 steps, by either measure.

    Momentum makes an exit of weak directions: it speeds all growth up by ``1 / (1 - gamma)``.
    """
    return any(m.growth(curvature.high) > EXIT for curvature in (m.escape_curvature, m.escape_effective_curvature))


def stands_still(m: Measurement) -> bool:
    """Whether the loss was watched and shown not to fall by as much as would count."""
    return m.fall.samples > 0 and m.fall.high < STANDS_STILL * abs(m.loss) * m.watched_steps / 100


def falls(m: Measurement) -> bool:
    """Whether the loss was watched and shown to fall by as much as would count."""
    return m.fall.samples > 0 and m.fall.low > STANDS_STILL / 2 * abs(m.loss) * m.watched_steps / 100


def explain_verdict(m: Measurement) -> str:
    """Return in a sentence or two why the verdict is what it is."""
    if m.status != "complete":
        what = "loss" if not math.isfinite(m.loss) else "gradient" if not math.isfinite(m.gradient_norm) else "Hessian"
        return f"The {what} is not finite at these weights: nothing can be measured here."
    motion = (
        f"The loss stands still at {m.loss:.4g}"
        if stands_still(m)
        else f"The loss, {m.loss:.4g}, falls by {m.fall} in {m.watched_steps} steps"
        if falls(m)
        else f"Whether the loss, {m.loss:.4g}, falls was not shown"
    )
    if not curves_down(m):
        if m.lambda_max == 0.0 and m.gradient_norm == 0.0:
            return f"{motion}; gradient and Hessian are zero: nothing reaches the output, as behind dead ReLUs."
        edge = "; the step size is beyond the edge of stability" if m.theta > 1.0 else ""
        aside = f"{m.plain_curvature} a step aside"
        return f"{motion}; no direction is shown along which it curves down ({m.curvature}, {aside}){edge}."
    down = f"{motion}; it curves down ({m.curvature}), and SGD would leave"
    number = f"trap number {m.trap_number}, curvature felt by SAM {m.effective_curvature}"
    if holds(m):
        where = "; another direction lets go" if has_exit(m) else ""
        return f"{down}, but SAM is driven back ({number}){where}."
    speed = f"SAM does {m.slowdown:.2g} times slower" if m.slowdown < math.inf else "it was not shown that SAM does"
    return f"{down}; {'SAM does no slower' if m.slowdown <= 1.0 else speed} ({number})."
