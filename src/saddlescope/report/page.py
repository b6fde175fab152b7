"""One self-contained HTML page of findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

from saddlescope.findings import Cell, Finding, Verdict
from saddlescope.provenance import Provenance

SYMBOLS = {Verdict.HOLDS: "✓", Verdict.CONDITION: "◐", Verdict.FAILS: "✗"}


def render_page(findings: Sequence[Finding], svgs: Mapping[str, Sequence[str]], provenance: Provenance) -> str:
    """Return the page: verdict table, one section a claim, provenance.

    Args:
        findings: in the order of the page.
        svgs: for each claim id its figures as ``<svg>`` elements, in the order of ``evidence.illustrations``.
        provenance: where the numbers come from.

    Raises:
        ModuleNotFoundError: without Jinja2, which the extra ``train`` installs.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup, escape
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the report needs Jinja2; install it with: pip install 'saddlescope[train]'"
        ) from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = format_cell
    environment.filters["prose"] = lambda text: Markup(_typeset(str(escape(text))))
    source = files("saddlescope.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        findings=findings,
        svgs=svgs,
        provenance=provenance.to_dict(),
        symbols=SYMBOLS,
        counts=Counter(finding.verdict for finding in findings),
        verdicts=tuple(Verdict),
    )


def format_cell(value: Cell | Sequence[Cell]) -> str:
    """Return a table cell as text.

    >>> format_cell(0.302697), format_cell(-27.75), format_cell(87683), format_cell(True), format_cell(None)
    ('0.3027', '−27.75', '87,683', 'yes', '–')
    """
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case int():
            text = f"{value:,}"
        case float():
            text = f"{value:.4g}"
        case _:
            return ", ".join(format_cell(item) for item in value)
    return text.replace("-", "−")


def _typeset(text: str) -> str:
    """Set the subscript of ``w_p`` and the minus sign of numbers; an exponent keeps its hyphen."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text.replace("w_p", "w<sub>p</sub>"))
