"""The store on a real PostgreSQL server, also when it is killed; skipped where none is installed."""

import tempfile
import threading
import time
from dataclasses import replace

import pytest
from postgresql_server import Server, programs
from test_store import RUN

from saddlescope.store import Store, StoreError

pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def server():
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory() as folder:  # not within pytest's, which other users may not enter
        server = Server(found, folder)
        server.start()
        yield server
        server.process.terminate()
        server.process.wait()


def test_a_run_comes_back_and_is_found(server):
    with Store(server.url, patience=30) as store:
        assert store.add(RUN) and not store.add(replace(RUN, status="other"))
        assert store.get(["a"]) == {"a": RUN} and store.select(lr=0.1, task="digits-mlp", normalized=True) == [RUN]


@pytest.mark.parametrize(("database", "user"), [("none", "tester"), ("postgres", "nobody")])
def test_what_waiting_does_not_mend_is_told_at_once(server, database, user):
    with Store(server.url, patience=30):  # it is up
        pass
    url = server.url.replace("tester", f"{user}:secret").replace("/postgres", f"/{database}")
    with pytest.raises(StoreError, match="does not exist.*; correct the URL") as caught:
        Store(url, patience=1e6)
    assert "secret" not in str(caught.value)
    with Store(server.url) as store, pytest.raises(StoreError, match="value too long"):
        store._patience = 1e6
        store.add(replace(RUN, key="k" * 65))


def test_writers_go_on_when_the_server_was_killed(server):
    new = []

    def write():
        with Store(server.url, patience=60) as store:
            new.append(sum(store.add(replace(RUN, key=f"{number}")) for number in range(300)))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    time.sleep(0.3)
    server.kill()
    time.sleep(0.5)
    server.start_again()
    for writer in writers:
        writer.join()
    with Store(server.url, patience=30) as store:
        runs = store.get(str(number) for number in range(300))
    assert len(runs) == 300 and all(replace(run, key="a") == RUN for run in runs.values())
    # A commit whose confirmation was lost with the server is not counted by its writer, but never twice.
    assert len(new) == 2 and 298 <= sum(new) <= 300
