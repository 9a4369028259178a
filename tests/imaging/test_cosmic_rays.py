"""Cosmic rays are found, and what a telescope has blurred is not taken for them."""

import astropy.units as u
import numpy as np
import pytest
from scipy import ndimage

from lenssr import SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import GaussianPSF, Observation, render
from lenssr.imaging.cosmic_rays import cosmic_rays
from lenssr.light import Sersic
from lenssr.mass import SIE
from lenssr.reconstruction import auto_mask

SIDE, PIXEL = 80, 0.05
FWHM = 0.09
Y, X = np.indices((SIDE, SIDE), dtype=float)
HITS = [((12, 30), 15.0), ((13, 31), 20.0), ((40, 60), 100.0), ((60, 0), 40.0), ((55, 55), 60.0)]


def observe(light, *, psf=FWHM * u.arcsec, seed=1):
    """An image of a noise of 1, with a PSF."""
    noise = np.random.default_rng(seed).normal(size=light.shape)
    options = {"pixel_scale": PIXEL, "noise": 1.0, "unit": "electron/s"}
    return Observation.from_any(light + noise, psf=psf, **options)


def spots(sigma, peak):
    """Gaussians of a sigma in pixels, seen by a telescope, all over the image."""
    fine, side = 5, 16
    lights = np.zeros((SIDE * fine, SIDE * fine))
    places = np.random.default_rng(3).integers(-fine, fine, (25, 2))
    for k, (dy, dx) in enumerate(places):
        lights[(k // 5 * side + side // 2) * fine + dy, (k % 5 * side + side // 2) * fine + dx] = 1
    width = fine * np.hypot(sigma, FWHM / PIXEL / 2.355)
    seen = ndimage.uniform_filter(ndimage.gaussian_filter(lights, width), fine)
    seen = seen.reshape(SIDE, fine, SIDE, fine).sum((1, 3))
    return peak * seen / seen.max()


@pytest.fixture(scope="module")
def lensed():
    """A galaxy and an arc, rendered behind a PSF."""
    source = Sersic(amplitude=1.0, r_eff=0.1, n=1.0, x_0=0.05, y_0=0.02, e1=0.1, e2=0.0)
    light = Sersic(amplitude=1.0, r_eff=0.6, n=4.0, x_0=0.0, y_0=0.0, e1=0.1, e2=0.05)
    lens = SIE(theta_E=1.0, e1=0.1, e2=0.05)
    psf = GaussianPSF(FWHM * u.arcsec)
    image = render(PixelGrid((SIDE, SIDE), PIXEL), source=source, lens=lens, lens_light=light, psf=psf)
    return 400 * image / image.max()


def test_hits_are_found_and_the_lens_is_not(lensed):
    assert not cosmic_rays(observe(lensed)).any()
    hit_light = np.zeros_like(lensed)
    for place, height in HITS:
        hit_light[place] = height
    hit = cosmic_rays(observe(lensed + hit_light))
    assert hit[hit_light > 0].all()
    assert not hit[ndimage.distance_transform_edt(hit_light == 0) > 5].any()


@pytest.mark.parametrize("peak", [10.0, 50.0, 300.0])
@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0])
def test_what_is_as_sharp_as_the_psf_is_no_hit(sigma, peak):
    assert not cosmic_rays(observe(spots(sigma, peak))).any()


def test_nothing_is_looked_for_where_a_star_is_as_sharp(lensed):
    hit_light = np.where((X == 20) & (Y == 20), 100.0, 0.0)
    assert not cosmic_rays(observe(lensed + hit_light, psf=None)).any()
    assert not cosmic_rays(observe(lensed + hit_light, psf=0.05 * u.arcsec)).any()
    assert cosmic_rays(observe(lensed + hit_light)).any()


def test_units_and_masks_do_not_matter(lensed):
    hit_light = np.where((X == 20) & (Y == 20), 100.0, 0.0)
    image = observe(lensed + hit_light)
    bad = (X > 17) & (X < 23) & (Y > 17) & (Y < 23)
    assert not cosmic_rays(image.masked(bad)).any()
    faint = Observation.from_any(
        1e-12 * image.data, noise=1e-12, pixel_scale=PIXEL, unit="Jy", psf=FWHM * u.arcsec
    )
    np.testing.assert_array_equal(cosmic_rays(faint), cosmic_rays(image))


def test_an_automatic_mask_hides_them_and_says_so(lensed):
    hit_light = np.where((X == 20) & (Y == 20), 100.0, 0.0)
    image = observe(lensed + hit_light)
    assert auto_mask(image)[20, 20]
    options = {"source": "sersic", "lens_light": "sersic", "lens": SIE(theta_E=1.0, e1=0.1, e2=0.05)}
    result = SuperResolver(mask="auto", **options)(image)
    assert "cosmic_rays_masked" in result.flags
    assert result.meta["cosmic_ray_pixels"] == cosmic_rays(image).sum()
    assert result.residual.mask[20, 20]
    assert "cosmic_rays_masked" not in SuperResolver(mask="auto", **options)(observe(lensed)).flags


def test_the_middle_of_the_galaxy_is_kept(lensed):
    nucleus = np.zeros_like(lensed)
    nucleus[SIDE // 2, SIDE // 2] = 3000.0
    image = observe(lensed + nucleus)
    assert cosmic_rays(image)[SIDE // 2, SIDE // 2]
    assert not auto_mask(image)[SIDE // 2, SIDE // 2]
