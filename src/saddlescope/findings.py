"""A claim of the paper, the evidence found for or against it, and the verdict that follows.

The verdict is never written down, it is computed from `Check`s, each of which compares numbers::

    an essential check failed      -> fails
    only conditions failed         -> holds with a condition
    every check passed             -> holds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Cell = float | int | str | bool | None
Scale = str
"""How much to compute: "quick" (minutes on two cores) or "full"."""


class Verdict(StrEnum):
    """What is left of a claim after it was tested."""

    HOLDS = "holds"
    CONDITION = "holds with a condition"
    FAILS = "fails"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of numbers on which a verdict rests."""

    statement: str
    """What would have to be true, as a sentence."""
    passed: bool
    measured: str
    """The numbers that decided, as text."""
    essential: bool = True
    """Whether the claim falls with this check; otherwise a failure only limits it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers to print: one row a case."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Illustration:
    """A drawn figure with the words that belong to it."""

    axes: Axes = field(repr=False, compare=False)
    caption: str
    alt: str
    """What the figure shows, for those who cannot see it."""

    @property
    def figure(self) -> Figure:
        """The figure that holds the axes."""
        figure = self.axes.figure
        assert isinstance(figure, Figure)
        return figure


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was run and what came out."""

    setting: str
    """Loss, optimizer, step sizes, steps: enough to repeat it."""
    ours: str
    """The result in one or two sentences, with its numbers."""
    checks: tuple[Check, ...]
    numbers: Mapping[str, Any]
    """Headline numbers by name, JSON-ready."""
    tables: tuple[Table, ...] = ()
    illustrations: tuple[Illustration, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return setting, checks, numbers and tables as JSON-ready data, without the figures."""
        return {
            "setting": self.setting,
            "numbers": dict(self.numbers),
            "checks": [asdict(check) for check in self.checks],
            "tables": [asdict(table) for table in self.tables],
        }


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper and the function that tests it."""

    id: str
    title: str
    statement: str
    """What the paper says, in our words."""
    source: str
    """Where it says so."""
    run: Callable[[Scale], Evidence] = field(repr=False)


@dataclass(frozen=True)
class Finding:
    """A claim with its evidence.

    >>> claim = Claim(id="X", title="", statement="2 < 3", source="", run=lambda scale: evidence)
    >>> check = Check(statement="2 < 3", passed=2 < 3, measured="2 and 3")
    >>> evidence = Evidence(setting="", ours="2 < 3", checks=(check,), numbers={})
    >>> Finding(claim, claim.run("quick")).verdict.value
    'holds'
    """

    claim: Claim
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        """The verdict that follows from the checks."""
        failed = [check for check in self.evidence.checks if not check.passed]
        if any(check.essential for check in failed):
            return Verdict.FAILS
        return Verdict.CONDITION if failed else Verdict.HOLDS

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"paper", "ours", "verdict", "evidence"}`` as JSON-ready data."""
        return {
            "paper": self.claim.statement,
            "ours": self.evidence.ours,
            "verdict": self.verdict.value,
            "evidence": self.evidence.to_dict(),
        }
