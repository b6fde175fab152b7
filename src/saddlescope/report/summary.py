"""The verdicts as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from saddlescope.findings import Finding, Verdict
from saddlescope.report.page import SYMBOLS

STYLES = {Verdict.HOLDS: "green", Verdict.CONDITION: "yellow", Verdict.FAILS: "red"}


def summary_table(findings: Sequence[Finding]) -> Table:
    """Return one row a claim: id, what the paper says, what we find, verdict.

    >>> summary_table([]).row_count
    0
    """
    table = Table(title="The paper's claims", show_lines=True)
    table.add_column("claim", no_wrap=True)
    table.add_column("paper", ratio=3)
    table.add_column("ours", ratio=4)
    table.add_column("verdict", ratio=1, min_width=9)
    for finding in findings:
        verdict = finding.verdict
        cells = (finding.claim.id, finding.claim.statement, finding.evidence.ours)
        badge = Text(f"{SYMBOLS[verdict]} {verdict.value}", style=STYLES[verdict])
        table.add_row(*(Text(cell) for cell in cells), badge)
    return table
