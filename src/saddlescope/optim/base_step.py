"""The base optimizer's step at the end of a SAM step: skipped when a gradient was not finite, clipped if wished."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer

from saddlescope.optim.distributed import own


def step_base(
    base: Optimizer,
    norm: Tensor,
    evidence: Tensor,
    *,
    skip_nonfinite: bool,
    max_grad_norm: float | None,
    scaler: GradScaler | None,
) -> Tensor | int:
    """Step ``base`` with the gradients at hand, or leave it as it is; return how many steps were skipped.

    What is read from the device: nothing with ``skip_nonfinite=False``; nothing for a base that takes the
    decision on the device itself, as torch's ``fused=True`` do; else ``evidence``, one number.

    Args:
        base: takes the step.
        norm: of the gradients, 0-d, without the scale of a scaler.
        evidence: 0-d, finite if all gradients of the step were.
        skip_nonfinite: look at the evidence.
        max_grad_norm: shorten the gradients to this norm first.
        scaler: has scaled the gradients; it learns of a gradient that is not finite, once.
    """
    parameters = [p for group in base.param_groups for p in group["params"] if p.grad is not None]
    if max_grad_norm is not None:
        # A factor: a scale before it may stay. Torch multiplies no distributed tensors and others in one call.
        pieces: Any = [SimpleNamespace(grad=None if p.grad is None else own(p.grad)) for p in parameters]
        clip_grads_with_norm_(pieces, max_grad_norm, norm)
    if scaler is not None:
        if math.isfinite(float(evidence)):
            scaler.step(base)
            return 0
        for p in parameters:  # for the first pass, whose gradients the scaler has not seen
            assert p.grad is not None
            p.grad.mul_(math.nan)
        scaler.unscale_(base)  # takes note; the step of a fused base would not be harmless, see below
        return 1
    if not skip_nonfinite:
        base.step()
        return 0
    if _decides_on_device(base):
        found = (evidence * 0.0).nan_to_num_(nan=1.0).float()
        device_base: Any = base
        device_base.found_inf, device_base.grad_scale = found, None
        try:
            base.step()
        finally:
            del device_base.found_inf, device_base.grad_scale
        return found
    finite = math.isfinite(float(evidence))
    if finite:
        base.step()
    return int(not finite)


def _decides_on_device(base: Optimizer) -> bool:
    """Whether a step with ``found_inf`` set leaves weights and state alone.

    torch's fused SGD does not before it has a momentum: it then takes memory that nobody has filled for one.
    """
    if not getattr(base, "_step_supports_amp_scaling", False):
        return False
    return all(
        base.state.get(p) or group.get("momentum", 1.0) == 0.0
        for group in base.param_groups
        for p in group["params"]
        if p.grad is not None
    )
