import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlescope.dynamics.maps import GradientMap, SAMMap, UpdateMap
from saddlescope.landscapes import get
from saddlescope.stability.classify import classify
from saddlescope.stability.critical_points import find_critical_points

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "theory.json").read_text())


def usam(lr, rho, momentum=0.0):
    return SAMMap(lr=lr, rho=rho, momentum=momentum, normalized=False)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_verdicts_agree_with_iteration_of_the_map(seed, dimension):
    rng = np.random.default_rng(seed)
    n = 100
    eigenvalues = rng.choice([-1, 1], (n, dimension)) * 10 ** rng.uniform(-1, 1, (n, dimension))
    momentum = rng.uniform(0.01, 0.9, n)
    lr = rng.uniform(0.05, 1.5, n) / np.abs(eigenvalues).max(axis=1)
    rho = rng.uniform(0, 4, n) / np.abs(eigenvalues).min(axis=1)
    numbers = {"lr": lr, "rho": rho, "momentum": momentum}
    batch = usam(1.0, 1.0, 0.5).bound_to({name: torch.tensor(x)[:, None] for name, x in numbers.items()})
    curvature = torch.tensor(eigenvalues)
    state = batch.initial(torch.ones_like(curvature))
    for _ in range(3000):
        state = batch(state, lambda w: curvature * w)
    shrunk = (state[0].abs() < 1e-3).numpy()  # NaN and inf: not
    for i in range(n):
        result = classify(eigenvalues[i], usam(lr[i], rho[i], momentum[i]))
        each = np.abs(result.multipliers.reshape(dimension, 2)).max(axis=1)
        if np.abs(each - 1).min() < 5e-3:
            continue  # 3,000 steps do not tell
        if shrunk[i].all():
            expected = "attractor" if eigenvalues[i].min() > 0 else "trap"
        else:
            expected = "saddle" if shrunk[i].any() else "repeller"
        assert result.verdict == expected


@pytest.mark.parametrize("row", REFERENCE["usam_multi_negative"])
def test_critical_rho_of_the_reference(row):
    result = classify(row["lams"], usam(row["eta"], row["rho"], row["gamma"]))
    assert (result.verdict == "trap") == row["attractor_sim"]
    assert result.critical_rho == 2.0
    assert result.rho_window[0] == 2.0


@pytest.mark.parametrize("row", REFERENCE["eta_trap_check"])
def test_normalized_sam_on_the_saddles_of_the_reference(row):
    update = SAMMap(lr=row["eta"], rho=row["rho"], momentum=row["gamma"])
    result = classify([row["lam_minus"], row["lam_plus"]], update)
    assert result.verdict == ("trap" if row["pred_trap"] else "saddle")
    if (row["landscape"], row["saddle"]) != ("beale", "saddle1"):  # there the escape takes 1e7 steps
        assert (result.verdict == "trap") == (row["escaped"] == 0)
        assert result.learning_rate_limit == pytest.approx(row["eta_trap"], rel=1e-9)
    if result.verdict == "trap":
        assert result.two_cycle_amplitude == pytest.approx(row["amp_pred"], rel=1e-9)
        if row["gamma"] == 0:  # observed on the true landscape
            assert result.two_cycle_amplitude == pytest.approx(row["amp_obs"], rel=4e-3)


@pytest.mark.parametrize(
    "eigenvalues, update, verdict",
    [
        ([1.0, 2.0], GradientMap(lr=0.1), "attractor"),
        ([1.0, 2.0], GradientMap(lr=1.5), "saddle"),
        ([1.5, 2.0], GradientMap(lr=1.5), "repeller"),
        ([-1.0, 2.0], GradientMap(lr=0.1), "saddle"),
        ([-1.0, -2.0], GradientMap(lr=0.1), "repeller"),
        ([1.0], GradientMap(lr=2.0), "marginal"),
        ([1.0], GradientMap(lr=2.0, momentum=0.1), "attractor"),
        ([-1.0, -2.0], usam(0.1, 1.01), "trap"),
        ([-1.0, -2.0], usam(0.1, 0.99), "saddle"),
        ([-1.0, -2.0], usam(0.1, 1.0), "marginal"),
        ([-1.0], usam(0.1, 21.0), "marginal"),
        ([-1.0], usam(0.1, 21.1), "repeller"),
        ([-1.0], usam(1e-13, 1.5), "trap"),
        ([1.0, 0.0], usam(0.1, 0.1), "marginal"),
        ([1.0, 1e-10], GradientMap(lr=0.1), "marginal"),
        ([0.0, 0.0], SAMMap(lr=0.1, rho=0.1), "marginal"),
        ([1.0, 2.0], SAMMap(lr=0.1, rho=0.1), "attractor"),
        ([1.0, 3.0], SAMMap(lr=1.0, rho=0.1), "saddle"),
        ([-1.0, 3.0], SAMMap(lr=1.0, rho=0.1), "repeller"),
        ([-1.0, 2.0], SAMMap(lr=1.0, rho=0.1), "repeller"),
        ([2.0], SAMMap(lr=1.0, rho=0.1), "marginal"),
        ([-1.0], SAMMap(lr=0.99, rho=1e-9), "trap"),
        ([-1.0], SAMMap(lr=1.01, rho=100.0), "repeller"),
        ([-1.0], SAMMap(lr=0.1, rho=0.1, momentum=0.9), "marginal"),
        ([-0.05, -1.0], SAMMap(lr=0.8, rho=0.1), "marginal"),
    ],
)
def test_verdicts(eigenvalues, update, verdict):
    result = classify(eigenvalues, update)
    assert result.verdict == verdict
    assert result.reason
    json.dumps(result.to_dict(), allow_nan=False)


def test_normalized_sam_has_closed_forms_and_no_multipliers():
    result = classify([-2.0, 2.0], SAMMap(lr=0.01, rho=0.5))
    assert result.basis == "closed form, normalized SAM"
    assert result.multipliers.shape == (0,) and result.multipliers.dtype == complex
    assert result.spectral_radius is None
    assert result.critical_rho == 0.0 and result.rho_window == (0.0, math.inf)
    assert result.capture_radius == 0.5
    assert result.two_cycle_amplitude == pytest.approx(0.01 * 0.5 * 2 / (2 - 0.02), rel=1e-14)
    assert result.to_dict()["rho_window"] == [0.0, None]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("eigenvalues", [[-1.0, 2.0], [1.0, 2.0]])
def test_sam_without_radius_is_gradient_descent(momentum, eigenvalues):
    expected = classify(eigenvalues, GradientMap(lr=0.1, momentum=momentum)).to_dict()
    for normalized in (True, False):
        sam = SAMMap(lr=0.1, rho=0.0, momentum=momentum, normalized=normalized)
        assert classify(eigenvalues, sam).to_dict() | {"update": None} == expected | {"update": None}


def test_the_learning_rate_limit_is_where_the_verdict_changes():
    for eigenvalues, rho, momentum in (([-1.0, 2.0], 1.2, 0.3), ([1.0, 3.0], 0.1, 0.0)):
        limit = classify(eigenvalues, usam(1e-3, rho, momentum)).learning_rate_limit
        assert classify(eigenvalues, usam(limit * (1 - 1e-6), rho, momentum)).verdict in ("trap", "attractor")
        assert classify(eigenvalues, usam(limit * (1 + 1e-6), rho, momentum)).verdict == "saddle"
    assert classify([-1.0, 2.0], usam(0.1, 0.9)).learning_rate_limit is None


def test_critical_points_carry_their_degeneracy():
    (monkey,) = find_critical_points(get("monkey_saddle"))
    for update in (GradientMap(lr=0.1), usam(0.1, 1.0), SAMMap(lr=0.1, rho=0.1)):
        assert classify(monkey, update).verdict == "marginal"
    saddle = next(p for p in find_critical_points(get("beale")) if p.kind == "saddle" and abs(p.point[0]) < 1e-6)
    assert classify(saddle, usam(1e-4, 1.01 * 4 / 111)).verdict == "trap"
    assert classify(saddle, usam(1e-4, 0.99 * 4 / 111)).verdict == "saddle"
    assert classify(saddle, usam(1e-4, 0.05)).critical_rho == pytest.approx(4 / 111, rel=1e-8)


def test_other_maps_and_wrong_eigenvalues_are_refused():
    with pytest.raises(ValueError, match="a GradientMap or SAMMap"):
        classify([1.0], UpdateMap())
    with pytest.raises(ValueError, match="eigenvalues: got"):
        classify([math.nan], GradientMap(lr=0.1))
