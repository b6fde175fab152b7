"""A measurement of a trapped run to vary, number by number."""

import math
from dataclasses import replace

from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings


def near(value, error=None):
    return Estimate(value, abs(value) / 100 if error is None else error, 16)


TRAPPED = Measurement(
    status="complete",
    settings=OptimizerSettings(rho=0.5, lr=0.1),
    loss=2.3,
    zero_loss=2.3,
    gradient_norm=0.02,
    batch_gradient_norm=0.06,
    lambda_min=-0.2,
    lambda_max=0.2,
    residual_min=1e-3,
    residual_max=1e-3,
    curvature=near(-0.2),
    trap_number=near(2.0),
    micro_trap_number=near(1.5),
    predicted_curvature=near(0.2),
    effective_curvature=near(0.1),
    plain_curvature=near(-0.2),
    escape_curvature=near(0.01),
    escape_effective_curvature=near(0.01),
    escape_plain_curvature=near(-0.02),
    directions=4,
    fall=near(0.0, 0.001),
    watched_steps=100,
    cosine=0.7,
    hessian_products=100,
)
SLOWED = replace(TRAPPED, trap_number=near(0.8), effective_curvature=near(-0.05), predicted_curvature=near(-0.04))
FREE = replace(TRAPPED, trap_number=near(0.1), effective_curvature=near(-0.18), predicted_curvature=near(-0.18))
MINIMUM = replace(
    TRAPPED,
    lambda_min=-0.001,
    curvature=near(0.0, 0.0005),
    plain_curvature=near(0.001),
    trap_number=Estimate(math.nan, math.nan, 16),
)
