"""What the site makes from the package: reference of the public names, claims, examples with their pictures."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import saddlescope
from saddlescope.paper.claims import CLAIMS

FOLDER = Path(__file__).parent
EXAMPLES = {
    "caught_on_beale": "Caught on Beale's function",
    "when_a_saddle_begins_to_attract": "When a saddle begins to attract",
    "how_long_it_takes_to_get_out": "How long it takes to get out",
    "fix_a_stuck_run": "A stuck training run",
}
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


PICTURES: dict[str, list[str]] = {}
PRINTED: dict[str, str] = {}
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
SAVED = re.compile(r'savefig\("(\w+\.png)"')
BETWEEN = "--- the next block ---"


def on_files(files: Any, *, config: Any) -> Any:
    """Run the examples and the blocks of the tutorial; one that fails ends the build."""
    blocks = BLOCK.findall((FOLDER / "tutorial.md").read_text())
    programs = {name: (FOLDER.parent / "examples" / f"{name}.py").read_text() for name in EXAMPLES}
    for name, program in {**programs, "tutorial": f"print({BETWEEN!r})\n".join(blocks)}.items():
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run(
                [sys.executable, "-c", program],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
            )
            if run.returncode:
                raise RuntimeError(f"{name}: {run.stderr}")
            PRINTED[name] = run.stdout
            PICTURES[name] = sorted(path.name for path in Path(folder).glob("*.png"))
            for picture in PICTURES[name]:
                files.append(
                    File.generated(config, f"pictures/{picture}", content=(Path(folder) / picture).read_bytes())
                )
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in what a page leaves open, such as ``{{ claims }}``, and what the tutorial's blocks print and draw."""
    for name, make in {"reference": reference, "references": references, "claims": claims, "gallery": gallery}.items():
        if f"{{{{ {name} }}}}" in markdown:
            markdown = markdown.replace(f"{{{{ {name} }}}}", make())
    if page.file.src_uri == "tutorial.md":
        printed = iter(PRINTED["tutorial"].split(f"{BETWEEN}\n"))
        markdown = BLOCK.sub(lambda block: block[0] + outcome(block[1], next(printed)), markdown)
    return markdown


def outcome(code: str, printed: str) -> str:
    """Return what a block printed and the pictures it saved."""
    parts = [f"\n```{{ .text .outcome }}\n{printed.strip()}\n```\n"] if printed.strip() else []
    return "".join([*parts, *(f'\n![](pictures/{name}){{ width="520" }}\n' for name in SAVED.findall(code))])


def gallery() -> str:
    """Return a section for each example: what it shows, its pictures, what it prints, its code."""
    parts = []
    for name, heading in EXAMPLES.items():
        code = (FOLDER.parent / "examples" / f"{name}.py").read_text()
        title = ast.get_docstring(ast.parse(code)).splitlines()[0]
        parts.append(f"## {heading}\n\n{title}\n")
        parts += [f'![{title}](pictures/{picture}){{ width="520" }}\n' for picture in PICTURES[name]]
        parts.append(f"```text\n{PRINTED[name].strip()}\n```\n")
        parts.append(f'??? example "examples/{name}.py"\n')
        parts.append("    ```python\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "    ```\n")
    return "\n".join(parts)


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


def references() -> str:
    """Return the entries of ``references.bib`` as a list by author, each with its key as anchor."""
    lines = []
    for key, body in re.findall(
        r"^@\w+\{(\w+),\n(.*?)^\}", (FOLDER / "references.bib").read_text(), re.DOTALL | re.MULTILINE
    ):
        entry = dict(re.findall(r"^ *(\w+) *= *\{(.*)\},$", body, re.MULTILINE))
        names = [name.partition(", ")[0] for name in entry["author"].split(" and ")]
        names = [*names[:3], "others"] if len(names) > 4 else names
        who = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
        where = " ".join(entry[k] for k in ("journal", "booktitle", "volume") if k in entry)
        where += f", {entry['pages'].replace('--', '–')}" if "pages" in entry else ""
        arxiv = f"[arXiv {entry['eprint']}](https://arxiv.org/abs/{entry['eprint']})" if "eprint" in entry else ""
        said = ". ".join(part for part in (where, arxiv) if part)
        lines.append(f'- <a id="{key}"></a>**{who} ({entry["year"]}).** {entry["title"]}. {said}.')
    return "\n".join(sorted(lines, key=lambda line: line.partition("**")[2]))


def claims() -> str:
    """Return the verdicts of the last ``saddlescope reproduce``, whose results are kept beside this file, and why."""
    found = json.loads((FOLDER / "claims.json").read_text())
    table, sections = ["| claim | verdict |", "|---|---|"], []
    for claim in CLAIMS:
        result = found[claim.id]
        table.append(f"| [`{claim.id}` {claim.title}](#{claim.id.lower()}) | **{result['verdict']}** |")
        sections.append(f"### `{claim.id}` {claim.title}: {result['verdict']} {{ #{claim.id.lower()} }}\n")
        sections += [f"**The paper.** {result['paper']}\n", f"**Here.** {result['ours']}\n"]
    return "\n".join([*table, "", *sections])
