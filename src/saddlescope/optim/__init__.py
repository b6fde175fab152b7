"""Optimizers for torch models: SAM around any base, its variants, and a radius that leaves no saddle a trap."""

from saddlescope.optim.radius_cap import RadiusCap
from saddlescope.optim.sam import SAM
from saddlescope.optim.step_statistics import StepStatistics
from saddlescope.optim.variants import (
    ASAM,
    SCHEDULES,
    VARIANTS,
    AfterPlateau,
    Every,
    FriendlySAM,
    LookaheadSAM,
    MomentumSAM,
    Phase,
    StableSAM,
    VaSSO,
)

__all__ = [
    "ASAM",
    "SAM",
    "SCHEDULES",
    "VARIANTS",
    "AfterPlateau",
    "Every",
    "FriendlySAM",
    "LookaheadSAM",
    "MomentumSAM",
    "Phase",
    "RadiusCap",
    "StableSAM",
    "StepStatistics",
    "VaSSO",
]
