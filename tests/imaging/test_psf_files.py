"""PSFs of files: what they say of their sampling is used, at the place of the lens."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData

from lenssr.exceptions import InputError
from lenssr.imaging import PSF, Observation

FWHM, SCALE = 0.12, 0.05
DATA = np.random.default_rng(0).normal(size=(60, 60))


def gaussian(sample, side=75, fwhm=FWHM):
    x = (np.arange(side) - (side - 1) / 2) * sample
    line = np.exp(-4 * np.log(2) * (x / fwhm) ** 2)
    return np.outer(line, line)


def observe(psf, **given):
    return Observation.from_any(DATA, pixel_scale=SCALE, unit="nJy", noise=1.0, psf=psf, **given)


def cards(**values):
    return fits.Header(values)


OWN_WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 38.0}
OWN_WCS |= {"CRPIX2": 38.0, "CD1_1": -0.02 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.02 / 3600}


@pytest.mark.parametrize(
    ("sample", "header"),
    [
        (SCALE / 4, cards(PIXELSCL=SCALE / 4, OVERSAMP=4)),
        (SCALE / 4, cards(PIXSCALE=SCALE / 4)),
        (SCALE / 4, cards(OVERSAMP=4)),
        (0.02, fits.Header(OWN_WCS)),
        (SCALE, cards()),
        (SCALE, cards(PIXELSCL=SCALE)),
    ],
    ids=["PIXELSCL", "PIXSCALE", "OVERSAMP", "own WCS", "native", "native by keyword"],
)
@pytest.mark.parametrize("where", ["file", "HDU", "HDU of the image", "HDUList"])
def test_sampling(tmp_path, sample, header, where):
    hdu = fits.ImageHDU(gaussian(sample), header, name="PSF")
    path = tmp_path / "psf.fits"
    hdus = fits.HDUList([fits.PrimaryHDU(), hdu])
    hdus.writeto(path)
    if where == "HDU of the image":
        science = fits.ImageHDU(DATA, name="SCI")
        image = fits.HDUList([fits.PrimaryHDU(), science, hdu])
        seen = Observation.from_any(image, pixel_scale=SCALE, unit="nJy", noise=1.0)
    else:
        seen = observe({"file": path, "HDU": hdu, "HDUList": hdus}[where])
    assert seen.psf_fwhm == pytest.approx(FWHM, rel=0.03)
    # The same kernel as of the formula, where samples do not coincide too.
    kernel, true = seen.psf.kernel(SCALE), PSF.from_fwhm(FWHM * u.arcsec).kernel(SCALE)
    middle = kernel.shape[0] // 2
    np.testing.assert_allclose(kernel[middle, middle], true.max(), rtol=0.01)


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        (cards(PIXELSCL=0.02), {}, "psf.fits, 0.02 arcsec a sample (PIXELSCL)"),
        (cards(OVERSAMP=5), {}, "psf.fits, 5 samples a pixel (OVERSAMP)"),
        (cards(PIXELSCL=0.02), {"psf_oversampling": 5}, "psf.fits, sampled as told"),
        (cards(), {}, "psf.fits"),
    ],
)
def test_the_reading_says_what_gave_the_sampling(tmp_path, header, options, said):
    fits.PrimaryHDU(gaussian(0.02), header).writeto(tmp_path / "psf.fits")
    assert observe(tmp_path / "psf.fits", **options).meta["reading"]["psf"] == said
    if not options:
        psf = PSF.from_fits(tmp_path / "psf.fits", image_scale=SCALE)
        assert observe(psf).meta.get("reading", {}).get("psf", "psf.fits") == said.replace(
            "psf.fits,", "a file,"
        )


def test_what_the_user_says_wins():
    hdu = fits.PrimaryHDU(gaussian(SCALE / 5))
    seen = observe(hdu, psf_oversampling=5, psf_includes_pixel=True)
    assert seen.psf_fwhm == pytest.approx(FWHM, rel=0.03)
    assert seen.psf.includes_pixel


def test_a_fwhm_in_pixels():
    assert observe(2.4 * u.pix).psf_fwhm == pytest.approx(2.4 * SCALE)


def test_a_psf_coarser_than_the_image_is_refused():
    with pytest.raises(InputError, match="samples of 0.1 arcsec, coarser than the image's pixels of 0.05"):
        observe(fits.PrimaryHDU(gaussian(0.1, 25), cards(PIXELSCL=0.1)))


def test_stpsf_with_distortion_is_preferred(tmp_path):
    path = tmp_path / "stpsf.fits"
    planes = [fits.PrimaryHDU(gaussian(SCALE / 4, fwhm=0.3), cards(PIXELSCL=SCALE / 4))]
    for name, sample, width in (("DET_SAMP", 1, 0.3), ("OVERDIST", 4, FWHM), ("DET_DIST", 1, 0.3)):
        header = cards(PIXELSCL=SCALE / sample)
        planes.append(fits.ImageHDU(gaussian(SCALE / sample, fwhm=width), header, name=name))
    fits.HDUList(planes).writeto(path)
    assert observe(path).psf_fwhm == pytest.approx(FWHM, rel=0.03)
    assert not observe(path).psf.includes_pixel
    assert PSF.from_fits(path, hdu="DET_DIST").includes_pixel


def psfex(path, step=0.7):
    """A PSF whose width grows with x over a frame of 1000 pixels, as PSFEx writes it."""
    basis = np.stack(
        [gaussian(step * SCALE, 41), 0.2 * gaussian(step * SCALE, 41, 3 * FWHM), np.zeros((41, 41))]
    )
    column = fits.Column("PSF_MASK", f"{basis.size}D", dim="(41,41,3)", array=basis[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update(
        POLNAXIS=2, POLNAME1="X_IMAGE", POLNAME2="Y_IMAGE", POLDEG1=1, PSF_SAMP=step, PSFNAXIS=3
    )
    table.header.update(POLZERO1=500.5, POLSCAL1=1000.0, POLZERO2=500.5, POLSCAL2=1000.0, PSFAXIS1=41)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def test_psfex(tmp_path):
    path = psfex(tmp_path / "field.psf")
    psf = PSF.from_fits(path, place=(999.5, 200.0), image_scale=SCALE)
    expected = gaussian(0.7 * SCALE, 41) + 0.5 * 0.2 * gaussian(0.7 * SCALE, 41, 3 * FWHM)
    np.testing.assert_allclose(psf.array, expected / expected.sum(), atol=1e-12)
    assert psf.includes_pixel and psf.pixel_scale == pytest.approx(0.7 * SCALE)


def test_where_the_lens_lies_in_the_frame_of_a_psf(tmp_path):
    path = psfex(tmp_path / "field.psf")
    cutout = observe(path)
    assert "psf_place_guessed" in cutout.flags
    middle = PSF.from_fits(path, image_scale=SCALE)
    np.testing.assert_allclose(cutout.psf.kernel(SCALE), middle.cropped((85, 85)).kernel(SCALE), atol=1e-6)
    header = fits.Header(OWN_WCS | {"CD1_1": -SCALE / 3600, "CD2_2": SCALE / 3600, "CRPIX1": 970.0})
    frame = np.random.default_rng(0).normal(size=(1000, 1000))
    told = {"centre": (150.0, 2.0), "size": 3 * u.arcsec, "unit": "nJy", "noise": 1.0}
    seen = Observation.from_any((frame, header), psf=path, **told)
    assert "psf_place_guessed" not in seen.flags
    there = PSF.from_fits(path, place=(969.0, 37.0), image_scale=SCALE)
    np.testing.assert_allclose(seen.psf.kernel(SCALE), there.kernel(SCALE, shape=seen.shape), atol=1e-4)


def test_a_grid_of_psfs_against_photutils(tmp_path):
    """STDPSF files, as photutils reads and interpolates them."""
    from photutils.psf import GriddedPSFModel

    path, side = tmp_path / "STDPSF.fits", 41
    places = [(0, 0), (1000, 0), (0, 800), (1000, 800)]
    cube = np.stack([gaussian(0.25, side, 2.0 + 0.3 * k) for k in range(4)])
    header = cards(NXPSFS=2, NYPSFS=2, IPSFX01=1, IPSFX02=1001, JPSFY01=1, JPSFY02=801)
    fits.PrimaryHDU(cube, header).writeto(path)
    psf = PSF.from_fits(path, place=(300.0, 200.0))
    grid = GriddedPSFModel(NDData(cube, meta={"grid_xypos": places, "oversampling": 4}))
    steps = (np.arange(side) - 20) / 4
    x, y = np.meshgrid(steps + 300.0, steps + 200.0)
    expected = grid.evaluate(x, y, 1.0, 300.0, 200.0)
    np.testing.assert_allclose(psf.array, expected / expected.sum(), atol=1e-6)
    assert psf.oversampling == 4 and psf.includes_pixel
