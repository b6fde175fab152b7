"""Imported by the fork server: what every worker would otherwise do for itself, a second or two each."""

from __future__ import annotations

import contextlib
import threading

import torch

from saddlescope.explorer import jobs  # noqa: F401
from saddlescope.explorer.state import ExplorerState

torch.set_num_threads(1)  # a process that has threads cannot be forked safely
_landscape = ExplorerState().to_landscape()
torch.vmap(torch.func.grad(_landscape.loss))(torch.zeros(2, 2, dtype=torch.float64))
torch.vmap(torch.func.hessian(_landscape.loss))(torch.zeros(2, 2, dtype=torch.float64))

# Tracing shows progress with tqdm where there is one, whose lock between processes a stopped worker leaves behind.
with contextlib.suppress(ModuleNotFoundError):
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
