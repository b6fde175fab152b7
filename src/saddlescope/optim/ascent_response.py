"""How strongly the gradient changes along SAM's ascent, from the two passes alone."""

from __future__ import annotations

import math

import torch

from saddlescope.optim.step_statistics import StepStatistics

ROUND_OFF = 1e-5
"""Share of a squared length in float32 that means nothing."""


def ascent_response(step: StepStatistics) -> float:
    """Return ``||g_p - g|| / ||e||``, to first order ``||H_B e|| / ||e||``; NaN where the step cannot tell.

    With the parts of both gradients along ``e``, ``a = <g, e> / ||e||`` and ``b = <g_p, e> / ||e||``, it is
    ``sqrt((b - a)^2 + (||g_p||^2 - b^2)) / ||e||`` where ``e`` is along ``g``. Where it is not, as with a radius for
    each parameter group, the parts across ``e`` have an unknown angle, and this is the largest change they allow.
    Reads the five numbers of the step from the device at once.

    >>> g, g_p = torch.tensor([3.0, 4.0]), torch.tensor([5.0, 8.0])
    >>> e = 0.1 * g
    >>> of_e = {"slope": g @ e, "perturbed_slope": g_p @ e, "length": e.norm()}
    >>> step = StepStatistics(rho_used=0.5, norm=g.norm(), perturbed_norm=g_p.norm(), **of_e)
    >>> round(ascent_response(step), 3), round(float((g_p - g).norm() / e.norm()), 3)
    (8.944, 8.944)
    """
    if step.slope is None or step.perturbed_slope is None or step.length is None:
        return math.nan
    numbers = (step.norm, step.perturbed_norm, step.slope, step.perturbed_slope, step.length)
    norm, perturbed_norm, slope, perturbed_slope, length = torch.stack([n.to(step.norm) for n in numbers]).tolist()
    if not (0.0 < length < math.inf) or not math.isfinite(norm + perturbed_norm):
        return math.nan
    a, b = slope / length, perturbed_slope / length
    beside = norm**2 - a**2
    across = math.sqrt(max(perturbed_norm**2 - b**2, 0.0))
    if beside > ROUND_OFF * norm**2:  # else e is along g
        across += math.sqrt(beside)
    return math.hypot(b - a, across) / length
