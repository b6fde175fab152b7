"""Pages of the site that are made from the package: the reference of its public names, and the table of claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import saddlescope
from saddlescope.paper.claims import CLAIMS

FOLDER = Path(__file__).parent
SUBJECTS = {
    "landscapes": "Landscapes",
    "dynamics": "Maps and trajectories",
    "stability": "Stability",
    "diffusion": "Diffusion and escape",
    "curvature": "Curvature of a network",
    "optim": "The optimizer",
    "training": "Training, monitor, advice",
    "sweeps": "Sweeps",
}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in what a page leaves open with ``{{ reference }}`` or ``{{ claims }}``."""
    if page.file.src_uri == "api.md":
        return markdown.replace("{{ reference }}", reference())
    if page.file.src_uri == "claims.md":
        return markdown.replace("{{ claims }}", claims())
    return markdown


def reference() -> str:
    """Return a section for each subject with every public name of it; a name of no subject is an error."""
    by_subject: dict[str, list[str]] = {subject: [] for subject in SUBJECTS}
    for name in saddlescope.__all__:
        thing = getattr(saddlescope, name)
        if name != "__version__":
            module = thing.__name__ if name == "landscapes" else thing.__module__
            by_subject[module.split(".")[1]].append(name)
    lines = []
    for subject, names in by_subject.items():
        lines.append(f"## {SUBJECTS[subject]}\n")
        for name in sorted(names, key=str.lower):
            if name == "landscapes":
                members = ("get", "names", "from_expression", "quadratic")
                lines += [f"::: saddlescope.landscapes.{m}\n    options: {{heading_level: 3}}\n" for m in members]
            else:
                lines.append(f"::: saddlescope.{name}\n    options: {{heading_level: 3}}\n")
    return "\n".join(lines)


def claims() -> str:
    """Return the table of the last ``saddlescope reproduce``, whose results are kept beside this file."""
    found = json.loads((FOLDER / "claims.json").read_text())
    lines = ["| claim | paper | ours | verdict |", "|---|---|---|---|"]
    for claim in CLAIMS:
        result = found[claim.id]
        cells = (f"`{claim.id}` {claim.title}", result["paper"], result["ours"], f"**{result['verdict']}**")
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)
