"""The signature of davda54/sam, the most copied SAM for PyTorch, so that code written for it runs unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from saddlescope.integrations.at_hand import step_from
from saddlescope.optim import sam


class SAM(sam.SAM):
    """`saddlescope.optim.sam.SAM` with the constructor and the ``step`` of github.com/davda54/sam.

    Put ``from saddlescope.integrations.davda54 import SAM`` for ``from sam import SAM``. What differs: weights come
    back bit for bit, ``state_dict()`` has the base's momentum (so that a checkpoint of theirs, which has not, is
    refused), gradients that are not finite skip the step, and ``last_step`` is there. ``adaptive`` is one for all
    groups. Their ``closure`` zeroes no gradients and is called once, for the second pass: backward has run before.

    Args:
        params: parameters or groups; a group may bring its ``rho``.
        base_optimizer: a class.
        rho: radius of the perturbation, >= 0.
        adaptive: of ASAM.
        options: for the base optimizer; those of ours, such as ``max_grad_norm``, are accepted too.

    Raises:
        ValueError: as for `saddlescope.optim.sam.SAM`.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = SAM([w], torch.optim.SGD, rho=1.0, lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.first_step(zero_grad=True)
    >>> (w**2).sum().backward()
    >>> optimizer.second_step(zero_grad=True)
    >>> w.item()
    0.6...
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, base_optimizer, rho=rho, adaptive=adaptive, **options)

    @property
    def base_optimizer(self) -> Optimizer:
        """The base, under the name it has there."""
        return self.base

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make a step, given the gradients at ``w``; ``closure`` runs forward and backward at ``w_p``.

        Raises:
            ValueError: without a closure.
        """
        if closure is None:
            raise sam.refuse("closure", None, "a function that evaluates", "or first_step() and second_step()")
        step_from(self, closure)
