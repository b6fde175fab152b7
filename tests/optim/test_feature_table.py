"""The features by which implementations of SAM are compared: one test for each, which a known fault would fail."""

import contextlib

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from saddlescope.optim import SAM
from saddlescope.optim.variants import ASAM

RHO, LR = 0.5, 0.1
START = torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)
DATA = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_on(x, w):
    return ((x @ w).cos() + 0.1 * (x @ w.tanh()) ** 2).mean()


def slope(w, x=DATA):
    return torch.func.grad(lambda v: loss_on(x, v))(w)


def ascended(w, x=DATA, rho=RHO):
    """The textbook's ``w_p``, written once and slowly."""
    g = slope(w, x)
    return w + rho * g / g.norm()


def parameter(start=START):
    return start.clone().requires_grad_()


def evaluation(opt, w, x=DATA, scaler=None):
    def closure():
        opt.zero_grad()
        loss = loss_on(x, w)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return closure


def made(steps=1, **options):
    w = parameter()
    opt = SAM(SGD([w], lr=LR, momentum=0.9), **{"rho": RHO, **options})
    for _ in range(steps):
        opt.step(evaluation(opt, w))
    return w, opt


def near(a, b, tolerance=1e-14):
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def test_closure_step():
    """It needs no backward before it, calls twice, and returns the loss at ``w``."""
    w = parameter()
    opt = SAM(SGD([w], lr=LR), rho=RHO)
    loss = opt.step(evaluation(opt, w))
    assert loss.item() == loss_on(DATA, START).item()
    assert near(w.detach(), START - LR * slope(ascended(START)))


def test_two_steps():
    w = parameter()
    opt = SAM(SGD([w], lr=LR), rho=RHO)
    loss_on(DATA, w).backward()
    opt.first_step(zero_grad=True)
    assert near(w.detach(), ascended(START))
    loss_on(DATA, w).backward()
    opt.second_step(zero_grad=True)
    assert near(w.detach(), START - LR * slope(ascended(START))) and w.grad is None


def test_any_base():
    """A base of the user's, which is a class and takes a step of its own kind."""

    class Sign(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad.sign()

    for build in (lambda w: SAM(Sign([w], lr=LR), rho=RHO), lambda w: SAM([w], Sign, rho=RHO, lr=LR)):
        w = parameter()
        opt = build(w)
        opt.step(evaluation(opt, w))
        assert near(w.detach(), START - LR * slope(ascended(START)).sign())


def test_asam_with_eta():
    w = parameter()
    opt = SAM(SGD([w], lr=LR), rho=RHO, variant=ASAM(eta=0.2, biases=True))
    evaluation(opt, w)()
    size, g = START.abs() + 0.2, slope(START)
    with opt.perturbed():
        assert near(w.detach(), START + RHO * size**2 * g / (size * g).norm())


def test_unnormalized():
    w, opt = made(0, normalized=False)
    evaluation(opt, w)()
    with opt.perturbed():
        assert near(w.detach(), START + RHO * slope(START))


def test_m_sharpness():
    w, opt = made(0)
    parts = DATA.chunk(3)
    opt.step(micro_batches=[evaluation(opt, w, x) for x in parts])
    mean = torch.stack([slope(ascended(START, x), x) for x in parts]).mean(0)
    assert near(w.detach(), START - LR * mean)


@pytest.mark.parametrize("scale", [1.0, 2.0**20])
def test_grad_scaler(scale):
    w, opt = made(0)
    scaler = GradScaler("cpu", init_scale=scale)
    opt.step(evaluation(opt, w, scaler=scaler), scaler=scaler)
    scaler.update()
    assert near(w.detach(), START - LR * slope(ascended(START)))


def test_gradient_accumulation():
    """Parts that add up to the batch ascend along the gradient of the batch."""
    w, opt = made(0)

    def closure():
        opt.zero_grad()
        for x in DATA.chunk(3):
            (loss_on(x, w) / 3).backward()
        return torch.zeros(())

    opt.step(closure)
    assert near(w.detach(), START - LR * slope(ascended(START)))


def test_clipping_once_and_of_the_second_gradient():
    w, _ = made(max_grad_norm=0.05)
    g = torch.nn.Parameter(START.clone())
    g.grad = slope(ascended(START))
    clip_grad_norm_([g], 0.05)
    assert near(w.detach(), START - LR * g.grad)


def test_batch_norm_counts_once_and_dropout_repeats():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).double()
    opt, outputs = SAM(SGD(model.parameters(), lr=LR), rho=RHO), []

    def closure():
        opt.zero_grad()
        outputs.append(model(DATA))
        loss = outputs[-1].square().mean()
        loss.backward()
        return loss

    mean = model[0](DATA).mean(0).detach()
    opt.step(closure)
    assert model[1].num_batches_tracked == 1 and near(model[1].running_mean, 0.1 * mean)
    assert model[1].momentum == 0.1 and model[1].track_running_stats  # also afterwards
    assert torch.equal(outputs[0] == 0, outputs[1] == 0)


@pytest.mark.parametrize("base", [lambda w: SGD([w], lr=LR, momentum=0.9), lambda w: Adam([w], lr=LR)])
@pytest.mark.parametrize("between_the_passes", [False, True])
def test_resumes_bit_for_bit(base, between_the_passes):
    """The base's momentum is in the checkpoint; in the middle of a step so are the weights to return to."""

    def onward(w, opt, begun):
        for i in range(4):
            if i or not begun:
                opt.zero_grad()
                loss_on(DATA, w).backward()
                opt.first_step(zero_grad=True)
            loss_on(DATA, w).backward()
            opt.second_step(zero_grad=True)
        return w.detach()

    w = parameter()
    opt = SAM(base(w), rho=RHO)
    for _ in range(3):
        opt.step(evaluation(opt, w))
    opt.zero_grad()
    if between_the_passes:
        loss_on(DATA, w).backward()
        opt.first_step(zero_grad=True)
    state, saved = opt.state_dict(), w.detach().clone()
    other = parameter(saved)
    resumed = SAM(base(other), rho=RHO)
    resumed.load_state_dict(torch.utils._pytree.tree_map(lambda t: t.clone() if torch.is_tensor(t) else t, state))
    assert torch.equal(onward(w, opt, between_the_passes), onward(other, resumed, between_the_passes))


@pytest.mark.parametrize("way", [{"foreach": True}, {"foreach": False}, {"fused": True}])
def test_foreach_and_fused_bases(way):
    w = parameter()
    opt = SAM(SGD([w], lr=LR, momentum=0.9, **way), rho=RHO)
    for _ in range(5):
        opt.step(evaluation(opt, w))
    assert near(w.detach(), made(5)[0].detach())


def test_compiled_step_keeps_the_momentum():
    w = parameter()
    opt = SAM(SGD([w], lr=LR, momentum=0.9), rho=RHO)
    step = torch.compile(opt.step, backend="eager")
    for _ in range(5):
        step(evaluation(opt, w))
    assert near(w.detach(), made(5)[0].detach())


def test_radius_for_each_group():
    """One norm over both groups, two radii."""
    a, b = parameter(), parameter()
    opt = SAM(SGD([{"params": [a]}, {"params": [b], "rho": 2.0}], lr=LR), rho=RHO)
    (loss_on(DATA, a) + 3 * loss_on(DATA, b)).backward()
    g = slope(START)
    norm = torch.cat([g, 3 * g]).norm()
    with opt.perturbed():
        assert near(a.detach(), START + RHO * g / norm) and near(b.detach(), START + 2.0 * 3 * g / norm)


def test_a_group_added_later_reaches_the_base():
    w, opt = made(1)
    late = parameter()
    opt.add_param_group({"params": [late]})
    opt.step(lambda: [opt.zero_grad(), loss := loss_on(DATA, w) + loss_on(DATA, late), loss.backward(), loss][-1])
    assert not torch.equal(late.detach(), START) and opt.base.param_groups[1]["params"] == [late]
    StepLR(opt, step_size=1)  # and a scheduler sees both
    assert [group["initial_lr"] for group in opt.base.param_groups] == [LR, LR]


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e6])
def test_weights_return_bit_for_bit(size):
    """Also on a radius that swallows every digit, where coming back by subtraction returns another number."""
    w = parameter(START * size)
    opt = SAM(SGD([w], lr=LR), rho=1e8)
    evaluation(opt, w)()
    with opt.perturbed():
        assert not torch.equal(w.detach(), START * size)
    assert torch.equal(w.detach(), START * size)


def test_an_exception_in_the_second_pass_returns_the_weights():
    w, opt = made(0)
    calls = []

    def closure():
        calls.append(w.detach().clone())
        if len(calls) == 2:
            raise RuntimeError
        return evaluation(opt, w)()

    with contextlib.suppress(RuntimeError):
        opt.step(closure)
    assert not torch.equal(calls[1], START) and torch.equal(w.detach(), START)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_infinite_gradient_in_the_first_pass_skips_the_step(bad):
    w, opt = made(0)
    calls = []

    def closure():
        calls.append(None)
        loss = evaluation(opt, w)()
        if len(calls) == 1:
            w.grad[0] = bad
        return loss

    opt.step(closure)
    assert torch.equal(w.detach(), START) and opt.skipped_steps == 1 and not opt.state


def test_a_gradient_in_one_pass_only_returns_every_weight():
    a, b = parameter(), parameter()
    opt = SAM(SGD([a, b], lr=0.0), rho=RHO)
    used = iter([[a, b], [a]])
    opt.step(lambda: [opt.zero_grad(), loss := sum(loss_on(DATA, p) for p in next(used)), loss.backward(), loss][-1])
    assert torch.equal(a.detach(), START) and torch.equal(b.detach(), START)


def test_half_precision_gradients_of_any_size():
    """60,000 in four entries: the norm is beyond float16, and the move is none the less of length rho."""
    w = torch.zeros(4, dtype=torch.float16, requires_grad=True)
    w.grad = torch.full((4,), 6e4, dtype=torch.float16)
    with SAM(SGD([w], lr=LR), rho=1.0).perturbed():
        assert torch.equal(w.detach(), torch.full((4,), 0.5, dtype=torch.float16))


def test_a_diagnostic_of_being_stuck():
    """On a quadratic the free Rayleigh quotient is exact: the curvature along the gradient, sign included."""
    w = parameter(torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64))
    opt = SAM(SGD([w], lr=LR), rho=RHO)
    curvature = torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64)
    opt.step(lambda: [opt.zero_grad(), loss := (curvature * w**2).sum() / 2, loss.backward(), loss][-1])
    assert opt.last_step.rayleigh == pytest.approx(-3.0, rel=1e-12)
    assert opt.last_step.cosine == pytest.approx(-1.0, rel=1e-12)  # rho |lambda| > |g|: SAM turns around
