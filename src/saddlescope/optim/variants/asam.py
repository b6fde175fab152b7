"""Adaptive SAM: a perturbation in proportion to each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlescope._checks import require_finite
from saddlescope.optim.perturbations import Perturbation
from saddlescope.optim.variants.variant import Ascent, Variant


@dataclass(frozen=True)
class ASAM(Variant):
    """Adaptive SAM (Kwon et al. 2021, arXiv 2102.11600, eq. 8): the radius is a share of each weight.

        w_p = w + rho T^2 g / ||T g||,    T = |w| + eta,

    and ``T = 1`` for parameters with at most one axis, which are biases. The authors' program goes by names instead and
    treats the scales of norm layers, which have one axis too, as weights; ``biases=True`` treats all alike.
    Their radii are about ten times those of SAM.

    >>> w = torch.tensor([[1.0, 0.0]], requires_grad=True)
    >>> w.backward(torch.tensor([[3.0, 4.0]]))
    >>> from saddlescope.optim import SAM
    >>> with SAM(torch.optim.SGD([w], lr=0.1), rho=0.5, variant=ASAM(eta=1.0)).perturbed():
    ...     print(w.detach())
    tensor([[1.8321, 0.2774]])
    """

    uncapped: ClassVar[str] = "its rule is about a radius in weight space"

    eta: float = 0.01
    """Added to ``|w|``, >= 0, so that weights at zero move too."""
    biases: bool = False
    """``T = |w| + eta`` for parameters of at most one axis as well."""

    def __post_init__(self) -> None:
        require_finite("eta", self.eta, minimum=0.0)

    def ascend(self, ascent: Ascent) -> Perturbation:
        """Move the weights along ``T^2 g``."""
        return ascent.make(weighting=self.size)

    def size(self, parameter: Tensor, entries: Tensor) -> Tensor:
        """Return ``T`` for entries of a parameter."""
        if parameter.dim() <= 1 and not self.biases:
            return torch.ones_like(entries)
        return entries.abs() + self.eta
