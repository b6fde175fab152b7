"""The monitor around a loop: what it sees, when it checks, what it leaves alone, and what it says."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

import saddlescope.training.monitor.checker as checker_module
from saddlescope.optim import SAM
from saddlescope.optim.closure_hessian import ClosureHessian
from saddlescope.training import make_task
from saddlescope.training.monitor.budget import Budget
from saddlescope.training.monitor.log import COLUMNS, read_monitor_log
from saddlescope.training.monitor.monitor import StabilityMonitor


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Noisy(nn.Module):
    """Dropout, batch norm and a buffer of its own that every forward pass changes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.seen += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layers(x) + self.mean.sum() * 1e-3


class Loop:
    """A training of `Noisy`, counting how often each step evaluates the model."""

    def __init__(self, rho=0.1, seed=0):
        torch.manual_seed(seed)
        self.model = Noisy()
        base = SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.optimizer = SAM(base, rho=rho) if rho else base
        self.data = torch.Generator().manual_seed(seed)
        self.calls = []
        self.fail = lambda call: None

    def step(self, monitor=None):
        x = torch.randn(16, 6, generator=self.data)
        y = torch.randint(3, (16,), generator=self.data)
        self.calls.append(0)

        def closure():
            self.calls[-1] += 1
            self.fail(self.calls[-1])
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(x), y)
            loss.backward()
            return loss

        loss = self.optimizer.step(closure)
        if monitor is not None:
            monitor.update(loss, closure)
        return loss, closure

    def everything(self):
        tensors = [*self.model.state_dict().values(), *(p.grad for p in self.model.parameters()), torch.get_rng_state()]
        return [t.clone() for t in tensors]


def always(loop, **options):
    return StabilityMonitor(loop.optimizer, budget=math.inf, **{"every": 20, "window": 5, "read_every": 10, **options})


def test_the_free_signals_are_those_of_the_steps():
    loop = Loop()
    monitor = always(loop)
    expected = []
    for _ in range(33):
        loss, _ = loop.step(monitor)
        expected.append({"loss": loss.item(), **loop.optimizer.last_step.to_dict()})
    signals = monitor.result().signals
    assert signals["step"] == tuple(range(1, 34))
    for name in COLUMNS:
        assert signals[name] == tuple(row[name] for row in expected), name


def test_a_plain_optimizer_shows_its_gradient():
    loop = Loop(rho=0)
    monitor = always(loop, read_every=3)
    norms = []
    for step in range(1, 7):
        loop.step(monitor)
        norm = torch.cat([p.grad.flatten() for p in loop.model.parameters()]).norm().item()
        norms.append(math.nan if step % 3 else norm)
    signals = monitor.result().signals
    assert signals["gradient_norm"] == pytest.approx(norms, rel=1e-6, nan_ok=True)
    assert signals["rho_used"][2::3] == (0.0, 0.0)
    assert all(math.isnan(c) for c in signals["cosine"]) and all(map(math.isfinite, signals["loss"]))


def test_signals_are_read_a_block_at_a_time(monkeypatch):
    loop = Loop()
    monitor = always(loop, every=1000, window=500)
    reads = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: reads.append(loop.steps) or [0.0] * len(t))
    for loop.steps in range(1, 31):
        loop.step(monitor)
    assert set(reads) == {10, 20, 30}


def test_no_pass_between_checks():
    loop = Loop()
    monitor = always(loop, every=40, window=100, samples=3)
    for _ in range(160):
        loop.step(monitor)
    checks = monitor.result().checks
    assert [c["step"] - c["batches"] for c in checks] == [40, 80, 120]  # where they began
    during = {step for c in checks for step in range(c["step"] - c["batches"], c["step"] + 1)}
    for step, calls in enumerate(loop.calls[:159], start=1):
        assert calls == (3 if step in during else 2), step
    assert checks[0]["products"] == 8 + checks[0]["batches"]


def test_checks_leave_the_training_as_it_is():
    alone, watched = Loop(), Loop()
    monitor = always(watched, every=10)
    alone_states, watched_states = [], []
    torch.manual_seed(5)
    for _ in range(60):
        alone.step()
        alone_states.append(alone.everything())
    torch.manual_seed(5)
    for _ in range(60):
        watched.step(monitor)
        watched_states.append(watched.everything())
    assert len(monitor.result().checks) >= 2
    for before, after in zip(alone_states, watched_states, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("CUDA out of memory"), KeyError("x")])
def test_a_check_that_throws_leaves_the_training_as_it_is(error):
    alone, watched = Loop(), Loop()
    monitor = always(watched, every=10)

    def fail(call):
        if call > 2:
            raise error

    watched.fail = fail
    torch.manual_seed(5)
    expected = [alone.step() and alone.everything() for _ in range(60)]
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="no more checks: 3 failed in a row"):
        found = [watched.step(monitor) and watched.everything() for _ in range(60)]
    for before, after in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    log = monitor.result()
    assert len(log.errors) == 3 and type(error).__name__ in log.errors[0]["error"]
    assert log.checks == () and monitor.verdict == "undetermined"


def test_a_failure_within_the_products_leaves_the_training_as_it_is(monkeypatch):
    alone, watched = Loop(), Loop()
    monitor = always(watched, every=10)
    torch.manual_seed(5)
    expected = [alone.step() and alone.everything() for _ in range(25)]
    monkeypatch.setattr(ClosureHessian, "__call__", lambda *_: 1 / 0)
    torch.manual_seed(5)
    found = [watched.step(monitor) and watched.everything() for _ in range(25)]
    assert "ZeroDivisionError" in monitor.result().errors[0]["error"]
    for before, after in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_check_that_throws_half_way_is_over():
    loop = Loop()
    monitor = always(loop, every=10)
    extra = []

    def fail(call):
        if call > 2:
            extra.append(loop.calls)
            if len(extra) == 2:  # the first batch after the search
                raise MemoryError

    loop.fail = fail
    for _ in range(29):
        loop.step(monitor)
    assert loop.calls[19:] == [3, 3] + [2] * 8
    assert len(monitor.result().errors) == 1


def test_an_interrupt_is_not_swallowed():
    loop = Loop()
    monitor = always(loop, every=10)

    def fail(call):
        if call > 2:
            raise KeyboardInterrupt

    loop.fail = fail
    with pytest.raises(KeyboardInterrupt):
        for _ in range(20):
            loop.step(monitor)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_budget_is_kept_and_used(monkeypatch, share):
    """On a clock that counts one for each gradient and 1.4 for each product."""
    clock = [0.0]
    monkeypatch.setattr(checker_module.time, "perf_counter", lambda: clock[0])
    product = ClosureHessian.__call__

    def timed_product(self, vector):
        clock[0] += 1.4
        return product(self, vector)

    monkeypatch.setattr(ClosureHessian, "__call__", timed_product)
    w = torch.tensor([1.0, 1e-3], requires_grad=True)
    opt = SAM(SGD([w], lr=1e-3), rho=1.0)

    def closure():
        clock[0] += 1.0
        opt.zero_grad()
        loss = w[0] ** 2 - w[1] ** 2
        loss.backward()
        return loss

    # two variables: a search ends after two products
    monitor = StabilityMonitor(opt, every=1, budget=share, window=5, read_every=10, products=2)
    for step in range(1, 601):
        monitor.update(opt.step(closure), closure)
        assert monitor.account.spent_seconds <= share * 2.0 * step
    account = monitor.account
    assert account.training_seconds == pytest.approx(2.0 * (600 - 10))  # the first block is not counted
    checks = monitor.result().checks
    assert account.spent_seconds == pytest.approx(sum(c["seconds"] for c in checks), rel=0.05)
    assert account.spent_seconds > 0.3 * share * account.training_seconds
    assert account.products >= 6 * len(checks) > 0 and account.waits > 0


def test_a_pause_is_not_counted_as_training():
    budget = Budget(0.1)
    budget.trained(500.0, 10)  # compilation, say
    for seconds in (2.0, 2.0, 200.0, 2.0):
        budget.trained(seconds, 10)
    assert budget.training_seconds == pytest.approx(2.0 + 2.0 + 3.0 + 2.0)
    assert budget.step_seconds == pytest.approx(9.0 / 40)
    assert budget.allows(0.9) and not budget.allows(0.91) and not budget.allows(0.46, part=0.5)


def test_products_that_take_longer_than_was_thought_end_the_search(monkeypatch):
    """A product that takes 40 steps: nothing is known of it before the first, and there is no second too many."""
    clock, products = [0.0], []
    monkeypatch.setattr(checker_module.time, "perf_counter", lambda: clock[0])
    product = ClosureHessian.__call__

    def slow_product(self, vector):
        clock[0] += 80.0
        products.append(clock[0])
        return product(self, vector)

    monkeypatch.setattr(ClosureHessian, "__call__", slow_product)
    w = torch.linspace(-1.0, 1.0, 12).requires_grad_()
    opt = SAM(SGD([w], lr=1e-3), rho=1.0)

    def closure():
        clock[0] += 1.0
        opt.zero_grad()
        loss = (torch.linspace(-1.0, 2.0, 12) * w**2).sum()
        loss.backward()
        return loss

    monitor = StabilityMonitor(opt, every=50, budget=0.1, window=5, read_every=10)
    for step in range(1, 1001):
        monitor.update(opt.step(closure), closure)
        assert monitor.account.spent_seconds <= 0.1 * 2.0 * step + 81.0
    assert len(products) == 1 + monitor.account.spent_seconds // 82


def stuck(rho=1.0, seed=0, steps=400, lr=0.1, momentum=0.0, **options):
    """Train the digits and return the monitor."""
    torch.manual_seed(seed)
    task, data = make_task("digits-mlp"), torch.Generator().manual_seed(seed)
    base = SGD(task.model.parameters(), lr=lr, momentum=momentum)
    opt = SAM(base, rho=rho) if rho else base
    monitor = StabilityMonitor(opt, budget=math.inf, **options)
    for _ in range(steps):
        batch = task.draw(256, data)

        def closure(batch=batch):
            opt.zero_grad()
            loss = task.loss_fn(batch)
            loss.backward()
            return loss

        monitor.update(opt.step(closure), closure)
    return monitor


def test_a_stuck_run_is_called_trapped_and_the_radius_it_names_lets_go():
    monitor = stuck(steps=240)
    assert monitor.verdict == "trapped"
    log = monitor.result()
    last = log.checks[-1]
    assert log.signals["loss"][-1] > 2.25
    assert last["trap_number"] - 2 * last["trap_number_error"] > 1.0 > last["critical_rho"] > 0.2
    assert log.verdicts[-1]["before"] == "undetermined" and "trap number" in log.verdicts[-1]["because"]


@pytest.mark.parametrize(("rho", "momentum"), [(0.1, 0.9), (0.5, 0.0)])
def test_a_healthy_run_is_never_called_trapped(rho, momentum):
    monitor = stuck(rho=rho, momentum=momentum, steps=330, every=40)
    log = monitor.result()
    assert log.signals["loss"][-1] < 0.5 and len(log.checks) >= 5
    assert "trapped" not in {v["verdict"] for v in log.verdicts}


def test_the_verdict_waits_for_findings_that_agree(monkeypatch):
    findings = iter(["trapped", "free", "trapped", "trapped", "free", "free", "free"])
    monkeypatch.setattr(checker_module, "judge", lambda check, plateau: next(findings, "free"))
    loop = Loop()
    monitor = always(loop, every=10, samples=2)
    while len(monitor.result().checks) < 7:
        loop.step(monitor)
    log = monitor.result()
    assert [c["verdict"] for c in log.checks] == ["undetermined"] * 3 + ["trapped"] * 2 + ["free"] * 2
    assert [(v["before"], v["verdict"]) for v in log.verdicts] == [("undetermined", "trapped"), ("trapped", "free")]


def test_attached_it_sees_what_it_is_told_otherwise():
    told, attached = Loop(), Loop()
    by_hand, by_itself = always(told), always(attached).attach()
    torch.manual_seed(5)
    for _ in range(45):
        told.step(by_hand)
    torch.manual_seed(5)
    for _ in range(45):
        attached.step()
    mine, theirs = by_hand.result(), by_itself.result()
    assert mine.signals == theirs.signals
    assert [c["curvature"] for c in mine.checks] == [c["curvature"] for c in theirs.checks] != []
    by_itself.close()
    attached.step()
    assert by_itself.step == 45


@pytest.mark.parametrize("saved", [True, False])
def test_a_restarted_monitor_goes_on(tmp_path, saved):
    """From a checkpoint exactly as if it had never stopped; from the log alone, with its steps and verdict."""
    whole, first = Loop(), Loop()
    torch.manual_seed(5)
    reference = always(whole)
    for _ in range(120):
        whole.step(reference)
    torch.manual_seed(5)
    path = tmp_path / "run.jsonl"
    monitor = always(first, log=path)
    for step in range(1, 76):
        first.step(monitor)
        if step == 62:
            state, model = monitor.state_dict(), first.everything()
    # the process ends here without a word: steps 71-75 are in no log
    restarted = always(first, log=path)
    assert restarted.step == 70 and restarted.result().signals["step"] == tuple(range(1, 71))
    assert restarted.verdict == reference_verdict(reference, 70)
    if saved:
        restarted.load_state_dict(state)
        assert restarted.step == 62 and restarted.result().signals["step"] == tuple(range(1, 63))
        with torch.no_grad():
            for tensor, value in zip(first.model.state_dict().values(), model, strict=False):
                tensor.copy_(value)
    while restarted.step < 120:
        first.step(restarted)
    restarted.close()
    log = read_monitor_log(path)
    assert log.signals["step"] == tuple(range(1, 121))
    assert log.budget["products"] > monitor.account.products
    assert log.signals["loss"][:62] == reference.result().signals["loss"][:62]


def reference_verdict(monitor, step):
    changes = [v["verdict"] for v in monitor.result().verdicts if v["step"] <= step]
    return changes[-1] if changes else "undetermined"


def test_the_state_survives_a_checkpoint_file(tmp_path):
    monitor = stuck(steps=150)
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    other = StabilityMonitor(monitor.optimizer)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (other.step, other.verdict) == (150, monitor.verdict)
    assert other.account.products == monitor.account.products
    assert torch.equal(*(m.state_dict()["checker"]["probe"]["vector"] for m in (monitor, other)))


def test_a_disk_that_fails_does_not_stop_the_training(tmp_path, monkeypatch):
    loop = Loop()
    monitor = always(loop, log=tmp_path / "run.jsonl")

    def full(_record):
        raise OSError("No space left on device")

    monkeypatch.setattr(monitor._log, "write", full)
    with pytest.warns(UserWarning, match="goes on without the log: OSError: No space left"):
        for _ in range(30):
            loop.step(monitor)
    assert monitor.step == 30


def test_a_logger_that_fails_is_left_out_and_the_others_go_on():
    loop, seen, failures = Loop(), [], []

    def broken(record):
        failures.append(record)
        raise ConnectionError("no network")

    monitor = always(loop, loggers=[broken, seen.append])
    with pytest.warns(UserWarning, match="goes on without a logger: ConnectionError"):
        for _ in range(30):
            loop.step(monitor)
    assert len(failures) == 1 and len(seen) > 2


def test_without_a_closure_there_are_signals_only():
    loop = Loop()
    monitor = always(loop)
    for _ in range(50):
        loss, _ = loop.step()
        monitor.update(loss)
    log = monitor.result()
    assert len(log.signals["loss"]) == 50 and log.checks == () and log.errors == ()


def test_a_loss_that_is_not_finite_is_no_plateau():
    w = torch.ones(2, requires_grad=True)
    opt = SGD([w], lr=0.1)
    monitor = StabilityMonitor(opt, read_every=5, window=2, budget=math.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            monitor.update(math.nan, lambda: (w * math.nan).sum())
    assert all(math.isnan(v) for v in monitor.result().signals["loss"])
    assert monitor.result().to_dict()["signals"]["loss"] == [None] * 20


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"budget": 0.0},
        {"budget": -1},
        {"products": 0},
        {"samples": 1},
        {"confirm": 0},
        {"window": 1},
        {"read_every": 0.5},
        {"history": 0},
        {"loggers": [3]},
    ],
)
def test_wrong_use_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        StabilityMonitor(SGD([torch.ones(1, requires_grad=True)], lr=0.1), **options)


def test_something_else_than_an_optimizer_is_refused():
    with pytest.raises(ValueError, match="optimizer: got 'Linear'"):
        StabilityMonitor(nn.Linear(2, 2))
