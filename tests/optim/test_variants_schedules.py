"""Steps of one pass: which they are, what they cost, and that a batch still counts once in everything."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from variant_cases import CASES, START, Run, coupled

from saddlescope.dynamics.maps import GradientMap, SAMMap
from saddlescope.optim import SAM
from saddlescope.optim.variants import AfterPlateau, Every, MomentumSAM, Phase


def passes_of(run, steps):
    counts = []
    for _ in range(steps):
        before = run.passes
        run.steps(1)
        counts.append(run.passes - before)
    return counts


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2] * 8),
        ({"schedule": Every(3)}, [2, 1, 1, 2, 1, 1, 2, 1]),
        ({"schedule": Phase(start=2, stop=5)}, [1, 1, 2, 2, 2, 1, 1, 1]),
        ({"schedule": Phase(start=6)}, [1] * 6 + [2] * 2),
        ({"variant": MomentumSAM()}, [1] * 8),
        ({"variant": MomentumSAM(), "schedule": Every(2)}, [1] * 8),
    ],
)
def test_a_plain_step_costs_one_pass(options, expected):
    assert passes_of(Run(options), 8) == expected


def test_every_third_step_is_one_of_sam_and_the_others_are_the_base_s():
    run, state = Run({"schedule": Every(3)}, momentum=0.9), (START, torch.zeros(6, dtype=torch.float64))
    sam, descent = SAMMap(lr=0.02, rho=0.2, momentum=0.9), GradientMap(lr=0.02, momentum=0.9)
    for step in range(30):
        run.steps(1)
        state = (sam if step % 3 == 0 else descent)(state, torch.func.grad(coupled))
        assert torch.allclose(run.point, state[0], rtol=0, atol=1e-13)


def test_sam_comes_after_the_plateau_and_stays():
    losses = [2.0, float("nan"), 2.1, 1.5, 1.3, 5.0, 9.0]
    w = torch.tensor([1.0], requires_grad=True)
    for schedule, first in (
        (AfterPlateau(below=1.5, decay=0.0), 4),
        (AfterPlateau(fraction=0.7, decay=0.0), 5),
        (AfterPlateau(fraction=0.8, decay=0.5), 5),  # means 2, 2, 2.05, 1.775, 1.5375
    ):
        opt, passes = SAM(SGD([w], lr=0.0), schedule=schedule), []
        for loss in losses:
            passes.append(0)

            def closure(loss=loss, passes=passes):
                passes[-1] += 1
                w.grad = torch.ones(1)
                return torch.tensor(loss)

            opt.step(closure)
        assert passes == [1] * first + [2] * (len(losses) - first)


def test_the_plateau_asks_for_the_loss_when_the_steps_are_driven_by_hand():
    run = Run({"schedule": AfterPlateau(below=100.0)})
    run.opt.first_step()
    loss = run.closure()
    with pytest.raises(ValueError, match=r"loss: got None, expected the loss, as AfterPlateau\(below=100.0"):
        run.opt.second_step()
    run.opt.second_step(loss=loss)
    assert run.opt.needs_gradient
    run.by_hand()
    run.closure()
    run.opt.first_step()
    run.opt.second_step()  # the plateau is left: nobody asks any more


class Reads(TorchDispatchMode):
    """Counts what is read from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func).startswith(("aten._local_scalar_dense", "aten.item", "aten.is_nonzero"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_read_with_a_base_that_decides_on_the_device(name):
    """Except the loss, while a schedule waits for it."""
    run = Run(CASES[name], fused=True, dtype=torch.float32)
    run.steps(1)
    for _ in range(7):
        waits = run.opt._excursion.progress.schedule.listens(run.opt._excursion.progress.memory)
        with Reads() as reads:
            run.steps(1)
        assert reads.count == int(waits)


def test_radii_set_during_a_pause_hold_after_it():
    run = Run({"schedule": Phase(start=2)})
    run.steps(2)
    assert run.opt.last_step.rho_used == 0.0
    for group in run.opt.param_groups:
        group["rho"] = 0.6
    run.steps(1)
    assert run.opt.last_step.rho_used == 0.6
    assert run.opt.last_step.length.item() == pytest.approx(0.6, rel=1e-12)


def with_norm_and_dropout(options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    return model, SAM(SGD(model.parameters(), lr=0.05, momentum=0.9), rho=0.1, **options)


def evaluate(model, opt, x):
    opt.zero_grad()
    loss = model(x).square().mean() + 1.0
    loss.backward()
    return loss


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_counts_once_and_draws_once_in_steps_of_one_pass_too(name, always):
    """The closure, the two steps by hand, and these with a needless evaluation: to the bit the same run."""
    data, runs = torch.randn(8, 16, 4, generator=torch.Generator().manual_seed(1)), []
    for by_hand in (False, True):
        model, opt = with_norm_and_dropout(CASES[name])
        torch.manual_seed(5)
        for step, x in enumerate(data, 1):
            if not by_hand:
                opt.step(lambda model=model, opt=opt, x=x: evaluate(model, opt, x))
            else:
                loss = evaluate(model, opt, x) if always or opt.needs_gradient else opt.zero_grad()
                opt.first_step(zero_grad=True)
                with opt.second_pass():
                    second = evaluate(model, opt, x)
                opt.second_step(loss=second if loss is None else loss)
            assert model[1].num_batches_tracked == step and model[1].track_running_stats
        runs.append((torch.nn.utils.parameters_to_vector(model.parameters()).detach(), torch.rand(1)))
        buffers = copy.deepcopy(model[1].running_mean)
        runs[-1] = (*runs[-1], buffers)
    for ours, theirs in zip(*runs, strict=True):
        if not (always and "momentum" in name):  # then the statistics are those of the evaluation at w
            assert torch.equal(ours, theirs)
