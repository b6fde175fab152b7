"""The ascent step of SAM: weights moved along their gradient, and brought back bit for bit."""

# torch's foreach operations, one call for many tensors, have private names; its own optimizers use them too.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor


def global_norms(tensor_lists: Sequence[Sequence[Tensor]]) -> list[float]:
    """Return the Euclidean norm of each list of tensors, with one read from the device for all of them.

    Sums in at least float32, so that half-precision gradients do not overflow.

    >>> global_norms([[torch.tensor([3.0]), torch.tensor([[4.0]])], []])
    [5.0, 0.0]
    """
    tensors = [t for tensors in tensor_lists for t in tensors]
    if not tensors:
        return [0.0] * len(tensor_lists)
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    norms = torch._foreach_norm(tensors, 2, dtype=wide)
    read = iter(torch.stack([n.to(norms[0].device) for n in norms]).tolist())
    return [math.hypot(*(next(read) for _ in tensors)) for tensors in tensor_lists]


@dataclass(frozen=True, kw_only=True)
class StepStatistics:
    """What the two gradients of a SAM step tell for free; ``e = w_p - w`` is the perturbation.

    Nothing is read from the device before a property is. The ratios are NaN without a perturbation (zero
    gradient, ``rho=0``) and without a second gradient.
    """

    gradient_norm: float
    """``||g||``; with ``adaptive=True`` the norm ``||T g||`` that normalises there."""
    perturbed_gradient_norm: float
    """``||g_p||``; NaN when the ascent gradient was not finite, since the second pass was then not made."""
    rho_used: float
    """The radius after the cap, the largest one over the parameter groups."""
    slope: float = field(repr=False)
    """``<g, e>``."""
    perturbed_slope: Tensor = field(repr=False)
    """``<g_p, e>``, 0-d."""
    squared_length: Tensor = field(repr=False)
    """``||e||^2``, 0-d."""

    @property
    def cosine(self) -> float:
        """The cosine of ``e`` and ``g_p``, which is that of ``g`` and ``g_p`` for plain SAM.

        Below zero it proves negative curvature along ``e``, to second order in ``rho``; above, nothing.
        """
        length = math.sqrt(float(self.squared_length))
        return _ratio(float(self.perturbed_slope), length * self.perturbed_gradient_norm)

    @property
    def rayleigh(self) -> float:
        """``kappa = <g_p - g, e> / ||e||^2``, for plain SAM ``<g_p - g, g> / (rho ||g||)``.

        The Rayleigh quotient of the Hessian along ``e``, averaged over the segment from ``w`` to ``w_p``.
        """
        return _ratio(float(self.perturbed_slope) - self.slope, float(self.squared_length))


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation:
    """An ascent step and the exact weights to return to. Memory: one copy of the weights."""

    parameters: list[Tensor]
    """The tensors that were moved: those that have a gradient."""
    backup: list[Tensor]
    """Their values before."""
    gradient_norm: float
    radius: float
    slope: float
    """``<g, e>``."""

    @property
    def finite(self) -> bool:
        """Whether the ascent gradient was; if not, the weights stay where they are."""
        return math.isfinite(self.gradient_norm)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back, bit for bit: by copying, since subtracting would leave round-off."""
        _foreach(torch._foreach_copy_, self.parameters, self.backup)

    @torch.no_grad()
    def measure_and_restore(self, gradients: Sequence[Tensor]) -> StepStatistics:
        """Return what the two passes tell and put the weights back; ``gradients`` are all of the second pass.

        The perturbation is recovered inside the moved weights, so that no memory is spent on it.
        """
        try:
            _foreach(torch._foreach_sub_, self.parameters, self.backup)  # now they hold e
            squared = _inner([(e, e) for e in self.parameters])
            slope = _inner([(e, e.grad) for e in self.parameters if e.grad is not None])
        finally:
            self.restore()
        return StepStatistics(
            gradient_norm=self.gradient_norm,
            perturbed_gradient_norm=global_norms([gradients])[0] if self.finite else math.nan,
            rho_used=self.radius,
            slope=self.slope,
            perturbed_slope=slope,
            squared_length=squared,
        )


@torch.no_grad()
def perturb(
    groups: Sequence[tuple[float, Sequence[Tensor]]],
    *,
    adaptive: bool,
    normalized: bool,
    limit: Callable[[float], float] | None = None,
) -> Perturbation:
    """Move the weights of each ``(rho, parameters)`` group to ``w_p = w + e``, in place.

    Normalized: ``e = rho g / ||g||`` (Foret et al. 2021, arXiv 2010.01412, eq. 2), adaptive:
    ``e = rho T^2 g / ||T g||`` with ``T = |w|`` (Kwon et al. 2021, arXiv 2102.11600, eq. 8); else the same
    without the division. Norms run over all groups; no epsilon is added to them: a zero gradient moves nothing.

    Args:
        groups: radius and parameters; those without a gradient stay.
        adaptive: measure the radius relative to each weight's size.
        normalized: divide by the norm.
        limit: takes the gradient norm and returns the radius that no group may exceed.
    """
    moved = [[p for p in parameters if p.grad is not None] for _, parameters in groups]
    gradients = [[p.grad for p in parameters if p.grad is not None] for parameters in moved]
    weighted = directions = gradients
    if adaptive:
        sizes = [_foreach(torch._foreach_abs, group) for group in moved]
        weighted = [_foreach(torch._foreach_mul, *pair) for pair in zip(sizes, gradients, strict=True)]
        directions = [_foreach(torch._foreach_mul, *pair) for pair in zip(sizes, weighted, strict=True)]
    norms = global_norms(weighted)
    norm = math.hypot(*norms)
    radii = [rho if limit is None else min(rho, limit(norm)) for rho, _ in groups]
    divisor = norm if normalized and norm > 0.0 else 1.0
    parameters = [p for group in moved for p in group]
    perturbation = Perturbation(
        parameters=parameters,
        backup=[p.clone() for p in parameters],
        gradient_norm=norm,
        radius=max(radii),
        slope=sum(rho * n * n for rho, n in zip(radii, norms, strict=True)) / divisor,
    )
    try:
        if perturbation.finite:
            for rho, group, direction in zip(radii, moved, directions, strict=True):
                _foreach(partial(torch._foreach_add_, alpha=rho / divisor), group, direction)
    except BaseException:
        perturbation.restore()
        raise
    return perturbation


def _foreach(operation: Callable[..., Any], *lists: Sequence[Tensor]) -> list[Tensor]:
    """Apply a foreach operation, which itself refuses empty lists."""
    return list(operation(*lists) or ()) if lists[0] else []


def _inner(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    if not pairs:
        return torch.zeros(())
    device = pairs[0][0].device
    return torch.stack([torch.dot(a.flatten(), b.flatten()).to(device) for a, b in pairs]).sum()


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0.0 else math.nan
