"""What a result is assembled from: planes, units, places on the sky, and errors, against another renderer."""

import importlib

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.wcs import WCS
from scipy import ndimage

from lenssr import SuperResolver
from lenssr.imaging import GaussianNoise

pytestmark = pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")

ELECTRON = u.electron / u.s
DRAWS = 60


@pytest.fixture(scope="module")
def lens():
    """A shining lens in front of a Sérsic, by lenstronomy."""
    rendered = importlib.import_module("rendered_lenses")
    light = rendered.sersic(4.0, 0.3, 1.5, 0.02, -0.01, 0.1, -0.02)
    return rendered.RenderedLens(light=light, size=36, snr=60, sky=0.02)


def resolver(lens, **options):
    options = {"source": "sersic", "lens": lens.mass, "lens_light": "sersic", **options}
    return SuperResolver(psf=lens.fwhm * u.arcsec, noise=lens.sigma, **options)


@pytest.fixture(scope="module")
def result(lens):
    return resolver(lens)(lens.draw(1), pixel_scale=lens.pixel_scale)


def off_centre_wcs(angle=25.0, scale=0.1):
    """Rotated, mirrored, and with its reference away from the middle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [7.0, 11.0]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-1.0, 0], [0, 1]]) @ np.array([[c, -s], [s, c]]) * scale / 3600
    wcs.wcs.set()
    return wcs


# ---------------------------------------------------------------- planes


@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_every_plane_is_its_part_of_the_scene(source, lens, result):
    found = result if source == "sersic" else resolver(lens, source=source)(lens.draw(1), pixel_scale=0.1)
    parts = {"lensed_source": "source", "lens_light_image": "light", "image": "all"}
    for name, part in parts.items():
        plane, truth = getattr(found, name), lens.plane(part, 2)
        # Within 3 errors in the mean square, and 2 % of the peak.
        pulls = (plane.data - truth) / np.maximum(plane.uncertainty.array, 1e-3 * truth.max())
        assert np.sqrt(np.mean(pulls**2)) < 3, name
        assert np.abs(plane.data - truth).max() < 0.03 * truth.max(), name
    planes = found.lensed_source.data + found.lens_light_image.data + found.sky.value / 4
    np.testing.assert_allclose(planes, found.image.data, rtol=1e-9, atol=1e-12)
    assert found.sky.value == pytest.approx(lens.sky, abs=4 * found.sky_error.value)


def test_planes_of_the_input_add_up(lens, result):
    data, sigma = lens.draw(1).data, lens.sigma
    np.testing.assert_array_equal(result.data.data, data)
    np.testing.assert_allclose(result.model_image.data + result.residual.data, data, rtol=1e-12)
    np.testing.assert_allclose(result.model_image.data, lens.plane("all"), atol=4 * sigma)
    np.testing.assert_allclose(result.chi2_map, ((data - result.model_image.data) / sigma) ** 2, rtol=1e-9)
    free = np.count_nonzero(~result.parameters["fixed"])
    assert result.reduced_chi2 == pytest.approx(result.chi2_map.sum() / (data.size - free))


# ---------------------------------------------------------------- units


def test_surface_brightness_has_the_same_planes(lens, result):
    area = lens.pixel_scale**2
    image = CCDData(lens.draw(1).data / area, unit="nJy / arcsec2")
    found = SuperResolver(
        source="sersic",
        lens=lens.mass,
        lens_light="sersic",
        psf=lens.fwhm * u.arcsec,
        noise=lens.sigma / area,
    )(image, pixel_scale=lens.pixel_scale)
    fine = area / 4
    for name in ("image", "lensed_source", "lens_light_image"):
        plane, truth = getattr(found, name), getattr(result, name)
        assert plane.unit == u.nJy / u.arcsec**2 and truth.unit == ELECTRON
        np.testing.assert_allclose(plane.data * fine, truth.data, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(
            plane.uncertainty.array * fine, truth.uncertainty.array, rtol=1e-3, atol=1e-9
        )
    assert found.source.unit == u.nJy / u.arcsec**2 and result.source.unit == ELECTRON / u.arcsec**2
    assert found.sky.value * area == pytest.approx(result.sky.value, rel=1e-4)
    assert found.source_model.amplitude.unit == u.nJy / u.arcsec**2


# ---------------------------------------------------------------- places on the sky


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_fine_pixels_are_parts_of_the_pixels_on_the_sky(scale, lens):
    """By astropy's own map, at the fractions of a pixel where they lie; and CRPIX by the analytic formula."""
    wcs = off_centre_wcs()
    image = CCDData(lens.draw(1).data, unit=ELECTRON, wcs=wcs)
    found = resolver(lens, scale=scale)(image)
    ny, nx = (np.arange(side * scale) for side in image.shape)
    x, y = np.meshgrid(nx, ny)
    expected = wcs.pixel_to_world(*((axis - (scale - 1) / 2) / scale for axis in (x, y)))
    for name in ("image", "lensed_source", "lens_light_image"):
        plane = getattr(found, name)
        assert plane.wcs.pixel_to_world(x, y).separation(expected).to_value(u.arcsec).max() < 1e-6
        np.testing.assert_allclose(plane.wcs.wcs.crpix, (wcs.wcs.crpix - 0.5) * scale + 0.5)
    for name in ("data", "model_image", "residual"):
        there = getattr(found, name).wcs.pixel_to_world(5.0, 20.0)
        assert there.separation(wcs.pixel_to_world(5.0, 20.0)).to_value(u.arcsec) < 1e-9


def test_the_source_lies_where_it_was_put(lens):
    """Its brightest point by the WCS of its plane; its place in lenstronomy by that of the image."""
    wcs = off_centre_wcs()
    found = resolver(lens)(CCDData(lens.draw(1).data, unit=ELECTRON, wcs=wcs))
    (_, there), *_ = lens.source
    middle = (lens.size - 1) / 2
    place = wcs.pixel_to_world(
        *(middle + there[name] / lens.pixel_scale for name in ("center_x", "center_y"))
    )
    row, column = np.unravel_index(found.source.data.argmax(), found.source.shape)
    side = found.source.meta["pixel_scale"]
    assert found.source.wcs.pixel_to_world(column, row).separation(place).to_value(u.arcsec) < 1.5 * side


# ---------------------------------------------------------------- errors


@pytest.fixture(scope="module", params=["white", "correlated"])
def drawn(request):
    """Results of many draws of noise on one image, independent or through a kernel of 2 x 2 pixels."""
    lens = importlib.import_module("rendered_lenses").RenderedLens(size=36, snr=60, sky=0.02)
    rng, shape = np.random.default_rng(5), (lens.size, lens.size)
    noises = rng.normal(size=(DRAWS, *shape))
    if request.param == "correlated":
        noises = ndimage.uniform_filter(noises, (0, 2, 2), mode="wrap") * 2
    images = [lens.draw(noise=noise) for noise in noises]
    method = SuperResolver(source="sersic", lens=lens.mass, psf=lens.fwhm * u.arcsec)
    return method.map(images, noise=GaussianNoise(lens.sigma), pixel_scale=lens.pixel_scale)


@pytest.mark.slow
def test_errors_of_parameters_are_their_scatter(drawn):
    tables = [result.parameters[~result.parameters["fixed"]] for result in drawn]
    values, errors = (np.array([table[name] for table in tables]) for name in ("value", "error"))
    # A standard deviation of 60 draws is known within 9 %; the widening for correlated noise within 10 %.
    ratio = np.median(errors, axis=0) / values.std(axis=0)
    assert (np.abs(np.log(ratio)) < 0.35).all(), ratio
    assert abs(np.log(ratio).mean()) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image", "lensed_source"])
def test_errors_of_pixels_are_their_scatter(name, drawn):
    planes = np.array([getattr(result, name).data for result in drawn])
    errors = np.median([getattr(result, name).uncertainty.array for result in drawn], axis=0)
    bright = planes.mean(axis=0) > 0.1 * planes.mean(axis=0).max()
    ratio = (errors / planes.std(axis=0))[bright]
    assert abs(np.log(ratio).mean()) < 0.2
    assert np.percentile(np.abs(np.log(ratio)), 90) < 0.45


@pytest.mark.slow
def test_the_covariance_is_that_of_the_scatter(drawn):
    """Amplitude, size and index of the source go together as their covariance says."""
    names = [f"source.{name}" for name in ("amplitude", "r_eff", "n")]
    rows = [[list(result.covariance_names).index(name) for name in names] for result in drawn]
    known = np.mean(
        [result.covariance[np.ix_(row, row)] for result, row in zip(drawn, rows, strict=True)], axis=0
    )
    values = [[getattr(result.source_model, name[7:]).value for name in names] for result in drawn]
    found = np.cov(np.transpose(values))
    correlations = (matrix / np.sqrt(np.outer(np.diag(matrix), np.diag(matrix))) for matrix in (known, found))
    np.testing.assert_allclose(*correlations, atol=0.15)
