"""Whether SAM would let go of the direction in which the loss curves down, measured beside a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from saddlescope.curvature.lanczos import KrylovSpace, lanczos
from saddlescope.optim.closure_hessian import ClosureHessian
from saddlescope.optim.sam import SAM
from saddlescope.optim.second_pass import RandomState
from saddlescope.optim.variants.asam import ASAM
from saddlescope.optim.variants.variant import Variant
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.monitor.plateau import Plateau
from saddlescope.training.monitor.without_trace import without_trace


@dataclass(frozen=True, kw_only=True)
class TrapCheck:
    """The trap number along one direction ``v``, found on one batch and measured on others.

    ``tau = rho E[<H_B v, D H_B v> / n_B] / |E[v.H_B v]|``, where SAM's perturbation is ``rho D g_B / n_B``: ``D = 1``
    and ``n_B = ||g_B||`` for plain SAM, ``n_B = 1`` unnormalized, ``D = T^2`` and ``n_B = ||T g_B||`` adaptive. A
    displacement ``x v`` from a saddle changes the mean SAM gradient along ``v`` by ``x lam (1 - tau)`` to first order:
    above 1 SAM turns back. Both means run over the batches of later steps, not the one that ``v`` was chosen on.
    """

    step: int
    reason: str
    """``"schedule"``, ``"plateau"`` or ``"confirm"``."""
    curvature: Estimate
    """``lam = E[v.H_B v]``, an upper bound of the smallest eigenvalue of the mean Hessian."""
    trap_number: Estimate
    """``tau``, its error by the jackknife over batches; 0 for ``rho = 0``; NaN unless ``lam`` is negative."""
    critical_rho: Estimate
    """The radius at which ``tau = 1``: SAM with a larger one turns back to this saddle."""
    minimum: float
    """Smallest Ritz value of the batch that ``v`` was found on."""
    maximum: float
    """Largest Ritz value there."""
    residual: float
    """``|H v - minimum v|`` there."""
    gradient_norm: float
    """Mean of ``||g_B||``."""
    rho: float
    """Mean radius of these steps, after a cap or a schedule, the largest one over the parameter groups; 0 without SAM,
    and for variants that climb something else than the gradient (`MomentumSAM`, say): ``tau`` is not about them."""
    products: int
    """Hessian-vector products spent."""
    seconds: float

    @property
    def batches(self) -> int:
        """Batches that the means run over."""
        return self.curvature.samples

    @property
    def negative(self) -> bool:
        """Whether the mean curvature along ``v`` is below zero beyond its error."""
        return self.curvature.high < 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON, an estimate's error under its name with ``_error``."""
        numbers: dict[str, Any] = {"batches": self.batches}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Estimate):
                numbers |= {field.name: value.value, f"{field.name}_error": value.error}
            else:
                numbers[field.name] = value
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}


class TrapProbe:
    """Makes the measurements of one `TrapCheck`, and hands the direction on to the next.

    Weights, gradients, buffers of modules and random numbers are afterwards as they were, also when one throws.
    """

    def __init__(self, optimizer: Optimizer, scaler: GradScaler | None = None) -> None:
        self.optimizer = optimizer
        self.scaler = scaler
        self.vector: Tensor | None = None
        """Unit vector ``v``, shape ``(n,)``; of an earlier check it is where the next search starts."""
        self._ends = (math.nan, math.nan, math.nan)
        self._rows: list[list[float]] = []  # radius, curvature, response, gradient norm

    def search(self, closure: Callable[[], Any], products: int, proceed: Callable[[], bool]) -> int:
        """Find the direction that curves down most on this closure's batch; return the products spent.

        Args:
            closure: zeroes the gradients, runs forward and backward.
            products: at most.
            proceed: asked before each product but the first.
        """
        self._rows = []
        with self._hessian(closure) as (hessian, scale):
            size = len(hessian.gradient)
            start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(hessian.gradient)
            if self.vector is not None and len(self.vector) == size:
                # as much of a random vector finds a direction that is new
                start = start / start.norm() + self.vector.to(start)
            spaces: list[KrylovSpace] = []
            for space in lanczos(lambda v: hessian(v) / scale, start, products):
                spaces.append(space)
                if len(spaces) == products or not proceed():
                    break
        if not spaces:
            raise FloatingPointError("a Hessian product is not finite")
        last = spaces[-1]
        self.vector = last.vector(0)
        self._ends = (float(last.values[0]), float(last.values[-1]), last.residual(0))
        return len(spaces)

    def sample(self, closure: Callable[[], Any]) -> None:
        """Measure curvature and response along ``v`` on another batch, with one product."""
        assert self.vector is not None
        with self._hessian(closure) as (hessian, scale):
            gradient = hessian.gradient / scale
            vector = self.vector.to(gradient)
            product = hessian(vector) / scale
            weight, norm = self._geometry(gradient)
            numbers = torch.stack([vector @ product, (product * weight) @ product / norm, gradient.norm()]).tolist()
        self._rows.append([self._radius(), *numbers])

    @property
    def batches(self) -> int:
        """Batches measured since the last search."""
        return len(self._rows)

    def result(self, *, step: int, reason: str, products: int, seconds: float) -> TrapCheck:
        """Return what the measurements since the last search say."""
        rho, curvature, response, norms = np.array(self._rows).reshape(-1, 4).T
        known = len(rho) > 0 and curvature.mean() < 0.0 < response.mean()
        unknown = Estimate(math.nan, math.nan, len(rho))

        def estimate(statistic: Callable[[np.ndarray], float]) -> Estimate:
            return Estimate.jackknife(statistic, len(rho)) if known else unknown

        return TrapCheck(
            step=step,
            reason=reason,
            curvature=Estimate.mean(curvature),
            trap_number=estimate(lambda i: (rho * response)[i].mean() / -curvature[i].mean()),
            critical_rho=estimate(lambda i: -curvature[i].mean() / response[i].mean()),
            minimum=self._ends[0],
            maximum=self._ends[1],
            residual=self._ends[2],
            gradient_norm=Estimate.mean(norms).value,
            rho=Estimate.mean(rho).value,
            products=products,
            seconds=seconds,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the direction, for `load_state_dict`."""
        return {"vector": self.vector}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next search where another probe ended."""
        self.vector = state["vector"]

    def _radius(self) -> float:
        """Return the radius of the latest step."""
        optimizer = self.optimizer
        if not isinstance(optimizer, SAM) or optimizer.last_step is None or not _climbs_gradient(optimizer.variant):
            return 0.0
        return optimizer.last_step.rho_used

    @torch.no_grad()
    def _geometry(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the diagonal ``D``, with the groups' radii over the largest, and ``n_B``."""
        optimizer, largest = self.optimizer, self._radius()
        is_sam = isinstance(optimizer, SAM)
        variant = optimizer.variant if is_sam else None
        sizes, shares = [], []
        for group in optimizer.param_groups:
            share = min(group["rho"] / largest, 1.0) if largest > 0.0 else 1.0
            for p in group["params"]:
                if p.requires_grad:
                    one = torch.ones_like(p, dtype=gradient.dtype)
                    size = variant.size(p, p.detach()) if isinstance(variant, ASAM) else one
                    sizes.append(size.flatten().to(gradient))
                    shares.append(share * one.flatten())
        size = torch.cat(sizes)
        norm = (size * gradient).norm() if not is_sam or optimizer.normalized else gradient.new_ones(())
        return torch.cat(shares) * size.square(), norm

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    @contextmanager
    def _hessian(self, closure: Callable[[], Any]) -> Iterator[tuple[ClosureHessian, float]]:
        """Yield the Hessian of what the closure differentiates, and by how much a gradient scaler has scaled that."""
        parameters = self._parameters()
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        with without_trace():
            yield ClosureHessian(closure, parameters, RandomState.now(p.device for p in parameters)), scale


def judge(check: TrapCheck, plateau: Plateau) -> str:
    """Return what a check says: ``"trapped"``, ``"slowed"``, ``"free"`` or ``"undetermined"``.

    Trapped: negative curvature, a trap number above 1, both beyond their errors, and a loss that stands still, since
    one crushed direction need not hold up the others. Slowed: a trap number above 1/2, where the escape along ``v``
    takes more than twice the steps of SGD's. Free: one below 1 that is not above 1/2, or a loss that falls while no
    negative curvature was shown. Everything else is undetermined, a loss that stands still without negative curvature
    too: a few products are not enough to rule that out.
    """
    if not check.negative:
        return "free" if plateau.falls else "undetermined"
    if check.trap_number.low > 1.0:
        return "trapped" if plateau.flat else "slowed"
    if check.trap_number.low > 0.5:
        return "slowed"
    return "free" if check.trap_number.high < 1.0 else "undetermined"


def explain(check: TrapCheck, plateau: Plateau) -> str:
    """Return in words what a check found."""
    curvature = f"curvature {check.curvature} over {check.batches} batches"
    if not check.negative:
        return f"No negative curvature was shown ({curvature}); {plateau}."
    if check.rho == 0.0:
        return f"The loss curves down ({curvature}); SAM with a radius above {check.critical_rho} is held; {plateau}."
    number = f"trap number {check.trap_number} at rho = {check.rho:.3g}"
    return f"The loss curves down ({curvature}); {number}, radii below {check.critical_rho} let go; {plateau}."


def _climbs_gradient(variant: Variant) -> bool:
    """Whether the ascent is along the batch's gradient, weighted or not, which is what the trap number is about."""
    return isinstance(variant, ASAM) or not variant.uncapped
