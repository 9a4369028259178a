"""`SersicPhotometry`: fits, tables and what it refuses."""

import astropy.units as u
import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from astropy.table import QTable

from lenssr import PixelGrid, Sersic, SersicPhotometry, render
from lenssr.imaging import PSF

FWHM = 2.5
SIGMA = 0.02
TRUTH = {"amplitude": 1.0, "r_eff": 4.0, "n": 1.5, "x": 20.3, "y": 19.6, "ellip": 0.3, "theta": 35.0}


def galaxy(shape=(41, 41), **changes):
    """Noise-free image of one galaxy, from pixels five times finer."""
    p = TRUTH | changes
    middle = [(size - 1) / 2 for size in shape[::-1]]
    model = Sersic2D(
        p["amplitude"], p["r_eff"], p["n"], p["x"] - middle[0], p["y"] - middle[1],
        ellip=p["ellip"], theta=np.radians(p["theta"]),
    )  # fmt: skip
    fine = render(
        PixelGrid(shape, 1.0), source=Sersic.from_sersic2d(model), psf=PSF.from_fwhm(FWHM * u.arcsec), scale=5
    )
    return fine.reshape(shape[0], 5, shape[1], 5).sum((1, 3))


def noisy(image, sigma=SIGMA, seed=1):
    return image + np.random.default_rng(seed).normal(0, sigma, image.shape)


@pytest.fixture(scope="module")
def fitted():
    phot = SersicPhotometry(psf=FWHM * u.pix, fit_shape=41)
    return phot, phot(noisy(galaxy() + 0.1), error=SIGMA, init_params=QTable({"x": [20.0], "y": [20.0]}))


@pytest.mark.parametrize("name", TRUTH)
def test_parameters_lie_within_their_errors(fitted, name):
    row = fitted[1][0]
    error = u.Quantity(row[f"{name}_err"]).value
    assert 0 < error < 0.1 * max(abs(TRUTH[name]), 0.5)
    assert abs(u.Quantity(row[name]).value - TRUTH[name]) < 4 * error


def test_flux_is_that_of_the_whole_profile(fitted):
    truth = Sersic(amplitude=1.0, r_eff=4.0, n=1.5, e1=0.7**0 * 0.3 / 1.7).flux
    assert abs(fitted[1]["flux"][0] - truth) < 4 * fitted[1]["flux_err"][0]


def test_a_good_fit_is_converged_and_unflagged(fitted):
    row = fitted[1][0]
    assert row["flags"] == 0
    assert 0.9 < row["reduced_chi2"] < 1.1
    assert row["n_pixels"] == 41 * 41
