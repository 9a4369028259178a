"""The free-form source through the resolver."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from lenssr import EPL, Sersic, Shear, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, Observation, render
from lenssr.metrics import scores_t
from lenssr.reconstruction.freeform_fit import source_grid
from lenssr.simulation import DeepLense


@pytest.fixture(scope="module")
def item():
    return DeepLense(lens="sie", noise=True, size=4, seed=1)[0]


@pytest.fixture(scope="module")
def result(item):
    return SuperResolver(source="pixelated", lens=item.lens, oversampling=1)(item.low, noise=item.noise)


def test_it_is_near_the_truth(result, item):
    assert scores_t(result.image.data, item.truth.data).psnr > 43


def test_two_of_three_errors_hold_the_truth(result, item):
    truth = item.truth.data
    bright = truth > 0.02 * truth.max()
    pulls = (result.image.data - truth)[bright] / result.image.uncertainty.array[bright]
    assert 0.5 < np.mean(np.abs(pulls) < 1) < 0.9


def test_it_says_which_prior_and_is_ok(result):
    assert result.meta["prior"] in ("curvature", "curvature+laplacian3")
    assert result.ok
    assert result.source_model is None
    assert min(result.source.shape) >= 60


def test_a_rerun_gives_the_same_bytes(result, item):
    again = SuperResolver(source="pixelated", lens=item.lens, oversampling=1)(item.low, noise=item.noise)
    assert again.image.data.tobytes() == result.image.data.tobytes()
    assert again.image.uncertainty.array.tobytes() == result.image.uncertainty.array.tobytes()


def test_it_survives_the_file(result, tmp_path):
    result.write(tmp_path / "out.fits")
    back = type(result).read(tmp_path / "out.fits")
    np.testing.assert_array_equal(back.source.data, result.source.data)


def test_an_unknown_lens_is_found(item):
    found = SuperResolver(source="pixelated", oversampling=1)(item.low, noise=item.noise)
    assert found.lens[0].theta_E.value == pytest.approx(item.lens.theta_E.value, rel=0.01)
    assert scores_t(found.image.data, item.truth.data).psnr > 43


def test_a_free_slope_is_found_with_all_else_free(rng):
    grid, sigma, slope = PixelGrid((50, 50), 0.07), 0.02, 2.0
    lens = EPL(1.0, slope, 0.1, -0.05) + Shear(0.02, -0.03)
    low = render(grid, lens=lens, source=Sersic(60.0, r_eff=0.15, n=1.9, x_0=0.05, y_0=-0.06))
    image = CCDData(low + rng.normal(0, sigma, low.shape), unit="electron")
    resolver = SuperResolver(source="pixelated", lens=EPL(1.0, 2.1) + Shear(0.0, 0.0), fit_lens=True, scale=1)
    gamma = resolver(image, noise=sigma, pixel_scale=0.07).parameters[1]
    assert gamma["error"] < 0.03
    assert abs(gamma["value"] - slope) < 2.5 * gamma["error"]


def grid_of(width, fwhm, pixel=0.05):
    """The grid of a source so many pixels wide behind a PSF that is fwhm pixels wide."""
    psf = None if fwhm is None else fwhm * pixel * u.arcsec
    image = Observation.from_any(np.ones((20, 20)), pixel_scale=pixel, unit="electron/s", noise=1.0, psf=psf)
    places = np.array([-width / 2, width / 2]) * pixel
    return source_grid(places, places, image)


@pytest.mark.parametrize(
    ("fwhm", "least", "most"), [(None, 60, 100), (2, 48, 80), (5, 48, 80)], ids=["sharp", "2", "5"]
)
def test_a_grid_holds_its_source_and_resolves_what_the_image_does(fwhm, least, most):
    """Nodes in the middle lie 0.75 pixel or 0.31 FWHM apart at most, unless there may not be as many."""
    widths = (10, 20, 38, 60, 99, 250)
    grids = [grid_of(width, fwhm) for width in widths]
    sides = [grid.side for grid in grids]
    assert sides[0] == least and sides[-1] == most and sides == sorted(sides)
    for width, grid in zip(widths, grids, strict=True):
        assert grid.offsets[-2] >= width * 0.05 / 2 * (1 - 1e-12)
        assert grid.side == most or grid.spacing <= 0.05 * (0.75 if fwhm is None else 0.31 * fwhm)


@pytest.mark.parametrize("pixel", [0.004, 3.0])
@pytest.mark.parametrize("fwhm", [None, 2])
def test_a_grid_does_not_depend_on_the_unit_of_length(fwhm, pixel):
    """The same image with other pixels has the same nodes, farther apart."""
    grid, other = grid_of(38, fwhm), grid_of(38, fwhm, pixel)
    assert other.side == grid.side
    np.testing.assert_allclose(other.offsets / pixel, grid.offsets / 0.05, rtol=1e-9)


@pytest.fixture(params=["Quantity", "array", "HDU", "file"])
def psf_as(request, tmp_path):
    """A PSF 0.1 arcsec wide, in the ways that users have one."""
    psf = 0.1 * u.arcsec
    if request.param == "Quantity":
        return psf
    array = PSF.from_fwhm(psf).kernel(0.05)
    if request.param == "array":
        return array
    hdu = fits.ImageHDU(array, name="PSF")
    if request.param == "HDU":
        return hdu
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "psf.fits")
    return tmp_path / "psf.fits"


def test_nodes_do_not_depend_on_how_the_psf_was_given(psf_as):
    options = {"pixel_scale": 0.05, "unit": "electron/s", "noise": 1.0}
    image = Observation.from_any(np.ones((60, 60)), psf=psf_as, **options)
    grid = source_grid(np.array([-1.0, 1.0]), np.array([-1.0, 1.0]), image)
    assert image.psf_fwhm == pytest.approx(0.1, rel=0.06)
    assert grid.side == pytest.approx(69, abs=4)


def test_the_psf_plane_of_a_file_sets_the_nodes():
    psf = fits.ImageHDU(PSF.from_fwhm(0.1 * u.arcsec).kernel(0.05), name="PSF")
    planes = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((60, 60)), name="SCI"), psf])
    image = Observation.from_any(planes, pixel_scale=0.05, unit="electron/s", noise=1.0)
    assert source_grid(np.array([-1.0, 1.0]), np.array([-1.0, 1.0]), image).side == pytest.approx(69, abs=4)
