"""Priors on the roughness of a source."""

import numpy as np
import pytest
import scipy.linalg as linalg

from lenssr import InputError
from lenssr.source import PRIORS, LocalPrior, Prior


def local(side):
    return LocalPrior(side, np.linspace(0.5, 2.0, side**2))


@pytest.mark.parametrize("name", PRIORS)
def test_precision_is_symmetric_and_positive(name):
    matrix = Prior(name, 7).dense
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-14)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("name", PRIORS)
def test_log_determinant(name):
    prior = Prior(name, 8)
    assert prior.log_determinant == pytest.approx(np.linalg.slogdet(prior.dense)[1], rel=1e-6)


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "matern32"])
def test_band_holds_the_whole_matrix(name):
    prior = Prior(name, 9)
    factor = linalg.cholesky_banded(prior.columns.T, lower=True)
    assert 2 * np.log(factor[0]).sum() == pytest.approx(prior.log_determinant, rel=1e-6)


def test_curvature_is_blind_to_a_slope_inside_the_grid():
    side = 11
    slope = np.tile(np.arange(side, dtype=float), (side, 1))
    bent = (Prior("curvature", side).matrix @ slope.ravel()).reshape(side, side)
    assert np.abs(bent[3:-3, 3:-3]).max() < 0.01


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="prior = 'smooth': give one of 'gradient'"):
        Prior("smooth", 5)


@pytest.mark.parametrize("name", PRIORS)
def test_variances_are_those_of_the_inverse(name):
    prior = Prior(name, 7)
    expected = np.diag(np.linalg.inv(prior.dense))
    np.testing.assert_allclose(prior._variance(1 / prior.spectrum), expected, rtol=1e-5)


def test_a_matern_field_forgets_beyond_its_length():
    prior = Prior("matern32", 31, length=0.1)
    covariance = np.linalg.inv(prior.dense)[15 * 31 + 15].reshape(31, 31)[15]
    correlation = covariance / covariance[15]
    distance = np.abs(np.arange(31) - 15) / (0.1 * 31)
    expected = (1 + np.sqrt(3) * distance) * np.exp(-np.sqrt(3) * distance)
    # The lattice and its reflecting edges change a little.
    np.testing.assert_allclose(correlation[6:25], expected[6:25], atol=0.05)


def test_a_local_prior_is_one_of_its_own_matrix():
    prior = local(7)
    expected = np.diag(np.linalg.inv(prior.dense))
    np.testing.assert_allclose(prior._variance(1 / prior.spectrum), expected, rtol=1e-5)
    np.testing.assert_allclose(prior.apply(np.arange(49.0)), prior.dense @ np.arange(49.0), atol=1e-9)
    assert prior.log_determinant == pytest.approx(np.linalg.slogdet(prior.dense)[1], rel=1e-6)
    factor = linalg.cholesky_banded(prior.columns.T, lower=True)
    assert 2 * np.log(factor[0]).sum() == pytest.approx(prior.log_determinant, rel=1e-6)


def test_a_local_prior_is_strict_where_a_field_is_smooth():
    y, x = np.indices((24, 24)) - 11.5
    knots = np.exp(-(np.hypot(x - 6, y) ** 2) / 4)
    stiffness = LocalPrior.like((knots - 0.01 * np.hypot(x, y)).ravel(), 24).stiffness.reshape(24, 24)
    assert stiffness[12, 3] > 5 * stiffness[12, 18]
    np.testing.assert_allclose(LocalPrior.like(np.zeros(81), 9).stiffness, 1.0)


def test_only_matern_has_a_length():
    with pytest.raises(InputError, match="length = 0.2: only 'matern32'"):
        Prior("curvature", 5, length=0.2)


@pytest.mark.parametrize(("name", "free"), [("gradient", 1), ("curvature", 3), ("laplacian3", 6)])
def test_the_local_variance_is_without_the_modes_that_the_prior_does_not_mind(name, free):
    prior = Prior(name, 12)
    first = np.sort(1 / prior.spectrum.ravel())[::-1][:free].sum()
    assert (prior._variance(1 / prior.spectrum) - prior.local_variance).sum() == pytest.approx(first)
    own = Prior("matern32", 12)
    np.testing.assert_array_equal(own.local_variance, own._variance(1 / own.spectrum))


@pytest.mark.parametrize(("name", "power"), [("gradient", 0), ("curvature", 2), ("laplacian3", 4)])
def test_a_smooth_field_is_as_rough_on_a_finer_grid(name, power):
    """Once the strength goes with the nodes along a side as it says."""

    def roughness(side):
        y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
        field = np.exp(-(x**2 + y**2) / 0.1).ravel()
        return field @ Prior(name, side).apply(field)

    coarse = Prior(name, 60)
    assert coarse.finer(120) == 2**power
    assert coarse.finer(120) * roughness(120) == pytest.approx(roughness(60), rel=0.06)
