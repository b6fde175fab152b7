"""A SAM step for hosts that run the first backward themselves and then call ``step()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saddlescope.optim.sam import SAM


def step_from(opt: SAM, evaluate: Callable[[], Any], *, zero_grad: bool = False) -> None:
    """Make the SAM step whose gradients at ``w`` are at hand: ``evaluate()`` adds those at ``w_p``.

    What `SAM.step` does with a closure, except for the first of its two calls. The weights come back, and the error
    is raised again, when ``evaluate`` throws.

    Args:
        opt: has the gradients at ``w``.
        evaluate: runs forward and backward on the same batch, and zeroes no gradients.
        zero_grad: forget the gradients of the second pass afterwards.

    Raises:
        ValueError: with a ``radius_cap``, which needs the closure, and between two steps driven by hand.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> opt = SAM(torch.optim.SGD([w], lr=0.1), rho=1.0)
    >>> (w**2).sum().backward()
    >>> step_from(opt, lambda: (w**2).sum().backward())
    >>> w.item()
    0.6...
    """
    opt.first_step(zero_grad=True)
    try:
        with opt.second_pass():
            evaluate()
    except BaseException:
        opt._excursion.give_up()
        raise
    opt.second_step(zero_grad=zero_grad)
