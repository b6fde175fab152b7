"""Each variant of the torch optimizer against its twin among the maps, and what a step of each costs."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from variant_cases import CASES, START, Run, coupled

from saddlescope.dynamics import variants as maps
from saddlescope.dynamics.maps import SAMMap
from saddlescope.optim import SAM, RadiusCap
from saddlescope.optim.variants import (
    ASAM,
    SCHEDULES,
    VARIANTS,
    AfterPlateau,
    Every,
    FriendlySAM,
    LookaheadSAM,
    MomentumSAM,
    Phase,
    StableSAM,
    VaSSO,
)

TWINS = {
    "asam": (CASES["asam"], maps.ASAMMap, {"eta": 0.1}),
    "adaptive": ({"adaptive": True}, maps.ASAMMap, {"eta": 0.0}),
    "friendly": (CASES["friendly"], maps.FriendlySAMMap, {"sigma": 0.8, "decay": 0.7}),
    "lookahead": (CASES["lookahead"], maps.LookaheadSAMMap, {"lookahead": 0.06}),
    "lookahead by lr": ({"variant": LookaheadSAM()}, maps.LookaheadSAMMap, {"lookahead": 0.01}),
    "momentum": (CASES["momentum"], maps.MomentumSAMMap, {}),
    "stable": (CASES["stable"], maps.StableSAMMap, {}),
    "vasso": (CASES["vasso"], maps.VaSSOMap, {"theta": 0.3}),
    "phase": ({"schedule": Phase(start=10, stop=30)}, maps.ScheduledSAMMap, {"start": 10, "stop": 30}),
}


@pytest.mark.parametrize(
    ("name", "momentum"),
    [(name, momentum) for name in TWINS for momentum in (0.0, 0.9) if (name, momentum) != ("momentum", 0.0)],
)
def test_equals_its_map_over_50_steps(name, momentum):
    """The step is small enough to stay off the minimum, where dividing by the norm blows up round-off."""
    options, twin, settings = TWINS[name]
    update, sam = twin(lr=0.01, rho=0.2, momentum=momentum, **settings), SAMMap(lr=0.01, rho=0.2, momentum=momentum)
    run, state, plain, apart = Run(options, lr=0.01, momentum=momentum), update.initial(START), sam.initial(START), 0.0
    for _ in range(50):
        run.steps(1)
        state, plain = update(state, torch.func.grad(coupled)), sam(plain, torch.func.grad(coupled))
        assert torch.allclose(run.point, state[0], rtol=0, atol=1e-12)
        apart = max(apart, (run.point - plain[0]).abs().max().item())
    assert apart > 1e-3  # from what SAM does
    assert (run.point - START).norm() > 0.3  # it went somewhere


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_steps_are_the_same_bit_for_bit_without_checks(name, clip):
    """The norm of the second gradient is left out where nothing needs it, and only there."""
    bare = {"statistics": False, "skip_nonfinite": False}
    checked, unchecked = (Run({**CASES[name], "max_grad_norm": clip, **options}) for options in ({}, bare))
    for run in (checked, unchecked):
        run.steps(8)
    assert torch.equal(checked.point, unchecked.point)
    needed = clip is not None or name == "stable"
    assert math.isfinite(unchecked.opt.last_step.perturbed_gradient_norm) == needed


def test_two_radii_and_a_group_that_climbs():
    """Lookahead is the one that builds its length itself, group by group."""
    run = Run({"variant": LookaheadSAM()})
    first, second = run.opt.param_groups
    first["rho"], first["lr"], second["maximize"] = 0.7, 0.3, True
    run.closure()
    g = torch.func.grad(coupled)(START)
    with run.opt.perturbed():
        moved = run.point - START
    length = torch.tensor([0.7 / g.norm() - 0.3] * 5 + [-(0.2 / g.norm() - 0.02)], dtype=torch.float64)
    assert torch.allclose(moved, length * g, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_climbing_from_below_is_descending(name):
    down, up = Run(CASES[name]), Run(CASES[name], maximize=True)

    def upside_down():
        up.opt.zero_grad()
        loss = -coupled(torch.cat([p.flatten() for p in up.parameters]))
        loss.backward()
        return -loss

    for _ in range(8):
        assert down.opt.step(down.closure) == up.opt.step(upside_down)
    assert torch.equal(down.point, up.point)


@pytest.mark.parametrize(("base", "buffer"), [(SGD, "momentum_buffer"), (AdamW, "exp_avg")])
def test_momentum_sam_looks_ahead_along_the_base_s_momentum(base, buffer):
    run = Run({"variant": MomentumSAM()}, base=base)
    with run.opt.perturbed():
        assert torch.equal(run.point, START)  # at rest
    run.steps(3)
    before, v = run.point, torch.cat([run.opt.state[p][buffer].flatten() for p in run.parameters])
    with run.opt.perturbed():
        assert torch.allclose(run.point - before, -0.2 * v / v.norm(), rtol=0, atol=1e-15)
    run.steps(1)
    last, moved = run.opt.last_step, before - 0.2 * v / v.norm()
    g_p = torch.func.grad(coupled)(moved)
    assert last.gradient_norm == pytest.approx(v.norm().item(), rel=1e-14)
    assert last.perturbed_gradient_norm == pytest.approx(g_p.norm().item(), rel=1e-13)
    assert last.cosine == pytest.approx(-(v @ g_p / v.norm() / g_p.norm()).item(), rel=1e-12)
    assert last.to_dict()["rayleigh"] is None


def test_asam_takes_biases_as_they_are():
    layer = nn.Linear(3, 2).double()
    opt = SAM(SGD(layer.parameters(), lr=0.1), rho=0.5, variant=ASAM(eta=0.2))
    layer(torch.ones(3).double()).square().sum().backward()
    w, b, scale = layer.weight.detach().clone(), layer.bias.detach().clone(), layer.weight.detach().abs() + 0.2
    g, h = layer.weight.grad, layer.bias.grad
    norm = ((scale * g).square().sum() + h.square().sum()).sqrt()
    with opt.perturbed():
        assert torch.allclose(layer.weight.detach() - w, 0.5 * scale**2 * g / norm, rtol=0, atol=1e-15)
        assert torch.allclose(layer.bias.detach() - b, 0.5 * h / norm, rtol=0, atol=1e-15)


@pytest.mark.parametrize("variant", [FriendlySAM(decay=0.7), VaSSO(), LookaheadSAM(), MomentumSAM(), ASAM(biases=True)])
def test_unnormalized_the_length_is_that_of_the_direction(variant):
    moves = []
    for normalized in (True, False):
        run = Run({"variant": variant, "normalized": normalized}, lr=0.0)
        run.steps(1)
        if variant.needs_gradient:
            run.closure()
        before = run.point
        with run.opt.perturbed():
            moves.append(run.point - before)
    if isinstance(variant, LookaheadSAM):
        assert torch.allclose(moves[1], 0.2 * torch.func.grad(coupled)(START), rtol=0, atol=1e-15)
    assert torch.cosine_similarity(*moves, dim=0).item() == pytest.approx(1.0, abs=1e-12)
    assert abs(moves[0].norm() - moves[1].norm()) > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_statistics_are_of_the_move_and_the_gradients(name):
    run = Run(CASES[name])
    run.steps(5)
    before, gradient = run.point, torch.func.grad(coupled)
    two_passes = run.opt.needs_gradient
    if two_passes:
        run.closure()
    with run.opt.perturbed():
        moved = run.point
    run.steps(1)
    e, g, g_p, last = moved - before, gradient(before), gradient(moved), run.opt.last_step
    assert last.perturbed_gradient_norm == pytest.approx(g_p.norm().item(), rel=1e-12)
    if two_passes:
        scale = before.abs() + 0.1 if "asam" in name else 1.0
        assert last.gradient_norm == pytest.approx((scale * g).norm().item(), rel=1e-12)
        assert last.rayleigh == pytest.approx(((g_p - g) @ e / (e @ e)).item(), rel=1e-9)
    if e.any():
        assert last.cosine == pytest.approx((e @ g_p / e.norm() / g_p.norm()).item(), rel=1e-12)
        assert last.rho_used == 0.2
    else:
        assert last.rho_used == 0.0 and last.gradient_norm == last.perturbed_gradient_norm


def test_micro_batches_each_go_into_the_mean():
    """Two halves in one step are two steps as far as the mean is concerned."""
    halves = [lambda w: coupled(w), lambda w: (w**4).sum() - w[0]]
    run, m, w = Run({"variant": VaSSO(theta=0.3)}, momentum=0.0), torch.zeros(6), START
    for _ in range(3):
        run.opt.step(micro_batches=[lambda f=f: evaluate(run, f) for f in halves])
        descents = []
        for f in halves:
            m = 0.7 * m + 0.3 * torch.func.grad(f)(w)
            descents.append(torch.func.grad(f)(w + 0.2 * m / m.norm()))
        w = w - 0.02 * sum(descents) / 2
        assert torch.allclose(run.point, w, rtol=0, atol=1e-14)


def evaluate(run, loss):
    run.opt.zero_grad()
    value = loss(torch.cat([p.flatten() for p in run.parameters]))
    value.backward()
    return value


def test_stable_micro_batches_each_have_their_own_length():
    halves = [lambda w: coupled(w), lambda w: (w**4).sum() - w[0]]
    run, w = Run({"variant": StableSAM()}, momentum=0.0), START
    for _ in range(3):
        run.opt.step(micro_batches=[lambda f=f: evaluate(run, f) for f in halves])
        steps = [maps.StableSAMMap(lr=0.02, rho=0.2)((w,), torch.func.grad(f))[0] for f in halves]
        w = sum(steps) / 2
        assert torch.allclose(run.point, w, rtol=0, atol=1e-14)


def test_clipping_comes_after_the_change_of_length():
    run = Run({"variant": StableSAM(), "max_grad_norm": 0.5}, momentum=0.0)
    run.steps(1)
    moved = maps.StableSAMMap(lr=0.02, rho=0.2)((START,), torch.func.grad(coupled))[0] - START
    assert run.opt.last_step.gradient_norm > 1.0  # clipping acts
    # torch's clipping divides by the norm + 1e-6.
    assert torch.allclose(run.point - START, 0.02 * 0.5 * moved / moved.norm(), rtol=2e-6, atol=0)


def test_names_lead_to_every_variant_and_schedule():
    assert {type(options["variant"]) for options in CASES.values() if "variant" in options} <= {*VARIANTS.values()}
    assert {type(options["schedule"]) for options in CASES.values() if "schedule" in options} <= {*SCHEDULES.values()}
    start = Run({"variant": VARIANTS["sam"](), "schedule": SCHEDULES["always"]()}), Run({})
    for run in start:
        run.steps(5)
    assert torch.equal(start[0].point, start[1].point)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "friendly"}, "variant: got 'friendly', expected a Variant"),
        ({"schedule": 5}, "schedule: got 5, expected a Schedule"),
        ({"variant": VaSSO(), "adaptive": True}, "adaptive"),
        (
            {"variant": VaSSO(), "radius_cap": RadiusCap()},
            r"VaSSO\(theta=0.4\), normalized=True; its rule is about an",
        ),
        ({"variant": FriendlySAM(), "radius_cap": RadiusCap()}, "radius_cap"),
        ({"variant": MomentumSAM(), "radius_cap": RadiusCap()}, "radius_cap"),
        ({"variant": ASAM(), "radius_cap": RadiusCap()}, "in weight space"),
        ({"radius_cap": RadiusCap(form="ascent"), "statistics": False}, "statistics: got False"),
        ({"variant": StableSAM(), "sync_perturbation": False}, "sync_perturbation: got False"),
        ({"variant": StableSAM(), "normalized": False, "radius_cap": RadiusCap()}, "normalized=True"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Run(options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ASAM(eta=-1.0), "eta: got -1.0"),
        (lambda: FriendlySAM(decay=1.0), "decay: got 1.0"),
        (lambda: FriendlySAM(sigma=float("nan")), "sigma: got nan"),
        (lambda: LookaheadSAM(lookahead=-0.1), "lookahead: got -0.1"),
        (lambda: VaSSO(theta=0.0), "theta: got 0.0"),
        (lambda: VaSSO(theta=1.1), "theta: got 1.1"),
        (lambda: Every(0), "interval: got 0"),
        (lambda: Phase(start=-1), "start: got -1"),
        (lambda: Phase(start=3, stop=3), "stop: got 3"),
        (lambda: AfterPlateau(), "below: got None"),
        (lambda: AfterPlateau(below=1.0, fraction=0.5), "below: got 1.0"),
        (lambda: AfterPlateau(fraction=1.0), "fraction: got 1.0"),
        (lambda: AfterPlateau(below=1.0, decay=1.0), "decay: got 1.0"),
        (lambda: Run({"variant": MomentumSAM()}, momentum=0.0), "SGD without momentum"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("variant", [StableSAM(), LookaheadSAM(lookahead=0.01)])
def test_a_radius_cap_shortens_the_radius_of_variants_it_is_about(variant):
    """``|x|^2 - |y|^2``: the only negative curvature is -2, so the cap is ``c |g| / 2``."""
    w = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    cap = RadiusCap(fraction=0.5, every=1, products=2, form="batch")
    opt = SAM(SGD([w], lr=0.0), rho=5.0, variant=variant, radius_cap=cap)

    def closure():
        opt.zero_grad()
        loss = w[0] ** 2 - w[1] ** 2
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last_step.rho_used == pytest.approx(0.5 * 1.0 / 2.0, rel=1e-9)
    shorter = getattr(variant, "lookahead", 0.0) * 1.0
    assert opt.last_step.length.item() == pytest.approx(0.25 - shorter, rel=1e-9)
    assert opt.last_step.gradient_norm == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"variant": StableSAM()}, {"schedule": Every(2)}])
def test_a_cap_without_products_learns_in_steps_by_hand_too(options):
    options = {**options, "radius_cap": RadiusCap(form="ascent")}
    run, other = Run(options, rho=2.0), Run(options, rho=2.0)
    for _ in range(8):
        run.steps(1)
        other.by_hand()
        assert torch.equal(run.point, other.point)
    run.steps(1)
    assert 0.0 < run.opt.last_step.rho_used < 2.0
