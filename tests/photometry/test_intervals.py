"""Intervals of the profile likelihood beside a fit of scipy to what astropy draws."""

import astropy.units as u
import numpy as np
import pytest
from scipy.optimize import least_squares

from lenssr import SersicPhotometry

SHAPE, SIGMA = (27, 27), 0.06
TRUTH = {"r_eff": 3.0, "n": 1.2, "x": 0.1, "y": -0.2, "ellip": 0.3, "theta": 0.6}


@pytest.fixture(scope="module")
def image(drawn):
    return drawn(**TRUTH, shape=SHAPE, fine=9) + np.random.default_rng(4).normal(0, SIGMA, SHAPE)


@pytest.fixture(scope="module")
def row(image):
    phot = SersicPhotometry(psf=2.5 * u.pix, fit_shape=SHAPE, intervals="profile", sky=None)
    return phot(image, error=SIGMA, init_params={"x": [13.1], "y": [12.8]})[0]


@pytest.fixture(scope="module")
def chi2(image, drawn):
    """What makes the smallest chi2 with a parameter held."""

    def smallest(**held):
        start = {k: v for k, v in TRUTH.items() if k not in held}

        def residual(values):
            shape = dict(zip(start, values[1:], strict=True)) | held
            return ((image - values[0] * drawn(**shape, shape=SHAPE, fine=9)) / SIGMA).ravel()

        low = {"r_eff": 0.3, "n": 0.3, "ellip": 0.0}
        bounds = [0, *(low.get(k, -9) for k in start)], [9, *({"ellip": 0.9}.get(k, 20) for k in start)]
        return 2 * least_squares(residual, [1, *start.values()], bounds=bounds, x_scale=0.1).cost

    return smallest


@pytest.mark.parametrize("name", ["r_eff", "n", "ellip"])
def test_chi2_rises_by_one_at_the_ends(row, chi2, name):
    best = chi2()
    for end in ("lower", "upper"):
        value = float(u.Quantity(row[f"{name}_{end}"]).value)
        assert chi2(**{name: value}) - best == pytest.approx(1.0, abs=0.1)
