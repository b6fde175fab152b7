"""Perceptrons of one shape side by side: each layer of all of them is one batched matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saddlescope._checks import refuse

Layer = tuple[Tensor, Tensor]
"""Weight ``(members, out, in)`` and bias ``(members, out)``."""


class StackedPerceptrons:
    """Multi-layer perceptrons with ReLU whose parameters are the rows of one matrix.

    Forward and backward passes are written out, ``h <- relu(h W^T + b)`` and its adjoint, into memory that is
    taken once: batched products for all members cost what one large product costs, where a loop over members pays
    for a hundred small operations each.

    Args:
        models: of one shape: ``Linear`` layers with bias, ``ReLU`` between them, and perhaps a ``Flatten`` before.
        batch_size: samples a member and pass.

    Raises:
        ValueError: for models that are something else, or of different shapes.

    >>> stacked = StackedPerceptrons([nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))] * 5, batch_size=8)
    >>> stacked.weights.shape
    torch.Size([5, 25])
    """

    def __init__(self, models: Sequence[nn.Module], batch_size: int) -> None:
        self._shapes = [(layer.in_features, layer.out_features) for layer in linear_layers(models[0])]
        if any([(layer.in_features, layer.out_features) for layer in linear_layers(m)] != self._shapes for m in models):
            raise refuse("models", "perceptrons of different shapes", "of one shape")
        self.weights = torch.stack([nn.utils.parameters_to_vector(model.parameters()).detach() for model in models])
        """Shape ``(members, parameters)``, each row in the order of ``model.parameters()``."""
        widths = [self._shapes[0][0], *(out for _, out in self._shapes)]
        self._values = [self.weights.new_empty(len(models), batch_size, width) for width in widths]
        self._adjoints = [torch.empty_like(values) for values in self._values]

    @property
    def inputs(self) -> Tensor:
        """Where the batches are written, shape ``(members, batch_size, features)``."""
        return self._values[0]

    def layers(self, rows: Tensor) -> list[Layer]:
        """Return the layers inside a matrix like ``weights``, as views of it."""
        pieces = rows.split([size for i, o in self._shapes for size in (i * o, o)], dim=1)
        weights = [w.view(-1, o, i) for w, (i, o) in zip(pieces[::2], self._shapes, strict=True)]
        return list(zip(weights, pieces[1::2], strict=True))

    def forward(self, layers: Sequence[Layer]) -> Tensor:
        """Return the logits of ``inputs``, shape ``(members, batch_size, classes)``, valid until the next call."""
        for (weight, bias), before, after in zip(layers, self._values[:-1], self._values[1:], strict=True):
            torch.baddbmm(bias.unsqueeze(1), before, weight.mT, out=after)
            if after is not self._values[-1]:
                after.relu_()
        return self._values[-1]

    def backward(self, layers: Sequence[Layer], logits_gradient: Tensor, out: Sequence[Layer]) -> None:
        """Write the gradient by the parameters into ``out``, given that by the logits of the last `forward`."""
        adjoints = [*self._adjoints[:-1], logits_gradient]
        for k in range(len(layers) - 1, -1, -1):
            torch.bmm(adjoints[k + 1].mT, self._values[k], out=out[k][0])
            torch.sum(adjoints[k + 1], 1, out=out[k][1])
            if k > 0:
                torch.bmm(adjoints[k + 1], layers[k][0], out=adjoints[k])
                torch.ops.aten.threshold_backward.grad_input(adjoints[k], self._values[k], 0.0, grad_input=adjoints[k])


def cross_entropies(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return each member's mean cross-entropy, shape ``(members,)``, and its gradient by the logits.

    With ``q`` the target's distribution, ``smoothing`` of it spread over all classes: ``log sum exp z - q . z`` and
    ``softmax(z) - q``. What `torch.nn.functional.cross_entropy` and autograd give, in an eighth of their time here.

    Args:
        logits: shape ``(members, n, classes)``.
        targets: classes, shape ``(members, n)``, int64.
        smoothing: in [0, 1).

    >>> loss, gradient = cross_entropies(torch.zeros(1, 1, 4), torch.tensor([[2]]))
    >>> loss, gradient
    (tensor([1.3863]), tensor([[[ 0.2500,  0.2500, -0.7500,  0.2500]]]))
    """
    of_target, n = targets.unsqueeze(2), targets.shape[1]
    largest = logits.amax(2, keepdim=True)  # without it exp overflows
    gradient = (logits - largest).exp_()
    total = gradient.sum(2, keepdim=True)
    losses = total.log() + largest - (1.0 - smoothing) * logits.gather(2, of_target)
    gradient /= total * n
    gradient.scatter_add_(2, of_target, gradient.new_full((1, 1, 1), (smoothing - 1.0) / n).expand(of_target.shape))
    if smoothing:
        losses -= smoothing * logits.mean(2, keepdim=True)
        gradient -= smoothing / (n * logits.shape[2])
    return losses.mean((1, 2)), gradient


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """Return the layers of a perceptron.

    Raises:
        ValueError: for a model that is none, naming the first module that does not fit.

    >>> linear_layers(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)))
    Traceback (most recent call last):
        ...
    ValueError: network: got 'Tanh', expected Linear layers with bias and ReLU between them
    """
    modules = list(model.children()) or [model]
    modules = modules[1:] if isinstance(modules[0], nn.Flatten) else modules
    layers = []
    for k, module in enumerate(modules):
        if k % 2 == 0 and isinstance(module, nn.Linear) and module.bias is not None:
            layers.append(module)
        elif k % 2 == 0 or not isinstance(module, nn.ReLU):
            raise refuse("network", type(module).__name__, "Linear layers with bias and ReLU between them")
    if len(modules) % 2 == 0:
        raise refuse("network", "ReLU at its end", "a Linear layer there")
    return layers
