"""The paper's claims, each with the function that tests it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import Progress

from saddlescope._checks import refuse, require_choice
from saddlescope.findings import Claim, Finding, Scale
from saddlescope.paper import (
    batch_size,
    beale,
    cosine,
    moment_gap,
    momentum,
    momentum_moment,
    perturbed_point,
    rho_sweep,
    saddle_attractor,
    saddle_demo,
    second_moment,
    table_1,
    toy_network,
    variants_table,
)

CLAIMS = (
    Claim(
        id="T1",
        title="When a saddle attracts SAM",
        statement="A saddle with one negative eigenvalue λ₁ is an attractor of SAM if and only if ρ > −1/λ₁.",
        source="First theorem, for w_p = w + ρ g(w) in continuous time.",
        run=saddle_attractor.examine,
    ),
    Claim(
        id="T2",
        title="How far SAM spreads about a saddle",
        statement="Under gradient noise of covariance |H|/B the variance along an eigendirection after time t is "
        "η|λ|/(2Bk) · (1 − exp(−2kt)) with k = λ(1 + ρλ)².",
        source="Second theorem, SAM as a stochastic differential equation.",
        run=second_moment.examine,
    ),
    Claim(
        id="C1",
        title="How much less SAM spreads than SGD",
        statement="To leading order the variance of SGD exceeds that of SAM by 2ηt²|λ|³ρ/B, so SAM leaves saddles more "
        "slowly.",
        source="Corollary of the second theorem.",
        run=moment_gap.examine,
    ),
    Claim(
        id="T3",
        title="How far SAM spreads with momentum",
        statement="With momentum γ the mean squared displacement is C₁(1 − e^(−C₂(1−γ)))²/((1−γ)³B) + "
        "C₃(1 − e^(−C₄/(1−γ)))/((1−γ)B), so momentum helps SAM out of saddles.",
        source="Third theorem.",
        run=momentum_moment.examine,
    ),
    Claim(
        id="fig-beale",
        title="SAM is caught on Beale's function",
        statement="From (1, 2) gradient descent reaches the minimum, SAM stays at the saddle (0, 1), because ρ exceeds "
        "the threshold −1/λ₁ of the first theorem.",
        source="Introductory figure; official code, Beale experiment.",
        run=beale.examine,
    ),
    Claim(
        id="fig-cosine",
        title="The two gradients of SAM at the saddle",
        statement="At the saddle the cosine between g(w) and g(w_p) swings between −1 and 1.",
        source="Figure of the gradient cosine; official code, Beale experiment.",
        run=cosine.examine,
    ),
    Claim(
        id="fig-wp",
        title="The perturbed point jumps across the saddle",
        statement="While w sits at the saddle, the perturbed point w_p jumps from one side of it to the other.",
        source="Figure of w_p from step 5,000 on; official code, Beale experiment.",
        run=perturbed_point.examine,
    ),
    Claim(
        id="fig-saddle",
        title="The demonstration on x² − y²",
        statement="From (−3, −0.01) gradient descent leaves the saddle, SAM with ρ = 0.5 converges to it, as λ + ρλ² > "
        "0 says.",
        source="Figure of the saddle demonstration; official code, saddle demo.",
        run=saddle_demo.examine,
    ),
    Claim(
        id="fig-toy-network",
        title="A network of one neuron a layer",
        statement="On a network of one neuron a layer SGD leaves the saddle and SAM stays.",
        source="Figure of the toy network with one neuron a layer.",
        run=toy_network.examine,
    ),
    Claim(
        id="fig-rho-sweep",
        title="Radius, momentum and batch size on the toy network",
        statement="The larger ρ, the more runs stay at the saddle; momentum and small batches help them out.",
        source="Figures of the share of stuck runs against ρ, γ and B on the toy network.",
        run=rho_sweep.examine,
    ),
    Claim(
        id="fig-batch-size",
        title="Small batches and the escape from a saddle",
        statement="Smaller batches help SAM to escape saddle points.",
        source="Experiments on the batch size (CIFAR-10 in the paper; exact escape times and handwritten digits here).",
        run=batch_size.examine,
    ),
    Claim(
        id="fig-momentum",
        title="Momentum on a real network",
        statement="Momentum helps SAM out of saddles, and helps SAM more than SGD.",
        source="Experiments on momentum (CIFAR-10 in the paper; handwritten digits here).",
        run=momentum.examine,
    ),
    Claim(
        id="table-1",
        title="Radius and momentum",
        statement="The larger ρ, the more momentum helps SAM: at ρ = 0.5 accuracy rises with γ from 86.2% to 92.0%.",
        source="Table 1 (ResNet-18 on CIFAR-10; a perceptron on handwritten digits at quick scale).",
        run=table_1.examine,
    ),
    Claim(
        id="variants",
        title="Variants of SAM at a saddle",
        statement="Friendly-SAM, Momentum-SAM, a warm start and the radius cap leave a saddle that holds SAM; "
        "Lookahead SAM, Stable SAM and VaSSO do not.",
        source="A comparison of ours; not in the paper.",
        run=variants_table.examine,
    ),
)


def run_claims(only: Iterable[str] | None = None, *, scale: Scale = "quick", progress: bool = True) -> list[Finding]:
    """Test the claims and return one finding each, in the order of `CLAIMS`.

    Args:
        only: ids to test; all by default.
        scale: "quick" or "full", how many samples to take.
        progress: show a bar on stderr.

    Raises:
        ValueError: for an id that is not a claim, or an unknown scale.
    """
    require_choice("scale", scale, ("quick", "full"))
    chosen = _chosen(only)
    return [Finding(claim, claim.run(scale)) for claim in _with_progress(chosen, progress)]


def _chosen(only: Iterable[str] | None) -> Sequence[Claim]:
    if only is None:
        return CLAIMS
    ids = set(only)
    known = {claim.id for claim in CLAIMS}
    if unknown := sorted(ids - known):
        raise refuse("only", ", ".join(unknown), "ids among " + ", ".join(claim.id for claim in CLAIMS))
    return [claim for claim in CLAIMS if claim.id in ids]


def _with_progress(claims: Sequence[Claim], show: bool) -> Iterable[Claim]:
    with Progress(console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task("claims", total=len(claims))
        for claim in claims:
            bar.update(task, description=claim.id)
            yield claim
            bar.advance(task)
