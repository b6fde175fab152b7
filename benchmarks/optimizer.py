"""What the SAM step itself costs: memory traffic and operations beyond the two passes, in one process.

Weights shaped like a ResNet-18's for CIFAR-10: 62 tensors, 11,173,962 parameters, float32. The "passes" hand out
gradients made before the clock runs, and let go of the last ones, as backward and zero_grad do, so that only the
optimizer's side is timed; what two of them take by themselves is measured in every round and subtracted. The steps:
SGD with momentum alone, its fused form, Composer's algorithm (one loop over the parameters to climb, one to come back
by subtracting the ascent, which is kept), davda54's (the same loops, with a clone of the weights to come back to), both
over the fused base; ours as it comes, and without statistics or checks; and pytorch_optimizer's SAM when it is
installed, as in the peers' environment. Times are medians [minimum, maximum] of n alternating rounds.

The limit is a step's memory traffic at the rate of an in-place addition, measured in every round: 12 passes over the
weights for "add" (norm 1, climb 3, subtract 3, SGD with momentum 5; leaves round-off in the weights), 14 for "exact"
(norms 2, backup 2, climb 3, restore 2, SGD 5). A plain copy runs below that rate on most CPUs, since the target is
read before it is written; "exact, copies as measured" counts the two copies at their own rate. Operations are those
that reach the dispatcher, allocations and views aside, without the base's own; a foreach call is one. Memory is the
largest sum of what torch's profiler sees allocated and freed over two steps, with passes that make their gradients,
in multiples of the weights and beyond one set of gradients; momenta were there before.

    python benchmarks/optimizer.py [--rounds 15] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from saddlescope.optim import SAM
from saddlescope.provenance import provenance

RHO, LR, MOMENTUM = 0.05, 0.1, 0.9
FREE = ("profiler.", *("aten." + name for name in "view detach unbind empty split select slice alias".split()))


def shapes() -> list[tuple[int, ...]]:
    """Return the 62 shapes of a ResNet-18's weights: convolutions, batch norms, one linear layer."""
    found: list[tuple[int, ...]] = [(64, 3, 3, 3), (64,), (64,)]
    inside = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            found += [(width, inside, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if block == 0 and width != inside:
                found += [(width, inside, 1, 1), (width,), (width,)]
            inside = width
    return [*found, (10, 512), (10,)]


class Passes:
    """Weights, and a closure that hands out two sets of gradients in turn, of which it keeps no reference."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = [torch.randn(s, generator=generator).mul_(0.05).requires_grad_() for s in shapes()]
        self._sets = [[torch.randn(s, generator=generator) for s in shapes()] for _ in range(2)]
        self._ready: list[list[torch.Tensor]] = []
        self._calls, self._loss = 0, torch.zeros(())

    def prepare(self) -> None:
        """Make the gradients of the next two calls; else each makes its own."""
        while len(self._ready) < 2:
            self._ready.append(self._fresh(self._calls + len(self._ready)))

    def __call__(self) -> torch.Tensor:
        """Zero the gradients and run backward, as far as the optimizer can tell."""
        for w in self.weights:
            w.grad = None
        gradients = self._ready.pop(0) if self._ready else self._fresh(self._calls)
        self._calls += 1
        for w in reversed(self.weights):
            w.grad = gradients.pop()
        return self._loss

    def _fresh(self, call: int) -> list[torch.Tensor]:
        return [g.clone() for g in self._sets[call % 2]]


def davda54(weights: list[torch.Tensor], base: torch.optim.Optimizer, closure: Callable[[], torch.Tensor]) -> None:
    closure()
    with torch.no_grad():
        norm = torch.norm(torch.stack([(1.0 * w.grad).norm(p=2) for w in weights]), p=2)
        scale = RHO / (norm + 1e-12)
        olds = []
        for w in weights:
            olds.append(w.data.clone())
            w.add_(1.0 * w.grad * scale.to(w))
    closure()
    for w, old in zip(weights, olds, strict=True):
        w.data = old
    base.step()


def composer(weights: list[torch.Tensor], base: torch.optim.Optimizer, closure: Callable[[], torch.Tensor]) -> None:
    closure()
    with torch.no_grad():
        norm = torch.stack([w.grad.norm() for w in weights]).norm()
        moves = []
        for w in weights:
            e = w.grad * (RHO / (norm + 1e-12))
            w.add_(e)
            moves.append(e)
    closure()
    with torch.no_grad():
        for w, e in zip(weights, moves, strict=True):
            w.sub_(e)
    base.step()


class Counter(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not str(func).startswith(FREE):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Contestant:
    """An optimizer step to be timed."""

    passes: Passes
    step: Callable[[], object]
    base: torch.optim.Optimizer | None = None
    """Whose operations are not SAM's; None for the base itself."""

    def seconds(self) -> float:
        """Make a step and return what it took."""
        if self.base is not None:
            self.passes.prepare()
        return seconds(self.step)

    def operations(self) -> int:
        """Return what reaches the dispatcher in a step without the base's own."""
        assert self.base is not None
        self.seconds()  # the first step also allocates
        self.passes.prepare()
        whole = operations(self.step)
        self.passes()
        return whole - operations(self.base.step)


def peak_memory(contestant: Contestant) -> float:
    """Return the most that is held at one time during two steps, in bytes, beyond one set of gradients."""
    weights, step = contestant.passes.weights, contestant.step
    assert contestant.base is not None
    contestant.base.step()
    contestant.base.zero_grad()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for w in weights:
            w.data = w.data.clone()  # or the profiler would not see it freed by those who let go of the weights
        step()
        step()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes)) - 2 * sum(w.nbytes for w in weights)


def operations(step: Callable[[], object]) -> int:
    with Counter() as counter:
        step()
    return len(counter.names)


def contestants() -> dict[str, Contestant]:
    def sgd(weights, fused=False):
        return torch.optim.SGD(weights, lr=LR, momentum=MOMENTUM, fused=fused)

    def passes() -> Passes:
        made = Passes()
        made()
        return made

    found: dict[str, Contestant] = {}
    for fused in (False, True):
        closure = passes()
        found["SGD, fused" if fused else "SGD"] = Contestant(closure, sgd(closure.weights, fused).step)
    for name, algorithm in {"davda54's": davda54, "Composer's": composer}.items():
        closure = passes()
        base = sgd(closure.weights, True)
        found[name] = Contestant(closure, lambda a=algorithm, b=base, c=closure: a(c.weights, b, c), base)
    for name, options in {
        "ours": {},
        "ours, without statistics": {"statistics": False},
        "ours, nothing checked": {"statistics": False, "skip_nonfinite": False},
    }.items():
        closure = passes()
        opt = SAM(sgd(closure.weights, True), rho=RHO, **options)
        found[name] = Contestant(closure, lambda o=opt, c=closure: o.step(c), opt.base)
    try:
        from pytorch_optimizer import SAM as PeerSAM
    except ImportError:
        Console().print("pytorch_optimizer is not installed: left out")
        return found
    closure = passes()
    peer = PeerSAM(closure.weights, torch.optim.SGD, rho=RHO, lr=LR, momentum=MOMENTUM, fused=True)

    def peer_step() -> None:
        closure()
        peer.first_step(zero_grad=True)
        closure()
        peer.second_step()

    version = importlib.metadata.version("pytorch_optimizer")
    found[f"pytorch_optimizer {version}"] = Contestant(closure, peer_step, peer.base_optimizer)
    return found


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def summary(values: list[float]) -> str:
    return f"{1e3 * median(values):.2f} [{1e3 * min(values):.2f}, {1e3 * max(values):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=110)

    steps = contestants()
    rivals = {name: one for name, one in steps.items() if one.base is not None}
    memory = {name: peak_memory(one) for name, one in rivals.items()}
    counts = {name: one.operations() for name, one in rivals.items()}
    bare = Passes()
    weights = bare.weights
    with torch.no_grad():
        flat = torch.cat([w.flatten() for w in weights])
        other = flat.clone()
    yardsticks = {"add": lambda: flat.add_(other), "copy": lambda: flat.copy_(other)}
    times: dict[str, list[float]] = {name: [] for name in (*yardsticks, "two passes", *steps)}
    for _ in range(arguments.rounds):
        for name, run in yardsticks.items():
            times[name].append(seconds(run))
        bare.prepare()
        times["two passes"].append(seconds(lambda: (bare(), bare())))
        for name, contestant in steps.items():
            times[name].append(contestant.seconds() - (times["two passes"][-1] if name in rivals else 0.0))

    a_pass, copy = median(times["add"]) / 3, median(times["copy"])
    size = 4 * sum(w.numel() for w in weights)
    limits = {"add": 12 * a_pass, "exact": 14 * a_pass, "exact, copies as measured": 10 * a_pass + 2 * copy}
    where = provenance()
    console.print(
        f"{where.machine}, {where.cores} cores, {arguments.threads} threads; torch {where.torch}, "
        f"Python {where.python}; {sum(w.numel() for w in weights):,} parameters in {len(weights)} tensors; "
        f"n = {arguments.rounds}"
    )
    console.print("limits: " + "; ".join(f"{name} {1e3 * value:.2f} ms" for name, value in limits.items()))
    table = Table(title="milliseconds a step without the passes, median [min, max]")
    for heading in ("step", "ms", "× limit add", "× limit exact", "operations", "memory"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for name in steps:
        m = median(times[name])
        table.add_row(
            name,
            summary(times[name]),
            f"{m / limits['add']:.2f}",
            f"{m / limits['exact']:.2f}",
            str(counts.get(name, "")),
            f"{memory[name] / size:.2f}" if name in memory else "",
        )
    console.print(table)
    ours, others = median(times["ours"]), [name for name in rivals if "ours" not in name]
    faster = [name for name in others if median(times[name]) < ours]
    lighter = [name for name in others if memory[name] < 0.99 * memory["ours"]]
    console.print(f"faster than ours: {', '.join(faster) or 'none'}; less memory: {', '.join(lighter) or 'none'}")
    if arguments.json:
        document = {
            "provenance": where.to_dict(),
            "threads": arguments.threads,
            "limits_seconds": limits,
            "seconds": times,
            "operations": counts,
            "peak_bytes": memory,
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
