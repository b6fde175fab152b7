"""The compiled engine against the eager oracle, and what a kernel must not do to the process."""

import ctypes
import math

import pytest
import torch

from saddlescope import landscapes
from saddlescope.dynamics import GaussianNoise, GradientMap, SAMMap, c_backend, engine, simulate
from saddlescope.dynamics.scalar_program import OPERATIONS
from saddlescope.dynamics.step import Step
from saddlescope.dynamics.trace import trace
from saddlescope.landscapes import Landscape

MAPS = {
    "gd": GradientMap(lr=1e-3),
    "gd-momentum": GradientMap(lr=1e-3, momentum=0.9),
    "sam": SAMMap(lr=1e-3, rho=0.05),
    "sam-momentum": SAMMap(lr=1e-3, rho=0.05, momentum=0.9),
    "unnormalized": SAMMap(lr=1e-3, rho=1e-4, normalized=False),
    "unnormalized-momentum": SAMMap(lr=1e-3, rho=1e-4, momentum=0.9, normalized=False),
}
NOISES = {
    "additive": GaussianNoise(0.1),
    "shared": GaussianNoise(0.1, batch_size=4, sharing="shared"),
    "independent": GaussianNoise(0.1, sharing="independent"),
}


def starts_for(landscape, count, seed=0):
    low, high = torch.tensor(landscape.bounds, dtype=torch.float64).T / 2
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, landscape.dimension, generator=generator, dtype=torch.float64)


def assert_same_up_to_rounding(landscape, update, dtype, noise):
    """The engines differ by rounding: by what moving the starts by one rounding error does to eager torch itself.

    257 starts are two whole blocks and one more, so that a padded block is covered.
    """

    def run(starts, which="eager"):
        return simulate(landscape, update, starts, 3, noise=noise, dtype=dtype, engine=which, seed=11, record_every=1)

    starts = starts_for(landscape, 257).to(dtype)
    generator = torch.Generator().manual_seed(1)
    eager, compiled = run(starts), run(starts, "compiled")
    assert compiled.engine == "compiled"
    assert torch.equal(compiled.status, eager.status)
    kept = eager.points.abs().amax(dim=(1, 2)) < 1e6
    assert kept.float().mean() > 0.5
    rounding = torch.finfo(dtype).eps
    bound = 200 * rounding * (1 + eager.points.abs().amax(dim=(1, 2)))
    for _ in range(5):
        signs = torch.randint(0, 2, starts.shape, generator=generator) * 2 - 1
        moved = run(starts * (1 + signs * rounding)).final
        bound = torch.maximum(bound, 100 * (moved - eager.final).abs().amax(dim=1))
    difference = (compiled.final - eager.final).abs().amax(dim=1)
    assert (difference <= bound)[kept].all(), (difference / bound)[kept].max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("update", MAPS)
@pytest.mark.parametrize("name", landscapes.names())
def test_agrees_with_the_eager_oracle(name, update, dtype):
    assert_same_up_to_rounding(landscapes.get(name), MAPS[update], dtype, None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("update", MAPS)
def test_noise_agrees_with_the_eager_oracle(update, noise, dtype):
    assert_same_up_to_rounding(landscapes.get("double_well"), MAPS[update], dtype, NOISES[noise])


def every_operation(w):
    a, b = w.unbind()
    smooth = torch.exp(a / 9) + torch.log(a * a + 1) + torch.sin(b) * torch.cos(a) + torch.tan(b / 9) + torch.tanh(a)
    kinked = a.abs() + torch.relu(b) + torch.maximum(a, b) - torch.minimum(a * b, b) + torch.clamp(a, -1.0, 1.0)
    chosen = torch.where((a > 0) & ~(b >= a), a * b, torch.sqrt(b * b + 1)) + torch.where(a != b, a, b)
    powers = (a * a + 1) ** 1.5 + b**5 + (a * a + 2) ** b + (b * b + 1) ** -2 + torch.rsqrt(a * a + 1)
    special = torch.sigmoid(a) + torch.log1p(b * b) + torch.expm1(a / 9) + torch.sign(a) * b + 1 / (a * a + 1)
    matrix = torch.stack([w, w * w])
    algebra = (matrix @ matrix.T).sum() + (matrix @ w).prod() + matrix.mean() + torch.dot(w, w).square()
    extremes = matrix.amax() + matrix.amin(dim=0).sum() + torch.logical_or(a < 0, b <= 0) * a
    return smooth + kinked + chosen + powers + special + algebra + extremes


EVERYTHING = Landscape("everything", every_operation, 2, [(-2, 2), (-2, 2)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_operation_has_its_meaning(dtype):
    starts = starts_for(EVERYTHING, 1000)
    step = GradientMap(lr=1.0)
    compiled = simulate(EVERYTHING, step, starts, 1, dtype=dtype, engine="compiled").final
    eager = simulate(EVERYTHING, step, starts, 1, dtype=dtype, engine="eager").final
    torch.testing.assert_close(compiled, eager, rtol=300 * torch.finfo(dtype).eps, atol=300 * torch.finfo(dtype).eps)


def test_every_operation_is_in_that_test():
    step = Step(EVERYTHING.loss, 2, GradientMap(lr=0.1))
    forward = trace(lambda w: (every_operation(w).unsqueeze(0),), torch.rand(2, dtype=torch.float64))
    backward = trace(
        lambda *x: (step(*x),), torch.rand(2, dtype=torch.float64), torch.ones(1, dtype=torch.float64), torch.zeros(0)
    )
    used = {v.operation for program in (forward, backward) for v in program.values.values()}
    assert used >= OPERATIONS


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: torch.relu(w).sum() + w.abs().sum(),
        lambda w: torch.relu(torch.log(w)).square().sum(),
        lambda w: torch.maximum(w, 1 - w).sum(),
        lambda w: (0 * w.exp()).sum() + (w**2).sum(),
        lambda w: torch.log(w).sum() - torch.sqrt(w).sum(),
        lambda w: torch.where(w > 0, w, w * w).sum(),
    ],
)
def test_nan_and_infinity_behave_as_in_torch(loss):
    """From huge, tiny and negative points, states pass through overflow and NaN in both engines at the same step."""
    landscape = Landscape("edge", loss, 1, [(-1, 1)])
    starts = torch.tensor([-1e300, -800.0, -1.0, -0.0, 0.0, 1e-320, 1.0, 800.0, 1e300], dtype=torch.float64).unsqueeze(
        1
    )
    for steps in (1, 2, 3):
        results = [
            simulate(landscape, GradientMap(lr=0.5), starts, steps, engine=which).final
            for which in ("compiled", "eager")
        ]
        torch.testing.assert_close(*results, rtol=1e-12, atol=0, equal_nan=True)


def test_denormals_of_the_process_survive_a_kernel():
    tiny = torch.tensor([5e-324], dtype=torch.float64)
    assert (tiny * 1.0).item() == 5e-324
    simulate(landscapes.get("beale"), SAMMap(lr=1e-4, rho=0.5), [[1.0, 2.0]], 10, engine="compiled")
    assert (tiny * 1.0).item() == 5e-324
    libm = ctypes.CDLL(None)
    libm.ldexp.restype, libm.ldexp.argtypes = ctypes.c_double, [ctypes.c_double, ctypes.c_int]
    assert libm.ldexp(1.0, -1074) == 5e-324


@pytest.mark.parametrize("which", ["compiled", "eager"])
def test_results_depend_on_seed_replica_and_step_only(which):
    """The same bits for any number of threads, any records in between and any companions behind."""
    landscape = landscapes.get("beale")
    starts = starts_for(landscape, 700)

    def run(count=700, record_every=None, threads=1, seed=5):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return simulate(
                landscape,
                SAMMap(lr=1e-4, rho=0.1, momentum=0.5),
                starts[:count] / 4,
                60,
                noise=GaussianNoise(1.0, sharing="independent"),
                record_every=record_every,
                seed=seed,
                engine=which,
            ).final
        finally:
            torch.set_num_threads(before)

    reference = run()
    assert torch.equal(run(threads=2), reference)
    assert torch.equal(run(record_every=7), reference)
    assert torch.equal(run(count=130), reference[:130])
    assert not torch.equal(run(seed=6), reference)


def test_numbers_share_a_kernel_and_forms_do_not():
    landscape = Landscape("fresh", lambda w: (w**4).sum(), 1, [(-1, 1)])
    before = engine._kernel.cache_info().misses
    for update in (SAMMap(0.1, 0.2), SAMMap(0.2, 0.3), SAMMap(0.1, 0.2, momentum=0.5)):
        simulate(landscape, update, [1.0], 1)
    assert engine._kernel.cache_info().misses == before + 2


def test_without_a_compiler_it_works_and_says_so(monkeypatch):
    monkeypatch.setattr(c_backend.shutil, "which", lambda name: None)
    c_backend.find_compiler.cache_clear()
    landscape = Landscape("no-compiler", lambda w: (w**2).sum() / 2, 1, [(-1, 1)])
    try:
        with pytest.warns(RuntimeWarning, match="no C compiler was found; install gcc or clang"):
            result = simulate(landscape, GradientMap(lr=0.5), [1.0], 1)
        with pytest.raises(RuntimeError, match="no C compiler"):
            simulate(landscape, GradientMap(lr=0.5), [1.0], 1, engine="compiled")
    finally:
        c_backend.find_compiler.cache_clear()
    assert result.final.item() == 0.5
    assert result.engine == "eager"


def test_an_operation_without_scalar_form_runs_eagerly_and_is_named():
    landscape = Landscape("sorted", lambda w: (torch.sort(w).values ** 2).sum() / 2, 2, [(-1, 1)] * 2)
    with pytest.warns(RuntimeWarning, match="sort"):
        result = simulate(landscape, GradientMap(lr=0.5), [1.0, -1.0], 1)
    assert result.final.tolist() == [[0.5, -0.5]]


def test_a_kernel_another_user_could_have_written_is_not_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    open_folder = tmp_path / "saddlescope" / "kernels"
    open_folder.mkdir(parents=True)
    open_folder.chmod(0o777)
    c_backend._private.cache_clear()
    try:
        assert c_backend._cache_folder() != open_folder
        open_folder.chmod(0o700)
        c_backend._private.cache_clear()
        assert c_backend._cache_folder() == open_folder
    finally:
        c_backend._private.cache_clear()


def test_the_kernel_without_vector_mathematics_is_the_same_function(monkeypatch):
    landscape = Landscape("scalar-math", lambda w: torch.sin(w).sum() + torch.exp(-w * w).sum(), 1, [(-2, 2)])
    eager = simulate(landscape, SAMMap(0.1, 0.1), torch.linspace(-2, 2, 99).unsqueeze(1), 5, engine="eager").final
    monkeypatch.setattr(c_backend, "_has_vector_math", lambda: False)
    plain = simulate(landscape, SAMMap(0.1, 0.1), torch.linspace(-2, 2, 99).unsqueeze(1), 5, engine="compiled").final
    torch.testing.assert_close(plain, eager, rtol=1e-13, atol=1e-13)
    assert math.isfinite(plain.sum())
