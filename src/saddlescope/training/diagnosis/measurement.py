"""All that a verdict and an advice rest on: where a model stands, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings

LEAVES = 0.001
"""Growth a step by which SGD counts as leaving: two e-folds in 2,000 steps."""
EXIT = 0.003
"""Growth a step that makes an exit of a direction: six e-folds in 2,000 steps take SAM out of the noise."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Where a model stands, in numbers. ``v`` is the direction of most negative curvature that was found."""

    status: str
    """``"complete"``, or ``"not finite"``: loss, gradient or a Hessian product was not, and what follows is NaN."""
    settings: OptimizerSettings
    loss: float
    """Mean loss of the curvature samples."""
    zero_loss: float
    """The same with all weights zero, of a model that knows nothing; NaN where it is not finite."""
    gradient_norm: float
    """Norm of their mean gradient."""
    batch_gradient_norm: float
    """Mean of ``|g_B|`` over batches of the training's size."""
    lambda_min: float
    """Smallest Ritz value of the Hessian on the curvature samples; no eigenvalue there is above it."""
    lambda_max: float
    residual_min: float
    """``|H v - lambda_min v|``."""
    residual_max: float
    curvature: Estimate
    """``E[v.H_B v]`` over other batches than ``v`` was chosen on."""
    trap_number: Estimate
    """``tau`` along ``v``; NaN where the curvature is not negative."""
    micro_trap_number: Estimate
    """The same if each quarter of a batch climbs along its own gradient."""
    predicted_curvature: Estimate
    """What SAM feels along ``v`` to first order: ``curvature (1 - tau)``, less what normalising takes off."""
    effective_curvature: Estimate
    """What SAM feels along ``v``, by stepping aside."""
    plain_curvature: Estimate
    """What SGD feels along ``v``, by stepping aside as far. With ReLUs it may be positive where the Hessian says
    negative: kinks within reach curve up, and no derivative at the point sees them."""
    escape_curvature: Estimate
    """The least effective curvature in the plane of several directions of negative curvature, to first order."""
    escape_effective_curvature: Estimate
    """The same by stepping aside along the direction that was chosen."""
    escape_plain_curvature: Estimate
    """What SGD feels there."""
    directions: int
    """How many directions of negative curvature the plane holds."""
    fall: Estimate
    """By how much the loss of the curvature samples falls over the next ``watched_steps`` of this training."""
    watched_steps: int
    cosine: float
    """Mean cosine of SAM's two gradients over these steps."""
    hessian_products: int
    """On curvature samples and on batches, together."""

    @property
    def diverged(self) -> bool:
        """Whether the loss was watched and rose by all that it was, or is without knowledge, or was not finite."""
        return self.watched_steps > 0 and not self.fall.value >= -max(abs(self.loss), self.zero_loss)

    @property
    def curves_down(self) -> bool:
        """Whether the loss curves down along ``v``, on batches that ``v`` was not chosen on, so that SGD leaves.

        In the Hessian and, as kinks within reach may curve up, as far as a step aside.
        """
        down = self.curvature.high < 0.0 and self.plain_curvature.high < 0.0
        return down and self.growth(self.plain_curvature.value) > LEAVES

    @property
    def holds(self) -> bool:
        """Whether SAM is driven back along ``v`` a step aside, and the trap number does not speak against it."""
        return self.trap_number.high > 0.5 and self.effective_curvature.low > 0.0

    @property
    def has_exit(self) -> bool:
        """Whether a direction was shown to be one by which SAM leaves, by either measure.

        Momentum makes an exit of weak directions: it speeds all growth up by ``1 / (1 - gamma)``.
        """
        return any(self.growth(exit_.high) > EXIT for exit_ in self._exits)

    @property
    def may_exit(self) -> bool:
        """Whether the intervals leave room for such a direction."""
        return any(self.growth(exit_.low) > EXIT for exit_ in self._exits)

    @property
    def open(self) -> bool:
        """Whether an interval that the verdict rests on spans its threshold, so that more batches may tell.

        Where the loss curves down: the trap number spans 1, or what SAM feels along ``v`` spans 0, or, where it is
        driven back, the growth by the best exit spans that of leaving.
        """
        if not self.curves_down or self.settings.rho == 0.0:
            return False
        if self.trap_number.spans(1.0) or self.effective_curvature.spans(0.0):
            return True
        return self.holds and self.may_exit and not self.has_exit

    @property
    def _exits(self) -> tuple[Estimate, Estimate]:
        return self.escape_curvature, self.escape_effective_curvature

    @property
    def theta(self) -> float:
        """``eta lambda_max / (2 (1 + gamma))``: 1 at the edge of stability of gradient descent."""
        return self.settings.lr * self.lambda_max / (2 * (1 + self.settings.momentum))

    @property
    def full_batch_window(self) -> bool:
        """Whether full-batch SAM can be held at all: ``|lambda_min| / lambda_max > theta / (1 - theta)``.

        On a full batch SAM bounces along the top eigenvector of the Hessian with ``|g| = rho lambda_max theta / (1 -
        theta)`` on average, which is what lets go of a weak direction at a large step: at the edge of stability no
        saddle holds. Derived for ``gamma = 0`` and one dominant direction; noise of minibatches changes ``|g|``.
        """
        return self.theta < 1.0 and -self.lambda_min > self.lambda_max * self.theta / (1.0 - self.theta)

    @property
    def predicted_slowdown(self) -> float:
        """``1 / (1 - tau)``, infinite from ``tau = 1`` on; NaN without negative curvature."""
        number = self.trap_number.value
        return math.inf if number >= 1.0 else 1.0 / (1.0 - number)

    @property
    def critical_rho(self) -> float:
        """The radius at which ``tau = 1``; NaN without negative curvature or without SAM."""
        number = self.trap_number.value
        return self.settings.rho / number if number > 0.0 else math.nan

    @property
    def slowdown(self) -> float:
        """How many times slower than SGD SAM leaves along ``v``, by stepping aside; infinite where it is driven back.

        NaN where SGD does not leave either.
        """
        plain, felt = self.plain_curvature.value, self.effective_curvature.value
        if not plain < 0.0:
            return math.nan
        return plain / felt if felt < 0.0 else math.inf

    def growth(self, curvature: float) -> float:
        """Return the growth rate a step, ``log z``, along a direction that is felt as so curved; negative: decay.

        ``z`` is the larger root of the heavy ball's ``z^2 - (1 + gamma - eta lam) z + gamma = 0``; for small steps
        ``log z = -eta lam / (1 - gamma)``, which is what is returned for decay.
        """
        step, momentum = self.settings.lr * curvature, self.settings.momentum
        if not step < 0.0:
            return -step / (1 - momentum)
        half = (1 + momentum - step) / 2
        return math.log(half + math.sqrt(half**2 - momentum))

    @property
    def sgd_steps(self) -> float:
        """Steps in which SGD grows e-fold along ``v``, by the Hessian; NaN without negative curvature."""
        return 1 / self.growth(self.curvature.value) if self.curvature.value < 0.0 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON; what is not finite becomes None."""
        names = [f.name for f in fields(self)]
        names += ["theta", "full_batch_window", "predicted_slowdown", "slowdown", "critical_rho", "sgd_steps", "open"]
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate | OptimizerSettings):
        return value.to_dict()
    return None if isinstance(value, float) and not math.isfinite(value) else value
