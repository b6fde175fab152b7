"""Sweeps: a grid of configs, an engine that runs them, a store that keeps what came out."""

from saddlescope.sweeps.grid import expand_grid, read_grid
from saddlescope.sweeps.sweep import SweepResult, run_sweep

__all__ = ["SweepResult", "expand_grid", "read_grid", "run_sweep"]
