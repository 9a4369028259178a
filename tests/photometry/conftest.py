"""Images of galaxies that the tests of photometry share."""

import astropy.units as u
import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from astropy.stats import gaussian_fwhm_to_sigma
from scipy import ndimage

from lenssr import PixelGrid, Sersic, render
from lenssr.imaging import PSF

FWHM = 2.5
SIGMA = 0.02
TRUTH = {"amplitude": 1.0, "r_eff": 4.0, "n": 1.5, "x": 20.3, "y": 19.6, "ellip": 0.3, "theta": 35.0}
FINE = 3


def _galaxy(shape=(41, 41), **changes):
    """Noise-free image of one galaxy, from pixels three times finer."""
    p = TRUTH | changes
    middle = [(size - 1) / 2 for size in shape[::-1]]
    model = Sersic2D(
        p["amplitude"], p["r_eff"], p["n"], p["x"] - middle[0], p["y"] - middle[1],
        ellip=p["ellip"], theta=np.radians(p["theta"]),
    )  # fmt: skip
    grid, psf = PixelGrid(shape, 1.0), PSF.from_fwhm(FWHM * u.arcsec)
    fine = render(grid, source=Sersic.from_sersic2d(model), psf=psf, scale=FINE)
    return fine.reshape(shape[0], FINE, shape[1], FINE).sum((1, 3))


def _drawn(r_eff=4.0, n=1.5, x=0.0, y=0.0, ellip=0.3, theta=0.6, shape=(51, 51), fine=5):
    """Sersic2D of amplitude 1 behind a Gaussian PSF, (x, y) from the middle of the stamp, without lenssr."""
    rows, columns = (((np.arange(s * fine) + 0.5) / fine - s / 2) for s in shape)
    light = Sersic2D(1, r_eff, n, x, y, ellip, theta)(columns, rows[:, None])
    light = ndimage.gaussian_filter(light, FWHM * gaussian_fwhm_to_sigma * fine)
    return light.reshape(shape[0], fine, shape[1], fine).mean((1, 3))


def _noisy(image, sigma=SIGMA, seed=1):
    """The image with Gaussian noise."""
    return image + np.random.default_rng(seed).normal(0, sigma, image.shape)


@pytest.fixture(scope="session")
def galaxy():
    """What makes the noise-free image of a galaxy."""
    return _galaxy


@pytest.fixture(scope="session")
def noisy():
    """What adds noise to an image."""
    return _noisy


@pytest.fixture(scope="session")
def drawn():
    """What makes the image of a galaxy with astropy and scipy alone."""
    return _drawn
