"""The command line as its users and the programs that rely on its JSON see it."""

import json
import subprocess
import sys

import pytest
from command_line import document, run

from saddlescope import __version__
from saddlescope.training.data.datasets import digits


def test_points_of_a_formula():
    points = document("points", "--loss", "x**4/4 - x**2/2 + y**2 + x*y/2", "--bounds", "-2,2,-2,2")["points"]
    assert [p["kind"] for p in points] == ["minimum", "minimum", "saddle"]
    # By hand: y = -x/4, x^2 = 1 + 1/8; Hessian at the origin [[-1, 1/2], [1/2, 2]].
    assert points[0]["point"] == pytest.approx([-(1.125**0.5), 1.125**0.5 / 4], abs=1e-12)
    expected = [(1 - 10**0.5) / 2, (1 + 10**0.5) / 2]
    assert points[2]["eigenvalues"] == pytest.approx(expected, rel=1e-12)
    assert points[2]["rho_star"] == pytest.approx(-1 / expected[0], rel=1e-12)
    assert points[0]["rho_star"] is None
    assert set(points[0]) >= {"point", "loss", "eigenvalues", "index", "kind", "rho_star"}


@pytest.mark.parametrize(("rho", "verdict", "radius"), [(0.49, "saddle", 1.004), (0.51, "trap", 0.996)])
def test_classify_switches_at_one_over_the_negative_curvature(rho, verdict, radius):
    """On x^2 - y^2 with lr = .1: the multiplier 1 + 2 lr (1 - 2 rho) of y crosses 1 at rho = 1/2."""
    where = ("--loss", "x**2 - y**2", "--bounds", "-4,4,-4,4", "--at", "0,0")
    answer = document("classify", *where, "--unnormalized", "--rho", str(rho), "--lr", "0.1")
    assert answer["verdict"] == verdict
    assert answer["rho_star"] == 0.5
    assert max(z[0] for z in answer["multipliers"]) == pytest.approx(radius, rel=1e-12)
    assert set(answer) >= {"rho_window", "spectral_radius", "basis", "reason"}


def test_classify_takes_a_rounded_position():
    answer = document("classify", "--landscape", "beale", "--at", "0.1,-2.64", "--unnormalized")
    assert answer["point"] == pytest.approx([0.1005379373241584, -2.644513585023125], abs=1e-12)


def test_simulate_is_the_recursion():
    options = ("--start=2,1", "--steps", "10", "--optimizer", "gd", "--lr", "0.1")
    answer = document("simulate", "--loss", "x**2/2 - y**2/2", "--bounds", "-4,4,-4,4", *options)
    assert answer == {"final": pytest.approx([2 * 0.9**10, 1.1**10], rel=1e-13), "status": "completed", "steps": 10}


def test_a_diverged_run_is_an_answer_not_an_error():
    steep = ("simulate", "--landscape", "beale", "--start", "4,4", "--steps", "100", "--lr", "1")
    assert document(*steep)["status"] == "diverged"
    assert "--lr is too large" in " ".join(run(*steep).stdout.split())


def test_tables_name_what_was_found():
    assert "saddle" in run("points", "--landscape", "quadratic_saddle").stdout
    assert "trap" in run("classify", "--landscape", "quadratic_saddle", "--at", "0,0").stdout
    assert (
        "completed" in run("simulate", "--landscape", "beale", "--start", "1,2", "--steps", "3", "--lr", "1e-4").stdout
    )


def test_train_reports_a_record():
    answer = document("train", "--steps", "3", "--rho", "0.1", "--radius-cap")
    assert len(answer["losses"]) == 3
    assert answer["config"]["radius_cap"] is not None


def test_reproduce_writes_what_was_asked_for(tmp_path):
    answer = document("reproduce", "--only", "fig-saddle", "--out", str(tmp_path))
    assert set(answer["fig-saddle"]) == {"paper", "ours", "verdict", "evidence"}
    assert json.loads((tmp_path / "results.json").read_text()) == answer
    assert (tmp_path / "index.html").read_text().startswith("<!")
    assert (tmp_path / "figures" / "fig-saddle.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("points",), "landscape"),
        (("points", "--landscape", "beal"), "beale"),
        (("points", "--landscape", "beale", "--loss", "x"), "either"),
        (("points", "--loss", "x**2"), "bounds"),
        (("points", "--loss", "x**2", "--bounds", "1,2,3"), "bounds"),
        (("points", "--loss", "x**2", "--bounds", "2,1"), "low < high"),
        (("points", "--loss", "__import__('os')", "--bounds", "-1,1"), "column"),
        (("simulate", "--landscape", "beale", "--start", "1", "--steps", "1"), "2 numbers"),
        (("simulate", "--landscape", "beale", "--start", "1,2", "--steps", "many"), "steps"),
        (("simulate", "--landscape", "beale", "--start", "1,2", "--steps", "1", "--lr", "nan"), "lr"),
        (("simulate", "--landscape", "beale", "--start", "1,2", "--steps", "1", "--optimizer", "adam"), "gd, sam"),
        (("classify", "--landscape", "beale", "--at", "1,1"), "saddlescope points"),
        (("reproduce", "--only", "T9"), "T1"),
        (("reproduce", "--scale", "huge"), "quick"),
        (("train", "--task", "mnist"), "digits-mlp"),
        (("classify", "--landscape", "beale"), "--at"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_use_is_one_line_and_status_two(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_version_and_entry_point():
    assert run("--version").stdout == f"saddlescope {__version__}\n"
    command = [sys.executable, "-c", "from saddlescope.cli import main; main()", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"saddlescope {__version__}\n"


def test_a_missing_extra_is_named_in_one_line(monkeypatch):
    digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # an import of it fails, as where it is not installed
    result = run("train", "--task", "digits-mlp", "--steps", "1")
    assert result.exit_code == 2
    assert "pip install 'saddlescope[train]'" in result.stderr and result.stderr.count("\n") == 1


def test_a_broken_module_is_not_a_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "saddlescope.report", None)
    assert isinstance(run("reproduce", "--only", "T1").exception, ModuleNotFoundError)
