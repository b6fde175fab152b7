"""What SAM can be made of: bases it can drive, and options that go together."""

from __future__ import annotations

from typing import Any, cast

from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import ParamsT

from saddlescope._checks import refuse
from saddlescope.optim.radius_cap import RadiusCap
from saddlescope.optim.variants.asam import ASAM
from saddlescope.optim.variants.schedules import Schedule
from saddlescope.optim.variants.variant import Variant


def usable_base(
    base: Optimizer | ParamsT, base_optimizer: type[Optimizer] | None, options: dict[str, Any]
) -> Optimizer:
    """Return the base optimizer, made if need be, or refuse one that cannot be driven with two gradients."""
    if base_optimizer is not None:
        base = base_optimizer(cast(ParamsT, base), **options)
    elif options:
        raise refuse("options", sorted(options), "none beside an optimizer instance", "give them to the base")
    if not isinstance(base, Optimizer):
        raise refuse("base", type(base).__name__, "a torch optimizer", "SAM(torch.optim.SGD(params, lr=0.1))")
    if isinstance(base, LBFGS):
        raise refuse("base", "LBFGS", "a base that steps from one gradient", "LBFGS evaluates on its own")
    if "rho" in base.defaults:
        raise refuse(
            "base",
            f"{type(base).__name__} with an option rho",
            "a base without one (Adadelta has its own; a base serves one SAM)",
            "make a new base, of another class",
        )
    return base


def usable_variant(
    base: Optimizer,
    variant: Variant | None,
    *,
    adaptive: bool,
    normalized: bool,
    radius_cap: RadiusCap | None,
    sync_perturbation: bool,
    statistics: bool,
) -> Variant:
    """Return the variant meant, or refuse options that do not go together."""
    if adaptive and variant is not None:
        raise refuse("adaptive", f"True beside {variant}", "one of the two", "use variant=ASAM(...) alone")
    if variant is None:
        variant = ASAM(eta=0.0, biases=True) if adaptive else Variant()
    if not isinstance(variant, Variant):
        raise refuse("variant", variant, "a Variant", "make one, as in variant=FriendlySAM()")
    variant.check(base)
    if radius_cap is not None and (variant.uncapped or not normalized):
        reason = variant.uncapped or "its rule is about a length, with normalized=True"
        raise refuse("radius_cap", radius_cap, f"None with {variant}, normalized={normalized}", reason)
    if radius_cap is not None and not (radius_cap.needs_closure or statistics):
        raise refuse("statistics", False, f"True with {radius_cap}", "it goes by the statistics of each step")
    if radius_cap is not None and not (radius_cap.needs_closure or sync_perturbation):
        raise refuse("sync_perturbation", False, f"True with {radius_cap}", "its two gradients must be of one batch")
    if variant.synchronized and not sync_perturbation:
        raise refuse("sync_perturbation", False, f"True with {variant}", variant.synchronized)
    return variant


def usable_schedule(schedule: Schedule | None) -> Schedule:
    """Return the schedule meant, or refuse what is none."""
    if schedule is not None and not isinstance(schedule, Schedule):
        raise refuse("schedule", schedule, "a Schedule", "make one, as in schedule=Every(5)")
    return schedule or Schedule()
