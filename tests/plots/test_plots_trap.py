"""What the figures of the trap number show is what the measurements hold."""

import math
from dataclasses import replace

import numpy as np
import pytest

from saddlescope.plots.trap import plot_calibration, plot_trials
from saddlescope.training.diagnosis.diagnose import Trial
from saddlescope.training.diagnosis.estimate import Estimate
from saddlescope.training.diagnosis.measurement import Measurement
from saddlescope.training.diagnosis.optimizer_settings import OptimizerSettings

GREY = {"mlp": "#777777"}


def measured(predicted, felt, plain=-0.2, curvature=-0.1):
    unknown = Estimate(math.nan, math.nan, 0)
    near = [Estimate(value, 0.01, 16) for value in (predicted, felt, plain, curvature)]
    return Measurement(
        status="complete", settings=OptimizerSettings(), loss=1.0, zero_loss=2.0, gradient_norm=0.1,
        batch_gradient_norm=0.1, lambda_min=-0.1, lambda_max=0.1, residual_min=0.0, residual_max=0.0,
        trap_number=unknown, micro_trap_number=unknown,
        predicted_curvature=near[0], effective_curvature=near[1], plain_curvature=near[2],
        curvature=near[3], escape_curvature=unknown, escape_effective_curvature=unknown,
        escape_plain_curvature=unknown, directions=1, fall=unknown, watched_steps=0, cosine=0.0, hessian_products=1,
    )  # fmt: skip


def test_calibration_shows_shares_of_what_sgd_feels():
    ax = plot_calibration({"mlp": [measured(0.05, 0.1), measured(-0.1, -0.2)]}, GREY)
    (points, _, bars) = ax.containers[0]
    assert points.get_xdata() == pytest.approx([0.5, -1.0])
    assert points.get_ydata() == pytest.approx([0.5, -1.0])
    reach = Estimate(0.0, 0.01, 16).high
    (first, _) = bars[0].get_segments()  # horizontal
    assert first[:, 0] == pytest.approx([0.5 - reach / 0.1, 0.5 + reach / 0.1])
    assert ax.get_xlim() == ax.get_ylim()


def test_states_that_sgd_does_not_leave_are_left_out():
    found = [measured(0.05, 0.1, plain=0.1), measured(0.05, 0.1, curvature=0.1)]
    assert not plot_calibration({"mlp": found}, GREY).containers
    assert len(plot_calibration({"mlp": [*found, measured(0.0, 0.0)]}, GREY).containers[0][0].get_xdata()) == 1
    nothing = replace(found[0], plain_curvature=Estimate(math.nan, math.nan, 0))
    assert not plot_calibration({"mlp": [nothing]}, GREY).containers


def test_trials_are_drawn_over_their_steps():
    trials = [Trial("unchanged", None, "", (2.0, 2.0, 2.0), 100), Trial("rho", 0.1, "", (2.0, 1.0, 0.5), 100)]
    ax = plot_trials(trials, {"unchanged": "#777777", "rho": "#0072B2"})
    assert [line.get_label() for line in ax.lines] == ["unchanged", "rho: 0.1"]
    assert np.asarray(ax.lines[1].get_xdata()).tolist() == [0.0, 50.0, 100.0]
    assert np.asarray(ax.lines[1].get_ydata()).tolist() == [2.0, 1.0, 0.5]
