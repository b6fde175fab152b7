"""Tensors that take other values for a while."""

import copy

import pytest
import torch
from torch import nn

from saddlescope.optim.snapshot import Snapshot


def plain():
    return torch.tensor([1.0, 2.0, 3.0])


def with_a_base():
    return torch.arange(12.0).reshape(3, 4).t()


def channels_last():
    return torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)


def a_view():
    return torch.arange(9.0)[3:6]


def of_numpy():
    array = plain().numpy()
    return torch.from_numpy(array)


def gapped():
    return torch.empty_strided((3,), (4,)).copy_(plain())


def marked():
    weight = nn.Parameter(plain())
    weight.laid_out_by = "a framework"
    return weight


KINDS = [plain, with_a_base, channels_last, a_view, of_numpy, gapped, marked, lambda: torch.tensor(2.0)]
SWAPPED = [True, False, True, False, False, False, False, True]


def move(snapshot, tensors):
    snapshot.take(tensors)
    for target, tensor in zip(snapshot.targets, tensors, strict=True):
        torch.mul(tensor, 1.1, out=target)
    snapshot.leave()


@pytest.mark.parametrize(("make", "swapped"), zip(KINDS, SWAPPED, strict=True))
@torch.no_grad()
def test_values_memory_and_strides_come_back(make, swapped):
    tensor, snapshot = make(), Snapshot()
    before, home, strides = tensor.clone(), tensor.data_ptr(), tensor.stride()
    for _ in range(3):
        move(snapshot, [tensor])
        assert torch.equal(tensor, before * 1.1)
        assert (tensor.data_ptr() != home) == swapped
        snapshot.put_back()
        assert torch.equal(tensor, before) and tensor.data_ptr() == home and tensor.stride() == strides


@torch.no_grad()
def test_whoever_looks_at_the_memory_sees_the_other_values():
    watched, snapshot = plain(), Snapshot()
    move(snapshot, [watched])
    snapshot.put_back()  # swapped so far
    view, shared = watched.detach(), plain().share_memory_()
    move(snapshot, [watched])
    assert torch.equal(view, plain() * 1.1)
    snapshot.put_back()
    assert torch.equal(view, plain())
    home = shared.data_ptr()
    move(snapshot, [shared])
    assert shared.data_ptr() == home


def test_tied_tensors_move_together():
    a = plain()
    b, snapshot = nn.Parameter(a.data), Snapshot()
    with torch.no_grad():
        snapshot.take([a, b])
        for target in snapshot.targets:
            target.add_(1.0)  # in place: there is one memory
        snapshot.leave()
    assert torch.equal(a, plain() + 2.0) and torch.equal(a, b.detach())
    snapshot.put_back()
    assert torch.equal(a, plain())


def test_a_graph_of_the_old_values_refuses_the_new_ones():
    w = plain().requires_grad_()
    loss = (w * w).sum()
    snapshot = Snapshot()
    with torch.no_grad():
        move(snapshot, [w])
    assert w.data_ptr() != snapshot.copies[0].data_ptr()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@torch.no_grad()
def test_a_copy_of_a_snapshot_that_is_away_has_weights_of_its_own():
    w, snapshot = plain(), Snapshot()
    move(snapshot, [w])
    twin = copy.deepcopy(snapshot)
    snapshot.put_back()
    assert torch.equal(twin.tensors[0], plain() * 1.1)
    twin.put_back()
    assert torch.equal(twin.tensors[0], plain()) and torch.equal(w, plain())
