"""Everything a user may hand over: it gives the right answer, is refused with the reason, or is flagged."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS
from spoiled import spoiled

from lenssr import SIE, Sersic, Shear, SuperResolver
from lenssr.exceptions import InputError, LensSRWarning
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, PoissonNoise, render

ELECTRON = u.electron / u.s
SIGMA = 0.02
LENS = SIE(0.8, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
SOURCE = Sersic(20.0, r_eff=0.15, n=1.2, x_0=0.08, y_0=-0.05, e1=0.1, e2=0.0)


def scene_of(shape=(36, 36), pixel_scale=0.1, psf=None, scale=2):
    """Noise-free scenes at the sampling of the data and ``scale`` times finer."""
    truth = render(PixelGrid(shape, pixel_scale), lens=LENS, source=SOURCE, psf=psf, scale=scale)
    return truth.reshape(shape[0], scale, shape[1], scale).sum((1, 3)), truth


def noisy(shape=(36, 36), seed=0, psf=None, sigma=SIGMA):
    low, truth = scene_of(shape, psf=psf)
    return low + np.random.default_rng(seed).normal(0, 1, shape) * sigma, truth


def psnr(image, truth):
    return 10 * np.log10(truth.max() ** 2 / np.mean((np.asarray(image) - truth) ** 2))


def run(image, *, pixel_scale=0.1, source="sersic", scale=2, **given):
    lens = LENS if source == "sersic" else None
    return SuperResolver(lens=lens, source=source, scale=scale)(image, pixel_scale=pixel_scale, **given)


def looked_at(image, **given):
    """What interpolation, which only reads and checks, makes of an image."""
    return run(image, source="interpolation", **given)


def good(result, truth, chi2=0.15):
    """The right scene came out, and its errors fit the data."""
    return psnr(result.image.data, truth) > 45 and abs(result.reduced_chi2 - 1) < chi2


def header(pixel_scale=0.1, **more):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [18.5, 18.5]
    wcs.wcs.cdelt = [-pixel_scale / 3600, pixel_scale / 3600]
    keywords = wcs.to_header()
    keywords["BUNIT"] = "electron/s"
    keywords.update(more)
    return keywords


def gaussian(shape, y_0, x_0, fwhm=3):
    y, x = np.indices(shape)
    return np.exp(-4 * np.log(2) * ((x - x_0) ** 2 + (y - y_0) ** 2) / fwhm**2)


class TestWorks:
    """Inputs that give the right answer."""

    @pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    @pytest.mark.parametrize("container", [NDData, CCDData])
    def test_every_kind_of_uncertainty(self, kind, container):
        sigma = np.random.default_rng(1).uniform(0.01, 0.04, (36, 36))
        data, truth = noisy(sigma=sigma)
        power = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}[kind]
        image = container(data, unit=ELECTRON, uncertainty=kind(sigma**power))
        result = run(image)
        assert good(result, truth)
        np.testing.assert_allclose(result.data.uncertainty.array, sigma)

    def test_uncertainty_in_another_unit(self):
        data, truth = noisy()
        sigma = StdDevUncertainty(np.full(data.shape, 60 * SIGMA), unit=u.electron / u.min)
        result = run(NDData(data, unit=ELECTRON, uncertainty=sigma))
        assert good(result, truth)

    def test_non_finite_pixels_are_masked_with_one_warning(self):
        data, truth = noisy()
        data[3, 4], data[20, 9], data[18:20, 25] = np.nan, np.inf, -np.inf
        with pytest.warns(LensSRWarning, match="4 of 1296 pixels are not finite") as caught:
            result = run(data * ELECTRON, noise=SIGMA)
        assert len(caught) == 1
        assert good(result, truth) and np.isfinite(result.image.data).all()
        assert result.data.mask.sum() == 4 and result.image.mask.sum() == 16

    def test_non_finite_pixels_that_are_masked_need_no_warning(self):
        data, truth = noisy()
        data[3, 4] = np.nan
        result = run(NDData(data, unit=ELECTRON, mask=~np.isfinite(data)), noise=SIGMA)
        assert good(result, truth)

    @pytest.mark.parametrize("shape", [(35, 35), (36, 35), (35, 36), (40, 33), (33, 41)])
    def test_odd_even_and_oblong_images(self, shape):
        data, truth = noisy(shape)
        result = run(data * ELECTRON, noise=SIGMA)
        assert result.image.shape == (2 * shape[0], 2 * shape[1]) and good(result, truth)

    @pytest.mark.parametrize("source", ["sersic", "interpolation"])
    def test_eight_by_eight(self, source):
        low, truth = scene_of((8, 8), 0.4)
        data = low + np.random.default_rng(2).normal(0, SIGMA, low.shape)
        result = run(data * ELECTRON, noise=SIGMA, pixel_scale=0.4, source=source)
        assert "small_image" in result.flags and result.image.shape == (16, 16)
        assert psnr(result.image.data, truth) > (35 if source == "sersic" else 10)

    def test_two_thousand_squared_by_interpolation(self):
        data = np.random.default_rng(0).normal(0, SIGMA, (2000, 2000))
        data[982:1018, 982:1018] += scene_of()[0]
        result = looked_at(data * ELECTRON, noise=SIGMA)
        assert result.image.shape == (4000, 4000)
        assert result.image.data.sum() == pytest.approx(data.sum(), abs=0.01 * SIGMA * 2000)

    @pytest.mark.slow
    def test_a_thousand_squared_with_a_lens(self):
        data = np.random.default_rng(0).normal(0, SIGMA, (1000, 1000))
        low, _ = scene_of((40, 40))
        data[480:520, 480:520] += low
        result = run(data * ELECTRON, noise=SIGMA, scale=1)
        assert psnr(result.image.data[480:520, 480:520], low) > 45 and result.ok, result.flags

    def test_two_thousand_squared_with_a_lens_is_to_be_cut(self):
        with pytest.raises(InputError, match="2000 x 2000 pixels.*centre= and size="):
            run(np.ones((2000, 2000)) * ELECTRON, noise=SIGMA, scale=1)

    @pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">i4", "<i2", "u2", "f2"])
    def test_number_types(self, dtype):
        data, truth = noisy()
        factor = 1000 if np.dtype(dtype).kind in "iu" else 1
        offset = 1 if np.dtype(dtype).kind == "u" else 0
        stored = (data * factor + offset * factor).astype(dtype)
        result = run(NDData(stored, unit=ELECTRON), noise=SIGMA * factor)
        assert good(SimpleScaled(result, factor, offset), truth, chi2=0.2)

    def test_integers_with_bzero_and_bscale(self, tmp_path):
        data, truth = noisy()
        counts = np.round((data + 1) * 5000).astype(np.uint16)  # astropy stores these with BZERO = 32768
        path = tmp_path / "counts.fits"
        fits.PrimaryHDU(counts, header()).writeto(path)
        with fits.open(path, do_not_scale_image_data=True) as raw:
            assert raw[0].header["BZERO"] == 32768 and raw[0].data.dtype == ">i2"
        result = run(path, noise=SIGMA * 5000, pixel_scale=None)
        assert good(SimpleScaled(result, 5000, 1), truth, chi2=0.2)
        np.testing.assert_array_equal(result.data.data, counts)

    def test_big_endian_file(self, tmp_path):
        data, truth = noisy()
        path = tmp_path / "image.fits"
        errors = np.full(data.shape, SIGMA, ">f4")
        hdus = [
            fits.PrimaryHDU(),
            fits.ImageHDU(data.astype(">f4"), header(), "SCI"),
            fits.ImageHDU(errors, name="ERR"),
        ]
        fits.HDUList(hdus).writeto(path)
        with_path, with_hdus = run(path, pixel_scale=None), run(fits.HDUList(hdus), pixel_scale=None)
        assert good(with_path, truth)
        np.testing.assert_allclose(with_path.image.data, with_hdus.image.data)

    @pytest.mark.parametrize("side", [(24, 24), (25, 25), (24, 31)])
    def test_psfs_of_even_size(self, side):
        blur = PSF.from_fwhm(0.3 * u.arcsec)
        data, truth = noisy(psf=blur)
        result = run(data * ELECTRON, noise=SIGMA, psf=gaussian(side, *((n - 1) / 2 for n in side)))
        assert good(result, truth) and "psf_off_centre" not in result.flags

    def test_psf_of_even_size_that_peaks_in_a_pixel(self):
        blur = PSF.from_fwhm(0.3 * u.arcsec)
        data, truth = noisy(psf=blur)
        with pytest.warns(LensSRWarning, match="centroid is .0.500, .0.500 pixels off"):
            psf = PSF(gaussian((24, 24), 12, 12))
        assert "psf_off_centre" in run(data * ELECTRON, noise=SIGMA, psf=psf).flags
        assert good(run(data * ELECTRON, noise=SIGMA, psf=psf.recentered()), truth)

    def test_a_psf_larger_than_the_image_is_cropped(self):
        blur = PSF.from_fwhm(0.3 * u.arcsec)
        data, truth = noisy(psf=blur)
        large = np.zeros((81, 91))
        kernel = blur.kernel(0.1)
        ny, nx = (side // 2 for side in kernel.shape)
        large[40 - ny : 41 + ny, 45 - nx : 46 + nx] = kernel
        result = run(data * ELECTRON, noise=SIGMA, psf=large)
        assert "psf_cropped" in result.flags
        assert psnr(result.image.data, truth) > 45 and abs(result.reduced_chi2 - 1) < 0.15

    @pytest.mark.parametrize("kind", ["keyword", "map", "uneven map"])
    def test_exposure(self, kind, tmp_path):
        # Room for sky around the arcs: its rms has to be measured.
        exposure = np.full((72, 72), 1000.0)
        if kind == "uneven map":
            exposure[:, 36:] = 4000.0
        low, truth = scene_of((72, 72))
        data = PoissonNoise(exposure, 0.02).draw(low, np.random.default_rng(5))
        science = fits.ImageHDU(data, header(), "SCI")
        hdus = [fits.PrimaryHDU(), science]
        if kind == "keyword":
            science.header["EXPTIME"] = 1000.0
        else:
            hdus.append(fits.ImageHDU(exposure, name="EXPTIME"))
        path = tmp_path / "exposure.fits"
        fits.HDUList(hdus).writeto(path)
        result = run(path, pixel_scale=None)
        assert "noise_from_exposure" in result.flags and "noise_guessed" not in result.flags
        assert result.reduced_chi2 == pytest.approx(1, abs=0.2) and psnr(result.image.data, truth) > 45
        expected = np.sqrt(low / exposure + 0.02**2)
        ratio = result.data.uncertainty.array / expected
        assert abs(np.median(ratio) - 1) < 0.2 and abs(np.median(ratio[low > 0.3]) - 1) < 0.2

    def test_no_error_plane(self):
        data, truth = noisy()
        result = run(data * u.nJy)
        assert "noise_guessed" in result.flags
        assert psnr(result.image.data, truth) > 45
        assert np.median(result.data.uncertainty.array) == pytest.approx(SIGMA, rel=0.3)

    def test_a_missing_unit_is_flagged(self):
        data, truth = noisy()
        result = run(data, noise=SIGMA)
        assert "unit_missing" in result.flags and good(result, truth)
        assert result.image.unit == u.dimensionless_unscaled

    def test_a_masked_array(self):
        data, truth = noisy()
        data[5, 5] = 1e6
        result = run(np.ma.MaskedArray(data, mask=data > 1e5), noise=SIGMA)
        assert good(result, truth) and result.data.mask.sum() == 1

    def test_input_is_left_as_it_was(self):
        data, _ = noisy()
        data[3, 4] = np.nan
        image = CCDData(data.copy(), unit=ELECTRON, uncertainty=StdDevUncertainty(np.full(data.shape, SIGMA)))
        with pytest.warns(LensSRWarning):
            result = run(image)
        result.data.data[:] = 7
        np.testing.assert_array_equal(image.data, data)
        assert image.mask is None


class SimpleScaled:
    """A result in other numbers than its truth."""

    def __init__(self, result, factor, offset):
        self.reduced_chi2 = result.reduced_chi2
        self.image = CCDData(result.image.data / factor - offset / 4, unit=result.image.unit)


def uneven_wcs():
    return header(CDELT1=-0.1 / 3600, CDELT2=0.12 / 3600)


def distorted():
    keywords = header(
        CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-3, B_0_2=1e-3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CCDData(noisy()[0], unit=ELECTRON, wcs=WCS(keywords))


DATA = np.random.default_rng(3).normal(0, SIGMA, (20, 20))
BAD_ERROR = np.full(DATA.shape, SIGMA)
BAD_ERROR[3, 3] = 0
NAN_ERROR = np.full(DATA.shape, SIGMA)
NAN_ERROR[3, 3] = np.nan
ONES = np.ones((20, 20))


def with_error(plane):
    return NDData(DATA, unit=ELECTRON, uncertainty=StdDevUncertainty(plane))


# What is given, further arguments, and what the message names: the value and the remedy.
REFUSED = {
    "no pixel scale": (DATA, {"pixel_scale": None}, r"no pixel scale: give pixel_scale="),
    "negative pixel scale": (DATA, {"pixel_scale": -0.1}, "-0.1 is not a positive number: give one in arc"),
    "pixel scale in seconds": (DATA, {"pixel_scale": 1 * u.s}, r"1.0 s is not convertible to arcsec"),
    "magnitudes": (DATA, {"unit": "mag"}, r"mag is a magnitude: convert the image to a flux"),
    "unknown unit": (DATA, {"unit": "bananas"}, r"bananas.*give"),
    "all masked": (DATA, {"mask": DATA < 9}, r"all 400 pixels are masked.*leave some unmasked"),
    "zero errors": (with_error(BAD_ERROR * 0), {}, r"error plane is 0 or not finite in all pixels: correct"),
    "negative error": (with_error(-BAD_ERROR - 1), {}, r"error plane is -1.02.*correct or mask"),
    "errors not finite": (with_error(NAN_ERROR * np.nan), {}, r"error plane is 0 or not finite in all"),
    "zero noise": (DATA, {"noise": 0.0}, r"noise is 0 in one of 400.*correct or mask"),
    "noise plane not finite": (DATA, {"noise": NAN_ERROR}, r"noise is nan.*correct or mask"),
    "noise in another unit": (DATA * ELECTRON, {"noise": 1 * u.Jy}, r"noise = 1.0 Jy.*give it in"),
    "noise of no kind": (DATA, {"noise": "loud"}, r"noise = 'loud' is not a noise model.*give one"),
    "error of another shape": (with_error(np.ones((20, 19))), {}, r"\(20, 19\), the image \(20, 20\): give"),
    "noise of another shape": (DATA, {"noise": np.ones(20)}, r"noise has shape \(20,\).*give planes"),
    "mask of another shape": (DATA, {"mask": np.zeros((3, 3))}, r"mask has shape \(3, 3\).*give planes"),
    "unknown uncertainty": (
        NDData(DATA, uncertainty=UnknownUncertainty(ONES)),
        {},
        r"UnknownUncertainty.*give",
    ),
    "one dimension": (DATA[0], {}, r"1 dimensions, shape \(20,\): give a 2-D image"),
    "three dimensions": (DATA[None], {}, r"3 dimensions, shape \(1, 20, 20\): give a 2-D image"),
    "no pixels": (DATA[:0], {}, r"empty, shape \(0, 20\): give an image"),
    "complex": (DATA * 1j, {}, r"complex: give its real part"),
    "text": ("no such file.fits", {}, r"no such file.fits does not exist.*check the name"),
    "an object": (object(), {}, r"is a object: give a file, NDData or 2-D array"),
    "zero psf": (DATA, {"psf": np.zeros((5, 5))}, r"PSF is zero everywhere: give another"),
    "psf not finite": (DATA, {"psf": np.full((5, 5), np.nan)}, r"25 non-finite pixels: fill them"),
    "psf in three dimensions": (
        DATA,
        {"psf": np.ones((1, 5, 5))},
        r"PSF has shape \(1, 5, 5\): give one two-d",
    ),
    "psf too negative": (DATA, {"psf": np.eye(5) - 0.1}, r"PSF goes down to -0.1.*subtract its background"),
    "hdus of an array": (DATA, {"hdus": {"sci": 1}}, r"the image is a ndarray: leave it out"),
}


class TestRefused:
    """Inputs that cannot be used: the error says which value, and what to do."""

    @pytest.mark.parametrize("case", REFUSED)
    def test_refused(self, case):
        image, given, message = REFUSED[case]
        with pytest.raises(InputError, match=message):
            looked_at(image, **{"pixel_scale": 0.1, **given})

    def test_unequal_pixel_sides(self):
        image = CCDData(DATA, unit=ELECTRON, wcs=WCS(uneven_wcs()))
        with pytest.raises(InputError, match="0.1 x 0.12 arcsec.*stretched by 20 %: resample the"):
            looked_at(image, pixel_scale=None)

    def test_distortions(self):
        with pytest.raises(InputError, match="distortions.*SIP.*reproject"):
            looked_at(distorted(), pixel_scale=None)

    def test_two_pixel_scales(self):
        image = CCDData(DATA, unit=ELECTRON, wcs=WCS(header()))
        with pytest.raises(InputError, match="pixel_scale = 0.2 arcsec, but the WCS says 0.1: give one"):
            looked_at(image, pixel_scale=0.2)

    def test_magnitudes_in_a_file(self, tmp_path):
        path = tmp_path / "mag.fits"
        fits.PrimaryHDU(DATA, header(BUNIT="mag/arcsec2")).writeto(path)
        with pytest.raises(InputError, match="is a magnitude: convert the image to a flux"):
            looked_at(path, pixel_scale=None)

    def test_an_unknown_unit_in_a_file(self, tmp_path):
        path = tmp_path / "unit.fits"
        fits.PrimaryHDU(DATA, header(BUNIT="furlongs per fortnight")).writeto(path)
        with pytest.raises(InputError, match="furlongs per fortnight"):
            looked_at(path, pixel_scale=None)
        assert looked_at(path, pixel_scale=None, unit="electron/s").image.unit == ELECTRON

    @pytest.mark.filterwarnings("ignore:.*not finite")
    def test_nothing_finite(self):
        with pytest.raises(InputError, match="all 400 pixels are masked or not finite"):
            looked_at(np.full((20, 20), np.nan))

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputError, match="gone.fits does not exist"):
            looked_at(tmp_path / "gone.fits")

    def test_a_folder(self, tmp_path):
        with pytest.raises(InputError, match="is not a file: check the name"):
            looked_at(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"hello\n" * 1000, b"\x00" * 2880])
    def test_no_fits_file(self, content, tmp_path):
        path = tmp_path / "hello.fits"
        path.write_bytes(content)
        with pytest.raises(InputError, match="hello.fits is not a readable FITS file.*give one"):
            looked_at(path)

    @pytest.mark.parametrize("kept", [4000, 2880 + 1000, 2880 * 2 + 500])
    def test_truncated_file(self, kept, tmp_path):
        path = tmp_path / "short.fits"
        fits.PrimaryHDU(noisy((60, 60))[0], header()).writeto(path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(InputError, match="short.fits is (truncated|not a readable)"):
            looked_at(path, pixel_scale=None)

    def test_a_file_without_an_image(self, tmp_path):
        path = tmp_path / "empty.fits"
        fits.PrimaryHDU().writeto(path)
        with pytest.raises(InputError, match="no two-dimensional image.*name it"):
            looked_at(path)

    def test_a_cube_in_a_file(self, tmp_path):
        path = tmp_path / "cube.fits"
        fits.PrimaryHDU(np.zeros((3, 20, 20))).writeto(path)
        with pytest.raises(InputError, match="no two-dimensional image|3 dimensions"):
            looked_at(path)

    def test_an_hdu_that_is_not_there(self, tmp_path):
        path = tmp_path / "image.fits"
        fits.PrimaryHDU(DATA, header()).writeto(path)
        with pytest.raises(InputError, match="no HDU 'VIS': the file has"):
            looked_at(path, pixel_scale=None, hdus={"sci": "VIS"})

    def test_an_output_that_exists(self, tmp_path):
        path = tmp_path / "out.fits"
        path.write_text("precious")
        result = looked_at(DATA, noise=SIGMA)
        with pytest.raises(InputError, match="out.fits exists"):
            result.write(path)
        assert path.read_text() == "precious"
        result.write(path, overwrite=True)
        assert path.stat().st_size > 2880

    def test_an_output_that_cannot_be_written(self, tmp_path):
        with pytest.raises(InputError, match="nowhere"):
            looked_at(DATA, noise=SIGMA).write(tmp_path / "nowhere" / "out.fits")
        assert not list(tmp_path.iterdir())


class TestFlagged:
    """Images without a lens: they run, and the result says that it is none."""

    @pytest.mark.parametrize("kind", ["star", "noise", "constant"])
    def test_no_lens(self, kind):
        case = spoiled(kind, seed=3)
        cut = case.image[35:65, 35:65]
        image = CCDData(cut.data, unit=cut.unit, wcs=cut.wcs)
        result = SuperResolver(source="sersic")(image, **case.given)
        assert not result.ok and result.flags
        assert np.isfinite(result.image.data).all() and result.image.shape == (60, 60)
        if kind == "constant":
            assert "constant_image" in result.flags
        if kind == "noise":
            assert "no_arcs" in result.flags or "not_multiply_imaged" in result.flags

    @pytest.mark.parametrize("value", [0.0, 3.0])
    def test_a_constant_image_without_noise(self, value):
        result = SuperResolver(source="sersic")(np.full((30, 30), value), pixel_scale=0.1)
        assert "constant_image" in result.flags and not result.ok
        np.testing.assert_allclose(result.image.data, value / 4, atol=2e-3 * max(value, 1))

    @pytest.mark.parametrize("kind", ["star", "noise"])
    def test_no_lens_behind_a_known_lens(self, kind):
        case = spoiled(kind, seed=4)
        result = SuperResolver(source="sersic", lens=SIE(1.0))(case.image, **case.given)
        assert not result.ok
