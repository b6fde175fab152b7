"""What a map of basins promises about its grid, planes and numbers."""

import json

import numpy as np
import pytest

from saddlescope import landscapes
from saddlescope.dynamics import GradientMap, SAMMap
from saddlescope.stability.basins import map_basins

WELL = landscapes.get("double_well")


@pytest.fixture(scope="module")
def trapped():
    return map_basins(WELL, SAMMap(0.05, 0.4), resolution=33)


def test_rows_are_y_and_columns_x():
    basins = map_basins(WELL, GradientMap(0.05), resolution=8, bounds=[(-2, 1), (-0.5, 3)])
    assert basins.labels.shape == (8, 8)
    assert basins.x.tolist() == np.linspace(-2, 1, 8).tolist()
    assert basins.y.tolist() == np.linspace(-0.5, 3, 8).tolist()
    right = [a.point[0] > 0 for a in basins.attractors]
    assert [[right[k] for k in row] for row in basins.labels] == [(basins.x > 0).tolist()] * 8


def test_numbers_fit_together(trapped):
    assert sorted(a.kind for a in trapped.attractors) == ["minimum", "minimum", "saddle"]
    assert sum(f.value for f in trapped.fractions.values()) == pytest.approx(1.0)
    assert trapped.undecided == trapped.diverged == 0.0
    assert ((trapped.steps_to_capture >= 0) == (trapped.labels >= 0)).all()
    saddle = next(k for k, a in enumerate(trapped.attractors) if a.kind == "saddle")
    assert trapped.labels[16, 16] == saddle
    assert trapped.attractors[saddle].stability.verdict == "trap"
    assert trapped.attractors[saddle].critical_point.point == pytest.approx((0.0, 0.0), abs=1e-9)
    # The map commutes with x -> -x; its chaotic band decides single starts.
    mirrored = (trapped.labels == saddle) != (trapped.labels[:, ::-1] == saddle)
    assert mirrored.mean() <= 0.01


def test_the_json_is_plain_and_complete(trapped):
    data = json.loads(json.dumps(trapped.to_dict(), allow_nan=False))
    assert set(data["fractions"]) == set(trapped.names().values())
    assert data["fractions"]["saddle"] == pytest.approx((trapped.labels == trapped.labels[16, 16]).mean())
    assert [a["kind"] for a in data["attractors"]] == [a.kind for a in trapped.attractors]
    assert data["steps_per_second"] > 0


def test_a_plane_through_more_dimensions():
    """In the plane w_3 = 0.3 of a separable loss the map is the one of two dimensions."""
    loss = "(x**2 - 1)**2 / 4 + y**2 / 2 + z**2"
    solid = landscapes.from_expression(loss, [(-2, 2)] * 3, variables=("x", "y", "z"))
    update = GradientMap(0.05)
    across = map_basins(
        solid, update, resolution=9, bounds=[(-1.9, 2), (-1, 1)], origin=[0, 0, 0.3], directions=[[0, 1, 0], [1, 0, 0]]
    )
    sides = [round(a.point[0]) for a in across.attractors]
    assert [[sides[k] for k in row] for row in across.labels.T] == [np.sign(across.y).tolist()] * 9
    assert across.names() == {
        -2: "diverged", -1: "undecided", sides.index(1): "minimum (1, 0, 0)", sides.index(-1): "minimum (-1, 0, 0)",
        sides.index(0): "unstable saddle",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_map(trapped):
    again = map_basins(WELL, SAMMap(0.05, 0.4), resolution=33)
    assert np.array_equal(again.labels, trapped.labels)
    assert np.array_equal(again.steps_to_capture, trapped.steps_to_capture)


@pytest.mark.parametrize(
    "bad",
    [
        {"resolution": 1},
        {"bounds": [(0, 1)]},
        {"bounds": [(1, 0), (0, 1)]},
        {"directions": [[1, 0], [2, 0]]},
        {"origin": [0.0]},
        {"landscape": landscapes.get("rosenbrock", dimension=3)},
    ],
)
def test_wrong_use_is_refused(bad):
    with pytest.raises(ValueError, match="got .* expected "):
        map_basins(**{"landscape": WELL, "update": GradientMap(0.1), **bad})
