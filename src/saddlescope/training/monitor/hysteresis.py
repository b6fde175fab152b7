"""A verdict that does not flicker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from saddlescope._checks import require_count


@dataclass(frozen=True, kw_only=True)
class Hysteresis:
    """A verdict that changes only when as many findings in a row agree on another one.

    >>> state = Hysteresis(confirm=2)
    >>> for finding in ("trapped", "free", "trapped", "trapped", "free"):
    ...     state = state.after(finding)
    ...     print(state.verdict, end=" ")
    undetermined undetermined undetermined trapped trapped
    """

    confirm: int = 2
    """Findings in a row that change the verdict, >= 1."""
    verdict: str = "undetermined"
    """What is said."""
    candidate: str = "undetermined"
    """What the latest finding would have it be."""
    count: int = 0
    """Latest findings in a row that agree on the candidate."""

    def __post_init__(self) -> None:
        require_count("confirm", self.confirm, minimum=1)

    def after(self, finding: str) -> Hysteresis:
        """Return the state after one more finding."""
        count = self.count + 1 if finding == self.candidate else 1
        verdict = finding if count >= self.confirm else self.verdict
        return replace(self, verdict=verdict, candidate=finding, count=count)

    @property
    def pending(self) -> bool:
        """Whether the latest finding waits to be confirmed."""
        return self.candidate != self.verdict
