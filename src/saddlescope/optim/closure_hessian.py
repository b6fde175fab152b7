"""Hessian-vector products of whatever a closure evaluates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, all_reduce, get_world_size
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from saddlescope._checks import refuse
from saddlescope.curvature.hessian import flat, gradients_of, hessian_product
from saddlescope.curvature.twice import second_derivatives
from saddlescope.optim.distributed import unsynchronized
from saddlescope.optim.module_hook import before_every_module
from saddlescope.optim.second_pass import RandomState, repeated_pass


class ClosureHessian:
    """Products with the Hessian of the loss that a closure calls ``backward()`` on, by double backward.

    The closure runs once more, with the random numbers of its first run, and its calls of ``loss.backward()``
    are collected instead of carried out; the graph then serves any number of products. Differences of the
    closure's gradients would ask less of it, but are no substitute: between ``w`` and ``w + h v`` a ReLU
    network crosses kinks, and at every ``h`` from 1e-4 to 0.1 they dominate the difference (an eigenvalue of
    -0.40 comes out between -0.6 and -4). The parameters' ``grad`` are as before afterwards.

    Attention is evaluated by its math kernel. With a ``DistributedDataParallel`` model that would send its gradients,
    gradient and products are the means over its ranks, and all of them must ask for the same products.

    Args:
        closure: zeroes the gradients, runs forward and ``loss.backward()``, any number of times.
        parameters: vectors are their entries one after the other.
        random_state: of torch's generators before the closure's first run.

    Raises:
        ValueError: when the closure never calls ``backward()`` on a tensor.
    """

    def __init__(self, closure: Callable[[], Any], parameters: Sequence[Tensor], random_state: RandomState):
        self._parameters = parameters
        self._ranks: ProcessGroup | None = None
        gradients = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None  # out of reach of a zero_grad() that works in place
        try:
            with (
                repeated_pass(random_state),
                second_derivatives(),
                before_every_module(self._note_ranks, lambda: None),
                unsynchronized(),  # its reducer would wait for a backward() that never comes
                torch.enable_grad(),
                _CollectBackward() as collected,
            ):
                closure()
        finally:
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
        if collected.loss is None:
            raise refuse("closure", "no call of loss.backward()", "one or more, as Hessian products start there")
        self._gradients = gradients_of(collected.loss, parameters, create_graph=True)
        self.gradient = self._mean(flat(self._gradients).detach())
        """The gradient at ``w``, shape ``(n,)``."""

    def __call__(self, vector: Tensor) -> Tensor:
        """Return ``H v``, shape ``(n,)``."""
        return self._mean(hessian_product(self._gradients, self._parameters, vector, retain_graph=True))

    def _note_ranks(self, module: nn.Module, _inputs: Any) -> None:
        if isinstance(module, DistributedDataParallel) and module.require_backward_grad_sync:
            self._ranks = module.process_group

    def _mean(self, tensor: Tensor) -> Tensor:
        if self._ranks is None:
            return tensor
        all_reduce(tensor, group=self._ranks)
        return tensor / get_world_size(self._ranks)


class _CollectBackward(TorchFunctionMode):
    """Sums up what ``backward()`` is called on, and leaves the graph alive."""

    loss: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.backward:
            return func(*args, **(kwargs or {}))
        root, *rest = args
        weight = rest[0] if rest else (kwargs or {}).get("gradient")
        term = root if weight is None else (root * weight).sum()
        self.loss = term if self.loss is None else self.loss + term
