import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from saddlescope.training.networks import convnet, mlp
from saddlescope.training.stacked_perceptrons import StackedPerceptrons, cross_entropies, linear_layers


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_cross_entropy_and_its_gradient_are_torchs(smoothing, scale):
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(3, 6, 5, dtype=torch.float64, generator=generator)
    targets = torch.randint(5, (3, 6), generator=generator)
    losses, gradients = cross_entropies(logits, targets, smoothing)
    for k in range(3):
        z = logits[k].clone().requires_grad_()
        loss = cross_entropy(z, targets[k], label_smoothing=smoothing)
        assert losses[k].item() == pytest.approx(loss.item(), rel=1e-14)
        torch.testing.assert_close(gradients[k], torch.autograd.grad(loss, z)[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("widths", [[5, 3], [5, 7, 4, 3]])
def test_logits_and_gradients_are_those_of_each_model(widths):
    torch.manual_seed(0)
    models = [mlp(widths).double() for _ in range(3)]
    inputs, targets = torch.randn(3, 6, 5, dtype=torch.float64), torch.randint(3, (3, 6))
    stacked = StackedPerceptrons(models, 6)
    stacked.inputs.copy_(inputs)
    rows = torch.empty_like(stacked.weights)
    layers, slopes = stacked.layers(stacked.weights), stacked.layers(rows)
    losses, adjoint = cross_entropies(stacked.forward(layers), targets)
    stacked.backward(layers, adjoint, slopes)
    for k, model in enumerate(models):
        loss = cross_entropy(model(inputs[k]), targets[k])
        assert losses[k].item() == pytest.approx(loss.item(), rel=1e-14)
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        torch.testing.assert_close(rows[k], expected, rtol=1e-12, atol=1e-14)


def test_a_row_is_a_models_parameter_vector_and_the_models_stay_apart():
    models = [nn.Sequential(nn.Flatten(), *mlp([4, 3, 2])) for _ in range(2)]
    stacked = StackedPerceptrons(models, 1)
    for row, model in zip(stacked.weights, models, strict=True):
        assert torch.equal(row, nn.utils.parameters_to_vector(model.parameters()))
    before = models[0][1].weight.clone()
    stacked.weights.zero_()
    assert torch.equal(models[0][1].weight, before)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (convnet(), "got 'Conv2d'"),
        (nn.Sequential(nn.Linear(2, 2, bias=False)), "got 'Linear', expected Linear layers with bias"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "got 'ReLU at its end'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)), "got 'Dropout'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "got 'Linear'"),
    ],
)
def test_other_networks_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        linear_layers(model)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="of one shape"):
        StackedPerceptrons([mlp([2, 3, 2]), mlp([2, 4, 2])], 1)
