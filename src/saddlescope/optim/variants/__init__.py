"""Variants of SAM for torch models, and schedules that use it for a part of the training: what `SAM` is made with."""

from saddlescope.optim.variants.asam import ASAM
from saddlescope.optim.variants.friendly import FriendlySAM
from saddlescope.optim.variants.lookahead import LookaheadSAM
from saddlescope.optim.variants.momentum_sam import MomentumSAM
from saddlescope.optim.variants.schedules import AfterPlateau, Every, Phase, Schedule
from saddlescope.optim.variants.stable import StableSAM
from saddlescope.optim.variants.variant import Variant
from saddlescope.optim.variants.vasso import VaSSO

VARIANTS: dict[str, type[Variant]] = {
    "sam": Variant,
    "asam": ASAM,
    "friendly-sam": FriendlySAM,
    "lookahead-sam": LookaheadSAM,
    "momentum-sam": MomentumSAM,
    "stable-sam": StableSAM,
    "vasso": VaSSO,
}
"""Variants by name: ``SAM(base, rho=0.1, variant=VARIANTS[name]())``."""

SCHEDULES: dict[str, type[Schedule]] = {
    "always": Schedule,
    "every": Every,
    "phase": Phase,
    "after-plateau": AfterPlateau,
}
"""Schedules by name: ``SAM(base, rho=0.1, schedule=SCHEDULES["every"](interval=5))``."""

__all__ = [
    "ASAM",
    "SCHEDULES",
    "VARIANTS",
    "AfterPlateau",
    "Every",
    "FriendlySAM",
    "LookaheadSAM",
    "MomentumSAM",
    "Phase",
    "Schedule",
    "StableSAM",
    "VaSSO",
    "Variant",
]
