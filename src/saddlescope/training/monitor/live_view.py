"""What a monitor sees, in the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from saddlescope.training.monitor.loggers import line_of

STYLES = {"trapped": "bold red", "slowed": "yellow", "free": "green", "undetermined": "dim"}
_BARS = "▁▂▃▄▅▆▇█"


class LiveView:
    r"""A logger of `StabilityMonitor` that keeps a small table up to date in the terminal.

    Where the output is no terminal, it prints a line for each change of the verdict and each check that failed.

    Args:
        console: where to draw; stderr by default, so that output may be piped.
        width: loss values in the curve, the latest readings.

    >>> from io import StringIO
    >>> view = LiveView(Console(file=StringIO(), width=80))
    >>> view({"type": "verdict", "step": 9, "verdict": "free", "before": "slowed", "because": "The loss falls."})
    >>> view.console.file.getvalue()
    'step 9: free (before: slowed). The loss falls.\n'
    """

    def __init__(self, console: Console | None = None, *, width: int = 48) -> None:
        self.console = console or Console(stderr=True)
        self._losses: deque[float] = deque(maxlen=width)
        self._latest: dict[str, Mapping[str, Any]] = {}
        self._live: Live | None = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Take one record of the log and show it."""
        kind = record["type"]
        if kind == "end":
            self.close()
            return
        self._latest[kind] = record
        if kind == "signals":
            self._losses.extend(v for v in [_mean(record["loss"])] if v is not None)
        if not self.console.is_terminal:
            if line := line_of(record):
                self.console.print(line, soft_wrap=True, highlight=False)
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        self._live.update(self.table(), refresh=True)

    def table(self) -> Group:
        """Return the table as it stands."""
        signals, check = self._latest.get("signals", {}), self._latest.get("check", {})
        change = self._latest.get("verdict", {})
        verdict = change.get("verdict", "undetermined")
        head = Text.assemble((verdict, STYLES[verdict]), f"   step {signals.get('step', 0):,}")
        table = Table.grid(padding=(0, 2))
        table.add_row("loss", f"{_number(_mean(signals.get('loss', [])))}  {sparkline(list(self._losses))}")
        table.add_row("gradient", _number(_mean(signals.get("gradient_norm", []))))
        table.add_row("cosine of the two gradients", _number(_mean(signals.get("cosine", []))))
        if check:
            table.add_row("checked at step", f"{check['step']:,} ({check['reason']}): {check['finding']}")
            table.add_row("curvature along v", _with_error(check, "curvature"))
            table.add_row("trap number", _with_error(check, "trap_number"))
            table.add_row("radius that traps", _with_error(check, "critical_rho"))
            table.add_row("spent on checks", spent(check["budget"]))
        return Group(head, table, *([Text(change["because"], style="italic")] if change else []))

    def close(self) -> None:
        """Leave the table as it is and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def sparkline(values: list[float]) -> str:
    """Return the values as a curve of block characters.

    >>> sparkline([0.0, 1.0, 2.0])
    '▁▅█'
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return "".join(_BARS[round((v - low) / span * (len(_BARS) - 1))] for v in values)


def spent(account: Mapping[str, Any]) -> str:
    """Return an account in words.

    >>> spent({"share": 0.1, "training_seconds": 50.0, "spent_seconds": 2.0, "products": 36, "waits": 1})
    '4.0% of the training time of at most 10%, 36 Hessian products'
    """
    share = account["spent_seconds"] / account["training_seconds"] if account["training_seconds"] else 0.0
    limit = "" if account["share"] is None else f" of at most {account['share']:.0%}"
    return f"{share:.1%} of the training time{limit}, {account['products']:,} Hessian products"


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _with_error(record: Mapping[str, Any], name: str) -> str:
    return f"{_number(record[name])} ± {_number(record[name + '_error'])}"
