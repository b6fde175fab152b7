"""Training: data sets, networks, tasks and the one loop; a monitor beside it; what holds it up, and what to change."""

from saddlescope.training.diagnosis.advisor import Advice, advise
from saddlescope.training.diagnosis.diagnose import Diagnosis, diagnose
from saddlescope.training.diagnosis.measure import measure
from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings
from saddlescope.training.ensembles import run_ensemble
from saddlescope.training.experiment import ExperimentConfig, Record
from saddlescope.training.loop import run_experiment
from saddlescope.training.monitor.callbacks import hugging_face_callback, lightning_callback
from saddlescope.training.monitor.live_view import LiveView
from saddlescope.training.monitor.log import MonitorLog, read_monitor_log
from saddlescope.training.monitor.monitor import StabilityMonitor
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
    "run_ensemble",
    "run_experiment",
]
