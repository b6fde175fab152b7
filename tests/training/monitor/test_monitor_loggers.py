"""What trackers, the terminal and functions get to see."""

import logging
import math
from io import StringIO

import pytest
from rich.console import Console

from saddlescope.training.monitor.live_view import LiveView
from saddlescope.training.monitor.log import COLUMNS
from saddlescope.training.monitor.loggers import scalars, sink_of

BUDGET = {"share": 0.1, "training_seconds": 50.0, "spent_seconds": 2.0, "products": 36, "waits": 1}
SIGNALS = {"type": "signals", "step": 20, **{name: [1.0, 2.0, None] for name in COLUMNS}}
NUMBERS = {"curvature": -0.2, "curvature_error": 0.01, "trap_number": 1.8, "trap_number_error": 0.1}
RADII = {"critical_rho": 0.55, "critical_rho_error": 0.03, "minimum": -0.25, "maximum": None}
CHECK = {"type": "check", "step": 25, "reason": "plateau", "finding": "trapped", "verdict": "trapped", "budget": BUDGET}
CHECK |= NUMBERS | RADII
VERDICT = {"type": "verdict", "step": 25, "verdict": "trapped", "before": "free", "because": "The loss curves down."}
ERROR = {"type": "error", "step": 40, "error": "RuntimeError: out of memory"}
END = {"type": "end", "step": 60, "budget": BUDGET}
RECORDS = (SIGNALS, CHECK, VERDICT, ERROR, END)
OF_SIGNALS = {f"saddlescope/{name}": 1.5 for name in COLUMNS}
OF_A_CHECK = {
    "saddlescope/trap_number": 1.8,
    "saddlescope/critical_rho": 0.55,
    "saddlescope/curvature": -0.2,
    "saddlescope/minimum": -0.25,
    "saddlescope/trapped": 1.0,
    "saddlescope/share_spent": 0.04,
}


def test_scalars():
    assert [scalars(r) for r in RECORDS] == [OF_SIGNALS, OF_A_CHECK, {}, {}, {}]


def test_a_function_gets_every_record():
    seen = []
    sink = sink_of(seen.append)
    for record in RECORDS:
        sink(record)
    assert seen == list(RECORDS)


def test_tensorboard(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard.SummaryWriter(tmp_path) as writer:
        sink = sink_of(writer)
        for record in RECORDS:
            sink(record)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    expected = {tag: [(20, value)] for tag, value in OF_SIGNALS.items()}
    expected |= {tag: [(25, pytest.approx(value))] for tag, value in OF_A_CHECK.items()}
    assert found == expected
    assert {tag.rpartition("/")[0] for tag in events.Tags()["tensors"]} == {"saddlescope/verdict", "saddlescope/error"}


def test_wandb():
    class Run:
        def __init__(self):
            self.defined, self.logged = [], []

        def define_metric(self, name, **options):
            self.defined.append((name, options))

        def log(self, data):
            self.logged.append(data)

    run = Run()
    sink = sink_of(run)
    for record in RECORDS:
        sink(record)
    assert run.defined == [("saddlescope/step", {}), ("saddlescope/*", {"step_metric": "saddlescope/step"})]
    assert run.logged == [{"saddlescope/step": 20, **OF_SIGNALS}, {"saddlescope/step": 25, **OF_A_CHECK}]


def test_mlflow():
    class Module:
        logged = []

        @classmethod
        def log_metrics(cls, metrics, step=None):
            cls.logged.append((step, metrics))

        def log_metric(self):
            raise AssertionError

    sink = sink_of(Module)
    for record in RECORDS:
        sink(record)
    assert Module.logged == [(20, OF_SIGNALS), (25, OF_A_CHECK)]


def test_logging(caplog):
    sink = sink_of(logging.getLogger("of the training"))
    with caplog.at_level(logging.INFO):
        for record in (*RECORDS, {**VERDICT, "verdict": "free", "before": "trapped"}):
            sink(record)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "step 25: trapped (before: free). The loss curves down."),
        ("WARNING", "step 40: a check failed: RuntimeError: out of memory"),
        ("INFO", "step 25: free (before: trapped). The loss curves down."),
    ]


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="loggers: got 'list', expected a SummaryWriter"):
        sink_of([])


def test_the_live_view_draws_in_a_terminal_and_gives_it_back():
    console = Console(file=StringIO(), force_terminal=True, width=100, color_system=None)
    view = LiveView(console)
    for record in RECORDS:
        view(record)
    text = console.file.getvalue()
    for expected in ("trapped", "step 20", "1.8 ± 0.1", "0.55 ± 0.03", "4.0% of the training time of at most 10%"):
        assert expected in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden, and is back
    view.close()


def test_the_live_view_prints_lines_where_there_is_no_terminal():
    console = Console(file=StringIO(), width=40)
    view = LiveView(console)
    for record in RECORDS:
        view(record)
    assert console.file.getvalue().splitlines() == [
        "step 25: trapped (before: free). The loss curves down.",
        "step 40: a check failed: RuntimeError: out of memory",
    ]


def test_a_loss_that_is_not_known_is_drawn_as_such():
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=80))
    view({**SIGNALS, "loss": [None, None]})
    view({**SIGNALS, "loss": [math.pi]})
    view.close()
    assert "loss" in view.console.file.getvalue() and "3.142" in view.console.file.getvalue()
