"""Momentum-SAM: the base's momentum in place of a second gradient."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlescope._checks import refuse
from saddlescope.optim.perturbations import Perturbation
from saddlescope.optim.variants.variant import Ascent, Variant

BUFFERS = ("momentum_buffer", "exp_avg")
"""Names of the momentum in the state of torch's optimizers."""


@dataclass(frozen=True)
class MomentumSAM(Variant):
    """Momentum-SAM (Becker et al., arXiv 2401.12033): one gradient a step, taken ahead along the motion.

        w_p = w - rho v / ||v||

    with ``v`` the momentum that the base has before the step (with Adam its first moment), and none at rest. A step
    costs one pass: the closure runs once, at ``w_p``, where the loss it returns is taken. Of ``last_step``,
    ``gradient_norm`` is ``||v||``, and ``rayleigh`` is NaN, as there is no gradient at ``w``.

    >>> from saddlescope.optim import SAM
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> opt = SAM(torch.optim.SGD([w], lr=0.0, momentum=0.5), rho=5.0, variant=MomentumSAM())
    >>> opt.first_step()  # at rest
    >>> w.backward(torch.tensor([3.0, -4.0]))
    >>> opt.second_step()
    >>> with opt.perturbed():
    ...     print(w.detach())
    tensor([-2.,  6.])
    """

    needs_gradient: ClassVar[bool] = False
    uncapped: ClassVar[str] = "its rule is about an ascent along the gradient"

    def check(self, base: Optimizer) -> None:
        """Refuse a base without momentum."""
        if not any(_has_momentum(group) for group in base.param_groups):
            raise refuse("base", f"{type(base).__name__} without momentum", "one with momentum", "set momentum=0.9")

    def ascend(self, ascent: Ascent) -> Perturbation:
        """Move the weights against the momentum, of parameters that have one."""
        directions = {}
        for group in ascent.groups:
            for p in group["params"]:
                buffer = _momentum(ascent.base.state[p]) if p in ascent.base.state else None
                if buffer is not None:
                    # The momentum is that of the descent, also where the base climbs and SAM goes down.
                    directions[p] = buffer if group.get("maximize", False) else -buffer
        made = ascent.make(directions)
        # A gradient that is at hand is an old one.
        slope = None if made.slope is None else torch.full_like(made.slope, math.nan)
        return dataclasses.replace(made, slope=slope)


def _has_momentum(group: dict[str, Any]) -> bool:
    return bool(group.get("momentum")) or bool(group.get("betas"))


def _momentum(state: dict[str, Any]) -> Tensor | None:
    buffer = next((state[name] for name in BUFFERS if state.get(name) is not None), None)
    return buffer.to_dense() if buffer is not None and buffer.is_sparse else buffer
