import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from saddlescope.report import files, write_report

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects what a reader's browser would meet, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.unnamed, self.headings, self.open = [], [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        for name in ("src", "srcset", "data") if tag != "image" else ():
            self.loads += [values[name]] if name in values else []
        if tag in ("link", "script", "iframe", "object"):
            self.loads.append(tag)
        if (tag == "img" and not values.get("alt")) or (tag == "figure" and not values.get("aria-label")):
            self.unnamed.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def folder(tmp_path, findings):
    assert write_report(tmp_path, findings) == tmp_path / "index.html"
    return tmp_path


def test_the_page_is_self_contained_and_well_formed(folder):
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert page.loads == []
    assert [link for link in page.links if link.startswith("http")] == ["https://arxiv.org/abs/2301.06308"]
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert len(page.ids) == len(set(page.ids))
    assert page.unnamed == []
    assert page.headings[:2] == ["h1", "h2"]


def test_the_page_shows_every_finding_as_text(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.count("<svg") == 4
    assert "ours & <b>bold</b>" in page.text
    assert "<i>x</i>" in page.text
    assert "η = 1e-4, from −0.5" in page.text
    assert "w<sub>p</sub> &lt; 1" in text
    assert page.text.count("✓ holds") == 3  # count, table, heading
    assert page.text.count("✗ fails") == 3


def test_references_inside_a_figure_stay_inside_it(folder):
    svg = ElementTree.parse(folder / "figures/fig-x-2.svg").getroot()
    ids = {element.get("id") for element in svg.iter()} - {None}
    assert ids
    assert all(name.startswith("fig-x-2-") for name in ids)
    uses = [e.get("{http://www.w3.org/1999/xlink}href") for e in svg.iter("{http://www.w3.org/2000/svg}use")]
    assert uses
    assert all(use[1:] in ids for use in uses)


def test_figures_and_results_lie_beside_the_page(folder):
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {f"{stem}.{kind}" for stem in ("T1", "T1-2", "fig-x", "fig-x-2") for kind in ("svg", "png")}
    assert (folder / "figures/T1.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"T1", "fig-x"}
    assert all(set(result) == {"paper", "ours", "verdict", "evidence"} for result in results.values())
    assert [result["verdict"] for result in results.values()] == ["holds", "fails"]


def test_a_run_that_dies_leaves_the_page_before(folder, findings, monkeypatch):
    before = (folder / "index.html").read_bytes()

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "render_page", die)
    with pytest.raises(KeyboardInterrupt):
        write_report(folder, findings[:1])
    assert (folder / "index.html").read_bytes() == before


def test_a_write_that_dies_leaves_no_partial_file(folder, findings, monkeypatch):
    def die(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(OSError, match="disk full"):
        write_report(folder, findings)
    assert not list(folder.rglob(".*"))
