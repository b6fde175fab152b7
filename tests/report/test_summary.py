import io

from rich.console import Console

from saddlescope.report import summary_table


def test_the_terminal_shows_the_same_verdicts(findings):
    stream = io.StringIO()
    Console(file=stream, width=140).print(summary_table(findings))
    text = stream.getvalue()
    assert "✓ holds" in text
    assert "✗ fails" in text
    assert "ours & <b>bold</b>" in text
