import json

import pytest

from saddlescope.optim import RadiusCap
from saddlescope.provenance import provenance
from saddlescope.training import ExperimentConfig, Record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "mnist"}, "task: got 'mnist', expected one of digits-mlp"),
        ({"optimizer": "adam"}, "expected one of sgd, sam"),
        ({"rho": 1.0}, 'use "sam"'),
        ({"radius_cap": RadiusCap()}, 'use "sam"'),
        ({"optimizer": "sam", "rho": -0.1}, "rho: got -0.1"),
        ({"momentum": 1.0}, r"a number in \[0, 1\)"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"steps": 0}, "steps: got 0"),
        ({"batch_size": 2.5}, "batch_size: got 2.5"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_wrong_use_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(**options)


def test_a_record_is_json_also_when_it_diverged():
    config = ExperimentConfig(optimizer="sam", rho=1.0, radius_cap=RadiusCap(fraction=0.5, every=20, form="response"))
    record = Record(
        config=config,
        status="diverged",
        losses=(2.3, float("inf")),
        final_loss=float("nan"),
        test_accuracy=0.1,
        skipped_steps=1,
        hessian_products=9,
        seconds=0.1,
        provenance=provenance(),
    )
    data = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert data["losses"] == [2.3, None] and data["final_loss"] is None
    assert data["config"]["radius_cap"] == {
        **{"fraction": 0.5, "every": 20, "products": 8, "form": "response"},
        **{"budget": 0.1, "horizon": 2000},
    }
    assert ExperimentConfig(**{**data["config"], "radius_cap": RadiusCap(**data["config"]["radius_cap"])}) == config
