"""Batches in parts, clipping, norm layers, and compiled models."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD

from saddlescope.dynamics.maps import SAMMap
from saddlescope.optim import SAM, RadiusCap

BATCH = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
START = torch.tensor([0.5, -1.0, 0.3, 0.8], dtype=torch.float64)


def loss_on(x, w):
    return ((x @ w).cos() + 0.1 * (x @ w.tanh()) ** 2).mean()


def evaluation(opt, w, *parts):
    def closure():
        opt.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for x in parts:
            loss = loss_on(x, w) / len(parts)
            loss.backward()
            total += loss.detach()
        return total

    return closure


def test_accumulation_in_the_closure_is_the_whole_batch():
    points = []
    for parts in ((BATCH,), BATCH.chunk(3)):
        w = START.clone().requires_grad_()
        opt = SAM(SGD([w], lr=0.1, momentum=0.9), rho=0.5)
        for _ in range(10):
            opt.step(evaluation(opt, w, *parts))
        points.append(w.detach())
    assert torch.allclose(*points, rtol=0, atol=1e-13)


@pytest.mark.parametrize("zero_in_place", [True, False])
def test_micro_batches_ascend_each_for_itself(zero_in_place):
    """The base's gradient is the mean over parts of ``g_i(w + rho g_i(w)/|g_i(w)|)``."""
    w = START.clone().requires_grad_()
    opt = SAM(SGD([w], lr=0.1), rho=0.5)
    parts = BATCH.chunk(3)

    def closure(x):
        def evaluate():
            opt.zero_grad(set_to_none=not zero_in_place)
            loss = loss_on(x, w)
            loss.backward()
            return loss

        return evaluate

    expected = START.clone()
    for _ in range(5):
        loss = opt.step(micro_batches=[closure(x) for x in parts])
        assert loss.item() == pytest.approx(loss_on(BATCH, expected).item(), rel=1e-14)
        steps = [SAMMap(lr=1.0, rho=0.5)((expected,), torch.func.grad(lambda v, x=x: loss_on(x, v))) for x in parts]
        expected = expected + 0.1 * (torch.stack([s[0] for s in steps]).mean(0) - expected)
        assert torch.allclose(w.detach(), expected, rtol=0, atol=1e-14)
    whole = START.clone().requires_grad_()
    other = SAM(SGD([whole], lr=0.1), rho=0.5)
    for _ in range(5):
        other.step(evaluation(other, whole, *parts))
    assert (whole.detach() - w.detach()).norm() > 1e-3  # an explicit choice, as it makes a difference


@pytest.mark.parametrize("bad_call", [1, 2, 3, 4])
def test_one_bad_micro_batch_skips_the_step(bad_call):
    w = START.clone().requires_grad_()
    opt = SAM(SGD([w], lr=0.1, momentum=0.9), rho=0.5)
    calls = [0]

    def closure():
        opt.zero_grad()
        loss = loss_on(BATCH, w)
        loss.backward()
        calls[0] += 1
        if calls[0] == bad_call:
            w.grad[0] = float("inf")
        return loss

    opt.step(micro_batches=[closure, closure])
    assert torch.equal(w.detach(), START) and opt.skipped_steps == 1 and not opt.state


def test_the_mean_of_micro_batches_is_a_copy():
    """A closure may hand out the same gradient tensor every time, as buckets of data-parallel models do."""
    w, bucket = START.clone().requires_grad_(), torch.ones(4, dtype=torch.float64)
    opt = SAM(SGD([w], lr=0.1), rho=0.5)

    def closure():
        w.grad = bucket
        return torch.zeros(())

    opt.step(micro_batches=[closure, closure])
    assert torch.equal(bucket, torch.ones(4)) and torch.allclose(w.detach(), START - 0.1, rtol=0, atol=1e-15)


def test_micro_batches_with_a_cap_or_a_closure_are_refused():
    w = START.clone().requires_grad_()
    opt = SAM(SGD([w], lr=0.1), radius_cap=RadiusCap(form="response"))
    closure = evaluation(opt, w, BATCH)
    with pytest.raises(ValueError, match='form="ascent"'):
        opt.step(micro_batches=[closure])
    with pytest.raises(ValueError, match="beside micro_batches"):
        opt.step(closure, micro_batches=[closure])
    with pytest.raises(ValueError, match="closure"):
        opt.step(micro_batches=[])


def test_each_micro_batch_is_capped_by_its_own_gradient():
    radii, losses = [], ([[3.0, 1.0, -1.0, 0.5]], [[0.3, 0.1, -0.1, 0.05]])  # H = 2 a a^T, of norm 2 |a|^2
    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    opt = SAM(SGD([w], lr=0.0), rho=5.0, radius_cap=RadiusCap(fraction=0.15))

    def closure_of(rows):
        a = torch.tensor(rows[0], dtype=torch.float64)

        def closure():
            opt.zero_grad()
            loss = (w @ a) ** 2
            loss.backward()
            radii.append(float((w.detach() - 1.0).norm()))
            return loss.detach()

        return closure

    for _ in range(3):
        opt.step(micro_batches=[closure_of(losses[0])])
    radii.clear()
    opt.step(micro_batches=[closure_of(losses[0]), closure_of(losses[0])])
    stiff = torch.tensor(losses[0][0], dtype=torch.float64)
    expected = 0.15 * 2 * abs(float(stiff.sum())) * float(stiff.norm()) / (2 * float(stiff.square().sum()))
    assert radii == pytest.approx([0.0, expected, 0.0, expected], rel=1e-9)


def test_a_cap_by_the_two_gradients_refuses_two_batches():
    with pytest.raises(ValueError, match="sync_perturbation"):
        SAM(SGD([START.clone().requires_grad_()], lr=0.1), radius_cap=RadiusCap(), sync_perturbation=False)


@pytest.mark.parametrize("limit", [0.05, 1e6])
def test_clipping_is_of_the_second_gradient_and_torch_s(limit):
    points = []
    for own in (True, False):
        w = START.clone().requires_grad_()
        opt = SAM(SGD([w], lr=0.1), rho=0.5, max_grad_norm=limit if own else None)
        closure = evaluation(opt, w, BATCH)
        for _ in range(5):
            if own:
                opt.step(closure)
            else:
                closure()
                opt.first_step()
                closure()
                norm = torch.nn.utils.clip_grad_norm_([w], limit)
                opt.second_step()
        points.append(w.detach())
        if own:
            measured = opt.last_step.perturbed_gradient_norm
    assert torch.equal(*points) and measured == pytest.approx(norm.item(), rel=1e-12)


def layers():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.BatchNorm2d(4, momentum=None),
        nn.Dropout(0.5),
    )


def buffers_after_a_step(freeze, repeat, wrap=lambda model: model):
    model = layers()
    called, x = wrap(model), torch.randn(8, 2, 6, 6)
    outputs = []
    opt = SAM(SGD(model.parameters(), lr=0.1), rho=0.0, freeze_statistics=freeze, repeat_random=repeat)

    def closure():
        opt.zero_grad()
        output = called(x)
        outputs.append(output.detach())
        loss = output.square().mean()
        loss.backward()
        return loss

    once = copy.deepcopy(model)
    with torch.random.fork_rng():
        once(x)
    for _ in range(2):
        opt.step(closure)
        if len(outputs) == 2:
            after = {name: b.clone() for name, b in model.named_buffers()}
    return after, dict(once.named_buffers()), outputs, model


@pytest.mark.parametrize("compiled", [False, True])
def test_norm_layers_of_every_kind_count_once(compiled):
    """A compiled model runs no hooks of the modules inside it."""
    wrap = (lambda model: torch.compile(model, backend="aot_eager")) if compiled else (lambda model: model)
    after, once, outputs, model = buffers_after_a_step(True, True, wrap)
    assert after.keys() == once.keys() and len(after) == 9
    for name in after:
        assert torch.allclose(after[name], once[name], rtol=0, atol=1e-6), name
    assert model[1].num_batches_tracked == 2 and model[1].track_running_stats
    assert torch.equal(outputs[0] == 0, outputs[1] == 0) and not torch.equal(outputs[0] == 0, outputs[2] == 0)


def test_both_can_be_switched_off():
    after, once, outputs, _ = buffers_after_a_step(False, False)
    assert after["1.num_batches_tracked"] == 2
    assert not torch.equal(after["2.running_mean"], once["2.running_mean"])
    assert not torch.equal(outputs[0] == 0, outputs[1] == 0)


def test_a_compiled_model_makes_the_same_steps():
    points = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        called = torch.compile(model, backend="aot_eager") if compiled else model
        opt = SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.3)

        def closure(opt=opt, called=called):
            opt.zero_grad()
            loss = called(BATCH).square().mean()
            loss.backward()
            return loss

        for _ in range(5):
            opt.step(closure)
        points.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*points, rtol=0, atol=1e-13)


def test_a_compiled_step_makes_the_same_steps():
    """The second pass of one that is traced would count its batch in the batch norm too."""
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
        opt = SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.5)
        step = torch.compile(opt.step, backend="eager") if compiled else opt.step
        for batch in torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(1)):

            def closure(batch=batch, model=model, opt=opt):
                opt.zero_grad()
                loss = model(batch).square().mean()
                loss.backward()
                return loss

            step(closure)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
