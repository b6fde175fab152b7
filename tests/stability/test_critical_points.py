import json
from itertools import product
from pathlib import Path

import pytest
import torch

from saddlescope.landscapes import Landscape, from_expression, get
from saddlescope.stability.critical_points import find_critical_points

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "theory.json").read_text())


def find(formula, *bounds, **options):
    variables = ("x", "y", "z")[: len(bounds)]
    return find_critical_points(from_expression(formula, bounds=bounds, variables=variables), **options)


@pytest.mark.parametrize("name", REFERENCE["landscapes"])
def test_all_points_of_the_reference_and_no_others(name):
    reference = REFERENCE["landscapes"][name]
    found = find(reference["formula"], (-4.5, 4.5), (-4.5, 4.5))
    if name == "deep_linear2":  # beside the saddle there is the curve xy = 1 of minima
        assert all(p.degenerate for p in found if p.loss < 0.1)
        found = [p for p in found if p.loss > 0.1]
    expected = sorted(reference["critical_points"], key=lambda c: (c["f"], c["point"]))
    assert len(found) == len(expected)
    for p, c in zip(found, expected, strict=True):
        assert p.point == pytest.approx(c["point"], abs=1e-8)
        assert p.eigenvalues == pytest.approx(c["eig"], rel=1e-8, abs=1e-8)
        assert p.kind == {"min": "minimum"}.get(c["kind"], c["kind"])
        assert p.degenerate == c["degenerate"]


@pytest.mark.parametrize("dimension, count", [(2, 1), (3, 1), (4, 3), (7, 3), (10, 3)])
def test_rosenbrock_in_many_dimensions(dimension, count):
    # From d = 4 on there is a second minimum (Kok and Sandrock 2009), with a saddle on the way to it.
    found = find_critical_points(get("rosenbrock", dimension=dimension))
    assert found[0].point == pytest.approx([1.0] * dimension, abs=1e-10)
    assert [p.kind for p in found] == ["minimum", "minimum", "saddle"][:count]


def test_product_grid_of_a_separable_polynomial():
    # f = F(x) + F(y) + F(z) with F' = (t + 1)(t - 1/4)(t - 1): every triple of roots is critical, the middle one
    # of each coordinate adds a negative eigenvalue.
    term = "{0}**4/4 - {0}**3/12 - {0}**2/2 + {0}/4"
    found = find(" + ".join(term.format(v) for v in "xyz"), *[(-2, 2)] * 3)
    expected = {triple: sum(r == 0.25 for r in triple) for triple in product((-1.0, 0.25, 1.0), repeat=3)}
    assert len(found) == 27
    for p in found:
        triple = min(expected, key=lambda r: sum((a - b) ** 2 for a, b in zip(r, p.point, strict=True)))
        assert p.point == pytest.approx(triple, abs=1e-12)
        assert p.index == expected.pop(triple)
        assert p.kind == ("minimum" if p.index == 0 else "maximum" if p.index == 3 else "saddle")


def test_every_one_of_many_points():
    found = find("x**2 - 10*cos(2*3.141592653589793*x) + y**2 - 10*cos(2*3.141592653589793*y)", *[(-5.12, 5.12)] * 2)
    kinds = [p.kind for p in found]  # 11 minima and 10 maxima of each coordinate
    assert (kinds.count("minimum"), kinds.count("saddle"), kinds.count("maximum")) == (121, 220, 100)


def test_points_close_to_the_corners_of_the_box():
    found = find_critical_points(get("ackley"), bounds=[(-3, 3)] * 2)
    minima = {tuple(round(x) for x in p.point) for p in found if p.kind == "minimum"}
    assert minima >= {(a, b) for a in range(-3, 4) for b in range(-3, 4)} - {(0, 0)}  # at the kink it is no zero


@pytest.mark.parametrize(
    "formula, point",
    [
        ("x**4 + y**4", (0, 0)),
        ("x**4 + (y + 0.3)**2", (0, -0.3)),
        ("x**6 + y**2", (0, 0)),
        ("x**3 + y**2", (0, 0)),
        ("(x - 0.3)**3 - 3*(x - 0.3)*(y + 0.7)**2", (0.3, -0.7)),
        ("(0.3*x + 0.8*y - 0.2)**4 + (x - 1.3*y + 0.1)**2", (0.18 / 1.19, 0.23 / 1.19)),
        ("x**4 - 4*x**3 + 6*x**2 - 4*x + 1", (1,)),
        ("x**4 - 4*x**3 + 6*x**2 - 4*x + 1 + y**2", (1, 0)),  # (x - 1)^4, its gradient drowned in rounding
    ],
)
def test_isolated_degenerate_points(formula, point):
    (found,) = find(formula, *[(-4, 4)] * len(point))
    assert found.point == pytest.approx(point, abs=1e-4)
    assert found.kind == "degenerate" and found.degenerate


@pytest.mark.parametrize("formula", ["(x**2 + y**2 - 1)**2", "x**2*y**2", "(x + y)**2", "(x*y - 1)**2"])
def test_continua_give_separated_degenerate_representatives(formula):
    found = find(formula, (-2, 2), (-2, 2))
    line = [p for p in found if p.degenerate]
    assert 10 <= len(line) <= 100
    points = torch.tensor([p.point for p in line], dtype=torch.float64)
    assert torch.pdist(points).min() > 0.19
    assert all(p.residual < 1e-8 for p in line)
    assert {p.kind for p in found} - {"degenerate"} <= {"saddle", "maximum"}


def test_the_one_neuron_network_has_only_degenerate_points():
    found = find_critical_points(get("one_neuron"))
    assert found and all(p.kind == "degenerate" for p in found)


@pytest.mark.parametrize(
    "formula, bounds, count",
    [
        ("-exp(-x**2 - y**2)", [(-10, 10)] * 2, 1),
        ("-exp(-x**2 - y**2)", [(-30, 30)] * 2, 1),  # mostly exactly constant in floating point
        ("-exp(-x**2) + y**2", [(-10, 10)] * 2, 1),
        ("1/(1 + x**2) + y**2", [(-100, 100), (-1, 1)], 1),
        ("exp(-x) + y**2", [(0, 30), (-1, 1)], 0),
        ("x + 2*y", [(-1, 1)] * 2, 0),
        ("1 + 0*x", [(-1, 1)], 0),
        ("x*log(x)", [(-1, 3)], 1),
    ],
)
def test_plateaus_and_tails_are_not_critical(formula, bounds, count):
    found = find(formula, *bounds)
    assert len(found) == count
    assert not any(p.degenerate for p in found)


def test_a_narrow_well_on_a_plateau_is_found():
    for seed in range(5):  # its Newton basin is about 1/5,000 of the box
        (well,) = find("-exp(-(x - 7)**2 - (y + 3)**2)", (-40, 40), (-40, 40), seed=seed)
        assert well.kind == "minimum" and well.point == pytest.approx((7, -3), abs=1e-9)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_unit_of_the_loss_does_not_matter(unit):
    beale = get("beale")
    scaled = Landscape("scaled", lambda w: unit * beale.loss(w), 2, beale.bounds)
    for p, q in zip(find_critical_points(beale), find_critical_points(scaled), strict=True):
        assert q.point == pytest.approx(p.point, abs=1e-10)
        assert q.kind == p.kind


def test_points_on_the_edge_count_and_points_outside_do_not():
    (corner,) = find("(x - 1)**2 - (y + 1)**2", (-1, 1), (-1, 1))
    assert corner.point == pytest.approx((1, -1), abs=1e-9)
    assert find("(x - 1)**2 - (y + 1)**2", (-1, 1), (-0.999, 1)) == ()
    beale = find_critical_points(get("beale"), bounds=[(2, 4), (0, 1)])
    assert [p.kind for p in beale] == ["minimum"]


def test_same_seed_same_points_other_seed_same_set():
    beale = get("beale")
    first = find_critical_points(beale)
    assert find_critical_points(beale) == first
    for p, q in zip(first, find_critical_points(beale, seed=7), strict=True):
        assert p.point == pytest.approx(q.point, abs=1e-10)
    json.dumps([p.to_dict() for p in first], allow_nan=False)


@pytest.mark.parametrize("bounds", [[(0, 1)], [(1, 0), (0, 1)], [(0, float("inf")), (0, 1)], [(0, 1, 2), (0, 1)]])
def test_wrong_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds: got"):
        find_critical_points(get("beale"), bounds=bounds)


def test_wrong_tolerance_and_seed_are_refused():
    with pytest.raises(ValueError, match="tolerance: got"):
        find_critical_points(get("beale"), tolerance=0.0)
    with pytest.raises(ValueError, match="seed: got"):
        find_critical_points(get("beale"), seed=-1)
