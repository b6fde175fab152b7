"""Checkpoints of a run: written whole or not at all, read without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from saddlescope._checks import refuse


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; a kill leaves the previous one or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint of a run, None if there is none.

    Raises:
        ValueError: if the file is none, or belongs to another config.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise refuse("checkpoint", str(path), "a whole checkpoint", f"delete it to start anew ({reason})") from None
    if not isinstance(state, dict) or "config" not in state:
        raise refuse("checkpoint", str(path), "a checkpoint of run_experiment", "name another file")
    for name, value in config.items():
        if state["config"].get(name) != value:
            got = f"one of a run with {name} = {state['config'].get(name)!r}"
            raise refuse("checkpoint", got, f"{name} = {value!r}", "name another file for another run")
    return state
