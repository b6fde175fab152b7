import json

import pytest

from saddlescope.paper import claims
from saddlescope.paper.claims import CLAIMS, run_claims


def test_the_registry_holds_the_agreed_claims():
    expected = "T1 T2 C1 T3 fig-beale fig-cosine fig-wp fig-saddle fig-toy-network fig-rho-sweep fig-batch-size"
    assert [claim.id for claim in CLAIMS] == [*expected.split(), "fig-momentum", "table-1", "variants"]


@pytest.fixture(scope="module")
def findings():
    long = ("fig-batch-size", "fig-momentum", "table-1", "variants")  # train networks, or much else
    return run_claims([c.id for c in CLAIMS if c.id not in long], progress=False)


def test_verdicts_of_the_analytic_claims(findings):
    assert {f.claim.id: f.verdict.value for f in findings} == {
        "T1": "holds with a condition",
        "T2": "fails",
        "C1": "fails",
        "T3": "fails",
        "fig-beale": "fails",
        "fig-cosine": "holds with a condition",
        "fig-wp": "holds",
        "fig-saddle": "holds with a condition",
        "fig-toy-network": "holds with a condition",
        "fig-rho-sweep": "holds with a condition",
    }


def test_every_finding_is_json_and_has_figures(findings):
    for finding in findings:
        assert json.loads(json.dumps(finding.to_dict(), allow_nan=False))["evidence"]["numbers"]
        for illustration in finding.evidence.illustrations:
            assert illustration.axes.has_data()
            assert illustration.alt
            assert illustration.caption


@pytest.mark.parametrize(("arguments", "message"), [({"only": ["T9"]}, "T9"), ({"scale": "huge"}, "quick, full")])
def test_wrong_use_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run_claims(**arguments)


def test_progress_goes_to_stderr(capsys, monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", ())
    run_claims(progress=True)
    assert capsys.readouterr().out == ""
