"""Worker processes: answers, refusals, and an end at any moment."""

import asyncio
import json
import os
import signal
from dataclasses import replace

import pytest
from faults import interrupted_children

from saddlescope.explorer import jobs, workers
from saddlescope.explorer.state import ExplorerState
from saddlescope.explorer.workers import Busy, Pool, Refused, TooLong

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SHORT = ExplorerState(landscape="quadratic_saddle", lr=0.01, steps=3)
LONG = ExplorerState(landscape="ackley", resolution="384", lr=1e-4, seed=1)
"""Basins that take far longer than any of these tests."""


def run(test, *, size=1, waiting=4):
    """Run an async test with a pool of its own."""

    async def inner():
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            pool = Pool(size, threads=1, waiting=waiting, niceness=1, kernels=Path(folder))
            try:
                async with asyncio.timeout(30):
                    return await test(pool)
            finally:
                pool.close()

    return asyncio.run(inner())


def ignore(share):
    pass


async def until_working(pool, task):
    """Wait until a question has left the queue, and return the process that works on it."""
    while pool._idle or pool._waiting or len(pool._all) < 1:
        assert not task.done()
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    (worker,) = pool._all
    return worker.process


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def is_gone(pid):
    for _ in range(200):
        if not is_running(pid):
            return True
        await asyncio.sleep(0.01)
    return False


def test_a_worker_answers_as_the_job_does_and_stays():
    async def test(pool):
        first = await pool.run("trajectories", SHORT, ignore)
        (pid,) = [worker.process.pid for worker in pool._all]
        second = await pool.run("trajectories", replace(SHORT, rho=0.3), ignore)
        assert [worker.process.pid for worker in pool._all] == [pid]
        return first, second

    first, second = run(test)
    assert first == jobs.JOBS["trajectories"].answer(SHORT, ignore) != second


def test_ctrl_c_is_the_servers_from_the_workers_first_moment_on():
    async def test(pool):
        started = set(pool._all)
        await pool.run("trajectories", SHORT, ignore)
        assert pool._all == started

    with interrupted_children():
        run(test)


def test_a_refusal_is_in_words_and_costs_no_worker():
    async def test(pool):
        with pytest.raises(Refused, match="of gradient descent and SAM"):
            await pool.run("phases", replace(SHORT, optimizer="vasso"), ignore)
        assert len(pool._idle) == 1

    run(test)


def test_who_cancels_ends_the_process_and_the_next_gets_another():
    async def test(pool):
        task = asyncio.create_task(pool.run("basins", LONG, ignore))
        process = await until_working(pool, task)
        pid = process.pid
        assert is_running(pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await is_gone(pid)
        assert json.loads(await pool.run("trajectories", SHORT, ignore))["gd"]["status"] == ["completed"]

    run(test)


def test_time_that_is_up_ends_the_process(monkeypatch):
    monkeypatch.setitem(jobs.JOBS, "basins", replace(jobs.JOBS["basins"], seconds=0.7))

    async def test(pool):
        with pytest.raises(TooLong, match="more than 0.7 s"):
            async with asyncio.timeout(15):  # half the time of the map, and twenty times what it is given
                await pool.run("basins", LONG, ignore)
        assert not pool._all and not pool._slots.locked()

    run(test)


def test_a_process_that_dies_is_replaced():
    async def test(pool):
        (worker,) = pool._all
        os.kill(worker.process.pid, signal.SIGKILL)
        assert await is_gone(worker.process.pid)
        assert await pool.run("trajectories", SHORT, ignore)  # dead before the question: nobody notices
        task = asyncio.create_task(pool.run("basins", LONG, ignore))
        os.kill((await until_working(pool, task)).pid, signal.SIGKILL)
        with pytest.raises(Refused, match="ended unexpectedly"):
            await task
        assert await pool.run("trajectories", SHORT, ignore)

    run(test)


def test_a_full_queue_sends_away_and_a_cancelled_place_is_free_again():
    async def test(pool):
        tasks = [asyncio.create_task(pool.run("basins", LONG, ignore))]
        await until_working(pool, tasks[0])
        tasks += [asyncio.create_task(pool.run("basins", LONG, ignore)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await pool.run("trajectories", SHORT, ignore)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await pool.run("trajectories", SHORT, ignore)

    run(test, waiting=2)


def test_workers_are_replaced_after_so_many_answers(monkeypatch):
    monkeypatch.setattr(workers, "ANSWERS", 2)

    async def test(pool):
        pids = []
        for _ in range(3):
            pids += [worker.process.pid for worker in pool._all] if pool._all else []
            await pool.run("trajectories", SHORT, ignore)
        assert len(pool._all) == 1 and pool._idle[0].process.pid not in pids

    run(test)


def test_progress_comes_before_the_answer():
    async def test(pool):
        shares = []
        state = replace(SHORT, rho_from=0.3, values=6)
        await pool.run("bifurcation", state, shares.append)
        return shares

    shares = run(test)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) >= 4


def test_the_oldest_kernels_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "MOST_KERNELS", 3)
    for k in range(5):
        (tmp_path / f"{k}.so").write_text("")
        os.utime(tmp_path / f"{k}.so", (k, k))
    workers._forget_kernels(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.so", "3.so", "4.so"]
