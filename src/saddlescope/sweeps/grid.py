"""Grids of configs, written in TOML.

For example::

    version = 1

    [base]
    task = "digits-mlp"
    optimizer = "sam"
    seed = {from = 0, to = 2, count = 3}

    [[grid]]
    rho = [0.5, 1.0]
    lr_effective = {from = 0.1, to = 1.0, count = 3, spacing = "log"}
    momentum = [0.0, 0.9]

Every ``[[grid]]`` is the product of its axes over those of ``[base]``; the sweep is their union. ``lr_effective`` is
``lr / (1 - momentum)``, so that step size and effective step size are axes alike: a comparison of momenta at one
``lr`` and one at one ``lr_effective`` are two grids of one file.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saddlescope._checks import refuse, require_choice, require_count, require_finite
from saddlescope.training import ExperimentConfig

VERSION = 1
MAX_CELLS = 10_000
RANGE = frozenset({"from", "to", "count", "spacing"})


def read_grid(path: Path | str, *, max_cells: int = MAX_CELLS) -> list[ExperimentConfig]:
    """Return the configs of a TOML file, each once, in its order.

    Args:
        path: of the file.
        max_cells: more than that many are taken for a mistake.

    Raises:
        ValueError: for what the grid's form does not allow, in one line that names it.
    """
    try:
        data = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise refuse("sweep", str(path), "a TOML file that can be read", str(error)) from None
    return expand_grid(data, max_cells=max_cells)


def expand_grid(data: Mapping[str, Any], *, max_cells: int = MAX_CELLS) -> list[ExperimentConfig]:
    """Return the configs of a grid, each once, in its order; see `read_grid`.

    >>> grid = {"base": {"momentum": [0.0, 0.9]}, "grid": [{"lr": 0.1}, {"lr_effective": 0.1}]}
    >>> [(config.momentum, round(config.lr, 3)) for config in expand_grid(grid)]
    [(0.0, 0.1), (0.9, 0.1), (0.9, 0.01)]
    """
    version = data.get("version", VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise refuse("version", version, "a whole number >= 1")
    if version > VERSION:
        raise refuse("version", version, f"at most {VERSION}", "the file is for a newer saddlescope; update it")
    for name in data:
        require_choice("sweep", name, ("version", "base", "grid"))
    base, grids = data.get("base", {}), data.get("grid", [{}])
    if not isinstance(base, Mapping):
        raise refuse("base", base, "a table", "write [base]")
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, Mapping) for grid in grids):
        raise refuse("grid", grids, "one or more tables", "write [[grid]]")
    axes = [{name: _values(name, value) for name, value in _over(base, grid).items()} for grid in grids]
    cells = sum(math.prod(len(values) for values in grid.values()) for grid in axes)
    if cells > max_cells:
        raise refuse("sweep", f"{cells:,} cells", f"at most {max_cells:,}", "drop values, or raise --max-cells")
    configs = [
        _config(dict(zip(grid, cell, strict=True)), number)
        for number, grid in enumerate(axes, 1)
        for cell in itertools.product(*grid.values())
    ]
    return list({config.key: config for config in configs}.values())


def _over(base: Mapping[str, Any], grid: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the grid's values in place of its own; a step size replaces either kind of step size."""
    for table in (base, grid):
        if "lr" in table and "lr_effective" in table:
            raise refuse("lr_effective", "beside lr", "one of them", "put them into two [[grid]] tables")
        if "steps" in table and "epochs" in table:
            raise refuse("epochs", "beside steps", "one of them", "put them into two [[grid]] tables")
    rivals = {"lr": "lr_effective", "lr_effective": "lr", "steps": "epochs", "epochs": "steps"}
    replaced = {rivals[name] for name in grid if name in rivals}
    return {**{name: value for name, value in base.items() if name not in replaced}, **grid}


def _values(name: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping) and RANGE & value.keys():
        return _range(name, value)
    if isinstance(value, list):
        if not value:
            raise refuse(name, value, "at least one value")
        return value
    return [value]


def _range(name: str, table: Mapping[str, Any]) -> list[Any]:
    for key in table:
        if key not in RANGE:
            raise refuse(name, f"a range with {key!r}", "from, to, count and, if need be, spacing")
    for key in ("from", "to", "count"):
        if key not in table:
            raise refuse(name, f"a range without {key!r}", "from, to and count")
    low, high = (require_finite(f"{name}.{key}", table[key]) for key in ("from", "to"))
    count = require_count(f"{name}.count", table["count"], minimum=1)
    if count > 1_000_000:
        raise refuse(f"{name}.count", count, "at most 1000000")
    spacing = require_choice(f"{name}.spacing", table.get("spacing", "linear"), ("linear", "log"))
    if spacing == "log" and min(low, high) <= 0.0:
        raise refuse(name, f"{low:g} to {high:g}", "positive ends for spacing log")
    shares = [k / (count - 1) if count > 1 else 0.0 for k in range(count)]
    if spacing == "log":
        numbers = [low * (high / low) ** share for share in shares]
    else:
        numbers = [low + (high - low) * share for share in shares]
    if count > 1:
        numbers[-1] = high
    whole = isinstance(table["from"], int) and isinstance(table["to"], int) and all(n == round(n) for n in numbers)
    return [round(number) for number in numbers] if whole else numbers


def _config(values: dict[str, Any], number: int) -> ExperimentConfig:
    """Build one config; what is wrong with it is said with the number of its ``[[grid]]``."""
    try:
        if "lr_effective" in values:
            effective = require_finite("lr_effective", values.pop("lr_effective"), minimum=0.0, exclusive=True)
            values["lr"] = effective * (1.0 - require_finite("momentum", values.get("momentum", 0.0)))
        return ExperimentConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"grid {number}: {error}") from None
