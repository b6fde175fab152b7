"""Losses in few variables with known critical points: named ones, and any that can be written as a formula.

>>> get("rosenbrock", dimension=3).critical_points
((1.0, 1.0, 1.0),)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from saddlescope._checks import refuse, require_choice
from saddlescope.landscapes.analytic import (
    ackley,
    beale,
    double_well,
    monkey_saddle,
    quadratic,
    quadratic_saddle,
    rosenbrock,
)
from saddlescope.landscapes.expression import from_expression
from saddlescope.landscapes.landscape import Landscape
from saddlescope.landscapes.networks import deep_linear, matrix_factorization, one_neuron

__all__ = ["Landscape", "from_expression", "get", "names", "quadratic"]

_FACTORIES: dict[str, Callable[..., Landscape]] = {
    "quadratic": quadratic,
    "quadratic_saddle": quadratic_saddle,
    "beale": beale,
    "double_well": double_well,
    "rosenbrock": rosenbrock,
    "monkey_saddle": monkey_saddle,
    "ackley": ackley,
    "deep_linear": deep_linear,
    "one_neuron": one_neuron,
    "matrix_factorization": matrix_factorization,
}


def names() -> tuple[str, ...]:
    """Return the names that `get` knows.

    >>> "beale" in names()
    True
    """
    return tuple(_FACTORIES)


def get(name: str, **parameters: Any) -> Landscape:
    """Return the landscape of that name; every parameter has a default.

    Equal arguments give equal landscapes, with equal hashes.

    Args:
        name: one of `names`.
        **parameters: ``eigenvalues`` of quadratic, ``dimension`` of rosenbrock and ackley, ``depth`` of
            deep_linear, ``data`` or ``seed`` of one_neuron.

    Raises:
        ValueError: for an unknown name, a parameter the landscape does not have, or a value it refuses.

    >>> get("quadratic", eigenvalues=[2.0, -1.0]).dimension
    2
    >>> get("beale", depth=3)
    Traceback (most recent call last):
    ...
    ValueError: parameters of beale: got ['depth'], expected none
    """
    factory = _FACTORIES[require_choice("landscape", name, names())]
    accepted = inspect.signature(factory).parameters
    if not parameters.keys() <= accepted.keys():
        raise refuse(f"parameters of {name}", sorted(parameters), ", ".join(accepted) or "none")
    return factory(**parameters)
