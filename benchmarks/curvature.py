"""What both ends of a Hessian's spectrum cost, in products and in gradients.

Workload: a perceptron and a convolutional network of about 10^5 parameters on 512 samples in one batch, at
initialisation and trained by SGD with momentum. Two kinds of data: "noise", normal inputs of the shape of CIFAR-10
with random labels, where the trainings stop where the ends come nearest to those of the four nets that the goal of 36
products was set on (0.602 / -0.546, 0.493 / -0.0210, 4.56 / -0.732, 30.5 / -2.17; more is not known of these); and
scikit-learn's digits, where training moves the ends apart, and both take more. Ways:

- "certified": extreme_eigenvalues as it comes, which stops when an error above 0.5% is ruled out with 99% probability
- "certified to 1%": the same with accuracy=0.01
- "residual 3%", "residual 1%": it stops by the residual alone (accuracy=inf)
- "eigsh BE": scipy's ARPACK, both ends at once, tol=1e-2, on our operator with its graph retained
- "curvlinops": the same on its operator, where it is installed

Below each table: the fewest products after which the Krylov space of our start holds both ends to 1%, which is seen
only in hindsight. No way that multiplies one vector at a time from a random start can be sure of them with less.

Errors are relative to a run to residuals of 1e-4. "g" is one gradient; times are of the process, single-threaded, and
the gradient's is the median of many before and after.

    python benchmarks/curvature.py [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn.functional import cross_entropy

from saddlescope.curvature.hessian import HessianOperator
from saddlescope.curvature.lanczos import Spectrum, extreme_eigenvalues, lanczos
from saddlescope.provenance import provenance
from saddlescope.training.data.datasets import digits
from saddlescope.training.networks import mlp

SAMPLES, BUDGET, SEEDS = 512, 200, range(5)
Batch = tuple[torch.Tensor, torch.Tensor]
Ends = tuple[float, float, int]


def small_convnet() -> nn.Sequential:
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    layers = nn.Unflatten(1, (3, 32, 32)), first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 97), nn.ReLU(), nn.Linear(97, 10))


def convnet() -> nn.Sequential:
    first, second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
    layers = nn.Unflatten(1, (1, 8, 8)), first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 80), nn.ReLU(), nn.Linear(80, 10))


def noise(seed: int) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(SAMPLES, 3072, generator=random), torch.randint(10, (SAMPLES,), generator=random)


def some_digits(seed: int) -> Batch:
    data = digits()
    return data.inputs[:SAMPLES], data.targets[:SAMPLES]


NETS: dict[str, tuple[Callable[[int], Batch], Callable[[], nn.Module], int, int]] = {
    "MLP on noise": (noise, lambda: mlp([3072, 30, 30, 10]), 66, SAMPLES),
    "ConvNet on noise": (noise, small_convnet, 128, 64),
    "MLP on digits": (some_digits, lambda: mlp([64, 270, 270, 10]), 30, SAMPLES),
    "ConvNet on digits": (some_digits, convnet, 30, SAMPLES),
}
"""Data, network, for how many steps it is trained, and on how many samples each."""


def workloads(seed: int = 0) -> Iterator[tuple[str, nn.Module, HessianOperator]]:
    for name, (data, make, steps, size) in NETS.items():
        torch.manual_seed(seed)
        batch, model = data(seed), make()

        def loss_fn(batch: Batch, model: nn.Module = model) -> torch.Tensor:
            return cross_entropy(model(batch[0]), batch[1])

        yield f"{name}, init", model, HessianOperator.of_model(model, loss_fn, [batch])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        random = torch.Generator().manual_seed(seed + 1)
        for _ in range(steps):
            drawn = torch.randperm(SAMPLES, generator=random)[:size]
            optimizer.zero_grad()
            loss_fn((batch[0][drawn], batch[1][drawn])).backward()
            optimizer.step()
        yield f"{name}, trained", model, HessianOperator.of_model(model, loss_fn, [batch])


def ours(operator: HessianOperator, seed: int = 0, **options: float) -> Ends:
    ends = extreme_eigenvalues(operator, max_products=BUDGET, seed=seed, **options)
    return ends.minimum, ends.maximum, ends.products


def arpack(matvec: Callable[[np.ndarray], np.ndarray], size: int) -> Ends:
    products = 0

    def counted(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return matvec(vector)

    start = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    values = eigsh(
        LinearOperator((size, size), matvec=counted, dtype=np.float32),
        k=2, which="BE", tol=1e-2, v0=start, return_eigenvectors=False,
    )  # fmt: skip
    return float(values.min()), float(values.max()), products


def eigsh_on_ours(operator: HessianOperator) -> Ends:
    with operator.retained():
        return arpack(lambda v: operator.matvec(torch.from_numpy(v.ravel())).numpy(), operator.dimension)


def eigsh_on_curvlinops(model: nn.Module, operator: HessianOperator) -> Ends:
    from curvlinops import HessianLinearOperator

    parameters = list(model.parameters())
    theirs = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, list(operator.batches), check_deterministic=False
    ).to_scipy()
    return arpack(lambda v: theirs @ v.ravel(), operator.dimension)


def fewest(operator: HessianOperator, exact: Spectrum) -> int:
    """Return after how many products the ends of the Krylov space are right to 1%."""
    spaces = lanczos(operator.matvec, operator.random_vector(0), BUDGET)
    ends = np.array([exact.minimum, exact.maximum])
    return next(k for k, space in enumerate(spaces, 1) if (abs(space.values[[0, -1]] / ends - 1) < 0.01).all())


def products_by_seed() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for seed in SEEDS:
        for name, _, operator in workloads(seed):
            found.setdefault(name, []).append(ours(operator, accuracy=math.inf, tolerance=0.01, seed=seed)[2])
    return found


def seconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def measure(name: str, model: nn.Module, operator: HessianOperator, rounds: int, console: Console) -> list[dict]:
    exact = extreme_eigenvalues(operator, tolerance=1e-4, accuracy=math.inf, max_products=2 * BUDGET)
    vector = operator.random_vector(0)
    ways: dict[str, Callable[[], Ends]] = {
        "certified": lambda: ours(operator),
        "certified to 1%": lambda: ours(operator, accuracy=0.01),
        "residual 1%": lambda: ours(operator, accuracy=math.inf, tolerance=0.01),
        "residual 3%": lambda: ours(operator, accuracy=math.inf),
        "eigsh BE": lambda: eigsh_on_ours(operator),
    }
    if importlib.util.find_spec("curvlinops"):
        ways["curvlinops"] = lambda: eigsh_on_curvlinops(model, operator)
    gradients = [seconds(operator.gradient) for _ in range(10)]
    anew = [seconds(lambda: operator.matvec(vector)) for _ in range(10)]
    with operator.retained():
        kept = [seconds(lambda: operator.matvec(vector)) for _ in range(10)]
    found: dict[str, Ends] = {}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            times[way].append(seconds(lambda way=way, run=run: found.update({way: run()})))
    gradients += [seconds(operator.gradient) for _ in range(10)]
    g, rows = median(gradients), []
    table = Table("", "products", "g", "error of min", "error of max", title=name, title_justify="left")
    for way, (low, high, products) in found.items():
        errors = abs(low / exact.minimum - 1), abs(high / exact.maximum - 1)
        cost = median(times[way]) / g
        table.add_row(way, str(products), f"{cost:.0f}", *(f"{error:.2%}" for error in errors))
        rows.append({"workload": name, "way": way, "products": products, "gradients": cost, "errors": errors})
    console.print(table)
    console.print(
        f"ends {exact.minimum:.4g} and {exact.maximum:.4g} ({exact.products} products, converged: {exact.converged}), "
        f"both in the Krylov space to 1% after {fewest(operator, exact)}; "
        f"g = {1e3 * g:.1f} ms; a product: {median(anew) / g:.2f} g, {median(kept) / g:.2f} g with the graph retained\n"
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, where = Console(width=120), provenance()
    console.print(f"{where.machine}, one thread; torch {where.torch}; median of {arguments.rounds}")
    rows = [row for workload in workloads() for row in measure(*workload, arguments.rounds, console)]
    table = Table("", *map(str, SEEDS), title="products to a residual of 1%, by the seed of data, network and start")
    for name, products in products_by_seed().items():
        table.add_row(name, *map(str, products))
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"provenance": where.to_dict(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
