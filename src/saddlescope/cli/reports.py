"""The command that tests the paper's claims."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from saddlescope.cli.app import app, stdout
from saddlescope.cli.options import AsJson


@app.command()
def reproduce(
    scale: Annotated[str, typer.Option(help="quick (minutes on two cores) or full.")] = "quick",
    out: Annotated[Path, typer.Option(help="Folder for index.html, results.json and the figures.")] = Path(
        "reproduction"
    ),
    only: Annotated[str, typer.Option(help="Ids of claims, separated by commas; all by default.")] = "",
    as_json: AsJson = False,
) -> None:
    """Test every claim of the paper and write a report: paper, ours, verdict."""
    from saddlescope.paper import run_claims
    from saddlescope.report import summary_table, write_report

    began = time.perf_counter()
    ids = [name.strip() for name in only.split(",") if name.strip()] or None
    findings = run_claims(ids, scale=scale)
    page = write_report(out, findings)
    if as_json:
        print(json.dumps({finding.claim.id: finding.to_dict() for finding in findings}, allow_nan=False))
        return
    stdout.print(summary_table(findings))
    stdout.print(f"{len(findings)} claims in {time.perf_counter() - began:.0f} s: {page}", soft_wrap=True)
