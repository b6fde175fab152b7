"""A share of the training time, and what was spent of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from saddlescope._checks import require_finite


class Budget:
    """Allows work beside a training as long as it stays below a share of the time that the training took.

    Time comes in blocks of steps. The first is not counted, since compilation and the first touch of the data fall
    into it; of a block that takes far longer than its like, for a validation or a checkpoint, 1.5 times their
    median is. A share of infinity allows everything.

    >>> budget = Budget(0.1)
    >>> for _ in range(11):
    ...     budget.trained(seconds=2.0, steps=10)
    >>> round(budget.training_seconds, 6), round(budget.step_seconds, 6)
    (20.0, 0.2)
    >>> budget.spend(1.5, products=8)
    >>> budget.allows(0.5), budget.allows(0.6)
    (True, False)
    """

    def __init__(self, share: float) -> None:
        if share != math.inf:
            require_finite("budget", share, minimum=0.0, exclusive=True)
        self.share = share
        self.training_seconds = 0.0
        """Counted time of training steps."""
        self.spent_seconds = 0.0
        """Time of everything that the monitor did."""
        self.products = 0
        """Hessian-vector products."""
        self.waits = 0
        """Times that a check, or a product of one, was due and had to wait."""
        self._steps = 0
        self._warm = False
        self._rates: list[float] = []  # seconds a step in the latest blocks

    def trained(self, seconds: float, steps: int) -> None:
        """Count a block of training steps."""
        if not self._warm:
            self._warm = True
            return
        self._rates = [*self._rates[-8:], seconds / steps]
        self.training_seconds += steps * min(self._rates[-1], 1.5 * median(self._rates))
        self._steps += steps

    def spend(self, seconds: float, products: int = 0) -> None:
        """Count work that was done beside the training."""
        self.spent_seconds += seconds
        self.products += products

    @property
    def step_seconds(self) -> float:
        """Mean time of a step; 0 while it is not known."""
        return self.training_seconds / self._steps if self._steps else 0.0

    def allows(self, seconds: float, part: float = 1.0) -> bool:
        """Return whether work of this length fits into a part of the share; never before a block was counted."""
        return self._steps > 0 and self.spent_seconds + seconds <= part * self.share * self.training_seconds * (
            1 + 1e-12
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the account, ready for JSON."""
        return {
            "share": None if self.share == math.inf else self.share,
            "training_seconds": self.training_seconds,
            "spent_seconds": self.spent_seconds,
            "products": self.products,
            "waits": self.waits,
        }

    state_dict = to_dict

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the account of an earlier run; the share stays."""
        for name in ("training_seconds", "spent_seconds", "products", "waits"):
            setattr(self, name, state.get(name, 0))
