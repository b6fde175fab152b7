"""How the numbers of a `Measurement` are taken."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from saddlescope._checks import require_count
from saddlescope.curvature.hessian import HessianOperator, sample_count
from saddlescope.curvature.lanczos import KrylovSpace, lanczos
from saddlescope.training.diagnosis.answers import Answers
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.diagnosis.rollout import Rollout, rollout, training_batches
from saddlescope.training.diagnosis.trap_number import measure_responses, trap_number
from saddlescope.training.diagnosis.untouched import untouched
from saddlescope.training.tasks import Task

DOUBLINGS = 3
"""How often the number of batches is doubled while they do not tell."""
UNKNOWN = Estimate(math.nan, math.nan, 0)


def measure(
    task: Task,
    settings: OptimizerSettings,
    *,
    samples: int | None = None,
    directions: int = 4,
    products: int = 24,
    curvature_samples: int = 1_000,
    watch: int = 60,
    seed: int = 0,
) -> Measurement:
    """Measure where the task's model stands, for a training with these settings.

    Lanczos on the curvature samples finds directions of negative curvature; other batches say how SAM answers along
    them; then the training is watched for a while. Weights, gradients, buffers and random numbers are afterwards as
    they were. The model is evaluated in the mode that it is in, usually training mode.

    Args:
        task: model, loss and data. A task without ``draw`` is measured on its own batches, whatever their size.
        settings: with what it is trained. The trap number is that of plain SAM with this radius.
        samples: batches for the response to begin with, >= 4; default 8, or as many as hold 2,048 samples. While
            what they say is `Measurement.open` they are doubled, up to 8 times as many; looking again at each doubling
            makes an interval miss somewhat more often than 1 time in 20.
        directions: of negative curvature at most, >= 1.
        products: of Lanczos on the curvature samples.
        curvature_samples: of the training set, at least one batch.
        watch: steps of training to watch; 0 for none, and then no verdict can say that a run is trapped.
        seed: of the batches.

    Raises:
        ValueError: for a count out of range.
    """
    samples = max(8, 2_048 // settings.batch_size) if samples is None else require_count("samples", samples, minimum=4)
    require_count("directions", directions, minimum=1)
    require_count("products", products, minimum=2)
    require_count("curvature_samples", curvature_samples, minimum=1)
    require_count("watch", watch)
    with untouched(task.model):
        torch.manual_seed(seed)  # dropout
        return _measure(task, settings, samples, directions, products, curvature_samples, watch, seed)


def _measure(
    task: Task,
    settings: OptimizerSettings,
    samples: int,
    directions: int,
    products: int,
    curvature_samples: int,
    watch: int,
    seed: int,
) -> Measurement:
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    watched = curvature_batches(task, curvature_samples, seed)
    operator = HessianOperator(task.loss_fn, parameters, watched)
    loss, gradient = operator.loss(), operator.gradient()
    gradient_norm = float(gradient.norm())
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        return _not_finite(settings, loss, gradient_norm, operator.products)
    with operator.retained():
        spaces = deque(lanczos(operator.matvec, operator.random_vector(seed), products), maxlen=1)
    if not spaces:  # the first product was not finite
        return _not_finite(settings, loss, gradient_norm, operator.products)
    space = spaces[0]
    plane = _negative_plane(space, directions)
    most = samples << DOUBLINGS
    batches = training_batches(task, settings.batch_size, most, seed + 1)
    answers = Answers(task.loss_fn, parameters, plane, batches, settings.rho)
    micro = _micro_trap_number(task, settings, parameters, plane[:1], samples, seed)
    found = Measurement(
        status="complete",
        settings=settings,
        loss=loss,
        zero_loss=_zero_loss(operator),
        gradient_norm=gradient_norm,
        lambda_min=float(space.values[0]),
        lambda_max=float(space.values[-1]),
        residual_min=space.residual(0),
        residual_max=space.residual(-1),
        micro_trap_number=micro,
        directions=len(plane),
        fall=UNKNOWN,
        watched_steps=0,
        cosine=math.nan,
        hessian_products=0,
        **answers.ask(samples),
    )
    while found.open and answers.count < most:
        found = replace(found, **answers.ask(answers.count))
    found = replace(found, hessian_products=operator.products + micro.samples + answers.products)
    if not watch:
        return found
    seen = rollout(task, settings, watch, watched=watched, seed=seed + 3)  # moves the weights, so it comes last
    return replace(found, fall=seen.fall, watched_steps=int(seen.steps[-1]), cosine=_mean_cosine(seen))


def curvature_batches(task: Task, count: int, seed: int) -> list[Any]:
    """Return about ``count`` samples of the training set: one draw, or the task's first batches."""
    if task.draw is not None:
        return list(training_batches(task, count, 1, seed))
    kept, total = [], 0
    for batch in task.batches:
        kept.append(batch)
        total += sample_count(batch)
        if total >= count:
            break
    return kept


def _negative_plane(space: KrylovSpace, count: int) -> torch.Tensor:
    """Return Ritz vectors of negative values, spread over them, the most negative first; at least one."""
    negative = int((space.values < -space.round_off).sum())
    chosen = np.unique(np.linspace(0, max(negative - 1, 0), min(count, max(negative, 1))).round().astype(int))
    return torch.stack([space.vector(i) for i in chosen])


def _zero_loss(operator: HessianOperator) -> float:
    with operator.at(torch.zeros_like(operator.point())):
        loss = operator.loss()
    return loss if math.isfinite(loss) else math.nan


def _micro_trap_number(
    task: Task, settings: OptimizerSettings, parameters: Sequence[Any], v: torch.Tensor, samples: int, seed: int
) -> Estimate:
    size = settings.batch_size // 4
    if task.draw is None or size < 1:
        return UNKNOWN
    parts = islice(training_batches(task, size, 4 * samples, seed + 2), samples)
    return trap_number(measure_responses(task.loss_fn, parameters, v, parts), settings.rho)


def _mean_cosine(seen: Rollout) -> float:
    cosines = seen.cosines[np.isfinite(seen.cosines)]
    return float(cosines.mean()) if len(cosines) else math.nan


def _not_finite(settings: OptimizerSettings, loss: float, gradient_norm: float, products: int) -> Measurement:
    known = {"status": "not finite", "settings": settings, "loss": loss, "gradient_norm": gradient_norm}
    known |= {"directions": 0, "watched_steps": 0, "hessian_products": products}
    unknown = {f.name: UNKNOWN if f.type == "Estimate" else math.nan for f in fields(Measurement)}
    return Measurement(**{**unknown, **known})
