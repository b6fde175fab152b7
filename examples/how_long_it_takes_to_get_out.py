"""Mean steps that minibatch noise needs to carry SAM out of a saddle: exact, in the diffusion limit, and simulated.

Run it as a script, or cell by cell in an editor that knows ``# %%``. A few seconds on a CPU; it writes a figure.
"""

# %% Theory
# Along an eigenvalue of -1, out to |w| = 0.5. Below rho = 1 the batch size hardly matters; above, the saddle attracts
# and the time grows exponentially with it.
import numpy as np

import saddlescope as ss
from saddlescope.plots.diffusion import plot_escape_times
from saddlescope.plots.style import COLOURS

setting = dict(lr=0.05, radius=0.5)
rhos = np.linspace(0.05, 1.4, 40)
cases = {"B = 1": 1, "B = 4": 4}
colours = dict(zip(cases, (COLOURS["SAM"], COLOURS["GD"]), strict=True))
exact, diffusion = (
    {
        name: (rhos, ss.escape_time(-1.0, rho=rhos, batch_size=size, formula=formula, **setting))
        for name, size in cases.items()
    }
    for formula in ("exact", "diffusion")
)

# %% Simulation
# A replica that is still inside at the end is counted as what it is, not left out.
simulated = {name: [] for name in cases}
for name, batch_size in cases.items():
    for rho in (0.1, 0.5, 0.9):
        times = ss.simulate_escape(
            [-1.0],
            ss.SAMMap(lr=0.05, rho=rho, normalized=False),
            radius=0.5,
            batch_size=batch_size,
            replicas=2000,
            max_steps=20_000,
        )
        theory = float(ss.escape_time(-1.0, rho=rho, batch_size=batch_size, **setting))
        print(f"{name}, rho = {rho}: {times.mean:8.1f} +- {times.standard_error:.1f} simulated, {theory:8.1f} exact")
        simulated[name].append((rho, times.mean, *times.confidence_interval))

points = {name: tuple(np.array(rows).T) for name, rows in simulated.items()}
ax = plot_escape_times(exact, colours, diffusion=diffusion, simulated=points)
ax.set(xscale="linear", xlabel="rho |lambda|")
ax.figure.savefig("how_long_it_takes_to_get_out.png", dpi=200)
