"""Schedules, checkpoints, precision and ranks of the one loop."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from saddlescope.training import ExperimentConfig, Record, run_experiment
from saddlescope.training import loop as loop_module
from saddlescope.training.checkpoints import save_checkpoint
from saddlescope.training.schedules import factor

CONFIG = ExperimentConfig(
    optimizer="friendly-sam", rho=0.3, momentum=0.9, epochs=2, batch_size=128, schedule="cosine", weight_decay=1e-3
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(record):
    return record.losses, record.final_loss, record.test_accuracy


class Killed(Exception):
    pass


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, optimizer="sam", epochs=None, steps=22, warmup=5)])
@pytest.mark.parametrize("after", [3, 11])
def test_an_interrupted_run_ends_bit_for_bit_like_a_whole_one(config, after, tmp_path, monkeypatch):
    whole = run_experiment(config)
    assert len(whole.losses) == 22
    original = loop_module._Run.step

    def step(self, number):
        if number == after:
            raise Killed
        original(self, number)

    monkeypatch.setattr(loop_module._Run, "step", step)
    with pytest.raises(Killed):
        run_experiment(config, checkpoint=tmp_path / "c.pt", checkpoint_every=2)
    monkeypatch.undo()
    resumed = run_experiment(config, checkpoint=tmp_path / "c.pt", checkpoint_every=2)
    assert numbers(resumed) == numbers(whole)
    monkeypatch.setattr(loop_module._Run, "step", None)  # a run that is over makes no step
    assert numbers(run_experiment(config, checkpoint=tmp_path / "c.pt")) == numbers(whole)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]


def test_a_checkpoint_of_another_run_or_of_nothing_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    run_experiment(replace(CONFIG, epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match="lr = 0.1', expected lr = 0.2"):
        run_experiment(replace(CONFIG, epochs=1, lr=0.2), checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="expected a whole checkpoint"):
        run_experiment(replace(CONFIG, epochs=1), checkpoint=path)
    save_checkpoint(path, {"other": 1})
    with pytest.raises(ValueError, match="expected a checkpoint of run_experiment"):
        run_experiment(replace(CONFIG, epochs=1), checkpoint=path)


def test_the_schedule_reaches_the_steps():
    """With one step of warm-up and one left, the first step of cosine has half the size: loss after it differs so."""
    assert [factor("step", t, 4, 0) for t in range(4)] == [1.0, 1.0, 0.1, 0.01]
    assert factor("cosine", 3, 4) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    half = run_experiment(ExperimentConfig(steps=2, lr=0.05)).losses
    warmed = run_experiment(ExperimentConfig(steps=2, lr=0.1, warmup=1)).losses
    assert warmed == half


def test_weight_decay_is_that_of_sgd():
    decayed = run_experiment(ExperimentConfig(steps=1, weight_decay=0.5)).final_loss
    assert decayed != run_experiment(ExperimentConfig(steps=1)).final_loss


def test_bfloat16_is_near_and_not_equal():
    fine, coarse = (run_experiment(ExperimentConfig(steps=1, precision=p)).losses[0] for p in ("float32", "bfloat16"))
    assert fine != coarse and abs(fine - coarse) < 2**-7 * fine


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device: got 'cuda'"):
        run_experiment(ExperimentConfig(device="cuda"))


def test_variants_train_and_differ():
    losses = {
        name: run_experiment(ExperimentConfig(optimizer=name, rho=0.3, momentum=0.9, steps=4)).losses[-1]
        for name in ("sam", "asam", "friendly-sam", "momentum-sam", "stable-sam", "vasso", "lookahead-sam")
    }
    assert len(set(losses.values())) == 7 and all(map(math.isfinite, losses.values()))


def test_records_come_back():
    record = run_experiment(replace(CONFIG, settings={"sigma": 0.5}, steps=2, epochs=None))
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


RANKS = """
import json, os
from saddlescope.training import ExperimentConfig, run_experiment
record = run_experiment(ExperimentConfig(optimizer="sam", rho=0.3, momentum=0.9, steps=6, batch_size=64))
if os.environ["RANK"] == "0":
    print("RECORD" + json.dumps(record.to_dict()))
"""


def test_two_ranks_are_one_run(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "ranks.py")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RECORD")]
    both = Record.from_dict(json.loads(line.removeprefix("RECORD")))
    alone = run_experiment(both.config)
    assert both.losses == pytest.approx(alone.losses, rel=1e-5) and both.losses[0] != both.losses[-1]
    assert both.final_loss == pytest.approx(alone.final_loss, rel=1e-5)
