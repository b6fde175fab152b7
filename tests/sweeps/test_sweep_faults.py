"""The command under faults: every cell once, none torn, none that was done run again."""

import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

import faults
import pytest
from postgresql_server import Server, programs


def check(sweep):
    finding = sweep.finding()
    assert (finding.once, finding.torn, finding.recomputed) == (sweep.cells, 0, 0)
    return finding


def test_a_sweep_that_is_told_to_stop_ends_with_one_line_and_its_workers_and_is_continued(tmp_path):
    sweep = faults.Round(tmp_path, seed=1, steps=30)
    faults.stop_driver(sweep, signal.SIGINT, most=2)
    faults.stop_driver(sweep, signal.SIGTERM, most=2)
    sweep.resume()
    # Two workers lose a run each, at most, every time.
    assert 0 < check(sweep).extra <= 4


def test_a_sweep_ends_with_one_line_when_the_server_is_gone_and_is_continued():
    pytest.importorskip("psycopg")
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as data:
        server = Server(found, data)
        server.start()
        try:
            store, options = server.database("sweep"), ("--workers", "1")
            sweep = faults.Round(Path(folder), seed=2, cells=5, steps=30, store=store, options=options)
            faults.stop_server(server)(sweep)
            check(sweep)
        finally:
            server.process.terminate()
            server.process.wait()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_run_whose_node_of_a_cluster_is_killed_is_begun_again_on_another(tmp_path):
    sweep = faults.Round(tmp_path, seed=3, cells=6, steps=150)
    faults.kill_node(sweep)
    check(sweep)
