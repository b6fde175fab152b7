"""Losses from text: a formula of named variables, read through a closed list of syntax and never executed."""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saddlescope._checks import refuse
from saddlescope.landscapes.landscape import Landscape

MAX_LENGTH = 2000
"""Longest text, in characters."""
MAX_DEPTH = 200
"""Deepest nesting of operations; a sum of n terms nests n - 1 deep."""
MAX_EXPONENT = 1000.0
"""Largest constant exponent in size: beyond it nearly every base over- or underflows float64."""

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[Tensor], Tensor]]] = {
    "sqrt": (math.sqrt, torch.sqrt),
    "exp": (math.exp, torch.exp),
    "log": (math.log, torch.log),
    "sin": (math.sin, torch.sin),
    "cos": (math.cos, torch.cos),
    "tan": (math.tan, torch.tan),
    "tanh": (math.tanh, torch.tanh),
    "abs": (math.fabs, torch.abs),
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_SYNTAX = f"numbers, variables, pi, e, + - * / **, brackets and the one-argument functions {' '.join(_FUNCTIONS)}"
_SHALLOW = f"at most {MAX_DEPTH} nested operations"
_ADVICE = {
    "^": "use ** for powers",
    ",": "each function takes exactly one argument",
    "=": "give the loss alone, without an equals sign",
}

Point = tuple[Tensor, ...]
Term = float | Callable[[Point], Tensor]


@dataclass(frozen=True)
class Expression:
    """A loss given by a formula; prints, compares and pickles by its text.

    Raises:
        ValueError: for text that is not a formula of ``variables``; it says where and what to write instead.

    >>> Expression("x**2 - a*x", ("x", "a"))(torch.tensor([3.0, 2.0]))
    tensor(3.)
    """

    text: str
    variables: tuple[str, ...]
    _term: Term = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_variables(self.variables)
        object.__setattr__(self, "_term", _Reader(self.text, self.variables).term())

    def __call__(self, w: Tensor) -> Tensor:
        """Return the loss, shape ``()``, at ``w`` of shape ``(d,)``, d the number of variables."""
        term = self._term
        return term(w.unbind()) if callable(term) else w.new_full((), term)

    def __reduce__(self) -> tuple[type[Expression], tuple[str, tuple[str, ...]]]:
        return Expression, (self.text, self.variables)


def from_expression(
    text: str,
    bounds: Sequence[tuple[float, float]],
    variables: Sequence[str] = ("x", "y"),
    name: str | None = None,
) -> Landscape:
    """Return the landscape of a formula, with Python's precedence: ``-x**2`` is ``-(x**2)``.

    The text may hold numbers, the variables, ``pi``, ``e``, ``+ - * / **``, brackets and ``sqrt exp log sin
    cos tan tanh abs``. It is never executed: anything else is refused, in bounded time. Equal arguments
    give equal landscapes, with equal hashes.

    Args:
        text: the formula, at most 2,000 characters.
        bounds: one ``(low, high)`` pair for each variable.
        variables: the names of the coordinates, in order.
        name: of the landscape; the text by default.

    Raises:
        ValueError: for text that is not such a formula (one line that says where and what to write instead),
            for variables that are not distinct free names, or bounds that are not one pair for each.

    >>> saddle = from_expression("x**2 - y**2", bounds=[(-4, 4), (-4, 4)])
    >>> saddle.loss(torch.tensor([3.0, 1.0])).item()
    8.0
    >>> from_expression("x^2 - y^2", bounds=[(-4, 4), (-4, 4)])
    Traceback (most recent call last):
    ...
    ValueError: expression, column 2: got '^', expected numbers, ...; use ** for powers
    """
    loss = Expression(text, tuple(variables))
    return Landscape(
        name=text if name is None else name,
        loss=loss,
        dimension=len(loss.variables),
        bounds=tuple(bounds),
        source=text,
    )


class _Reader:
    """Reads one text; holds it so that every refusal can point into it."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        if not isinstance(text, str) or not text.strip():
            raise refuse("expression", text, "a formula such as 'x**2 - y**2'")
        if len(text) > MAX_LENGTH:
            raise refuse("expression", f"{len(text)} characters", f"at most {MAX_LENGTH}")
        self.text = re.sub(r"\s", " ", text.strip())  # a line break is no end, and columns stay
        self.variables = variables

    def term(self) -> Term:
        # Strings, brackets other than (), comments and non-ASCII names end here, before Python's parser.
        if strange := re.search(r"[^\w +\-*/().]", self.text, re.ASCII):
            raise self.refusal(strange.start(), strange.end(), _SYNTAX, _ADVICE.get(strange.group(), ""))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of "1or 2", which is refused below
                body = ast.parse(self.text, mode="eval").body
            return self.read(body, 0)
        except SyntaxError as error:
            start = (error.offset or 1) - 1
            do = "write products with *, close every bracket"
            raise self.refusal(start, start + 20, "a formula", do) from None
        except (RecursionError, MemoryError):
            raise self.refusal(0, len(self.text), _SHALLOW) from None

    def read(self, node: ast.expr, depth: int) -> Term:
        if depth > MAX_DEPTH:
            raise self.refusal_of(node, _SHALLOW)
        match node:
            case ast.Constant(value) if type(value) in (int, float):
                return self.constant(node, float, value)
            case ast.Name(name) if name in self.variables:
                return operator.itemgetter(self.variables.index(name))
            case ast.Name(name) if name in _CONSTANTS:
                return _CONSTANTS[name]
            case ast.Name():
                known = ", ".join((*self.variables, *_CONSTANTS, *(f"{name}()" for name in _FUNCTIONS)))
                raise self.refusal_of(node, f"one of {known}")
            case ast.UnaryOp(op, operand) if type(op) in _SIGNS:
                sign = _SIGNS[type(op)]
                return self.unary(node, sign, sign, self.read(operand, depth + 1))
            case ast.Call(ast.Name(name), [argument], []) if name in _FUNCTIONS:
                return self.unary(node, *_FUNCTIONS[name], self.read(argument, depth + 1))
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                operands = self.read(left, depth + 1), self.read(right, depth + 1)
                return self.binary(node, _OPERATORS[type(op)], *operands)
        raise self.refusal_of(node, _SYNTAX)

    def unary(self, node: ast.expr, exact: Callable, function: Callable, a: Term) -> Term:
        if not callable(a):
            return self.constant(node, exact, a)
        return lambda point: function(a(point))

    def binary(self, node: ast.expr, function: Callable, a: Term, b: Term) -> Term:
        if callable(a) and callable(b):
            return lambda point: function(a(point), b(point))
        if callable(b):
            return lambda point: function(a, b(point))
        if not callable(a):
            return self.constant(node, function, a, b)
        if function is operator.pow and abs(b) > MAX_EXPONENT:
            raise self.refusal_of(node, f"an exponent of at most {MAX_EXPONENT:g} in size")
        return lambda point: function(a(point), b)

    def constant(self, node: ast.expr, function: Callable, *arguments: Any) -> float:
        try:
            value = function(*arguments)
        except (ArithmeticError, ValueError):
            value = math.nan
        if isinstance(value, complex) or not math.isfinite(value):
            raise self.refusal_of(node, "a constant that is a finite real number")
        return value

    def refusal_of(self, node: ast.expr, expected: str) -> ValueError:
        return self.refusal(node.col_offset, node.end_col_offset or len(self.text), expected)

    def refusal(self, start: int, end: int, expected: str, do: str = "") -> ValueError:
        excerpt = self.text[start : min(end, start + 40)] or "the end"
        return refuse(f"expression, column {start + 1}", excerpt, expected, do)


def _check_variables(variables: tuple[str, ...]) -> None:
    taken = {*_FUNCTIONS, *_CONSTANTS, *keyword.kwlist}
    for name in variables:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in taken:
            expected = f"a plain name such as 'x' or 'w1', not a keyword nor {', '.join((*_CONSTANTS, *_FUNCTIONS))}"
            raise refuse("variables", name, expected)
    if not variables or len(set(variables)) < len(variables):
        raise refuse("variables", variables, "at least one name, each once")
