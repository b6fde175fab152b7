"""VaSSO: the ascent is along the running mean of the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from saddlescope._checks import refuse, require_finite
from saddlescope.optim.perturbations import Perturbation
from saddlescope.optim.variants.variant import Ascent, Variant, along


@dataclass(frozen=True)
class VaSSO(Variant):
    """VaSSO (Li and Giannakis 2023, arXiv 2309.15639): less noise in the ascent, and a deeper trap.

        m <- (1 - theta) m + theta g,    w_p = w + rho m / ||m||.

    The mean starts at zero, which the normalisation forgets at once. Extra memory: two copies of the weights.

    >>> import torch
    >>> from saddlescope.optim import SAM
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> opt = SAM(torch.optim.SGD([w], lr=0.0), rho=5.0, variant=VaSSO(theta=0.5))
    >>> w.backward(torch.tensor([3.0, 0.0]))
    >>> opt.first_step(zero_grad=True)
    >>> w.backward(torch.tensor([3.0, 0.0]))
    >>> opt.second_step(zero_grad=True)
    >>> w.backward(torch.tensor([0.0, 2.0]))
    >>> with opt.perturbed():  # m = (0.75, 1)
    ...     print(w.detach())
    tensor([4., 6.])
    """

    uncapped: ClassVar[str] = "its rule is about an ascent along the gradient"

    theta: float = 0.4
    """Weight of the present in the mean, in (0, 1]; 1 is SAM."""

    def __post_init__(self) -> None:
        if require_finite("theta", self.theta, minimum=0.0, exclusive=True) > 1.0:
            raise refuse("theta", self.theta, "a number in (0, 1]", "use theta=1 for SAM")

    def ascend(self, ascent: Ascent) -> Perturbation:
        """Move the weights along ``m``."""
        return along(ascent, ascent.memory.propose(ascent.gradients(), self.theta))
