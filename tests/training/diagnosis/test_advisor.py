"""The advice: what it changes, what it predicts, and when it keeps quiet."""

import json
import math
from dataclasses import replace

import pytest
from measurements import FREE, MINIMUM, SLOWED, TRAPPED, near

from saddlescope.training.diagnosis.advisor import advise


def changes(found):
    return {change.change: change for change in advise(found).changes}


@pytest.mark.parametrize("found", [TRAPPED, SLOWED])
def test_a_held_run_gets_changes_that_let_go(found):
    advice = changes(found)
    assert list(advice) == ["variant", "cap", "rho", "warm_start"]
    tau = found.trap_number.value
    assert advice["rho"].settings.rho * tau / found.settings.rho == pytest.approx(0.5, rel=0.05)  # two digits
    assert advice["warm_start"].settings.warm_start == pytest.approx(5 / math.log(1.02), abs=1)
    assert advice["cap"].settings.cap == 0.15
    assert advice["variant"].settings.variant == "momentum-sam"
    for change in advice.values():  # one thing at a time
        kept = {"variant": {"variant", "momentum"}}.get(change.change, {change.change})
        before, after = found.settings.to_dict(), change.settings.to_dict()
        assert {k for k in before if before[k] != after[k]} == kept


def test_momentum_is_kept_where_there_is_some():
    found = replace(TRAPPED, settings=replace(TRAPPED.settings, momentum=0.95))
    change = changes(found)["variant"]
    assert change.settings.momentum == 0.95 and change.after == "momentum-sam"


def test_parts_of_a_batch_are_advised_only_where_they_were_measured_to_let_go():
    assert "micro_batch" in changes(replace(TRAPPED, micro_trap_number=near(0.6)))
    assert "micro_batch" not in changes(replace(TRAPPED, micro_trap_number=near(0.9, 0.1)))
    change = changes(replace(TRAPPED, micro_trap_number=near(0.5)))["micro_batch"]
    assert change.settings.micro_batch == 64 and "slow-down 2" in change.predicted


def test_no_advice_without_evidence():
    for found in (FREE, MINIMUM, replace(TRAPPED, plain_curvature=near(0.1)), replace(TRAPPED, status="not finite")):
        advice = advise(found)
        assert advice.changes == () and advice.reason


def test_none_about_variants_the_trap_number_is_not_about():
    found = replace(TRAPPED, settings=replace(TRAPPED.settings, variant="friendly-sam"))
    assert advise(found).changes == ()


def test_a_step_beyond_the_edge_is_halved_below_it_unless_the_loss_falls():
    wild = replace(MINIMUM, lambda_max=80.0)
    (change,) = advise(wild).changes
    assert change.settings.lr * 80.0 / 2 == pytest.approx(0.5, rel=0.05)
    assert advise(replace(wild, fall=near(1.0))).changes == ()


def test_a_capped_run_is_not_told_to_cap():
    assert "cap" not in changes(replace(TRAPPED, settings=replace(TRAPPED.settings, cap=0.9)))


def test_json_has_the_binding_keys():
    data = json.loads(json.dumps(advise(TRAPPED).to_dict(), allow_nan=False))
    assert [set(change) for change in data["changes"]] == [{"change", "from", "to", "because", "predicted"}] * 4
    assert not any(isinstance(v, float) and math.isnan(v) for c in data["changes"] for v in c.values())
