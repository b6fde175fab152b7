"""A model that comes back from an experiment exactly as it went in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from saddlescope.optim.second_pass import RandomState


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Give weights, gradients, buffers, modes and random numbers back bit for bit after the block, also when it throws.

    Gradients are put aside, not copied: within the block there are none. Random numbers are torch's, NumPy's global
    ones and those of ``random``. Extra memory: one copy of weights and buffers.

    >>> model = nn.Linear(1, 1)
    >>> before = model.weight.item()
    >>> with untouched(model), torch.no_grad():
    ...     _ = model.weight.zero_()
    >>> model.weight.item() == before
    True
    """
    parameters, modules = list(model.parameters()), list(model.modules())
    values = [(t, t.detach().clone()) for t in (*parameters, *model.buffers())]
    buffers = [(m, dict(m._buffers)) for m in modules]
    gradients, modes = [p.grad for p in parameters], [m.training for m in modules]
    generators = RandomState.now(p.device for p in parameters)
    python, legacy = random.getstate(), np.random.get_state()
    for p in parameters:
        p.grad = None
    try:
        yield
    finally:
        for module, kept in buffers:
            module._buffers.update(kept)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        generators.restore()
        random.setstate(python)
        np.random.set_state(legacy)
