"""Training: data sets, networks, tasks and the one loop."""

from saddlescope.training.experiment import ExperimentConfig, Record
from saddlescope.training.loop import run_experiment
from saddlescope.training.tasks import Task, make_task

__all__ = ["ExperimentConfig", "Record", "Task", "make_task", "run_experiment"]
