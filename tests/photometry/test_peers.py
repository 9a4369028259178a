"""`SersicPhotometry` against independent codes: astropy, lenstronomy, photutils."""

import astropy.units as u
import numpy as np
import pytest
from astropy.modeling.fitting import TRFLSQFitter
from astropy.modeling.models import Sersic2D
from astropy.table import QTable
from scipy.ndimage import gaussian_filter
from scipy.special import gamma, gammaincinv

from lenssr import SersicPhotometry
from lenssr.imaging import PSF

SIZE, SIGMA, NOISE = 41, 1.06, 0.4
TRUTHS = {
    "disc": {"amplitude": 1.0, "r_eff": 4.0, "n": 1.0, "x_0": 20.3, "y_0": 19.6, "ellip": 0.5, "theta": 0.7},
    "bulge": {"amplitude": 0.4, "r_eff": 3.0, "n": 4.0, "x_0": 19.8, "y_0": 20.4, "ellip": 0.2, "theta": 2.5},
    "cusp": {"amplitude": 0.4, "r_eff": 2.0, "n": 6.0, "x_0": 20.2, "y_0": 19.9, "ellip": 0.3, "theta": 1.1},
    "core": {"amplitude": 1.0, "r_eff": 5.0, "n": 0.5, "x_0": 20.0, "y_0": 20.0, "ellip": 0.35, "theta": 1.6},
}


def gaussian_psf(size=21):
    """A Gaussian at the centres of pixels."""
    steps = np.arange(size) - size // 2
    line = np.exp(-(steps**2) / (2 * SIGMA**2))
    return np.outer(line, line) / line.sum() ** 2


def oversampled(model, *, psf=True, factor=11, size=SIZE):
    """A model of astropy integrated over pixels and blurred on a fine grid; the cusp is cut finer still."""
    pad = 6
    fine = (np.arange((size + 2 * pad) * factor) + 0.5) / factor - 0.5 - pad
    x, y = np.meshgrid(fine, fine)
    light = model(x, y)
    near = np.hypot(x - model.x_0, y - model.y_0) < 1
    steps = (np.arange(11) - 5) / (11 * factor)
    light[near] = np.mean([[model(x[near] + a, y[near] + b) for a in steps] for b in steps], axis=(0, 1))
    if psf:
        light = gaussian_filter(light, SIGMA * factor, mode="constant", truncate=6)
    side = size + 2 * pad
    return light.reshape(side, factor, side, factor).mean((1, 3))[pad:-pad, pad:-pad]


def flux_of(n, r_eff, ellip, amplitude, **_):
    """Total flux by the textbook (Graham & Driver 2005, equation 2)."""
    b = gammaincinv(2 * n, 0.5)
    return amplitude * 2 * np.pi * (1 - ellip) * r_eff**2 * n * np.exp(b) * b ** (-2 * n) * gamma(2 * n)


@pytest.mark.parametrize("kind", TRUTHS)
def test_a_galaxy_that_astropy_drew_is_recovered(kind):
    true = TRUTHS[kind]
    image = oversampled(Sersic2D(**true))
    error = 1e-4 * np.sqrt((image**2).sum())
    phot = SersicPhotometry(psf=PSF(gaussian_psf()), fit_shape=SIZE, sky=None)
    row = phot(image, error=error, init_params=QTable({"x": [20.0], "y": [20.0]}))[0]
    assert np.abs(row["x"] - true["x_0"]) < 1e-3
    assert np.abs(row["y"] - true["y_0"]) < 1e-3
    assert row["r_eff"].value == pytest.approx(true["r_eff"], rel=2e-3)
    # The reference cuts a cusp no finer than a hundredth of a pixel.
    assert float(row["n"]) == pytest.approx(true["n"], abs=max(0.01, 0.005 * true["n"]))
    assert float(row["ellip"]) == pytest.approx(true["ellip"], abs=2e-3)
    assert row["theta"].to_value(u.rad) == pytest.approx(true["theta"], abs=3e-3)
    assert float(row["flux"]) == pytest.approx(flux_of(**true), rel=3e-3)
    assert float(row["amplitude"]) == pytest.approx(true["amplitude"], rel=5e-3)


@pytest.fixture(scope="module")
def broad():
    """A disc so wide that pixel centres do as well as pixels, without a PSF, and its noise."""
    rng = np.random.default_rng(4)
    model = Sersic2D(amplitude=2.0, r_eff=9.0, n=0.8, x_0=30.4, y_0=29.7, ellip=0.4, theta=0.5)
    return oversampled(model, psf=False, size=61) + NOISE * rng.standard_normal((61, 61)), model


@pytest.fixture(scope="module")
def by_astropy(broad):
    """What astropy's fitter makes of it: values and errors by name."""
    image, start = broad
    y, x = np.mgrid[:61, :61]
    fitter = TRFLSQFitter(calc_uncertainties=True)
    found = fitter(start, x, y, image, weights=np.full(image.shape, 1 / NOISE))
    errors = np.sqrt(np.diag(fitter.fit_info["param_cov"]))
    scale = np.sqrt((((image - found(x, y)) / NOISE) ** 2).sum() / (image.size - 7))
    pairs = zip(found.param_names, errors, strict=True)
    return {name: (getattr(found, name).value, error / scale) for name, error in pairs}


@pytest.fixture(scope="module")
def by_lenssr(broad):
    phot = SersicPhotometry(fit_shape=61, sky=None)
    return phot(broad[0], error=NOISE, init_params=QTable({"x": [30.0], "y": [30.0]}))[0]


@pytest.mark.parametrize("name", ["x_0", "y_0", "amplitude", "r_eff", "n", "ellip"])
def test_values_and_errors_are_those_of_astropys_fitter(name, by_astropy, by_lenssr):
    value, error = by_astropy[name]
    column = name.removesuffix("_0")
    own, own_error = (u.Quantity(by_lenssr[key]).value for key in (column, f"{column}_err"))
    assert own == pytest.approx(value, abs=0.3 * error)
    assert own_error == pytest.approx(error, rel=0.05)


def test_the_angle_is_that_of_astropy_and_of_photutils(broad, by_astropy, by_lenssr):
    from photutils.morphology import data_properties

    image, _ = broad
    value, error = by_astropy["theta"]
    assert by_lenssr["theta"].to_value(u.rad) == pytest.approx(value, abs=0.3 * error)
    assert by_lenssr["theta_err"].to_value(u.rad) == pytest.approx(error, rel=0.05)
    orientation = data_properties(image, mask=image < 3 * NOISE).orientation
    assert by_lenssr["theta"].to_value(u.deg) == pytest.approx(orientation.to_value(u.deg), abs=1.5)


@pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")
def test_a_galaxy_that_lenstronomy_drew_is_recovered():
    """lenstronomy has its own Sérsic, numerics and convolution; R_sersic is the mean radius."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF as KernelOf
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LightModel.light_model import LightModel

    pixels = ImageData(
        np.zeros((SIZE, SIZE)), ra_at_xy_0=0, dec_at_xy_0=0, transform_pix2angle=np.eye(2), background_rms=1,
        exposure_time=1,
    )  # fmt: skip
    kernel = KernelOf("PIXEL", kernel_point_source=gaussian_psf(), pixel_size=1)
    model = LightModel(["SERSIC_ELLIPSE"])
    numerics = {"supersampling_factor": 9, "supersampling_convolution": False}
    maker = ImageModel(pixels, kernel, lens_light_model_class=model, kwargs_numerics=numerics)
    light = {"amp": 1.0, "R_sersic": 4.0, "n_sersic": 1.5, "center_x": 20.2, "center_y": 19.9}
    light |= {"e1": 0.2, "e2": -0.1}
    image = maker.image(kwargs_lens_light=[light])
    phot = SersicPhotometry(psf=PSF(gaussian_psf()), fit_shape=SIZE, sky=None)
    row = phot(image, error=1e-3 * image.max(), init_params=QTable({"x": [20.0], "y": [20.0]}))[0]
    modulus = np.hypot(0.2, -0.1)
    q = (1 - modulus) / (1 + modulus)
    assert float(row["ellip"]) == pytest.approx(1 - q, abs=3e-3)
    # b_n of lenstronomy is not exact, which moves the radius that it calls effective by 0.1 %.
    assert row["r_eff"].value * np.sqrt(q) == pytest.approx(4.0, rel=5e-3)
    assert float(row["n"]) == pytest.approx(1.5, abs=0.02)
    assert np.tan(2 * row["theta"].to_value(u.rad)) == pytest.approx(-0.5, abs=0.02)


def test_a_model_image_has_the_sky_of_every_group():
    """Groups of one and of two galaxies in one image, the sky of each its own."""
    rng = np.random.default_rng(2)
    image = np.full((40, 120), 3.0) + 0.01 * rng.standard_normal((40, 120))
    y, x = np.indices(image.shape)
    where = QTable({"x": [20.0, 75.0, 90.0], "y": [20.0, 20.0, 20.0], "group_id": [1, 2, 2]})
    for a, b in zip(where["x"], where["y"], strict=True):
        image += Sersic2D(amplitude=1.0, r_eff=3.0, n=1.0, x_0=a, y_0=b, ellip=0.3, theta=0.3)(x, y)
    phot = SersicPhotometry(fit_shape=31, intervals="gaussian")
    phot(image, error=0.01, init_params=where)
    residual = image - phot.make_model_image(image.shape, include_sky=True)
    # Brightness at the centre of a pixel stands for that of the pixel, which shows near the centres.
    assert np.abs(np.median(residual[8:33, 8:33])) < 0.01
    assert np.abs(np.median(residual[8:33, 65:100])) < 0.01
