"""Findings as an HTML page, a JSON document and a terminal table."""

from saddlescope.report.files import write_report
from saddlescope.report.summary import summary_table

__all__ = ["summary_table", "write_report"]
