"""Weights in pieces on two ranks (FSDP2, FSDP1, tensor parallelism, hybrid): SAM of one process, and no drift."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from two_ranks import on_two_ranks

from saddlescope.optim import SAM
from saddlescope.optim.variants import ASAM, FriendlySAM, MomentumSAM, StableSAM

STEPS, LONG = 6, 1000
DATA = torch.randn(STEPS, 12, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
OPTIONS = {
    "plain": {},
    "clipped": {"max_grad_norm": 0.1},
    "asam": {"variant": ASAM()},
    "friendly": {"variant": FriendlySAM()},
    "momentum": {"variant": MomentumSAM()},
    "stable": {"variant": StableSAM()},
}
CASES = [("fsdp2", name) for name in OPTIONS] + [(way, "plain") for way in ("fsdp1", "tensor", "hybrid")]
CASES += [("fsdp1", "clipped"), ("tensor", "clipped")]
FSDP1 = {
    "fsdp1": ("FULL_SHARD", True),
    "fsdp1-flat": ("FULL_SHARD", False),
    "fsdp1-whole": ("NO_SHARD", True),
    "fsdp1-hybrid": ("HYBRID_SHARD", True),
}
CASES += [(way, "plain") for way in FSDP1 if way != "fsdp1"]


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    return model.double()  # 5 rows on two ranks: pieces of different sizes, and one of none


def evaluation(opt, model, x, spoil=None):
    def closure():
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if spoil:
            spoil()
        return loss

    return closure


def shared(way):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model = network()
    if way in FSDP1:
        strategy, original = FSDP1[way]
        return FullyShardedDataParallel(
            model,
            sharding_strategy=ShardingStrategy[strategy],
            device_mesh=init_device_mesh("cpu", (1, 2)) if strategy == "HYBRID_SHARD" else None,
            device_id=torch.device("cpu"),
            use_orig_params=original,
        )
    if way == "tensor":
        # Beside the two layers in pieces stays one that is no DTensor, whole on both ranks.
        return parallelize_module(
            model, init_device_mesh("cpu", (2,)), {"0": ColwiseParallel(), "2": RowwiseParallel()}
        )
    mesh = init_device_mesh("cpu", (2,)) if way == "fsdp2" else init_device_mesh(
        "cpu", (2, 1), mesh_dim_names=("replicas", "pieces")
    )  # fmt: skip
    for layer in model[::2]:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def flat(model):
    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model):
            return torch.cat([p.detach().flatten() for p in model.parameters()])
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return torch.cat([p.detach().flatten() for p in whole])


def own_bits(model):
    return [getattr(p, "_local_tensor", p).detach().clone() for p in model.parameters()]


def known(statistics):
    return {name: value for name, value in statistics.items() if value is not None}


def sam(model, options):
    return SAM(SGD(model.parameters(), lr=0.2, momentum=0.9), rho=0.5, **OPTIONS[options])


def run(model, options, part):
    opt = sam(model, options)
    for batch in DATA:
        opt.step(evaluation(opt, model, part(batch)))
    return opt


def faults(model, rank):
    """Whether weights are this rank's own bits after a second pass that throws and after an overflow on one rank."""
    opt, x = sam(model, "plain"), DATA[0].chunk(2)[rank]
    opt.step(evaluation(opt, model, x))
    before = own_bits(model)

    def overflow():
        if rank == 1:
            gradient = next(model.parameters()).grad._local_tensor
            gradient[0, 0] = float("inf")

    calls = []

    def fails():
        calls.append(None)
        if len(calls) == 2:
            calls.append(not all(map(torch.equal, own_bits(model), before)))
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        opt.step(evaluation(opt, model, x, fails))
    thrown = all(map(torch.equal, own_bits(model), before)) and calls[-1]
    opt.step(evaluation(opt, model, x, overflow))
    return thrown, all(map(torch.equal, own_bits(model), before)), opt.skipped_steps


def work(rank, folder):
    results = {}
    for case in CASES:
        way, options = case
        model = shared(way)
        opt = run(model, options, (lambda x: x) if way == "tensor" else lambda x: x.chunk(2)[rank])
        results[case] = flat(model), opt.last_step.to_dict(), own_bits(model)
    results["faults"] = faults(shared("fsdp2"), rank)
    model = DistributedDataParallel(network().float())
    opt = sam(model, "plain")
    for i in range(LONG):
        opt.step(evaluation(opt, model, DATA[i % STEPS].float().chunk(2)[rank]))
    results["long"] = flat(model)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_two_ranks(work, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_pieces_on_two_ranks_are_one_process(ranks, case):
    """To rounding, statistics included: norms are of all pieces, and what both ranks hold counts once."""
    model = network()
    opt = run(model, case[1], lambda x: x)
    for rank in ranks:
        assert torch.allclose(rank[case][0], flat(model), rtol=0, atol=1e-12)
        assert known(rank[case][1]) == pytest.approx(known(opt.last_step.to_dict()), rel=1e-11)
    assert torch.equal(ranks[0][case][0], ranks[1][case][0])


@pytest.mark.parametrize("way", ["tensor", "hybrid"])
def test_copies_on_the_ranks_stay_the_same_bits(ranks, way):
    mine, other = (rank[way, "plain"][2] for rank in ranks)
    replicated = [i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if way == "hybrid" or i >= 3]
    assert replicated and all(torch.equal(mine[i], other[i]) for i in replicated)


def test_ranks_do_not_drift_in_1000_steps(ranks):
    assert torch.isfinite(ranks[0]["long"]).all() and torch.equal(ranks[0]["long"], ranks[1]["long"])


def test_faults_leave_every_piece_as_it_was(ranks):
    assert [rank["faults"] for rank in ranks] == [(True, True, 1)] * 2
