"""Logs of a training monitor with known numbers."""

from saddlescope.training.monitor.log import COLUMNS, LogWriter


def write_log(path, steps):
    """Append signals ``1 / step`` at the steps, then a check and a verdict at the last of them."""
    writer = LogWriter(path, {})
    columns = {name: [1.0 / step for step in steps] for name in COLUMNS}
    writer.write({"type": "signals", "step": steps[-1], **columns})
    check = {"step": steps[-1], "finding": "trapped", "trap_number": 2.5, "trap_number_error": 0.25}
    check |= {"curvature": -0.5, "curvature_error": 0.125, "budget": {"share": 0.05}}
    writer.write({"type": "check", **check})
    verdict = {"verdict": "trapped", "before": "undetermined", "because": "The loss curves down."}
    writer.write({"type": "verdict", "step": steps[-1], **verdict})
    writer.close()
