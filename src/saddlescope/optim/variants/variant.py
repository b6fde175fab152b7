"""What a variant of SAM may do differently: along what it ascends, and what becomes of the second gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlescope.optim.gradients import gradient_norm, gradient_of, wide
from saddlescope.optim.perturbations import Perturbation, Weighting, perturb
from saddlescope.optim.snapshot import Snapshot
from saddlescope.optim.step_statistics import StepStatistics
from saddlescope.optim.variants.memory import Memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Ascent:
    """An ascent step about to be made, with everything that a variant may want to know for it."""

    groups: Sequence[Mapping[str, Any]]
    """Parameter groups with a ``rho``."""
    weights: Snapshot
    """Where the weights are kept."""
    base: Optimizer
    memory: Memory
    normalized: bool = True
    statistics: bool = True
    limit: Callable[[float], float] | None = None
    """That of a radius cap: from the gradient norm to the largest radius allowed."""
    scale: Tensor | None = None
    """That of a gradient scaler, 0-d."""
    keep_gradients: bool = True
    """Whether the gradients may be needed after the ascent."""

    def gradients(self) -> dict[Tensor, Tensor]:
        """Return the gradients as dense real tensors in at least float32, without the scale of a scaler."""
        parameters = [p for group in self.groups for p in group["params"] if p.grad is not None]
        return {p: self._unscaled(gradient_of(p)) for p in parameters}

    def norm(self) -> Tensor:
        """Return ``||g||``, 0-d."""
        return gradient_norm([p for group in self.groups for p in group["params"]], self.scale)

    def make(
        self, directions: Mapping[Tensor, Tensor] | None = None, *, weighting: Weighting | None = None
    ) -> Perturbation:
        """Move the weights along the gradients or these directions; see `perturb`."""
        return perturb(
            self.groups,
            self.weights,
            normalized=self.normalized,
            weighting=weighting,
            directions=directions,
            statistics=self.statistics,
            limit=self.limit,
            scale=self.scale,
            keep_gradients=self.keep_gradients,
        )

    def _unscaled(self, gradient: Tensor) -> Tensor:
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        gradient = gradient.to(wide(gradient.dtype))
        return gradient if self.scale is None else gradient / self.scale.to(gradient.device)


@dataclass(frozen=True)
class Variant:
    """SAM itself, as what its variants start from: settings only, so that one may serve several optimizers."""

    needs_gradient: ClassVar[bool] = True
    """Whether the ascent needs the gradient at ``w``, which costs a pass."""
    needs_second_norm: ClassVar[bool] = False
    """Whether `finish` needs the norm of the second gradient."""
    uncapped: ClassVar[str] = ""
    """Why there can be no radius cap; empty if there can."""
    synchronized: ClassVar[str] = ""
    """Why ranks cannot ascend each along its own gradient; empty if they can."""

    def check(self, base: Optimizer) -> None:
        """Refuse a base that the variant cannot work with."""

    def ascend(self, ascent: Ascent) -> Perturbation:
        """Move the weights to ``w_p``."""
        return ascent.make()

    def finish(self, gradients: list[Tensor], statistics: StepStatistics) -> Tensor:
        """Change the gradients of the second pass in place, if need be, and return their norm, 0-d.

        Args:
            gradients: as the parameters have them, with the scale of a scaler.
            statistics: of the two passes; its norms are without.
        """
        return statistics.perturbed_norm


def along(ascent: Ascent, directions: Mapping[Tensor, Tensor]) -> Perturbation:
    """Make the ascent along directions made of gradients, and report the norm of the gradient, not theirs."""
    return dataclasses.replace(ascent.make(directions), gradient_norm=ascent.norm())


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return ``above / below`` for 0-d tensors, and 0 where ``below`` is 0.

    >>> ratio(torch.tensor(3.0), torch.tensor(2.0)), ratio(torch.tensor(3.0), torch.tensor(0.0))
    (tensor(1.5000), tensor(0.))
    """
    above = above.to(below.device)
    return torch.where(below == 0.0, torch.zeros_like(below), above / below)
