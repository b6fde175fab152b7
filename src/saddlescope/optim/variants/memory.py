"""What a variant remembers from step to step: one tensor for each parameter, unharmed by steps that are not made."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Memory:
    """The running mean of the gradients, ``m <- m + weight (g - m)``, from zero on.

    A new mean is *proposed* while a step is under way and taken over when the base has stepped: a step that fails, or
    is skipped for a gradient that is not finite, leaves no trace.

    >>> w, memory = torch.zeros(1), Memory()
    >>> memory.propose({w: torch.tensor([4.0])}, 0.5)[w]
    tensor([2.])
    >>> memory.settle(skipped=1)
    >>> memory.propose({w: torch.tensor([1.0])}, 0.5)[w]
    tensor([0.5000])
    """

    def __init__(self) -> None:
        self._means: dict[Tensor, Tensor] = {}
        self._proposed: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def propose(self, gradients: Mapping[Tensor, Tensor], weight: float) -> dict[Tensor, Tensor]:
        """Return the means with these gradients in them; parameters without a gradient keep theirs.

        Several proposals in one step, as micro-batches make them, build on each other.
        """
        if not gradients:
            return {}
        known = {**self._means, **self._proposed}
        news = list(gradients.values())
        olds = [known[p] if p in known else torch.zeros_like(g) for p, g in gradients.items()]
        means = dict(zip(gradients, torch._foreach_lerp(olds, news, weight), strict=True))
        self._proposed = {**self._proposed, **means}
        return means

    def forget(self) -> None:
        """Drop what was proposed."""
        self._proposed = {}

    @torch.no_grad()
    def settle(self, skipped: Tensor | int) -> None:
        """Take over what was proposed, unless ``skipped``: 0 or 1, on the device if the base decided there."""
        if isinstance(skipped, Tensor):
            settled = {p: self._chosen(skipped, p, new) for p, new in self._proposed.items()}
        else:
            settled = {} if skipped else self._proposed
        self._means, self._proposed = {**self._means, **settled}, {}

    def _chosen(self, skipped: Tensor, parameter: Tensor, new: Tensor) -> Tensor:
        old = self._means[parameter] if parameter in self._means else torch.zeros_like(new)
        return torch.where(skipped.to(new.device) > 0, old, new)

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """Return the means by position among the optimizer's ``parameters``."""
        position = {p: i for i, p in enumerate(parameters)}
        return {
            "means": {position[p]: mean for p, mean in self._means.items()},
            "proposed": {position[p]: mean for p, mean in self._proposed.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """Continue from what `state_dict` returned."""

        def placed(means: Mapping[int, Tensor]) -> dict[Tensor, Tensor]:
            return {parameters[i]: mean.to(parameters[i].device, copy=True) for i, mean in means.items()}

        self._means, self._proposed = placed(state["means"]), placed(state["proposed"])
