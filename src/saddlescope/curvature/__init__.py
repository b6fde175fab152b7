"""Curvature of a real network, matrix-free: Hessian products and the ends of the spectrum."""

from saddlescope.curvature.hessian import HessianOperator
from saddlescope.curvature.lanczos import Spectrum, extreme_eigenvalues

__all__ = ["HessianOperator", "Spectrum", "extreme_eigenvalues"]
