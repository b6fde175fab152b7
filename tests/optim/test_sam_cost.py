"""What a step asks of the device: reads, operations, memory."""

import pytest
import torch
from torch.optim import SGD, Adam, AdamW
from torch.utils._python_dispatch import TorchDispatchMode

from saddlescope.optim import SAM


class Record(TorchDispatchMode):
    """Names of the operations that reach the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    @property
    def reads(self):
        return sum(name.startswith(("aten._local_scalar_dense", "aten.item", "aten.is_nonzero")) for name in self.names)


def prepared(base=SGD, tensors=62, groups=1, **options):
    """SAM over many small tensors, and a closure that computes nothing but has gradients at hand."""
    inner = {k[5:]: options.pop(k) for k in list(options) if k.startswith("base_")}
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, 2, generator=generator).requires_grad_() for _ in range(tensors)]
    gradients = [torch.randn(3, 2, generator=generator) for _ in range(tensors)]
    share = len(weights) // groups
    opt = SAM(base([{"params": weights[i * share : (i + 1) * share]} for i in range(groups)], **inner), **options)
    loss = torch.zeros(())

    def closure():
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g
        return loss

    opt.step(closure)  # the first step allocates
    return opt, closure


def recorded(step):
    with Record() as record:
        step()
    return record


FUSED = {"base_lr": 0.1, "base_fused": True}


@pytest.mark.parametrize(
    ("base", "options"), [(SGD, {}), (SGD, {"base_momentum": 0.9}), (Adam, {}), (AdamW, {"normalized": False})]
)
def test_nothing_is_read_with_a_base_that_decides_on_the_device(base, options):
    opt, closure = prepared(base, **FUSED, **options)
    assert recorded(lambda: opt.step(closure)).reads == 0


def test_one_number_is_read_with_any_other_base():
    opt, closure = prepared(base_lr=0.1, base_momentum=0.9, base_foreach=True)
    assert recorded(lambda: opt.step(closure)).reads == 1


def test_nothing_is_read_when_nothing_is_to_be_skipped():
    opt, closure = prepared(base_lr=0.1, base_foreach=True, skip_nonfinite=False)
    assert recorded(lambda: opt.step(closure)).reads == 0


def test_statistics_and_the_count_are_read_when_asked_for():
    opt, closure = prepared(**FUSED)
    opt.step(closure)
    assert recorded(lambda: opt.last_step.to_dict()).reads > 0
    assert recorded(lambda: opt.skipped_steps).reads == 1


def test_one_norm_is_taken_when_nothing_needs_the_second():
    norms = {}
    for skip in (True, False):
        opt, closure = prepared(**FUSED, statistics=False, skip_nonfinite=skip)
        names = recorded(lambda opt=opt, closure=closure: opt.step(closure)).names
        norms[skip] = names.count("aten._foreach_norm.Scalar")
    assert norms == {True: 2, False: 1}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("base", [{"base_fused": True}, {"base_foreach": True}])
def test_at_most_15_operations_for_62_tensors(groups, base):
    opt, closure = prepared(base_lr=0.1, groups=groups, statistics=False, **base)
    views = [p.detach() for group in opt.param_groups for p in group["params"]]  # as on a device: copied, not swapped
    assert len(views) == 62
    with_sam = [n for n in recorded(lambda: opt.step(closure)).names if not n.startswith("profiler")]
    alone = [n for n in recorded(opt.base.step).names if not n.startswith("profiler")]
    assert len(with_sam) - len(alone) <= 15


def test_the_copy_of_the_weights_is_the_only_memory_and_is_used_again():
    opt, closure = prepared(**FUSED)
    weights = [p for group in opt.param_groups for p in group["params"]]
    homes = [w.data_ptr() for w in weights]
    assert sum(m.numel() for m in opt._excursion.weights._memory) == sum(w.numel() for w in weights)
    memory = [m.data_ptr() for m in opt._excursion.weights._memory]
    opt.step(closure)
    assert [m.data_ptr() for m in opt._excursion.weights._memory] == memory
    assert [w.data_ptr() for w in weights] == homes


def test_without_statistics_norms_are_there_and_ratios_are_nan():
    opt, closure = prepared(base_lr=0.1, statistics=False)
    assert opt.last_step.gradient_norm > 0 and opt.last_step.perturbed_gradient_norm > 0
    assert opt.last_step.to_dict()["cosine"] is None and opt.last_step.to_dict()["rayleigh"] is None
