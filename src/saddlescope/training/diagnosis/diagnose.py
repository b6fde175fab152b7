"""The whole examination of a training: measure, judge, advise, and try the advice."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from saddlescope._checks import refuse, require_count
from saddlescope.training.diagnosis.advisor import Advice, advise
from saddlescope.training.diagnosis.measure import curvature_batches, measure
from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.diagnosis.rollout import rollout
from saddlescope.training.diagnosis.untouched import untouched
from saddlescope.training.diagnosis.verdict import explain_verdict, judge_measurement
from saddlescope.training.tasks import Task


@dataclass(frozen=True)
class Trial:
    """What came of one change, from the same weights and on the same batches as the others."""

    change: str
    """What was changed; ``"unchanged"`` for the training as it was."""
    after: Any
    """To what."""
    predicted: str
    losses: tuple[float, ...]
    """On the curvature samples, evenly spread over the steps, the first before them."""
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; a loss that is not finite becomes None."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        return {**vars(self), "losses": losses}


@dataclass(frozen=True)
class Diagnosis:
    """Verdict and advice, with the numbers that carry them."""

    verdict: str
    """``"trapped"``, ``"slowed"``, ``"free"``, ``"at_minimum"`` or ``"undetermined"``."""
    because: str
    measurement: Measurement
    advice: Advice
    trials: tuple[Trial, ...]
    """The training unchanged and the first changes; empty unless asked for."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis, ready for JSON; what is not finite becomes None."""
        numbers = self.measurement.to_dict()
        return {
            "verdict": self.verdict,
            "because": self.because,
            "trap_number": numbers["trap_number"]["value"],
            "slowdown": numbers["slowdown"],
            "lambda_min": numbers["lambda_min"],
            "lambda_max": numbers["lambda_max"],
            "gradient_norm": numbers["gradient_norm"],
            "residuals": [numbers["residual_min"], numbers["residual_max"]],
            "hessian_products": numbers["hessian_products"],
            "advice": self.advice.to_dict()["changes"],
            "advice_reason": self.advice.reason,
            "measurement": numbers,
            "trials": [trial.to_dict() for trial in self.trials],
            "seconds": self.seconds,
        }


def diagnose(
    task: Task,
    settings: OptimizerSettings | None = None,
    *,
    steps: int = 0,
    tries: int = 0,
    try_steps: int = 300,
    seed: int = 0,
    **options: Any,
) -> Diagnosis:
    """Say whether SAM holds up the training of a task at the weights where its model is, and what to change.

    The model comes back bit for bit: weights, gradients, buffers, modes, and random numbers too.

    Args:
        task: with the model at the weights to examine, a checkpoint say.
        settings: with what it is trained; default `OptimizerSettings`.
        steps: of training with the settings before the examination.
        tries: how many of the changes advised to try.
        try_steps: of training for each of them, and for the training unchanged.
        seed: of batches.
        options: of `measure`.

    Raises:
        ValueError: for something else than a task, or a count out of range.

    >>> from saddlescope.training.tasks import make_task
    >>> found = diagnose(make_task("digits-mlp"), OptimizerSettings(rho=0.05), samples=4, curvature_samples=200)
    >>> found.verdict in ("slowed", "free")
    True
    """
    if not isinstance(task, Task):
        raise refuse("task", type(task).__name__, "a Task", "return Task(model, loss_fn, batches)")
    require_count("steps", steps)
    require_count("tries", tries)
    require_count("try_steps", try_steps, minimum=1)
    settings = settings or OptimizerSettings()
    start = time.perf_counter()
    with untouched(task.model):
        if steps:
            rollout(task, settings, steps, watched=curvature_batches(task, 1, seed), looks=1, seed=seed + 4)
        found = measure(task, settings, seed=seed, **options)
        advice = advise(found)
        trials = tuple(_trials(task, settings, advice, tries, try_steps, seed))
    seconds = time.perf_counter() - start
    return Diagnosis(judge_measurement(found), explain_verdict(found), found, advice, trials, seconds)


def _trials(task: Task, settings: OptimizerSettings, advice: Advice, tries: int, steps: int, seed: int) -> list[Trial]:
    if not tries or not advice.changes:
        return []
    watched = curvature_batches(task, 2_000, seed)
    plans = [("unchanged", None, "as it is", settings)]
    plans += [(c.change, c.after, c.predicted, c.settings) for c in advice.changes[:tries]]
    trials = []
    for change, after, predicted, trial in plans:
        with untouched(task.model):
            seen = rollout(task, trial, steps, watched=watched, looks=10, seed=seed + 5)
        trials.append(Trial(change, after, predicted, tuple(seen.losses.tolist()), int(seen.steps[-1])))
    return trials
