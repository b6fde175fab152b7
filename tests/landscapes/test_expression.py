"""The expression parser: Python's own arithmetic as twin, hostile text, fuzzing."""

import inspect
import math
import pickle
import random
import string
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saddlescope.landscapes import from_expression, get
from saddlescope.landscapes.expression import MAX_DEPTH, MAX_EXPONENT, MAX_LENGTH, Expression

SQUARE = [(-4, 4), (-4, 4)]
POINT = torch.tensor([0.7, -1.3], dtype=torch.float64)


def function(name):
    """The function on floats and real tensors; a complex argument is a TypeError."""
    on_floats = math.fabs if name == "abs" else getattr(math, name)

    def apply(a):
        if isinstance(a, torch.Tensor) and not a.is_complex():
            return getattr(torch, name)(a)
        return on_floats(a)

    return apply


FUNCTIONS = {name: function(name) for name in ("sqrt", "exp", "log", "sin", "cos", "tan", "tanh", "abs")}
NAMES = {"x": POINT[0], "y": POINT[1], "pi": math.pi, "e": math.e, **FUNCTIONS, "__builtins__": {}}


def python_value(text):
    """What Python makes of the text, or None where a constant part of it is not a finite real number."""
    try:
        value = eval(text, dict(NAMES))
    except (ArithmeticError, ValueError, TypeError):
        return None
    if isinstance(value, torch.Tensor):
        return None if value.is_complex() else value
    return None if isinstance(value, complex) or not math.isfinite(value) else torch.tensor(value, dtype=torch.float64)


formulas = st.recursive(
    st.sampled_from(["x", "y", "pi", "e", "2.0", "3.", ".5", "1.25", "1e-3"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", " - ", "*", "/", "**", " ** -"]), inner).map("".join),
        st.tuples(st.sampled_from("+-"), inner).map("".join),
        st.tuples(st.sampled_from(["", *FUNCTIONS]), inner).map(lambda parts: f"{parts[0]}({parts[1]})"),
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(formulas)
def test_agrees_with_python(text):
    expected = python_value(text)
    if expected is None:
        with pytest.raises(ValueError, match="expression, column"):
            Expression(text, ("x", "y"))
        return
    try:
        actual = Expression(text, ("x", "y"))(POINT)
    except ValueError as error:
        assume("an exponent of at most" not in str(error))
        raise
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-300, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-2**2", -4.0),
        ("2**3**2", 512.0),
        ("2**-1", 0.5),
        ("7 - 2 - 1", 4.0),
        ("8/4/2", 1.0),
        ("+-+3", -3.0),
        ("  1\n + 2 ", 3.0),
        ("0x10 + 1_000", 1016.0),
        ("log(e) + cos(pi)", 0.0),
        ("sqrt(x**2 + y**2)", 5.0),
        ("x*(y - 1)/2", 4.5),
        ("2**x", 8.0),
        ("x**y", 81.0),
        ("abs(-x)", 3.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_worked_by_hand(text, expected, dtype):
    loss = from_expression(text, SQUARE).loss(torch.tensor([3.0, 4.0], dtype=dtype))
    assert loss.dtype == dtype and loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 1e-15, abs=1e-15)


def test_beale_written_as_text():
    beale = from_expression("(1.5 - x + x*y)**2 + (2.25 - x + x*y**2)**2 + (2.625 - x + x*y**3)**2", SQUARE)
    w = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.vmap(beale.gradient)(w), torch.vmap(get("beale").gradient)(w), rtol=0, atol=0)


def test_variables_name_the_coordinates_in_order():
    loss = from_expression("w3 - 10*w1", [(0, 1)] * 3, variables=["w1", "w2", "w3"]).loss
    assert loss(torch.tensor([1.0, 2.0, 3.0])).item() == -7.0


def test_the_landscape_carries_its_text():
    landscape = from_expression("x**2", [(-1, 2)], variables=("x",))
    assert (landscape.name, landscape.source, landscape.bounds) == ("x**2", "x**2", ((-1.0, 2.0),))
    assert repr(landscape.loss) == "Expression(text='x**2', variables=('x',))"
    assert from_expression("x**2", [(-1, 2)], variables=("x",), name="bowl").name == "bowl"


def test_equal_text_gives_equal_landscapes():
    first, second = from_expression("x*y", SQUARE), from_expression("x*y", SQUARE)
    assert first == second and hash(first) == hash(second) and pickle.loads(pickle.dumps(first)) == first
    assert first.loss != from_expression("x*y", SQUARE, variables=("y", "x")).loss


def test_a_constant_is_flat():
    flat = from_expression("2 + 1", SQUARE)
    assert torch.equal(torch.vmap(flat.gradient)(torch.ones(3, 2)), torch.zeros(3, 2))
    assert torch.equal(flat.hessian(POINT), torch.zeros(2, 2, dtype=torch.float64))


def test_the_deepest_accepted_formula_can_be_differentiated():
    landscape = from_expression("x" + "+x" * MAX_DEPTH, SQUARE)
    assert landscape.gradient(POINT).tolist() == [MAX_DEPTH + 1.0, 0.0]
    with pytest.raises(ValueError, match="at most 200 nested operations"):
        from_expression("x" + "+x" * (MAX_DEPTH + 1), SQUARE)


def test_little_stack_left_is_a_refusal_too():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        with pytest.raises(ValueError, match="at most 200 nested operations"):
            from_expression("x" + "+x" * MAX_DEPTH, SQUARE)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("x^2", 2, "use [*][*] for powers"),
        ("y = x", 3, "without an equals sign"),
        ("sqrt(x, y)", 7, "exactly one argument"),
        ("x + z", 5, "got 'z', expected one of x, y, pi, e, sqrt"),
        ("2x", 1, "write products with [*]"),
        ("x y", 3, "write products with [*]"),
        ("1 + (x", 5, "close every bracket"),
        ("x)", 2, "close every bracket"),
        ("x +", None, "got .*, expected a formula"),
        ("sqrt)(x", 5, "expected a formula"),
        ("1or 2", 1, "expected numbers"),
        ("0777", None, "expected a formula"),
        ("x // y", 1, "got 'x // y', expected numbers"),
        ("x % y", 3, "got '%'"),
        ("x @ y", 3, "got '@'"),
        ("x if y else 1", 1, "expected numbers"),
        ("not x", 1, "expected numbers"),
        ("x and y", 1, "expected numbers"),
        ("x < y", 3, "got '<'"),
        ("x is y", 1, "expected numbers"),
        ("lambda: x", 7, "got ':'"),
        ("(x := 2)", 4, "got ':'"),
        ("x.real", 1, "got 'x.real'"),
        ("1 .real", 1, "got '1 .real'"),
        ("x.__class__.__bases__", 1, "expected numbers"),
        ("__import__('os').system('true')", 12, 'got "\'"'),
        ("__import__(x)", 1, "expected numbers"),
        ("__builtins__", 1, "got '__builtins__', expected one of"),
        ("eval(x)", 1, "expected numbers"),
        ("sin", 1, "got 'sin', expected one of"),
        ("sin(x)(y)", 1, "expected numbers"),
        ("(sin)(x)(y)", 1, "expected numbers"),
        ("x(y)", 1, "expected numbers"),
        ("e(y)", 1, "expected numbers"),
        ("sqrt()", 1, "expected numbers"),
        ("sqrt(*x)", 6, "got '[*]x'"),
        ("sqrt(**x)", 1, "expected numbers"),
        ("(x for x in y)", 1, "expected numbers"),
        ("[x]", 1, "got '\\['"),
        ("{x}", 1, "got '{'"),
        ("f'{x}'", 2, 'got "\'"'),
        ("'x'", 1, 'got "\'"'),
        ("()", 1, "got '[(][)]'"),
        ("...", 1, "got '...', expected numbers"),
        ("await x", 1, "expected"),
        ("yield x", 1, "expected a formula"),
        ("None", 1, "got 'None', expected numbers"),
        ("True", 1, "got 'True', expected numbers"),
        ("3j", 1, "got '3j', expected numbers"),
        ("x # y", 3, "got '#'"),
        ("x; y", 2, "got ';'"),
        ("x\\\n", 2, "expected numbers"),
        ("\0", 1, "expected numbers"),
        ("x\u00b2", 2, "got '\u00b2'"),
        ("\uff58", 1, "got '\uff58'"),
        ("10**10**10", 1, "got '10[*][*]10[*][*]10', expected a constant that is a finite real number"),
        ("x*9**9**9**9", 6, "finite real number"),
        ("9" * 1900, 1, "finite real number"),
        ("1e999", 1, "finite real number"),
        ("1/0", 1, "finite real number"),
        ("x/(1 - 1)**-1", 3, "finite real number"),
        ("log(0)", 1, "finite real number"),
        ("(-8)**0.5", 1, "finite real number"),
        ("exp(1000)", 1, "finite real number"),
        ("x**10**9", 1, f"an exponent of at most {MAX_EXPONENT:g} in size"),
        ("x**-1001", 1, f"an exponent of at most {MAX_EXPONENT:g} in size"),
        ("-" * 1900 + "x", None, "at most 200 nested operations"),
        ("(" * 900 + "x" + ")" * 900, None, "expected"),
        ("sqrt(" * 150 + "x", None, "close every bracket"),
        ("x**" * 600 + "x", None, "at most 200 nested operations"),
        ("not " * 490 + "x", None, "expected"),
        ("", None, "got '', expected a formula such as"),
        (" \n", None, "expected a formula such as"),
        (3, None, "got 3, expected a formula such as"),
        (b"x", None, "expected a formula such as"),
        ("x" * (MAX_LENGTH + 1), None, "got '2001 characters', expected at most 2000"),
        ("(" * 100_000, None, "got '100000 characters', expected at most 2000"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_refused_with_one_line_that_says_where(text, column, message, recwarn):
    with pytest.raises(ValueError, match=message) as caught:
        from_expression(text, SQUARE)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 320 and not recwarn
    if column is not None:
        assert line.startswith(f"expression, column {column}: got ")


@pytest.mark.parametrize(
    "variables",
    [(), ("x", "x"), ("sin",), ("pi",), ("e",), ("1x",), ("x y",), ("",), ("x.y",), ("\u00e9",), ("lambda",), (3,)],
)
def test_variables_are_distinct_free_names(variables):
    with pytest.raises(ValueError, match="^variables: got "):
        from_expression("1", [(-1, 1)] * len(variables), variables)


def test_bounds_are_one_pair_for_each_variable():
    with pytest.raises(ValueError, match="bounds: got .*, expected 2 pairs"):
        from_expression("x", [(-1, 1)])


ALPHABETS = [
    string.printable,
    "xy0123456789.+-*/()e ",
    "()-+~*[]{}:,=\"'\\#@!\0\n\u00b2\u2212\uff58\U0001f600 xylambdifoeur19.j_",
]
WORDS = [
    "x",
    "y",
    "2",
    "1e9",
    "sin(",
    "log(",
    "(",
    ")",
    "+",
    "-",
    "*",
    "**",
    "/",
    ".",
    "x.y",
    " if ",
    " else ",
    "lambda ",
    "not ",
    "1j",
    "e",
    "pi",
]


def random_text(rng):
    """Noise, a shuffle of words, or a sound formula with a few characters replaced, dropped or doubled."""
    kind = rng.randrange(3)
    if kind == 0:
        return "".join(rng.choices(rng.choice(ALPHABETS), k=rng.randrange(40)))
    if kind == 1:
        return "".join(rng.choices(WORDS, k=rng.randrange(12)))
    text = list("(1.5 - x + x*y)**2 + sqrt(abs(x))*exp(-y**2/2) - tanh(2**x)")
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text))
        text[at : at + 1] = rng.choice(["", text[at] * 2, rng.choice(rng.choice(ALPHABETS))])
    return "".join(text)


def test_20000_random_texts_parse_or_are_refused():
    rng, parsed = random.Random(0), 0
    for _ in range(20_000):
        text = random_text(rng)
        try:
            loss = from_expression(text, SQUARE).loss
        except ValueError as error:
            assert "\n" not in str(error), text
        else:
            parsed += 1
            assert loss(POINT).shape == (), text
    assert 1_000 < parsed < 19_000
