"""A monitor beside a training: is SAM held at a saddle?"""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from saddlescope._checks import refuse, require_count
from saddlescope.provenance import provenance
from saddlescope.training.monitor.budget import Budget
from saddlescope.training.monitor.checker import Checker
from saddlescope.training.monitor.log import SCHEMA, VERSION, LogWriter, MonitorLog, collect, until
from saddlescope.training.monitor.loggers import Sink, sink_of
from saddlescope.training.monitor.signals import SignalReader, plain_statistics
from saddlescope.training.ranks import rank


class StabilityMonitor:
    """Watches a training loop and says whether a saddle holds it.

    Every step gives what costs nothing: the loss and, for `SAM`, the by-products of its two passes. They stay on the
    device and are read ``read_every`` steps at a time. (Other optimizers leave no by-products: the norm of their
    gradient is taken once a reading.) From time to time a check follows: Lanczos on the current batch
    finds the direction ``v`` in which the loss curves down most, and one Hessian product on each of the next
    ``samples`` batches gives its mean curvature and the trap number ``tau`` (see `TrapCheck`). Between checks there is
    no extra pass. A check is due

    - when ``every`` steps have passed since the last, and half the budget is left for it,
    - when the loss has stopped falling (`find_plateau`) and no check has looked at this plateau,
    - when a finding for or against "trapped" waits to be confirmed, or the loss falls in spite of it.

    The verdict changes when ``confirm`` checks in a row agree. It is ``"trapped"``, ``"slowed"``, ``"free"`` or
    ``"undetermined"``, as `judge` tells them apart. Beside an optimizer without perturbation it stays
    "undetermined" or "free", and the checks' ``critical_rho`` says what radius would hold SAM here.

    **Cost.** All that the monitor does stays within the share ``budget`` of the training's time: a check waits until
    it fits, and stops early rather than overdraw. What was spent is in ``account``, the log and the live view.

    **It does not touch the training.** Weights, gradients, buffers and random numbers are bit for bit those of a run
    without it, also when a check throws (out of memory, say): that is logged, and after three in a row no more checks
    are made. Nor does a full disk or a logger that throws stop the training.

    **Ranks.** Under ``torch.distributed`` rank 0 alone reads, checks and logs; a check then sees the batches of that
    rank, and not the others' share of a batch. Sharded parameters (FSDP2) are not checked.

    Args:
        optimizer: a `SAM`, or any torch optimizer.
        every: steps between checks, >= 1, where the budget allows.
        budget: share of the training's time that the monitor may take, > 0; ``math.inf`` for no limit.
        products: Hessian-vector products of a search, >= 1.
        samples: batches measured after it, >= 2; up to four times as many while they do not tell enough.
        confirm: checks in a row that change the verdict, >= 1.
        window: steps of each of the two windows that a plateau is told by, >= 2.
        read_every: steps between readings from the device, >= 1.
        log: file of JSON lines, see `LogWriter`; one that is there is continued.
        loggers: where else to report to: a TensorBoard ``SummaryWriter``, a wandb run, the mlflow module, a
            ``logging.Logger``, a `LiveView`, or any function of a record.
        scaler: the gradient scaler that the closure scales its loss with.
        history: steps whose signals stay in memory, for `result`.

    Raises:
        ValueError: for an argument outside its range, or a ``log`` that is no such log, newer, or in use.

    >>> import torch
    >>> w = torch.tensor([1.0, 1e-3], requires_grad=True)
    >>> from saddlescope.optim import SAM
    >>> opt = SAM(torch.optim.SGD([w], lr=0.05), rho=1.0)
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = w[0] ** 2 - w[1] ** 2
    ...     loss.backward()
    ...     return loss
    >>> with StabilityMonitor(opt, every=20, window=10, budget=math.inf) as monitor:
    ...     for _ in range(200):
    ...         verdict = monitor.update(opt.step(closure), closure)
    >>> verdict
    'trapped'
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        every: int = 100,
        budget: float = 0.1,
        products: int = 8,
        samples: int = 4,
        confirm: int = 2,
        window: int = 50,
        read_every: int = 20,
        log: str | Path | None = None,
        loggers: Iterable[Any] = (),
        scaler: GradScaler | None = None,
        history: int = 100_000,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise refuse("optimizer", type(optimizer).__name__, "a torch optimizer", "StabilityMonitor(SAM(...))")
        self.read_every = require_count("read_every", read_every, minimum=1)
        require_count("history", history, minimum=1)
        self.optimizer = optimizer
        self.step = 0
        """Steps seen."""
        plan = {"every": every, "products": products, "samples": samples, "confirm": confirm, "window": window}
        self._checker = Checker(optimizer, **plan, budget=budget, scaler=scaler)
        self._signals = SignalReader()
        self._mark: float | None = None  # the end of the last update
        self._seconds = 0.0  # of training since the last reading
        self._handles: list[RemovableHandle] = []
        self._loss: Any = None
        self._closure: Callable[[], Any] | None = None
        self._is_main = rank() == 0
        settings = {**plan, "read_every": read_every, "budget": self.account.to_dict()["share"]}
        settings |= {"optimizer": type(optimizer).__name__}
        self._header = {"schema": SCHEMA, "version": VERSION, "settings": settings}
        self._records: deque[Mapping[str, Any]] = deque(maxlen=-(-history // read_every))
        self._events: list[Mapping[str, Any]] = []
        self._sinks: list[Sink] = [sink_of(logger) for logger in loggers] if self._is_main else []
        self._log: LogWriter | None = None
        if log is not None and self._is_main:
            self._log = LogWriter(log, settings)
            if self._log.records:
                self._continue(self._log.records)

    @property
    def verdict(self) -> str:
        """``"trapped"``, ``"slowed"``, ``"free"`` or ``"undetermined"``."""
        return self._checker.verdict

    @property
    def account(self) -> Budget:
        """What was spent, of what."""
        return self._checker.account

    def update(self, loss: Tensor | float | None = None, closure: Callable[[], Any] | None = None) -> str:
        """Take note of the step just made; return the verdict.

        Args:
            loss: that of the step, at the unperturbed weights.
            closure: what the step was made with: zeroes the gradients, runs forward and backward. Without one there
                are signals, but no checks.
        """
        if not self._is_main:
            return self.verdict
        start = time.perf_counter()
        self._seconds += 0.0 if self._mark is None else start - self._mark
        self.step += 1
        due = self.step % self.read_every == 0
        statistics = getattr(self.optimizer, "last_step", None)
        if statistics is None and due:
            statistics = plain_statistics(self.optimizer)
        self._signals.add(loss, statistics)
        if due or self._checker.under_way:
            self._signals.wait()
            now = time.perf_counter()
            self._seconds += now - start  # until here the device was busy with the training
            start = now
        if due:
            self._read()
        if closure is not None and (due or self._checker.under_way):
            for record in self._checker.work(self.step, closure, start, may_begin=due):
                self._emit(record)
        self._mark = time.perf_counter()
        self.account.spend(self._mark - start)
        return self.verdict

    def attach(self) -> StabilityMonitor:
        """Update by itself at every ``optimizer.step(closure)`` from now on, and return the monitor.

        The loss is what the closure returns first. Steps without a closure give signals without a loss.
        """
        if not self._handles:
            self._handles = [
                self.optimizer.register_step_pre_hook(self._before_step),
                self.optimizer.register_step_post_hook(self._after_step),
            ]
        return self

    def result(self) -> MonitorLog:
        """Return what was seen so far; of a long run the signals of the last ``history`` steps."""
        self._read()
        records = sorted([*self._records, *self._events], key=lambda record: record["step"])
        return collect({**self._header, "provenance": provenance().to_dict()}, records)

    def close(self) -> None:
        """Read and write what is left, and let go of the optimizer and the log."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._read()
        self._emit({"type": "end", "step": self.step, "budget": self.account.to_dict()})
        if self._log is not None:
            self._safely("the log", self._log.close)
        self._log, self._sinks = None, []

    def __enter__(self) -> StabilityMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, to be saved with a checkpoint of the training."""
        self._read()
        return {"step": self.step, "checker": self._checker.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; what was seen of steps beyond it counts no more, in the log either."""
        self.step = state["step"]
        self._checker.load_state_dict(state["checker"])
        self._keep(until([*self._records, *self._events], self.step))
        self._emit({"type": "resume", "step": self.step})

    def _continue(self, records: list[Mapping[str, Any]]) -> None:
        """Go on where a log ends."""
        self._keep(records)
        self.step = max((record["step"] for record in records), default=0)
        seen = collect({}, records)
        self._checker.go_on(seen.checks, seen.signals["loss"], seen.budget)
        self._emit({"type": "resume", "step": self.step})

    def _read(self) -> None:
        """Bring the signals of the steps since the last reading to the host, and into the log."""
        steps = len(self._signals)
        if not steps:
            return
        self.account.trained(self._seconds, steps)
        self._seconds = 0.0
        columns = self._signals.read()
        self._checker.losses.extend(columns["loss"])
        finite = {name: [v if math.isfinite(v) else None for v in values] for name, values in columns.items()}
        self._emit({"type": "signals", "step": self.step, **finite})

    def _emit(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "signals":
            self._records.append(record)
        elif record["type"] != "resume":
            self._events.append(record)
        if (log := self._log) is not None and not self._safely("the log", lambda: log.write(record)):
            self._log = None
        self._sinks = [sink for sink in self._sinks if self._safely("a logger", lambda s=sink: s(record))]

    def _safely(self, what: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except Exception as error:
            warnings.warn(f"the monitor goes on without {what}: {type(error).__name__}: {error}", stacklevel=4)
            return False
        return True

    def _keep(self, records: Iterable[Mapping[str, Any]]) -> None:
        records = list(records)
        self._records.clear()
        self._records.extend(r for r in records if r["type"] == "signals")
        self._events = [r for r in records if r["type"] != "signals"]

    def _before_step(self, _optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        self._loss = None
        self._closure = closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            return None

        def noted() -> Any:
            loss = closure()
            self._loss = loss if self._loss is None else self._loss  # SAM's second is at the perturbed weights
            return loss

        return ((args[0], noted, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": noted})

    def _after_step(self, _optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        self.update(self._loss, self._closure)
        self._loss = self._closure = None
