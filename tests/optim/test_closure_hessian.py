"""Hessian products through a closure: exact, and without a trace in weights, gradients or statistics."""

import pytest
import torch
from torch import nn

from saddlescope.optim.closure_hessian import ClosureHessian
from saddlescope.optim.second_pass import RandomState

W = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def polynomial(w):
    return (w[0] * w[1] ** 2 * w[2]).exp().log1p() + (w**3).sum()


@pytest.mark.parametrize("zero_in_place", [True, False])
def test_equals_the_dense_hessian_and_keeps_the_gradient(zero_in_place):
    first, rest = W[:1].clone().requires_grad_(), W[1:].clone().requires_grad_()
    opt = torch.optim.SGD([first, rest], lr=0.1)

    def closure():
        """Two calls of backward, one with a weight, as when gradients are accumulated."""
        opt.zero_grad(set_to_none=not zero_in_place)
        loss = polynomial(torch.cat([first, rest]))
        (0.25 * loss).backward(retain_graph=True)
        loss.backward(gradient=torch.tensor(0.75, dtype=torch.float64))
        return loss

    closure()
    before = [first.grad, rest.grad, first.grad.clone(), rest.grad.clone()]
    product = ClosureHessian(closure, [first, rest], RandomState.now([]))
    dense = torch.func.hessian(polynomial)(W)
    columns = torch.stack([product(v) for v in torch.eye(3, dtype=torch.float64)])
    assert torch.allclose(columns, dense, rtol=0, atol=1e-12)
    assert torch.allclose(product.gradient, torch.func.grad(polynomial)(W), rtol=0, atol=1e-13)
    assert first.grad is before[0] and rest.grad is before[1]
    assert torch.equal(first.grad, before[2]) and torch.equal(rest.grad, before[3])


def test_sees_the_masks_of_the_first_pass_and_leaves_statistics_and_random_numbers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    x = torch.randn(16, 4)

    def closure():
        model.zero_grad()
        model(x).square().mean().backward()

    start = RandomState.now([])
    closure()
    after, parameters = torch.get_rng_state(), list(model.parameters())
    product = ClosureHessian(closure, parameters, start)
    assert torch.equal(product.gradient, torch.cat([p.grad.flatten() for p in parameters]))
    assert model[1].num_batches_tracked.item() == 1
    assert torch.equal(torch.get_rng_state(), after)


def test_an_exception_in_the_closure_keeps_the_gradient():
    w = W.clone().requires_grad_()
    polynomial(w).backward()
    before = w.grad

    def failing():
        w.grad = None
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        ClosureHessian(failing, [w], RandomState.now([]))
    assert w.grad is before


def test_a_closure_that_does_not_call_backward_is_refused():
    w = W.clone().requires_grad_()
    with pytest.raises(ValueError, match="backward"):
        ClosureHessian(lambda: torch.autograd.grad(polynomial(w), [w]), [w], RandomState.now([]))
