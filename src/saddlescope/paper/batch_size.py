"""fig-batch-size: how the batch size changes when SAM leaves a saddle, in the analytic model and on a network."""

from __future__ import annotations

from collections.abc import Sequence

from saddlescope.findings import Check, Evidence, Scale
from saddlescope.paper.batch_cases import (
    BATCHES,
    LR,
    MAX_STEPS,
    MOMENTUM,
    MOMENTUM_BATCHES,
    MOMENTUM_RADII,
    NAMES,
    RADIUS,
    SETTINGS,
    SIMULATED,
    BatchCase,
    batch_case,
    find,
    mean_text,
    sooner,
)
from saddlescope.paper.batch_figures import (
    escape_table,
    finite,
    momentum_table,
    over_batches_figure,
    radii_figure,
    radius_table,
    survival_figure,
    with_momentum_figure,
)
from saddlescope.paper.batch_networks import (
    WORDS,
    network_checks,
    network_figure,
    network_numbers,
    network_summary,
    network_table,
    train_batch_grid,
)
from saddlescope.paper.batch_radius import (
    DIMENSION,
    TrappingRadius,
    noise_dominated_radius,
    sampled_curvature_radius,
)

REPLICAS = {"quick": 1_000, "full": 20_000}
SEEDS = {"quick": 5, "full": 20}


def examine(scale: Scale) -> Evidence:
    """Compute and simulate escapes over batch sizes, noises and momenta, measure the trap, and train a network."""
    replicas = REPLICAS[scale]
    network = train_batch_grid(SEEDS[scale])
    cases = [
        batch_case(noise, rho, batch_size, replicas=replicas, simulated=batch_size in SIMULATED)
        for noise, rho in SETTINGS
        for batch_size in BATCHES
    ]
    moving = [
        batch_case("additive", rho, batch_size, lr=lr, momentum=MOMENTUM, replicas=replicas)
        for rho in MOMENTUM_RADII
        for lr in (LR, LR * (1 - MOMENTUM))
        for batch_size in MOMENTUM_BATCHES
    ]
    sampled, normalized = (
        [measure(b, replicas=5 * replicas, seed=b) for b in (1, 4, 16, 64)]
        for measure in (sampled_curvature_radius, noise_dominated_radius)
    )
    outside = find(cases, "additive", 0.5, 64).exact / find(cases, "additive", 0.5, 1).exact
    inside = find(cases, "additive", 1.2, 4).exact / find(cases, "additive", 1.2, 1).exact
    return Evidence(
        setting=f"Loss λw²/2 with λ = −1, unnormalized SAM from rest at w = 0, γ = 0, η = {LR:g}, escape at |w| ≥ "
        f"{RADIUS:g}; gradient noise of variance |λ|/B (assumed, as in the paper) in three models: in the descent "
        "gradient only, one minibatch for both gradients, one for each. Exact mean of the discrete recursion (integral "
        f"equation), and {replicas:,} replicas with right-censoring at {MAX_STEPS:,} steps where the mean is below "
        f"that. γ = {MOMENTUM:g} at equal η and at equal η/(1 − γ). Trapping radii: the mean drift of "
        f"{5 * replicas:,} replicas, with samples that disagree about the curvature (variance λ²), and for normalized "
        f"SAM in {DIMENSION} dimensions with isotropic noise. {WORDS}",
        ours=f"Smaller batches do leave sooner, but outside the trap only by the logarithm: {outside:.3g} times "
        f"fewer steps at B = 1 than at 64 for ρ|λ| = 0.5. Inside it (ρ > 1/|λ|) the time is exponential in B: "
        f"{inside:.3g} times fewer at B = 1 than at 4 for ρ|λ| = 1.2. With samples that disagree about the "
        f"curvature small batches trap more: from ρ = {sampled[0].measured:.3f}/|λ| at B = 1. Normalized SAM is the "
        f"reverse, its trapping radius falls like B^(−1/2). {network_summary(network)}",
        checks=checks(cases, moving, sampled, normalized) + network_checks(network),
        numbers={
            "exact_steps": {
                f"{noise}, rho={rho:g}": [finite(find(cases, noise, rho, b).exact) for b in BATCHES]
                for noise, rho in SETTINGS
            },
            "batch_sizes": list(BATCHES),
            "largest_deviation": max(abs(case.deviation) for case in cases + moving),
            "simulated_means": sum(case.times is not None for case in cases + moving),
            "trapping_radius_sampled_curvature": {r.batch_size: r.measured for r in sampled},
            "trapping_radius_normalized": {r.batch_size: r.measured for r in normalized},
            "network_escape_steps": network_numbers(network),
        },
        tables=(
            escape_table(cases),
            momentum_table(cases, moving),
            radius_table(sampled, normalized),
            network_table(network),
        ),
        illustrations=(
            over_batches_figure(cases, "additive"),
            over_batches_figure(cases, "shared"),
            survival_figure(cases),
            with_momentum_figure(cases, moving),
            radii_figure(sampled, normalized),
            network_figure(network),
        ),
    )


def checks(
    cases: Sequence[BatchCase],
    moving: Sequence[BatchCase],
    sampled: Sequence[TrappingRadius],
    normalized: Sequence[TrappingRadius],
) -> tuple[Check, ...]:
    """Compare small with large batches outside and inside the trap, with SGD, with momentum, and the trap itself."""
    outside = {noise: (find(cases, noise, 0.5, 1), find(cases, noise, 0.5, 64)) for noise in NAMES}
    inside = {
        name: (find(cases, noise, rho, 1), find(cases, noise, rho, large))
        for name, noise, rho, large in (
            ("descent only, ρ|λ| = 1.2", "additive", 1.2, 4),
            ("one minibatch, ρ|λ| = 3", "shared", 3.0, 2),
            ("two minibatches, ρ|λ| = 1.2", "independent", 1.2, 4),
        )
    }
    gain = {noise: large.exact / small.exact for noise, (small, large) in outside.items()}
    first, last = (find(cases, "additive", 0.0, b).exact for b in (1, 64))
    sgd, plain_gain = last / first, last - first
    slow, fast = (find(moving, "additive", 1.2, 4, lr) for lr in (LR * (1 - MOMENTUM), LR))
    plain = find(cases, "additive", 1.2, 4)
    return (
        Check(
            statement="Outside the trap, at ρ|λ| = 0.5, B = 1 leaves in fewer steps than B = 64, for every noise.",
            passed=all(sooner(*pair) for pair in outside.values()),
            measured="; ".join(
                f"{NAMES[noise]}: {mean_text(small)} and {mean_text(large)}"
                for noise, (small, large) in outside.items()
            )
            + " steps.",
        ),
        Check(
            statement="Inside the trap, ρ > 1/|λ|, smaller batches leave in fewer steps.",
            passed=all(sooner(*pair) for pair in inside.values()),
            measured="; ".join(
                f"{name}: {mean_text(small)} at B = 1, {mean_text(large)} at {large.batch_size}"
                for name, (small, large) in inside.items()
            )
            + ".",
        ),
        Check(
            statement="Outside the trap too the effect is strong: 64 times the batch takes at least 8 times the steps.",
            passed=min(gain.values()) >= 8,
            measured="Factors "
            + ", ".join(f"{x:.2f} ({NAMES[noise]})" for noise, x in gain.items())
            + ": each doubling of B adds ln 2/(2ηk) steps, k = |λ|(1 − ρ|λ|), however large B is.",
            essential=False,
        ),
        Check(
            statement="Small batches help SAM more than SGD: for every noise the factor is larger at ρ|λ| = 0.5 than "
            "at 0.",
            passed=min(gain.values()) > sgd,
            measured=", ".join(f"{x:.2f} ({NAMES[noise]})" for noise, x in gain.items())
            + f" and {sgd:.2f} for SGD; in steps "
            + ", ".join(f"{large.exact - small.exact:.0f}" for small, large in outside.values())
            + f" and {plain_gain:.0f}.",
            essential=False,
        ),
        Check(
            statement="No batch size makes a trap: the radius that traps does not fall as B falls, also when samples "
            "disagree about the curvature.",
            passed=sampled[0].interval[1] >= sampled[-1].interval[0],
            measured=f"With curvatures of variance λ² and one minibatch a step ρ|λ| = {sampled[0].measured:.3f} ± "
            f"{1.96 * sampled[0].standard_error:.1g} traps at B = 1, {sampled[-1].measured:.3f} ± "
            f"{1.96 * sampled[-1].standard_error:.1g} at B = 64; |λ|/(λ² + V/B) says {sampled[0].predicted:.3f} and "
            f"{sampled[-1].predicted:.3f}.",
            essential=False,
        ),
        Check(
            statement="When noise dominates the gradient of normalized SAM, smaller batches need a larger radius to "
            "trap.",
            passed=normalized[0].interval[0] > normalized[-1].interval[1],
            measured=f"ρ|λ|/σ = {normalized[0].measured:.2f} at B = 1, {normalized[-1].measured:.3f} at 64; predicted "
            f"{normalized[0].predicted:.2f} and {normalized[-1].predicted:.3f}.",
            essential=False,
        ),
        Check(
            statement="Momentum helps in the trap at equal η.",
            passed=sooner(fast, plain),
            measured=f"B = 4, ρ|λ| = 1.2, γ = {MOMENTUM:g}: {mean_text(fast)} steps for {mean_text(plain)} at γ = 0. "
            "The barrier is multiplied by 1 − γ.",
            essential=False,
        ),
        Check(
            statement="It helps at equal η/(1 − γ) too.",
            passed=slow.exact < plain.exact,
            measured=f"Exact means {slow.exact:,.0f} and {plain.exact:,.0f}: the barrier is the same, and inertia adds "
            "its free path to the radius.",
            essential=False,
        ),
    )
