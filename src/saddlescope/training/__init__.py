"""Training: data sets, networks, tasks and the one loop; a monitor beside it; what holds it up, and what to change."""

from saddlescope.training.advisor import Advice, advise
from saddlescope.training.callbacks import hugging_face_callback, lightning_callback
from saddlescope.training.diagnosis import Diagnosis, diagnose
from saddlescope.training.experiment import ExperimentConfig, Record
from saddlescope.training.live_view import LiveView
from saddlescope.training.loop import run_experiment
from saddlescope.training.measurement import Measurement, measure
from saddlescope.training.monitor import StabilityMonitor
from saddlescope.training.monitor_log import MonitorLog, read_monitor_log
from saddlescope.training.optimizer_settings import OptimizerSettings
from saddlescope.training.tasks import Task, make_task

__all__ = [
    "Advice",
    "Diagnosis",
    "ExperimentConfig",
    "LiveView",
    "Measurement",
    "MonitorLog",
    "OptimizerSettings",
    "Record",
    "StabilityMonitor",
    "Task",
    "advise",
    "diagnose",
    "hugging_face_callback",
    "lightning_callback",
    "make_task",
    "measure",
    "read_monitor_log",
    "run_experiment",
]
