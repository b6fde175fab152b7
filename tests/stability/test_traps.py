import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saddlescope.dynamics.maps import SAMMap
from saddlescope.stability.traps import (
    capture_radius,
    cycle_window,
    learning_rate_limit,
    trap_margins,
    two_cycle_amplitude,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "theory.json").read_text())


def escaped(eigenvalues, *, lr, momentum=0.0, starts=6, steps=4000, seed=0, near_cycle_along=None):
    """How many of some starts leave a critical point: normalized SAM with rho = 1, written again.

    They start near the point, or near the two-cycle along one of the axes.
    """
    w = np.random.default_rng(seed).normal(size=(starts, len(eigenvalues))) * 0.02
    v, h = np.zeros_like(w), np.asarray(eigenvalues)
    if near_cycle_along is not None:
        w[:, near_cycle_along] = two_cycle_amplitude(h[near_cycle_along], lr=lr, rho=1.0, momentum=momentum)
        w *= 1 + 1e-6 * np.arange(starts)[:, None]
        v[:, near_cycle_along] = -2 * w[:, near_cycle_along] / lr
        w[:, np.arange(len(h)) != near_cycle_along] *= 1e-3
    gone = np.zeros(starts, bool)
    for _ in range(steps):
        g = h * w
        v = momentum * v + h * (w + g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300))
        w = w - lr * v
        gone |= np.abs(w).max(axis=1) > 30
        w[gone], v[gone] = 0.0, 0.0
    return int(gone.sum())


@pytest.mark.parametrize("row", REFERENCE["nsam_1d"])
def test_the_two_cycle_is_a_cycle_of_the_map(row):
    lam, lr, rho, momentum = float(row["lam"]), row["eta"], row["rho"], float(row["gamma"])
    amplitude = two_cycle_amplitude(lam, lr=lr, rho=rho, momentum=momentum)
    assert amplitude == pytest.approx(row["two_cycle_amp"], rel=1e-14)

    update = SAMMap(lr=lr, rho=rho, momentum=momentum)
    point = torch.tensor([amplitude], dtype=torch.float64)
    state = (point, -2 * point / lr) if momentum else (point,)  # it comes from -A
    for sign in (-1, 1, -1, 1):
        state = update(state, lambda w: lam * w)
        assert state[0].item() == pytest.approx(sign * amplitude, abs=1e-12 * amplitude)


def test_there_is_no_two_cycle_beyond_the_stability_limit():
    assert two_cycle_amplitude(2.0, lr=1.0, rho=0.1) is None
    assert two_cycle_amplitude(2.0, lr=1.0, rho=0.1, momentum=0.5) == pytest.approx(0.2)


@pytest.mark.parametrize("row", REFERENCE["nsam_1d_trap_loss"])
def test_one_dimensional_trap_is_lost_above_one_minus_momentum(row):
    held = trap_margins([-1.0], lr=row["eta_abs_lam"], momentum=row["gamma"])[0] > 0
    assert held == (row["ratio_to_threshold"] < 1)
    if row["ratio_to_threshold"] != 1.03:  # so close above the threshold the escape can outlast the run
        assert held == (row["escaped"] == 0)


@pytest.mark.parametrize("row", REFERENCE["nsam_2d_window"])
def test_window_of_the_two_cycle(row):
    lower, upper = cycle_window(row["lam1"], lr=row["eta"], momentum=row["gamma"])
    assert (lower, upper) == pytest.approx((row["lo"], row["hi"]), rel=1e-14)
    held = (trap_margins([row["lam2"], row["lam1"]], lr=row["eta"], momentum=row["gamma"]) > 0).all()
    assert held == row["pred_cycle_stable"] == (row["escaped_from_cycle"] == 0)


def test_the_window_is_that_of_the_linearized_map_on_the_cycle():
    # On the cycle |Hw| is fixed, so direction j is a heavy ball with s_j = lr lam_j (1 + rho lam_j / |Hw|).
    lr, rho, momentum, top = 0.3, 0.7, 0.4, 2.0
    radius = rho / (top * two_cycle_amplitude(top, lr=lr, rho=rho, momentum=momentum))
    for edge, s in zip(cycle_window(top, lr=lr, momentum=momentum), (0.0, 2 * (1 + momentum)), strict=True):
        assert -lr * edge * (1 - radius * edge) == pytest.approx(s, abs=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_random_saddles_and_maxima_hold_exactly_where_the_margins_say(momentum):
    rng = np.random.default_rng(3)
    held, let_go, undecided = 0, 0, 0
    for case in range(120):
        eigenvalues = rng.choice([-1, -1, 1], 3) * 10 ** rng.uniform(-0.7, 0.7, 3)
        if eigenvalues.min() > 0:
            continue
        lr = (1 - momentum) / np.abs(eigenvalues).max() * rng.uniform(0.15, 1.6)
        margins = trap_margins(eigenvalues, lr=lr, momentum=momentum)
        if np.isnan(margins).any() or np.abs(margins).min() < 0.1:
            undecided += 1
        elif (margins > 0).all():
            held += 1
            # Beyond the limit of the negative directions alone only the cycle along the positive one holds them.
            cycle = int(eigenvalues.argmax()) if lr * max(-eigenvalues) > 1 - momentum else None
            gone = escaped(eigenvalues, lr=lr, momentum=momentum, seed=case, near_cycle_along=cycle)
            assert gone == 0, (eigenvalues, lr)
        else:
            let_go += 1
            assert escaped(eigenvalues, lr=lr, momentum=momentum, seed=case) > 0, (eigenvalues, lr)
    assert held > 20 and let_go > 20 and undecided < 60


@pytest.mark.parametrize(
    "eigenvalues", [[-1.0], [-1.0, 1.0], [-0.3, -1.0, 4.0], [-1.0, -3.0], [-0.5, -3.0, 1.0], [1.0, 5.0]]
)
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_learning_rate_limit_is_where_the_margins_change_sign(eigenvalues, momentum):
    limit = learning_rate_limit(eigenvalues, momentum=momentum)
    for factor in (0.01, 0.5, 1 - 1e-9):
        assert (trap_margins(eigenvalues, lr=limit * factor, momentum=momentum) > 0).all()
    assert not (trap_margins(eigenvalues, lr=limit * (1 + 1e-9), momentum=momentum) > 0).all()


def test_capture_ball_is_forward_invariant_and_sharp_on_the_unstable_axis():
    eigenvalues, rho, lr = torch.tensor([-1.0, -0.5, 3.0], dtype=torch.float64), 0.4, 1e-3
    radius = capture_radius(eigenvalues, rho=rho)
    assert radius == pytest.approx(rho * 0.5 / 3)
    update = SAMMap(lr=lr, rho=rho)
    start = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = 0.999 * radius * start / start.norm(dim=1, keepdim=True)
    step = torch.vmap(lambda w: update((w,), lambda w: eigenvalues * w)[0])
    reach = torch.zeros(200, dtype=torch.float64)
    for _ in range(4000):
        points = step(points)
        reach = torch.maximum(reach, (eigenvalues * points).norm(dim=1))
    assert reach.max() < rho * 0.5
    assert (points.norm(dim=1) < 0.02 * radius).all()  # reached the centre, but for cycles of the size of lr

    assert capture_radius([-3.0], rho=rho) == pytest.approx(rho, rel=1e-15)
    for factor, captured in ((0.999, True), (1.001, False)):
        state = (torch.tensor([factor * rho], dtype=torch.float64),)
        for _ in range(4000):
            state = update(state, lambda w: -3.0 * w)
        assert (state[0].abs().item() < 0.01 * rho) == captured


def test_no_capture_set_without_negative_eigenvalues():
    assert capture_radius([1.0, 2.0], rho=0.1) is None


def test_wrong_steps_are_refused():
    for question in (
        lambda: two_cycle_amplitude(1.0, lr=0.0, rho=1.0),
        lambda: trap_margins([1.0], lr=-1.0),
        lambda: learning_rate_limit([1.0, -1.0], momentum=1.0),
    ):
        with pytest.raises(ValueError, match="got"):
            question()
