import pytest

from saddlescope.findings import Check, Claim, Evidence, Finding, Illustration, Table
from saddlescope.plots.dynamics import plot_series


def make_finding(name, passed):
    illustrations = tuple(
        Illustration(
            axes=plot_series({"a": ([0, 1], [1, k])}, {"a": "red"}, marker="o"), caption="w_p < 1", alt="a line"
        )
        for k in range(2)
    )
    evidence = Evidence(
        setting="η = 1e-4, from -0.5",
        ours="ours & <b>bold</b>",
        checks=(Check(statement="holds", passed=passed, measured="1 < 2"),),
        numbers={"threshold": 0.30269, "none": None, "many": [1.5, -2]},
        tables=(Table(caption="numbers", columns=("ρ", "η < 1"), rows=((0.5, "<i>x</i>"), (None, True))),),
        illustrations=illustrations,
    )
    claim = Claim(id=name, title="A title", statement="<said>", source="somewhere", run=lambda scale: evidence)
    return Finding(claim, evidence)


@pytest.fixture
def findings():
    return [make_finding("T1", True), make_finding("fig-x", False)]
