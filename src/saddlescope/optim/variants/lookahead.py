"""Lookahead SAM: the perturbation starts from where gradient descent would go."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescope._checks import require_finite
from saddlescope.optim.perturbations import Perturbation
from saddlescope.optim.variants.variant import Ascent, Variant, ratio


@dataclass(frozen=True)
class LookaheadSAM(Variant):
    """SAM with an extra-gradient step (Yu, Zhang, Kwok, ICML 2024): ``w_p = w + rho g / ||g|| - lookahead g``.

    The step shortens the radius by ``lookahead ||g||``, so that the trap of SAM at a saddle shrinks, and does not go
    away. A radius cap applies to ``rho``.

    >>> from saddlescope.optim import SAM
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> w.backward(torch.tensor([3.0, 4.0]))
    >>> with SAM(torch.optim.SGD([w], lr=0.2), rho=5.0, variant=LookaheadSAM()).perturbed():  # lookahead 0.2
    ...     print(w.detach())
    tensor([3.4000, 5.2000])
    """

    lookahead: float | None = None
    """Length of the extra gradient step, >= 0, in the units of ``lr``; 0 is SAM, None the group's ``lr``."""

    def __post_init__(self) -> None:
        if self.lookahead is not None:
            require_finite("lookahead", self.lookahead, minimum=0.0)

    @torch.no_grad()
    def ascend(self, ascent: Ascent) -> Perturbation:
        """Move the weights along ``(rho / ||g|| - lookahead) g``."""
        gradients, norm = ascent.gradients(), ascent.norm()
        cap = math.inf if ascent.limit is None else ascent.limit(float(norm))
        unit = ratio(torch.ones_like(norm), norm) if ascent.normalized else torch.ones_like(norm)
        directions: dict[Tensor, Tensor] = {}
        for group in ascent.groups:
            length = min(group["rho"], cap) * unit - (group["lr"] if self.lookahead is None else self.lookahead)
            moved = [p for p in group["params"] if p in gradients]
            directions |= {p: gradients[p] * length.to(p.device, gradients[p].dtype) for p in moved}
        whole = dataclasses.replace(
            ascent, groups=[{**group, "rho": 1.0} for group in ascent.groups], normalized=False, limit=None
        )
        radius = max(min(group["rho"], cap) for group in ascent.groups)
        return dataclasses.replace(whole.make(directions), gradient_norm=norm, radius=radius)
