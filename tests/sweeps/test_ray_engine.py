import os
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from saddlescope.sweeps import run_sweep
from saddlescope.sweeps.engine import attempt
from saddlescope.training import ExperimentConfig

# Not imported here: the engine sets the cluster's token before Ray reads it.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
CONFIGS = [ExperimentConfig(optimizer="sam", rho=0.3, steps=3, seed=seed) for seed in range(2)]


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def family():
    """Return this process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening():
    """Return the addresses on which the family takes connections, as the kernel writes them."""
    sockets = set()
    for process in family():
        try:
            sockets |= {os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()}
        except (FileNotFoundError, ProcessLookupError):
            pass
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


STRANGER = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None))
"""


def stranger():
    """Return what somebody without the token hears from the cluster."""
    import ray

    address = ray.get_runtime_context().gcs_address
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", STRANGER, address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120).stderr


def test_ray_gives_the_same_numbers_and_survives_a_killed_worker(tmp_path):
    from saddlescope.sweeps.ray import RayEngine

    folder = str(tmp_path)

    def marked(config):
        """Die the first time with seed 0."""
        before = len(list(Path(folder).glob(f"{config.seed}-*")))
        (Path(folder) / f"{config.seed}-{before}").touch()
        if config.seed == 0 and not before:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempt(config)

    seen = []

    def look(outcome):
        seen.append((outcome.attempts, listening(), "" if seen else stranger()))

    result = run_sweep(CONFIGS, engine=RayEngine(workers=1, attempts=2, task=marked), on_outcome=look)
    assert sorted(attempts for attempts, _, _ in seen) == [1, 2] and result.retries == 1
    assert all(addresses and addresses <= LOOPBACK for _, addresses, _ in seen)
    assert "Unauthenticated" in seen[0][2]
    begun = Counter(int(mark.name.split("-")[0]) for mark in tmp_path.iterdir())
    assert begun == {0: 2, 1: 1} and not result.failures
    for config in CONFIGS:
        here, there = attempt(config).record, result.records[config.key]
        assert (here.losses, here.final_loss, here.test_accuracy) == (
            there.losses,
            there.final_loss,
            there.test_accuracy,
        )


# Below the test of a cluster of this process, as Ray is imported here without its token.
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_named(address):
    from saddlescope.sweeps.ray import RayEngine

    with pytest.raises(ConnectionError, match=f"ray: no cluster answers at {address} \\(.*refused\\)"):
        run_sweep(CONFIGS, engine=RayEngine(address))
