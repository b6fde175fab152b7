"""SAM in Lightning: ``configure_optimizers`` returns it, and automatic optimization hands it the closure."""

from __future__ import annotations

from typing import Any

from saddlescope._checks import refuse
from saddlescope.optim.sam import SAM


def sam_guard() -> Any:
    """Return a callback for ``lightning.Trainer`` that refuses settings under which a SAM step would be another.

    Nothing else is needed with 32-bit, ``bf16-mixed`` and ``bf16-true`` precision: SAM calls Lightning's closure twice,
    and ``gradient_clip_val`` shortens both gradients. With ``16-mixed`` take `sam_precision` as well. Of each step
    ``training_step`` runs twice, so ``self.log`` there sees both losses.

    Raises:
        ModuleNotFoundError: without Lightning.
        ValueError: at the start of training, for ``accumulate_grad_batches`` above 1, where Lightning's closure
            evaluates the last micro-batch only and keeps the gradients of the others, at ``w``, in the second; and
            for ``gradient_clip_algorithm="value"``, which would turn the ascent.
    """
    try:
        from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this callback needs Lightning; do: pip install 'saddlescope[lightning]'") from None

    class SAMGuard(Callback):
        """Looks at the trainer once."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if not any(isinstance(optimizer, SAM) for optimizer in trainer.optimizers):
                return
            if not pl_module.automatic_optimization:
                return
            if trainer.accumulate_grad_batches != 1:
                raise refuse(
                    "accumulate_grad_batches",
                    trainer.accumulate_grad_batches,
                    "1 under automatic optimization",
                    "use manual optimization with opt.step(micro_batches=[...]) or a closure over all of them",
                )
            if trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
                raise refuse("gradient_clip_algorithm", "value", '"norm"', "or SAM(..., max_grad_norm=...)")

    return SAMGuard()


def sam_precision(scaler: Any = None, *, device: str = "cuda") -> Any:
    """Return the ``16-mixed`` precision plugin for a SAM: its scaler sees the gradients of both passes.

    Clip with ``SAM(..., max_grad_norm=...)`` rather than ``gradient_clip_val``: gradients are still scaled when
    Lightning would clip them.

    Args:
        scaler: a ``torch.amp.GradScaler``; None for a new one.
        device: of the scaler and of autocast.

    Raises:
        ModuleNotFoundError: without Lightning.
        ValueError: in a step, for an optimizer that is no SAM, and for ``gradient_clip_val``.
    """
    try:
        from lightning.pytorch.plugins import MixedPrecision  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this plugin needs Lightning; do: pip install 'saddlescope[lightning]'") from None

    class SAMPrecision(MixedPrecision):
        """Hands the scaler to the optimizer."""

        def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **options: Any) -> Any:
            opt = getattr(optimizer, "optimizer", optimizer)
            if not isinstance(opt, SAM):
                raise refuse("optimizer", type(opt).__name__, "a SAM", "leave out this plugin for other optimizers")
            loss = opt.step(closure, scaler=self.scaler, **options)
            assert self.scaler is not None
            self.scaler.update()
            return loss

        def clip_gradients(self, optimizer: Any, clip_val: Any = 0.0, gradient_clip_algorithm: Any = None) -> None:
            if clip_val:
                raise refuse("gradient_clip_val", clip_val, "None", "SAM(..., max_grad_norm=...) clips after unscaling")

    return SAMPrecision("16-mixed", device, scaler)
