"""Tasks to diagnose: functions that return a model with its loss and its data.

    saddlescope diagnose examples.tasks:digits_mlp --rho 1 --try
    SADDLESCOPE_DATA=... saddlescope diagnose examples.tasks:resnet20_cifar10 --rho 0.5

A task of one's own is as short as `two_moons` below.
"""

# %% Tasks that the package knows
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from saddlescope.training import Task, make_task


def digits_mlp() -> Task:
    """A perceptron on scikit-learn's handwritten digits."""
    return make_task("digits-mlp")


def resnet20_cifar10() -> Task:
    """A residual network without batch normalisation on 10,000 images of CIFAR-10, 16 x 16."""
    return make_task("cifar10-resnet20")


# %% One's own: a model, what a batch costs, and batches to walk through
def two_moons() -> Task:
    """A perceptron on two interleaved half circles; to examine a checkpoint, load it into the model here."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.pi * torch.rand(512, generator=generator)
    label = (torch.arange(512) % 2).float()
    x = torch.stack([angle.cos() + label, (1 - 2 * label) * angle.sin() + label / 2], dim=1)
    x = x + 0.1 * torch.randn(x.shape, generator=generator)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def loss_fn(batch):
        inputs, targets = batch
        return binary_cross_entropy_with_logits(model(inputs).squeeze(1), targets)

    return Task(model, loss_fn, batches=[(x[i : i + 64], label[i : i + 64]) for i in range(0, 512, 64)])


# %% What the command line does, in Python
if __name__ == "__main__":
    from saddlescope.training.diagnosis.diagnose import diagnose
    from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings

    torch.manual_seed(0)
    found = diagnose(digits_mlp(), OptimizerSettings(rho=1.0), steps=100)
    print(f"{found.verdict}: {found.because}")
    for change in found.advice.changes:
        print(f"- {change.change}: {change.before} -> {change.after}; predicted: {change.predicted}")
