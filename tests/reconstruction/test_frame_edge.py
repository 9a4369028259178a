"""Light that lies beyond the edge of a cutout is blurred into it by the PSF, and models know."""

import astropy.units as u
import numpy as np
import pytest
import scipy.signal
import torch
from astropy.nddata import CCDData, StdDevUncertainty

from lenssr import PSF, SIE, PixelGrid, Sersic, Shear, SuperResolver, render
from lenssr.light import sersic_brightness

SCALE, RIM, PARTS = 0.1, 12, 11
PSF_ = PSF.from_fwhm(0.2 * u.arcsec)
SOURCE = Sersic(20, 0.15, 1.0, 0.08, 0.06, 0.1, 0.0)


def seen(side, lens, source, light=None):
    """Flux in pixels, from midpoint sums on a wide frame that scipy convolves before it is cut."""
    wide = PixelGrid((side + 2 * RIM,) * 2, SCALE)
    fine = wide.upsample(PARTS)
    x, y = (torch.as_tensor(axis.ravel()) for axis in (fine.x, fine.y))
    bent = lens.deflection(x, y)
    value = sersic_brightness(x - bent[0], y - bent[1], *source.vector)
    if light is not None:
        value = value + sersic_brightness(x, y, *light.vector)
    sums = value.reshape(wide.shape[0], PARTS, wide.shape[1], PARTS).sum((1, 3)).numpy() * fine.pixel_area
    return scipy.signal.fftconvolve(sums, PSF_.kernel(SCALE), mode="same")[RIM:-RIM, RIM:-RIM]


def resolved(image, sigma, **options):
    data = image + np.random.default_rng(1).normal(0, sigma, image.shape)
    error = StdDevUncertainty(np.full(data.shape, sigma))
    image = CCDData(data, unit="electron/s", uncertainty=error)
    return SuperResolver(**options)(image, psf=PSF_, pixel_scale=SCALE * u.arcsec)


def pull(parameter, truth):
    return abs(parameter.value - truth) / parameter.std


def test_a_lens_galaxy_larger_than_its_cutout():
    lens, light = SIE(1.0, 0.1, 0.05) + Shear(0.03, -0.02), Sersic(12.0, 1.2, 2.0, 0.03, 0.03, 0.12, 0.05)
    result = resolved(seen(41, lens, SOURCE, light), 0.002, source="sersic", lens_light="sersic")
    found = result.lens_light
    assert result.ok
    assert found.flux.value == pytest.approx(light.flux, rel=0.01)
    assert abs(float(result.sky.value)) < 3 * float(result.sky_error.value)
    assert pull(found.r_eff, 1.2) < 3 and pull(found.n, 2.0) < 3


@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_arcs_that_the_edge_cuts(source):
    lens, galaxy = SIE(1.5, 0.1, 0.05) + Shear(0.03, -0.02), Sersic(20, 0.25, 1.0, 0.08, 0.06, 0.1, 0.0)
    result = resolved(seen(35, lens, galaxy), 0.01, source=source)
    assert result.ok and result.reduced_chi2 < 1.1
    for name in ("theta_E", "e1", "e2"):
        assert pull(getattr(result.lens[0], name), getattr(lens[0], name).value) < 3
    if source == "sersic":
        assert pull(result.source_model.r_eff, 0.25) < 3 and pull(result.source_model.n, 1.0) < 3


def test_a_source_of_a_tenth_of_a_pixel_is_measured():
    lens, scale = SIE(1.2, 0.12, 0.05) + Shear(0.03, -0.02), 0.05
    psf, unit = PSF.from_fwhm(0.1 * u.arcsec), Sersic(1.0, 0.005, 1.0, 0.027, -0.046, 0.05, 0.0)
    source = Sersic(20 / unit.flux, 0.005, 1.0, 0.027, -0.046, 0.05, 0.0)
    image = render(PixelGrid((80, 80), scale), lens=lens, source=source, psf=psf)
    sigma = image.max() / 80
    data = image + np.random.default_rng(0).normal(0, sigma, image.shape)
    image = CCDData(data, unit="electron/s", uncertainty=StdDevUncertainty(np.full(data.shape, sigma)))
    result = SuperResolver(source="sersic", lens=lens)(image, psf=psf, pixel_scale=scale * u.arcsec)
    assert result.ok
    assert result.source_model.flux.value == pytest.approx(source.flux, rel=0.02)
    assert pull(result.source_model.r_eff, 0.005) < 3
