"""Sharpness-Aware Minimization around any torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import ParamsT

from saddlescope._checks import refuse, require_finite
from saddlescope.optim.perturbations import Perturbation, StepStatistics, perturb
from saddlescope.optim.radius_cap import RadiusCap, RadiusCapState
from saddlescope.optim.second_pass import RandomState, repeated_pass


class SAM(Optimizer):
    """SAM (Foret et al. 2021, arXiv 2010.01412): the base optimizer steps with the gradient at ``w_p``.

    ``w_p = w + rho g / ||g||``, with ``g`` the gradient at ``w`` and the norm over all parameter groups;
    ``normalized=False``: ``w_p = w + rho g``; ``adaptive=True`` (ASAM, Kwon et al. 2021, arXiv 2102.11600):
    ``w_p = w + rho T^2 g / ||T g||`` with ``T = |w|``. No epsilon is added to the norm; where it is zero,
    ``w_p = w``.

    The parameter groups, the state and the defaults *are* the base's, so that a scheduler built on either
    acts on both; each group has its own ``rho``. Afterwards the weights are restored bit for bit, also when
    the second pass throws. Extra memory: one copy of the weights.

    The second pass repeats the dropout masks of the first and leaves batch-norm statistics alone, without
    being handed the model. In ``step(closure)`` that happens by itself; those who drive the two steps write
    ``with opt.second_pass():`` around theirs, which repeats the random numbers drawn since the last
    ``zero_grad()`` or ``second_step()``.

    A step is skipped, and counted in ``skipped_steps``, when the gradient of either pass is not finite:
    weights and base state then stay as they are.

    Args:
        base: a torch optimizer; or the parameters, followed by the optimizer's class.
        base_optimizer: the class, when ``base`` holds parameters.
        rho: radius of the perturbation, >= 0 (a length in weight space; ``normalized=False``: one over a
            curvature). A parameter group may bring its own.
        adaptive: measure the radius relative to the size of each weight.
        normalized: divide the ascent gradient by its norm.
        radius_cap: shrink the radius where SAM would be trapped at a saddle; needs ``step(closure)``.
        options: for the optimizer's class.

    Raises:
        ValueError: for a base that is none or that cannot be driven with two gradients (LBFGS), for one with
            a ``rho`` of its own, and for ``radius_cap`` beside ``adaptive=True`` or ``normalized=False``.

    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> opt = SAM(torch.optim.SGD([w], lr=0.1), rho=1.0)
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> opt.step(closure).item(), w.item()
    (1.0, 0.6...)
    >>> opt.last_step.rayleigh
    2.0
    """

    def __init__(
        self,
        base: Optimizer | ParamsT,
        base_optimizer: type[Optimizer] | None = None,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        normalized: bool = True,
        radius_cap: RadiusCap | None = None,
        **options: Any,
    ) -> None:
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
        if radius_cap is not None and (adaptive or not normalized):
            raise refuse("radius_cap", radius_cap, "None with adaptive=True or normalized=False")
        self.base = base
        self.adaptive = adaptive
        self.normalized = normalized
        self.skipped_steps = 0
        self.last_step: StepStatistics | None = None
        self._cap = None if radius_cap is None else RadiusCapState(radius_cap)
        self._perturbation: Perturbation | None = None
        super().__setstate__({})  # hooks and profiling; groups and state stay the base's
        for group in self.param_groups:
            group["rho"] = require_finite("rho", group.get("rho", rho), minimum=0.0)
        self.defaults["rho"] = require_finite("rho", rho, minimum=0.0)  # for groups to come, added to either
        self._random_state = self._random_state_now()

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's parameter groups, each with its ``rho``."""
        return self.base.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's state."""
        return self.base.state

    @property
    def defaults(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's defaults and ``rho``."""
        return self.base.defaults

    @property
    def hessian_products(self) -> int:
        """Hessian-vector products the radius cap has used; each costs about 1.4 gradients."""
        return 0 if self._cap is None else self._cap.products

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base, with ``rho`` from the group or as for the others."""
        require_finite("rho", param_group.get("rho", self.defaults["rho"]), minimum=0.0)
        self.base.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, as the base does."""
        self.base.zero_grad(set_to_none)
        if self._perturbation is None:
            self._random_state = self._random_state_now()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make one SAM step and return the loss at the unperturbed weights.

        Args:
            closure: zeroes the gradients, runs forward and backward, returns the loss; called twice.

        Raises:
            ValueError: without a closure, or between ``first_step`` and ``second_step``.
        """
        if closure is None:
            raise refuse("closure", None, "a function that evaluates", "or call first_step() and second_step()")
        self._require_unperturbed("step")
        random_state = self._random_state_now()
        with torch.enable_grad():
            loss = closure()
            if self._cap is not None:
                self._cap.observe(closure, self._parameters(), random_state)
            perturbation = self._perturb()
            try:
                if perturbation.finite:
                    with repeated_pass(random_state):
                        closure()
            except BaseException:
                self._restore()
                raise
        self.second_step()
        return loss

    def first_step(self, zero_grad: bool = False) -> None:
        """Move to ``w_p``, given the gradients at ``w``; then evaluate there and call `second_step`.

        Raises:
            ValueError: when the weights are moved already, or with a ``radius_cap``, which needs the closure.
        """
        self._require_unperturbed("first_step")
        if self._cap is not None:
            raise refuse("first_step", "radius_cap", "no radius cap", "it needs Hessian products: step(closure)")
        self._perturb()
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Return to ``w`` and step the base with the gradients taken at ``w_p``.

        Raises:
            ValueError: without a `first_step` before.
        """
        if self._perturbation is None:
            raise refuse("second_step", "unperturbed weights", "first_step() before it")
        perturbation, self._perturbation = self._perturbation, None
        self.last_step = perturbation.measure_and_restore(self._gradients())
        if math.isfinite(self.last_step.perturbed_gradient_norm):
            self.base.step()
        else:
            self.skipped_steps += 1
        self._opt_called = True  # for schedulers, which look for a call of step()
        if zero_grad:
            self.zero_grad()
        self._random_state = self._random_state_now()

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """Evaluate at ``w_p`` inside: dropout masks repeat, batch-norm statistics stay; see the class."""
        with repeated_pass(self._random_state):
            yield

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Be at ``w_p`` inside, for the gradients at hand, and back at ``w`` bit for bit after."""
        self._require_unperturbed("perturbed")
        self._perturb()
        try:
            yield
        finally:
            self._restore()

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state dict with an entry ``"sam"``; it resumes a run bit for bit.

        Raises:
            ValueError: between the two steps, when the model holds perturbed weights.
        """
        self._require_unperturbed("state_dict")
        cap = None if self._cap is None else self._cap.state_dict()
        return {**self.base.state_dict(), "sam": {"skipped_steps": self.skipped_steps, "radius_cap": cap}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: for the state of another optimizer, or of a SAM with a cap for one without.
        """
        own = state_dict.get("sam")
        if own is None:
            raise refuse("state_dict", sorted(state_dict), 'an entry "sam"', "load a base's state before wrapping it")
        if (own["radius_cap"] is None) != (self._cap is None):
            raise refuse("state_dict", "a radius cap on one side only", "the same on both", "set radius_cap alike")
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "sam"})
        self.skipped_steps = own["skipped_steps"]
        if self._cap is not None:
            self._cap.load_state_dict(own["radius_cap"])

    def __getstate__(self) -> dict[str, Any]:
        # Like torch's, without hooks and without the step that a scheduler has wrapped.
        return {k: v for k, v in vars(self).items() if k != "step" and "hook" not in k}

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters() if p.grad is not None]

    def _random_state_now(self) -> RandomState:
        return RandomState.now(p.device for p in self._parameters())

    def _require_unperturbed(self, method: str) -> None:
        if self._perturbation is not None:
            raise refuse(method, "weights moved by first_step()", "weights at rest", "call second_step() first")

    def _perturb(self) -> Perturbation:
        self._perturbation = perturb(
            [(group["rho"], group["params"]) for group in self.param_groups],
            adaptive=self.adaptive,
            normalized=self.normalized,
            limit=None if self._cap is None else self._cap.limit,
        )
        return self._perturbation

    def _restore(self) -> None:
        assert self._perturbation is not None
        self._perturbation.restore()
        self._perturbation = None
