"""The way from ``w`` to ``w_p`` and back, with all that must survive a fault or a checkpoint on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import refuse
from saddlescope.optim.perturbations import Perturbation
from saddlescope.optim.radius_cap import RadiusCap, RadiusCapState
from saddlescope.optim.snapshot import Snapshot
from saddlescope.optim.step_statistics import StepStatistics
from saddlescope.optim.variants.memory import Memory
from saddlescope.optim.variants.schedules import Progress, Schedule
from saddlescope.optim.variants.variant import Ascent, Variant


class Excursion:
    """The excursions of one optimizer's weights, one a step, and what is remembered from each to the next.

    Args:
        variant: knows the way.
        schedule: knows the steps without one.
        radius_cap: None for no limit to the radius.
    """

    def __init__(self, variant: Variant, schedule: Schedule, radius_cap: RadiusCap | None) -> None:
        self.weights = Snapshot()
        """The weights to come back to."""
        self.progress = Progress(schedule)
        self.cap = None if radius_cap is None else RadiusCapState(radius_cap)
        self._variant = variant
        self._memory = Memory()
        self._made: Perturbation | None = None

    @property
    def under_way(self) -> bool:
        """Whether one has begun and not ended, even if it led nowhere."""
        return self._made is not None

    @property
    def needs_gradient(self) -> bool:
        """Whether the next one needs the gradient at ``w``."""
        return self._variant.needs_gradient and self.progress.perturbs

    def prepare(self, method: str) -> None:
        """Refuse to begin one before the end of another; drop what a step has left behind that failed or was none."""
        if self.under_way:
            raise refuse(method, "weights moved by first_step()", "weights at rest", "call second_step() first")
        self._memory.forget()

    def leave(self, groups: Sequence[Mapping[str, Any]], *, stay_finite: bool = False, **ascent: Any) -> None:
        """Move the weights to ``w_p``, or nowhere in a step of the base alone.

        Args:
            groups: the parameter groups.
            stay_finite: read the norm of the gradient, and do not move along one that is not finite.
            ascent: the other fields of `Ascent`.
        """
        if not self.progress.perturbs:
            zero = torch.zeros((), device=groups[0]["params"][0].device)
            self._made = Perturbation(weights=Snapshot(), gradient_norm=zero, radius=0.0, slope=None)
            return
        limit = None if self.cap is None else self.cap.limit
        try:
            self._made = self._variant.ascend(
                Ascent(groups=groups, weights=self.weights, memory=self._memory, limit=limit, **ascent)
            )
            if stay_finite and not math.isfinite(float(self._made.gradient_norm)):
                self.weights.put_back()
        except BaseException:
            self.give_up()
            raise

    def come_back(self, parameters: Sequence[Tensor], scale: Tensor | None, *, norm: bool) -> StepStatistics:
        """Put the weights back, given their gradients at ``w_p``, and tell what they say; see `Perturbation`."""
        assert self._made is not None
        try:
            statistics = self._made.measure_and_restore(parameters, scale, norm=norm)
        finally:
            self.give_up()
        if self.cap is not None:
            self.cap.learn(statistics)
        if not self.progress.perturbs:
            return dataclasses.replace(statistics, norm=statistics.perturbed_norm)  # the only one there is
        return statistics

    def finish(self, gradients: list[Tensor], statistics: StepStatistics) -> Tensor:
        """Make of the gradients at ``w_p`` those to step with, in place, and return their norm, 0-d."""
        return self._variant.finish(gradients, statistics) if self.progress.perturbs else statistics.perturbed_norm

    def give_up(self) -> None:
        """Put the weights back, if they are away: an interrupt may come at any moment."""
        try:
            self.weights.put_back()
        finally:
            self._made = None

    def settle(self, skipped: Tensor | int, loss: Tensor | None) -> None:
        """Remember what the step has brought, unless it was skipped, and go on to the next."""
        self._memory.settle(skipped)
        self.progress.advance(loss)

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """Return what to resume from, by position among the optimizer's ``parameters``."""
        if self._made is None:
            self._memory.forget()
        return {
            "variant": type(self._variant).__name__,
            "perturbation": None if self._made is None else self._made.state_dict(parameters),
            "memory": self._memory.state_dict(parameters),
            "progress": self.progress.state_dict(),
            "radius_cap": None if self.cap is None else self.cap.state_dict(),
        }

    def require_like(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of an optimizer made otherwise."""
        mine, other = type(self._variant).__name__, state["variant"]
        if (state["radius_cap"] is None) != (self.cap is None):
            raise refuse("state_dict", "a radius cap on one side only", "the same on both", "set radius_cap alike")
        if mine != other:
            raise refuse("state_dict", f"that of variant {other}", f"that of variant {mine}", "set variant alike")

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self.give_up()
        self._memory.load_state_dict(state["memory"], parameters)
        self.progress.load_state_dict(state["progress"])
        if self.cap is not None:
            self.cap.load_state_dict(state["radius_cap"])
        if state["perturbation"] is not None:
            self._made = Perturbation.from_state_dict(state["perturbation"], parameters, self.weights)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out memory that is not in use."""
        return vars(self) if self.under_way else {**vars(self), "weights": Snapshot()}
