"""Every variant and schedule of SAM, for the tests that all of them have to pass, and a run to pass them on."""

import torch
from torch.optim import SGD

from saddlescope.optim import SAM
from saddlescope.optim.variants import (
    ASAM,
    AfterPlateau,
    Every,
    FriendlySAM,
    LookaheadSAM,
    MomentumSAM,
    Phase,
    StableSAM,
    VaSSO,
)

CASES = {
    "sam": {},
    "asam": {"variant": ASAM(eta=0.1, biases=True)},
    "friendly": {"variant": FriendlySAM(sigma=0.8, decay=0.7)},
    "lookahead": {"variant": LookaheadSAM(lookahead=0.06)},
    "momentum": {"variant": MomentumSAM()},
    "stable": {"variant": StableSAM()},
    "vasso": {"variant": VaSSO(theta=0.3)},
    "phase": {"schedule": Phase(start=2, stop=6)},
    "every other friendly": {"variant": FriendlySAM(), "schedule": Every(2)},
    "late momentum": {"variant": MomentumSAM(), "schedule": Phase(start=4)},
    "vasso after a plateau": {"variant": VaSSO(), "schedule": AfterPlateau(fraction=0.85, decay=0.5)},
}
"""Options of ``SAM``. All remember something after a few steps, and the schedules change within eight."""

START = torch.tensor([0.9, -0.4, 0.3, 1.2, -0.7, 0.5], dtype=torch.float64)


def coupled(w):
    """A smooth non-convex loss in six variables, every one coupled with the next."""
    return (w.sin() * w.roll(1)).sum() + 0.25 * (w**4).sum() + (w[0] * w[3] - w[5]).square() + 3.0


class Run:
    """SAM on `coupled`, over two groups; ``spoil`` is called after the passes it names, with the run."""

    def __init__(self, options, base=SGD, rho=0.2, dtype=torch.float64, **inner):
        pieces = (START[:1], START[1:5].view(2, 2), START[5:])
        self.parameters = [piece.to(dtype, copy=True).requires_grad_() for piece in pieces]
        groups = [{"params": self.parameters[:2]}, {"params": self.parameters[2:]}]
        if base is SGD:
            inner = {"momentum": 0.9, **inner}
        self.opt = SAM(base(groups, **{"lr": 0.02, **inner}), rho=rho, **options)
        self.passes = 0

    def closure(self):
        self.passes += 1
        self.opt.zero_grad()
        loss = coupled(torch.cat([p.flatten() for p in self.parameters]))
        loss.backward()
        return loss

    def steps(self, count):
        for _ in range(count):
            self.opt.step(self.closure)

    def by_hand(self, *, always=False):
        """One step in its parts; ``always``: with an evaluation at ``w`` where there is no need for it."""
        loss = self.closure() if always or self.opt.needs_gradient else None
        if loss is None:
            self.opt.zero_grad()
        self.opt.first_step()
        with self.opt.second_pass():
            second = self.closure()
        self.opt.second_step(loss=second if loss is None else loss)

    @property
    def point(self):
        return torch.cat([p.detach().flatten() for p in self.parameters])
