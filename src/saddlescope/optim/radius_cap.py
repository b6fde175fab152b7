"""A radius for SAM that leaves no saddle a trap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import require_choice, require_count, require_finite
from saddlescope.curvature.lanczos import lanczos
from saddlescope.optim.closure_hessian import ClosureHessian
from saddlescope.optim.second_pass import RandomState


@dataclass(frozen=True)
class RadiusCap:
    """How far to shrink the radius of normalized SAM where the loss curves down: ``rho_t = min(rho, limit)``.

    Along a unit vector ``v`` of negative mean curvature ``lam = E[v.H_B v]``, a displacement ``x v`` changes
    the gradient ``g_B`` of a batch by ``x H_B v`` and SAM's perturbation by ``rho x H_B v / |g_B|``, so that
    the mean SAM gradient along ``v`` is ``x lam (1 - tau)`` to first order, with the trap number
    ``tau = E[rho |H_B v|^2 / |g_B|] / |lam|``: for ``tau > 1`` SAM contracts ``v`` instead of leaving along
    it. The limit keeps ``tau`` at ``fraction``, which slows the escape by ``1 / (1 - fraction)``:

    - ``form="response"``: ``limit = fraction |lam| |g_B| / E[|H_B v|^2]``, with ``v`` from Lanczos on the
      current batch every ``every`` steps, started from the last ``v``. Both means run over later batches, one
      product each, spread evenly, as many as Lanczos uses: on its own batch ``v`` would seem more curved
      than it is, the more so the smaller the batch.
    - ``form="batch"``: ``limit = fraction |g_B| / |lam_min(H_B)|``, with ``H_B`` of the last Lanczos run alone.
      Half the products.

    There is no limit where no negative curvature is found. A Hessian-vector product costs about 1.4 gradients.
    """

    fraction: float = 0.5
    """The trap number not to exceed, > 0; below 1 SAM leaves every saddle."""
    every: int = 50
    """Steps between Lanczos runs, >= 1."""
    products: int = 8
    """Hessian-vector products of one run, >= 1."""
    form: str = "response"
    """``"response"`` or ``"batch"``."""

    def __post_init__(self) -> None:
        require_finite("fraction", self.fraction, minimum=0.0, exclusive=True)
        require_count("every", self.every, minimum=1)
        require_count("products", self.products, minimum=1)
        require_choice("form", self.form, ("response", "batch"))


class RadiusCapState:
    """What a `RadiusCap` knows at one moment of a training run."""

    def __init__(self, cap: RadiusCap) -> None:
        self.cap = cap
        self.products = 0
        """Hessian-vector products so far."""
        self._steps = 0
        self._vector: Tensor | None = None
        self._curvature = 0.0  # E[v.H_B v]
        self._response = 0.0  # E[|H_B v|^2]
        self._measured = 0

    def observe(self, closure: Callable[[], Any], parameters: Sequence[Tensor], random_state: RandomState) -> None:
        """Take one step's measurements: Lanczos, one product, or nothing. Call it with the gradient at hand."""
        step, self._steps = self._steps % self.cap.every, self._steps + 1
        known = 0 if self._vector is None else len(self._vector)
        if known != sum(p.numel() for p in parameters):  # the first step, or parameters were added or unfrozen
            self._vector, step = None, 0
        stride = math.ceil(self.cap.every / (self.cap.products + 1))
        if step == 0:
            self._find_direction(ClosureHessian(closure, parameters, random_state))
        elif self.cap.form == "response" and step % stride == 0:
            self._measure(ClosureHessian(closure, parameters, random_state))

    def limit(self, gradient_norm: float) -> float:
        """Return the largest radius to use with a gradient of this norm; infinite for no limit."""
        if self._curvature >= 0.0:
            return math.inf
        return self.cap.fraction * -self._curvature * gradient_norm / self._response

    def _find_direction(self, hessian: ClosureHessian) -> None:
        if self._vector is None:
            generator = torch.Generator().manual_seed(0)
            self._vector = torch.randn(len(hessian.gradient), generator=generator).to(hessian.gradient)
            self._measured = 0
        spaces = list(lanczos(hessian, self._vector, self.cap.products))
        self.products += len(spaces)
        if not spaces:  # a product was not finite: keep what was known
            return
        self._vector = spaces[-1].vector(0)
        if self.cap.form == "batch":
            self._curvature = float(spaces[-1].values[0])
            self._response = self._curvature**2
        elif self._measured == 0:
            self._measure(hessian)

    def _measure(self, hessian: ClosureHessian) -> None:
        assert self._vector is not None
        product = hessian(self._vector)
        curvature, response = float(self._vector @ product), float(product.square().sum())
        self.products += 1
        if math.isfinite(response):
            self._measured += 1
            weight = 1.0 / min(self._measured, self.cap.products)
            self._curvature += weight * (curvature - self._curvature)
            self._response += weight * (response - self._response)

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements, for `load_state_dict`."""
        return {k: v for k, v in vars(self).items() if k != "cap"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the measurements of another run."""
        vars(self).update(state)
