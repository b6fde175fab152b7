"""Where a result comes from: package and library versions, hardware, git revision, time."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything needed to say where and with what a number was made."""

    saddlescope: str
    """Version of this package."""
    revision: str
    """Git revision of the source tree, with ``+dirty`` when it had uncommitted changes; "" outside a checkout."""
    python: str
    torch: str
    numpy: str
    machine: str
    """Processor and operating system."""
    cores: int
    created: str
    """UTC time, ISO 8601."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dictionary."""
        return asdict(self)


def provenance() -> Provenance:
    """Describe this process.

    >>> provenance().saddlescope == __version__
    True
    """
    import numpy
    import torch

    return Provenance(
        saddlescope=__version__,
        revision=_revision(),
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        machine=f"{processor()}, {platform.system()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@lru_cache(maxsize=1)
def processor() -> str:
    """Return the processor's model name as the operating system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _revision() -> str:
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            [
                "git",
                "-C",
                str(folder),
                "describe",
                "--always",
                "--dirty=+dirty",
                "--abbrev=12",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
