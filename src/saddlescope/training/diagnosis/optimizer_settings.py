"""What an advisor may change in a training: the numbers that SAM runs with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.optim import SGD

from saddlescope._checks import refuse, require_choice, require_count, require_finite
from saddlescope.optim import SAM, RadiusCap
from saddlescope.optim.variants import VARIANTS, Phase


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """SAM around SGD with heavy-ball momentum, as data; vary one with ``dataclasses.replace``.

    Raises:
        ValueError: for a number outside its range, and for micro-batches beside a cap.

    >>> OptimizerSettings(rho=0.5).to_dict()["rho"]
    0.5
    """

    lr: float = 0.1
    """Step size, > 0."""
    momentum: float = 0.0
    """Heavy-ball coefficient in [0, 1)."""
    rho: float = 0.05
    """Radius of SAM in weight space, >= 0; 0 for SGD."""
    batch_size: int = 256
    variant: str = "sam"
    """One of ``optim.variants.VARIANTS``."""
    cap: float | None = None
    """Fraction of a `RadiusCap`; None for none."""
    micro_batch: int | None = None
    """Samples that each ascend along their own gradient; None for the whole batch."""
    warm_start: int = 0
    """Steps of SGD before SAM begins."""

    def __post_init__(self) -> None:
        require_finite("lr", self.lr, minimum=0.0, exclusive=True)
        if not 0.0 <= require_finite("momentum", self.momentum) < 1.0:
            raise refuse("momentum", self.momentum, "a number in [0, 1)")
        require_finite("rho", self.rho, minimum=0.0)
        require_count("batch_size", self.batch_size, minimum=1)
        require_choice("variant", self.variant, tuple(VARIANTS))
        require_count("warm_start", self.warm_start)
        if self.micro_batch is not None:
            require_count("micro_batch", self.micro_batch, minimum=1)
            if self.cap is not None:
                raise refuse("micro_batch", self.micro_batch, "None beside a cap")

    def build(self, parameters: Iterable[Tensor]) -> SAM:
        """Return the optimizer of these settings."""
        return SAM(
            SGD(parameters, lr=self.lr, momentum=self.momentum),
            rho=self.rho,
            variant=VARIANTS[self.variant](),
            radius_cap=None if self.cap is None else RadiusCap(fraction=self.cap),
            schedule=Phase(start=self.warm_start) if self.warm_start else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dictionary."""
        return asdict(self)
