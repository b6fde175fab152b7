"""Figures as SVG and PNG."""

from __future__ import annotations

import io
import re

from matplotlib import rc_context
from matplotlib.figure import Figure

# With all of them absent matplotlib writes no metadata block: the file depends on the figure alone.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_ID = re.compile(r'(\bid="|\bhref="#|url\(#)')


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as an ``<svg>`` element whose ids all begin with ``name``, so that many fit one page.

    Text is drawn as outlines: it looks the same on every machine.
    """
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", dpi=150, metadata=_NO_METADATA)
    text = buffer.getvalue()
    return _ID.sub(rf"\g<1>{name}-", text[text.index("<svg") :])


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 200 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
