"""SAM in ``transformers.Trainer``, which runs backward itself and calls ``optimizer.step()`` without a closure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from saddlescope._checks import refuse
from saddlescope.integrations.at_hand import step_from
from saddlescope.optim import sam


class HostedSAM(sam.SAM):
    """A `SAM` whose ``step()`` needs no closure: ``evaluate`` is called for the second pass."""

    evaluate: Callable[[], Any] | None = None
    """Runs forward and backward on the batch of the first pass, and zeroes no gradients."""

    def step(self, closure: Any = None, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step from the gradients at hand; with a closure as `SAM.step` does."""
        if closure is not None or self.evaluate is None:
            return super().step(closure, **options)
        return step_from(self, self.evaluate)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "evaluate"}


class SAMTrainer:
    """Put before ``transformers.Trainer`` in the bases of a class: its steps become SAM's, with the Trainer's base.

    The micro-batches of a step are kept until its second pass, in which ``training_step`` runs on them again: losses
    of your own, label smoothing, gradient accumulation, data-parallel ranks, checkpoints and schedulers work as they
    do without. ``max_grad_norm`` applies to the gradient of the second pass too. Evaluation and logs see the weights
    ``w``, never ``w_p``. A run costs two passes a step; ``state.total_flos`` counts one.

        class Trainer(SAMTrainer, transformers.Trainer):
            sam_options = {"rho": 0.05}

    Raises:
        ValueError: with ``fp16=True`` (its scaler sees one of the two gradients; use ``bf16=True``), and with an
            optimizer made outside that is another SAM.
    """

    sam_options: dict[str, Any] = {}
    """Of `SAM`, but for ``base``, ``radius_cap`` and ``max_grad_norm``."""

    optimizer: Any
    args: Any
    accelerator: Any

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """Return the Trainer's own optimizer, or the one it was given, inside a `SAM`."""
        base = super().create_optimizer(model)  # pyright: ignore[reportAttributeAccessIssue]
        if _inside(base) is not None:
            return base
        if self.args.fp16:
            raise refuse("fp16", True, "full precision or bfloat16", "set bf16=True in the TrainingArguments")
        options = {"max_grad_norm": self.args.max_grad_norm or None, **self.sam_options}
        self.optimizer = HostedSAM(base, **options)
        self.optimizer.evaluate = self._second_pass
        self._micro_batches: list[tuple[Any, ...]] = []
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Make the Trainer's step on a micro-batch and remember it for the second pass."""
        if not self._micro_batches:
            _inside(self.optimizer).zero_grad()  # from here on random numbers are to be repeated
        self._micro_batches.append((model, inputs, num_items_in_batch))
        return self._evaluate(model, inputs, num_items_in_batch)

    def _second_pass(self) -> None:
        batches, self._micro_batches = self._micro_batches, []
        for batch in batches:
            self._evaluate(*batch)

    def _evaluate(self, *batch: Any) -> Any:
        model, inputs, items = batch
        inputs = dict(inputs) if isinstance(inputs, dict) else inputs  # compute_loss may take labels out
        return super().training_step(model, inputs, items)  # pyright: ignore[reportAttributeAccessIssue]


def _inside(optimizer: Any) -> Any:
    """Return the `HostedSAM`, also from accelerate's wrapper; None if there is none."""
    while optimizer is not None and not isinstance(optimizer, HostedSAM):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer
