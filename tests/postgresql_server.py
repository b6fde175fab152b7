"""A PostgreSQL server for tests and benchmarks, started here and killed at will."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import time


def programs():
    """Return the paths of the server's programs, None where it is not installed."""
    # Debian keeps them off the path.
    path = os.pathsep.join([os.environ["PATH"], *glob.glob("/usr/lib/postgresql/*/bin")])
    found = {name: shutil.which(name, path=path) for name in ("postgres", "initdb")}
    return None if None in found.values() else found


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

    def database(self, name):
        """Make a database, and return its URL."""
        import psycopg

        until = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
                    connection.execute(f'CREATE DATABASE "{name}"')
                return f"{self.url.rpartition('/')[0]}/{name}"
            except psycopg.OperationalError:  # it is not ready yet
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def start_again(self):
        """Start until it stays: the orphans of the killed server let go of its memory first."""
        for _ in range(50):
            self.start()
            time.sleep(0.3)
            if self.process.poll() is None:
                return
        raise RuntimeError("the server does not start again")
