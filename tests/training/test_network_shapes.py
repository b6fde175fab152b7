import pytest
import torch
from torch import nn

from saddlescope.training.networks import convnet, mlp
from saddlescope.training.residual_networks import resnet, resnet18, wide_resnet


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: mlp([768, 128, 128, 128, 10]), 768 * 128 + 2 * 128 * 128 + 3 * 128 + 1290),
        (lambda: convnet(), 448 + 4_640 + 18_496 + 256 * 64 + 64 + 650),
        # He et al. 2016, table 6: 0.27 million; ResNet-18 and WRN-28-10 as published, 11.17 and 36.5 million.
        (lambda: resnet(20), 269_722),
        (lambda: resnet18(), 11_173_962),
    ],
)
def test_parameter_counts(make, parameters):
    assert count(make()) == parameters


def test_the_wide_network_has_the_published_size():
    with torch.device("meta"):
        assert count(wide_resnet(28, 10)) == 36_479_194


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [16, 32])
def test_shapes_and_gradients(batch_norm, size):
    for model in (
        convnet(size=size, batch_norm=batch_norm),
        resnet(8, batch_norm=batch_norm),
        resnet(20, classes=7, batch_norm=batch_norm),
        wide_resnet(10, 1, batch_norm=batch_norm),
    ):
        logits = model(torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0)))
        assert logits.shape in ((3, 10), (3, 7)) and logits.isfinite().all()
        logits.square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == batch_norm


def test_a_block_is_its_shortcut_plus_its_body():
    block = resnet(8, batch_norm=False)[4]  # the first that halves the image and doubles the width
    with torch.no_grad():
        for parameter in block.body.parameters():
            parameter.zero_()
    images = torch.rand(2, 16, 8, 8)
    out = block(images)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], images[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()


@pytest.mark.parametrize("wrong", [lambda: resnet(9), lambda: resnet(2), lambda: wide_resnet(27)])
def test_depths_that_do_not_exist(wrong):
    with pytest.raises(ValueError, match="depth: got"):
        wrong()
