"""A result made by hand: numbers that look like one, not a fit."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS

from lenssr import SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.light import Sersic
from lenssr.mass import SIE, Shear
from lenssr.result import SuperResolution

UNIT = u.electron / u.s


def tangent(scale, shape, angle=20.0):
    """A rotated TAN projection with east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [34.123456789012345, -5.987654321098765]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def make_plane(array, scale, *, unit=UNIT, error=None, mask=None, psf=None, meta=None, wcs=True):
    return CCDData(
        array,
        unit=unit,
        wcs=tangent(scale, array.shape) if wcs else None,
        uncertainty=None if error is None else StdDevUncertainty(error),
        mask=mask,
        psf=psf,
        meta={} if meta is None else meta,
    )


def fitted_lens():
    lens = SIE(1.2, 0.1, -0.05, 0.01, 0.02) + Shear(0.03, -0.02)
    half = np.random.default_rng(1).normal(size=(9, 9)) * 1e-3
    covariance = half @ half.T
    covariance[7:] = covariance[:, 7:] = 0.0
    lens = lens.with_vector(lens.vector, covariance=covariance)
    lens[0].theta_E.bounds = (0.1, 3.0)
    lens[0].e1.fixed = True
    return lens


def fitted_galaxy(**values):
    galaxy = Sersic(**values, bounds={"n": (0.3, 8.0)}, fixed={"x_0": True})
    galaxy.r_eff.std = 0.0123
    galaxy.amplitude.std = 0.5
    return galaxy


def positions(shape, scale):
    return (np.indices(shape) - np.reshape([(n - 1) / 2 for n in shape], (2, 1, 1)))[::-1] * scale


def lensed(galaxy, lens, shape, scale):
    x, y = positions(shape, scale)
    ax, ay = lens.deflection(x, y)
    return galaxy(x - ax, y - ay) * scale**2


def table():
    return QTable(
        {
            "name": ["theta_E_0", "e1_0", "r_eff", "level"],
            "component": ["lens", "lens", "source", "sky"],
            "value": [1.2, 0.1, 0.3, 0.01],
            "error": [0.0012, np.nan, 0.0123, 0.002],
            "unit": ["arcsec", "", "arcsec", "electron / s"],
            "fixed": [False, True, False, False],
        },
        meta={"note": "errors are conditional on the model"},
    )


def make_result(shape=(31, 36), scale=0.08, **changes):
    """Make a result by hand: numbers that look like one, not a fit."""
    rng = np.random.default_rng(3)
    lens, galaxy = fitted_lens(), fitted_galaxy(amplitude=60.0, r_eff=0.25, n=1.3, x_0=0.05, y_0=-0.08)
    fine = tuple(2 * n for n in shape)
    mask = np.zeros(shape, bool)
    mask[2:7, 25:32] = True
    model, high = lensed(galaxy, lens, shape, scale), lensed(galaxy, lens, fine, scale / 2)
    noise = np.full(shape, 0.02)
    data = model + rng.normal(size=shape) * noise
    chi2 = np.where(mask, 0, ((data - model) / noise) ** 2)
    psf = np.outer(np.hanning(9), np.hanning(9))[1:-1, 1:-1]
    x, y = positions((40, 44), 0.025)
    own_grid = {"x_0": 0.05, "y_0": -0.08, "pixel_scale": 0.025, "model": True}
    header = fits.Header([("OBJECT", "a lens", "name of the target"), ("EXPTIME", 1200.0)])
    header["HISTORY"] = "made by hand"
    fields = {
        "image": make_plane(
            high,
            scale / 2,
            error=0.01 + 0.05 * high,
            mask=np.kron(mask, np.ones((2, 2))) > 0,
            psf=psf,
            meta={"model": True, "pixel_scale": scale / 2},
        ),
        "lensed_source": make_plane(high, scale / 2),
        "lens_light_image": make_plane(np.zeros(fine), scale / 2),
        "source": make_plane(
            galaxy(x + 0.05, y - 0.08), 0.025, unit=UNIT / u.arcsec**2, error=np.ones((40, 44)), meta=own_grid
        ),
        "data": make_plane(np.where(mask, 0, data), scale, mask=mask, meta=header),
        "model_image": make_plane(model, scale),
        "residual": make_plane(np.where(mask, 0, data - model), scale, error=noise, mask=mask),
        "chi2_map": chi2,
        "reduced_chi2": float(chi2.sum() / (~mask).sum()),
        "lens": lens,
        "source_model": galaxy,
        "lens_light": None,
        "sky": 0.01 * UNIT,
        "sky_error": 0.002 * UNIT,
        "parameters": table(),
        "covariance": np.diag([1.44e-6, 1.5e-4, 4e-6]),
        "covariance_names": ("theta_E_0", "r_eff", "level"),
        "flags": ("correlated_noise", "psf_undersampled"),
        "grade": "secure",
        "magnification": 11.25,
        "magnification_error": 0.125,
        "information": np.linspace(0, 1, 40 * 44).reshape(40, 44),
        "meta": {
            "source": "sersic",
            "lens": None,
            "fit_lens": True,
            "lens_light": None,
            "oversampling": "auto",
            "measures": {"bad_chi2": [1.0, 1100]},
            "versions": {"lenssr": "0.1", "torch": "2.13"},
            "seconds": 1.25,
            "scale": 2,
        },
    }
    return SuperResolution(**{**fields, **changes})


TRUE_LENS = SIE(0.8, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
TRUE_SOURCE = Sersic(20.0, r_eff=0.15, n=1.2, x_0=0.08, y_0=-0.05, e1=0.1, e2=0.0)
BLUR = PSF.from_fwhm(0.2 * u.arcsec)


class Solver:
    """Runs of the resolver on one simulated lens, each made once."""

    lens, source, shape, sigma = TRUE_LENS, TRUE_SOURCE, (32, 32), 0.02

    def __init__(self):
        self.done = {}
        self.truth = render(PixelGrid(self.shape, 0.1), lens=self.lens, source=self.source, psf=BLUR)
        self.data = self.truth + np.random.default_rng(8).normal(0, self.sigma, self.shape)

    def __call__(self, source, **options):
        key = source, tuple(sorted((name, repr(value)) for name, value in options.items()))
        if key not in self.done:
            mask = options.pop("mask", None)
            resolver = SuperResolver(source=source, psf=BLUR, **options)
            image = CCDData(self.data, unit=UNIT)
            self.done[key] = resolver(image, noise=self.sigma, pixel_scale=0.1, mask=mask)
        return self.done[key]


@pytest.fixture(scope="session")
def solve():
    """Function that super-resolves one simulated lens with a kind of source and options of the resolver."""
    return Solver()


@pytest.fixture(scope="session")
def plane():
    """Function that makes a CCDData of an array, with unit and WCS."""
    return make_plane


@pytest.fixture(scope="session")
def make():
    """Function that makes a result, with changes by keyword."""
    return make_result


@pytest.fixture(scope="session")
def panels():
    """Function that finds the axes of a figure by the titles of its panels."""

    def find(figure):
        return {axes.get_title(loc="left").split(",")[0]: axes for axes in figure.axes if axes.images}

    return find


@pytest.fixture(scope="session")
def result():
    return make_result()


@pytest.fixture(scope="session")
def path(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "out.fits"
    result.write(path)
    return path
