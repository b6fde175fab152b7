"""Faults at random moments of a sweep, and what the store holds after it was continued."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from saddlescope.store import Store
from saddlescope.sweeps.engine import attempt
from saddlescope.sweeps.sweep import record_of
from saddlescope.training import ExperimentConfig

COMMAND = [sys.executable, str(Path(__file__).with_name("noted_sweep.py")), "sweep"]
DEADLINE = 240.0
"""Seconds after which a round that does not get on is an error."""


@dataclass(frozen=True)
class Finding:
    """What one round left behind."""

    cells: int
    once: int
    """Cells that are in the store, in one row."""
    torn: int
    """Rows that are not, bit for bit, what the run gives without a sweep."""
    recomputed: int
    """Runs begun although they were in the store."""
    extra: int
    """Runs begun more often than once, as their worker or driver was gone; by both of two drivers."""
    seconds: float
    """From the fault, or from the command that continues, to the next run begun."""


@lru_cache(maxsize=64)
def expected(config):
    return attempt(config).record


@dataclass
class Round:
    """One sweep, its store and its journal, in a folder of its own."""

    folder: Path
    seed: int
    cells: int = 8
    steps: int = 50
    store: str = ""
    options: tuple[str, ...] = ("--workers", "2")
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.journal, self.grid = self.folder / "journal", self.folder / "grid.toml"
        self.journal.touch()
        self.store = self.store or f"sqlite:///{self.folder / 'runs.db'}"
        self.grid.write_text(
            f'[base]\noptimizer = "sam"\nrho = 0.3\nsteps = {self.steps}\n'
            f"seed = {{from = 0, to = {self.cells - 1}, count = {self.cells}}}\n"
        )
        self.configs = [
            ExperimentConfig(optimizer="sam", rho=0.3, steps=self.steps, seed=seed) for seed in range(self.cells)
        ]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "JOURNAL": str(self.journal), **self.environment}
        self.before, self.since, self.known = set(), time.time(), 0

    def drive(self, *more):
        """Start the command in a group of processes of its own."""
        self.known = len(self.notes())
        return subprocess.Popen(
            [*COMMAND, str(self.grid), "--store", self.store, "--json", *self.options, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.environment,
            # A shell's background job, such as a long benchmark, hands down that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def finish(self, driver, code=0):
        """Wait for a driver, hold it to its exit status, and return its document and its last line on stderr."""
        out, err = driver.communicate(timeout=DEADLINE)
        assert driver.returncode == code, (driver.returncode, err)
        assert "Traceback" not in err, err
        assert not out or out.startswith("{"), out
        return (json.loads(out) if out else None), (err.splitlines() or [""])[-1]

    def resume(self):
        """Continue to the end; what is in the store by now must not begin again."""
        with Store(self.store) as store:
            self.before = store.keys()
        self.since = time.time()
        document, _ = self.finish(self.drive("--resume"))
        assert document["cells"] == self.cells and document["reused"] == len(self.before)

    def notes(self, what="begun"):
        """Return time, key and process of all notes of a kind."""
        lines = (line.split() for line in self.journal.read_text().splitlines())
        return [(float(when), key, int(process)) for when, kind, key, process in lines if kind == what]

    def moment(self, driver, least=1, most=None):
        """Wait until some runs more have begun, and then a moment."""
        begun = self.known + self.random.randint(least, most or self.cells - 2)
        until(lambda: len(self.notes()) >= begun, driver)
        time.sleep(self.random.uniform(0.0, 0.5))
        self.since = time.time()

    def finding(self):
        with Store(self.store) as store:
            rows = store.select()
        keys = [row.key for row in rows]
        torn = 0
        for row in rows:
            record = record_of(row)
            twin = expected(record.config)
            same = all(getattr(record, name) == getattr(twin, name) for name in ("losses", "final_loss", "status"))
            torn += not (same and record.test_accuracy == twin.test_accuracy and record.config.key == row.key)
        begun = self.notes()
        kept = {}
        for when, key, _ in self.notes("kept"):
            kept[key] = min(when, kept.get(key, when))
        again = sum(key in self.before for when, key, _ in begun if when > self.since)
        again += sum(when > kept[key] for when, key, _ in begun if key in kept and key not in self.before)
        after = [when for when, _, _ in begun if when > self.since]
        return Finding(
            cells=self.cells,
            once=sum(keys.count(config.key) == 1 for config in self.configs),
            torn=torn,
            recomputed=again,
            extra=len(begun) - len({key for _, key, _ in begun}),
            seconds=min(after) - self.since if after else 0.0,
        )


def until(condition, driver=None, seconds=DEADLINE):
    """Wait for a condition, as long as the driver runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        if driver is not None and driver.poll() is not None:
            raise RuntimeError(f"the driver ended by itself: {driver.returncode}, {driver.stderr.read()}")
        time.sleep(0.02)


def alive(process):
    """Tell whether a process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def group(leader):
    """Return the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def named(processes, name):
    """Return those of the processes whose command line has the name."""
    found = []
    for process in processes:
        try:
            if name in Path(f"/proc/{process}/cmdline").read_text():
                found.append(process)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


@contextmanager
def interrupted_children():
    """Send Ctrl-C to every child again and again, from the moment that it is there."""
    ended = threading.Event()

    def interrupt():
        while not ended.wait(0.001):
            for child in multiprocessing.active_children():
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def kill(*processes):
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


def stop_driver(sweep, number=signal.SIGKILL, **moment):
    """Kill the driver, or tell it to stop: all that it started ends with it."""
    driver = sweep.drive("--resume")
    sweep.moment(driver, **moment)
    if number == signal.SIGINT:  # Ctrl-C reaches all of its group
        os.killpg(driver.pid, number)
    else:
        os.kill(driver.pid, number)
    if number != signal.SIGKILL:
        _, said = sweep.finish(driver, code=128 + number)
        assert "stopped; every finished run is kept" in said, said
    wait_for_end(driver)


def kill_driver(sweep):
    """Kill the driver and continue."""
    stop_driver(sweep)
    sweep.resume()


def wait_for_end(driver):
    """Wait until nothing of a driver's group runs any more."""
    # Two helpers of a Ray node look only once in a while whether it is there.
    until(lambda: group(driver.pid) == named(group(driver.pid), "Agent"), seconds=60)
    driver.communicate(timeout=DEADLINE)


def signal_driver(number):
    """Return the fault that tells the driver to stop."""

    def fault(sweep):
        stop_driver(sweep, number)
        sweep.resume()

    return fault


def kill_worker(sweep):
    """Kill the process of the run that began last: the sweep goes on."""
    driver = sweep.drive()
    sweep.moment(driver)
    kill(sweep.notes()[-1][2])
    document, _ = sweep.finish(driver)
    # None if the worker had nothing to do in that moment.
    assert document["failed"] == 0 and document["retries"] <= 1


def two_drivers(sweep):
    """Two sweeps over one store, of which one is killed: the other one ends with all cells."""
    killed, other = sweep.drive("--resume"), sweep.drive("--resume")
    sweep.moment(killed, least=3)
    kill(killed.pid)
    killed.communicate(timeout=DEADLINE)
    document, _ = sweep.finish(other)
    assert document["failed"] == 0 and document["computed"] + document["reused"] == sweep.cells


def kill_cluster(sweep):
    """Kill the Ray node that the driver started: the sweep ends with one line."""
    driver = sweep.drive()
    sweep.moment(driver)
    kill(*named(group(driver.pid), "raylet/raylet"))
    _, said = sweep.finish(driver, code=1)
    assert "node of the cluster died; start it and repeat with --resume" in said, said
    wait_for_end(driver)
    sweep.resume()


@contextmanager
def ray_nodes(sweep):
    """Start a cluster of two nodes with a core each, and yield its address and the leader of the second one."""
    ray = str(Path(sys.executable).with_name("ray"))
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    # Or an engine that was made in this process before would forbid a cluster of two nodes.
    environment = {**sweep.environment, **settings, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    sweep.environment = environment
    nodes, port = [], sweep.random.randint(20_000, 30_000)
    address = f"127.0.0.1:{port}"
    shared = ["--num-cpus=1", "--block", "--disable-usage-stats"]
    try:
        for role in (["--head", f"--port={port}", "--include-dashboard=false"], [f"--address={address}"]):
            nodes.append(
                subprocess.Popen(
                    [ray, "start", *role, *shared],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env=environment,
                )
            )
            node = nodes[-1].pid
            until(lambda node=node: named(group(node), "raylet/raylet"), seconds=90)
            time.sleep(3.0)
        yield address, nodes[1].pid
    finally:
        for node in nodes:
            kill(*group(node.pid))
            node.wait()


def kill_node(sweep):
    """Kill the second node of a cluster while it has a run: that is begun again on the first."""
    with ray_nodes(sweep) as (address, second):
        sweep.options = ("--engine", "ray", "--address", address)
        driver = sweep.drive()
        until(lambda: any(process in group(second) for _, _, process in sweep.notes()), driver)
        time.sleep(sweep.random.uniform(0.0, 0.5))
        sweep.since = time.time()
        kill(*named(group(second), "raylet/raylet"))
        document, _ = sweep.finish(driver)
        assert document["failed"] == 0 and document["retries"] <= 1


def restart_server(server):
    """Return the fault that kills PostgreSQL for a moment: the sweep waits for it and goes on."""

    def fault(sweep):
        driver = sweep.drive()
        sweep.moment(driver)
        server.kill()
        time.sleep(sweep.random.uniform(0.0, 2.0))
        server.start_again()
        document, _ = sweep.finish(driver)
        assert document["failed"] == 0

    return fault


def stop_server(server):
    """Return the fault that kills PostgreSQL for longer than the store waits: the sweep ends with one line."""

    def fault(sweep):
        sweep.environment["PATIENCE"] = "2"
        driver = sweep.drive()
        sweep.moment(driver)
        server.kill()
        _, said = sweep.finish(driver, code=1)
        assert "saddlescope: store: postgresql" in said and "repeat with --resume" in said, said
        server.start_again()
        sweep.environment["PATIENCE"] = "60"
        sweep.resume()

    return fault


@contextmanager
def mounted(folder, *options):
    """Mount a file system in memory over a folder."""
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def fill_disk(sweep):
    """Take all that is left of the store's disk: the sweep ends with one line."""
    disk = sweep.folder / "disk"
    disk.mkdir()
    sweep.store = f"sqlite:///{disk / 'runs.db'}"
    with mounted(disk, "-o", "size=2m"):
        driver = sweep.drive()
        sweep.moment(driver)
        fill(disk / "filler")
        _, said = sweep.finish(driver, code=1)
        assert "saddlescope: store: sqlite" in said and "repeat with --resume" in said, said
        (disk / "filler").unlink()
        sweep.resume()
        return sweep.finding()


def fill(path):
    """Write until no byte more fits."""
    with path.open("wb", buffering=0) as filler:
        for size in (65_536, 512, 1):
            try:
                while filler.write(b"x" * size) == size:
                    pass
            except OSError:
                pass


def forbid_writing(sweep):
    """Make the disk of a half-made store read-only: the sweep ends with one line, and no run begins."""
    disk = sweep.folder / "disk"
    disk.mkdir()
    sweep.store = f"sqlite:///{disk / 'runs.db'}"
    with mounted(disk):
        stop_driver(sweep)
        begun = len(sweep.notes())
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
        _, said = sweep.finish(sweep.drive("--resume"), code=1)
        assert "saddlescope: store: sqlite" in said and "writ" in said, said
        assert len(sweep.notes()) == begun
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True, capture_output=True)
        sweep.resume()
        return sweep.finding()


def may_mount(folder):
    """Tell whether this process may mount file systems."""
    try:
        with mounted(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
