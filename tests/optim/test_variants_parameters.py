"""Variants with gradients that are sparse, complex, or in half precision."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from variant_cases import CASES

from saddlescope.optim import SAM
from saddlescope.optim.variants import FriendlySAM, LookaheadSAM, MomentumSAM, StableSAM, VaSSO

ROWS = torch.tensor([[1, 1, 4], [1, 2, 4], [3, 3, 0], [1, 2, 2]])


def numbers(statistics):
    """Those there are: steps of one pass have no Rayleigh quotient."""
    return {name: value for name, value in statistics.to_dict().items() if value is not None}


@pytest.mark.parametrize(
    "variant", [FriendlySAM(sigma=0.5), VaSSO(), StableSAM(), LookaheadSAM(lookahead=0.02), MomentumSAM()]
)
def test_sparse_gradients_equal_dense_ones(variant):
    """A mean moves rows of earlier batches as well; a row looked up twice has two entries in the gradient."""
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse, dtype=torch.float64)
        opt = SAM(SGD(table.parameters(), lr=0.1, momentum=0.9), rho=0.5, variant=variant)
        for rows in ROWS:

            def closure(rows=rows, opt=opt, table=table):
                opt.zero_grad()
                loss = (table(rows) ** 3).sum()
                loss.backward()
                return loss

            opt.step(closure)
        found.append((table.weight.detach(), numbers(opt.last_step)))
    assert torch.allclose(found[0][0], found[1][0], rtol=0, atol=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_complex_parameters_are_pairs_of_reals(name):
    pairs, runs = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64), []
    for number in (torch.view_as_complex(pairs).clone(), pairs.clone()):
        w = number.requires_grad_()
        opt = SAM(SGD([w], lr=0.01, momentum=0.9), rho=0.3, **CASES[name])

        def closure(opt=opt, w=w):
            opt.zero_grad()
            v = torch.view_as_real(w) if w.is_complex() else w
            loss = (v[:, 0] * v[:, 1].sin()).sum() + (v**4).sum()
            loss.backward()
            return loss

        for _ in range(8):
            opt.step(closure)
        runs.append((torch.view_as_real(w.detach()) if w.is_complex() else w.detach(), numbers(opt.last_step)))
    assert torch.allclose(runs[0][0], runs[1][0], rtol=0, atol=1e-14)
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", [FriendlySAM(sigma=0.5, decay=0.7), VaSSO(theta=0.3)])
def test_the_mean_of_gradients_in_half_precision_is_in_float32(variant, dtype):
    """And the move along it is rounded once."""
    torch.manual_seed(0)
    w, gradients = torch.randn(1000).to(dtype), torch.randn(20, 1000).to(dtype)
    point = w.clone().requires_grad_()
    opt = SAM(SGD([point], lr=0.0), rho=30.0, variant=variant)
    share = 0.3 if isinstance(variant, VaSSO) else 1.0 - 0.7
    mean = torch.zeros(1000)
    for g in gradients:

        def closure(g=g):
            point.grad = g.clone()
            return torch.zeros(())

        opt.step(closure)
        mean = torch.lerp(mean, g.float(), share)
    point.grad = gradients[0].clone()
    mean = torch.lerp(mean, gradients[0].float(), share)
    d = mean if isinstance(variant, VaSSO) else gradients[0].float() - 0.5 * mean
    with opt.perturbed():
        moved = point.detach().clone()
    exact = w.double() + 30.0 * d.double() / d.double().norm()
    spacing = torch.finfo(dtype).eps * 2.0 ** exact.abs().log2().floor()
    assert ((moved.double() - exact).abs() <= 0.5 * spacing + 1e-6).all()  # float32 round-off of the sum
    assert torch.equal(point.detach(), w) and opt.skipped_steps == 0
