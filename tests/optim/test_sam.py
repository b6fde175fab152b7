"""The torch optimizer against its textbook twin, and the contract of a step: exact restore, exceptions, state."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adadelta, Adam
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from saddlescope.dynamics.maps import GradientMap, SAMMap
from saddlescope.optim import SAM, RadiusCap

START = torch.tensor([0.9, -0.4, 0.3, 1.2, -0.7, 0.5], dtype=torch.float64)


def coupled(w):
    """A smooth non-convex loss in six variables, every one coupled with the next."""
    return (w.sin() * w.roll(1)).sum() + 0.25 * (w**4).sum() + (w[0] * w[3] - w[5]).square()


def split(w):
    """The same point as three tensors of different shapes."""
    return [piece.clone().requires_grad_() for piece in (w[:1], w[1:5].view(2, 2), w[5:])]


def spoil(opt, parameters, closure):
    """Make a step whose second gradient is infinite."""

    def spoiled():
        loss = closure()
        if parameters[0].grad is not None:  # a Hessian product leaves none
            parameters[0].grad.fill_(float("inf"))
        return loss

    opt.step(spoiled)


def joined(parameters):
    return torch.cat([p.detach().flatten() for p in parameters])


def evaluation(opt, parameters, loss=coupled):
    def closure():
        opt.zero_grad()
        value = loss(torch.cat([p.flatten() for p in parameters]))
        value.backward()
        return value

    return closure


def make(rho=0.2, lr=0.05, base=SGD, **options):
    """SAM over two parameter groups; options starting with ``base_`` go to the base."""
    parameters = split(START)
    inner = {k[5:]: options.pop(k) for k in list(options) if k.startswith("base_")}
    opt = SAM(base([{"params": parameters[:2]}, {"params": parameters[2:]}], lr=lr, **inner), rho=rho, **options)
    return opt, parameters, evaluation(opt, parameters)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("normalized", [True, False])
def test_equals_the_map_over_100_steps(momentum, normalized):
    update = SAMMap(lr=0.02, rho=0.2, momentum=momentum, normalized=normalized)
    opt, parameters, closure = make(lr=0.02, base_momentum=momentum, normalized=normalized)
    state = update.initial(START)
    for _ in range(100):
        assert torch.allclose(joined(parameters), state[0], rtol=0, atol=1e-12)
        loss = opt.step(closure)
        assert loss.item() == pytest.approx(coupled(state[0]).item(), abs=1e-12)
        state = update(state, torch.func.grad(coupled))
    assert (joined(parameters) - START).norm() > 0.5  # it went somewhere


def test_two_steps_by_hand_equal_the_closure():
    opt, parameters, closure = make(base_momentum=0.9)
    by_hand, others, evaluate = make(base_momentum=0.9)
    for _ in range(20):
        opt.step(closure)
        evaluate()
        by_hand.first_step(zero_grad=True)
        coupled(torch.cat([p.flatten() for p in others])).backward()
        by_hand.second_step(zero_grad=True)
        assert torch.equal(joined(parameters), joined(others))
    assert all(p.grad is None for p in others)


def test_rho_zero_is_the_base():
    opt, parameters, closure = make(rho=0.0, base_momentum=0.9)
    update = GradientMap(lr=0.05, momentum=0.9)
    state = update.initial(START)
    for _ in range(50):
        opt.step(closure)
        state = update(state, torch.func.grad(coupled))
    assert torch.allclose(joined(parameters), state[0], rtol=0, atol=1e-13)


def test_adaptive_perturbation_matches_its_formula():
    opt, parameters, closure = make(adaptive=True)
    closure()
    g, size = torch.func.grad(coupled)(START), START.abs()
    with opt.perturbed():
        moved = joined(parameters) - START
    assert torch.allclose(moved, 0.2 * size**2 * g / (size * g).norm(), rtol=0, atol=1e-15)


def test_each_group_has_its_radius_and_the_norm_is_global():
    opt, parameters, closure = make()
    opt.param_groups[1]["rho"] = 0.6
    closure()
    g = torch.func.grad(coupled)(START)
    with opt.perturbed():
        moved = joined(parameters) - START
    radii = torch.tensor([0.2] * 5 + [0.6], dtype=torch.float64)
    assert torch.allclose(moved, radii * g / g.norm(), rtol=0, atol=1e-15)


def test_radius_given_with_the_parameters():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "rho": 0.3}, {"params": [torch.ones(1)]}]
    assert [group["rho"] for group in SAM(groups, SGD, lr=0.1, rho=0.1).param_groups] == [0.3, 0.1]


def test_a_zero_gradient_moves_nothing():
    w = torch.zeros(2, requires_grad=True)
    opt = SAM(SGD([w], lr=0.1), rho=1.0)
    opt.step(evaluation(opt, [w], lambda v: v.square().sum()))
    assert torch.equal(w.detach(), torch.zeros(2)) and opt.skipped_steps == 0


def test_weights_come_back_bit_for_bit():
    torch.manual_seed(0)
    before, gradient = torch.randn(10_000), torch.randn(10_000)
    w = before.clone().requires_grad_()
    opt = SAM(SGD([w], lr=0.1), rho=5.0)
    w.backward(gradient)
    with opt.perturbed():
        e = 5.0 * gradient / gradient.norm()
        assert torch.allclose(w.detach(), before + e, rtol=0, atol=1e-6)
        assert not torch.equal(w.detach() - e, before)  # subtracting would leave round-off
    assert torch.equal(w.detach(), before)


def test_a_gradient_in_one_pass_only():
    first, second = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    opt = SAM(SGD([first, second], lr=0.1), rho=0.5)
    first.square().sum().backward()
    opt.first_step(zero_grad=True)
    assert not torch.equal(first.detach(), torch.ones(3))
    second.square().sum().backward()
    opt.second_step()
    assert torch.equal(first.detach(), torch.ones(3))
    assert torch.allclose(second.detach(), torch.full((3,), 0.8))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("failing_call", [1, 2])
def test_an_exception_leaves_the_weights_alone_and_the_optimizer_usable(error, failing_call):
    opt, parameters, closure = make(base_momentum=0.9)
    opt.step(closure)
    before, state = joined(parameters), copy.deepcopy(opt.state_dict())
    calls = 0

    def failing():
        nonlocal calls
        calls += 1
        closure()
        if calls == failing_call:
            raise error("stop here")
        return torch.tensor(0.0)

    with pytest.raises(error, match="stop here"):
        opt.step(failing)
    assert torch.equal(joined(parameters), before)
    assert str(opt.state_dict()) == str(state)
    opt.step(closure)
    assert not torch.equal(joined(parameters), before)


@pytest.mark.parametrize("bad_call", [1, 2])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted(bad_call, bad):
    opt, parameters, closure = make(base=Adam)
    opt.step(closure)
    before, moments = joined(parameters), copy.deepcopy(opt.state_dict()["state"])
    calls = 0

    def spoiled():
        nonlocal calls
        calls += 1
        loss = closure()
        if calls == bad_call:
            parameters[1].grad[0, 0] = bad
        return loss

    opt.step(spoiled)
    assert opt.skipped_steps == 1 and calls == 2
    assert torch.equal(joined(parameters), before)
    assert str(opt.state_dict()["state"]) == str(moments)
    opt.step(closure)
    assert opt.skipped_steps == 1 and not torch.equal(joined(parameters), before)


def test_an_ascent_gradient_that_is_not_finite_moves_nothing():
    w = torch.ones(2, requires_grad=True)
    w.backward(torch.tensor([1.0, float("inf")]))
    with SAM(SGD([w], lr=0.1)).perturbed():
        assert torch.equal(w.detach(), torch.ones(2))


def test_the_second_gradient_does_not_contain_the_first():
    """Gradients that pile up over the two passes make the step along g(w) + g(w_p)."""
    w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    opt = SAM(SGD([w], lr=0.1), rho=0.5)
    w.square().sum().backward()
    opt.first_step(zero_grad=True)
    w.square().sum().backward()
    opt.second_step()
    assert w.item() == pytest.approx(1.0 - 0.1 * 2 * 1.5, abs=1e-15)


@pytest.mark.parametrize("on_the_base", [True, False])
def test_a_scheduler_acts_on_both(on_the_base, recwarn):
    opt, _, closure = make()
    scheduler = StepLR(opt.base if on_the_base else opt, step_size=1, gamma=0.5)
    opt.step(closure)
    scheduler.step()
    assert [group["lr"] for group in opt.base.param_groups] == [0.025, 0.025]
    assert opt.param_groups is opt.base.param_groups
    assert not recwarn.list


def test_a_scheduler_accepts_the_two_steps_as_a_step(recwarn):
    opt, _, closure = make()
    scheduler = StepLR(opt, step_size=1, gamma=0.5)
    closure()
    opt.first_step()
    opt.second_step()
    scheduler.step()
    assert opt.param_groups[0]["lr"] == 0.025
    assert not recwarn.list


def test_a_scheduler_of_momentum_finds_the_defaults_of_the_base():
    opt, _, closure = make(base_momentum=0.9)
    scheduler = OneCycleLR(opt, max_lr=0.1, total_steps=10, base_momentum=0.8)
    opt.step(closure)
    scheduler.step()
    assert opt.base.param_groups[0]["momentum"] < 0.95


@pytest.mark.parametrize("on_the_base", [True, False])
def test_a_group_added_later_is_stepped(on_the_base):
    opt, parameters, _ = make(rho=0.3)
    late = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (opt.base if on_the_base else opt).add_param_group({"params": [late]})
    assert opt.param_groups[-1]["rho"] == 0.3
    opt.step(evaluation(opt, [*parameters, late], lambda w: (w**4).sum()))
    assert (late < 1).all()


@pytest.mark.parametrize(("base", "options"), [(SGD, {"momentum": 0.9}), (Adam, {})])
@pytest.mark.parametrize("cap", [None, RadiusCap(every=3, products=2, form="response"), RadiusCap()])
def test_a_run_resumes_bit_for_bit(base, options, cap):
    def start():
        parameters = split(START)
        opt = SAM(base(parameters, lr=0.02, **options), rho=0.4, radius_cap=cap)
        return opt, parameters, evaluation(opt, parameters)

    opt, parameters, closure = start()
    for _ in range(7):
        opt.step(closure)
    file = io.BytesIO()
    spoil(opt, parameters, closure)
    torch.save({"weights": joined(parameters), "optimizer": opt.state_dict()}, file)
    for _ in range(10):
        opt.step(closure)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, others, evaluate = start()
    torch.nn.utils.vector_to_parameters(saved["weights"], others)
    resumed.load_state_dict(saved["optimizer"])
    for _ in range(10):
        resumed.step(evaluate)
    assert torch.equal(joined(parameters), joined(others))
    assert resumed.skipped_steps == 1 and resumed.hessian_products == opt.hessian_products


def test_a_deep_copy_goes_its_own_way():
    opt, parameters, closure = make(base_momentum=0.9)
    opt.step(closure)
    twin = copy.deepcopy(opt)
    copies = [p for group in twin.param_groups for p in group["params"]]
    opt.step(closure)
    twin.step(evaluation(twin, copies))
    assert torch.equal(joined(parameters), joined(copies))
    assert not set(map(id, parameters)) & set(map(id, copies))


def test_free_by_products_on_a_quadratic():
    """On l = w'Hw/2 the Rayleigh quotient along g is exact, and both gradients are known."""
    hessian = torch.diag(torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))
    w = torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64)
    g = hessian @ w
    g_p = hessian @ (w + 0.7 * g / g.norm())
    point = w.clone().requires_grad_()
    opt = SAM(SGD([point], lr=0.1), rho=0.7)
    opt.step(evaluation(opt, [point], lambda v: v @ hessian @ v / 2))
    last = opt.last_step
    assert last.gradient_norm == pytest.approx(g.norm().item(), rel=1e-14)
    assert last.perturbed_gradient_norm == pytest.approx(g_p.norm().item(), rel=1e-14)
    assert last.rayleigh == pytest.approx((g @ hessian @ g / (g @ g)).item(), rel=1e-12)
    assert last.cosine == pytest.approx((g @ g_p / g.norm() / g_p.norm()).item(), rel=1e-12)
    assert last.rho_used == 0.7


def test_by_products_with_two_radii_are_those_of_the_perturbation():
    opt, parameters, closure = make()
    opt.param_groups[1]["rho"] = 0.6
    closure()
    gradient = torch.func.grad(coupled)
    with opt.perturbed():
        moved = joined(parameters)
    opt.step(closure)
    e, g, g_p = moved - START, gradient(START), gradient(moved)
    assert opt.last_step.rayleigh == pytest.approx(((g_p - g) @ e / (e @ e)).item(), rel=1e-12)
    assert opt.last_step.cosine == pytest.approx((e @ g_p / e.norm() / g_p.norm()).item(), rel=1e-12)
    assert opt.last_step.rho_used == 0.6


def test_half_precision_gradients_do_not_overflow_the_norm():
    w = torch.full((4096,), 100.0, dtype=torch.float16, requires_grad=True)
    w.backward(torch.full_like(w, 2000.0))  # of norm 128000, where half precision ends at 65504
    opt = SAM(SGD([w], lr=0.1), rho=64.0)
    with opt.perturbed():
        assert torch.equal(w.detach(), torch.full_like(w, 101.0))


def test_batch_norm_counts_once_and_dropout_repeats_in_a_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    masks = []
    model[2].register_forward_hook(lambda _m, i, o: masks.append((o != 0) | (i[0] == 0)))
    opt, x = SAM(SGD(model.parameters(), lr=0.1), rho=0.1), torch.randn(16, 4)

    def closure():
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    expected = copy.deepcopy(model[1]).train()
    expected(model[0](x))
    opt.step(closure)
    assert torch.equal(masks[0], masks[1])
    assert model[1].num_batches_tracked.item() == 1
    assert torch.equal(model[1].running_mean, expected.running_mean)
    assert model[1].track_running_stats
    opt.step(closure)
    assert not torch.equal(masks[0], masks[2])


def test_those_who_drive_the_two_steps_get_the_same_second_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
    model.register_parameter("scale", nn.Parameter(torch.ones(4)))
    opt = SAM(SGD(model.parameters(), lr=0.1), rho=0.1)
    for step in range(1, 3):
        x = torch.randn(16, 4)  # uses up random numbers between the steps
        opt.zero_grad()
        first = model(x)
        first.square().sum().backward()
        opt.first_step(zero_grad=True)
        with opt.second_pass():
            second = model(x)
            second.square().sum().backward()
        opt.second_step()
        assert torch.equal(first == 0, second == 0) and (first == 0).any()
        assert model[0].num_batches_tracked.item() == step


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w: SAM([w]), "base: got 'list', expected a torch optimizer"),
        (lambda w: SAM(LBFGS([w])), "LBFGS"),
        (lambda w: SAM(Adadelta([w])), "Adadelta has its own"),
        (lambda w: SAM(SGD([w], lr=0.1), lr=0.1), "options"),
        (lambda w: SAM(SGD([w], lr=0.1), rho=-1.0), "rho: got -1.0"),
        (lambda w: SAM(SGD([{"params": [w], "rho": float("nan")}], lr=0.1)), "rho: got nan"),
        (lambda w: SAM(SGD([w], lr=0.1)).add_param_group({"params": [w.clone()], "rho": -1.0}), "rho: got -1.0"),
        (lambda w: SAM(SGD([w], lr=0.1), adaptive=True, radius_cap=RadiusCap()), "radius_cap"),
        (lambda w: SAM(SGD([w], lr=0.1)).step(), "closure: got None"),
        (lambda w: SAM(SGD([w], lr=0.1)).second_step(), "second_step: got 'unperturbed weights'"),
        (lambda w: SAM(SGD([w], lr=0.1), radius_cap=RadiusCap(form="batch")).first_step(), "radius cap"),
        (lambda w: SAM(SGD([w], lr=0.1)).load_state_dict(SGD([w], lr=0.1).state_dict()), 'an entry "sam"'),
    ],
)
def test_wrong_use_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(torch.ones(2, requires_grad=True))


def test_a_first_step_at_perturbed_weights_is_refused():
    opt, _, closure = make()
    closure()
    opt.first_step()
    for method in (opt.first_step, lambda: opt.step(closure), lambda: opt.perturbed().__enter__()):
        with pytest.raises(ValueError, match="call second_step"):
            method()
