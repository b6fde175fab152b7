"""When to check a training for a trap, within a budget, and what the checks together say."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch.amp.grad_scaler import GradScaler
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from saddlescope._checks import require_count
from saddlescope.training.monitor.budget import Budget
from saddlescope.training.monitor.hysteresis import Hysteresis
from saddlescope.training.monitor.plateau import Plateau, find_plateau
from saddlescope.training.monitor.trap_check import TrapCheck, TrapProbe, explain, judge

FAILURES = 3
"""Checks that throw in a row until no more are made."""


class Checker:
    """Makes a check when one is due and the budget has room for it, one part a step: see `StabilityMonitor`.

    Args:
        optimizer: of the training.
        every: steps between checks.
        budget: share of the training's time.
        products: Hessian products of a search.
        samples: batches measured after it, at least; four times as many at most.
        confirm: findings in a row that change the verdict.
        window: steps of a plateau's windows.
        scaler: the gradient scaler that closures scale their loss with.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        every: int,
        budget: float,
        products: int,
        samples: int,
        confirm: int,
        window: int,
        scaler: GradScaler | None,
    ) -> None:
        self._every = require_count("every", every, minimum=1)
        self._products = require_count("products", products, minimum=1)
        self._samples = require_count("samples", samples, minimum=2)
        self._window = require_count("window", window, minimum=2)
        self.account = Budget(budget)
        self.losses: deque[float] = deque(maxlen=2 * window)
        """Those that a plateau is told by."""
        self._hysteresis = Hysteresis(confirm=confirm)
        self._optimizer = optimizer
        self._probe = TrapProbe(optimizer, scaler)
        self._last_check = 0
        self._plateau_checked = False
        self._open: _OpenCheck | None = None
        self._failures = 0
        self._seconds_of_a_product = 0.0

    @property
    def verdict(self) -> str:
        """What the checks so far say."""
        return self._hysteresis.verdict

    @property
    def under_way(self) -> bool:
        """Whether a check waits for another batch."""
        return self._open is not None

    def work(self, step: int, closure: Callable[[], Any], start: float, *, may_begin: bool) -> list[dict[str, Any]]:
        """Do what is due at this step; return records for the log.

        What a check throws is a record too, and ends the check.

        Args:
            step: the number of the step just made.
            closure: what it was made with.
            start: when the work beside the training began, on the clock ``time.perf_counter``.
            may_begin: whether the losses of all steps are known, so that a new check may begin.
        """
        if self._failures == FAILURES:
            return []
        try:
            if self._open is not None:
                return self._measure(self._open, step, closure, start)
            if may_begin and (reason := self._reason(step)):
                self._search(reason, step, closure, start)
        except Exception as error:
            self._open = None
            self._failures += 1
            text = f"{type(error).__name__}: {error}"
            if self._failures == FAILURES:
                warnings.warn(f"the monitor makes no more checks: {FAILURES} failed in a row, {text}", stacklevel=3)
            return [{"type": "error", "step": step, "error": text}]
        return []

    def _reason(self, step: int) -> str | None:
        """Return why to check now; None for no reason, or no room in the budget."""
        plateau = self._plateau()
        self._plateau_checked &= plateau.flat
        pending = self._hysteresis.pending and "trapped" in (self._hysteresis.candidate, self.verdict)
        urgent = pending or (self.verdict == "trapped" and plateau.falls)
        if plateau.flat and not self._plateau_checked:
            reason = "plateau"
        elif urgent:
            reason = "confirm"
        elif step - self._last_check >= self._every:
            reason = "schedule"
        else:
            return None
        # a search builds a graph, a sample builds one and takes a product: each graph about as long as a product
        cost = (self._products + 1 + 2 * self._samples) * self._product_seconds()
        # half of the budget is kept for plateaus and findings to confirm, which do not come on schedule
        if not self.account.allows(cost, 0.5 if reason == "schedule" else 1.0):
            self.account.waits += 1
            return None
        return reason

    def _search(self, reason: str, step: int, closure: Callable[[], Any], start: float) -> None:
        self._last_check, self._plateau_checked = step, self._plateau().flat
        if any(isinstance(p, DTensor) for group in self._optimizer.param_groups for p in group["params"]):
            raise RuntimeError("sharded parameters are not checked")

        def proceed() -> bool:
            return self.account.allows(time.perf_counter() - start + self._product_seconds())

        products = self._probe.search(closure, self._products, proceed)
        seconds = self._took(start, products, products + 1)
        self._open = _OpenCheck(reason=reason, products=products, seconds=seconds)

    def _measure(self, check: _OpenCheck, step: int, closure: Callable[[], Any], start: float) -> list[dict[str, Any]]:
        if not self.account.allows(2 * self._product_seconds()):
            self.account.waits += 1
            return []
        self._probe.sample(closure)
        seconds = check.seconds + self._took(start, 1, 2)
        check = self._open = replace(check, products=check.products + 1, seconds=seconds)
        if self._probe.batches < self._samples:
            return []
        plateau = self._plateau()
        result = self._probe.result(step=step, reason=check.reason, products=check.products, seconds=seconds)
        finding = judge(result, plateau)
        number = result.trap_number
        unsettled = finding == "undetermined" or (plateau.flat and number.low < 1.0 < number.high)
        if unsettled and self._probe.batches < 4 * self._samples:
            return []
        self._open = None
        self._failures = 0
        return self._conclude(result, plateau, finding)

    def _conclude(self, check: TrapCheck, plateau: Plateau, finding: str) -> list[dict[str, Any]]:
        before = self.verdict
        self._hysteresis = self._hysteresis.after(finding)
        found = {"flat": plateau.flat, "finding": finding, "verdict": self.verdict, "budget": self.account.to_dict()}
        records = [{"type": "check", **check.to_dict(), **found}]
        if self.verdict != before:
            change = {"verdict": self.verdict, "before": before, "because": explain(check, plateau)}
            records.append({"type": "verdict", "step": check.step, **change})
        return records

    def _plateau(self) -> Plateau:
        return find_plateau(self.losses, window=self._window)

    def _product_seconds(self) -> float:
        """Return what a Hessian product takes: as measured, or else as long as two gradients."""
        gradients_a_step = 2 if hasattr(self._optimizer, "last_step") else 1
        return self._seconds_of_a_product or 2 / gradients_a_step * self.account.step_seconds

    def _took(self, start: float, products: int, units: int) -> float:
        self.account.products += products
        seconds = time.perf_counter() - start
        self._seconds_of_a_product = seconds / units
        return seconds

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for `load_state_dict`; a check under way is not in it."""
        return {
            "last_check": self._last_check,
            "plateau_checked": self._plateau_checked,
            "losses": list(self.losses),
            "hysteresis": asdict(self._hysteresis),
            "account": self.account.state_dict(),
            "probe": self._probe.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another run."""
        self._last_check = state["last_check"]
        self._plateau_checked = state["plateau_checked"]
        self.losses.clear()
        self.losses.extend(state["losses"])
        self._hysteresis = Hysteresis(**state["hysteresis"])
        self.account.load_state_dict(state["account"])
        self._probe.load_state_dict(state["probe"])
        self._open = None

    def go_on(self, checks: Sequence[Mapping[str, Any]], losses: Iterable[float], account: Mapping[str, Any]) -> None:
        """Go on from what a log holds, which knows everything but the direction of the last search."""
        if checks:
            self._last_check = checks[-1]["step"]
            self._hysteresis = replace(self._hysteresis, verdict=checks[-1]["verdict"], candidate=checks[-1]["verdict"])
        self.losses.extend(losses)
        self.account.load_state_dict(account)


@dataclass(frozen=True, kw_only=True)
class _OpenCheck:
    """A check that waits for more batches."""

    reason: str
    products: int
    seconds: float
