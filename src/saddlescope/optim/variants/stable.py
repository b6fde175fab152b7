"""Stable SAM: the direction of SAM with the length of the gradient."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saddlescope.optim.step_statistics import StepStatistics
from saddlescope.optim.variants.variant import Variant, ratio


@dataclass(frozen=True)
class StableSAM(Variant):
    """Stable SAM (Tan et al., arXiv 2401.07250): the base steps with ``g_p ||g|| / ||g_p||``.

    ``w_p`` is SAM's, and so is every direction it holds; only lengths change. No step where ``g_p`` is zero.

    >>> from saddlescope.optim import SAM
    >>> w = torch.tensor([0.5], requires_grad=True)
    >>> opt = SAM(torch.optim.SGD([w], lr=0.1), rho=1.0, variant=StableSAM())
    >>> (-w.square().sum()).backward()  # g = -1
    >>> opt.first_step(zero_grad=True)
    >>> (-w.square().sum()).backward()  # g_p = 1
    >>> opt.second_step()
    >>> w.detach()
    tensor([0.4000])
    """

    needs_second_norm: ClassVar[bool] = True
    synchronized: ClassVar[str] = "the length of a step must be the same on all ranks"

    @torch.no_grad()
    def finish(self, gradients: list[Tensor], statistics: StepStatistics) -> Tensor:
        """Give the second gradient the length of the first."""
        factor = ratio(statistics.norm, statistics.perturbed_norm)
        if gradients:
            torch._foreach_mul_(gradients, [factor.to(g.device) for g in gradients])
        return factor * statistics.perturbed_norm
