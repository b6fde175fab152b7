"""Sweeps under faults at random moments, continued with --resume: what the store holds afterwards.

Every round is a sweep of digits trainings of about half a second by the command ``saddlescope sweep``, whose runs note
when they begin and when they are in the store. "once": cells in the store in exactly one row. "torn": rows that differ
in any bit from the run without a sweep. "recomputed": runs begun although they were in the store. "begun again": runs
lost with their worker, node or driver, or begun by both of two drivers. "seconds": from the fault, or from the command
that continues, to the next run begun, imports included; median and worst.

    python benchmarks/sweep_faults.py [--rounds 50] [--faults NAME,...] [--seed 0] [--cells 8] [--json FILE]

The disks need the right to mount; Ray and PostgreSQL have to be installed.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from saddlescope.provenance import provenance

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import faults  # noqa: E402  (the same faults as in the tests)
import postgresql_server  # noqa: E402

RAY = ("--engine", "ray", "--workers", "2")
SHARES = {
    "local driver kill -9": 7,
    "local worker kill -9": 8,
    "local driver Ctrl-C": 3,
    "local driver SIGTERM": 3,
    "two drivers: one kill -9": 5,
    "PostgreSQL kill -9 for a moment": 4,
    "PostgreSQL kill -9 for good": 4,
    "disk full": 4,
    "disk read-only": 3,
    "Ray driver kill -9": 2,
    "Ray worker kill -9": 2,
    "Ray node kill -9: one of two": 3,
    "Ray node kill -9: the only one": 2,
}
"""Rounds of each kind in 50."""


def play(fault: str, folder: Path, seed: int, cells: int, server: postgresql_server.Server) -> faults.Finding:
    """Make one round of a kind of fault."""
    actions = {
        "local driver kill -9": faults.kill_driver,
        "local worker kill -9": faults.kill_worker,
        "local driver Ctrl-C": faults.signal_driver(signal.SIGINT),
        "local driver SIGTERM": faults.signal_driver(signal.SIGTERM),
        "two drivers: one kill -9": faults.two_drivers,
        "PostgreSQL kill -9 for a moment": faults.restart_server(server),
        "PostgreSQL kill -9 for good": faults.stop_server(server),
        "disk full": faults.fill_disk,
        "disk read-only": faults.forbid_writing,
        "Ray driver kill -9": faults.kill_driver,
        "Ray worker kill -9": faults.kill_worker,
        "Ray node kill -9: one of two": faults.kill_node,
        "Ray node kill -9: the only one": faults.kill_cluster,
    }
    options = {"options": RAY} if fault.startswith("Ray") else {}
    store = server.database(f"round{seed}") if fault.startswith("PostgreSQL") else ""
    sweep = faults.Round(folder, seed, cells=cells, store=store, **options)
    return actions[fault](sweep) or sweep.finding()


def schedule(rounds: int, names: list[str]) -> list[str]:
    """Return the kinds of all rounds, mixed, each in its share."""
    total = sum(SHARES[name] for name in names)
    places = [((k + 0.5) / SHARES[name], name) for name in names for k in range(-(-SHARES[name] * rounds // total))]
    return [name for _, name in sorted(places)[:rounds]]


def table_of(found: dict[str, list[faults.Finding]]) -> Table:
    table = Table("fault", "rounds", "cells", "once", "torn", "recomputed", "begun again", "seconds")
    groups = [*found.items(), ("all", [finding for findings in found.values() for finding in findings])]
    for name, findings in groups:
        counts = [
            sum(getattr(f, field) for f in findings) for field in ("cells", "once", "torn", "recomputed", "extra")
        ]
        seconds = [f.seconds for f in findings]
        spread = f"{statistics.median(seconds):.1f}, {max(seconds):.1f}"
        table.add_row(name, str(len(findings)), *map(str, counts), spread)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--faults", default=",".join(SHARES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, began = Console(), time.monotonic()
    found: dict[str, list[faults.Finding]] = {}
    errors: list[str] = []
    with ExitStack() as stack:
        programs = postgresql_server.programs()
        assert programs is not None, "PostgreSQL is not installed"
        server = postgresql_server.Server(programs, stack.enter_context(tempfile.TemporaryDirectory()))
        server.start()
        stack.callback(lambda: server.process.terminate())
        for number, name in enumerate(schedule(options.rounds, options.faults.split(","))):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    finding = play(name, Path(folder), options.seed * 1000 + number, options.cells, server)
                except (AssertionError, RuntimeError, TimeoutError) as error:
                    errors.append(f"round {number}, {name}: {type(error).__name__}: {str(error)[:2000]}")
                    console.print(errors[-1], markup=False)
                else:
                    found.setdefault(name, []).append(finding)
                    console.print(
                        f"{time.monotonic() - began:.0f} s, round {number}, {name}: {finding}", highlight=False
                    )
            if options.json:
                rows = {kind: [asdict(finding) for finding in findings] for kind, findings in found.items()}
                document = {"found": rows, "errors": errors, "provenance": provenance().to_dict()}
                options.json.write_text(json.dumps(document, indent=1))
    console.print(table_of(found))
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
