import pytest
from command_line import document, run

from saddlescope.store import Store

GRID = """
[base]
steps = 2
momentum = [0.0, 0.5]
"""


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    return tmp_path


def test_a_sweep_is_kept_and_continued(grid):
    options = ("sweep", str(grid / "grid.toml"), "--store", f"sqlite:///{grid / 'x.db'}", "--workers", "1")
    first = document(*options, "--export", str(grid / "x.csv"))
    assert (first["cells"], first["computed"], first["failed"]) == (2, 2, 0)
    assert len((grid / "x.csv").read_text().splitlines()) == 3
    refused = run(*options)
    assert refused.exit_code == 2 and "use --resume to keep them" in refused.stderr
    again = document(*options, "--resume")
    assert (again["computed"], again["reused"]) == (0, 2) and again["runs"] == first["runs"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[base]\nleraning_rate = 1", "got 'leraning_rate'"),
        ("version = 99", "update it"),
        ("[base]\nrho = nan\noptimizer = 'sam'", "rho: got nan"),
        ("[base]\nlr = []", "at least one value"),
        ("[base]\nseed = {from = 0, to = 999999, count = 1000000}", "1,000,000 cells"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(grid, text, message):
    (grid / "grid.toml").write_text(text)
    result = run("sweep", str(grid / "grid.toml"), "--store", f"sqlite:///{grid / 'x.db'}")
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert [entry.name for entry in grid.iterdir()] == ["grid.toml"]


def test_a_store_that_cannot_be_opened_is_one_line(grid):
    result = run("sweep", str(grid / "grid.toml"), "--store", f"sqlite:///{grid / 'no' / 'x.db'}")
    assert result.exit_code == 1 and "its folder exists" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_sweep_in_a_log_is_a_line_a_run_and_a_table_of_means_over_the_seeds(grid):
    (grid / "grid.toml").write_text("[base]\nsteps = 2\nmomentum = [0.0, 0.5]\nseed = [0, 1, 2]")
    result = run("sweep", str(grid / "grid.toml"), "--store", f"sqlite:///{grid / 'x.db'}", "--workers", "1")
    lines = result.stderr.splitlines()
    assert result.exit_code == 0 and len(lines) == 6
    assert lines[0].startswith("1 of 6 cells, 0 failed") and " s left" in lines[0] and " left" not in lines[5]
    assert "6 of 6 cells, 6 computed, 0 reused" in result.stdout
    assert result.stdout.count("±") == 4


@pytest.mark.parametrize("name", ["x.txt", "no/x.csv"])
def test_an_export_that_could_not_be_written_is_refused_before_any_work(grid, name):
    options = ("--store", f"sqlite:///{grid / 'x.db'}", "--export", str(grid / name))
    result = run("sweep", str(grid / "grid.toml"), *options)
    assert result.exit_code == 2 and "in a folder that exists" in result.stderr
    assert [entry.name for entry in grid.iterdir()] == ["grid.toml"]


def test_failed_runs_are_told_and_not_stored(grid, tmp_path, monkeypatch):
    monkeypatch.setenv("SADDLESCOPE_DATA", "")  # --data sets it, and this undoes it
    (grid / "grid.toml").write_text("[base]\nsteps = 1\ntask = 'cifar10-mlp'\nseed = [0, 1]")
    options = ("--store", f"sqlite:///{grid / 'x.db'}", "--data", str(tmp_path), "--workers", "1")
    result = run("sweep", str(grid / "grid.toml"), *options)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("saddlescope")]
    assert result.exit_code == 1 and line.startswith("saddlescope: 2 runs failed: FileNotFoundError: data: found no")
    assert line.endswith("seed=0 and others)")
    with Store(f"sqlite:///{grid / 'x.db'}") as store:
        assert not store.keys()
