from pathlib import Path

import pytest

from saddlescope.optim import RadiusCap
from saddlescope.sweeps import expand_grid, read_grid

EXAMPLE = Path(__file__).parents[2] / "examples" / "momentum.toml"


def test_the_example_holds_each_cell_once():
    configs = read_grid(EXAMPLE)
    assert len({config.key for config in configs}) == len(configs)
    # 36 at one lr, 24 more at one effective lr (momentum 0 is there already), 12 with the long step, 9 of SGD.
    assert len(configs) == 36 + 24 + 12 + 9
    effective = [c for c in configs if c.optimizer == "sam" and c.momentum == 0.9 and c.lr != 0.1]
    assert len(effective) == 12 and all(c.lr == pytest.approx(0.01, rel=1e-15) for c in effective)


def test_ranges_products_and_tables():
    configs = expand_grid(
        {
            "base": {"optimizer": "sam", "radius_cap": [False, True, {"fraction": 0.25}], "lr": 0.3},
            "grid": [{"rho": {"from": 0.1, "to": 10.0, "count": 3, "spacing": "log"}}, {"lr_effective": 0.2}],
        }
    )
    # The first axis is the slowest.
    assert [c.rho for c in configs[:3]] == pytest.approx([0.1, 1.0, 10.0]) and configs[2].rho == 10.0
    assert [c.radius_cap for c in configs[:9:3]] == [None, RadiusCap(), RadiusCap(fraction=0.25)]
    assert {c.lr for c in configs[:9]} == {0.3} and {c.lr for c in configs[9:]} == {0.2}


def test_a_range_ends_at_its_end_without_rounding():
    (_, last) = expand_grid({"base": {"lr": {"from": 0.2, "to": 0.9, "count": 2}}})
    assert last.lr == 0.9 != 0.2 + (0.9 - 0.2)


def test_a_grid_replaces_the_other_way_to_say_the_same():
    grids = [{"lr": 0.5}, {"lr_effective": 0.1}, {"epochs": 2}]
    base = {"momentum": 0.5, "lr_effective": 0.2, "steps": 7}
    found = [(c.lr, c.steps, c.epochs) for c in expand_grid({"base": base, "grid": grids})]
    assert found == [(0.5, 7, None), (0.05, 7, None), (0.1, None, 2)]


def test_a_range_of_whole_numbers_is_whole():
    assert [c.seed for c in expand_grid({"base": {"seed": {"from": 0, "to": 4, "count": 3}}})] == [0, 2, 4]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"bse": {}}, "sweep: got 'bse'"),
        ({"version": 2}, "version: got 2.*newer saddlescope"),
        ({"version": "1"}, "version: got '1'"),
        ({"base": {"learning_rate": 0.1}}, "grid 1: config: got 'learning_rate'"),
        ({"base": {"lr": "0.1"}}, "grid 1: lr: got '0.1', expected a number"),
        ({"base": {"steps": 2.0}}, "steps: got 2.0, expected a whole number"),
        ({"base": {"steps": True}}, "steps: got True"),
        ({"base": {"normalized": 1}}, "normalized: got 1, expected true or false"),
        ({"base": {"rho": []}}, "rho: got \\[\\], expected at least one value"),
        ({"grid": []}, "grid: got \\[\\]"),
        ({"grid": {"rho": 1.0}}, "write \\[\\[grid\\]\\]"),
        ({"grid": [{"lr": 0.1}, {"lr": float("nan")}]}, "grid 2: lr: got nan"),
        ({"base": {"optimizer": "sam", "rho": float("inf")}}, "rho: got inf"),
        ({"base": {"rho": {"from": float("nan"), "to": 1.0, "count": 2}}}, "rho.from: got nan"),
        ({"base": {"rho": {"from": 0.0, "to": 1.0, "count": 2, "spacing": "log"}}}, "positive ends"),
        ({"base": {"rho": {"from": 0.0, "to": 1.0}}}, "without 'count'"),
        ({"base": {"rho": {"from": 0.0, "to": 1.0, "count": 2, "step": 1}}}, "with 'step'"),
        ({"base": {"lr": {"from": 0.1, "to": 1.0, "count": 10**9}}}, "lr.count: got 1000000000"),
        ({"base": {"seed": {"from": 0, "to": 99, "count": 100}, "lr": [0.1, 0.2]}, "grid": [{}] * 51}, "10,200 cells"),
        ({"base": {"lr": 0.1, "lr_effective": 0.1}}, "lr_effective: got 'beside lr'"),
        ({"base": {"steps": 1, "epochs": 1}}, "epochs: got 'beside steps'"),
        ({"base": {"optimizer": "sam", "radius_cap": {"fractions": 1.0}}}, "radius_cap: got 'fractions'"),
        ({"base": {"optimizer": "friendly-sam", "settings": {"decays": 1.0}}}, "settings: got 'decays'"),
        ({"base": {"optimizer": "friendly-sam", "settings": {"decay": "x"}}}, "settings: got"),
        ({"base": {"rho": 1.0}}, 'use "sam"'),
    ],
)
def test_what_is_wrong_is_named(grid, message):
    with pytest.raises(ValueError, match=message) as caught:
        expand_grid(grid)
    assert "\n" not in str(caught.value)


def test_a_million_cells_are_counted_not_built():
    axis = {"from": 0.1, "to": 1.0, "count": 1000}
    with pytest.raises(ValueError, match="1,000,000,000 cells"):
        expand_grid({"base": {"lr": axis, "momentum": axis, "weight_decay": axis}})


@pytest.mark.parametrize("text", ["lr = ", "[base]\nlr = 0.1\nlr = 0.2", "\xff"])
def test_what_is_no_toml_is_named_in_one_line(tmp_path, text):
    (tmp_path / "grid.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="expected a TOML file that can be read") as caught:
        read_grid(tmp_path / "grid.toml")
    assert "\n" not in str(caught.value)
