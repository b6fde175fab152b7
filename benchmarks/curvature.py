"""What both ends of a Hessian's spectrum cost, in products and in gradients.

Workload: a perceptron of 93,430 and a convolutional network of 101,626 parameters on 512 of scikit-learn's digits in
one batch, at initialisation and after 30 steps of SGD with momentum. Ways:

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

SAMPLES, STEPS, BUDGET = 512, 30, 200
Ends = tuple[float, float, int]


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 80),
        nn.ReLU(),
        nn.Linear(80, 10),
    )


def workloads() -> Iterator[tuple[str, nn.Module, HessianOperator]]:
    data = digits()
    batch = (data.inputs[:SAMPLES], data.targets[:SAMPLES])
    for name, make in (("MLP", lambda: mlp([64, 270, 270, 10])), ("ConvNet", convnet)):
        torch.manual_seed(0)
        model = make()

        def loss_fn(batch: tuple[torch.Tensor, torch.Tensor], model: nn.Module = model) -> torch.Tensor:
            return cross_entropy(model(batch[0]), batch[1])

        yield f"{name}, init", model, HessianOperator.of_model(model, loss_fn, [batch])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_fn(batch).backward()
            optimizer.step()
        yield f"{name}, trained", model, HessianOperator.of_model(model, loss_fn, [batch])


def ours(operator: HessianOperator, **options: float) -> Ends:
    ends = extreme_eigenvalues(operator, max_products=BUDGET, **options)
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
    if arguments.json:
        arguments.json.write_text(json.dumps({"provenance": where.to_dict(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
