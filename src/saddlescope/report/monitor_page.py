"""What a monitor saw, as one HTML page: for a notebook's cell, or a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.axes import Axes

from saddlescope.plots.monitor import VERDICT_COLOURS, plot_monitored_loss, plot_trap_numbers
from saddlescope.report.figures import to_svg
from saddlescope.report.page import format_cell
from saddlescope.training.monitor.live_view import spent
from saddlescope.training.monitor.log import MonitorLog

_STYLE = """
.ssm { font: 15px/1.45 system-ui, sans-serif; max-width: 64rem; color: #222; background: #fff; padding: .5rem }
.ssm h2 { font-size: 1.15rem; margin: 0 0 .4rem } .ssm .badge { border-radius: .3rem; padding: .1rem .5rem }
.ssm figure { display: inline-block; margin: 0 1rem 0 0; max-width: 30rem } .ssm svg { width: 100%; height: auto }
.ssm .scroll { overflow-x: auto } .ssm table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.ssm th, .ssm td { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid #ddd }
"""


@dataclass(frozen=True)
class MonitorPage:
    """A summary without scripts or widgets; a notebook shows it when a cell ends with it."""

    html: str
    """A ``<section>`` that stands by itself."""

    def _repr_html_(self) -> str:
        return self.html

    def write(self, path: str | Path) -> Path:
        """Write a whole document and return its path."""
        head = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Stability of a training</title></head>'
        )
        target = Path(path)
        target.write_text(f"{head}<body>{self.html}</body></html>\n", encoding="utf-8")
        return target


def monitor_page(log: MonitorLog) -> MonitorPage:
    """Return verdict, figures, changes of the verdict, checks, errors and costs of a monitored training.

    >>> from saddlescope.training.monitor.log import collect
    >>> page = monitor_page(collect({"settings": {}}, [{"type": "error", "step": 7, "error": "out of memory"}]))
    >>> "out of memory" in page.html
    True
    """
    steps = len(log.signals["step"])
    verdict = log.verdict
    figures = [
        _figure("loss", plot_monitored_loss(log), f"Batch loss over {steps:,} steps, under the verdict at the time."),
        _figure("trap", plot_trap_numbers(log), "Trap number at each check, with two standard errors."),
    ]
    checks = [
        (
            c["step"],
            c["reason"],
            _estimate(c["curvature"], c["curvature_error"]),
            c["rho"],
            _estimate(c["trap_number"], c["trap_number_error"]),
            _estimate(c["critical_rho"], c["critical_rho_error"]),
            c["products"],
            c["finding"],
            c["verdict"],
        )
        for c in log.checks
    ]
    names = ("step", "why", "curvature", "radius", "trap number", "radius that traps", "products", "finding", "verdict")
    parts = [
        f"<style>{_STYLE}</style>",
        f'<h2>Stability: <span class="badge" style="background:{VERDICT_COLOURS[verdict]}66">{verdict}</span></h2>',
        *(f"<p>{escape(v['because'])}</p>" for v in log.verdicts[-1:]),
        *figures,
        _table(("step", "verdict", "because"), [(v["step"], v["verdict"], v["because"]) for v in log.verdicts]),
        _table(names, checks),
        _table(("step", "error"), [(e["step"], e["error"]) for e in log.errors]),
        f"<p>Spent: {spent(log.budget)}.</p>" if log.budget else "",
    ]
    return MonitorPage(f'<section class="ssm">{"".join(parts)}</section>')


def _figure(name: str, axes: Axes, caption: str) -> str:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return f"<figure>{to_svg(figure, f'monitor-{name}')}<figcaption>{escape(caption)}</figcaption></figure>"


def _estimate(value: float | None, error: float | None) -> str:
    return format_cell(value) if value is None or error is None else f"{format_cell(value)} ± {error:.2g}"


def _table(names: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(format_cell(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
