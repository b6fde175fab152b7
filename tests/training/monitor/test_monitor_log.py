"""The log on disk: kills, torn ends, foreign files, resumed runs."""

import errno
import json
import math
import os
import subprocess
import sys
import textwrap

import pytest

from saddlescope.training.monitor.log import COLUMNS, SCHEMA, VERSION, LogWriter, read_monitor_log


def signals(step, count=1):
    return {"type": "signals", "step": step, **{name: [float(step)] * count for name in COLUMNS}}


def written(path, *records):
    writer = LogWriter(path, {"every": 7})
    for record in records:
        writer.write(record)
    writer.close()
    return path


KILLS = 50
DRIVER = """
    import os, random, signal, sys, time
    import torch
    from saddlescope.optim import SAM
    from saddlescope.provenance import provenance
    from saddlescope.training.monitor.monitor import StabilityMonitor

    torch.set_num_threads(1)

    def train(log, acknowledge, steps=10**9):
        w = torch.tensor([1.0, 1e-3], requires_grad=True)
        opt = SAM(torch.optim.SGD([w], lr=1e-4), rho=1.0)
        def closure():  # without autograd, whose threads do not survive a fork
            w.grad = torch.stack([2 * w.detach()[0], -2 * w.detach()[1]])
            return w.detach()[0] ** 2 - w.detach()[1] ** 2
        monitor = StabilityMonitor(opt, read_every=1, log=log)
        for _ in range(steps):
            monitor.update(opt.step(closure))
            os.write(acknowledge, monitor.step.to_bytes(8, "little"))

    train(None, os.open(os.devnull, os.O_WRONLY), steps=1)  # imports what is imported late
    provenance()  # asks git
    random.seed(0)
    for _ in range(int(sys.argv[2])):
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            try:
                train(sys.argv[1], send)
            finally:
                os._exit(1)
        os.close(send)
        first = os.read(receive, 8)  # the child runs
        time.sleep(random.uniform(0.0, 0.015))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rest = b""
        while chunk := os.read(receive, 1 << 16):
            rest += chunk
        steps = first + rest[: len(rest) // 8 * 8]
        print(int.from_bytes(steps[:8], "little"), int.from_bytes(steps[-8:], "little"), flush=True)
"""


def test_fifty_kills_lose_no_record_and_each_run_goes_on_where_the_last_was_killed(tmp_path):
    path = tmp_path / "run.jsonl"
    driver = [sys.executable, "-c", textwrap.dedent(DRIVER), str(path), str(KILLS)]
    answer = subprocess.run(
        driver, capture_output=True, text=True, check=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    runs = [tuple(map(int, line.split())) for line in answer.stdout.splitlines()]
    assert len(runs) == KILLS
    log = read_monitor_log(path)
    steps = log.signals["step"]
    assert list(steps) == list(range(1, len(steps) + 1))  # none missing, none twice
    for (_, last), (first, _) in zip(runs[:-1], runs[1:], strict=True):
        assert last <= first - 1 <= last + 1  # a step may be in the log although the kill came before the answer
    assert len(steps) >= runs[-1][1] > KILLS
    assert all(math.isfinite(loss) for loss in log.signals["loss"])


def test_a_log_cut_at_any_byte_keeps_all_whole_records(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    path = written(tmp_path / "run.jsonl", *(signals(step) for step in (1, 2, 3)))
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for length in sorted({*range(0, len(content) + 1, 7), *ends, *(end - 1 for end in ends)}):
        path.write_bytes(content[:length])
        writer = LogWriter(path, {"every": 7})
        whole = sum(end <= length for end in ends)
        assert len(writer.records) == max(whole - 1, 0)
        writer.write(signals(99))
        writer.close()
        assert read_monitor_log(path).signals["step"] == (*range(1, whole), 99)


def test_reading_leaves_a_torn_end_out_and_the_file_alone(tmp_path):
    path = written(tmp_path / "run.jsonl", signals(1), signals(2))
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert read_monitor_log(path).signals["step"] == (1,)
    assert path.read_bytes() == torn


def test_zeros_that_a_power_failure_leaves_are_cut_off(tmp_path):
    path = written(tmp_path / "run.jsonl", signals(1))
    whole = path.read_bytes()
    for end in (b"\0" * 50, b"\0" * 50 + b"\n"):
        path.write_bytes(whole + end)
        assert read_monitor_log(path).signals["step"] == (1,)
        written(path, signals(2))
        assert read_monitor_log(path).signals["step"] == (1, 2)


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = written(tmp_path / "run.jsonl", signals(1), signals(2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{oops\n" + lines[2])
    with pytest.raises(ValueError, match="line 2"):
        read_monitor_log(path)


@pytest.mark.parametrize(
    "content",
    [
        b"epoch,loss\n1,2.3\n",
        b"notes",
        b'{"a": 1}\n',
        b'{"schema": "other", "version": 1}\n',
        b"[1]\n",
    ],
)
def test_a_foreign_file_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    for use in (lambda: LogWriter(path, {}), lambda: read_monitor_log(path)):
        with pytest.raises(ValueError, match="^log: got .*mine.*expected a new file or a log of a monitor.*$"):
            use()
    assert path.read_bytes() == content


def test_a_newer_log_is_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"schema": SCHEMA, "version": VERSION + 1}) + "\n")
    with pytest.raises(ValueError, match=f"version {VERSION + 1}.*expected version {VERSION}; update saddlescope"):
        LogWriter(path, {})


def test_an_empty_log_has_no_header_to_read(tmp_path):
    path = tmp_path / "run.jsonl"
    path.touch()
    with pytest.raises(ValueError, match="killed before it wrote one"):
        read_monitor_log(path)


def test_the_header_says_where_the_numbers_come_from(tmp_path):
    header = read_monitor_log(written(tmp_path / "run.jsonl")).header
    assert (header["schema"], header["version"], header["settings"]) == (SCHEMA, VERSION, {"every": 7})
    assert header["provenance"]["torch"]


def test_a_resumed_run_takes_the_place_of_what_came_after_its_checkpoint(tmp_path):
    first = {**signals(20, 20), "loss": [float(s) for s in range(1, 21)]}
    check = {"type": "check", "step": 18, "budget": {"share": 0.1}}
    again = {**signals(18, 3), "loss": [-16.0, -17.0, -18.0]}
    path = written(tmp_path / "run.jsonl", first, check, {"type": "resume", "step": 15}, again)
    log = read_monitor_log(path)
    assert log.signals["step"] == tuple(range(1, 19))
    assert log.signals["loss"] == (*map(float, range(1, 16)), -16.0, -17.0, -18.0)
    assert log.checks == ()


def test_two_processes_do_not_write_one_log(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no file locks")
    path = tmp_path / "run.jsonl"
    writer = LogWriter(path, {})

    def tried_by_another():
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        code = 2
        try:
            LogWriter(path, {})
            code = 0
        except ValueError as error:
            code = 1 if "expected a log that no other process writes" in str(error) else 3
        finally:
            os._exit(code)

    assert tried_by_another() == 1
    writer.close()
    assert tried_by_another() == 0


def test_a_full_disk_leaves_no_torn_record(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    writer = LogWriter(path, {})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:10]))
    with pytest.raises(OSError, match="no space"):
        writer.write(signals(1))
    monkeypatch.undo()
    writer.write(signals(2))
    assert read_monitor_log(path).signals["step"] == (2,)
    writer.close()


def test_what_reaches_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    writer = LogWriter(tmp_path / "run.jsonl", {})
    assert len(synced) == 1  # the header
    writer.write(signals(1))
    assert len(synced) == 1
    writer.write({"type": "error", "step": 1, "error": "x"})
    assert len(synced) == 2
    writer.close()
    assert len(synced) == 3
    writer.close()  # twice is once
    assert len(synced) == 3


def test_numbers_that_are_not_finite_never_get_into_the_file(tmp_path):
    writer = LogWriter(tmp_path / "run.jsonl", {})
    with pytest.raises(ValueError):
        writer.write({"type": "error", "step": 1, "error": math.nan})
    writer.close()


def test_a_folder_in_the_way_is_the_systems_error(tmp_path):
    with pytest.raises(OSError) as caught:
        LogWriter(tmp_path, {})
    assert caught.value.errno == errno.EISDIR
