"""A radius for SAM that leaves no saddle a trap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import refuse, require_choice, require_count, require_finite
from saddlescope.curvature.lanczos import lanczos
from saddlescope.optim.ascent_response import ascent_response
from saddlescope.optim.closure_hessian import ClosureHessian
from saddlescope.optim.second_pass import RandomState
from saddlescope.optim.step_statistics import StepStatistics

GRAPH, PRODUCT = 1.0, 2.6
"""Gradients that the graph for Hessian products costs, and each product in it: the most that was measured on a CPU
(0.95 to 1.04 and, from perceptrons to residual networks with batch norm, 1.4 to 2.6)."""
MEMORY = 10
"""Steps over which the response along the ascent is averaged."""


@dataclass(frozen=True)
class RadiusCap:
    """How far to shrink the radius of normalized SAM where the loss curves down: ``rho_t = min(rho, limit)``.

    Along a unit vector ``v`` of negative mean curvature ``lam = E[v.H_B v]``, a displacement ``x v`` changes
    the gradient ``g_B`` of a batch by ``x H_B v`` and SAM's perturbation by ``rho x H_B v / |g_B|``, so that
    the mean SAM gradient along ``v`` is ``x lam (1 - tau)`` to first order, with the trap number
    ``tau = E[rho |H_B v|^2 / |g_B|] / |lam|``: for ``tau > 1`` SAM contracts ``v`` instead of leaving along
    it, for ``tau < 1`` the escape takes ``1 / (1 - tau)`` times the steps of the base. The limits:

    - ``form="ascent"``: ``limit = fraction |g_B| / R``, ``R`` the running mean over 10 steps of
      ``|g_p - g_B| / |e|``, which the two passes of each step tell without any product: the perturbation then changes
      the gradient by ``fraction`` of its length. At the first saddle of a net the gradient lies where the loss curves
      most, up or down alike, so that ``R`` is close to ``|lam|``; ``tau`` comes out at about twice the fraction. The
      limit holds later too, where sharp directions would throw a large radius back into the saddle, and a radius
      above it is not reached: a larger fraction leaves more of SAM and escapes later. The response along the ascent
      counts too, though only the part across it turns a gradient: a run that is held bounces along an eigenvector
      of positive curvature, where there is no part across, and sees what it would see in a valley without a saddle.
      Both passes must see the same samples and random numbers, on all ranks, as whatever else parts the gradients
      counts as response.
    - ``form="response"``: ``limit = fraction |lam| |g_B| / E[|H_B v|^2]``, which makes ``tau`` the fraction, with
      ``v`` from Lanczos on the current batch every ``every`` steps, started from the last ``v``. Both means run over
      later batches, one product each, spread evenly, as many as Lanczos uses: on its own batch ``v`` would seem more
      curved than it is, the more so the smaller the batch.
    - ``form="batch"``: ``limit = fraction |g_B| / |lam_min(H_B)|``, with ``H_B`` of the last Lanczos run alone.
      Half the products.

    The latter two set no limit where they find no negative curvature: where they lose ``v``, as on residual nets at
    small batches, they let a run fall back. What they spend stays below ``budget``, counted in gradients: 1 for each
    batch that is looked at and 2.6 for each product, the most that was measured on a CPU.
    """

    fraction: float = 0.15
    """What not to exceed: the trap number, or with ``"ascent"`` about half of it; > 0."""
    every: int = 50
    """Steps between Lanczos runs, >= 1."""
    products: int = 8
    """Hessian-vector products of one run, >= 1."""
    form: str = "ascent"
    """``"ascent"``, ``"response"`` or ``"batch"``."""
    budget: float = 0.1
    """Share of the time of SAM's two passes that Hessian-vector products may take, > 0."""
    horizon: int = 2000
    """Steps that the share is of while there were fewer, >= 1: early on, where the saddles are, more may be spent."""

    @property
    def needs_closure(self) -> bool:
        """Whether it takes Hessian products, hence ``step(closure)``; else it goes by the statistics of each step."""
        return self.form != "ascent"

    def __post_init__(self) -> None:
        require_finite("fraction", self.fraction, minimum=0.0, exclusive=True)
        require_count("every", self.every, minimum=1)
        require_count("products", self.products, minimum=1)
        require_choice("form", self.form, ("ascent", "response", "batch"))
        require_finite("budget", self.budget, minimum=0.0, exclusive=True)
        require_count("horizon", self.horizon, minimum=1)
        run = _gradients(self.products + (self.form == "response"))  # the first has one more
        if self.needs_closure and run > 2.0 * self.budget * self.horizon:
            raise refuse(
                "products",
                self.products,
                f"a run within the budget of {2.0 * self.budget * self.horizon:g} gradients (it takes {run:g})",
                "raise budget or horizon",
            )


class RadiusCapState:
    """What a `RadiusCap` knows at one moment of a training run.

    >>> state = RadiusCapState(RadiusCap(fraction=0.5))
    >>> state.limit(2.0)
    inf
    """

    def __init__(self, cap: RadiusCap) -> None:
        self.cap = cap
        self.products = 0
        """Hessian-vector products so far."""
        self.spent = 0.0
        """What they and their graphs have cost, in gradients; see the budget."""
        self._steps = 0
        self._search_due = True
        self._vector: Tensor | None = None
        self._curvature = 0.0  # E[v.H_B v]
        self._response = 0.0  # E[|H_B v|^2]
        self._measured = 0
        self._along_ascent: float | None = None

    def observe(
        self,
        closure: Callable[[], Any],
        parameters: Sequence[Tensor],
        random_state: RandomState,
        scale: Tensor | None = None,
    ) -> None:
        """Take one step's measurements: Lanczos, one product, or nothing. Call it with the gradient at hand.

        Args:
            closure: zeroes the gradients, runs forward and ``loss.backward()``.
            parameters: what it differentiates in.
            random_state: of torch's generators before it ran.
            scale: that of a gradient scaler, by which its loss is too large.
        """
        if not self.cap.needs_closure:
            return
        cycle, self._steps = self._steps % self.cap.every, self._steps + 1
        sampling = cycle % math.ceil(self.cap.every / (self.cap.products + 1)) == 0
        known = 0 if self._vector is None else len(self._vector)
        if known != sum(p.numel() for p in parameters):  # the first step, or parameters were added or unfrozen
            self._vector, self._measured, self._search_due = None, 0, True
        self._search_due |= cycle == 0
        if self._search_due:
            extra = self.cap.form == "response" and self._measured == 0
            if self._affords(self.cap.products + extra):
                self._find_direction(_Products(closure, parameters, random_state, scale, self))
                self._search_due = False
        elif self.cap.form == "response" and sampling and self._affords(1):
            self._measure(_Products(closure, parameters, random_state, scale, self))

    def learn(self, step: StepStatistics) -> None:
        """Take what the two passes of a step have told."""
        response = math.nan if self.cap.needs_closure else ascent_response(step)
        if math.isfinite(response):
            known = response if self._along_ascent is None else self._along_ascent
            self._along_ascent = known + (response - known) / MEMORY

    def limit(self, gradient_norm: float) -> float:
        """Return the largest radius to use with a gradient of this norm; infinite for no limit."""
        if not self.cap.needs_closure:
            return self.cap.fraction * gradient_norm / self._along_ascent if self._along_ascent else math.inf
        if self._curvature >= 0.0:
            return math.inf
        return self.cap.fraction * -self._curvature * gradient_norm / self._response

    def _affords(self, products: int) -> bool:
        steps = max(self._steps, self.cap.horizon)
        return self.spent + _gradients(products) <= 2.0 * self.cap.budget * steps

    def _find_direction(self, hessian: _Products) -> None:
        if self._vector is None:
            generator = torch.Generator().manual_seed(0)
            self._vector = torch.randn(len(hessian.gradient), generator=generator).to(hessian.gradient)
        spaces = list(lanczos(hessian, self._vector, self.cap.products))
        if not spaces:  # a product was not finite: keep what was known
            return
        self._vector = spaces[-1].vector(0)
        if self.cap.form == "batch":
            self._curvature = float(spaces[-1].values[0])
            self._response = self._curvature**2
        elif self._measured == 0:
            self._measure(hessian)

    def _measure(self, hessian: _Products) -> None:
        assert self._vector is not None
        product = hessian(self._vector)
        curvature, response = torch.stack([self._vector @ product, product.square().sum()]).tolist()
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


class _Products:
    """Products with one batch's Hessian, freed of the scale of a gradient scaler and put on the account."""

    def __init__(
        self,
        closure: Callable[[], Any],
        parameters: Sequence[Tensor],
        random_state: RandomState,
        scale: Tensor | None,
        account: RadiusCapState,
    ) -> None:
        self._hessian = ClosureHessian(closure, parameters, random_state)
        self._scale = scale
        self._account = account
        account.spent += GRAPH
        self.gradient = self._unscaled(self._hessian.gradient)

    def __call__(self, vector: Tensor) -> Tensor:
        self._account.products += 1
        self._account.spent += PRODUCT
        return self._unscaled(self._hessian(vector))

    def _unscaled(self, tensor: Tensor) -> Tensor:
        return tensor if self._scale is None else tensor / self._scale.to(tensor)


def _gradients(products: int) -> float:
    return GRAPH + PRODUCT * products
