"""What the fine images are seen with."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from lenssr import SIE, Sersic, SuperResolver
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render
from lenssr.metrics import scores_t
from lenssr.simulation import GALAXY_CELLS, GalaxyLenses

LENS = SIE(0.8, 0.1, -0.05, 0.02, 0.0)
SOURCE = Sersic(20.0, r_eff=0.15, n=1.2, x_0=0.08, y_0=-0.05, e1=0.1, e2=0.0)
LIGHT = Sersic(40.0, r_eff=0.25, n=2.0, x_0=0.02, y_0=0.0, e1=0.1, e2=0.0)
GRID = PixelGrid((32, 32), 0.1)
BLUR = PSF.from_fwhm(0.25 * u.arcsec)
SIGMA = 5e-3
NARROW = 0.12 * u.arcsec
PARTS = {"image": {"source": SOURCE, "lens_light": LIGHT}, "lensed_source": {"source": SOURCE}}
PARTS["lens_light_image"] = {"lens_light": LIGHT}


def data(psf=BLUR):
    image = render(GRID, lens=LENS, source=SOURCE, lens_light=LIGHT, psf=psf)
    image = image + np.random.default_rng(2).normal(0, SIGMA, (32, 32))
    return CCDData(image, unit=u.electron / u.s)


def run(*, psf=BLUR, **options):
    resolver = SuperResolver(source="sersic", lens=LENS, lens_light="sersic", sky=None, **options)
    return resolver(data(psf), psf=psf, noise=SIGMA, pixel_scale=0.1)


@pytest.fixture(scope="module", params=[NARROW, "pixel"], ids=["narrow", "pixel"])
def asked(request):
    return request.param


@pytest.fixture(scope="module")
def result(asked):
    return run(psf_out=asked)


@pytest.mark.parametrize("part", PARTS)
def test_images_are_seen_with_it(result, asked, part):
    psf = None if isinstance(asked, str) else PSF.from_fwhm(asked)
    truth = render(GRID, lens=LENS, **PARTS[part], psf=psf, scale=2)
    assert np.abs(getattr(result, part).data - truth).max() < 0.03 * truth.max()


def test_errors_follow_the_image(result):
    usual = run()
    sharper = result.image.uncertainty.array.max() / usual.image.uncertainty.array.max()
    assert sharper > 1.1
    assert result.reduced_chi2 == usual.reduced_chi2


def test_the_image_says_what_it_is_seen_with(result, asked, tmp_path):
    result.write(tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as file:
        said = file["SCI"].header["PSF_OUT"], file[0].header["PSF_OUT"]
        if isinstance(asked, str):
            assert result.image.psf is None and "PSF" not in file
            assert said == ("pixel", "pixel")
        else:
            np.testing.assert_array_equal(file["PSF"].data, PSF.from_fwhm(asked).kernel(0.05))
            assert said == ("Gaussian, FWHM 0.12 arcsec", "0.12 arcsec")


def test_extrapolation_is_flagged(result, asked):
    assert ("extrapolated" in result.flags) == isinstance(asked, str)
    assert result.ok


def test_without_a_psf_pixels_are_what_they_were():
    plain, pixel = (run(psf=None, psf_out=psf_out) for psf_out in (None, "pixel"))
    assert "extrapolated" not in pixel.flags
    np.testing.assert_array_equal(plain.image.data, pixel.image.data)


@pytest.mark.parametrize(
    ("fwhm", "psf", "message"),
    [
        (0.09, BLUR, r"psf_out = 0.09 arcsec is below 2 output pixels of 0.05 arcsec.*at least 0.1 arcsec"),
        (0.25, BLUR, r"psf_out = 0.25 arcsec is not narrower .* FWHM 0.25 arcsec"),
        (0.3, PSF(BLUR.kernel(0.05), oversampling=2), r"psf_out = 0.3 arcsec is not narrower .* FWHM 0.2\d"),
        (0.2, None, r"psf_out = 0.2 arcsec: the image has no PSF"),
    ],
    ids=["too narrow", "as wide", "wider than an array", "no PSF"],
)
def test_a_width_without_meaning_is_refused(fwhm, psf, message):
    with pytest.raises(InputError, match=message):
        run(psf=psf, psf_out=fwhm * u.arcsec)


@pytest.mark.parametrize(
    ("asked", "least"), [("pixel", 36), (0.1 * u.arcsec, 40)], ids=["pixel", "two pixels"]
)
def test_a_clumpy_source_is_seen_with_it(asked, least):
    """Against a truth that was made with finer rays, and with what was asked for."""
    y, x = np.indices((40, 40)) - 20
    clumps = np.exp(-np.hypot(x, y) / 4) + np.exp(-np.hypot(x - 8, y + 5) / 2)
    item = GalaxyLenses([clumps], size=1, seed=2, **GALAXY_CELLS['0.1"'])[0]
    resolver = SuperResolver(source="pixelated", lens=item.lens, prior="curvature", psf_out=asked)
    result = resolver(item.low, psf=item.psf, noise=item.noise)
    truth = item.pixel_truth if isinstance(asked, str) else item.truth_behind(asked)
    assert scores_t(result.image.data, truth.data).psnr > least


def test_two_output_pixels_are_enough():
    assert run(psf_out=0.1 * u.arcsec).image.psf is not None
