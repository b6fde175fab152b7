import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from saddlescope.store import SCHEMA, Store, StoredRun, StoreError

RUN = StoredRun(
    key="a",
    status="completed",
    config={"lr": 0.1, "steps": 3, "task": "digits-mlp", "normalized": True, "radius_cap": None, "settings": {}},
    metrics={"final_loss": 0.1 + 0.2, "lost": None},
    curves={"losses": [1 / 3, 2.0]},
    provenance={"saddlescope": "1"},
)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'runs.db'}"


def test_a_run_comes_back_bit_for_bit_and_the_first_stays(url):
    with Store(url) as store:
        assert store.add(RUN) and not store.add(replace(RUN, status="other"))
    with Store(url) as store:
        assert store.get(["a", "b"]) == {"a": RUN}
        assert store.has("a") and not store.has("b") and store.keys() == {"a"}


def test_more_keys_than_sqlite_takes_parameters(url):
    with Store(url) as store:
        for key in ("499", "500", "a"):
            store.add(replace(RUN, key=key))
        assert list(store.get([*map(str, range(40_000)), "a"])) == ["499", "500", "a"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"lr": 0.1}, "ab"),
        ({"lr": 0.1, "steps": 3}, "a"),
        ({"steps": 4.0}, "b"),
        ({"task": "digits-mlp", "normalized": True}, "a"),
        ({"radius_cap": None}, "ab"),
        ({"task": "digits"}, ""),
        ({"nothing": 1}, ""),
    ],
)
def test_select_by_config(url, query, found):
    with Store(url) as store:
        store.add(replace(RUN, key="b", config={**RUN.config, "steps": 4, "normalized": False}))
        store.add(RUN)
        assert [run.key for run in store.select(**query)] == list(found)
        with pytest.raises(ValueError, match="select: got"):
            store.select(lr=[0.1])


def test_a_number_that_is_no_json_writes_nothing(url):
    with Store(url) as store:
        with pytest.raises(ValueError):
            store.add(replace(RUN, metrics={"final_loss": float("nan")}))
        assert store.keys() == set()


def test_export(url, tmp_path):
    with Store(url) as store:
        store.add(RUN)
        assert store.export(tmp_path / "runs.csv") == store.export(tmp_path / "runs.parquet") == 1
        with pytest.raises(ValueError, match=r"ends in \.parquet or \.csv"):
            store.export(tmp_path / "runs.txt")
    (row,) = csv.DictReader((tmp_path / "runs.csv").open())
    assert float(row["metrics.final_loss"]) == 0.1 + 0.2 and row["config.task"] == "digits-mlp"
    parquet = pytest.importorskip("pyarrow.parquet")
    (row,) = parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    assert row["curves.losses"] == [1 / 3, 2.0] and row["metrics.lost"] is None


@pytest.mark.parametrize("url", ["nonsense", "sqlite:///no/such/folder/runs.db"])
def test_what_cannot_be_opened_is_named(url):
    with pytest.raises((ValueError, StoreError), match=f"(got '{url}'|its folder exists)"):
        Store(url)


@pytest.mark.parametrize("url", ["mysql://me:secret@host/name", "postgresql://me:secret@host/name"])
def test_other_databases_are_refused_without_the_password(url):
    with pytest.raises(ValueError, match=r"store: got '.*://me:\*\*\*@host/name', expected a URL such as sqlite:///"):
        Store(url)


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'saddlescope\[postgresql\]'"):
        Store("postgresql+psycopg://me@host/name")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "x.db").write_text("no database at all, but long enough to be read as one" * 50)
    with pytest.raises(StoreError, match="name another file"):
        Store(f"sqlite:///{tmp_path / 'x.db'}")


def test_a_store_from_a_newer_version_is_left_alone(url, tmp_path):
    Store(url).close()
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("UPDATE schema_version SET version = ?", (SCHEMA + 1,))
    connection.close()
    with pytest.raises(StoreError, match="update saddlescope"):
        Store(url)


def test_a_read_only_store_is_refused_before_any_work_and_stays(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        store.add(RUN)
    # The superuser may write to any file, so the database itself is opened read-only.
    with pytest.raises(StoreError, match="make the file and its folder writable"):
        Store(f"sqlite:///file:{tmp_path / 'runs.db'}?mode=ro&uri=true")
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        assert store.get(["a"]) == {"a": RUN}


def test_a_full_disk_is_named_and_what_was_there_stays(url):
    from sqlalchemy import event

    with Store(url) as store:
        store.add(RUN)
        store._engine.dispose()
        # SQLite's own limit ends with the error of a disk that is full.
        event.listen(store._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=8"))
        with pytest.raises(StoreError, match=r"full\); free some space and repeat with --resume"):
            store.add(replace(RUN, key="b", curves={"losses": [1.5] * 100_000}))
    with Store(url) as store:
        assert store.get(["a", "b"]) == {"a": RUN}


def test_writers_at_once_lose_nothing(url):
    def write(writer):
        with Store(url) as store:
            return sum(store.add(replace(RUN, key=str(number))) for number in range(25))

    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(write, range(4)))
    assert sum(new) == 25
    with Store(url) as store:
        assert store.keys() == {str(number) for number in range(25)}


WRITER = """
import sys
from saddlescope.store import Store, StoredRun
store = Store(sys.argv[1])
print("ready", flush=True)
for n in range(10**6):
    store.add(StoredRun(key=f"{sys.argv[2]}-{n}", status="s", config={}, metrics={},
                        curves={"losses": [float(n)] * 2000}, provenance={}))
    print(n, flush=True)
"""


def test_kills_leave_whole_rows_and_every_row_that_was_confirmed(url):
    generator = random.Random(0)
    for turn in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url, str(turn)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.05, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = [int(line) for line in writer.communicate()[0].splitlines() if line.isdigit()]
        with Store(url) as store:
            rows = store.get(f"{turn}-{n}" for n in range(len(confirmed) + 2))
        assert {f"{turn}-{n}" for n in confirmed[:-1]} <= set(rows)
        for key, row in rows.items():
            assert row.curves["losses"] == [float(key.split("-")[1])] * 2000


def test_rows_are_json(url):
    with Store(url) as store:
        store.add(RUN)
        assert json.loads(json.dumps(store.select()[0].to_dict()))["key"] == "a"
