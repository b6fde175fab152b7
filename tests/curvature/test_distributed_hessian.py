"""Two ranks with a share of the samples each have the Hessian of all samples."""

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from two_ranks import on_two_ranks

from saddlescope.curvature.hessian import HessianOperator
from saddlescope.curvature.lanczos import extreme_eigenvalues

SHARES = [slice(0, 3), slice(3, 8)]


def model_and_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    return model, torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)


def work(rank, folder):
    bare, x, y = model_and_samples()
    model = DistributedDataParallel(bare)
    batches = [(x[SHARES[rank]], y[SHARES[rank]])]
    operator = HessianOperator.of_model(model, lambda b: mse_loss(model(b[0]), b[1]), batches, parameters="*.weight")
    dense = operator.matmat(torch.eye(operator.dimension, dtype=torch.float64))
    ends, before = extreme_eigenvalues(operator), (operator.loss(), operator.gradient())
    mse_loss(model(x), y).backward()  # the wrapper still trains
    assert all(p.grad is not None for p in bare.parameters())
    return dense, *before, ends.minimum, ends.maximum


def test_products_run_over_all_ranks(tmp_path):
    ranks = on_two_ranks(work, tmp_path)
    model, x, y = model_and_samples()
    alone = HessianOperator.of_model(model, lambda b: mse_loss(model(b[0]), b[1]), [(x, y)], parameters="*.weight")
    dense = alone.matmat(torch.eye(alone.dimension, dtype=torch.float64))
    low, *_, high = torch.linalg.eigvalsh(dense).tolist()
    for found, loss, gradient, minimum, maximum in ranks:
        assert torch.allclose(found, dense, rtol=0, atol=1e-14)
        assert abs(loss - alone.loss()) < 1e-14
        assert torch.allclose(gradient, alone.gradient(), rtol=0, atol=1e-14)
        assert abs(minimum / low - 1) < 0.005
        assert abs(maximum / high - 1) < 0.005
