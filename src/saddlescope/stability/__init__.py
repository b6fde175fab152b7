"""Critical points of a loss and what an optimizer's map does near them."""

from saddlescope.stability.classify import Stability, classify
from saddlescope.stability.critical_points import CriticalPoint, find_critical_points
from saddlescope.stability.multipliers import critical_rho

__all__ = ["CriticalPoint", "Stability", "classify", "critical_rho", "find_critical_points"]
