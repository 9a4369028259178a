"""Priors on the roughness of a source."""

import numpy as np
import pytest
import scipy.linalg as linalg

from lenssr import InputError
from lenssr.inversion import PRIORS, Prior


@pytest.mark.parametrize("name", PRIORS)
def test_precision_is_symmetric_and_positive(name):
    matrix = Prior(name, 7).dense
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-14)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("name", PRIORS)
def test_log_determinant(name):
    prior = Prior(name, 8)
    assert prior.log_determinant == pytest.approx(np.linalg.slogdet(prior.dense)[1], rel=1e-6)


@pytest.mark.parametrize("name", PRIORS)
def test_band_holds_the_whole_matrix(name):
    prior = Prior(name, 9)
    factor = linalg.cholesky_banded(prior.band, lower=True)
    assert 2 * np.log(factor[0]).sum() == pytest.approx(prior.log_determinant, rel=1e-6)


def test_curvature_is_blind_to_a_slope_inside_the_grid():
    side = 11
    slope = np.tile(np.arange(side, dtype=float), (side, 1))
    bent = (Prior("curvature", side).matrix @ slope.ravel()).reshape(side, side)
    assert np.abs(bent[3:-3, 3:-3]).max() < 0.01


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="prior = 'smooth': give one of 'gradient'"):
        Prior("smooth", 5)
