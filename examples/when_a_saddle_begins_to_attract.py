"""A saddle becomes an attractor as the radius grows: the bifurcation of unnormalized SAM on a double well.

Run it as a script, or cell by cell in an editor that knows ``# %%``. A few seconds on a CPU; it writes a figure.
"""

# %% The branches
# The saddle between the wells has curvature -1. From rho = 1 on it attracts, and a pair of repelling points that are
# critical for w_p but not for w parts from it, at sqrt(1 - 1/rho): the edge of its basin.
import numpy as np

import saddlescope as ss
from saddlescope.plots.bifurcation import plot_bifurcation

well = ss.landscapes.get("double_well")
sam = ss.SAMMap(lr=0.1, rho=1.0, normalized=False)
diagram = ss.continue_in_rho(well, sam, np.linspace(0.2, 2.5, 40).tolist())
for event in diagram.events:
    print(f"{event.kind} at rho = {event.value:.6f}")

plot_bifurcation(diagram).figure.savefig("when_a_saddle_begins_to_attract.png", dpi=200)

# %% The same numbers without a picture
for rho in (0.9, 1.1):
    print(rho, ss.classify([-1.0, 1.0], ss.SAMMap(lr=0.1, rho=rho, normalized=False)).verdict)
