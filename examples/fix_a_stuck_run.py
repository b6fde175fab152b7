"""SAM stuck at a saddle on a real network, seen from the inside, and freed by a cap on its radius.

Run it as a script, or cell by cell in an editor that knows ``# %%``. A few seconds on a CPU; it writes a figure.
"""

# %% A run that does not learn
# A perceptron on 1,437 handwritten digits. SGD learns them; SAM with a radius of 1 stays at chance, a loss of
# ln 10 = 2.30, for as long as one cares to wait.
from dataclasses import replace

import torch

from saddlescope.curvature import HessianOperator, extreme_eigenvalues
from saddlescope.optim import SAM, RadiusCap
from saddlescope.plots.training import plot_loss_curves
from saddlescope.training import ExperimentConfig, make_task, run_experiment

sam = ExperimentConfig(task="digits-mlp", optimizer="sam", lr=0.1, rho=1.0, steps=600, seed=0)
runs = {
    "SGD": replace(sam, optimizer="sgd", rho=0.0),
    "SAM": sam,
    "SAM + cap": replace(sam, radius_cap=RadiusCap()),
}
losses = {}
print(f"{'':12}training loss   test accuracy   seconds")
for name, config in runs.items():
    record = run_experiment(config)
    print(f"{name:12}{record.final_loss:13.3f}{record.test_accuracy:16.3f}{record.seconds:10.1f}")
    losses[name] = record.losses
plot_loss_curves(losses).figure.savefig("fix_a_stuck_run.png", dpi=200)

# %% Why
# The same run by hand, the way SAM is used in one's own loop. After 300 steps the gradient is small, and the
# Hessian of the whole training loss has an eigenvalue well below zero: this is a saddle, not a minimum.
torch.manual_seed(0)
task = make_task("digits-mlp")
optimizer = SAM(torch.optim.SGD(task.model.parameters(), lr=0.1), rho=1.0)
generator = torch.Generator().manual_seed(0)


def train(steps):
    for _ in range(steps):
        batch = task.draw(256, generator)

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = task.loss_fn(batch)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
    return loss.item()


print(f"\nloss after 300 steps: {train(300):.3f}")
ends = extreme_eigenvalues(HessianOperator(task.loss_fn, task.model.parameters(), task.batches))
norm = optimizer.last_step.gradient_norm
print(f"eigenvalues from {ends.minimum:.3f} to {ends.maximum:.3f}, batch gradient {norm:.3f}")
print(f"rho |lambda_min| / |g| = {abs(ends.minimum) / norm:.1f}, roughly the trap number: above 1, SAM turns back")

# %% What to change
# A radius below |g| / |lambda_min| lets go. This is what the cap does by itself, while the run lasts.
optimizer.param_groups[0]["rho"] = 0.5 * norm / abs(ends.minimum)
print(f"\nloss after 300 more steps with rho = {optimizer.param_groups[0]['rho']:.2f}: {train(300):.3f}")
