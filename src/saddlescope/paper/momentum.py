"""fig-momentum: does momentum free SAM on a real network, and is it momentum that does it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from saddlescope.findings import Check, Evidence, Illustration, Scale, Table
from saddlescope.optim import RadiusCap
from saddlescope.paper.network_runs import (
    WINDOW,
    Cell,
    a_share_of,
    accuracy_gain,
    find_cell,
    images_at_hand,
    points,
    surely_above,
    train_cells,
)
from saddlescope.plots.style import COLOURS, add_legend, new_axes
from saddlescope.plots.training import plot_final_values, plot_loss_curves
from saddlescope.sweeps.over_seeds import Mean
from saddlescope.training import ExperimentConfig

CAP = RadiusCap()
SEEDS = {"quick": 5, "full": 20}
STEPS = {
    (0.1, 0.0): "η = 0.1, γ = 0",
    (0.1, 0.9): "η = 0.1, γ = 0.9",
    (0.01, 0.9): "η = 0.01, γ = 0.9",
    (1.0, 0.0): "η = 1, γ = 0",
}
"""Pairs of step size and momentum; the third has the effective step size η/(1 − γ) of the first, the fourth
that of the second."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A task on which momentum is examined."""

    name: str
    setting: ExperimentConfig
    radii: tuple[float, ...]
    """Of SAM; the first one decides: there it does not leave without momentum and does with it."""
    words: str
    """What is trained, for the report."""


DIGITS = Network(
    name="digits",
    setting=ExperimentConfig(batch_size=64, steps=500),
    radii=(0.7, 1.0),
    words="scikit-learn's handwritten digits (1,797 images of 8 × 8), perceptron 64-128-128-128-10 with ReLU, batches "
    "of 64, 500 steps",
)
CIFAR10 = Network(
    name="CIFAR-10",
    setting=ExperimentConfig(task="cifar10-mlp", batch_size=128, steps=500),
    radii=(0.4,),
    words="the first 10,000 images of CIFAR-10 averaged to 16 × 16, perceptron 768-128-128-128-10 with ReLU, batches "
    "of 128, 500 steps",
)


def examine(scale: Scale) -> Evidence:
    """Train SGD and SAM with and without momentum, with both controls of the effective step size, and with the cap."""
    seeds = SEEDS[scale]
    networks = [DIGITS, CIFAR10] if images_at_hand() else [DIGITS]
    trained = [(network, train_cells(settings(network), seeds)) for network in networks]
    with_images = "." if CIFAR10 in networks else " (the perceptron on CIFAR-10 is trained too if --data names it)."
    return Evidence(
        setting=f"Normalized SAM, both gradients on one batch, cross-entropy, {seeds} seeds; intervals are 95% "
        f"(Student's t), gains are taken seed by seed. {'; '.join(network.words for network in networks)}. The paper "
        f"used CIFAR-10 and larger networks{with_images} Momentum at a fixed η also multiplies the effective step size "
        "η/(1 − γ); the controls hold that fixed. Escape: ten-step mean loss below 2 (chance is 2.303).",
        ours=" ".join(_summary(network, cells) for network, cells in trained),
        checks=tuple(check for network, cells in trained for check in checks(network, cells)),
        numbers={network.name: _numbers(network, cells) for network, cells in trained},
        tables=tuple(_table(network, cells) for network, cells in trained),
        illustrations=(*(_curves(network, cells) for network, cells in trained), _bars(*trained[0])),
    )


def settings(network: Network) -> list[ExperimentConfig]:
    """Return the settings: every radius, and SGD, with every pair of step size and momentum; one with the cap."""
    pairs = [_setting(network, rho, lr, momentum) for rho in (0.0, *network.radii) for lr, momentum in STEPS]
    return [*pairs, replace(_setting(network, network.radii[-1], 0.1, 0.0), radius_cap=CAP)]


def checks(network: Network, cells: Sequence[Cell]) -> tuple[Check, ...]:
    """Compare runs with and without momentum, at equal step size and at equal effective step size."""
    rho, name = network.radii[0], network.name
    plain, fast, control, large = (find_cell(cells, rho, *step) for step in STEPS)
    gain, gain_sgd = _gain(cells, rho), _gain(cells, 0.0)
    at_equal_step, beyond = accuracy_gain(control, plain), accuracy_gain(fast, large)
    widest = find_cell(cells, network.radii[-1], 0.1, 0.9)
    found = [
        Check(
            statement=f"{name}: at η = 0.1 and ρ = {rho:g}, SAM is stuck without momentum and escapes with γ = 0.9, on "
            "every seed.",
            passed=plain.stuck and None in plain.escapes and None not in fast.escapes and not fast.diverged,
            measured=f"Final losses {plain.loss} and {fast.loss}; escapes: {plain.escapes_text}; {fast.escapes_text}.",
        ),
        Check(
            statement=f"{name}: there, momentum raises the accuracy of SAM more than that of SGD.",
            passed=surely_above(gain, gain_sgd),
            measured=f"By {points(gain)} and {points(gain_sgd)} percentage points.",
        ),
        Check(
            statement=f"{name}: at equal effective step size η/(1 − γ) = 0.1 it does a tenth of that, or more.",
            passed=a_share_of(at_equal_step, gain),
            measured=f"γ = 0.9, η = 0.01 ends at a loss of {control.loss}, γ = 0, η = 0.1 at {plain.loss}; the "
            f"accuracy differs by {points(at_equal_step)} points.",
            essential=False,
        ),
        Check(
            statement=f"{name}: it does what the same effective step size 1 does not do without it.",
            passed=surely_above(beyond),
            measured=f"γ = 0.9, η = 0.1 ends at {fast.loss}, γ = 0, η = 1 at {large.loss}{_diverged(large)}; the "
            f"accuracy differs by {points(beyond)} points. Escapes: {fast.escapes_text}; {large.escapes_text}.",
            essential=False,
        ),
    ]
    if len(network.radii) > 1:
        found.append(
            Check(
                statement=f"{name}: it helps at every radius: with γ = 0.9, η = 0.1, SAM trains at ρ = "
                f"{widest.rho:g} on every seed.",
                passed=widest.trained,
                measured=f"Final loss {widest.loss}; escapes: {widest.escapes_text}.",
                essential=False,
            )
        )
    return tuple(found)


def _setting(network: Network, rho: float, lr: float, momentum: float) -> ExperimentConfig:
    return replace(network.setting, optimizer="sam" if rho else "sgd", rho=rho, lr=lr, momentum=momentum)


def _gain(cells: Sequence[Cell], rho: float) -> Mean:
    """Return the test accuracy at γ = 0.9 less that at γ = 0, both with η = 0.1."""
    return accuracy_gain(find_cell(cells, rho, 0.1, 0.9), find_cell(cells, rho, 0.1, 0.0))


def _summary(network: Network, cells: Sequence[Cell]) -> str:
    rho = network.radii[0]
    plain, fast, control, large = (find_cell(cells, rho, *step) for step in STEPS)
    cap = next(cell for cell in cells if cell.capped)
    gain, equal = _gain(cells, rho), accuracy_gain(control, plain)
    return (
        f"{network.name}, ρ = {rho:g}: γ = 0.9 at η = 0.1 takes SAM from a loss of {plain.loss.value:.2f} to "
        f"{fast.loss.value:.3g} (accuracy {points(gain)} points; SGD {points(_gain(cells, 0.0))}). At the same "
        f"η/(1 − γ) it {'helps too' if a_share_of(equal, gain) else 'does not help'}: γ = 0.9, η = 0.01 ends at "
        f"{control.loss.value:.2f} ({points(equal)}). The longer step alone, η = 1 without momentum, reaches "
        f"{large.loss.value:.3g}{_diverged(large)}. With the radius cap SAM gets to {cap.loss.value:.3g} at ρ = "
        f"{cap.rho:g} with neither."
    )


def _numbers(network: Network, cells: Sequence[Cell]) -> dict[str, object]:
    rho = network.radii[0]
    plain, fast, control, large = (find_cell(cells, rho, *step) for step in STEPS)
    cap = next(cell for cell in cells if cell.capped)
    means = {
        "accuracy_gain_SGD": _gain(cells, 0.0),
        "accuracy_gain_SAM": _gain(cells, rho),
        "accuracy_gain_SAM_equal_effective_step": accuracy_gain(control, plain),
        "accuracy_gain_SAM_larger_step": accuracy_gain(large, plain),
        "loss_SAM": plain.loss,
        "loss_SAM_momentum": fast.loss,
        "loss_SAM_momentum_equal_effective_step": control.loss,
        "loss_SAM_larger_step": large.loss,
        "loss_SAM_radius_cap": cap.loss,
        "accuracy_SAM_radius_cap": cap.accuracy,
    }
    return {"rho": rho, **{name: mean.to_dict() for name, mean in means.items()}}


def _diverged(cell: Cell) -> str:
    return f" ({cell.diverged} of {len(cell.records)} seeds diverge)" if cell.diverged else ""


def _name(cell: Cell) -> str:
    return f"SAM{' + cap' if cell.capped else ''}, ρ = {cell.rho:g}" if cell.rho else "SGD"


def _table(network: Network, cells: Sequence[Cell]) -> Table:
    return Table(
        caption=f"{network.name}: means over seeds with 95% intervals; escape steps seed by seed",
        columns=("optimizer", "η", "γ", "η/(1 − γ)", "loss", "accuracy", "escape"),
        rows=tuple(
            (
                _name(cell),
                cell.setting.lr,
                cell.setting.momentum,
                round(cell.lr_effective, 4),
                f"{cell.loss}{_diverged(cell)}",
                f"{100 * cell.accuracy.value:.1f} ± {100 * cell.accuracy.half_width:.1f}%",
                cell.escapes_text,
            )
            for cell in cells
        ),
    )


def _colour(cell: Cell) -> str:
    """One colour an effective step size, the optimizer's own for SGD and the cap."""
    if cell.capped:
        return COLOURS["SAM + cap"]
    if not cell.rho:
        return COLOURS["SGD"]
    return COLOURS["SAM"] if cell.lr_effective < 0.5 else COLOURS["unnormalized SAM"]


def _curves(network: Network, cells: Sequence[Cell]) -> Illustration:
    rho = network.radii[0]
    chosen = {f"SAM, {words}": find_cell(cells, rho, *step) for step, words in STEPS.items()}
    chosen["SGD, η = 0.1, γ = 0"] = find_cell(cells, 0.0, 0.1, 0.0)
    axes = plot_loss_curves(
        {label: _curve_array(cell) for label, cell in chosen.items()},
        {label: _colour(cell) for label, cell in chosen.items()},
        dashed=frozenset(f"SAM, {STEPS[control]}" for control in ((0.01, 0.9), (1.0, 0.0))),
        ax=new_axes(height=3.6),
    )
    axes.set_ylim(-0.08, 3.5)
    add_legend(axes, loc="upper center", ncols=2)
    return Illustration(
        axes=axes,
        caption=f"{network.name}: SAM with ρ = {rho:g}, and SGD. Median over seeds and range, ten-step means. Curves "
        "of one colour share the effective step size η/(1 − γ); dashed ones are the controls (the red one lies on its "
        "fellow).",
        alt="Training loss against step: SAM without momentum and its control at equal effective step stay near 2.3; "
        "SAM with momentum falls, its control with a ten times larger step falls less, SGD falls first.",
    )


def _curve_array(cell: Cell) -> np.ndarray:
    """Ten-step means of the losses, shape (seeds, steps), a diverged run cut short padded with NaN."""
    steps = cell.setting.steps
    assert steps is not None
    rows = [[*record.losses, *[np.nan] * (steps - len(record.losses))] for record in cell.records]
    return sliding_window_view(np.array(rows), WINDOW, axis=1).mean(axis=2)


def _bars(network: Network, cells: Sequence[Cell]) -> Illustration:
    chosen = {
        f"ρ = {rho:g}, {words}": find_cell(cells, rho, *step) for rho in network.radii for step, words in STEPS.items()
    }
    chosen |= {f"ρ = {cell.rho:g}, cap, η = 0.1, γ = 0": cell for cell in cells if cell.capped}
    axes = plot_final_values(
        {label: cell.accuracies for label, cell in chosen.items()},
        {label: _colour(cell) for label, cell in chosen.items()},
        label="test accuracy",
        ax=new_axes(height=3.6),
    )
    return Illustration(
        axes=axes,
        caption=f"{network.name}: SAM's test accuracy at the end, mean (bar), range (line) and seeds (dots). At ρ = "
        f"{network.radii[-1]:g} momentum no longer frees it reliably; the radius cap does.",
        alt=f"Horizontal bars of the test accuracy for SAM with radii {' and '.join(f'{r:g}' for r in network.radii)}, "
        "four pairs of step size and momentum each, and with the radius cap.",
    )
