"""Results of runs in a database: SQLite by default, PostgreSQL where many machines write."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from saddlescope._checks import refuse

DEFAULT_URL = "sqlite:///saddlescope.db"
SCHEMA = 1
PATIENCE = 60.0
"""Seconds during which a server that is away is asked again."""
EXTRA = "pip install 'saddlescope[{}]'"
LASTING = ("does not exist", "authentication failed", "no password", "pg_hba.conf")
"""What a server says that will say the same later."""

T = TypeVar("T")


class StoreError(RuntimeError):
    """The store cannot be opened, read or written; what it held before is intact."""


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run: a row of the store."""

    key: str
    """Name of the run, at most 64 characters; the same run has the same key."""
    status: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    """Numbers of the run by name; None where one is not finite."""
    curves: Mapping[str, Any]
    """Lists of numbers by name."""
    provenance: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready data."""
        return {name: getattr(self, name) for name in _FIELDS}


_FIELDS = ("key", "status", "config", "metrics", "curves", "provenance")


class Store:
    """Runs by key, each written whole or not at all, by any number of writers at once.

    SQLite keeps a write-ahead log beside its file, so that readers and a writer do not wait for each other, and
    survives a kill at any moment. A PostgreSQL server that goes away is asked again for `PATIENCE` seconds.

    Args:
        url: of SQLAlchemy, such as ``sqlite:///results.db`` or ``postgresql+psycopg://user@host/name``.
        patience: seconds to wait for a server that is away, or for another writer of the same file.

    Raises:
        ValueError: if the URL is none.
        StoreError: if the database cannot be opened for writing, or was made by a newer version.
        ModuleNotFoundError: without SQLAlchemy, or without psycopg for PostgreSQL.

    >>> run = StoredRun(key="a", status="done", config={"lr": 0.1}, metrics={"loss": 2.0}, curves={}, provenance={})
    >>> with Store("sqlite://") as store:
    ...     store.add(run), store.add(run), len(store.select(lr=0.1)), store.keys()
    (True, False, 1, {'a'})
    """

    def __init__(self, url: str = DEFAULT_URL, *, patience: float = PATIENCE) -> None:
        try:
            import sqlalchemy
            from sqlalchemy import event, exc
        except ModuleNotFoundError as error:
            message = f"the store needs SQLAlchemy, which is not installed; do: {EXTRA.format('train')}"
            raise ModuleNotFoundError(message) from error
        self._patience = patience
        expected = "a URL such as sqlite:///results.db or postgresql+psycopg://user@host/name"
        try:
            parsed = sqlalchemy.make_url(url)
            self.url = parsed.render_as_string(hide_password=True)
            self._is_sqlite = parsed.get_backend_name() == "sqlite"
            if not self._is_sqlite and parsed.drivername != "postgresql+psycopg":
                raise refuse("store", self.url, expected)
            options: dict[str, Any] = {"connect_args": {"timeout": patience}} if self._is_sqlite else {}
            self._engine = sqlalchemy.create_engine(parsed, pool_pre_ping=True, **options)
        except exc.ArgumentError as error:
            raise refuse("store", url, expected) from error
        except ModuleNotFoundError as error:
            message = f"PostgreSQL needs psycopg, which is not installed; do: {EXTRA.format('postgresql')}"
            raise ModuleNotFoundError(message) from error
        if self._is_sqlite:
            event.listen(self._engine, "connect", _write_ahead)
        self._runs, self._meta = _tables(sqlalchemy.MetaData())
        self._open()

    def _open(self) -> None:
        from sqlalchemy.exc import IntegrityError, ProgrammingError
        from sqlalchemy.schema import CreateTable

        def prepare() -> int:
            with self._engine.begin() as connection:
                for table in (self._runs, self._meta):
                    connection.execute(CreateTable(table, if_not_exists=True))
                version = connection.execute(self._meta.select()).scalar()
                if version is None:
                    connection.execute(self._meta.insert().values(version=SCHEMA))
                else:
                    # A write that changes nothing: a store that cannot be written is noticed before any work.
                    connection.execute(self._meta.update().values(version=version))
                return SCHEMA if version is None else version

        try:
            version = self._patiently(prepare)
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError | ProgrammingError):
                raise
            version = self._patiently(prepare)  # another process may have made the tables in the same moment
        if version > SCHEMA:
            raise StoreError(
                f"store: got {self.url} of schema {version}, expected at most {SCHEMA}; update saddlescope"
            )

    def add(self, run: StoredRun) -> bool:
        """Write a run, and tell whether it is new; one that is there stays as it is."""
        from sqlalchemy.dialects import postgresql, sqlite

        dialect = sqlite if self._is_sqlite else postgresql
        # Made before the transaction, so that a value which is no JSON never opens one.
        values = json.loads(json.dumps(run.to_dict(), allow_nan=False))
        statement = dialect.insert(self._runs).values(**values).on_conflict_do_nothing().returning(self._runs.c.key)

        def insert() -> bool:
            with self._engine.begin() as connection:
                return connection.execute(statement).first() is not None

        return self._patiently(insert)

    def keys(self) -> set[str]:
        """Return the keys of all runs."""
        return self._keys()

    def has(self, key: str) -> bool:
        """Tell whether a run is there."""
        return key in self._keys(self._runs.c.key == key)

    def get(self, keys: Iterable[str]) -> dict[str, StoredRun]:
        """Return the runs that are there, by key."""
        wanted, found = list(keys), {}
        # SQLite takes a limited number of parameters.
        for start in range(0, len(wanted), 500):
            found.update({run.key: run for run in self._select(self._runs.c.key.in_(wanted[start : start + 500]))})
        return found

    def select(self, **config: str | float | bool | None) -> list[StoredRun]:
        """Return the runs whose config has these values, in the order of their keys.

        >>> with Store("sqlite://") as store:
        ...     store.select(task="digits-mlp", rho=0.5)
        []
        """
        return self._select(*(_equals(self._runs.c.config[name], value) for name, value in config.items()))

    def export(self, path: Path | str) -> int:
        """Write all runs as a flat table, ``.parquet`` or ``.csv``, and return how many: a column a number.

        Columns are ``key``, ``status``, ``config.NAME`` and ``metrics.NAME``; with ``.parquet`` also
        ``curves.NAME``. Nested values are JSON text.
        """
        path = Path(path)
        if path.suffix not in (".parquet", ".csv"):
            raise refuse("export", str(path), "a file name that ends in .parquet or .csv")
        runs = self.select()
        rows = [_flat(run, curves=path.suffix == ".parquet") for run in runs]
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["key", "status"]
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            if path.suffix == ".csv":
                with partial.open("w", newline="") as stream:
                    writer = csv.DictWriter(stream, columns)
                    writer.writeheader()
                    writer.writerows(rows)
            else:
                _write_parquet(partial, {name: [row.get(name) for row in rows] for name in columns})
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(f"export: {path} failed ({error.strerror or error}); the store is intact") from error
        return len(rows)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keys(self, *conditions: Any) -> set[str]:
        def query() -> set[str]:
            with self._engine.connect() as connection:
                rows = self._runs.select().with_only_columns(self._runs.c.key).where(*conditions)
                return set(connection.scalars(rows))

        return self._patiently(query)

    def _select(self, *conditions: Any) -> list[StoredRun]:
        def query() -> list[StoredRun]:
            with self._engine.connect() as connection:
                rows = connection.execute(self._runs.select().where(*conditions).order_by(self._runs.c.key))
                return [StoredRun(**row) for row in rows.mappings()]

        return self._patiently(query)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Return what the action returns, asking a server that is away again; every action may be repeated."""
        from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

        deadline, pause = time.monotonic() + self._patience, 0.1
        while True:
            try:
                return action()
            except DBAPIError as error:
                away = isinstance(error, InterfaceError | OperationalError)
                lasting = self._is_sqlite or not away or any(sign in str(error.orig) for sign in LASTING)
                if lasting or time.monotonic() > deadline:
                    raise StoreError(_explain(self.url, error)) from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)


def _write_ahead(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _tables(metadata: Any) -> tuple[Any, Any]:
    from sqlalchemy import JSON, Column, Integer, String, Table

    runs = Table(
        "runs",
        metadata,
        Column("key", String(64), primary_key=True),
        Column("status", String(32), nullable=False),
        *(Column(name, JSON, nullable=False) for name in _FIELDS[2:]),
    )
    return runs, Table("schema_version", metadata, Column("version", Integer, primary_key=True))


def _equals(element: Any, value: Any) -> Any:
    if isinstance(value, bool):
        return element.as_boolean() == value
    if isinstance(value, int | float):
        return element.as_float() == float(value)
    if isinstance(value, str):
        return element.as_string() == value
    if value is None:
        return element.as_string().is_(None)
    raise refuse("select", value, "text, a number, true, false or None")


def _explain(url: str, error: Any) -> str:
    reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
    advice = {
        "full": "free some space",
        "No space": "free some space",
        "disk I/O": "see whether the disk is full or away",
        "readonly": "make the file and its folder writable",
        "unable to open": "make sure that its folder exists and can be written",
        "not a database": "name another file",
        "malformed": "restore the file from a copy, or name another",
        "locked": "wait until the other writer is done",
        **dict.fromkeys(LASTING, "correct the URL"),
        "permission denied": "ask for the right to make tables and write",
    }
    do = next((text for sign, text in advice.items() if sign in reason), "make sure that the server runs")
    return f"store: {url} failed ({reason}); {do} and repeat with --resume, what it held before is intact"


def _flat(run: StoredRun, *, curves: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"key": run.key, "status": run.status}
    for part in ("config", "metrics"):
        for name, value in getattr(run, part).items():
            row[f"{part}.{name}"] = json.dumps(value) if isinstance(value, dict | list) else value
    if curves:
        row.update({f"curves.{name}": values for name, values in run.curves.items()})
    return row


def _write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        message = f"parquet files need pyarrow, which is not installed; do: {EXTRA.format('train')}"
        raise ModuleNotFoundError(message) from error
    parquet.write_table(pyarrow.table(columns), path)
