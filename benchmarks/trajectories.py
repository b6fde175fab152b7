"""How fast trajectories run: the published code's way, batched torch, and the compiled engine, in one process.

Workload W1: Beale, normalized SAM, rho = .5, lr = 1e-4, 512 x 512 starts, 2,000 steps. "Published way" is the paper's
toy code: one trajectory, a leaf tensor, two backward passes, a Python loop. "d = 10 with noise" is normalized SAM with
momentum on a quadratic with Gaussian gradient noise. Rates are millions of trajectory-steps per second: median
[minimum, maximum] of alternating rounds. The ideal is the measured peak rate of fused multiply-adds divided by the 61
floating-point operations of a W1 step (counted by hand, common subexpressions shared, square root and division as one
each); with several threads it is measured with as many.

    python benchmarks/trajectories.py [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from saddlescope import landscapes
from saddlescope.dynamics import GaussianNoise, GradientMap, SAMMap, simulate
from saddlescope.dynamics.c_backend import find_compiler
from saddlescope.landscapes import Landscape
from saddlescope.provenance import provenance

STEPS, SIDE = 2_000, 512
FLOPS = 61
BEALE = landscapes.get("beale")
SAM = SAMMap(lr=1e-4, rho=0.5)

PEAK = """
typedef TYPE vector __attribute__((vector_size(64)));
double peak(long rounds) {
  vector sums[12], factor = {0}, term = {0};
  factor += (TYPE)0.999999; term += (TYPE)1e-7;
  for (int k = 0; k < 12; k++) sums[k] = term * (TYPE)k;
  for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++) sums[k] = sums[k] * factor + term;
  }
  double total = 0;
  for (int k = 0; k < 12; k++) total += sums[k][0];
  return total;
}
"""


def peak_flops(dtype: torch.dtype, threads: int) -> float:
    """Measure the rate of fused multiply-adds, floating-point operations per second over ``threads`` threads."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "peak.c"), Path(folder, "peak.so")
        source.write_text(PEAK.replace("TYPE", "double" if dtype == torch.float64 else "float"))
        flags = "-O3 -march=native -mprefer-vector-width=512 -ffp-contract=fast -shared -fPIC".split()
        subprocess.run([find_compiler()[0], *flags, "-o", library, source], check=True)
        function = ctypes.CDLL(str(library)).peak
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_long]
    rounds, lanes = 30_000_000, 8 if dtype == torch.float64 else 16
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            began = time.perf_counter()
            list(pool.map(function, [rounds] * threads))
            best = max(best, threads * rounds * 12 * lanes * 2 / (time.perf_counter() - began))
    return best


def grid(dtype: torch.dtype) -> torch.Tensor:
    axis = torch.linspace(-4.5, 4.5, SIDE, dtype=dtype)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def published_way(dtype: torch.dtype) -> float:
    """Run one trajectory as the paper's toy code does: a leaf tensor, two backward passes, a Python loop."""
    w = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    steps = 300
    began = time.perf_counter()
    for _ in range(steps):
        w.grad = None
        BEALE.loss(w).backward()
        with torch.no_grad():
            shift = SAM.rho * w.grad / w.grad.norm()
            w += shift
        w.grad = None
        BEALE.loss(w).backward()
        with torch.no_grad():
            w -= shift
            w -= SAM.lr * w.grad
    return steps / (time.perf_counter() - began) / 1e6


def rate(
    landscape: Landscape, update: SAMMap | GradientMap, starts: torch.Tensor, steps: int, **options
) -> Callable[[], float]:
    """Return a function that runs the workload once and returns its rate; the kernel is built beforehand."""
    simulate(landscape, update, starts[:1], 1, **options)

    def run() -> float:
        began = time.perf_counter()
        simulate(landscape, update, starts, steps, **options)
        return len(starts) * steps / (time.perf_counter() - began) / 1e6

    return run


def with_threads(threads: int, run: Callable[[], float]) -> Callable[[], float]:
    def wrapped() -> float:
        torch.set_num_threads(threads)
        return run()

    return wrapped


def new_expression(number: int) -> float:
    """Return the seconds from a formula nobody has compiled to its first result."""
    began = time.perf_counter()
    landscape = landscapes.from_expression(
        f"(x**2 + y - {number}.5)**2 + sin({number}*x*y)*exp(-y**2/9)", [(-4, 4), (-4, 4)]
    )
    simulate(landscape, SAMMap(lr=1e-3, rho=0.1), [[1.0, 2.0]], 100)
    return time.perf_counter() - began


def process_to_map() -> float:
    """Return the seconds from starting a process to the finished W1 map, kernel cache empty."""
    program = (
        "import torch; from saddlescope import landscapes; from saddlescope.dynamics import SAMMap, simulate; "
        f"a = torch.linspace(-4.5, 4.5, {SIDE}, dtype=torch.float64); y, x = torch.meshgrid(a, a, indexing='ij'); "
        "s = torch.stack([x.flatten(), y.flatten()], 1); "
        f"r = simulate(landscapes.get('beale'), SAMMap(1e-4, .5), s, {STEPS}); assert r.engine == 'compiled'"
    )
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program], check=True, env={"XDG_CACHE_HOME": cache, "PATH": "/usr/bin:/bin"}
        )
        return time.perf_counter() - began


def summary(values: list[float]) -> str:
    return f"{median(values):,.4g} [{min(values):,.4g}, {max(values):,.4g}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console(width=110)
    dtypes = {"float64": torch.float64, "float32": torch.float32}
    counts = [1, 2] if provenance().cores >= 2 else [1]
    noise = GaussianNoise(0.1)
    quadratic = landscapes.quadratic(torch.linspace(-1, 1, 10).tolist())
    ackley = landscapes.get("ackley")

    ideal = {(d, t): peak_flops(dtype, t) / FLOPS / 1e6 for d, dtype in dtypes.items() for t in counts}
    runs: dict[tuple[str, str, int], Callable[[], float]] = {}
    for d, dtype in dtypes.items():
        runs["W1, published way", d, 1] = lambda dtype=dtype: published_way(dtype)
        for t in counts:
            eager = rate(BEALE, SAM, grid(dtype), 10, dtype=dtype, engine="eager")
            compiled = rate(BEALE, SAM, grid(dtype), STEPS, dtype=dtype, engine="compiled")
            noisy = rate(
                quadratic, SAMMap(0.01, 0.5, 0.9), torch.zeros(100_000, 10, dtype=dtype), 100, dtype=dtype, noise=noise
            )
            runs["W1, torch eager", d, t] = eager
            runs["W1, ours", d, t] = compiled
            runs["d = 10 with noise, ours", d, t] = noisy
            runs["Ackley, ours", d, t] = rate(ackley, SAMMap(1e-3, 0.05), grid(dtype), 200, dtype=dtype)
    results: dict[tuple[str, str, int], list[float]] = {key: [] for key in runs}
    for _ in range(arguments.rounds):
        for key, run in runs.items():
            results[key].append(with_threads(key[2], run)())
    latency = [new_expression(number) for number in range(3, 3 + arguments.rounds)]
    startup = [process_to_map() for _ in range(min(3, arguments.rounds))]

    table = Table(title="million trajectory-steps per second, median [min, max]")
    for heading in ("workload", "dtype", "threads", "rate", "share of ideal", "× published way"):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    for (name, d, t), values in results.items():
        share = f"{median(values) / ideal[d, t]:.1%}" if name.startswith("W1") else ""
        published = median(results["W1, published way", d, 1])
        ratio = f"{median(values) / published:,.0f}" if name.startswith("W1") else ""
        table.add_row(name, d, str(t), summary(values), share, ratio)
    where = provenance()
    console.print(
        f"{where.machine}, {where.cores} cores; torch {where.torch}, Python {where.python}; n = {arguments.rounds}"
    )
    for (d, t), value in ideal.items():
        console.print(f"ideal {d}, {t} threads: {value:,.0f} M steps/s (peak {value * FLOPS / 1e3:,.1f} Gflop/s)")
    console.print(table)
    console.print(f"new expression to first result, warm process: {summary(latency)} s")
    console.print(f"process start to finished W1 map, no kernel cached: {summary(startup)} s")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {
                    "provenance": where.to_dict(),
                    "ideal": {f"{d}, {t} threads": v for (d, t), v in ideal.items()},
                    "rates": {f"{n}, {d}, {t} threads": v for (n, d, t), v in results.items()},
                    "new_expression_seconds": latency,
                    "process_to_map_seconds": startup,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
