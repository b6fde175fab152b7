"""One server for the tests of this folder, in a process of its own as a visitor would meet it."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("tornado", reason="the explorer's server needs tornado; pip install 'saddlescope[explorer]'")

PROGRAM = """
import asyncio, sys
from pathlib import Path
from saddlescope.explorer import Settings, serve

settings = Settings(port=0, quick_workers=1, heavy_workers=1, waiting=8, logs=tuple(map(Path, sys.argv[1:])))
asyncio.run(serve(settings, lambda address: print(address, flush=True)))
"""


@pytest.fixture(scope="session")
def log_file(tmp_path_factory):
    """A monitor's log that tests may append to."""
    return tmp_path_factory.mktemp("explorer") / "run.jsonl"


@pytest.fixture(scope="session")
def server(log_file):
    """The process of a running server; ``address`` is where it listens."""
    command = [sys.executable, "-c", PROGRAM, str(log_file)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    process.address = process.stdout.readline().strip()
    assert process.address, process.stderr.read()
    yield process
    process.terminate()
    _, complaints = process.communicate(timeout=20)
    assert process.returncode == 0 and complaints == ""


@pytest.fixture(scope="session")
def address(server):
    return server.address
