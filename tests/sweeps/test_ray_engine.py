import os
import signal
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

    result = run_sweep(CONFIGS, engine=RayEngine(workers=1, attempts=2, task=marked))
    begun = Counter(int(mark.name.split("-")[0]) for mark in tmp_path.iterdir())
    assert begun == {0: 2, 1: 1} and not result.failures
    for config in CONFIGS:
        here, there = attempt(config).record, result.records[config.key]
        assert (here.losses, here.final_loss, here.test_accuracy) == (
            there.losses,
            there.final_loss,
            there.test_accuracy,
        )
