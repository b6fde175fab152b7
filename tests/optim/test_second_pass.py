"""A repeated pass leaves no trace: random numbers, batch statistics, hooks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from saddlescope.optim.second_pass import RandomState, repeated_pass


def test_random_numbers_repeat_and_then_go_on():
    first = RandomState.now([torch.device("cpu")])
    drawn = torch.rand(3)
    following = RandomState.now([])
    with repeated_pass(first):
        assert torch.equal(torch.rand(3), drawn)
        torch.rand(100)
    assert torch.equal(torch.get_rng_state(), following.cpu)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None, affine=False)])
def test_statistics_stay_and_outputs_are_those_of_a_first_pass(layer):
    x = torch.randn(8, 3, 5, 5)
    twin = copy.deepcopy(layer)
    with repeated_pass(RandomState.now([])):
        output = layer(x)
    assert torch.equal(output, twin(x))
    assert torch.equal(layer.running_mean, torch.zeros(3)) and layer.num_batches_tracked == 0
    layer(x)
    assert torch.equal(layer.running_mean, twin.running_mean) and layer.num_batches_tracked == 1


def test_layers_in_evaluation_mode_are_not_touched():
    layer = nn.BatchNorm1d(3).eval()
    x = torch.randn(8, 3)
    with repeated_pass(RandomState.now([])):
        assert torch.equal(layer(x), x / (1 + layer.eps) ** 0.5)


def test_layers_without_statistics_stay_so():
    layer = nn.BatchNorm1d(3, track_running_stats=False)
    with repeated_pass(RandomState.now([])):
        layer(torch.randn(8, 3))
    assert not layer.track_running_stats


def test_an_exception_leaves_nothing_behind():
    layer, after = nn.BatchNorm1d(3), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt), repeated_pass(RandomState.now([])):
        layer(torch.randn(8, 3))
        raise KeyboardInterrupt
    assert layer.track_running_stats
    assert torch.equal(torch.get_rng_state(), after)
    assert not module_hooks._global_forward_pre_hooks
