"""The paper as code: one file for each claim, figure or table."""

from saddlescope.paper.claims import run_claims

__all__ = ["run_claims"]
