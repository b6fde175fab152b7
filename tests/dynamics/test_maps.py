"""Maps against the textbook recursion in plain Python."""

import dataclasses
import math

import pytest
import torch

from saddlescope.dynamics import GradientMap, SAMMap

START = [0.7, -1.3, 0.4]
EIGENVALUES = [2.0, -0.5, 0.3]


def gradient(w):
    """Of a quartic perturbation of a quadratic, so that nothing is linear."""
    return torch.tensor(EIGENVALUES, dtype=w.dtype) * w + 0.2 * w**3


def textbook(rule, steps, lr, momentum):
    """Heavy ball in scalar Python: v <- gamma v + direction(w); w <- w - lr v."""
    g = lambda w: [lam * x + 0.2 * x**3 for lam, x in zip(EIGENVALUES, w, strict=True)]  # noqa: E731
    w, v = list(START), [0.0] * 3
    for _ in range(steps):
        direction = rule(w, g)
        v = [momentum * a + b for a, b in zip(v, direction, strict=True)]
        w = [a - lr * b for a, b in zip(w, v, strict=True)]
    return w


def plain(w, g):
    return g(w)


def normalized(w, g, rho=0.3):
    a = g(w)
    norm = math.sqrt(sum(x * x for x in a))
    return g([x + rho * y / norm for x, y in zip(w, a, strict=True)])


def unnormalized(w, g, rho=0.3):
    return g([x + rho * y for x, y in zip(w, g(w), strict=True)])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda m: GradientMap(lr=0.05, momentum=m), plain),
        (lambda m: SAMMap(lr=0.05, rho=0.3, momentum=m), normalized),
        (lambda m: SAMMap(lr=0.05, rho=0.3, momentum=m, normalized=False), unnormalized),
    ],
)
def test_equals_the_textbook_for_a_hundred_steps(make, rule, momentum):
    step = make(momentum)
    state = step.initial(torch.tensor(START, dtype=torch.float64))
    for _ in range(100):
        state = step(state, gradient)
    torch.testing.assert_close(state[0].tolist(), textbook(rule, 100, 0.05, momentum), rtol=1e-12, atol=1e-13)


def test_sam_does_not_move_from_an_exact_critical_point():
    step = SAMMap(lr=0.1, rho=0.5)
    (w,) = step(step.initial(torch.zeros(3, dtype=torch.float64)), gradient)
    assert torch.equal(w, torch.zeros(3, dtype=torch.float64))


def test_maps_compare_print_and_rebuild():
    step = SAMMap(lr=0.1, rho=0.5, momentum=0.9, normalized=False)
    assert step == SAMMap(0.1, 0.5, 0.9, False)
    assert eval(repr(step)) == step
    assert SAMMap(**dataclasses.asdict(step)) == step
    assert hash(step) == hash(dataclasses.replace(step))


def test_structure_tells_forms_apart_and_numbers_not():
    assert SAMMap(0.1, 0.5).structure() == SAMMap(0.2, 0.7).structure()
    assert SAMMap(0.1, 0.5).structure() != SAMMap(0.1, 0.5, momentum=0.9).structure()
    assert SAMMap(0.1, 0.5).structure() != SAMMap(0.1, 0.5, normalized=False).structure()
    assert SAMMap(0.1, 0.5).structure() != SAMMap(0.1, 0.0).structure()
    assert GradientMap(0.1).structure() != SAMMap(0.1, 0.5).structure()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (lambda: GradientMap(lr=0.0), "lr"),
        (lambda: GradientMap(lr=math.nan), "lr"),
        (lambda: GradientMap(lr=0.1, momentum=1.0), "momentum"),
        (lambda: GradientMap(lr=0.1, momentum=-0.1), "momentum"),
        (lambda: SAMMap(lr=0.1, rho=-0.1), "rho"),
        (lambda: SAMMap(lr=0.1, rho="big"), "rho"),
    ],
)
def test_wrong_numbers_are_refused_by_name(wrong, name):
    with pytest.raises(ValueError, match=f"^{name}: got .* expected "):
        wrong()
