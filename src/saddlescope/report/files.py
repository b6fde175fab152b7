"""The report on disk: index.html, results.json and the figures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from saddlescope.findings import Finding
from saddlescope.provenance import provenance
from saddlescope.report.figures import to_png, to_svg
from saddlescope.report.page import render_page


def write_report(out: str | Path, findings: Sequence[Finding]) -> Path:
    """Write ``index.html``, ``results.json`` and ``figures/ID.svg``, ``.png`` into ``out``; return the page's path.

    Second and later figures of a claim are named ``ID-2``, ``ID-3``. Every file appears whole or not at
    all, the page last: a killed run leaves the page of the run before.
    """
    folder = Path(out)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    svgs: dict[str, list[str]] = {}
    for finding in findings:
        svgs[finding.claim.id] = []
        for number, illustration in enumerate(finding.evidence.illustrations, start=1):
            name = finding.claim.id if number == 1 else f"{finding.claim.id}-{number}"
            svg = to_svg(illustration.figure, name)
            svgs[finding.claim.id].append(svg)
            _write(folder / "figures" / f"{name}.svg", f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'.encode())
            _write(folder / "figures" / f"{name}.png", to_png(illustration.figure))
    results = {finding.claim.id: finding.to_dict() for finding in findings}
    _write(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False).encode())
    page = folder / "index.html"
    _write(page, render_page(findings, svgs, provenance()).encode())
    return page


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
