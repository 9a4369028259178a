"""PSFs: every source gives the right kernel, and light is neither moved nor lost."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel
from astropy.io import fits
from astropy.nddata import CCDData, NDData
from hypothesis import given
from hypothesis import strategies as st

from lenssr.exceptions import InputError, LensSRDeprecationWarning, LensSRWarning
from lenssr.imaging import PSF, GaussianPSF

SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


def gaussian(shape, sigma, dx=0.0, dy=0.0):
    y, x = (np.arange(size) - (size - 1) / 2 for size in shape)
    return np.exp(-0.5 * ((x - dx) ** 2 + (y[:, None] - dy) ** 2) / sigma**2)


def centroid(kernel):
    y, x = (np.arange(size) - (size - 1) / 2 for size in kernel.shape)
    return (kernel * x).sum() / kernel.sum(), (kernel * y[:, None]).sum() / kernel.sum()


def width(kernel):
    y, x = (np.arange(size) - (size - 1) / 2 for size in kernel.shape)
    return np.sqrt((kernel * (x**2 + y[:, None] ** 2)).sum() / kernel.sum() / 2)


def test_array_is_normalised_and_kept():
    array = gaussian((15, 15), 1.5) * 7
    psf = PSF(array)
    assert np.allclose(psf.kernel(0.05), array / array.sum(), rtol=1e-12)
    assert psf.kernel(0.05).dtype == np.float64
    assert psf.flags == ()


@pytest.mark.parametrize("shape", [(15, 15), (16, 16), (15, 16), (20, 13)])
@pytest.mark.parametrize("subsampling", [1, 2, 3])
def test_kernels_have_odd_sides_and_their_light_in_place(shape, subsampling):
    kernel = PSF(gaussian(shape, 1.6)).kernel(0.05, subsampling)
    assert all(size % 2 == 1 for size in kernel.shape)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert np.allclose(centroid(kernel), 0, atol=1e-6)
    assert width(kernel) == pytest.approx(1.6 * subsampling, rel=0.01)
    assert kernel.min() >= 0


def test_even_sides_give_the_kernel_of_odd_ones():
    even, odd = (PSF(gaussian((size, size), 1.6)).kernel(0.05) for size in (24, 25))
    assert even.shape == odd.shape
    assert np.abs(even - odd).max() < 1e-3 * odd.max()


@pytest.mark.parametrize("oversampling", [1, 2, 4])
@pytest.mark.parametrize("subsampling", [1, 2, 4])
def test_oversampling(oversampling, subsampling):
    sigma = 1.5
    psf = PSF(gaussian((24 * oversampling + 1,) * 2, sigma * oversampling), oversampling)
    kernel = psf.kernel(0.05, subsampling)
    expected = gaussian(kernel.shape, sigma * subsampling)
    assert np.abs(kernel - expected / expected.sum()).max() < 2e-3 * kernel.max()
    assert psf.fwhm_at(1.0) == pytest.approx(sigma / SIGMA_PER_FWHM, rel=0.02)


@pytest.mark.parametrize("pixel_scale", [None, 0.02])
@pytest.mark.parametrize("oversampling", [1, 3])
def test_width_is_in_arcsec_however_the_psf_was_given(tmp_path, pixel_scale, oversampling):
    fwhm, pixel = 0.1, 0.05 if pixel_scale is None else pixel_scale
    array = PSF.from_fwhm(fwhm * u.arcsec).kernel(pixel, oversampling)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(array, name="PSF")]).writeto(tmp_path / "psf.fits")
    options = {"oversampling": oversampling, "pixel_scale": pixel_scale}
    for psf in (PSF(array, **options), PSF.from_fits(tmp_path / "psf.fits", **options)):
        # Two samples across measure the area above half the peak to 6 %.
        assert psf.fwhm_at(0.05) == pytest.approx(fwhm, rel=0.06)
        assert psf.fwhm_at(0.05 * u.arcsec) == psf.fwhm_at(0.05)


def test_a_width_in_pixels_is_deprecated():
    psf = PSF(gaussian((41, 41), 4.0))
    with pytest.warns(LensSRDeprecationWarning, match="fwhm_at"):
        assert psf.fwhm.to_value(u.pix) == pytest.approx(4.0 / SIGMA_PER_FWHM, rel=0.01)


def test_pixel_scale_of_its_own():
    psf = PSF(gaussian((41, 41), 4.0), pixel_scale=0.02 * u.arcsec)
    assert psf.fwhm.to_value(u.arcsec) == pytest.approx(0.08 / SIGMA_PER_FWHM, rel=0.01)
    assert width(psf.kernel(0.05)) == pytest.approx(1.6, rel=0.01)
    assert width(psf.kernel(0.05, 2)) == pytest.approx(3.2, rel=0.01)


@given(st.floats(0.06, 0.4), st.integers(1, 4))
def test_gaussian_by_its_formula(fwhm, subsampling):
    kernel = PSF.from_fwhm(fwhm * u.arcsec).kernel(0.05, subsampling)
    sigma = fwhm * SIGMA_PER_FWHM / 0.05 * subsampling
    expected = gaussian(kernel.shape, sigma)
    assert np.allclose(kernel, expected / expected.sum(), rtol=1e-10)
    assert (kernel.shape[0] - 1) / 2 >= 5 * sigma


def test_gaussian_in_other_units():
    assert np.allclose(
        PSF.from_fwhm(100 * u.mas).kernel(0.05), PSF.from_fwhm(0.1 * u.arcsec).kernel(50 * u.mas)
    )
    assert not PSF.from_fwhm(0.05 * u.arcsec).undersampled(0.05, 4)


def test_undersampled_only_when_interpolated():
    psf = PSF(gaussian((15, 15), 0.7))
    assert psf.fwhm_at(1.0) < 2
    assert not psf.undersampled(0.05)
    assert psf.undersampled(0.05, 2)
    assert not PSF(gaussian((15, 15), 1.2)).undersampled(0.05, 2)


@pytest.mark.parametrize("shift", [(0.2, 0.0), (0.0, -0.1), (0.5, 0.5)])
def test_off_centre_is_reported_and_not_moved(shift):
    with pytest.warns(LensSRWarning, match="pixels off its centre.*recentered"):
        psf = PSF(gaussian((21, 21), 1.5, *shift))
    assert psf.flags == ("psf_off_centre",)
    assert np.allclose(psf.offset, shift, atol=0.01)
    assert np.allclose(centroid(psf.kernel(0.05)), shift, atol=1e-3)
    assert np.allclose(centroid(psf.recentered().kernel(0.05)), 0, atol=5e-3)


def test_slightly_off_centre_is_silent():
    assert PSF(gaussian((21, 21), 1.5, 0.03)).flags == ()


def test_lopsided_wings_do_not_move_the_core():
    array = gaussian((41, 41), 1.2)
    array[:, 30:] += 1e-4
    assert np.allclose(PSF(array).offset, 0, atol=1e-3)


def test_centring_on_the_pixel_after_the_middle_is_noticed():
    array = np.zeros((16, 16))
    array[:-1, :-1] = 0
    array[1:, 1:] = gaussian((15, 15), 1.5)
    with pytest.warns(LensSRWarning, match=r"\+0.500, \+0.500"):
        PSF(array)


def test_slightly_negative_is_kept():
    array = gaussian((15, 15), 1.5)
    array[0, 0] = -5e-4
    assert PSF(array).kernel(0.05).min() < 0


def test_cropped():
    psf = PSF(gaussian((41, 41), 1.5))
    assert psf.cropped((50, 50)) is psf
    small = psf.cropped((20, 31))
    assert small.array.shape == (19, 31)
    assert small.array.sum() == pytest.approx(1)
    assert psf.kernel(0.05, 2, shape=(20, 30)).shape == (19, 29)
    assert PSF.from_fwhm(1 * u.arcsec).kernel(0.05, shape=(20, 20)).shape == (19, 19)


@pytest.mark.parametrize("where", ["hdu", "primary", "named"])
def test_from_fits(tmp_path, where):
    array = gaussian((15, 15), 1.5).astype(">f4")
    if where == "primary":
        hdus = [fits.PrimaryHDU(array)]
    else:
        name = "PSF" if where == "hdu" else "KERNEL"
        hdus = [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.ones((9, 9)), name="SCI"),
            fits.ImageHDU(array, name=name),
        ]
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    psf = PSF.from_fits(tmp_path / "psf.fits", hdu="KERNEL" if where == "named" else None)
    assert np.allclose(psf.array, array / array.sum(), rtol=1e-6)


def test_pixel_scale_in_the_header(tmp_path):
    header = fits.Header({"PIXELSCL": 0.02})
    fits.PrimaryHDU(gaussian((41, 41), 4.0), header).writeto(tmp_path / "psf.fits")
    psf = PSF.from_any(tmp_path / "psf.fits")
    assert width(psf.kernel(0.05)) == pytest.approx(1.6, rel=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array,
        lambda array: u.Quantity(array),
        lambda array: NDData(array),
        lambda array: CCDData(array, unit=""),
        lambda array: fits.ImageHDU(array),
        lambda array: PSF(array),
        lambda array: array.tolist(),
    ],
)
def test_from_any(make):
    array = gaussian((15, 15), 1.5)
    assert np.allclose(PSF.from_any(make(array)).kernel(0.05), array / array.sum())


def test_from_astropy_kernel():
    assert width(PSF.from_any(Gaussian2DKernel(1.5)).kernel(0.05)) == pytest.approx(1.5, rel=0.01)
    assert isinstance(PSF.from_any(0.1 * u.arcsec), GaussianPSF)


@pytest.mark.parametrize("oversampling", [1, 4])
@pytest.mark.parametrize("side", [25, 24])
def test_from_photutils_image(oversampling, side):
    photutils_psf = pytest.importorskip("photutils.psf")
    size = side * oversampling + (side * oversampling + side) % 2
    model = photutils_psf.ImagePSF(gaussian((size, size), 1.5 * oversampling), oversampling=oversampling)
    psf = PSF.from_any(model)
    assert psf.includes_pixel and psf.oversampling == oversampling
    kernel = psf.kernel(0.05)
    expected = gaussian(kernel.shape, 1.5)
    assert np.abs(kernel - expected / expected.sum()).max() < 2e-3 * kernel.max()


def test_from_photutils_grid_takes_the_centre_of_the_image():
    photutils_psf = pytest.importorskip("photutils.psf")
    corners = [(0, 0), (100, 0), (0, 100), (100, 100)]
    stack = np.array([gaussian((41, 41), sigma) for sigma in (2.0, 2.0, 4.0, 4.0)])
    stack /= stack.sum(axis=(1, 2), keepdims=True)
    model = photutils_psf.GriddedPSFModel(NDData(stack, meta={"grid_xypos": corners, "oversampling": 2}))
    psf = PSF.from_any(model, shape=(101, 101))
    assert width(psf.kernel(0.05, 2)) == pytest.approx(np.sqrt((2.0**2 + 4.0**2) / 2), rel=0.02)
    with pytest.raises(InputError, match="give shape="):
        PSF.from_any(model)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PSF(np.zeros((5, 5))), "zero everywhere"),
        (lambda: PSF(np.full((5, 5), np.nan)), "25 non-finite pixels"),
        (lambda: PSF(np.ones(5)), r"shape \(5,\)"),
        (lambda: PSF(-np.ones((5, 5))), "below zero"),
        (lambda: PSF(gaussian((9, 9), 1.5) - 0.01), "more than a thousandth of its peak"),
        (lambda: PSF(np.ones((5, 5)), oversampling=1.5), "oversampling = 1.5"),
        (lambda: PSF(np.ones((5, 5)), pixel_scale=-1), "pixel_scale = -1"),
        (lambda: PSF.from_fwhm(0.1), "no unit"),
        (lambda: PSF.from_fwhm(0 * u.arcsec), "not a positive number"),
        (lambda: PSF.from_fwhm(1 * u.s), "not convertible"),
        (lambda: PSF.from_any(0.1), "not a PSF: give an array"),
        (lambda: PSF.from_any("missing.fits"), "does not exist"),
        (lambda: PSF(np.ones((5, 5))).kernel(0.05, 0), "subsampling = 0"),
        (lambda: PSF(np.ones((5, 5))).kernel(-0.05), "pixel_scale = -0.05"),
    ],
)
def test_refused(make, match):
    with warnings.catch_warnings(), pytest.raises(InputError, match=match):
        make()
