"""A training run as data: what was asked for and what came out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from saddlescope._checks import refuse, require_choice, require_count, require_finite
from saddlescope.optim import RadiusCap
from saddlescope.optim.variants import VARIANTS, Variant
from saddlescope.provenance import Provenance
from saddlescope.training.schedules import SCHEDULES
from saddlescope.training.tasks import TASKS

MEANING = 1
"""Raised whenever the same config comes to mean other numbers, so that stored runs are not taken for new ones."""
DEFAULT_STEPS = 600
OPTIMIZERS = ("sgd", *VARIANTS)


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that determines a training run; vary one with ``dataclasses.replace``.

    Raises:
        ValueError: for a value outside its range, or an option of SAM's given to SGD.

    >>> ExperimentConfig(optimizer="sam", rho=1.0).to_dict()["rho"]
    1.0
    """

    task: str = "digits-mlp"
    optimizer: str = "sgd"
    """``"sgd"``, or ``"sam"`` or one of its variants around it."""
    lr: float = 0.1
    """Step size, > 0."""
    momentum: float = 0.0
    """Heavy-ball coefficient in [0, 1)."""
    rho: float = 0.0
    """Radius of SAM, >= 0; 0 for SGD."""
    normalized: bool = True
    """Whether SAM divides its ascent gradient by the norm."""
    radius_cap: RadiusCap | None = None
    settings: tuple[tuple[str, float], ...] = ()
    """Numbers of the variant of SAM by name, such as ``(("sigma", 1.0),)``; a mapping is taken too."""
    batch_size: int = 256
    """Samples a step, over all ranks."""
    steps: int | None = None
    """Optimizer steps on batches drawn with replacement; 600 unless ``epochs`` are given."""
    epochs: int | None = None
    """Instead of steps: walks through the training set, each in a new order, a last incomplete batch left out."""
    schedule: str = "constant"
    """Of the step size: ``"constant"``, ``"cosine"`` or ``"step"``."""
    warmup: int = 0
    """Steps over which the step size rises linearly from 0 to its schedule."""
    weight_decay: float = 0.0
    """Coefficient of ``w`` in the gradient of the base optimizer, >= 0."""
    label_smoothing: float = 0.0
    """Share of every target that is spread over all classes, in [0, 1)."""
    precision: str = "float32"
    """``"float32"``, or ``"bfloat16"`` by autocast."""
    channels_last: bool = False
    """Memory layout of the model's images."""
    compile: bool = False
    """Compile the model with ``torch.compile``."""
    deterministic: bool = False
    """Refuse operations that are not reproducible; on a CPU none is used."""
    device: str = "cpu"
    """``"cpu"`` or ``"cuda"``."""
    seed: int = 0
    """Of the initialisation and of the batches; a SAM run sees the batches of its SGD twin."""

    def __post_init__(self) -> None:
        require_choice("task", self.task, tuple(TASKS))
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("schedule", self.schedule, tuple(SCHEDULES))
        require_choice("precision", self.precision, ("float32", "bfloat16"))
        require_choice("device", self.device, ("cpu", "cuda"))
        require_finite("lr", self.lr, minimum=0.0, exclusive=True)
        require_finite("rho", self.rho, minimum=0.0)
        require_finite("weight_decay", self.weight_decay, minimum=0.0)
        for name in ("momentum", "label_smoothing"):
            if not 0.0 <= require_finite(name, getattr(self, name)) < 1.0:
                raise refuse(name, getattr(self, name), "a number in [0, 1)")
        if self.steps is not None and self.epochs is not None:
            raise refuse("steps", f"{self.steps} and epochs {self.epochs}", "one of them", "set steps=None with epochs")
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
        for name, least in (("batch_size", 1), ("steps", 1), ("epochs", 1), ("warmup", 0), ("seed", 0)):
            if (value := getattr(self, name)) is not None:
                require_count(name, value, minimum=least)
        for name in ("normalized", "channels_last", "compile", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                raise refuse(name, getattr(self, name), "true or false")
        object.__setattr__(self, "settings", tuple(sorted(dict(self.settings).items())))
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        if self.optimizer == "sgd":
            if self.rho != 0.0 or self.radius_cap is not None or not self.normalized or self.settings:
                raise refuse(
                    "optimizer", "sgd with rho, radius_cap, normalized or settings", "none of them", 'use "sam"'
                )
            return
        known = [field.name for field in dataclasses.fields(VARIANTS[self.optimizer])]
        for name, _ in self.settings:
            if name not in known:
                raise refuse("settings", name, f"of {self.optimizer}: {', '.join(known) or 'none'}")
        self.variant()

    def variant(self) -> Variant:
        """Return the variant of SAM, with its settings."""
        return VARIANTS[self.optimizer](**dict(self.settings))

    @property
    def key(self) -> str:
        """The run's name in a store: hash of the config and of what a config means in this version.

        >>> ExperimentConfig(lr=0.1).key == ExperimentConfig().key != ExperimentConfig(seed=1).key
        True
        """
        text = json.dumps([MEANING, self.to_dict()], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dictionary."""
        return {**asdict(self), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the config that a dictionary of fields describes, as ``to_dict`` writes and a TOML file holds it.

        ``radius_cap`` may be a table of its fields, true for its defaults, or false.

        Raises:
            ValueError: for a key that is no field, or a value of another type.

        >>> ExperimentConfig.from_dict({"learning_rate": 0.1})
        Traceback (most recent call last):
            ...
        ValueError: config: got 'learning_rate', expected one of task, optimizer, lr, ...
        """
        values = _typed(cls, data, "config")
        cap = values.get("radius_cap")
        if isinstance(cap, bool):
            values["radius_cap"] = RadiusCap() if cap else None
        elif isinstance(cap, Mapping):
            values["radius_cap"] = RadiusCap(**_typed(RadiusCap, cap, "radius_cap"))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came out of one training run."""

    config: ExperimentConfig
    status: Literal["completed", "diverged"]
    """``"diverged"``: the loss stopped being finite, and the run with it."""
    losses: tuple[float, ...]
    """Batch loss at the unperturbed weights before each step, shape ``(steps made,)``."""
    final_loss: float
    """Mean loss over the whole training set at the end, with batch normalisation by its running statistics."""
    test_accuracy: float
    """Fraction of test samples that are right at the end."""
    skipped_steps: int
    """Steps that SAM left out because a gradient was not finite."""
    hessian_products: int
    """Hessian-vector products that the radius cap used."""
    seconds: float
    """Wall time of the training steps."""
    provenance: Provenance
    data: str = ""
    """SHA-256 of the files of the data set, 16 digits each; empty for data that come with a package."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready data; a loss that is not finite becomes None."""
        numbers = {name: _json_number(getattr(self, name)) for name in ("final_loss", "test_accuracy")}
        losses = [_json_number(loss) for loss in self.losses]
        return {**asdict(self), **numbers, "config": self.config.to_dict(), "losses": losses}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the record that ``to_dict`` wrote; None becomes NaN."""
        values = dict(data)
        values["config"] = ExperimentConfig.from_dict(data["config"])
        values["provenance"] = Provenance(**data["provenance"])
        values["losses"] = tuple(_number(loss) for loss in data["losses"])
        values["final_loss"], values["test_accuracy"] = _number(data["final_loss"]), _number(data["test_accuracy"])
        return cls(**values)


def _json_number(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _typed(kind: type, data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values by field name, or refuse the first key that is no field or has a value of another type."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for name, value in data.items():
        if name not in names:
            raise refuse(where, name, f"one of {', '.join(names)}")
        if not _fits(value, hints[name]):
            raise refuse(name, value, _wording(hints[name]))
    return dict(data)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is types.UnionType:
        return any(_fits(value, one) for one in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if get_origin(hint) is tuple:
        return isinstance(value, Mapping) and all(_fits(number, float) for number in value.values())
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping | bool)
    return isinstance(value, hint)


def _wording(hint: Any) -> str:
    kind = (
        next((one for one in get_args(hint) if one is not type(None)), hint) if get_origin(hint) is not tuple else hint
    )
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return words.get(kind, "a table of numbers")
