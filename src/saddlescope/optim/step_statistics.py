"""What the two gradients of a SAM step tell about the loss between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class StepStatistics:
    """By-products of the two passes; ``e = w_p - w`` is the perturbation that was made, after rounding.

    Nothing is read from the device before a property is. The ratios are NaN without a perturbation (zero
    gradient, ``rho=0``), without a second gradient, and with ``statistics=False``.
    """

    rho_used: float
    """The radius after the cap, the largest one over the parameter groups."""
    norm: Tensor
    """``||g||``, 0-d, on the device."""
    perturbed_norm: Tensor
    """``||g_p||``, 0-d, on the device; NaN where nothing needs it: without statistics, checks, clipping and scaler."""
    slope: Tensor | None = None
    """``<g, e>``, 0-d; None with ``statistics=False``."""
    perturbed_slope: Tensor | None = None
    """``<g_p, e>``, 0-d."""
    length: Tensor | None = None
    """``||e||``, 0-d."""

    @property
    def gradient_norm(self) -> float:
        """``||g||``; of ASAM ``||T g||``, which normalises there, and of Momentum-SAM ``||v||``."""
        return float(self.norm)

    @property
    def perturbed_gradient_norm(self) -> float:
        """``||g_p||``, before any clipping; NaN when the ascent gradient was not finite, or nothing needs the norm."""
        return float(self.perturbed_norm) if math.isfinite(self.gradient_norm) else math.nan

    @property
    def cosine(self) -> float:
        """The cosine of ``e`` and ``g_p``, which is that of ``g`` and ``g_p`` for plain SAM.

        Below zero it proves negative curvature along ``e``, to second order in ``rho``; above, nothing.
        """
        if self.perturbed_slope is None or self.length is None:
            return math.nan
        return _ratio(float(self.perturbed_slope), float(self.length) * self.perturbed_gradient_norm)

    @property
    def rayleigh(self) -> float:
        """``kappa = <g_p - g, e> / ||e||^2``, for plain SAM ``<g_p - g, g> / (rho ||g||)``.

        The Rayleigh quotient of the Hessian along ``e``, averaged over the segment from ``w`` to ``w_p``.
        """
        if self.slope is None or self.perturbed_slope is None or self.length is None:
            return math.nan
        return _ratio(float(self.perturbed_slope) - float(self.slope), float(self.length) ** 2)

    def to_dict(self) -> dict[str, float | None]:
        """Return the numbers, ready for JSON; None where there is none."""
        names = ("gradient_norm", "perturbed_gradient_norm", "cosine", "rayleigh", "rho_used")
        values = {name: getattr(self, name) for name in names}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0.0 else math.nan
