"""Both ends of known spectra, their residuals, and honesty about what was not found."""

import json
import math

import pytest
import torch

from saddlescope.curvature import HessianOperator, extreme_eigenvalues
from saddlescope.curvature.lanczos import lanczos


class Symmetric:
    """A rotated diagonal matrix that counts its products."""

    def __init__(self, spectrum, seed=0):
        self.spectrum = torch.as_tensor(spectrum, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(len(self.spectrum), len(self.spectrum), generator=generator, dtype=torch.float64)
        rotation = torch.linalg.qr(square).Q
        self.matrix = rotation @ self.spectrum.diag() @ rotation.T
        self.calls = 0

    def matvec(self, vector):
        self.calls += 1
        return self.matrix @ vector

    def random_vector(self, seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(len(self.spectrum), generator=generator, dtype=torch.float64)


SPECTRA = {
    "negative end small": torch.cat([torch.tensor([-0.02]), torch.linspace(0, 0.3, 197), torch.tensor([0.4, 0.5])]),
    "symmetric": torch.cat([torch.tensor([-0.4957, 0.4957]), torch.linspace(-0.2, 0.2, 198)]),
    "all negative": torch.linspace(-3, -1, 100),
    "one direction": torch.cat([torch.zeros(99), torch.ones(1)]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("seed", [0, 1])
def test_ends_of_known_spectra(name, seed):
    operator = Symmetric(SPECTRA[name])
    ends = extreme_eigenvalues(operator, seed=seed)
    low, high = operator.spectrum.min().item(), operator.spectrum.max().item()
    assert ends.converged and ends.products == operator.calls <= 25
    assert ends.minimum == pytest.approx(low, rel=0.01, abs=1e-12)
    assert ends.maximum == pytest.approx(high, rel=0.01)


def test_residuals_are_those_of_the_vectors():
    operator = Symmetric(SPECTRA["negative end small"])
    ends = extreme_eigenvalues(operator, tolerance=0.01)
    for value, vector, residual in (
        (ends.minimum, ends.vector_minimum, ends.residual_minimum),
        (ends.maximum, ends.vector_maximum, ends.residual_maximum),
    ):
        assert vector.norm().item() == pytest.approx(1.0, abs=1e-12)
        measured = (operator.matrix @ vector - value * vector).norm().item()
        assert measured == pytest.approx(residual, rel=1e-6)
        assert residual <= 0.01 * abs(value)


def test_a_spent_budget_is_not_called_converged():
    ends = extreme_eigenvalues(Symmetric(SPECTRA["symmetric"]), max_products=4)
    assert not ends.converged and ends.products == 4
    assert ends.minimum > -0.48  # and indeed it is not there yet


def test_products_that_are_not_finite_are_a_result():
    w = torch.zeros(3, requires_grad=True)
    ends = extreme_eigenvalues(HessianOperator(lambda _: w.abs().pow(1.5).sum(), [w], [None]))
    assert not ends.converged and math.isnan(ends.minimum)
    assert json.loads(json.dumps(ends.to_dict(), allow_nan=False))["minimum"] is None


def test_the_basis_stays_orthonormal_in_float32():
    operator = Symmetric(torch.logspace(-4, 4, 300))
    matrix = operator.matrix.float()
    *_, space = lanczos(lambda v: matrix @ v, operator.random_vector(0).float(), 60)
    assert (space.basis @ space.basis.T - torch.eye(60)).abs().max() < 1e-5


def test_a_warm_start_needs_fewer_products():
    operator = Symmetric(SPECTRA["symmetric"])

    def products(start):
        for count, space in enumerate(lanczos(operator.matvec, start, 64), 1):
            if space.residual(0) <= 0.001:
                return count

    noise = 0.01 * operator.random_vector(1) / operator.random_vector(1).norm()
    eigenvector = torch.linalg.eigh(operator.matrix).eigenvectors[:, 0]
    assert products(eigenvector + noise) < products(operator.random_vector(2)) / 2


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"max_products": 0}])
def test_wrong_use_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        extreme_eigenvalues(Symmetric([1.0, 2.0]), **options)
