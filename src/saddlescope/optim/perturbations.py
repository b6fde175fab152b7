"""The ascent step of SAM: weights moved along their gradient, and brought back bit for bit."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from saddlescope.optim.distributed import joint_norm, own, summed
from saddlescope.optim.gradients import as_real, entries, gradient_norm, gradient_of, inner, norms, total_norm, wide
from saddlescope.optim.snapshot import Snapshot, unshared_gradient
from saddlescope.optim.step_statistics import StepStatistics

Weighting = Callable[[Tensor, Tensor], Tensor]
"""Takes a parameter and those of its entries that move, in at least float32; returns the ``T`` of these."""

FOREACH_DTYPES = (torch.float32, torch.float64)
"""Precisions in which a product and a sum can be rounded one after the other without harm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation:
    """An ascent step that was made, and the exact weights to return to."""

    weights: Snapshot
    """Of the tensors that were moved: those that have a gradient."""
    gradient_norm: Tensor
    """0-d, on the device; not finite when the gradient was not, and then the step is to be forgotten."""
    radius: float
    """The largest one over the groups."""
    slope: Tensor | None
    """``<g, e>``, 0-d, for the statistics; None without."""
    length: Tensor | None = None
    """``||e||``, 0-d, where it follows from the norm: rounding changes it by next to nothing in full precision."""

    @torch.no_grad()
    def measure_and_restore(self, parameters: Sequence[Tensor], scale: Tensor | None, *, norm: bool) -> StepStatistics:
        """Return what the two passes tell and put the weights back.

        The perturbation is recovered inside the moved weights, so that no memory is spent on it.

        Args:
            parameters: all those with a gradient of the second pass.
            scale: that of a gradient scaler, by which the gradients are too large; None for 1.
            norm: take the norm of the second gradient, which reads all of it; else it is NaN.
        """
        length, slope = self.length, None
        moved = self.weights.tensors
        try:
            perturbed_norm = gradient_norm(parameters, scale) if norm else torch.full_like(self.gradient_norm, math.nan)
            if self.slope is not None and self.weights.away and moved:
                torch._foreach_sub_(self.weights.pieces, self.weights.copies)  # now they hold e
                if length is None:
                    length = total_norm([as_real(e) for e in moved], owners=moved)
                met = [e for e in moved if e.grad is not None]
                slopes = [inner(as_real(e), gradient_of(e)).to(length) for e in met]
                slope = summed(torch.stack(slopes), met) if met else torch.zeros_like(length)
                slope = slope if scale is None else slope / scale.to(slope.device)
        finally:
            self.weights.put_back()
        return StepStatistics(
            rho_used=self.radius,
            norm=self.gradient_norm,
            perturbed_norm=perturbed_norm,
            slope=self.slope,
            perturbed_slope=slope,
            length=length,
        )

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """Return the weights to come back to, and what else a run needs that is resumed here.

        Args:
            parameters: of the optimizer, all of them in order; the state has positions among them.
        """
        position = {p: i for i, p in enumerate(parameters)}
        return {
            "positions": [position[p] for p in self.weights.tensors],
            "weights": [copy.clone() for copy in self.weights.copies],
            "gradient_norm": self.gradient_norm,
            "radius": self.radius,
            "slope": self.slope,
            "length": self.length,
        }

    @classmethod
    @torch.no_grad()
    def from_state_dict(cls, state: Mapping[str, Any], parameters: Sequence[Tensor], weights: Snapshot) -> Perturbation:
        """Build what `state_dict` was called on, with ``weights`` as the place for the weights."""
        weights.take([parameters[i] for i in state["positions"]])
        for tensor, target, copy, saved in zip(
            weights.pieces, weights.targets, weights.copies, state["weights"], strict=True
        ):
            target.copy_(tensor)
            copy.copy_(saved)
        weights.leave()
        return cls(weights=weights, **{name: state[name] for name in ("gradient_norm", "radius", "slope", "length")})


@torch.no_grad()
def perturb(
    groups: Sequence[Mapping[str, Any]],
    weights: Snapshot,
    *,
    normalized: bool = True,
    weighting: Weighting | None = None,
    directions: Mapping[Tensor, Tensor] | None = None,
    statistics: bool = True,
    limit: Callable[[float], float] | None = None,
    scale: Tensor | None = None,
    keep_gradients: bool = True,
) -> Perturbation:
    """Move the weights of each group to ``w_p = w + e``; norm and step length stay on the device.

    Normalized: ``e = rho g / ||g||`` (Foret et al. 2021, arXiv 2010.01412, eq. 2), weighted:
    ``e = rho T^2 g / ||T g||`` (Kwon et al. 2021, arXiv 2102.11600, eq. 8); else the same without the division.
    Norms run over all groups; no epsilon is added to them: a zero gradient moves nothing. A gradient that is
    not finite has length zero too, but its infinite entries make ``w_p`` NaN there.

    Weights in half precision are moved in float32 and rounded once.

    Args:
        groups: parameter groups with a ``rho``; where one has ``maximize=True``, SAM goes down instead of up.
        weights: where to keep the weights.
        normalized: divide by the norm.
        weighting: ``T``; None for 1.
        directions: dense, what to move along in place of the gradients, without the scale of a scaler. Parameters
            without one stay; one without a gradient makes the slope NaN.
        statistics: prepare for `Perturbation.measure_and_restore`.
        limit: takes the norm and returns the radius that no group may exceed; the norm is then read.
        scale: that of a gradient scaler, by which the gradients are too large.
        keep_gradients: False lets their memory become that of the perturbed weights where nobody else holds it:
            these parameters then have no gradient. It is what costs least, since ``w + e`` is written where a
            gradient was just read.
    """
    if directions is None:
        moved = [[p for p in group["params"] if p.grad is not None] for group in groups]
    else:
        moved = [[p for p in group["params"] if p in directions] for group in groups]
    parameters = [p for group in moved for p in group]
    given_up = not keep_gradients and directions is None and weighting is None
    spare = [unshared_gradient(p) if given_up else None for p in parameters]  # before others look at the gradients
    gradients = [None if p.grad is None else gradient_of(p) for p in parameters]
    along = gradients if directions is None else [as_real(directions[p]) for p in parameters]
    along = cast(list[Tensor], along)
    sizes = norms(
        along if weighting is None else [_weighted(p, d, weighting) for p, d in zip(parameters, along, strict=True)]
    )
    total = joint_norm(sizes, parameters)
    scale = None if scale is None else scale.to(total)
    excess = scale if directions is None else None
    norm = total if excess is None else total / excess
    cap = None if limit is None else limit(float(norm))
    radii = [group["rho"] if cap is None else min(group["rho"], cap) for group in groups]
    signed = [-r if group.get("maximize", False) else r for r, group in zip(radii, groups, strict=True)]
    each = [radius for radius, group in zip(signed, moved, strict=True) for _ in group]
    divisor = total if normalized else total * 0.0 + (1.0 if excess is None else excess)
    factor = divisor.reciprocal().nan_to_num_(0.0, 0.0, 0.0)
    slopes = length = None
    if statistics:
        lengths = sizes * factor
        for radius, of_group in zip(signed, lengths.split([len(group) for group in moved]), strict=True):
            of_group.mul_(radius)
        slopes = sizes * lengths
        if parameters and weighting is None and all(wide(p.dtype) is p.dtype for p in parameters):
            length = joint_norm(lengths, parameters)
    weights.take(parameters, spare)
    for parameter, gradient, target in zip(parameters, spare, weights.targets, strict=True):
        if gradient is target:
            parameter.grad = None
    try:
        _move(weights, along, gradients, each, factor, weighting, slopes)
        weights.leave()
    except BaseException:
        weights.put_back()
        raise
    slope = None if slopes is None else summed(slopes, parameters) / (1.0 if scale is None else scale)
    return Perturbation(weights=weights, gradient_norm=norm, radius=max(radii), slope=slope, length=length)


def _move(
    weights: Snapshot,
    along: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    radii: Sequence[float],
    factor: Tensor,
    weighting: Weighting | None,
    slopes: Tensor | None,
) -> None:
    """Write ``w + e`` with ``e = radius factor T^2 d``, and ``<g, e>`` into ``slopes``, which has it for ``d = g``."""
    in_place = []
    rows = zip(weights.tensors, weights.targets, along, gradients, radii, strict=True)
    for i, (p, target, d, g, radius) in enumerate(rows):
        w, w_p = as_real(p), as_real(target)
        if weighting is None and not d.is_sparse and w.dtype == d.dtype and w.dtype in FOREACH_DTYPES:
            if target is own(p):
                in_place.append((w, d, factor.to(w), radius))
            else:
                torch.addcmul(w, d, factor.to(w), value=radius, out=w_p)
            if slopes is not None and g is not d:
                slopes[i] = math.nan if g is None else radius * factor * inner(d, g).to(factor)
            continue
        before = _at(w, d)
        move = entries(d).to(wide(w.dtype)) * (radius * factor).to(w.device, wide(w.dtype))
        if weighting is not None:
            move *= weighting(p, before.to(move.dtype)).square()
        after = (before + move).to(w.dtype)  # in float32 for half precision, rounded once
        if slopes is not None:
            rounded = after.to(move.dtype) - before
            slopes[i] = math.nan if g is None else inner(rounded, entries(d) if g is d else g)
        if d.is_sparse:
            w_p.copy_(w)
            w_p[tuple(d.indices())] = after
        else:
            w_p.copy_(after)
    if in_place:
        # The factor is a tensor on the device; the alpha of a foreach_add would have to be read.
        torch._foreach_addcmul_(*(list(column) for column in zip(*in_place, strict=True)))


def _at(w: Tensor, d: Tensor) -> Tensor:
    """Return the weights that the entries of a direction belong to."""
    return w[tuple(d.indices())] if d.is_sparse else w


def _weighted(p: Tensor, d: Tensor, weighting: Weighting) -> Tensor:
    """Return the entries of ``T d``."""
    w = _at(as_real(p), d)
    return weighting(p, w.to(wide(w.dtype))) * entries(d).to(wide(w.dtype))
