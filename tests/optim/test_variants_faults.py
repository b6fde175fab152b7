"""Whatever fails at whatever moment, a variant's weights and memory are as if the step had not been tried."""

import copy
import io
import pickle

import pytest
import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, Adam, AdamW
from variant_cases import CASES, Run, coupled

BASES = {"sgd": (SGD, {}), "adam": (Adam, {}), "fused": (AdamW, {"fused": True})}


def passes_of_next_step(run):
    return 2 if run.opt.needs_gradient else 1


def fail(run, moment, error=None, bad=None):
    """Make a step whose pass number ``moment`` throws, or leaves a gradient that is not finite."""
    passes = 0

    def closure():
        nonlocal passes
        passes += 1
        loss = run.closure()
        if passes == moment:
            if error is not None:
                raise error
            run.parameters[1].grad[0, 0] = bad
        return loss

    run.opt.step(closure)


@pytest.mark.parametrize(("moment", "error"), [(1, RuntimeError("stop")), (2, KeyboardInterrupt())])
@pytest.mark.parametrize("name", CASES)
def test_a_pass_that_throws_leaves_no_trace(name, moment, error):
    """Three steps, one that fails, five more: to the bit the eight steps of a run without fault."""
    run, clean = Run(CASES[name]), Run(CASES[name])
    run.steps(3)
    moment = min(moment, passes_of_next_step(run))
    before, state = run.point, pickle.dumps(run.opt.state_dict())
    with pytest.raises(type(error)):
        fail(run, moment, error=error)
    assert torch.equal(run.point, before) and pickle.dumps(run.opt.state_dict()) == state
    run.steps(5)
    clean.steps(8)
    assert torch.equal(run.point, clean.point)


@pytest.mark.parametrize(("moment", "bad"), [(1, float("inf")), (2, float("nan"))])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", CASES)
def test_a_skipped_step_poisons_nothing(name, base, moment, bad):
    """Only the schedule has gone on by one step; a fused base decides on the device, the others on the host."""
    base, inner = BASES[base]
    run, clean = Run(CASES[name], base, **inner), Run(CASES[name], base, **inner)
    run.steps(3)
    moment = min(moment, passes_of_next_step(run))
    before = run.point
    fail(run, moment, bad=bad)
    assert torch.equal(run.point, before) and run.opt.skipped_steps == 1
    run.steps(4)
    clean.steps(3)
    loss = clean.closure() if clean.opt._excursion.progress.memory else None  # the skipped step's was finite
    clean.opt._excursion.progress.advance(loss)
    clean.steps(4)
    assert torch.equal(run.point, clean.point) and torch.isfinite(run.point).all()


@pytest.mark.parametrize("name", CASES)
def test_a_bad_gradient_in_the_very_first_step_starts_no_memory(name):
    run, clean = Run(CASES[name], AdamW, fused=True), Run(CASES[name], AdamW, fused=True)
    fail(run, 1, bad=float("inf"))
    clean.opt._excursion.progress.advance(clean.closure())
    run.steps(5)
    clean.steps(5)
    assert torch.equal(run.point, clean.point)


@pytest.mark.parametrize("name", ["friendly", "vasso"])
def test_one_bad_micro_batch_takes_back_the_proposals_of_the_good_ones(name):
    run, clean = Run(CASES[name]), Run(CASES[name])
    run.steps(2)
    clean.steps(2)
    passes = 0

    def third_is_bad():
        nonlocal passes
        passes += 1
        loss = run.closure()
        if passes == 3:
            run.parameters[0].grad.fill_(float("nan"))
        return loss

    run.opt.step(micro_batches=[third_is_bad, third_is_bad])
    run.steps(3)
    clean.steps(3)
    assert torch.equal(run.point, clean.point) and run.opt.skipped_steps == 1


def reloaded(*states):
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("midway", [False, True])
@pytest.mark.parametrize("base", ["sgd", "fused"])
@pytest.mark.parametrize("name", CASES)
def test_a_run_resumes_bit_for_bit(name, base, midway):
    base, inner = BASES[base]
    for cut in (3, 5):
        run, resumed = Run(CASES[name], base, **inner), Run(CASES[name], base, **inner)
        run.steps(cut)
        if midway:
            if run.opt.needs_gradient:
                run.closure()
            run.opt.first_step()
        weights, state = reloaded([p.detach() for p in run.parameters], run.opt.state_dict())
        with torch.no_grad():
            for p, w in zip(resumed.parameters, weights, strict=True):
                p.copy_(w)
        resumed.opt.load_state_dict(state)
        for one in (run, resumed):
            if midway:
                loss = one.closure()
                one.opt.second_step(loss=loss)
            one.steps(4)
        assert torch.equal(run.point, resumed.point)
        assert run.opt.last_step.to_dict() == resumed.opt.last_step.to_dict()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@pytest.mark.parametrize("midway", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_copies_go_their_own_way(name, midway, duplicate):
    run = Run(CASES[name])
    run.steps(3)
    if midway:
        if run.opt.needs_gradient:
            run.closure()
        run.opt.first_step()
    twin = duplicate(run)
    for one in (run, twin):
        if midway:
            one.opt.second_step(loss=one.closure())
        one.steps(4)
        points = run.point, twin.point
        assert torch.equal(*points) == (one is twin)


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_steps_by_hand_equal_the_closure(name, always):
    """Also when the gradient at ``w`` is taken where nobody needs it."""
    run, other = Run(CASES[name]), Run(CASES[name])
    for _ in range(8):
        run.steps(1)
        other.by_hand(always=always)
        assert torch.equal(run.point, other.point)
    assert other.passes == (16 if always else run.passes)


@pytest.mark.parametrize("name", CASES)
def test_perturbed_remembers_nothing(name):
    run, clean = Run(CASES[name]), Run(CASES[name])
    for _ in range(6):
        run.closure()
        before = run.point
        with run.opt.perturbed():
            pass
        assert torch.equal(run.point, before)
        run.steps(1)
        clean.steps(1)
    assert torch.equal(run.point, clean.point)


@pytest.mark.parametrize("name", CASES)
def test_a_scaler_changes_nothing_but_the_scale(name):
    """A power of two in front of the loss, and the same steps to the last bit; the mean is of unscaled gradients."""
    results = []
    for enabled in (True, False):
        run = Run(CASES[name], dtype=torch.float32)
        scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=3, enabled=enabled)

        def closure(run=run, scaler=scaler):
            run.opt.zero_grad()
            loss = torch.cat([p.flatten() for p in run.parameters]).pow(4).sum() + 1.0
            scaler.scale(loss).backward()
            return loss

        for _ in range(8):
            run.opt.step(closure, scaler=scaler)
            scaler.update()
        results.append((run.point, run.opt.last_step.to_dict()))
        assert scaler.get_scale() == (2.0**12 if enabled else 1.0)
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]


@pytest.mark.parametrize("name", CASES)
def test_an_overflow_under_a_scaler_lowers_the_scale_once(name):
    run, clean = Run(CASES[name]), Run(CASES[name])
    scaler, finite = GradScaler("cpu", init_scale=64.0), coupled(run.point)
    run.steps(2)

    def closure():
        for p in run.parameters:
            p.grad = torch.full_like(p, float("inf"))
        return scaler.scale(finite) / 64.0

    run.opt.step(closure, scaler=scaler)
    scaler.update()
    assert scaler.get_scale() == 32.0 and run.opt.skipped_steps == 1
    clean.steps(2)
    clean.opt._excursion.progress.advance(finite)
    run.steps(3)
    clean.steps(3)
    assert torch.equal(run.point, clean.point)


@pytest.mark.parametrize("name", CASES)
def test_a_group_added_later_joins_in(name):
    run = Run(CASES[name])
    run.steps(3)
    late = torch.ones(3, dtype=torch.float64, requires_grad=True)
    run.opt.add_param_group({"params": [late], "rho": 0.5})
    run.parameters.append(late)

    def closure():
        run.opt.zero_grad()
        loss = torch.cat([p.flatten() for p in run.parameters]).pow(4).sum()
        loss.backward()
        return loss

    for _ in range(6):
        run.opt.step(closure)
    assert (late < 0.95).all() and torch.isfinite(run.point).all()


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_gradient_in_one_pass_only_returns_every_weight(name, missing):
    run = Run(CASES[name], lr=0.0)
    run.steps(4)
    before, passes = run.point, 0

    def closure():
        nonlocal passes
        passes += 1
        loss = run.closure()
        if passes == missing:
            run.parameters[1].grad = None
        return loss

    for _ in range(2):
        passes = 0
        run.opt.step(closure)
        assert torch.equal(run.point, before) and run.opt.skipped_steps == 0


def test_loading_drops_what_was_proposed():
    run, clean = Run(CASES["vasso"]), Run(CASES["vasso"])
    run.steps(3)
    state, point = copy.deepcopy(run.opt.state_dict()), run.point
    run.closure()
    run.opt.first_step()
    run.opt.load_state_dict(state)
    assert torch.equal(run.point, point)
    run.steps(3)
    clean.steps(6)
    assert torch.equal(run.point, clean.point)


def test_the_state_of_another_variant_is_refused():
    for saved, loading in (("vasso", "friendly"), ("sam", "vasso"), ("asam", "sam")):
        with pytest.raises(ValueError, match="variant"):
            Run(CASES[loading]).opt.load_state_dict(Run(CASES[saved]).opt.state_dict())
