"""Imported by the fork server: what every worker would otherwise do for itself, a second or two each."""

from __future__ import annotations

import contextlib
import threading
import warnings

import torch

from saddlescope.explorer.fields import PLANAR
from saddlescope.explorer.paths import critical_points, trajectories
from saddlescope.explorer.questions import points  # noqa: F401  the rest of what workers import
from saddlescope.explorer.state import ExplorerState

torch.set_num_threads(1)  # a process that has threads cannot be forked safely
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for (
        name
    ) in PLANAR:  # traced, compiled and loaded here, a step is there in every worker, those that replace others too
        trajectories(ExplorerState(landscape=name, steps=1))
    critical_points(ExplorerState())

# Tracing shows progress with tqdm where there is one, whose lock between processes a stopped worker leaves behind.
with contextlib.suppress(ModuleNotFoundError):
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
