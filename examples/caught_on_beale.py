"""Gradient descent and SAM from one start on Beale's function, and who else is caught.

Run it as a script, or cell by cell in an editor that knows ``# %%``. A few seconds on a CPU; it writes two figures.
"""

# %% Two paths
# From (1, 2) gradient descent finds its way into the valley of the minimum. SAM turns to the saddle and stays.
import torch

import saddlescope as ss
from saddlescope.plots.basins import plot_basins
from saddlescope.plots.landscapes import mark_points, plot_contours, plot_paths
from saddlescope.plots.style import colour

beale = ss.landscapes.get("beale")
paths, colours = {}, {}
for name, update in {"GD": ss.GradientMap(lr=1e-4), "SAM": ss.SAMMap(lr=1e-4, rho=0.5)}.items():
    run = ss.simulate(beale, update, [[1.0, 2.0]], steps=30_000, record_every=50)
    paths[name], colours[name] = run.points[0].numpy(), colour(name)
    print(f"{name:4} ends at", run.final[0].tolist())

x, y = torch.linspace(-0.5, 3.5, 200), torch.linspace(-0.5, 2.2, 200)
grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
loss = torch.vmap(beale.loss)(grid.reshape(-1, 2)).reshape(200, 200)
ax = plot_contours(x, y, loss)
plot_paths(paths, colours, ax=ax)
mark_points({"minimum": (3.0, 0.5), "saddle": (0.0, 1.0), "start": (1.0, 2.0)}, ax=ax)
ax.figure.savefig("caught_on_beale_paths.png", dpi=200)

# %% Who is caught
# Every start of a grid, until it is certain where it ends. The saddle's basin is no small ball: it reaches to the edge.
basins = ss.map_basins(beale, ss.SAMMap(lr=1e-3, rho=0.5), bounds=[(-2, 4), (-1.5, 3)], resolution=160)
for label, share in basins.to_dict()["fractions"].items():
    print(f"{label:10} {share:.1%}")
plot_basins(basins).figure.savefig("caught_on_beale_basins.png", dpi=200)
