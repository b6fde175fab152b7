"""The monitor inside trainers of others: Lightning and Hugging Face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from saddlescope.training.monitor.monitor import StabilityMonitor


def lightning_callback(**options: Any) -> Any:
    """Return a callback for ``lightning.Trainer`` that runs a `StabilityMonitor` with these options.

    It watches the trainer's first optimizer, reports to the trainer's own loggers, and is saved and resumed with the
    trainer's checkpoints. Under automatic optimization the closure is Lightning's, so that checks evaluate
    ``training_step``; under manual optimization they need ``optimizer.step(closure)``. The monitor is the callback's
    attribute ``monitor``.

    Raises:
        ModuleNotFoundError: without Lightning.
    """
    try:
        from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this callback needs Lightning; do: pip install 'saddlescope[lightning]'") from None

    class StabilityCallback(Callback):
        """Runs a `StabilityMonitor` beside the training."""

        monitor: StabilityMonitor | None = None
        _saved: dict[str, Any] | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            own = {"loggers": [*options.get("loggers", ()), *trainer.loggers]}
            self.monitor = StabilityMonitor(trainer.optimizers[0], **{**options, **own}).attach()
            if self._saved is not None:
                self.monitor.load_state_dict(self._saved)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self.monitor is not None:
                self.monitor.close()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self.on_train_end(trainer, pl_module)

        def state_dict(self) -> dict[str, Any]:
            return {} if self.monitor is None else self.monitor.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self._saved = state_dict or None

    return StabilityCallback()


def hugging_face_callback(loss_fn: Callable[[nn.Module, dict[str, Any]], Any] | None = None, **options: Any) -> Any:
    """Return a callback for ``transformers.Trainer`` that runs a `StabilityMonitor` with these options.

    The trainer hands callbacks neither its loss nor its batches, so this one looks at the inputs and outputs of the
    model's own forward pass: of several micro-batches in a step, and of the two passes of a `SAM` step, at the first.
    Checks evaluate the model on those inputs again. The monitor is the callback's attribute ``monitor``.

    Args:
        loss_fn: takes model and inputs and returns the loss; the output's ``loss`` by default. Give it where the
            trainer computes another one (label smoothing, ``compute_loss_func``).
        options: of `StabilityMonitor`.

    Raises:
        ModuleNotFoundError: without transformers.
    """
    try:
        from transformers import TrainerCallback  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "this callback needs transformers; do: pip install 'saddlescope[transformers]'"
        ) from None

    class StabilityCallback(TrainerCallback):
        """Runs a `StabilityMonitor` beside the training."""

        monitor: StabilityMonitor | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            optimizer = given["optimizer"]
            while not hasattr(optimizer, "last_step") and isinstance(getattr(optimizer, "optimizer", None), Optimizer):
                optimizer = optimizer.optimizer  # accelerate's wrapper
            self.monitor = StabilityMonitor(optimizer, **options)
            self._first: tuple[Any, Any] | None = None
            self._handle = given["model"].register_forward_hook(self._look, with_kwargs=True)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.monitor is None:
                return
            model, monitor, first = given["model"], self.monitor, self._first
            if first is None:
                monitor.update()
                return
            inputs, outputs = first

            def closure() -> Any:
                monitor.optimizer.zero_grad()
                loss = loss_fn(model, inputs) if loss_fn else model(**inputs)["loss"]
                loss.backward()
                return loss

            monitor.update(outputs, closure)
            self._first = None

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.monitor is not None:
                self._handle.remove()
                self.monitor.close()

        def _look(self, model: nn.Module, args: Any, inputs: Any, output: Any) -> None:
            if self._first is None and model.training and inputs:
                loss = output.get("loss") if hasattr(output, "get") else None
                self._first = inputs, loss if loss is None else loss.detach()

    return StabilityCallback()
