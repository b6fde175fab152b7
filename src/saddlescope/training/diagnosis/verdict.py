"""What a measurement says, in a word and in a sentence."""

from __future__ import annotations

import math

from saddlescope.training.diagnosis.measurement import Measurement

STANDS_STILL = 0.02
"""A loss that falls by a smaller share of itself, per 100 steps, stands still."""
FLAT = 0.05
"""Negative curvature that is a smaller share of the largest is that of the bottom of a valley."""
NOTHING_LEFT = 0.001
"""The share of the loss of a model that knows nothing below which no more than that can be gained."""
VERDICTS = ("trapped", "slowed", "free", "at_minimum", "undetermined")


def judge_measurement(m: Measurement) -> str:
    """Return the verdict, one of ``VERDICTS``; each says no more than the intervals of the measurement carry.

    - ``"trapped"``: the loss curves down along ``v`` (`Measurement.curves_down`); SAM is driven back
      (`Measurement.holds`); the intervals leave no room for another direction that it leaves by
      (`Measurement.may_exit`); and the loss stood still while it was watched.
    - ``"slowed"``: the loss curves down along ``v``, and SAM leaves along it at less than half the speed of SGD.
    - ``"free"``: it leaves faster, or the loss falls.
    - ``"at_minimum"``: the loss stands still, or nothing is left of it (`nothing_left`), and it curves up, but for at
      most 5% of the largest curvature.
    - ``"undetermined"``: everything else, such as a loss that stands still for want of a gradient.

    What SAM feels is taken from stepping aside. The trap number, which is first order in the radius, may not speak
    against it, but is not enough: with small batches and ReLUs it is too low, with large radii too high.
    """
    if m.status != "complete" or m.diverged:
        return "undetermined"
    down, half_speed = m.curves_down, m.plain_curvature.value / 2
    if down and m.holds and stands_still(m) and not m.may_exit:
        return "trapped"
    if down and m.trap_number.high > 0.5 and m.effective_curvature.low > half_speed:
        return "slowed"
    small = FLAT * m.lambda_max
    curves_up = not down and m.lambda_max > 0.0 and min(m.lambda_min, m.curvature.low) > -small
    if curves_up and m.theta < 1.0 and (stands_still(m) or nothing_left(m)):
        return "at_minimum"
    if falls(m) or (down and m.effective_curvature.high < half_speed):
        return "free"
    return "undetermined"


def stands_still(m: Measurement) -> bool:
    """Whether the loss was watched and shown not to fall by as much as would count."""
    return m.fall.samples > 0 and m.fall.high < STANDS_STILL * abs(m.loss) * m.watched_steps / 100


def nothing_left(m: Measurement) -> bool:
    """Whether the loss, of which none is below zero, is next to nothing beside that of a model with zero weights.

    Cross-entropy on data that can be separated has its minimum at infinity: the loss falls like ``1 / t`` for ever,
    and so by the same share of itself in every doubling of the training, whatever is left to gain.
    """
    return 0.0 <= m.loss < NOTHING_LEFT * m.zero_loss


def falls(m: Measurement) -> bool:
    """Whether the loss was watched and shown to fall by as much as would count."""
    return m.fall.samples > 0 and m.fall.low > STANDS_STILL / 2 * abs(m.loss) * m.watched_steps / 100


def explain_verdict(m: Measurement) -> str:
    """Return in a sentence or two why the verdict is what it is."""
    if m.status != "complete":
        what = "loss" if not math.isfinite(m.loss) else "gradient" if not math.isfinite(m.gradient_norm) else "Hessian"
        return f"The {what} is not finite at these weights: nothing can be measured here."
    if m.diverged:
        return f"The loss, {m.loss:.4g}, grows without bounds in the next steps: the step size is too large."
    motion = (
        f"The loss stands still at {m.loss:.4g}"
        if stands_still(m)
        else f"The loss, {m.loss:.4g}, falls by {m.fall} in {m.watched_steps} steps"
        if falls(m)
        else f"Whether the loss, {m.loss:.4g}, falls was not shown"
    )
    if not m.curves_down:
        if m.lambda_max == 0.0 and m.gradient_norm == 0.0:
            return f"{motion}; gradient and Hessian are zero: nothing reaches the output, as behind dead ReLUs."
        if nothing_left(m):
            motion += ", and next to nothing of it is left"
        edge = "; the step size is beyond the edge of stability" if m.theta > 1.0 else ""
        aside = f"{m.plain_curvature} a step aside"
        return f"{motion}; no direction is shown along which it curves down ({m.curvature}, {aside}){edge}."
    down = f"{motion}; it curves down ({m.curvature}), and SGD would leave"
    number = f"trap number {m.trap_number}, curvature felt by SAM {m.effective_curvature}"
    if m.holds:
        lets_go = "lets go" if m.has_exit else "may let go" if m.may_exit else ""
        where = f"; another direction {lets_go}" if lets_go else ""
        return f"{down}, but SAM is driven back ({number}){where}."
    speed = f"SAM does {m.slowdown:.2g} times slower" if m.slowdown < math.inf else "it was not shown that SAM does"
    return f"{down}; {'SAM does no slower' if m.slowdown <= 1.0 else speed} ({number})."
