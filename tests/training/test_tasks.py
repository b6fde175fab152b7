import pytest
import torch
from torch import Generator, nn
from torch.nn.functional import cross_entropy

from saddlescope.training.batches import Batches
from saddlescope.training.data.augmentation import flip_and_crop
from saddlescope.training.data.datasets import Dataset
from saddlescope.training.loop import mean_loss
from saddlescope.training.networks import convnet
from saddlescope.training.tasks import TASKS, classification, make_task


def data(n=50, size=8):
    generator = Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=generator)
    classes = torch.randint(10, (n,), generator=generator)
    return Dataset(inputs=images, targets=classes, test_inputs=images[:7], test_targets=classes[:7])


def test_names():
    assert {"digits-mlp", "cifar10-mlp", "cifar10-resnet20", "cifar10-resnet20-bn"} <= set(TASKS)
    with pytest.raises(ValueError, match="task: got 'mnist'"):
        make_task("mnist")


def test_evaluation_leaves_batch_normalisation_alone_and_uses_its_running_statistics():
    task = classification(convnet(size=8, batch_norm=True), data(), chunk=20)
    task.loss_fn(task.draw(30, Generator().manual_seed(0)))
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    loss, accuracy = mean_loss(task), task.accuracy()
    assert task.model.training
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    task.model.eval()
    whole = data()
    logits = task.model(whole.inputs)
    assert loss == pytest.approx(cross_entropy(logits, whole.targets).item(), rel=1e-6)
    assert accuracy == (logits[:7].argmax(1) == whole.targets[:7]).sum().item() / 7


def test_label_smoothing_spreads_the_target():
    images = data()
    plain = classification(nn.Flatten(), images)
    smooth = classification(nn.Flatten(), images, label_smoothing=0.2)
    batch = (images.inputs, images.targets)
    spread = -images.inputs.flatten(1).log_softmax(1).mean()
    assert float(smooth.loss_fn(batch)) == pytest.approx(float(0.8 * plain.loss_fn(batch) + 0.2 * spread), rel=1e-5)


def test_a_walk_sees_every_sample_once_and_orders_differ():
    task = classification(nn.Flatten(), data(50))
    batches = Batches(task, 10, seed=3, epochs=2)
    assert batches.steps == 10
    walks = [torch.cat([batches.next()[0] for _ in range(5)]) for _ in range(2)]
    for walk in walks:
        assert len(torch.unique(walk, dim=0)) == 50
    assert not torch.equal(*walks)
    batches = Batches(task, 15, seed=3, epochs=1)
    assert batches.steps == 3
    with pytest.raises(ValueError, match="batch_size: got 51"):
        Batches(task, 51, seed=0, epochs=1)


def test_batches_continue_where_they_were():
    task = classification(nn.Flatten(), data(50), augmentation=flip_and_crop)
    for epochs in (None, 2):
        one, other = (Batches(task, 15, seed=3, epochs=epochs) for _ in range(2))
        for _ in range(4):
            one.next()
        other.load_state_dict(one.state_dict())
        for _ in range(4):
            assert torch.equal(one.next()[0], other.next()[0])


def test_flips_and_crops_against_a_slow_twin():
    images = torch.rand(40, 2, 6, 5)
    changed = flip_and_crop(images, Generator().manual_seed(0), margin=2)
    generator = Generator().manual_seed(0)
    mirrored = torch.rand(40, generator=generator) < 0.5
    rows, columns = torch.randint(5, (2, 40, 1), generator=generator)
    for k in range(40):
        frame = torch.zeros(2, 10, 9)
        frame[:, 2:8, 2:7] = images[k]
        crop = frame[:, rows[k] : rows[k] + 6, columns[k] : columns[k] + 5]
        assert torch.equal(changed[k], crop.flip(-1) if mirrored[k] else crop)
    assert 8 < mirrored.sum() < 32
