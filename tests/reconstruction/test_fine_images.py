"""Fine images, the source's image and their errors."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from lenssr import SIE, Sersic, Shear
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.light.sersic import sersic_brightness
from lenssr.model.scene import Scene
from lenssr.reconstruction.fine_images import FineScene, source_image, window_wcs

LENS = SIE(0.8, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
SOURCE = Sersic(20.0, r_eff=0.2, n=1.2, x_0=0.1, y_0=-0.05, e1=0.1, e2=0.0)
LIGHT = Sersic(30.0, r_eff=0.3, n=2.0, e1=0.1, e2=0.0)
SKY = 0.05
ELECTRON = u.electron / u.s


def sky_wcs(angle=0.0, flip=True, scale=0.1):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [7.0, 11.0]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-1.0 if flip else 1.0, 0], [0, 1]]) @ np.array([[c, -s], [s, c]]) * scale / 3600
    wcs.wcs.set()
    return wcs


def observed(psf=None, unit=ELECTRON, wcs=None):
    grid = PixelGrid((20, 24), 0.1, wcs)
    return SimpleNamespace(grid=grid, psf=psf, unit=unit, brightness_unit=ELECTRON / u.arcsec**2)


def fitted(rng, *, light=1, sky=True, relative=0.01):
    """A scene, its vector, and a covariance with correlations."""
    scene = Scene(lens=LENS, lens_free=True, lens_light=light, sky=sky, extent=1.2)
    parts = [LENS.vector, SOURCE.vector] + [LIGHT.vector] * light
    vector = torch.cat(parts + [torch.tensor([SKY], dtype=torch.float64)] * sky)
    size = scene.size
    root = (
        torch.as_tensor(rng.normal(size=(size, size))) * (relative * (vector.abs() + 0.05)).unsqueeze(1) / 5
    )
    covariance = root @ root.T
    covariance[~scene.free] = 0
    covariance[:, ~scene.free] = 0
    return scene, vector, covariance


def fine_of(scene, vector, covariance, observation, *, scale=2, oversampling=3):
    return FineScene(scene, vector, covariance, observation, scale=scale, oversampling=oversampling)


PARTS = {("source", "lens_light", "sky"): 0, ("source",): 1, ("lens_light",): 2}


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("blurred", [False, True])
def test_image_equals_the_renderer(scale, blurred, rng):
    psf = PSF.from_fwhm(0.3 * u.arcsec) if blurred else None
    fine = fine_of(*fitted(rng), observed(psf), scale=scale)
    expected = render(
        PixelGrid((20 * scale, 24 * scale), 0.1 / scale),
        lens=LENS,
        source=SOURCE,
        lens_light=LIGHT,
        psf=PSF(psf.kernel(0.1, subsampling=scale)) if blurred else None,
        oversampling=3,
        sky=SKY / scale**2,
    )
    image = fine.image("source", "lens_light", "sky")
    # At the edge the renderer has more of the light from beyond.
    np.testing.assert_allclose(image, expected, rtol=1e-3)
    edge = 8 * scale if blurred else 0
    inside = (slice(edge, -edge or None),) * 2
    np.testing.assert_allclose(image[inside], expected[inside], rtol=1e-10, atol=1e-12)
    parts = sum(fine.image(role) for role in ("source", "lens_light", "sky"))
    np.testing.assert_allclose(parts, image, rtol=1e-10)


def test_surface_brightness_does_not_depend_on_the_pixel(rng):
    fit = fitted(rng)
    per_pixel = fine_of(*fit, observed())
    per_area = fine_of(*fit, observed(unit=u.MJy / u.sr))
    area = per_pixel.grid.pixel_area
    np.testing.assert_allclose(per_area.image("source"), per_pixel.image("source") / area)
    np.testing.assert_allclose(per_area.errors()[0][1], per_pixel.errors()[0][1] / area)
    # The sky is given per input pixel in one, per solid angle in the other.
    np.testing.assert_allclose(per_pixel.image("sky"), SKY / 4)
    np.testing.assert_allclose(per_area.image("sky"), SKY)


@pytest.mark.parametrize("roles", PARTS, ids="+".join)
@pytest.mark.parametrize("unit", [ELECTRON, u.MJy / u.sr])
def test_error_equals_monte_carlo(roles, unit, rng):
    scene, vector, covariance = fitted(rng, relative=0.003)
    observation = observed(PSF.from_fwhm(0.3 * u.arcsec), unit)
    fine = fine_of(scene, vector, covariance, observation)
    draws = rng.multivariate_normal(np.zeros(scene.size), covariance.numpy(), 400, method="eigh")
    moved = (vector + torch.as_tensor(draw) for draw in draws)
    images = [fine_of(scene, point, covariance, observation).image(*roles) for point in moved]
    sampled, error = np.std(images, axis=0), fine.errors()[0][PARTS[roles]]
    # 400 draws know a standard deviation within 3.5 %, and neighbours share their scatter.
    bright = error > 0.05 * error.max()
    assert abs(np.median(sampled[bright] / error[bright]) - 1) < 0.1
    np.testing.assert_allclose(sampled[bright], error[bright], rtol=0.25)


def test_error_without_covariance_is_zero(rng):
    scene, vector, covariance = fitted(rng)
    assert all(np.all(error == 0) for error in fine_of(scene, vector, 0 * covariance, observed()).errors()[0])


def test_error_without_light_and_sky(rng):
    everything, source, light = fine_of(*fitted(rng, light=0, sky=False), observed()).errors()[0]
    np.testing.assert_allclose(everything, source)
    assert np.all(light == 0) and np.all(source > 0)


def test_error_in_small_pieces_is_the_same(rng, monkeypatch):
    fine = fine_of(*fitted(rng), observed())
    whole = fine.errors()[0]
    monkeypatch.setattr("lenssr.reconstruction.fine_images.PIECE", 50_000)
    np.testing.assert_allclose(fine.errors()[0], whole, rtol=1e-4)  # single precision


@pytest.mark.parametrize(("angle", "flip"), [(0, True), (30, True), (-110, False), (180, True)])
@pytest.mark.parametrize("side", [10, 11])
def test_windows_know_where_on_the_sky_they_are(angle, flip, side):
    grid = PixelGrid((20, 24), 0.1, sky_wcs(angle, flip))
    x_0, y_0, pixel_scale = 0.31, -0.17, 0.023
    window = window_wcs(grid, x_0, y_0, pixel_scale, side)
    offsets = (np.arange(side) - (side - 1) / 2) * pixel_scale
    x, y = np.meshgrid(x_0 + offsets, y_0 + offsets)
    rows, columns = np.indices((side, side))
    found, expected = window.pixel_to_world(columns, rows), grid.to_sky(x, y)
    assert found.separation(expected).to_value(u.arcsec).max() < 1e-6
    assert window.pixel_shape == (side, side)


def test_windows_without_a_sky_have_no_wcs():
    assert window_wcs(PixelGrid((5, 5), 0.1), 0, 0, 0.01, 10) is None


def test_source_image_shows_the_source(rng):
    scene, vector, covariance = fitted(rng)
    image = source_image(scene["source"], vector, covariance, observed(wcs=sky_wcs()))
    grid = PixelGrid(image.shape, image.meta["pixel_scale"])
    x, y = grid.x + image.meta["x_0"], grid.y + image.meta["y_0"]
    np.testing.assert_allclose(image.data, SOURCE(x, y), rtol=1e-9)
    assert image.unit == ELECTRON / u.arcsec**2
    row, column = np.unravel_index(image.data.argmax(), image.shape)
    sky = image.wcs.pixel_to_world(column, row)
    expected = observed(wcs=sky_wcs()).grid.to_sky(0.1, -0.05)
    assert sky.separation(expected).to_value(u.arcsec) < image.meta["pixel_scale"]


def test_source_error_equals_monte_carlo(rng):
    scene, vector, covariance = fitted(rng, relative=0.003)
    image = source_image(scene["source"], vector, covariance, observed())
    block = scene["source"].slice
    vector, covariance = vector[block], covariance[block, block]
    grid = PixelGrid(image.shape, image.meta["pixel_scale"])
    x = torch.as_tensor(grid.x.ravel() + image.meta["x_0"])
    y = torch.as_tensor(grid.y.ravel() + image.meta["y_0"])
    draws = vector + torch.as_tensor(
        rng.multivariate_normal(np.zeros(7), covariance.numpy(), 500, method="eigh")
    )
    sampled = sersic_brightness(x, y, *draws.unsqueeze(-1).unbind(1)).std(0).reshape(image.shape).numpy()
    error = image.uncertainty.array
    bright = image.data > 0.01 * image.data.max()
    np.testing.assert_allclose(sampled[bright], error[bright], rtol=0.2)
