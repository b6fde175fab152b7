"""Sharpness-Aware Minimization around any torch optimizer."""

# A private name of torch, which its own optimizers use too.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from saddlescope._checks import refuse, require_finite
from saddlescope.optim.base_step import step_base
from saddlescope.optim.compatibility import usable_base, usable_schedule, usable_variant
from saddlescope.optim.distributed import over_all_ranks, unsynchronized
from saddlescope.optim.excursion import Excursion
from saddlescope.optim.gradients import gradient_norm
from saddlescope.optim.micro_batches import GradientMean
from saddlescope.optim.radius_cap import RadiusCap
from saddlescope.optim.second_pass import RandomState, repeated_pass
from saddlescope.optim.step_statistics import StepStatistics
from saddlescope.optim.variants.asam import ASAM
from saddlescope.optim.variants.schedules import Schedule
from saddlescope.optim.variants.variant import Variant

Closure = Callable[[], Tensor]


class SAM(Optimizer):
    """SAM (Foret et al. 2021, arXiv 2010.01412): the base optimizer steps with the gradient at ``w_p``.

    ``w_p = w + rho g / ||g||``, with ``g`` the gradient at ``w`` and the norm over all parameter groups;
    ``normalized=False``: ``w_p = w + rho g``. No epsilon is added to the norm; where it is zero, ``w_p = w``.

    A ``variant`` ascends along something else or changes the second gradient: `ASAM`, `FriendlySAM`,
    `LookaheadSAM`, `MomentumSAM`, `StableSAM`, `VaSSO`. A ``schedule`` leaves SAM to a part of the steps: `Every`,
    `Phase`, `AfterPlateau`; the others are the base's own, of one pass. All that is said here holds for them too.

    The parameter groups, the state and the defaults *are* the base's, so that a scheduler built on either
    acts on both; each group has its own ``rho``, and with ``maximize=True`` ``w_p`` lies downhill. Afterwards
    the weights are restored bit for bit, also when the second pass throws. Extra memory: one copy of the
    weights. On a CPU ``step(closure)`` keeps none from step to step: it writes the moved weights over the first
    pass's gradients, unless somebody else holds these, and the closure finds them gone at its second call.

    The second pass repeats the dropout masks of the first and leaves the running statistics of norm layers
    alone, without being handed the model. In ``step(closure)`` that happens by itself; those who drive the
    two steps write ``with opt.second_pass():`` around theirs, which repeats the random numbers drawn since
    the last ``zero_grad()`` or ``second_step()``.

    **Gradients that are not finite.** A step is skipped, and counted in ``skipped_steps``, when the gradient
    of either pass is not finite: weights and base state then stay as they are. Norms and step lengths stay on
    the device. ``step(closure)`` reads one number from it, at its end, for this decision; with a base that
    takes it on the device (torch's ``fused=True``, from its second step on) none. Until then a second pass may
    have run at weights that are NaN where the gradient was infinite; nothing of it remains. When the passes
    are driven by hand, `first_step` and `perturbed` read the norm as well, and do not move to such weights.
    ``skip_nonfinite=False`` reads nothing and hands every gradient to the base, as torch does.

    **Mixed precision.** With a ``torch.amp.GradScaler``, call ``step(closure, scaler=scaler)``, where the
    closure runs ``scaler.scale(loss).backward()``, and then ``scaler.update()``; not ``scaler.step(opt)``. A
    gradient that is not finite in either pass lowers the scale once.

    **Weights in half precision.** ``w + e`` is computed in float32 and rounded once, to the nearest point there
    is. It need not be near: of 11 million normal weights of standard deviation 0.02 in bfloat16, ``rho = 0.05``
    moves 17 %, since most entries of ``e`` are below half the spacing of the numbers, and the cosine between
    the move and ``e`` is 0.56 (``rho = 0.5``: 0.976, ``rho = 2``: 0.9985). This is not the rounding's fault:
    no move of those weights by one spacing or none has a cosine above 0.76, and rounding at random only adds
    noise. Autocast does the same to float32 weights, product by product. A small radius needs the second pass
    in float32. ``last_step`` is computed from the move that was made, so ``rayleigh`` stays right.

    **Driving the passes by hand.** ``zero_grad(); backward(); first_step()`` at ``w``, then ``zero_grad();
    backward(); second_step()`` inside ``second_pass()`` at ``w_p``. When `needs_gradient` is false, the step has one
    pass and the evaluation at ``w`` may be left out: ``zero_grad()`` and go on with ``first_step()``. One made all the
    same changes nothing but the time.

    **Batches in parts.** A closure may run ``backward()`` on several micro-batches: ``g`` is then the sum over
    them. ``step(micro_batches=[...])`` takes one closure for each instead, and every one ascends along its own
    gradient (m-sharpness, Foret et al. 2021, section 4.1); the base steps with the mean.

    Args:
        base: a torch optimizer; or the parameters, followed by the optimizer's class.
        base_optimizer: the class, when ``base`` holds parameters.
        rho: radius of the perturbation, >= 0 (a length in weight space; ``normalized=False``: one over a
            curvature). A parameter group may bring its own.
        adaptive: short for ``variant=ASAM(eta=0.0, biases=True)``: ``T = |w|`` for every parameter.
        normalized: divide the ascent gradient by its norm.
        variant: what to do differently from SAM; None for nothing.
        schedule: when to do it; None for always.
        radius_cap: shrink the radius where SAM would be trapped at a saddle; reads the gradient norm at every
            step, and needs ``step(closure)`` if it takes Hessian products.
        max_grad_norm: shorten the gradient of the second pass to this norm, as
            ``torch.nn.utils.clip_grad_norm_`` does; that of the first only gives a direction.
        repeat_random: repeat the random numbers of the first pass in the second.
        freeze_statistics: count a batch once in the running statistics of norm layers.
        skip_nonfinite: see above.
        statistics: let ``last_step`` have cosine and Rayleigh quotient, at the price of six more passes
            over the weights in memory, beside 14 without (13 with ``skip_nonfinite=False`` too, when nothing
            needs the second gradient's norm, and ``last_step`` has none).
        sync_perturbation: with a ``DistributedDataParallel`` model, ascend along the gradient of all ranks. False:
            each rank along its own, and one communication less; in ``step``, as those who drive the two steps
            use the model's ``no_sync()`` in the first. The second gradient, and the step, are of all ranks.
        options: for the optimizer's class.

    Raises:
        ValueError: for a base that is none or that cannot be driven with two gradients (LBFGS), for one with
            a ``rho`` of its own or without what the variant needs, for ``adaptive=True`` beside a variant, and for
            ``radius_cap`` beside ``normalized=False``, a variant that its rule is not about, or
            ``statistics=False`` if it goes by these.

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

    # Has GradScaler.step(opt), which cannot work, call step() and be refused there even after an infinite gradient:
    # else it would leave the weights perturbed without a word.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        base: Optimizer | ParamsT,
        base_optimizer: type[Optimizer] | None = None,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        normalized: bool = True,
        variant: Variant | None = None,
        schedule: Schedule | None = None,
        radius_cap: RadiusCap | None = None,
        max_grad_norm: float | None = None,
        repeat_random: bool = True,
        freeze_statistics: bool = True,
        skip_nonfinite: bool = True,
        statistics: bool = True,
        sync_perturbation: bool = True,
        **options: Any,
    ) -> None:
        base = usable_base(base, base_optimizer, options)
        self.variant = usable_variant(
            base,
            variant,
            adaptive=adaptive,
            normalized=normalized,
            radius_cap=radius_cap,
            sync_perturbation=sync_perturbation,
            statistics=statistics,
        )
        self.base = base
        self.normalized = normalized
        if max_grad_norm is not None:
            require_finite("max_grad_norm", max_grad_norm, minimum=0.0, exclusive=True)
        self.max_grad_norm = max_grad_norm
        self.repeat_random = repeat_random
        self.freeze_statistics = freeze_statistics
        self.skip_nonfinite = skip_nonfinite
        self.statistics = statistics
        self.sync_perturbation = sync_perturbation
        self.last_step: StepStatistics | None = None
        self._skipped: Tensor | int = 0
        self._excursion = Excursion(self.variant, usable_schedule(schedule), radius_cap)
        super().__setstate__({})  # hooks and profiling; groups and state stay the base's
        for group in self.param_groups:
            group["rho"] = require_finite("rho", group.get("rho", rho), minimum=0.0)
        self.defaults["rho"] = require_finite("rho", rho, minimum=0.0)  # for groups to come, added to either
        self._random_state: RandomState | None = self._random_state_now()
        """Before the first pass; None if there was none, with nothing to repeat in the second."""

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
    def adaptive(self) -> bool:
        """Whether ``rho`` is a share of each weight and not a length."""
        return isinstance(self.variant, ASAM)

    @property
    def needs_gradient(self) -> bool:
        """Whether the next step takes a gradient at ``w`` too; if not, it has one pass."""
        return self._excursion.needs_gradient

    @property
    def skipped_steps(self) -> int:
        """Steps not made because a gradient was not finite; reads from the device if the base decides there."""
        return int(self._skipped)

    @property
    def hessian_products(self) -> int:
        """Hessian-vector products the radius cap has used; each costs 1.4 to 2.6 gradients."""
        return 0 if self._excursion.cap is None else self._excursion.cap.products

    @property
    def _needs_closure(self) -> bool:
        return self._excursion.cap is not None and self._excursion.cap.cap.needs_closure

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base, with ``rho`` from the group or as for the others."""
        require_finite("rho", param_group.get("rho", self.defaults["rho"]), minimum=0.0)
        self.base.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, as the base does."""
        self.base.zero_grad(set_to_none)
        if not self._excursion.under_way:
            self._random_state = self._random_state_now()

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        closure: Closure | None = None,
        *,
        micro_batches: Sequence[Closure] | None = None,
        scaler: GradScaler | None = None,
    ) -> Tensor:
        """Make one SAM step and return the loss of the first pass, at the unperturbed weights.

        Args:
            closure: zeroes the gradients, runs forward and backward, returns the loss; called once for each pass.
            micro_batches: one such closure for each of several equally large parts of the batch, instead: each
                has its own ascent direction. The loss returned is their mean; ``last_step`` is of the last.
            scaler: the gradient scaler that the closure scales its loss with.

        Raises:
            ValueError: without a closure, with both, between `first_step` and `second_step`, and for
                ``micro_batches`` with a ``radius_cap`` that takes Hessian products.
        """
        if (closure is None) == (not micro_batches):
            raise refuse(
                "closure",
                None if closure is None else "a closure beside micro_batches",
                "a function that evaluates",
                "or micro_batches=[...], or first_step() and second_step(); a gradient scaler: scaler=scaler to each",
            )
        self._excursion.prepare("step")
        if closure is not None:
            loss, norm, ascent_norm = self._evaluate(closure, scaler)
            self._step_base(norm, ascent_norm, scaler, loss)
            return loss
        assert micro_batches is not None
        if self._needs_closure:
            raise refuse("micro_batches", "a radius cap of Hessian products", "none", 'use RadiusCap(form="ascent")')
        parameters, mean = self._parameters(), GradientMean(len(micro_batches))
        losses, ascent_norms = [], []
        for part in micro_batches:
            loss, _, ascent_norm = self._evaluate(part, scaler)
            losses.append(loss.detach())
            ascent_norms.append(ascent_norm)
            mean.take(parameters)
        mean.give(parameters)
        loss = torch.stack(losses).mean()
        norm = gradient_norm(self._parameters(), self._scale(scaler))
        self._step_base(norm, torch.stack(ascent_norms).sum(), scaler, loss)
        return loss

    def first_step(self, zero_grad: bool = False, *, scaler: GradScaler | None = None) -> None:
        """Move to ``w_p``, given the gradients at ``w``; then evaluate there and call `second_step`.

        Args:
            zero_grad: forget the gradients afterwards.
            scaler: the gradient scaler that the loss was scaled with.

        Raises:
            ValueError: when the weights are moved already, or with a ``radius_cap`` that needs the closure.
        """
        self._excursion.prepare("first_step")
        if self._needs_closure:
            raise refuse("first_step", "radius_cap", "no radius cap", "it needs Hessian products: step(closure)")
        if not self.needs_gradient and all(p.grad is None for p in self._parameters()):
            self._random_state = None
        self._move(scaler, stay_finite=self.skip_nonfinite)
        if zero_grad:
            self.zero_grad()

    def second_step(
        self, zero_grad: bool = False, *, scaler: GradScaler | None = None, loss: Tensor | None = None
    ) -> None:
        """Return to ``w`` and step the base with the gradients taken at ``w_p``.

        Args:
            zero_grad: forget the gradients afterwards.
            scaler: the gradient scaler that the loss was scaled with.
            loss: that of the first pass, for a schedule that goes by it.

        Raises:
            ValueError: without a `first_step` before, and without a loss that the schedule needs.
        """
        if not self._excursion.under_way:
            raise refuse("second_step", "unperturbed weights", "first_step() before it")
        self._excursion.progress.require(loss)
        self._step_base(*self._move_back(scaler), scaler, loss)
        self._opt_called = True  # for schedulers, which look for a call of step()
        if zero_grad:
            self.zero_grad()

    def second_pass(self) -> AbstractContextManager[None]:
        """Evaluate at ``w_p`` inside: dropout masks repeat, batch-norm statistics stay; see the class."""
        return nullcontext() if self._random_state is None else self._repeated(self._random_state)

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Be at ``w_p`` inside, for the gradients at hand, and back at ``w`` bit for bit after."""
        self._excursion.prepare("perturbed")
        try:
            self._move(stay_finite=self.skip_nonfinite)
            yield
            self._excursion.give_up()
        except BaseException:
            self._excursion.give_up()
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state dict with an entry ``"sam"``; it resumes a run bit for bit.

        Between the two steps, when the model's own state dict has the perturbed weights, the entry has the
        weights to return to.
        """
        own: dict[str, Any] = {
            "skipped_steps": self.skipped_steps,
            "excursion": self._excursion.state_dict(self._all_parameters()),
            "random_state": None,
        }
        if self._excursion.under_way and self._random_state is not None:
            own["random_state"] = self._random_state.state_dict()
        return {**self.base.state_dict(), "sam": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; weights moved by a `first_step` return first.

        Raises:
            ValueError: for the state of another optimizer, or of a SAM of another variant or without this cap.
        """
        own = state_dict.get("sam")
        if own is None:
            raise refuse("state_dict", sorted(state_dict), 'an entry "sam"', "load a base's state before wrapping it")
        self._excursion.require_like(own["excursion"])
        self._excursion.give_up()
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "sam"})
        self._skipped = own["skipped_steps"]
        self._excursion.load_state_dict(own["excursion"], self._all_parameters())
        self._random_state = self._random_state_now()
        if self._excursion.under_way:
            first = own["random_state"]
            self._random_state = None if first is None else RandomState.from_state_dict(first)

    def __getstate__(self) -> dict[str, Any]:
        # Like torch's, without hooks, without the step that a scheduler has wrapped.
        return {k: v for k, v in vars(self).items() if k != "step" and "hook" not in k}

    @torch._disable_dynamo  # a compiled step loses attributes set between the closure's graph breaks
    def _evaluate(self, closure: Closure, scaler: GradScaler | None) -> tuple[Tensor, Tensor, Tensor]:
        """Leave the gradients to step with, and the weights as they were; return loss, norm, and ascent norm."""
        random_state = self._random_state_now()
        try:
            with torch.enable_grad():
                if not self.needs_gradient:
                    self._move(scaler)
                    loss = closure()
                    return loss, *self._move_back(scaler)
                with nullcontext() if self.sync_perturbation else unsynchronized():
                    loss = closure()
                if self._excursion.cap is not None:
                    self._excursion.cap.observe(closure, self._parameters(), random_state, self._scale(scaler))
                self._move(scaler, keep_gradients=False)
                with self._repeated(random_state):
                    closure()
            return loss, *self._move_back(scaler)
        except BaseException:
            self._excursion.give_up()
            raise

    def _move(
        self, scaler: GradScaler | None = None, *, stay_finite: bool = False, keep_gradients: bool = True
    ) -> None:
        self._excursion.leave(
            self.param_groups,
            stay_finite=stay_finite,
            base=self.base,
            normalized=self.normalized,
            statistics=self.statistics,
            scale=self._scale(scaler),
            keep_gradients=keep_gradients,
        )

    def _move_back(self, scaler: GradScaler | None) -> tuple[Tensor, Tensor]:
        """Return the norms of the gradient to step with and of the ascent's."""
        norm = self.statistics or self.variant.needs_second_norm or self._norm_decides(scaler)
        self.last_step = last = self._excursion.come_back(self._parameters(), self._scale(scaler), norm=norm)
        return self._excursion.finish([p.grad for p in self._parameters() if p.grad is not None], last), last.norm

    def _norm_decides(self, scaler: GradScaler | None) -> bool:
        """Whether the step of the base depends on the norm of its gradient."""
        return self.skip_nonfinite or self.max_grad_norm is not None or (scaler is not None and scaler.is_enabled())

    def _step_base(self, norm: Tensor, ascent_norm: Tensor, scaler: GradScaler | None, loss: Tensor | None) -> None:
        evidence = norm + ascent_norm.to(norm.device)
        skipped = step_base(
            self.base,
            norm,
            evidence if self.sync_perturbation else over_all_ranks(evidence),
            skip_nonfinite=self.skip_nonfinite,
            max_grad_norm=self.max_grad_norm,
            scaler=scaler if scaler is not None and scaler.is_enabled() else None,
        )
        self._skipped += skipped
        self._excursion.settle(skipped, loss)
        self._random_state = self._random_state_now()

    def _repeated(self, first: RandomState) -> AbstractContextManager[None]:
        return repeated_pass(first, repeat_random=self.repeat_random, freeze_statistics=self.freeze_statistics)

    def _all_parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _parameters(self) -> list[Tensor]:
        return [p for p in self._all_parameters() if p.requires_grad]

    def _scale(self, scaler: GradScaler | None) -> Tensor | None:
        """Return the scale, 0-d, without reading it from the device."""
        if scaler is None or not scaler.is_enabled():
            return None
        return cast(Tensor, scaler.scale(torch.ones((), device=self._parameters()[0].device)))

    def _random_state_now(self) -> RandomState:
        return RandomState.now(p.device for p in self._parameters())
