"""Running a model a second time as if it were once: the same dropout masks, batch statistics counted once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook


@dataclass(frozen=True, eq=False)
class RandomState:
    """A snapshot of torch's global generators: the CPU's, and those of the CUDA devices in use."""

    cpu: Tensor
    cuda: dict[torch.device, Tensor]

    @classmethod
    def now(cls, devices: Iterable[torch.device]) -> RandomState:
        """Take a snapshot of the CPU's generator and of those of the CUDA devices among ``devices``."""
        used = {device for device in devices if device.type == "cuda"}
        return cls(torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in used})

    def restore(self) -> None:
        """Put the generators back to this state."""
        torch.set_rng_state(self.cpu)
        for device, state in self.cuda.items():
            torch.cuda.set_rng_state(state, device)


@contextmanager
def repeated_pass(first: RandomState) -> Iterator[None]:
    """Within the block, random numbers repeat from ``first`` and batch norm keeps its running statistics.

    Needs no model: a global hook sees every module that is called. A layer in training mode whose statistics
    are not tracked normalises by the batch, exactly as one that tracks them, and leaves its buffers alone.
    Afterwards everything is as it was before the block, also when the block throws.
    """
    after = RandomState.now(first.cuda)
    silenced: list[_BatchNorm] = []

    def keep_statistics(module: nn.Module, _inputs: Any) -> None:
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.track_running_stats = False
            silenced.append(module)

    hook = register_module_forward_pre_hook(keep_statistics)
    try:
        first.restore()
        yield
    finally:
        hook.remove()
        for module in silenced:
            module.track_running_stats = True
        after.restore()
