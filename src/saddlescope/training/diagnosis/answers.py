"""How SAM answers along directions of negative curvature, on as many batches as it takes to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlescope.training.diagnosis.effective_curvature import slopes_aside
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.trap_number import (
    Responses,
    escape_curvature,
    escape_direction,
    measure_responses,
    predicted_curvature,
    trap_number,
)

ASIDE = 0.2
"""How far to step aside for the effective curvature, as a share of what turns the gradient of a batch around."""


class Answers:
    """What the batches asked so far say of the plane of ``directions``, of which the first is ``v``.

    Args:
        loss_fn: takes a batch and returns its mean loss.
        parameters: of the model; they stay as they are.
        directions: orthonormal rows, shape ``(k, n)``, chosen on other batches.
        batches: of the size that the training takes; each is taken once and kept.
        rho: radius of SAM.
    """

    def __init__(
        self,
        loss_fn: Callable[[Any], Tensor],
        parameters: Sequence[Tensor],
        directions: Tensor,
        batches: Iterator[Any],
        rho: float,
    ):
        self._loss_fn, self._parameters, self._plane, self._source = loss_fn, parameters, directions, batches
        self._rho = rho
        self._batches: list[Any] = []
        self._felt, self._plain = np.array([]), np.array([])
        self.responses: Responses | None = None
        self.aside = math.nan
        """How far was stepped aside; settled on the first batches, so that all measure the same."""

    @property
    def count(self) -> int:
        """Batches asked so far."""
        return len(self._batches)

    @property
    def products(self) -> int:
        """Hessian-vector products spent."""
        return 0 if self.responses is None else self.responses.products

    def ask(self, count: int) -> dict[str, Any]:
        """Ask ``count`` more batches, and return what all of them say, under the names of `Measurement`."""
        new = list(islice(self._source, count))
        more = measure_responses(self._loss_fn, self._parameters, self._plane, new)
        self.responses = found = more if self.responses is None else self.responses.joined(more)
        if math.isnan(self.aside):
            self.aside = _step_aside(found)
        self._batches += new
        self._felt = np.append(self._felt, self._slopes(self._plane[0], new, self._rho))
        self._plain = np.append(self._plain, self._slopes(self._plane[0], new, 0.0))
        exit_ = torch.as_tensor(escape_direction(found, self._rho)).to(self._plane) @ self._plane
        others = self._batches[len(self._batches) // 2 :]
        return {
            "batch_gradient_norm": float(found.gradient_norms.mean()),
            "curvature": Estimate.mean(found.curvature[:, 0, 0]),
            "trap_number": trap_number(found, self._rho),
            "predicted_curvature": predicted_curvature(found, self._rho),
            "effective_curvature": Estimate.mean(self._felt),
            "plain_curvature": Estimate.mean(self._plain),
            "escape_curvature": escape_curvature(found, self._rho),
            "escape_effective_curvature": Estimate.mean(self._slopes(exit_, others, self._rho)),
            "escape_plain_curvature": Estimate.mean(self._slopes(exit_, others, 0.0)),
        }

    def _slopes(self, along: Tensor, batches: list[Any], rho: float) -> np.ndarray:
        return slopes_aside(self._loss_fn, self._parameters, along, batches, rho=rho, displacement=self.aside)


def _step_aside(answers: Responses) -> float:
    """Return a displacement along ``v`` that turns the gradient of a batch by a fraction of its length."""
    squares = answers.response[:, 0, 0] * answers.gradient_norms
    rms, norm = math.sqrt(float(squares.mean())), float(answers.gradient_norms.mean())
    return ASIDE * norm / rms if rms > 0.0 and norm > 0.0 else 1e-3
