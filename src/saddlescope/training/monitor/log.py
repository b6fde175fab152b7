"""A monitor's log on disk: JSON lines that survive a kill at any moment."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saddlescope._checks import refuse
from saddlescope.provenance import provenance

SCHEMA = "saddlescope.monitor"
VERSION = 1
_HEADER_STARTS = json.dumps({"schema": SCHEMA})[:-1].encode()

COLUMNS = ("loss", "gradient_norm", "perturbed_gradient_norm", "cosine", "rayleigh", "rho_used")
"""The free signals, in the order of a log's columns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MonitorLog:
    """What a `StabilityMonitor` saw: of a run that lives, or read from its file."""

    header: Mapping[str, Any]
    """Schema, version, settings of the monitor and provenance."""
    signals: Mapping[str, tuple[float, ...]]
    """``"step"`` and the free signals, each of shape ``(steps,)``; NaN where there is none."""
    checks: tuple[Mapping[str, Any], ...]
    """Measurements, as `Check.to_dict` gives them, in the order of their steps."""
    verdicts: tuple[Mapping[str, Any], ...]
    """Changes of the verdict: ``step``, ``verdict``, ``before``, ``because``."""
    errors: tuple[Mapping[str, Any], ...]
    """Checks that threw: ``step``, ``error``."""
    budget: Mapping[str, Any]
    """The account at the last check or the end: ``share``, ``training_seconds``, ``spent_seconds``, ``products``,
    ``waits``; empty before."""

    @property
    def verdict(self) -> str:
        """The verdict at the end."""
        return self.verdicts[-1]["verdict"] if self.verdicts else "undetermined"

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; NaN becomes None."""
        signals = {name: [v if math.isfinite(v) else None for v in values] for name, values in self.signals.items()}
        return {
            "header": dict(self.header),
            "signals": signals,
            "checks": [dict(c) for c in self.checks],
            "verdicts": [dict(v) for v in self.verdicts],
            "errors": [dict(e) for e in self.errors],
            "budget": dict(self.budget),
        }


class LogWriter:
    """Appends records to a log, one line each.

    A record is handed to the operating system in one write, without a buffer of ours: a process that is killed
    leaves at most the record it was writing, torn, and the next one to open the log cuts that off. ``os.fsync`` is
    called for every record but those of signals, and at the end: after a power failure, signals since the last
    check may be missing. One process writes a log at a time.

    Args:
        path: a new file, or a log to go on with.
        settings: of the monitor, for the header.

    Raises:
        ValueError: for a file that is no such log, comes from a newer version, or is being written by another
            process.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
    >>> writer = LogWriter(path, {})
    >>> writer.write({"type": "error", "step": 3, "error": "out of memory"})
    >>> writer.close()
    >>> read_monitor_log(path).errors[0]["step"]
    3
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(self._file, self.path)
            # Through this file: to close another one on the same path would give the lock away.
            content = b"".join(iter(lambda: os.read(self._file, 1 << 20), b""))
            whole = _whole_lines(content, self.path)
            if whole < len(content):
                os.ftruncate(self._file, whole)
            self.records = _parse(content[:whole], self.path)[1:]
            """What the log held already; empty for a new one."""
            if not whole:
                header = {"schema": SCHEMA, "version": VERSION, "settings": dict(settings)}
                self.write({**header, "provenance": provenance().to_dict(), "type": "header"})
        except BaseException:
            self.close()
            raise

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record. An error of the file system is raised."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full: leave no torn line in the middle of a log
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(f"{self.path}: no space for a record of {len(line)} bytes")
        if record["type"] != "signals":
            os.fsync(self._file)

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        if self._file >= 0:
            file, self._file = self._file, -1
            try:
                os.fsync(file)
            finally:
                os.close(file)


def read_monitor_log(path: str | Path) -> MonitorLog:
    """Return what a log holds; a torn last line is left out, the file stays as it is.

    Where a run was resumed from a checkpoint, records beyond the checkpoint's step give way to those of the
    resumed run.

    Raises:
        ValueError: for a file that is no such log, or comes from a newer version.
        FileNotFoundError: when there is none.
    """
    content = Path(path).read_bytes()
    records = _parse(content[: _whole_lines(content, Path(path))], Path(path))
    if not records:
        raise refuse("log", str(path), "a log with a header", "the run was killed before it wrote one")
    return collect(records[0], records[1:])


def collect(header: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> MonitorLog:
    """Return the log that these records make."""
    kinds = ("signals", "check", "verdict", "error", "end")
    of_type: dict[str, list[Mapping[str, Any]]] = {name: [] for name in kinds}
    accounts: list[Mapping[str, Any]] = [{}]
    columns: dict[str, list[float]] = {name: [] for name in ("step", *COLUMNS)}
    for record in records:
        of_type[record["type"]].append(record)
        accounts.append(record.get("budget", accounts[-1]))
    for record in of_type["signals"]:
        columns["step"] += range(record["step"] - len(record["loss"]) + 1, record["step"] + 1)
        for name in COLUMNS:
            columns[name] += [math.nan if v is None else v for v in record[name]]
    return MonitorLog(
        header=header,
        signals={name: tuple(values) for name, values in columns.items()},
        checks=tuple(of_type["check"]),
        verdicts=tuple(of_type["verdict"]),
        errors=tuple(of_type["error"]),
        budget=accounts[-1],
    )


def until(records: Iterable[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    """Return what the records say of the steps up to one."""
    return [part for record in records if (part := _up_to(record, step)) is not None]


def _parse(content: bytes, path: Path) -> list[Mapping[str, Any]]:
    """Return header and records, those beyond a checkpoint that a run went on from left out."""
    records: list[Mapping[str, Any]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            raise refuse("log", f"{path}, line {number}", "a JSON record", "the file was changed by hand") from None
        if record["type"] == "resume":
            records = until(records, record["step"])
        else:
            records.append(record)
    return records


def _up_to(record: Mapping[str, Any], step: int) -> Mapping[str, Any] | None:
    """Return the part of a record that lies at or before a step."""
    excess = record.get("step", 0) - step
    if excess <= 0:
        return record
    if record["type"] != "signals" or excess >= len(record["loss"]):
        return None
    return {**record, "step": step, **{name: record[name][:-excess] for name in COLUMNS}}


def _whole_lines(content: bytes, path: Path) -> int:
    """Return how many bytes are whole lines, after a look at the header."""
    whole = content.rfind(b"\n") + 1
    first = content[:whole].partition(b"\n")[0]
    if whole == 0:  # empty, or killed within the header
        if not (content.startswith(_HEADER_STARTS) or _HEADER_STARTS.startswith(content)):
            raise refuse("log", str(path), "a new file or a log of a monitor", "choose another name")
        return 0
    try:
        header = json.loads(first)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise refuse("log", str(path), "a new file or a log of a monitor", "choose another name")
    if not isinstance(header.get("version"), int) or header["version"] > VERSION:
        raise refuse("log", f"{path} of version {header.get('version')}", f"version {VERSION}", "update saddlescope")
    last = content[:whole].rstrip(b"\n").rpartition(b"\n")[2]
    try:
        json.loads(last)
    except ValueError:  # a power failure may leave a block of zeros where the last record was
        whole -= len(content[:whole]) - content[:whole].rstrip(b"\n").rfind(b"\n") - 1
    return whole


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # where there is none, two writers are the caller's mistake to avoid
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, forked workers or not
    except (BlockingIOError, PermissionError):
        raise refuse("log", str(path), "a log that no other process writes", "choose another name") from None
    except OSError:  # a file system without locks
        pass
