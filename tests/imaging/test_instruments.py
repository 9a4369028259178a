"""Instruments: their noise is what the electrons say, and their numbers are plausible."""

import astropy.units as u
import numpy as np
import pytest

from lenssr.exceptions import InputError
from lenssr.imaging.instruments import EUCLID_VIS, INSTRUMENTS


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_numbers(name):
    camera = INSTRUMENTS[name]
    assert 0.03 < camera.pixel_scale.to_value(u.arcsec) < 0.3
    assert 1 < (camera.psf_fwhm / camera.pixel_scale).to_value(u.one) < 5
    assert camera.reference
    assert 0.001 < camera.sky_rate < 500
    kernel = camera.psf().kernel(camera.pixel_scale)
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_noise_is_that_of_counted_electrons(name, rng):
    camera = INSTRUMENTS[name]
    rate, seconds = camera.count_rate(21.0), camera.exposure.to_value(u.s)
    noise = camera.noise()
    drawn = noise.draw(np.full((200, 200), rate), rng)
    electrons = (rate + camera.sky_rate) * seconds + camera.exposures * camera.read_noise**2
    assert drawn.std() * seconds == pytest.approx(np.sqrt(electrons), rel=0.02)


def test_depth_of_euclid():
    # Measured in Q1: ten sigma at 25.6 in apertures of 1.3 arcsec; not all its noise is in the numbers.
    pixels = np.pi * 0.65**2 / 0.01
    rms = EUCLID_VIS.noise().background_rms * np.sqrt(pixels)
    limit = EUCLID_VIS.zero_point - 2.5 * np.log10(10 * rms)
    assert limit == pytest.approx(25.6, abs=0.5)


def test_longer_exposures_are_deeper():
    assert EUCLID_VIS.noise(2 * u.hour).background_rms < EUCLID_VIS.noise(1 * u.hour).background_rms
    assert EUCLID_VIS.noise(3600).exposure == 3600
    assert EUCLID_VIS.noise(3600, exposures=1).background_rms < EUCLID_VIS.noise(3600).background_rms


@pytest.mark.parametrize(
    ("exposure", "exposures"), [(0, 4), (-5 * u.s, 4), (100, 0), (100, 1.5), (1 * u.m, 4)]
)
def test_refused(exposure, exposures):
    with pytest.raises(InputError, match="exposure"):
        EUCLID_VIS.noise(exposure, exposures=exposures)
