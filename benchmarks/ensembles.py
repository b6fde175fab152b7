"""Many small trainings: side by side in one process, in processes that are kept, and in a new process for each run.

All sides train the same configs (SAM, radii and seeds that differ) on the same number of cores, and take turns within
a round, so that a machine that is busy with something else is busy for all. Wall time is what a user waits; CPU time,
own and of the children, is what the work costs and hardly depends on the neighbours. What a process costs before its
first step - to start, to import, to read the data - is measured by runs of one step and stated apart, as it makes most
of a short run's time. Ratios are taken round by round: median and range.

    python benchmarks/ensembles.py [--runs 16] [--steps 600] [--rounds 3] [--workers 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from saddlescope.paper.network_runs import images_at_hand
from saddlescope.provenance import provenance
from saddlescope.sweeps.local import LocalEngine
from saddlescope.sweeps.vectorised import VectorisedEngine
from saddlescope.training import ExperimentConfig

CASES = {
    "digits, B = 32": ExperimentConfig(batch_size=32),
    "digits, B = 64": ExperimentConfig(batch_size=64),
    "digits, B = 256": ExperimentConfig(batch_size=256),
    "CIFAR-10 16 x 16, B = 512": ExperimentConfig(task="cifar10-mlp", batch_size=512),
}
SIDES = ("side by side", "kept processes", "a process a run")
Configs = Sequence[ExperimentConfig]


def side_by_side(configs: Configs, workers: int) -> None:
    """Train ensembles, one a thread."""
    require(VectorisedEngine(workers).run(configs), len(configs))


def kept(configs: Configs, workers: int) -> None:
    """Train in as many processes as there are workers, each one run after another."""
    require(LocalEngine(workers).run(configs), len(configs))


def one_each(configs: Configs, workers: int) -> None:
    """Train every run in a new process, as a shell script over seeds does."""
    with ThreadPoolExecutor(workers) as pool:
        require(pool.map(lambda config: next(LocalEngine(1).run([config])), configs), len(configs))


def require(outcomes, count: int) -> None:
    """Go through the outcomes, and fail unless all runs are there."""
    records = [outcome.record for outcome in outcomes]
    assert len(records) == count and None not in records, "a run failed"


def timed(side: Callable[[Configs, int], None], configs: Configs, workers: int) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    side(configs, workers)
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return the CPU time of this process and its ended children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def measure(base: ExperimentConfig, runs: int, steps: int, rounds: int, workers: int) -> dict[str, list]:
    """Return the seconds of every side and round, and those of a process that makes one step."""
    configs = [
        replace(base, optimizer="sam", rho=0.1 + 0.1 * (k % 4), momentum=0.9 * (k % 2), seed=k // 4, steps=steps)
        for k in range(runs)
    ]
    side_by_side([replace(configs[0], steps=1)], workers)  # reads the data
    seconds: dict[str, list] = {name: [] for name in (*SIDES, "start")}
    for _ in range(rounds):
        for name, side in zip(SIDES, (side_by_side, kept, one_each), strict=True):
            seconds[name].append(timed(side, configs, workers))
        seconds["start"].append(timed(one_each, [replace(configs[0], steps=1)], 1))
    return seconds


def ratios(seconds: dict[str, list], name: str, kind: int) -> str:
    """Return how many times the seconds of the ensembles a side needs: median and range over the rounds."""
    found = [other[kind] / ours[kind] for ours, other in zip(seconds[SIDES[0]], seconds[name], strict=True)]
    return f"{median(found):.1f} [{min(found):.1f}, {max(found):.1f}]"


def main() -> None:
    """Measure, print, and perhaps write the raw numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 16), ("steps", 600), ("rounds", 3), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = {name: base for name, base in CASES.items() if options.only in name}
    if not images_at_hand():
        cases = {name: base for name, base in cases.items() if base.task == "digits-mlp"}
    table = Table(
        "case",
        "side by side, ms a step",
        "kept, × wall",
        "kept, × CPU",
        "new, × wall",
        "new, × CPU",
        "start of one, s wall, CPU",
        title=f"{options.runs} runs of {options.steps} steps, {options.workers} workers, {options.rounds} rounds",
    )
    found = {}
    for name, base in cases.items():
        seconds = found[name] = measure(base, options.runs, options.steps, options.rounds, options.workers)
        per_step = [1e3 * cpu / options.runs / options.steps for _, cpu in seconds[SIDES[0]]]
        table.add_row(
            name,
            f"{median(per_step):.2f} CPU",
            *(ratios(seconds, side, kind) for side in SIDES[1:] for kind in (0, 1)),
            ", ".join(f"{median(pair[kind] for pair in seconds['start']):.1f}" for kind in (0, 1)),
        )
        Console(stderr=True).print(f"{name}: {seconds}")
    Console(width=150).print(table)
    if options.json:
        options.json.write_text(json.dumps({"provenance": provenance().to_dict(), "seconds": found}, indent=1))


if __name__ == "__main__":
    main()
