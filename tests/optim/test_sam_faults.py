"""Weights are never lost: whatever fails at whatever moment, and wherever a run is cut and resumed."""

import copy
import io
import os
import pickle
import random
import sys

import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR

from saddlescope.optim import SAM
from saddlescope.optim.variants import (
    ASAM,
    AfterPlateau,
    Every,
    FriendlySAM,
    LookaheadSAM,
    MomentumSAM,
    Phase,
    StableSAM,
    Variant,
    VaSSO,
)

ROUNDS = int(os.environ.get("SADDLESCOPE_FUZZ_ROUNDS", "400"))
FOREACH = ("_foreach_copy_", "_foreach_addcmul_", "_foreach_norm", "_foreach_sub_", "_foreach_lerp", "_foreach_mul_")
VARIANTS = (
    Variant(),
    ASAM(),
    ASAM(eta=0.0, biases=True),
    FriendlySAM(),
    LookaheadSAM(),
    MomentumSAM(),
    StableSAM(),
    VaSSO(),
)
SCHEDULES = (None, None, Every(2), Phase(start=1, stop=2), AfterPlateau(below=0.0))


class Still(Optimizer):
    """A base that counts its steps and makes none, so that weights must be the same bits before and after."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "momentum": 0.9})
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["momentum_buffer"] = p.grad.clone()


class Fault(Exception):
    pass


def bits(parameters):
    return [bytes(p.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()) for p in parameters]


def random_parameter(rng):
    kind = rng.choice(
        ["float", "float", "double", "bfloat16", "half", "complex", "number", "frozen", "empty", "slanted"]
    )
    shape = {"number": (), "empty": (0, 3)}.get(kind, (rng.randint(1, 4), rng.randint(1, 4)))
    dtype = {"double": torch.float64, "bfloat16": torch.bfloat16, "half": torch.float16, "complex": torch.complex64}
    p = torch.randn(shape, dtype=dtype.get(kind, torch.float32)) * 10.0 ** rng.randint(-3, 3)
    p = p.t() if kind == "slanted" else p
    if p.numel() and rng.random() < 0.3:
        p[(0,) * p.dim()] = -0.0
    return p.requires_grad_(kind != "frozen")


class Scene:
    """A random model, random settings, and a fault at a random moment."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        torch.manual_seed(seed)
        self.parameters = [random_parameter(rng) for _ in range(rng.randint(1, 6))]
        self.table = nn.Embedding(4, 2, sparse=True) if rng.random() < 0.3 else None
        if self.table is not None:
            self.parameters.append(self.table.weight)
        cut = rng.randint(0, len(self.parameters))
        groups = [{"params": self.parameters[:cut], "maximize": rng.random() < 0.3}, {"params": self.parameters[cut:]}]
        self.opt = SAM(
            Still([group for group in groups if group["params"]]),
            rho=rng.choice([0.0, 1e-3, 1.0, 1e4]),
            variant=rng.choice(VARIANTS),
            schedule=rng.choice(SCHEDULES),
            normalized=rng.random() < 0.7,
            statistics=rng.random() < 0.7,
            skip_nonfinite=rng.random() < 0.7,
        )
        self.calls = 0
        self.fault = rng.choice(["none", "raise", "interrupt", "inf", "nan", "foreach", "foreach"])
        self.moment = rng.randint(1, 4)

    def closure(self):
        self.calls += 1
        self.opt.zero_grad(set_to_none=self.rng.random() < 0.5)
        used = [p for p in self.parameters if p.requires_grad and self.rng.random() < 0.8]
        for p in used:
            if self.table is not None and p is self.table.weight:
                self.table(torch.tensor([0, 2, 2])).square().sum().backward()
            else:
                p.grad = torch.randn_like(p) * 10.0 ** self.rng.randint(-2, 2)
        if self.calls == self.moment:
            if self.fault == "raise":
                raise Fault
            if self.fault == "interrupt":
                raise KeyboardInterrupt
            dense = [p for p in used if p.grad.layout == torch.strided and p.numel()]
            if self.fault in ("inf", "nan") and dense:
                dense[0].grad[(0,) * dense[0].dim()] = float(self.fault)
        return torch.zeros(())

    def fail_in_foreach(self, patch):
        """Let one foreach call work on half of its lists and then run out of memory."""
        count, failing = [0], self.rng.randint(1, 9)

        def spoiled(original):
            def call(*lists, **options):
                count[0] += 1
                if count[0] != failing:
                    return original(*lists, **options)
                half = [part[: len(part) // 2] if isinstance(part, list) else part for part in lists]
                if half[0]:
                    original(*half, **options)
                raise Fault("out of memory")

            return call

        for name in FOREACH:
            patch.setattr(torch, name, spoiled(getattr(torch, name)))

    def drive(self):
        way = self.rng.choice(["step", "step", "parts", "by hand", "perturbed"])
        if way == "step":
            self.opt.step(self.closure)
        elif way == "parts":
            self.opt.step(micro_batches=[self.closure, self.closure])
        elif way == "perturbed":
            self.closure()
            with self.opt.perturbed():
                self.closure()
        else:
            self.closure()
            self.opt.first_step()
            try:
                self.closure()
            finally:
                self.opt.second_step(loss=torch.zeros(()))


def remembered(opt):
    return {id(p): str(mean.tolist()) for p, mean in opt._excursion._memory._means.items()}  # NaN equals NaN


def play(seed):
    """Return the scene after a few steps with a fault in one of them; every step left the weights alone.

    A variant remembers something of a step exactly when the base has made one.
    """
    scene = Scene(seed)
    for _ in range(3):
        before, memory, steps = bits(scene.parameters), remembered(scene.opt), scene.opt.base.steps
        with pytest.MonkeyPatch.context() as patch:
            if scene.fault == "foreach":
                scene.fail_in_foreach(patch)
            try:
                scene.drive()
            except (Fault, KeyboardInterrupt):
                pass
        assert bits(scene.parameters) == before, f"seed {seed}: {scene.fault}"
        assert not scene.opt._excursion.weights.away
        if scene.opt.base.steps == steps:
            assert remembered(scene.opt) == memory, f"seed {seed}: {scene.fault}"
        elif scene.opt.skip_nonfinite:
            assert all(mean.isfinite().all() for mean in scene.opt._excursion._memory._means.values()), f"seed {seed}"
    return scene


def test_weights_come_back_whatever_fails():
    for seed in range(ROUNDS):
        play(seed)


@pytest.mark.parametrize(
    ("way", "variant"),
    [
        ("step", Variant()),
        ("step", FriendlySAM()),
        ("step", LookaheadSAM()),
        ("by hand", StableSAM()),
        ("perturbed", Variant()),
        ("perturbed", MomentumSAM()),
    ],
)
def test_an_interrupt_at_any_line_loses_nothing(way, variant):
    """Ctrl-C comes between any two lines: here at each one of the package's in turn, until a step gets through."""
    parameters = [torch.randn(3, requires_grad=True), torch.randn(2).bfloat16().requires_grad_()]
    opt = SAM(Still(parameters), rho=1.0, variant=variant)
    layer, x = nn.BatchNorm1d(3), torch.randn(4, 3)
    before, lines = bits(parameters), 0

    def closure():
        layer(x)
        for p in parameters:
            p.grad = torch.ones_like(p)
        return torch.zeros(())

    def drive():
        if way == "step":
            opt.step(closure)
        elif way == "by hand":
            closure()
            opt.first_step()
            opt.second_step()
        else:
            with opt.perturbed():
                closure()

    def trace(frame, event, _argument):
        nonlocal left
        if "saddlescope/optim" not in frame.f_code.co_filename.replace(os.sep, "/"):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    opt.step(closure)
    interrupted = True
    while interrupted:
        lines += 1
        left, outside = lines, sys.gettrace()
        interrupted = False
        sys.settrace(trace)
        try:
            drive()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(outside)
        if opt._excursion.under_way:
            opt.second_step()
        assert bits(parameters) == before, f"line {lines}"
        assert layer.track_running_stats and not module_hooks._global_forward_pre_hooks, f"line {lines}"
    assert lines > 50


def small(base=Adam, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    opt = SAM(base(model.parameters(), lr=0.05, **options), rho=0.3)
    return model, opt


def passing(model, opt, x):
    opt.zero_grad()
    model(x).square().mean().backward()


def saved_and_loaded(*states):
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize(("base", "options"), [(SGD, {"momentum": 0.9}), (Adam, {}), (AdamW, {"fused": True})])
def test_a_run_cut_between_the_passes_resumes_bit_for_bit(base, options, optimizer_first):
    data = torch.randn(8, 16, 4, generator=torch.Generator().manual_seed(1))
    model, opt = small(base, **options)
    for x in data[:3]:
        passing(model, opt, x)
        opt.first_step()
        with opt.second_pass():
            passing(model, opt, x)
        opt.second_step()
    passing(model, opt, data[3])
    opt.first_step(zero_grad=True)
    weights, state = saved_and_loaded(model.state_dict(), opt.state_dict())
    random_state = torch.get_rng_state()

    def finish(model, opt):
        torch.set_rng_state(random_state)
        with opt.second_pass():
            passing(model, opt, data[3])
        opt.second_step()
        for x in data[4:]:
            passing(model, opt, x)
            opt.first_step()
            with opt.second_pass():
                passing(model, opt, x)
            opt.second_step()
        return bits(model.state_dict().values()), opt.last_step.to_dict()

    expected = finish(model, opt)
    other, resumed = small(base, **options)
    torch.rand(5)  # the random state of the first pass comes from the file
    for load in (lambda: resumed.load_state_dict(state), lambda: other.load_state_dict(weights))[
        :: 1 if optimizer_first else -1
    ]:
        load()
    assert finish(other, resumed) == expected


def test_loading_returns_weights_that_are_away():
    model, opt = small(SGD)
    x, state, before = torch.randn(16, 4), copy.deepcopy(opt.state_dict()), bits(model.parameters())
    passing(model, opt, x)
    opt.first_step()
    assert bits(model.parameters()) != before
    opt.load_state_dict(state)
    assert bits(model.parameters()) == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@pytest.mark.parametrize("between_the_passes", [True, False])
def test_copies_go_their_own_way(duplicate, between_the_passes):
    model, opt = small(SGD, momentum=0.9)
    StepLR(opt, step_size=1)  # wraps opt.step
    x = torch.randn(16, 4)
    opt.step(lambda: passing(model, opt, x))
    if between_the_passes:
        passing(model, opt, x)
        opt.first_step()
    other, twin = duplicate((model, opt))
    assert between_the_passes or not twin._excursion.weights.copies  # no memory is copied that is not in use
    untouched = bits(other.parameters())
    random_state = torch.get_rng_state()
    for m, o in ((model, opt), (other, twin)):
        torch.set_rng_state(random_state)
        if not between_the_passes:
            passing(m, o, x)
            o.first_step()
        with o.second_pass():
            passing(m, o, x)
        o.second_step()
        if m is model:
            assert bits(other.parameters()) == untouched
    assert bits(model.parameters()) == bits(other.parameters()) != untouched
    assert not set(map(id, model.parameters())) & {id(p) for g in twin.param_groups for p in g["params"]}


def test_a_first_step_that_fails_halfway_is_undone():
    model, opt = small(SGD)
    before = bits(model.parameters())
    passing(model, opt, torch.randn(16, 4))
    original = torch._foreach_addcmul_

    def half(*lists):
        original(*(part[:2] for part in lists))
        raise Fault

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Fault):
        patch.setattr(torch, "_foreach_addcmul_", half)
        opt.first_step()
    assert bits(model.parameters()) == before
    opt.first_step()
    assert bits(model.parameters()) != before


def test_the_error_is_told_and_the_optimizer_goes_on():
    model, opt = small(SGD)
    x, before = torch.randn(16, 4), bits(model.parameters())

    def closure():
        passing(model, opt, x)
        return torch.zeros(())

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):

        def full(*_lists):
            raise RuntimeError("out of memory")

        patch.setattr(torch, "_foreach_addcmul_", full)
        opt.step(closure)
    assert bits(model.parameters()) == before
    opt.step(closure)
    assert bits(model.parameters()) != before
