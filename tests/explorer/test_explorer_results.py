"""What the page is sent: the public API's numbers, at full precision."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import saddlescope as ss
from saddlescope.explorer.fields import OPTIMIZERS
from saddlescope.explorer.jobs import JOBS
from saddlescope.explorer.packing import pack, unpack
from saddlescope.explorer.snippet import snippet
from saddlescope.explorer.state import ExplorerState

WELL = ExplorerState(landscape="double_well", lr=0.1, rho=0.3, steps=60, starts=((0.02, 1.0), (1.5, -1.0)))


def answer(name, state, report=lambda share: None):
    return json.loads(JOBS[name].answer(state, report))


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i2", "<i1"])
def test_packed_arrays_come_back_bit_for_bit(dtype):
    array = np.arange(-60, 60).reshape(2, 5, 12).astype(dtype)
    back = unpack(json.loads(json.dumps(pack(array, dtype))))
    assert back.dtype == np.dtype(dtype) and np.array_equal(back, array)


@pytest.mark.parametrize(
    "state",
    [
        WELL,
        replace(WELL, optimizer="usam", momentum=0.5),
        replace(WELL, noise=0.3, batch=4, sharing="shared", seed=3),
        replace(WELL, loss="x**2 - y**2 + x*y/3", bounds=(-2.0, 2.0, -1.0, 1.0), lr=0.01),
        replace(WELL, bounds=(-1.0, 2.0, -1.0, 1.0)),
        replace(WELL, optimizer="m-sam", noise=0.2, momentum=0.9),
    ],
)
def test_the_program_of_the_page_computes_the_paths_of_the_page(state):
    shown = answer("trajectories", state)
    lines = [line for line in snippet(state).splitlines() if "map_basins" not in line and "find_critical" not in line]
    scope = {}
    exec("\n".join(lines), scope)
    for key, name in (("gd", "gd"), ("optimizer", "run")):
        assert np.array_equal(unpack(shown[key]["points"]), scope[name].points.numpy()), key
        assert shown[key]["final"] == scope[name].final.tolist()
    assert scope["update"] == state.to_update() and scope["landscape"] == state.to_landscape()


def test_perturbed_points_are_sam_s_and_cosines_are_of_the_two_gradients():
    run, landscape = answer("trajectories", WELL)["optimizer"], WELL.to_landscape()
    w = torch.from_numpy(unpack(run["points"]).copy())
    g = torch.vmap(torch.vmap(landscape.gradient))(w)
    perturbed = w + WELL.rho * g / g.norm(dim=-1, keepdim=True)
    assert np.allclose(unpack(run["perturbed"]), perturbed, rtol=0, atol=1e-14)
    beyond = torch.vmap(torch.vmap(landscape.gradient))(perturbed)
    cosine = (g * beyond).sum(-1) / g.norm(dim=-1) / beyond.norm(dim=-1)
    assert np.allclose(unpack(run["cosine"]), cosine, rtol=0, atol=1e-12)
    assert np.allclose(run["loss"], torch.vmap(landscape.loss)(w[:, -1]), rtol=1e-15)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "gd"])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_step_of_every_variant_leads_along_the_gradient_at_its_perturbed_point(name, momentum):
    state = replace(WELL, optimizer=name, rho=0.2, lr=0.05, momentum=momentum)
    run, landscape, gradient = answer("trajectories", state)["optimizer"], WELL.to_landscape(), torch.func.grad
    w, perturbed = (torch.from_numpy(unpack(run[key]).copy()) for key in ("points", "perturbed"))
    beyond = torch.vmap(torch.vmap(gradient(landscape.loss)))(perturbed)
    here = torch.vmap(torch.vmap(gradient(landscape.loss)))(w)
    velocity = -torch.diff(w, dim=1) / state.lr
    step = velocity - momentum * torch.cat([torch.zeros_like(w[:, :1]), velocity[:, :-1]], dim=1)
    scale = here.norm(dim=-1) / beyond.norm(dim=-1) if name == "stable" else torch.ones(w.shape[:2])
    torch.testing.assert_close(step, (scale[..., None] * beyond)[:, :-1], rtol=0, atol=1e-11)
    cosine = torch.cosine_similarity(here, beyond, dim=-1)
    torch.testing.assert_close(torch.from_numpy(unpack(run["cosine"]).copy()), cosine, rtol=0, atol=1e-11)
    assert name == "scheduled" or float((perturbed - w).norm(dim=-1).max()) > 1e-3


def test_gradient_descent_looks_nowhere_else_and_divergence_is_a_status():
    run = answer("trajectories", WELL)["gd"]
    assert run["perturbed"] is None and run["cosine"] is None
    away = answer("trajectories", replace(WELL, lr=1.0, starts=((1e3, 0.0),)))["gd"]
    assert away["status"] == ["diverged"] and away["loss"] == [None]


def test_gradient_descent_stays_while_the_radius_is_turned():
    first, second = answer("trajectories", WELL), answer("trajectories", replace(WELL, rho=0.7))
    assert first["gd"] == second["gd"] and first["optimizer"] != second["optimizer"]
    assert answer("trajectories", replace(WELL, lr=0.05))["gd"] != first["gd"]


def test_the_picture_is_the_loss_with_rows_along_y():
    shown, landscape = answer("picture", WELL), WELL.to_landscape()
    loss = unpack(shown["loss"])
    x, y = (np.linspace(*side, loss.shape[0]) for side in shown["bounds"])
    for row, column in ((0, 7), (40, 3), (120, 119)):
        exact = float(landscape.loss(torch.tensor([x[column], y[row]])))
        assert loss[row, column] == np.float32(exact)


def test_phases_are_those_of_the_optimizer_s_path():
    shown, landscape, update = answer("phases", WELL), WELL.to_landscape(), WELL.to_update()
    run = ss.simulate(landscape, update, WELL.starts, WELL.steps, record_every=1)
    cases = ss.label_phases(landscape, update, run).cases
    assert np.array_equal(unpack(shown["cases"]), cases) and len(np.unique(cases)) > 1
    assert math.isclose(sum(shown["shares"].values()), 1.0)
    with pytest.raises(ValueError, match="of gradient descent and SAM"):
        answer("phases", replace(WELL, optimizer="asam"))


def test_points_carry_the_verdict_of_the_optimizer():
    found = answer("points", WELL)
    for state, wanted in ((WELL, "trap"), (replace(WELL, optimizer="usam"), "saddle")):
        rows = JOBS["points"].finish(state, found)["points"]
        assert [row["kind"] for row in rows] == ["minimum", "minimum", "saddle"]
        assert rows[2]["verdict"] == wanted and rows[2]["rho_star"] == 1.0 and rows[0]["rho_star"] is None
    rows = JOBS["points"].finish(replace(WELL, optimizer="stable"), found)["points"]
    assert {row["verdict"] for row in rows} == {"unknown"}


def test_basins_are_the_map_and_report_how_far_they_are():
    shares = []
    state = replace(WELL, resolution="64")
    shown = answer("basins", state, shares.append)
    basins = ss.map_basins(state.to_landscape(), state.to_update(), resolution=64, steps=200_000)
    assert np.array_equal(unpack(shown["labels"]), basins.labels)
    assert {row["name"]: row["share"] for row in shown["rows"]} == {
        basins.names()[k]: share.value for k, share in basins.fractions.items() if k >= 0 or share.value
    }
    assert all(0 <= share <= 1 for share in shares)


def test_bifurcations_are_those_of_the_continuation():
    shares = []
    state = replace(WELL, optimizer="usam", rho_from=0.5, rho_to=1.5, values=5)
    shown = answer("bifurcation", state, shares.append)
    (event,) = [e for e in shown["events"] if e["kind"] == "pitchfork"]
    assert math.isclose(event["rho"], 1.0, rel_tol=1e-9) and abs(event["height"]) < 1e-9
    saddle = next(b for b in shown["branches"] if b["kind"] == "saddle")
    assert saddle["rho"] == [0.5, 0.75, 1.0, 1.25, 1.5] and saddle["stable"] == [False, False, False, True, True]
    assert {rho for rho, _ in shown["samples"]} == set(saddle["rho"])
    # Below rho* = 1 every start ends in a minimum; there both signs of x are found, and nothing between.
    assert {round(x, 6) for rho, x in shown["samples"] if rho < 0.8} == {-1.0, 1.0}
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert shown["note"] == ""
    along_y = answer("bifurcation", replace(state, coordinate="y", values=2))
    heights = {
        round(y, 9) for branch in along_y["branches"] if branch["kind"] == "minimum" for y in branch["heights"][0]
    }
    assert heights == {0.0}  # where those along x are -1 and 1


def test_of_a_variant_the_ends_of_runs_are_drawn_and_branches_are_not():
    state = replace(WELL, optimizer="stable", rho_from=0.5, rho_to=0.75, values=2)
    shown = answer("bifurcation", state)
    assert shown["branches"] == shown["events"] == [] and "multipliers" in shown["note"]
    # Stable SAM converges: to a minimum, or from within |x| < rho to the saddle.
    assert {round(x, 6) + 0.0 for rho, x in shown["samples"] if rho == 0.5} == {-1.0, 0.0, 1.0}
    assert {rho for rho, _ in shown["samples"]} == {0.5, 0.75}
    with pytest.raises(ValueError, match="gradient descent has no ρ"):
        answer("bifurcation", replace(state, optimizer="gd"))


def test_escape_times_are_counted_whole_and_meet_the_exact_mean():
    state = ExplorerState(lr=0.01, rho=0.5, replicas=2000, longest=20_000)
    shown = answer("escape", state)
    counts = np.array(shown["density"]) * np.diff(shown["edges"]) * 2000
    assert (
        np.allclose(counts, counts.round(), atol=1e-6) and round(counts.sum()) == 2000 == shown["simulated"]["replicas"]
    )
    assert abs(shown["theory"]["exact"]["steps"] - 448.7) < 0.05
    assert abs(shown["simulated"]["mean"] - 448.7) < 4 * shown["simulated"]["standard_error"]  # 1 in 16,000
    widths = np.diff(shown["edges"])
    tail = math.exp(-shown["edges"][-1] / shown["theory"]["exact"]["steps"])
    assert math.isclose((np.array(shown["exponential"]) * widths).sum(), 1 - tail, rel_tol=1e-12)


def test_escape_without_theory_or_without_escapes_is_still_json():
    kept = answer("escape", ExplorerState(lr=0.01, rho=5.0, replicas=100, longest=100))
    assert kept["simulated"]["censored"] == 100 and sum(kept["density"]) == 0
    assert "paper" not in answer("escape", ExplorerState(sharing="shared", replicas=100, longest=100))["theory"]


SMALL = {"resolution": "64", "values": 2, "rho_from": 0.3, "replicas": 100, "longest": 100}
PATH = {"loss": "x*y", "landscape": "beale", "bounds": (-1.0, 1.0, -1.0, 1.0), "steps": 7, "starts": ((0.1, 0.2),)}
UPDATE = {"optimizer": "usam", "rho": 0.7, "lr": 0.02, "momentum": 0.3, "noise": 0.5, "batch": 7, "sharing": "shared"}
RANGE = {"rho_from": 0.1, "rho_to": 2.0, "values": 3, "coordinate": "y", "resolution": "128", "seed": 9, "show": "all"}
OTHER = ExplorerState(**PATH, **UPDATE, **RANGE, eigenvalue=-2.0, radius=0.3, replicas=150, longest=150)


@pytest.mark.parametrize("name", JOBS)
def test_answers_depend_on_no_other_field(name):
    """What is kept for the next visitor is kept under these fields only."""
    state = replace(WELL, landscape="quadratic_saddle", steps=15, **SMALL)
    others = {field: getattr(OTHER, field) for field in vars(OTHER) if field not in JOBS[name].depends}
    first, second = answer(name, state), answer(name, replace(state, **others))
    for result in (first, second):
        result.pop("seconds", None)
    assert first == second and all(getattr(state, field) != value for field, value in others.items())
