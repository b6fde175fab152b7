"""The store on a real PostgreSQL server, also when it is killed; skipped where none is installed."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import replace

import pytest
from test_store import RUN

from saddlescope.store import Store

pytest.importorskip("psycopg")


class Server:
    """A cluster of its own in a folder, on the loopback interface."""

    def __init__(self, programs, folder):
        # PostgreSQL refuses to run as the superuser.
        self.user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        self.programs, self.folder = programs, folder
        if self.user:
            shutil.chown(folder, "nobody", "nogroup")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"
        options = ["-D", self.folder, "-U", "tester", "--auth=trust", "--no-sync"]
        subprocess.run([programs["initdb"], *options], check=True, capture_output=True, cwd="/", **self.user)

    def start(self):
        options = ["-D", self.folder, "-p", str(self.port), "-k", "", "-h", "127.0.0.1"]
        self.process = subprocess.Popen(
            [self.programs["postgres"], *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **self.user,
        )

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server():
    # Debian keeps the server's programs off the path.
    path = os.pathsep.join([os.environ["PATH"], *glob.glob("/usr/lib/postgresql/*/bin")])
    programs = {name: shutil.which(name, path=path) for name in ("postgres", "initdb")}
    if None in programs.values():
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory() as folder:  # not within pytest's, which other users may not enter
        server = Server(programs, folder)
        server.start()
        yield server
        server.process.terminate()
        server.process.wait()


def test_a_run_comes_back_and_is_found(server):
    with Store(server.url, patience=30) as store:
        assert store.add(RUN) and not store.add(replace(RUN, status="other"))
        assert store.get(["a"]) == {"a": RUN} and store.select(lr=0.1, task="digits-mlp", normalized=True) == [RUN]


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
    # The orphans of the killed server let go of its memory first.
    for _ in range(50):
        server.start()
        time.sleep(0.3)
        if server.process.poll() is None:
            break
    for writer in writers:
        writer.join()
    with Store(server.url, patience=30) as store:
        runs = store.get(str(number) for number in range(300))
    assert len(runs) == 300 and all(replace(run, key="a") == RUN for run in runs.values())
    # A commit whose confirmation was lost with the server is not counted by its writer, but never twice.
    assert len(new) == 2 and 298 <= sum(new) <= 300
