"""The store on a disk that is full or read-only; skipped where no disk may be mounted."""

import subprocess
from dataclasses import replace

import pytest
from faults import fill, may_mount, mounted
from test_store import RUN

from saddlescope.store import Store, StoreError


@pytest.fixture
def disk(tmp_path):
    if not may_mount(tmp_path):
        pytest.skip("this process may not mount disks")
    with mounted(tmp_path, "-o", "size=1m"):
        yield tmp_path


def test_a_full_disk_is_named_nothing_is_torn_and_space_lets_the_store_go_on(disk):
    big = replace(RUN, key="b", curves={"losses": [1 / 3] * 2000})
    with Store(f"sqlite:///{disk / 'runs.db'}") as store:
        store.add(RUN)
        fill(disk / "filler")
        with pytest.raises(StoreError, match=r"sqlite:///.*\(.*full.*\); (free some|see whether).* with --resume"):
            store.add(big)
        assert store.get(["a", "b"]) == {"a": RUN}
        for name in ("runs.csv", "runs.parquet"):
            with pytest.raises(StoreError, match=f"export: .*{name} failed .*; the store is intact"):
                store.export(disk / name)
        assert sorted(entry.name for entry in disk.glob("*run*")) == ["runs.db", "runs.db-shm", "runs.db-wal"]
        (disk / "filler").unlink()
        assert store.add(big) and store.get(["a", "b"]) == {"a": RUN, "b": big}


def test_a_store_on_a_read_only_disk_is_refused_before_any_work_and_stays(disk):
    url = f"sqlite:///{disk / 'runs.db'}"
    with Store(url) as store:
        store.add(RUN)
    remount = ["mount", "-o"]
    subprocess.run([*remount, "remount,ro", disk], check=True)
    for name in ("runs", "others"):
        with pytest.raises(StoreError, match="writ"):
            Store(f"sqlite:///{disk / name}.db")
    subprocess.run([*remount, "remount,rw", disk], check=True)
    with Store(url) as store:
        assert store.get(["a"]) == {"a": RUN}
    assert not (disk / "others.db").exists()
