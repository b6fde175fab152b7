"""The command ``saddlescope sweep``, noting in the file $JOURNAL when a run begins and when it is in the store."""

import os
import sys
import time

import saddlescope.cli.sweep as command
from saddlescope.cli import main
from saddlescope.store import Store
from saddlescope.sweeps.engine import attempt
from saddlescope.sweeps.local import LocalEngine


def note(what, key):
    with open(os.environ["JOURNAL"], "a") as journal:  # one write, appended whole
        journal.write(f"{time.time()} {what} {key} {os.getpid()}\n")


def noted(config):
    note("begun", config.key)
    return attempt(config)


class NotedStore(Store):
    def __init__(self, url):
        super().__init__(url, patience=float(os.environ.get("PATIENCE", "60")))

    def add(self, run):
        new = super().add(run)
        note("kept", run.key)
        return new


if __name__ == "__main__":
    command.Store = NotedStore
    command.LocalEngine = lambda workers: LocalEngine(workers, task=noted)
    if "ray" in sys.argv:
        from saddlescope.sweeps import ray

        ray_engine = ray.RayEngine
        ray.RayEngine = lambda address, workers: ray_engine(address, workers, task=noted)
    main()
