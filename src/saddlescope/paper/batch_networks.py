"""The part of fig-batch-size on a real network: how soon SAM leaves the first plateau, in steps and in samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saddlescope.findings import Check, Illustration, Table
from saddlescope.paper.network_runs import Cell, surely_above, train_cells
from saddlescope.plots.style import COLOURS, new_axes
from saddlescope.plots.training import plot_escape_steps
from saddlescope.sweeps.over_seeds import Mean, mean_of
from saddlescope.training import ExperimentConfig

BATCHES = (8, 32, 128)
STEPS, SAMPLES, SAMPLES_WIDE = 600, 12_800, 25_600
"""Every run makes at least so many steps and sees at least so many samples, those at ρ = 0.7 more."""
TRAINING_SET = 1_437
SGD, PLAIN, CONTROL, MOMENTUM, WIDE = (
    "SGD",
    "SAM, ρ = 0.5",
    "SAM, ρ = 0.5, γ = 0.9, equal η/(1 − γ)",
    "SAM, ρ = 0.5, γ = 0.9, equal η",
    "SAM, ρ = 0.7",
)
SETTINGS = {
    SGD: (0.0, 0.1, 0.0),
    PLAIN: (0.5, 0.1, 0.0),
    CONTROL: (0.5, 0.01, 0.9),
    MOMENTUM: (0.5, 0.1, 0.9),
    WIDE: (0.7, 0.1, 0.0),
}
"""Radius, step size and momentum."""
WORDS = (
    "A network: scikit-learn's digits, perceptron 64-128-128-128-10, normalized SAM with one batch for both gradients, "
    "cross-entropy, η = 0.1; escape is the first ten-step mean loss below 2 (chance is 2.303)."
)


@dataclass(frozen=True, kw_only=True)
class BatchGrid:
    """Cells by setting and batch size."""

    seeds: int
    cells: dict[tuple[str, int], Cell]

    def steps(self, name: str, batch_size: int) -> Mean:
        """Return the mean steps to escape; NaN unless every seed escapes."""
        escapes = [np.nan if step is None else step for step in self.cells[name, batch_size].escapes]
        return mean_of(escapes) if np.isfinite(escapes).all() else Mean(value=np.nan, half_width=np.nan)

    def epochs(self, name: str, batch_size: int) -> Mean:
        """Return the same in walks through the training set."""
        steps, share = self.steps(name, batch_size), batch_size / TRAINING_SET
        return Mean(value=steps.value * share, half_width=steps.half_width * share)

    def saving(self, name: str) -> float:
        """Return how many times the samples the largest batch needs that the smallest does."""
        return self.epochs(name, BATCHES[-1]).value / self.epochs(name, BATCHES[0]).value


def train_batch_grid(seeds: int) -> BatchGrid:
    """Train every setting at every batch size."""
    keys = [(name, batch_size) for name in SETTINGS for batch_size in BATCHES]
    return BatchGrid(
        seeds=seeds, cells=dict(zip(keys, train_cells([_setting(*key) for key in keys], seeds), strict=True))
    )


def _setting(name: str, batch_size: int) -> ExperimentConfig:
    rho, lr, momentum = SETTINGS[name]
    return ExperimentConfig(
        optimizer="sam" if rho else "sgd",
        rho=rho,
        lr=lr,
        momentum=momentum,
        batch_size=batch_size,
        steps=max(STEPS, (SAMPLES_WIDE if name == WIDE else SAMPLES) // batch_size),
    )


def network_checks(grid: BatchGrid) -> tuple[Check, ...]:
    """Compare batch sizes at equal samples and at equal steps, with SGD, and with momentum."""
    small, large = BATCHES[0], BATCHES[-1]
    wide = grid.cells[WIDE, small], grid.cells[WIDE, large]
    return (
        Check(
            statement=f"Network, ρ = 0.5: SAM leaves after fewer samples at B = {small} than at {large}.",
            passed=surely_above(grid.epochs(PLAIN, large), grid.epochs(PLAIN, small)),
            measured=f"After {_list(grid, PLAIN, 'epochs')} epochs.",
        ),
        Check(
            statement=f"Network, ρ = 0.5: it leaves after fewer steps at B = {small} too.",
            passed=surely_above(grid.steps(PLAIN, large), grid.steps(PLAIN, small)),
            measured=f"After {_list(grid, PLAIN, 'steps')} steps.",
            essential=False,
        ),
        Check(
            statement=f"Network, ρ = 0.7: B = {small} frees SAM on every seed within {SAMPLES_WIDE:,} samples; "
            f"B = {large} on none, in {STEPS * large:,}.",
            passed=None not in wide[0].escapes and set(wide[1].escapes) == {None},
            measured=f"Escapes at B = {small}: {wide[0].escapes_text}; at {large}: {wide[1].escapes_text}.",
            essential=False,
        ),
        Check(
            statement="Network, ρ = 0.5: small batches save SAM a larger factor in samples than SGD.",
            passed=grid.saving(PLAIN) > grid.saving(SGD),
            measured=f"Factors {grid.saving(PLAIN):.1f} and {grid.saving(SGD):.1f} between B = {large} and {small}. "
            f"SGD leaves after {_list(grid, SGD, 'steps')} steps.",
            essential=False,
        ),
        Check(
            statement="Network, ρ = 0.5: at equal η/(1 − γ) momentum shortens the escape at some batch size.",
            passed=any(surely_above(grid.steps(PLAIN, b), grid.steps(CONTROL, b)) for b in BATCHES),
            measured=f"γ = 0.9, η = 0.01: {_list(grid, CONTROL, 'steps')} steps; at equal η "
            f"{_list(grid, MOMENTUM, 'steps')}.",
            essential=False,
        ),
    )


def network_summary(grid: BatchGrid) -> str:
    """Return the result in a sentence; a setting with a seed that stays has no mean, and does not count as helped."""
    small, large = BATCHES[0], BATCHES[-1]
    steps = [grid.steps(PLAIN, b).value for b in (small, large)]
    epochs = [grid.epochs(PLAIN, b).value for b in (small, large)]
    if not epochs[0] < epochs[1]:
        helps = "small batches do not help"
    elif steps[0] < steps[1]:
        helps = "small batches help by each of their steps"
    else:
        helps = "small batches help by more steps an epoch, not by each of them"
    return (
        f"On the digits, ρ = 0.5, SAM leaves after {epochs[0]:.1f} epochs at B = {small} and {epochs[1]:.1f} at "
        f"{large}, and after {steps[0]:.0f} and {steps[1]:.0f} steps: {helps}."
    )


def network_numbers(grid: BatchGrid) -> dict[str, object]:
    """Return the mean steps to escape by setting and batch size, None where a seed stays."""
    return {name: {b: grid.steps(name, b).to_dict() for b in BATCHES} for name in SETTINGS}


def network_table(grid: BatchGrid) -> Table:
    """Return the table of escapes."""
    return Table(
        caption=f"Digits: steps to escape, {grid.seeds} seeds, means with 95% intervals, seed by seed where one stays, "
        "and epochs",
        columns=("optimizer", *(f"B = {b}{unit}" for b in BATCHES for unit in ("", ", epochs"))),
        rows=tuple(
            (name, *(text for b in BATCHES for text in (_steps_text(grid, name, b), str(grid.epochs(name, b)) or "–")))
            for name in SETTINGS
        ),
    )


def network_figure(grid: BatchGrid) -> Illustration:
    """Return the figure of steps to escape over the batch size."""
    colours = dict(
        zip(SETTINGS, (COLOURS[n] for n in ("SGD", "SAM", "SAM", "SAM + cap", "unnormalized SAM")), strict=True)
    )
    drawn = {}
    for name in SETTINGS:
        steps = {b: mean for b in BATCHES if np.isfinite((mean := grid.steps(name, b)).value)}
        if steps:
            means = steps.values()
            drawn[name] = (list(steps), [mean.value for mean in means], [mean.half_width for mean in means])
    axes = plot_escape_steps(drawn, colours, dashed=frozenset({CONTROL}), ax=new_axes(height=3.8))
    return Illustration(
        axes=axes,
        caption="On a network: steps until the loss leaves chance, with 95% intervals over seeds; settings with a seed "
        f"that stays have no point (ρ = 0.7 leaves at B = {BATCHES[0]} only). Lines flatter than the dotted one gain "
        "samples by smaller batches; those that fall need more steps.",
        alt="Steps to escape against batch size. SGD is flat near 50. SAM falls from several hundred at B = 8, less "
        "steeply than the dotted line of equal samples; with momentum at equal step size it is lower.",
    )


def _list(grid: BatchGrid, name: str, unit: str) -> str:
    means = [getattr(grid, unit)(name, b) for b in BATCHES]
    return ", ".join(f"{str(mean) or 'not on every seed'} (B = {b})" for mean, b in zip(means, BATCHES, strict=True))


def _steps_text(grid: BatchGrid, name: str, batch_size: int) -> str:
    return str(grid.steps(name, batch_size)) or grid.cells[name, batch_size].escapes_text
