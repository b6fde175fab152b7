"""Load on the explorer: many visitors at once on this machine, each of whom moves a slider every few seconds.

Run it with ``python benchmarks/explorer.py``: it starts a server of its own, and fails (exit status 1) on any error,
on a 95th percentile of trajectory requests above one second, or on memory that keeps growing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient

SLOWEST = 1.0
"""Seconds of the 95th percentile."""
MOST_GROWTH = 1.25
"""Memory at the end over that at a third of the time."""
LANDSCAPES = ("landscape=beale", "landscape=double_well&lr=0.05", "landscape=quadratic_saddle&lr=0.01&starts=-3,-0.01")
FILES = ("", "static/style.css", "static/explorer.js", "static/chart.js", "static/panes.js", "static/form.js")


def memory(root: int) -> float:
    """Return the MiB that a process and its descendants hold, shared pages counted once."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(status.parent.name), status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(rest[1]), []).append(pid)
    total, pending = 0.0, [root]
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


async def visitor(number: int, address: str, until: float, think: float, seen: list[float], errors: list[str]) -> None:
    """Open the page, then turn the radius until the time is up."""
    random_ = random.Random(number)
    client = AsyncHTTPClient()

    async def get(path: str) -> bytes:
        response = await client.fetch(address + path, request_timeout=30, raise_error=False)
        if response.code != 200:
            errors.append(f"{path[:80]}: {response.code} {response.body[:200]!r}")
        return response.body or b""

    await asyncio.sleep(random_.uniform(0, think))
    for name in FILES:
        await get(name)
    where = random_.choice(LANDSCAPES)
    for job in ("state", "picture", "points"):
        await get(f"api/{job}?{where}")
    if number % 10 == 0:
        where = f"loss={quote(f'x**2 - y**2 + 0.{number}*x*y')}&lr=0.01"
    while time.monotonic() < until:
        began = time.monotonic()
        body = await get(f"api/trajectories?{where}&rho={random_.uniform(0.01, 1):.6f}")
        seen.append(time.monotonic() - began)
        if b'"error"' in body[:2000]:
            errors.append(body[:300].decode())
        await asyncio.sleep(random_.expovariate(1 / think))


async def load(address: str, pid: int, visitors: int, seconds: float, think: float) -> dict[str, object]:
    """Return what the visitors met."""
    AsyncHTTPClient.configure(None, max_clients=2 * visitors)
    seen: list[float] = []
    errors: list[str] = []
    sizes: list[float] = []
    until = time.monotonic() + seconds
    tasks = [asyncio.create_task(visitor(k, address, until, think, seen, errors)) for k in range(visitors)]
    while time.monotonic() < until:
        sizes.append(await asyncio.to_thread(memory, pid))
        await asyncio.sleep(min(5.0, max(0.1, until - time.monotonic())))
    await asyncio.gather(*tasks)
    cuts = statistics.quantiles(seen, n=100)
    return {
        "visitors": visitors,
        "seconds": seconds,
        "requests": len(seen),
        "errors": errors[:5],
        "error_count": len(errors),
        "p50": round(cuts[49], 3),
        "p95": round(cuts[94], 3),
        "p99": round(cuts[98], 3),
        "memory_mib": [round(x) for x in sizes],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--settle", type=float, default=15, help="seconds between the server's start and the visitors")
    parser.add_argument("--think", type=float, default=4, help="mean seconds between two moves of a visitor")
    chosen = parser.parse_args()
    program = (
        "import asyncio; from saddlescope.explorer import Settings, serve\n"
        "asyncio.run(serve(Settings(port=0), lambda address: print(address, flush=True)))"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert server.stdout
    try:
        address = server.stdout.readline().strip()
        time.sleep(chosen.settle)
        result = asyncio.run(load(address, server.pid, chosen.visitors, chosen.seconds, chosen.think))
    finally:
        server.terminate()
        server.wait(20)
    print(json.dumps(result, indent=2))
    sizes = result["memory_mib"]
    assert isinstance(sizes, list) and isinstance(result["p95"], float)
    grew = sizes[-1] > MOST_GROWTH * sizes[len(sizes) // 3]
    sys.exit(int(bool(result["error_count"]) or result["p95"] > SLOWEST or grew))


if __name__ == "__main__":
    main()
