"""The summary of a monitored training: whole, self-contained, escaped."""

from html.parser import HTMLParser

import pytest

from saddlescope.report.monitor_page import monitor_page
from saddlescope.training.monitor.log import COLUMNS, collect

BUDGET = {"share": 0.1, "training_seconds": 50.0, "spent_seconds": 2.0, "products": 36, "waits": 1}
CHECK = {
    "type": "check",
    "step": 8,
    "reason": "plateau",
    "curvature": -0.2,
    "curvature_error": 0.01,
    "rho": 1.0,
    "trap_number": 1.8,
    "trap_number_error": 0.1,
    "critical_rho": 0.55,
    "critical_rho_error": None,
    "products": 12,
    "finding": "trapped",
    "verdict": "trapped",
    "budget": BUDGET,
}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page():
    records = [
        {"type": "signals", "step": 10, **{name: [2.3] * 10 for name in COLUMNS}},
        CHECK,
        {"type": "verdict", "step": 8, "verdict": "trapped", "before": "free", "because": "tau < rho & <b>so</b>"},
        {"type": "error", "step": 9, "error": "<script>alert(1)</script>"},
    ]
    return monitor_page(collect({}, records))


def test_the_page_says_what_was_seen(page):
    reader = Reader()
    reader.feed(page._repr_html_())
    assert reader.open == []
    assert reader.tags.count("svg") == 2 and "script" not in reader.tags
    for expected in ("trapped", "tau < rho & <b>so</b>", "−0.2 ± 0.01", "1.8 ± 0.1", "0.55", "plateau", "4.0% of the"):
        assert expected in reader.text
    assert "http" not in page.html.replace("http://www.w3.org/", "")  # nothing is loaded


def test_the_file_is_a_whole_document(page, tmp_path):
    text = page.write(tmp_path / "page.html").read_text()
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>") and page.html in text
