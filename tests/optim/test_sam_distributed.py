"""Two ranks on one machine: a common ascent direction, and one for each."""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from two_ranks import on_two_ranks

from saddlescope.optim import SAM
from saddlescope.optim.variants import AfterPlateau, Every, FriendlySAM, MomentumSAM, StableSAM

DATA = torch.randn(4, 12, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Case(NamedTuple):
    """A variant whose ranks together make the steps of one process on the whole batch."""

    name: str
    options: dict


VARIANTS = [
    Case("friendly", {"variant": FriendlySAM()}),
    Case("stable", {"variant": StableSAM()}),
    Case("every other step", {"schedule": Every(2), "sync_perturbation": False}),
    Case("momentum", {"variant": MomentumSAM(), "sync_perturbation": False}),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def evaluation(opt, model, x, spoil=False):
    def closure():
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if spoil:
            next(model.parameters()).grad[0, 0] = float("inf")
        return loss

    return closure


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def passes_with_losses_of_its_own(losses):
    """The passes in each step of a schedule that goes by the loss."""
    w, passes = torch.ones(1, requires_grad=True), []
    opt = SAM(SGD([w], lr=0.1), schedule=AfterPlateau(below=1.9, decay=0.0))
    for loss in losses:

        def closure(loss=loss):
            passes[-1] += 1
            w.grad = torch.ones(1)
            return torch.tensor(loss)

        passes.append(0)
        opt.step(closure)
    return passes


def work(rank, folder):
    results = {}
    for together in (True, False):
        model = DistributedDataParallel(network())
        opt = SAM(SGD(model.parameters(), lr=0.2, momentum=0.9), rho=0.5, sync_perturbation=together)
        for batch in DATA:
            opt.step(evaluation(opt, model, batch.chunk(2)[rank]))
        results[together] = flat(model)
        before = flat(model)
        calls = []

        def spoiled(opt=opt, model=model, calls=calls):
            """On one rank only, and in the first pass only."""
            calls.append(None)
            return evaluation(opt, model, DATA[0], spoil=len(calls) == 1 and rank == 1)()

        if not together:
            opt.step(spoiled)
            results["skipped"] = opt.skipped_steps, torch.equal(flat(model), before)
        results["synchronized again"] = model.require_backward_grad_sync
    for variant in VARIANTS:
        model = DistributedDataParallel(network())
        opt = SAM(SGD(model.parameters(), lr=0.2, momentum=0.9), rho=0.5, **variant.options)
        for batch in DATA:
            opt.step(evaluation(opt, model, batch.chunk(2)[rank]))
        results[variant.name] = flat(model)
    results["passes"] = passes_with_losses_of_its_own([(1.0, 3.0)[rank], (1.0, 1.5)[rank], 9.0])
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_two_ranks(work, tmp_path_factory.mktemp("ranks"))


def alone(way, **options):
    model = network()
    opt = SAM(SGD(model.parameters(), lr=0.2, momentum=0.9), rho=0.5, **options)
    for batch in DATA:
        if way == "whole batch":
            opt.step(evaluation(opt, model, batch))
        else:
            opt.step(micro_batches=[evaluation(opt, model, part) for part in batch.chunk(2)])
    return flat(model)


@pytest.mark.parametrize(("together", "way"), [(True, "whole batch"), (False, "micro-batches")])
def test_two_ranks_are_one_process(ranks, together, way):
    """One direction for all is SAM on the whole batch, one for each is SAM on micro-batches; ranks do not drift."""
    assert torch.equal(ranks[0][together], ranks[1][together])
    assert torch.allclose(ranks[0][together], alone(way), rtol=0, atol=1e-13)
    assert (ranks[0][True] - ranks[0][False]).norm() > 1e-3


def test_a_bad_gradient_on_one_rank_skips_the_step_on_all(ranks):
    assert [r["skipped"] for r in ranks] == [(1, True)] * 2
    assert all(r["synchronized again"] for r in ranks)


@pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.name)
def test_two_ranks_with_a_variant_are_one_process(ranks, case):
    """Steps of one pass synchronize it, also where the ascent is each rank's own; there, half the batch ascends."""
    assert torch.equal(ranks[0][case.name], ranks[1][case.name])
    if case.name != "every other step":
        assert torch.allclose(ranks[0][case.name], alone("whole batch", **case.options), rtol=0, atol=1e-13)


def test_ranks_leave_the_plateau_together(ranks):
    """Rank 0 alone would leave it after its first loss, rank 1 after its second; together they do after the second."""
    assert [r["passes"] for r in ranks] == [[1, 1, 2]] * 2
