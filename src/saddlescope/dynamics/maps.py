"""Optimizers as pure maps of a state: gradient descent and Sharpness-Aware Minimization, with heavy ball.

Notation: ``w`` point, ``g(w)`` gradient of the loss, ``lr`` step size (eta), ``rho`` radius, ``momentum``
heavy-ball coefficient (gamma). All maps follow torch's SGD without dampening::

    v <- momentum * v + d;    w <- w - lr * v

and differ in the direction ``d``. A state is a tuple of tensors: the point ``w`` of shape ``(d,)`` first,
then the buffers the map carries (``v`` when there is momentum). Maps are written for one trajectory;
``torch.vmap`` or the compiled engine runs many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from saddlescope._checks import refuse, require_finite

State = tuple[Tensor, ...]
Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class UpdateMap:
    """What every optimizer map has in common: a start state, printable and comparable numbers.

    Numbers can be exchanged for tensors (`bound_to`), so that one compiled step serves every value. A
    number that is exactly zero stays a literal zero: it decides the shape of the step (no momentum, no
    velocity) and so belongs to the map's `structure`.
    """

    passes: ClassVar[tuple[str, ...]] = ("descent",)
    """The role of each gradient the map asks for in one step, in order: "ascent" or "descent"."""

    def initial(self, point: Tensor) -> State:
        """Return the state at rest in ``point``."""
        raise NotImplementedError

    def __call__(self, state: State, gradient: Gradient) -> State:
        """Return the state after one step; ``gradient`` maps a point ``(d,)`` to a gradient ``(d,)``."""
        raise NotImplementedError

    def parameters(self) -> dict[str, float]:
        """Return the numeric fields that are not zero, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if isinstance(v, float) and v != 0.0}

    def structure(self) -> tuple[Any, ...]:
        """Return what decides the form of the step, hashable: the class, its switches, which numbers are zero."""
        numeric = self.parameters()
        return (
            type(self),
            *((f.name, None if f.name in numeric else getattr(self, f.name)) for f in fields(self)),
        )

    def bound_to(self, values: Mapping[str, Tensor]) -> Self:
        """Return a copy with 0-d tensors in place of numbers, for tracing and for differentiating in them."""
        bound = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(bound, name, value)
        return bound

    def _check(self, name: str, **limits: Any) -> None:
        object.__setattr__(self, name, require_finite(name, getattr(self, name), **limits))


@dataclass(frozen=True)
class HeavyBall(UpdateMap):
    """Maps that move along a direction with step ``lr`` and heavy-ball ``momentum``."""

    lr: float
    """Step size, > 0."""

    def _direction(self, point: Tensor, gradient: Gradient) -> Tensor:
        raise NotImplementedError

    def initial(self, point: Tensor) -> State:
        """Return ``(point,)``, or ``(point, 0)`` with momentum."""
        return (point,) if _is_zero(self._momentum()) else (point, torch.zeros_like(point))

    def __call__(self, state: State, gradient: Gradient) -> State:
        """Return the state after ``v <- momentum * v + direction; w <- w - lr * v``."""
        direction = self._direction(state[0], gradient)
        momentum = self._momentum()
        if _is_zero(momentum):
            return (state[0] - self.lr * direction,)
        velocity = momentum * state[1] + direction
        return (state[0] - self.lr * velocity, velocity)

    def _momentum(self) -> float | Tensor:
        return getattr(self, "momentum", 0.0)

    def __post_init__(self) -> None:
        self._check("lr", minimum=0.0, exclusive=True)
        self._check("momentum")
        if not 0.0 <= self._momentum() < 1.0:
            raise refuse("momentum", self._momentum(), "a number in [0, 1)")


@dataclass(frozen=True)
class GradientMap(HeavyBall):
    """Gradient descent with heavy ball: the direction is ``g(w)``.

    >>> step = GradientMap(lr=0.1)
    >>> step(step.initial(torch.tensor([1.0])), lambda w: 2 * w)
    (tensor([0.8000]),)
    """

    momentum: float = 0.0

    def _direction(self, point: Tensor, gradient: Gradient) -> Tensor:
        return gradient(point)


@dataclass(frozen=True)
class SAMMap(HeavyBall):
    """Sharpness-Aware Minimization (Foret et al. 2021, arXiv 2010.01412, eq. 2-3): the direction is ``g(w_p)``.

    ``w_p = w + rho * g(w) / ||g(w)||`` when ``normalized`` (then ``rho`` is a length), else
    ``w_p = w + rho * g(w)`` (then ``rho`` is one over a curvature); the two are not comparable.
    Where ``g(w) = 0`` exactly, ``w_p = w``.

    >>> step = SAMMap(lr=0.1, rho=1.0)
    >>> step(step.initial(torch.tensor([1.0])), lambda w: 2 * w)
    (tensor([0.6000]),)
    """

    rho: float
    """Radius of the perturbation, >= 0."""
    momentum: float = 0.0
    normalized: bool = True

    passes: ClassVar[tuple[str, ...]] = ("ascent", "descent")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("rho", minimum=0.0)

    def perturbed(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Return ``w_p``, where the descent gradient is taken."""
        if not self.normalized:
            return point + self.rho * gradient
        norm = gradient.square().sum().sqrt()
        return point + torch.where(norm == 0, torch.zeros_like(norm), self.rho / norm) * gradient

    def _direction(self, point: Tensor, gradient: Gradient) -> Tensor:
        return gradient(self.perturbed(point, gradient(point)))


def _is_zero(number: float | Tensor) -> bool:
    """Whether a hyperparameter is the literal zero; a tensor never is, so that tracing never branches on one."""
    return not isinstance(number, Tensor) and number == 0.0
