"""Optimizers for torch models: SAM around any base, with a radius that leaves no saddle a trap."""

from saddlescope.optim.perturbations import StepStatistics
from saddlescope.optim.radius_cap import RadiusCap
from saddlescope.optim.sam import SAM

__all__ = ["SAM", "RadiusCap", "StepStatistics"]
