import json

import pytest

from saddlescope.findings import Check, Claim, Evidence, Finding, Verdict


def finding(*checks: tuple[bool, bool]) -> Finding:
    evidence = Evidence(
        setting="here",
        ours="measured",
        checks=tuple(Check(statement="s", passed=p, measured="m", essential=e) for p, e in checks),
        numbers={"threshold": 0.3},
    )
    return Finding(Claim(id="X", title="t", statement="said", source="src", run=lambda scale: evidence), evidence)


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([(True, True), (True, False)], Verdict.HOLDS),
        ([(True, True), (False, False)], Verdict.CONDITION),
        ([(False, True), (True, False)], Verdict.FAILS),
        ([(False, True), (False, False)], Verdict.FAILS),
    ],
)
def test_the_verdict_follows_from_the_checks(checks, verdict):
    assert finding(*checks).verdict is verdict


def test_a_finding_is_json_with_the_agreed_keys():
    data = json.loads(json.dumps(finding((True, True)).to_dict(), allow_nan=False))
    assert set(data) == {"paper", "ours", "verdict", "evidence"}
    assert (data["paper"], data["ours"], data["verdict"]) == ("said", "measured", "holds")
    assert data["evidence"]["numbers"] == {"threshold": 0.3}
