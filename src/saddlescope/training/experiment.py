"""A training run as data: what was asked for and what came out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from saddlescope._checks import refuse, require_choice, require_count, require_finite
from saddlescope.optim import RadiusCap
from saddlescope.provenance import Provenance
from saddlescope.training.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that determines a training run; vary one with ``dataclasses.replace``.

    Raises:
        ValueError: for a value outside its range, or an option of SAM's given to SGD.

    >>> ExperimentConfig(optimizer="sam", rho=1.0).to_dict()["rho"]
    1.0
    """

    task: str = "digits-mlp"
    optimizer: str = "sgd"
    """``"sgd"``, or ``"sam"`` around it."""
    lr: float = 0.1
    """Step size, > 0."""
    momentum: float = 0.0
    """Heavy-ball coefficient in [0, 1)."""
    rho: float = 0.0
    """Radius of SAM, >= 0; 0 for SGD."""
    normalized: bool = True
    """Whether SAM divides its ascent gradient by the norm."""
    radius_cap: RadiusCap | None = None
    batch_size: int = 256
    steps: int = 600
    """Optimizer steps."""
    seed: int = 0
    """Of the initialisation and of the batches; a SAM run sees the batches of its SGD twin."""

    def __post_init__(self) -> None:
        require_choice("task", self.task, tuple(TASKS))
        require_choice("optimizer", self.optimizer, ("sgd", "sam"))
        require_finite("lr", self.lr, minimum=0.0, exclusive=True)
        if not 0.0 <= require_finite("momentum", self.momentum) < 1.0:
            raise refuse("momentum", self.momentum, "a number in [0, 1)")
        require_finite("rho", self.rho, minimum=0.0)
        require_count("batch_size", self.batch_size, minimum=1)
        require_count("steps", self.steps, minimum=1)
        require_count("seed", self.seed)
        if self.optimizer == "sgd" and (self.rho != 0.0 or self.radius_cap is not None or not self.normalized):
            raise refuse("optimizer", "sgd with rho, radius_cap or normalized", "none of them", 'use "sam"')

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dictionary."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came out of one training run."""

    config: ExperimentConfig
    status: Literal["completed", "diverged"]
    """``"diverged"``: the loss stopped being finite, and the run with it."""
    losses: tuple[float, ...]
    """Batch loss at the unperturbed weights before each step, shape ``(steps made,)``."""
    final_loss: float
    """Mean loss over the whole training set at the end."""
    test_accuracy: float
    """Fraction of test samples that are right at the end."""
    skipped_steps: int
    """Steps that SAM left out because a gradient was not finite."""
    hessian_products: int
    """Hessian-vector products that the radius cap used."""
    seconds: float
    """Wall time of the training steps."""
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready data; a loss that is not finite becomes None."""
        data = asdict(self)
        data["losses"] = [_json_number(loss) for loss in self.losses]
        data["final_loss"] = _json_number(self.final_loss)
        return data


def _json_number(number: float) -> float | None:
    return number if math.isfinite(number) else None
