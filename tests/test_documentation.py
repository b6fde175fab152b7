"""The documentation says what is so: its code runs, its names exist."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import saddlescope
from saddlescope.paper.claims import CLAIMS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_by_itself(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # other tests run beside it
    try:
        exec(compile(block, "documentation", "exec"), {"__name__": "documentation"})
    finally:
        torch.set_num_threads(threads)


def test_the_tests_that_the_theory_names_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "theory.md").read_text()))
    sources = [file.read_text() for file in (ROOT / "tests").rglob("test_*.py")]
    written = {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert len(named) > 20 and named <= written


def test_the_table_of_claims_has_every_claim():
    found = json.loads((ROOT / "docs" / "claims.json").read_text())
    assert {claim.id: claim.statement for claim in CLAIMS} == {name: result["paper"] for name, result in found.items()}


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; pip install 'saddlescope[docs]'")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "site" / "api.html").read_text()
    missing = [name for name in saddlescope.__all__ if f'id="saddlescope.{name}' not in reference]
    assert missing == ["__version__"]
    tutorial = (tmp_path / "site" / "tutorial.html").read_text()
    saved = re.findall(r'savefig\("(.*?)"', (ROOT / "docs" / "tutorial.md").read_text())
    assert len(saved) == 4 and all(f'src="pictures/{name}"' in tutorial for name in saved)
    assert "pitchfork at rho = 1.0000" in tutorial  # what a block prints
    assert not re.search(r'(?:\bsrc|<link\b[^>]*\bhref)="https?://', reference), "a page loads something from elsewhere"
