import sys

import pytest
import torch

from saddlescope.training.data.datasets import digits


def test_digits_are_standardised_by_the_training_set_and_split_once():
    data = digits()
    deviation, mean = torch.std_mean(data.inputs, dim=0, correction=0)
    varies = deviation > 0
    assert mean.abs().max() < 1e-5
    assert torch.allclose(deviation[varies], torch.ones(int(varies.sum())), atol=1e-5)
    assert not data.inputs[:, ~varies].any() and data.test_inputs.isfinite().all()
    assert data.targets.bincount().min() > 120  # a random split holds every class
    assert len(torch.unique(torch.cat([data.inputs, data.test_inputs]), dim=0)) == 1797
    assert torch.equal(data.targets, digits().targets)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'saddlescope\[train\]'"):
        digits()
