"""Two ranks under a cap: one radius for both, that of one process on the whole batch."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from two_ranks import on_two_ranks

from saddlescope.optim import SAM, RadiusCap

DATA = torch.randn(5, 12, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
FORMS = ("ascent", "response", "batch")


def radii(form, part, wrap=lambda model: model):
    """Return the radius of each step, with ``part`` of each batch."""
    torch.manual_seed(0)
    model = wrap(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double())
    cap = RadiusCap(fraction=0.2, every=3, products=4, form=form)
    opt = SAM(SGD(model.parameters(), lr=0.2), rho=50.0, radius_cap=cap)
    used = []
    for batch in DATA:

        def closure(batch=batch):
            opt.zero_grad()
            loss = model(part(batch)).cos().mean()
            loss.backward()
            return loss

        opt.step(closure)
        used.append(opt.last_step.rho_used)
    return used


def work(rank, folder):
    return {form: radii(form, lambda batch: batch.chunk(2)[rank], DistributedDataParallel) for form in FORMS}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_two_ranks(work, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("form", FORMS)
def test_two_ranks_have_the_radius_of_one_process(ranks, form):
    assert ranks[0][form] == ranks[1][form]
    assert ranks[0][form] == pytest.approx(radii(form, lambda batch: batch), rel=1e-9)
    assert min(ranks[0][form]) < 50.0
