"""Products are what other programs expect: they verify, say where they come from, and open as CCDData."""

import re
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable, vstack

from lenssr import SuperResolution, SuperResolver, cli
from lenssr.exceptions import InputError

FIRST = {"TELESCOP": "HST", "INSTRUME": "ACS", "DETECTOR": "WFC", "FILTER1": "CLEAR1L", "FILTER2": "F814W"}
FIRST |= {"TARGNAME": "SDSSJ0912+0029", "EXPTIME": 2200.0, "PROPOSID": 10886, "DATE-OBS": "2006-10-12"}
OWN = {
    "BUNIT": "ELECTRONS/S",
    "PHOTFLAM": 7.04e-20,
    "PHOTPLAM": 8045.5,
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
}
OWN |= {"CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 16.5, "CRPIX2": 16.5, "CD1_1": -3e-5, "CD1_2": 0.0}
OWN |= {"CD2_1": 0.0, "CD2_2": 3e-5}
ZERO = -2.5 * np.log10(7.04e-20) - 5 * np.log10(8045.5) - 2.408


@pytest.fixture(scope="module")
def image(solve, tmp_path_factory):
    """A file of a lens with the cards of HST."""
    path = tmp_path_factory.mktemp("input") / "lens.fits"
    hdus = [
        fits.PrimaryHDU(header=fits.Header(FIRST)),
        fits.ImageHDU(solve.data, fits.Header(OWN), name="SCI"),
    ]
    quality = np.zeros(solve.shape, "i2")
    quality[2, 3] = 4
    hdus += [fits.ImageHDU(np.full(solve.shape, solve.sigma), name="ERR"), fits.ImageHDU(quality, name="DQ")]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture(scope="module")
def product(solve, image, tmp_path_factory):
    path = tmp_path_factory.mktemp("output") / "out.fits"
    SuperResolver(source="sersic", lens=solve.lens, psf=0.2 * u.arcsec)(image).write(path)
    return path


def test_it_verifies(product, path, fitsverify):
    fitsverify(product)
    fitsverify(path)


def test_draws_verify_and_come_back(solve, image, tmp_path, fitsverify):
    result = SuperResolver(source="sersic", lens=solve.lens, psf=0.2 * u.arcsec)(image)
    draws = result.sample_posterior(30, "laplace")
    result.with_draws(draws).write(tmp_path / "draws.fits")
    fitsverify(tmp_path / "draws.fits")
    read = SuperResolution.read(tmp_path / "draws.fits").draws
    assert read.names == draws.names
    np.testing.assert_array_equal(read.values, draws.values)


def test_a_row_has_magnitudes(product, tmp_path):
    result = SuperResolution.read(product)
    rows = vstack([result.table, result.table])
    assert rows["source_mag"].unit == u.mag
    assert rows["source_mag"][1].value == result.magnitudes["source"].value
    rows.write(tmp_path / "rows.ecsv")
    assert QTable.read(tmp_path / "rows.ecsv")["lensed_source_mag"].unit == u.mag


@pytest.mark.parametrize(
    "name", ["SCI", "LENSED_SOURCE", "LENS_LIGHT", "SOURCE", "MODEL", "RESIDUAL", "DATA"]
)
def test_every_plane_opens_as_ccddata(product, name):
    result = SuperResolution.read(product)
    fields = {"SCI": "image", "LENS_LIGHT": "lens_light_image", "MODEL": "model_image"}
    plane = getattr(result, fields.get(name, name.lower()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ccd = CCDData.read(product, hdu=name, hdu_mask=f"{name}_MASK", hdu_uncertainty=f"{name}_ERR")
    np.testing.assert_array_equal(ccd.data, plane.data)
    assert ccd.unit == plane.unit and ccd.wcs is not None
    assert (ccd.mask is None) == (plane.mask is None)
    assert ccd.mask is None or np.array_equal(ccd.mask, plane.mask)
    assert (ccd.uncertainty is None) == (plane.uncertainty is None)
    if ccd.uncertainty is not None:
        np.testing.assert_array_equal(ccd.uncertainty.array, plane.uncertainty.array)


def test_sci_has_its_mask_without_being_asked(product):
    ccd = CCDData.read(product, hdu="SCI")
    assert ccd.mask.sum() == 4
    by_number = CCDData.read(product)
    np.testing.assert_array_equal(by_number.data, ccd.data)
    assert by_number.mask.sum() == 4
    # Astropy's own reader gives it, too.
    assert CCDData.read(product, hdu="SCI", format="fits").mask.sum() == 4


def test_every_image_opens_without_being_told_of_its_mask(product):
    with fits.open(product) as hdus:
        images = {hdu.name: hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None}
    for name, values in images.items():
        ccd = CCDData.read(product, hdu=name)
        np.testing.assert_array_equal(ccd.data, values)
        assert ccd.unit is not None
        assert (ccd.mask is None) == (f"{name}_MASK" not in images)
        assert (ccd.uncertainty is None) == (f"{name}_ERR" not in images)
    assert CCDData.read(product, hdu="DATA").mask.sum() == 1


@pytest.mark.parametrize("give", [str, lambda path: path, lambda path: open(path, "rb")])
def test_products_are_known_by_path_and_as_open_files(product, give):
    given = give(product)
    ccd = CCDData.read(given, hdu="MODEL", hdu_uncertainty=None)
    assert ccd.mask is None and ccd.uncertainty is None
    if hasattr(given, "close"):
        given.close()


def test_products_of_the_first_layout_have_the_mask_of_sci_only():
    path = Path(__file__).parents[1] / "data" / "result_layout_1.fits.gz"
    assert CCDData.read(path, hdu="SCI").mask is not None
    assert CCDData.read(path, hdu="MODEL").mask is None


def test_other_files_are_left_to_astropy(tmp_path):
    mask = np.eye(5, dtype=bool)
    CCDData(np.ones((5, 5)), unit="Jy", mask=mask).write(tmp_path / "other.fits")
    np.testing.assert_array_equal(CCDData.read(tmp_path / "other.fits").mask, mask)


@pytest.mark.parametrize("name", ["PSF", "CHI2", "COVARIANCE", "ERR"])
def test_other_images_open_as_ccddata_too(product, name):
    assert CCDData.read(product, hdu=name, hdu_mask=None).unit is not None


def test_every_plane_says_where_it_comes_from(product, image):
    expected = {
        key: FIRST[key] for key in ("TELESCOP", "INSTRUME", "TARGNAME", "DATE-OBS", "EXPTIME", "PROPOSID")
    }
    expected |= {"FILTER": "F814W", "OBJECT": "SDSSJ0912+0029", "INFILE": image.name, "PHOTPLAM": 8045.5}
    with fits.open(product) as hdus:
        for hdu in (one for one in hdus if one.is_image):
            assert {key: hdu.header[key] for key in expected} == expected, hdu.name
            assert hdu.header["ZEROPNT"] == pytest.approx(ZERO)
            assert hdu.header["INSUM"].startswith("sha256 of file: ")


def test_magnitudes(product):
    result = SuperResolution.read(product)
    flux = result.lensed_source.data.sum()
    assert result.magnitudes["lensed_source"].value == pytest.approx(ZERO - 2.5 * np.log10(flux))
    # The magnification is flux over flux.
    gained = result.magnitudes["source"] - result.magnitudes["lensed_source"]
    assert gained.value == pytest.approx(2.5 * np.log10(result.magnification), abs=0.02)
    assert "AB magnitudes  source" in result.summary()
    assert fits.getheader(product)["MAGIMG"] == pytest.approx(result.magnitudes["lensed_source"].value)


@pytest.mark.slow
def test_colours(solve):
    def run(factor, **given):
        image = CCDData(factor * solve.data, unit="nJy")
        resolver = SuperResolver(source="sersic", lens=solve.lens, psf=0.2 * u.arcsec)
        return resolver(image, pixel_scale=0.1, noise=factor * solve.sigma, **given)

    one, other = run(1.0), run(10.0)
    for value in one.colours(other).values():
        assert value.value == pytest.approx(2.5, abs=1e-3)
    bare = SuperResolver(source="sersic", lens=solve.lens)(
        solve.data, pixel_scale=0.1, noise=solve.sigma, unit="electron/s"
    )
    assert bare.magnitudes == {}
    with pytest.raises(InputError, match="no colours: give zero_point="):
        one.colours(bare)


@pytest.mark.slow
def test_surface_brightness_has_the_same_magnitudes(solve):
    per_pixel = (1 * u.nJy / (0.1 * u.arcsec) ** 2).to_value(u.MJy / u.sr)
    found = []
    for factor, unit in ((1.0, "nJy"), (per_pixel, "MJy/sr")):
        resolver = SuperResolver(source="sersic", lens=solve.lens, psf=0.2 * u.arcsec)
        image = CCDData(factor * solve.data, unit=unit)
        found.append(resolver(image, pixel_scale=0.1, noise=factor * solve.sigma).magnitudes)
    for part in ("source", "lensed_source"):
        assert found[0][part].value == pytest.approx(found[1][part].value, abs=1e-4)


@pytest.mark.parametrize("name", ["out.png", "out"])
def test_names_that_are_not_of_fits_are_refused(result, image, tmp_path, name):
    with pytest.raises(InputError, match="does not end in .fits"):
        result.write(tmp_path / name)
    assert cli.main(["resolve", str(image), "-o", str(tmp_path / name)]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_second_run_writes_the_same_but_for_the_time(product, solve, image, tmp_path):
    SuperResolver(source="sersic", lens=solve.lens, psf=0.2 * u.arcsec)(image).write(tmp_path / "out.fits")
    timed = {"DATE", "SECONDS", "CHECKSUM", "DATASUM"}
    with fits.open(product) as one, fits.open(tmp_path / "out.fits") as other:
        assert [hdu.name for hdu in one] == [hdu.name for hdu in other]
        for a, b in zip(one, other, strict=True):
            assert [c.image for c in a.header.cards if c.keyword not in timed] == [
                c.image for c in b.header.cards if c.keyword not in timed
            ], a.name
            content = [b"" if hdu.data is None else hdu.data.tobytes() for hdu in (a, b)]
            first, second = (re.sub(rb"20\d\d-[-\dT:]{14}", b"", part) for part in content)
            assert first == second, a.name
