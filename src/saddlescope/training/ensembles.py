"""Many runs of one small network at once: all members make each step together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from saddlescope._checks import refuse
from saddlescope.training.batches import Batches
from saddlescope.training.experiment import ExperimentConfig, Record
from saddlescope.training.loop import finished, settled
from saddlescope.training.schedules import factor
from saddlescope.training.stacked_perceptrons import Layer, StackedPerceptrons, cross_entropies, linear_layers
from saddlescope.training.tasks import TASKS, make_task

SHARED = ("task", "optimizer", "batch_size", "steps", "epochs", "label_smoothing")
"""What members have in common."""


def run_ensemble(configs: Iterable[ExperimentConfig]) -> tuple[Record, ...]:
    """Train all configs at once and return their records, in their order.

    Members may differ in seed, ``lr``, ``rho``, ``momentum``, ``weight_decay``, ``normalized``, ``schedule`` and
    ``warmup``. Each has the initial weights and the batches of its own `run_experiment`, and its losses to rounding:
    they differ only in the order of sums. In float64 that stays below 1e-10 over hundreds of steps; in float32 the
    difference of 1e-7 a step grows like any perturbation of the run, and a curve that falls steeply may do so a few
    steps sooner or later. ``seconds`` is the member's share of the wall time.

    Args:
        configs: of one task, optimizer (``"sgd"`` or ``"sam"``), batch size and number of steps; perceptrons on the
            CPU, in float32, without a radius cap.

    Raises:
        ValueError: for no configs, for those that differ in what members share, or one that must run alone.

    >>> sam = ExperimentConfig(optimizer="sam", rho=0.5, steps=2)
    >>> [record.status for record in run_ensemble([sam, ExperimentConfig(optimizer="sam", rho=1.0, steps=2)])]
    ['completed', 'completed']
    """
    return Ensemble(tuple(configs)).run()


def why_alone(config: ExperimentConfig) -> str:
    """Return why a run cannot be a member of an ensemble, in a sentence; "" if it can.

    >>> why_alone(ExperimentConfig(task="cifar10-convnet"))
    "network: got 'Conv2d', expected Linear layers with bias and ReLU between them; run it alone"
    """
    for name, value in (("device", "cpu"), ("precision", "float32"), ("compile", False), ("radius_cap", None)):
        if (got := getattr(config, name)) != value:
            return str(refuse(name, got, f"{value} in an ensemble", "run it alone"))
    if config.optimizer not in ("sgd", "sam"):
        return str(refuse("optimizer", config.optimizer, "sgd or sam in an ensemble", "run it alone"))
    return _why_no_perceptron(config.task)


def shared(config: ExperimentConfig) -> tuple[Any, ...]:
    """Return what a config has to have in common with the other members."""
    return tuple(getattr(config, name) for name in SHARED)


class Ensemble:
    """Runs side by side, between their first step and their last."""

    def __init__(self, configs: Sequence[ExperimentConfig]) -> None:
        if not configs:
            raise refuse("configs", "none", "at least one")
        for config in configs:
            if reason := why_alone(config):
                raise ValueError(reason)
            for name in SHARED:
                if (got := getattr(config, name)) != (first := getattr(configs[0], name)):
                    raise refuse(name, got, f"{first!r} as in the first config", "put it into another ensemble")
        self.configs, first = tuple(configs), configs[0]
        self._tasks = {}
        for config in configs:
            if config.seed not in self._tasks:
                with settled(config):
                    self._tasks[config.seed] = make_task(config.task, label_smoothing=config.label_smoothing)
        self._batches = {
            seed: Batches(task, first.batch_size, seed=seed, epochs=first.epochs) for seed, task in self._tasks.items()
        }
        self.steps = self._batches[first.seed].steps if first.steps is None else first.steps
        self._networks = StackedPerceptrons([self._tasks[c.seed].model for c in configs], first.batch_size)
        weights = self._networks.weights
        self._ascended, self._gradient = torch.empty_like(weights), torch.empty_like(weights)
        self._velocity = torch.zeros_like(weights)
        self._layers, self._ascended_layers, self._slopes = (
            self._networks.layers(rows) for rows in (weights, self._ascended, self._gradient)
        )
        self._rho, self._momentum, self._decay, self._normalized = (
            self._column([float(getattr(config, name)) for config in configs])
            for name in ("rho", "momentum", "weight_decay", "normalized")
        )

    def run(self, stop: threading.Event | None = None) -> tuple[Record, ...]:
        """Train, and return the records; none if ``stop`` is set meanwhile, which ends the training at once."""
        began = time.perf_counter()
        running = torch.ones(len(self.configs), 1, dtype=torch.bool)
        made, skipped = torch.zeros(2, len(self.configs), 1, dtype=torch.int64)
        losses: list[Tensor] = []
        for step in range(self.steps):
            if stop is not None and stop.is_set():
                return ()
            batch_losses, moved = self._step(step, running)
            losses.append(batch_losses)
            made += running
            skipped += running & ~moved
            running = running & batch_losses.isfinite().unsqueeze(1)
            if not running.any():
                break
        seconds = (time.perf_counter() - began) / len(self.configs)
        rows = zip(
            self.configs,
            self._networks.weights,
            torch.stack(losses, 1).tolist(),
            made.tolist(),
            skipped.tolist(),
            strict=True,
        )
        return tuple(self._record(c, w, curve[:n], lost, seconds) for c, w, curve, (n,), (lost,) in rows)

    @torch.no_grad()
    def _step(self, step: int, running: Tensor) -> tuple[Tensor, Tensor]:
        """Make a step with the members that are running, and return the losses and who has moved, ``(members, 1)``."""
        weights, gradient, velocity = self._networks.weights, self._gradient, self._velocity
        targets, lr, moving = self._next_batches(), self._step_sizes(step), running
        losses = self._evaluate(self._layers, targets)
        if self.configs[0].optimizer == "sam":
            norm = gradient.norm(dim=1, keepdim=True)
            # As SAM: a zero gradient moves nothing, one that is not finite costs the step.
            inverse = torch.where(self._normalized > 0, norm, norm * 0.0 + 1.0).reciprocal().nan_to_num_(0.0, 0.0, 0.0)
            torch.addcmul(weights, gradient, self._rho * inverse, out=self._ascended)
            self._evaluate(self._ascended_layers, targets)
            moving = running & (norm + gradient.norm(dim=1, keepdim=True)).isfinite()
        gradient.addcmul_(weights, self._decay)
        if moving.all():
            velocity.mul_(self._momentum).add_(gradient)
            weights.addcmul_(velocity, lr, value=-1.0)
        else:
            velocity.copy_(torch.where(moving, velocity * self._momentum + gradient, velocity))
            weights.copy_(torch.where(moving, weights - lr * velocity, weights))
        return losses, moving

    def _evaluate(self, layers: Sequence[Layer], targets: Tensor) -> Tensor:
        """Compute every member's gradient on its batch and return the losses, shape ``(members,)``."""
        logits = self._networks.forward(layers)
        losses, adjoint = cross_entropies(logits, targets, self.configs[0].label_smoothing)
        self._networks.backward(layers, adjoint, self._slopes)
        return losses

    def _next_batches(self) -> Tensor:
        """Write every member's next batch to where the networks take it, and return the classes, ``(members, n)``."""
        drawn = {seed: batches.next() for seed, batches in self._batches.items()}
        for config, place in zip(self.configs, self._networks.inputs, strict=True):
            place.copy_(drawn[config.seed][0].flatten(1))
        return torch.stack([drawn[config.seed][1] for config in self.configs])

    def _step_sizes(self, step: int) -> Tensor:
        return self._column([c.lr * factor(c.schedule, step, self.steps, c.warmup) for c in self.configs])

    def _column(self, numbers: Sequence[float]) -> Tensor:
        """Return one number a member, shape ``(members, 1)``."""
        return self._networks.weights.new_tensor(numbers).unsqueeze(1)

    def _record(
        self, config: ExperimentConfig, weights: Tensor, losses: Sequence[float], skipped: int, seconds: float
    ) -> Record:
        task = self._tasks[config.seed]
        nn.utils.vector_to_parameters(weights, task.model.parameters())
        return finished(config, task, losses, skipped_steps=skipped, hessian_products=0, seconds=seconds)


@cache
def _why_no_perceptron(task: str) -> str:
    try:
        with torch.device("meta"):  # takes no memory and draws no random numbers
            linear_layers(TASKS[task].network())
    except ValueError as error:
        return f"{error}; run it alone"
    return ""
