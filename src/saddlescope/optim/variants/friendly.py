"""Friendly-SAM: the ascent is along what is new in the gradient."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from saddlescope._checks import refuse, require_finite
from saddlescope.optim.perturbations import Perturbation
from saddlescope.optim.variants.variant import Ascent, Variant, along


@dataclass(frozen=True)
class FriendlySAM(Variant):
    """Friendly-SAM (Li et al. 2024, arXiv 2403.12350): ascend against the running mean of the gradients.

        m <- decay m + (1 - decay) g,    w_p = w + rho d / ||d||,    d = g - sigma m.

    The mean gradient, which is what SAM turns around at a saddle, drops out of the ascent, and what is left is the
    noise of the minibatch. The mean starts at zero. Extra memory: two copies of the weights, and one while the
    weights are away.

    >>> from saddlescope.optim import SAM
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> opt = SAM(torch.optim.SGD([w], lr=0.0), rho=5.0, variant=FriendlySAM(sigma=2.0, decay=0.5))
    >>> w.backward(torch.tensor([2.0, 0.0]))
    >>> opt.first_step(zero_grad=True)  # d = g - 2 m = 0
    >>> w.backward(torch.tensor([2.0, 0.0]))
    >>> opt.second_step(zero_grad=True)
    >>> w.backward(torch.tensor([0.0, 3.0]))
    >>> with opt.perturbed():  # m = (0.5, 1.5), d = (-1, 0)
    ...     print(w.detach())
    tensor([-4.,  2.])
    """

    uncapped: ClassVar[str] = "its rule is about an ascent along the gradient"

    sigma: float = 1.0
    """How much of the mean is taken away; 0 is SAM."""
    decay: float = 0.9
    """Weight of the past in the mean, in [0, 1)."""

    def __post_init__(self) -> None:
        require_finite("sigma", self.sigma)
        if require_finite("decay", self.decay, minimum=0.0) >= 1.0:
            raise refuse("decay", self.decay, "a number in [0, 1)")

    @torch.no_grad()
    def ascend(self, ascent: Ascent) -> Perturbation:
        """Move the weights along ``g - sigma m``."""
        gradients = ascent.gradients()
        means = ascent.memory.propose(gradients, 1.0 - self.decay)
        return along(ascent, {p: torch.sub(g, means[p], alpha=self.sigma) for p, g in gradients.items()})
