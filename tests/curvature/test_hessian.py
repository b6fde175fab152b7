"""Hessian products against the dense Hessian in float64."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from saddlescope.curvature import HessianOperator


def small_network():
    """A network, its loss, seven samples in batches of 3, 3 and 1, and the dense Hessian of the mean loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    inputs, targets = torch.randn(7, 3, dtype=torch.float64), torch.randint(4, (7,))

    def loss_fn(batch):
        return cross_entropy(model(batch[0]), batch[1])

    def loss_at(flat):
        names = [name for name, _ in model.named_parameters()]
        sizes = [p.numel() for p in model.parameters()]
        values = [v.view_as(p) for v, p in zip(flat.split(sizes), model.parameters(), strict=True)]
        output = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (inputs,))
        return cross_entropy(output, targets)

    dense = torch.func.hessian(loss_at)(parameters_to_vector(model.parameters()).detach())
    batches = [(inputs[i : i + 3], targets[i : i + 3]) for i in (0, 3, 6)]
    return model, loss_fn, batches, dense


def test_products_over_ragged_batches_equal_the_dense_hessian():
    model, loss_fn, batches, dense = small_network()
    operator = HessianOperator(loss_fn, model.parameters(), batches)
    columns = [operator.matvec(v) for v in torch.eye(operator.dimension, dtype=torch.float64)]
    assert torch.allclose(torch.stack(columns), dense, rtol=0, atol=1e-14)
    assert all(p.grad is None for p in model.parameters())


def test_batches_may_be_tensors_or_dicts():
    model, loss_fn, batches, dense = small_network()
    v = torch.randn(len(dense), dtype=torch.float64)
    dicts = [{"inputs": x, "targets": y} for x, y in batches]
    operator = HessianOperator(lambda b: loss_fn((b["inputs"], b["targets"])), model.parameters(), dicts)
    assert torch.allclose(operator.matvec(v), dense @ v, rtol=0, atol=1e-14)


def test_parameters_the_loss_ignores_or_is_linear_in_have_no_curvature():
    a, b, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    operator = HessianOperator(lambda _: (a**2).sum() + b.sum(), [a, b, c], [None])
    assert torch.equal(operator.matvec(torch.ones(6)), torch.tensor([2.0, 2.0, 0.0, 0.0, 0.0, 0.0]))
    assert torch.equal(HessianOperator(lambda _: b.sum(), [b], [None]).matvec(torch.ones(2)), torch.zeros(2))


def test_products_follow_the_parameters():
    model, loss_fn, batches, dense = small_network()
    operator = HessianOperator(loss_fn, model.parameters(), batches)
    v = torch.ones(operator.dimension, dtype=torch.float64)
    vector_to_parameters(torch.zeros_like(v), model.parameters())
    assert not torch.allclose(operator.matvec(v), dense @ v, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w: HessianOperator(lambda _: w.sum(), [w.detach()], [None]), "parameters: got"),
        (lambda w: HessianOperator(lambda _: w.sum(), [w], iter([None])), "list\\(batches\\)"),
        (lambda w: HessianOperator(lambda _: w.sum(), [w], []).matvec(torch.ones(2)), "at least one sample"),
        (lambda w: HessianOperator(lambda _: w.square().sum(), [w], [None]).matvec(torch.ones(3)), r"shape \(2,\)"),
        (
            lambda w: HessianOperator(lambda _: w.square().sum(), [w], ["text"]).matvec(torch.ones(2)),
            "batch: got 'str'",
        ),
    ],
)
def test_wrong_use_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(torch.ones(2, requires_grad=True))
