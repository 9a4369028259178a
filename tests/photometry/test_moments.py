"""Estimates from moments beside the galaxies that astropy draws."""

import numpy as np
import pytest
from scipy.special import gamma, gammaincinv

from lenssr.photometry.sources import border_median, moments

SIDE, FWHM, SIGMA = 51, 2.5, 0.01


def flux_of(r_eff, n, ellip):
    """Total flux of a Sérsic of amplitude 1; Graham & Driver 2005, PASA 22, 118, equation 4."""
    b = gammaincinv(2 * n, 0.5)
    return 2 * np.pi * n * np.exp(b) * b ** (-2 * n) * gamma(2 * n) * r_eff**2 * (1 - ellip)


def measured(light, *, centres=((0.0, 0.0),), hidden=None):
    light = light + np.random.default_rng(1).normal(0, SIGMA, light.shape)
    weight = np.full(light.shape, SIGMA**-2)
    if hidden is not None:
        light, weight = np.where(hidden, 0.0, light), np.where(hidden, 0.0, weight)
    return moments(light, weight, np.array(centres), FWHM)


@pytest.mark.parametrize("n", [0.8, 1.5, 3.0])
@pytest.mark.parametrize("ellip", [0.0, 0.3, 0.5])
def test_moments_are_near_the_truth(drawn, n, ellip):
    flux, radius, e1, e2 = measured(drawn(n=n, ellip=ellip))[0]
    q, twice = 1 - ellip, 2 * 0.6
    assert flux == pytest.approx(flux_of(4.0, n, ellip), rel=0.15)
    assert radius == pytest.approx(4 * np.sqrt(q), rel=0.2)
    truth = np.array([np.cos(twice), np.sin(twice)]) * (1 - q) / (1 + q)
    assert (e1, e2) == pytest.approx(truth, abs=0.06)


def test_two_galaxies_share_a_stamp(drawn):
    shape, places = (51, 81), np.array([[-17.0, 2.0], [16.5, -1.0]])
    parts = [drawn(x=x, y=y, shape=shape, ellip=e) for (x, y), e in zip(places, (0.1, 0.5), strict=True)]
    found = measured(sum(parts), centres=places)
    truth = [flux_of(4.0, 1.5, ellip) for ellip in (0.1, 0.5)]
    assert found[:, 0] == pytest.approx(truth, rel=0.2)
    assert np.hypot(*found[:, 2:].T) == pytest.approx([0.05, 1 / 3], abs=0.08)


def test_hidden_pixels_are_filled_from_the_other_side(drawn):
    light, hidden = drawn(), np.zeros((SIDE, SIDE), dtype=bool)
    hidden[25:28, 27:31] = True
    shown, whole = measured(light, hidden=hidden)[0], measured(light)[0]
    assert shown[:2] == pytest.approx(whole[:2], rel=0.15)


@pytest.mark.parametrize("light", [0.0, -1.0])
def test_without_light_there_is_some_guess(drawn, light):
    found = measured(np.full((SIDE, SIDE), light), centres=[(0.0, 0.0), (9.0, 9.0), (400.0, 0.0)])
    assert np.isfinite(found).all()
    assert (found[:, :2] > 0).all()
    assert np.isfinite(measured(drawn(), hidden=np.ones((SIDE, SIDE), dtype=bool))).all()


def test_median_of_the_border():
    data = np.random.default_rng(0).normal(size=(3, 24, 36))
    data[:, 2:-2, 3:-3] += 100
    valid = np.ones(data.shape, dtype=bool)
    valid[1, :2], valid[2] = False, False
    level = border_median(data, valid)
    rim = np.ones((24, 36), dtype=bool)
    rim[2:-2, 3:-3] = False
    assert level[0] == np.median(data[0][rim])
    assert level[1] == np.median(data[1][rim & valid[1]])
    assert level[2] == 0
