"""Two ranks: one of them checks and logs, the training of both goes on as if nothing did."""

import math

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from two_ranks import on_two_ranks

from saddlescope.optim import SAM
from saddlescope.training.monitor.log import read_monitor_log
from saddlescope.training.monitor.monitor import StabilityMonitor
from saddlescope.training.monitor.without_trace import without_trace

STEPS = 60
DATA = torch.randn(STEPS, 2, 8, 4, generator=torch.Generator().manual_seed(3))


def work(rank, folder):
    ends = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)))
        opt = SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.2)
        options = {"log": f"{folder}/run.jsonl", "every": 15, "read_every": 5, "window": 5, "budget": math.inf}
        monitor = StabilityMonitor(opt, **options) if watched else None
        for step in range(STEPS):

            def closure(x=DATA[step, rank], opt=opt, model=model):
                opt.zero_grad()
                loss = model(x).square().mean() - model(x).mean()
                loss.backward()
                return loss

            loss = opt.step(closure)
            if monitor is not None:
                monitor.update(loss, closure)
        if monitor is not None:
            monitor.close()
        ends.append({name: value.clone() for name, value in model.module.state_dict().items()})
    # all ranks are in the same group here, but only one evaluates: a batch norm over both would wait for ever
    refusal = ""
    if rank == 0:
        norm = nn.SyncBatchNorm(4)
        try:
            with without_trace():
                norm(DATA[0, 0])
        except RuntimeError as error:
            refusal = str(error)
    return *ends, refusal


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_one_rank_checks_and_the_training_does_not_notice(tmp_path):
    ranks = on_two_ranks(work, tmp_path)
    for rank, (alone, watched, _) in enumerate(ranks):
        for name, value in alone.items():
            assert torch.equal(value, watched[name]), (rank, name)
    log = read_monitor_log(tmp_path / "run.jsonl")
    assert log.signals["step"] == tuple(range(1, STEPS + 1))  # of one rank
    assert len(log.checks) >= 2 and log.errors == ()
    assert "SyncBatchNorm needs all ranks" in ranks[0][2]
