import sys

import pytest

from saddlescope.provenance import provenance
from saddlescope.report.page import format_cell, render_page


@pytest.mark.parametrize(("value", "text"), [(5.2e-7, "5.2e−07"), ([1.5, -2], "1.5, −2"), (12345.6, "1.235e+04")])
def test_cells(value, text):
    assert format_cell(value) == text


def test_without_jinja2_the_message_says_what_to_install(monkeypatch, findings):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"saddlescope\[train\]"):
        render_page(findings, {}, provenance())
