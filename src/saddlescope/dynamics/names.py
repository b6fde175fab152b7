"""The maps by the names that commands and addresses give them."""

from __future__ import annotations

from saddlescope.dynamics.maps import GradientMap, SAMMap, UpdateMap
from saddlescope.dynamics.variants import (
    ASAMMap,
    CappedSAMMap,
    FriendlySAMMap,
    LookaheadSAMMap,
    MicroBatchSAMMap,
    MomentumSAMMap,
    ScheduledSAMMap,
    StableSAMMap,
    VaSSOMap,
)

MAPS: dict[str, type[UpdateMap]] = {
    "gd": GradientMap,
    "sam": SAMMap,
    "asam": ASAMMap,
    "lookahead": LookaheadSAMMap,
    "stable": StableSAMMap,
    "friendly": FriendlySAMMap,
    "vasso": VaSSOMap,
    "momentum-sam": MomentumSAMMap,
    "m-sam": MicroBatchSAMMap,
    "scheduled": ScheduledSAMMap,
    "capped": CappedSAMMap,
}
