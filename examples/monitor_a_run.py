"""A training that says by itself that it is stuck at a saddle, and what would let it go.

Run it as a script, or cell by cell in an editor that knows ``# %%``. It takes a few seconds on a CPU.
"""

# %% The loop
# SAM with a radius of 1 on 1,437 handwritten digits. The monitor is one more line in the loop: it takes the loss and
# the closure of the step. Its log is a file that survives a kill; to start again with the same file goes on with it.
import sys
from pathlib import Path
from tempfile import mkdtemp

import torch

from saddlescope.optim import SAM
from saddlescope.report.monitor_page import monitor_page
from saddlescope.training import make_task
from saddlescope.training.monitor.live_view import LiveView
from saddlescope.training.monitor.log import read_monitor_log
from saddlescope.training.monitor.monitor import StabilityMonitor

folder = Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp())
torch.manual_seed(0)
task = make_task("digits-mlp")
optimizer = SAM(torch.optim.SGD(task.model.parameters(), lr=0.1), rho=1.0)
monitor = StabilityMonitor(optimizer, log=folder / "run.jsonl", loggers=[LiveView()])
generator = torch.Generator().manual_seed(0)

for _ in range(900):
    batch = task.draw(256, generator)

    def closure(batch=batch):
        optimizer.zero_grad()
        loss = task.loss_fn(batch)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    verdict = monitor.update(loss, closure)
    # %% What to do about it
    # Each check knows the radius above which SAM turns back to this saddle; half of it lets go.
    if verdict == "trapped":
        critical = monitor.result().checks[-1]["critical_rho"]
        for group in optimizer.param_groups:
            group["rho"] = min(group["rho"], 0.5 * critical)

monitor.close()

# %% What it saw
# The same as a page without scripts: a notebook shows it when a cell ends with it.
log = read_monitor_log(folder / "run.jsonl")
for change in log.verdicts:
    print(f"step {change['step']}: {change['verdict']}. {change['because']}")
share = log.budget["spent_seconds"] / log.budget["training_seconds"]
print(f"last loss {log.signals['loss'][-1]:.3f}; {share:.1%} of the time and {log.budget['products']} products spent")
print("summary:", monitor_page(log).write(folder / "monitor.html"))
