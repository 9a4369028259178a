"""Image HDUs as bytes are what astropy and fitsverify call right."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning

from lenssr.result.hdus import ImageExtension, cards_text, checksum_text, write_hdus


def read_back(path, *extensions):
    """HDUs after a primary one; warnings, also those of wrong sums, are errors here."""
    write_hdus([fits.PrimaryHDU(), *extensions], path)
    with fits.open(path, memmap=False, checksum=True, lazy_load_hdus=False) as hdus:
        hdus.verify("exception")
        _ = [hdu.data for hdu in hdus]  # reads them
        return list(hdus)[1:]


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8", ">f8", "<i4"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (0,)])
def test_arrays_come_back_as_they_are(tmp_path, dtype, shape):
    data = np.random.default_rng(1).uniform(0, 200, shape).astype(dtype)
    (hdu,) = read_back(tmp_path / "x.fits", ImageExtension("ONE", data))
    reference = fits.ImageHDU(data, name="ONE")
    assert hdu.name == "ONE" and hdu.shape == shape
    if data.size:
        assert hdu.data.dtype.newbyteorder("=") == data.dtype.newbyteorder("=")
        np.testing.assert_array_equal(hdu.data, data)
    for card in reference.header.cards:
        assert hdu.header[card.keyword] == card.value


@pytest.mark.parametrize(("dtype", "stored"), [(bool, "u1"), ("u2", "i8"), ("f2", "f8")])
def test_arrays_that_fits_lacks_are_stored_without_a_loss(tmp_path, dtype, stored):
    data = np.array([[0, 1], [1, 1]], dtype)
    (hdu,) = read_back(tmp_path / "x.fits", ImageExtension("ONE", data))
    assert hdu.data.dtype.newbyteorder("=") == np.dtype(stored)
    np.testing.assert_array_equal(hdu.data, data)


def test_cards_come_in_order_and_long_ones_are_told(tmp_path, fitsverify):
    header = fits.Header([("BUNIT", "Jy", "unit"), ("WHY", "x" * 100)])
    shared = cards_text(fits.Header([("FIRST", 1.5, "shared")]))
    one = ImageExtension("ONE", np.ones((2, 2)), header, shared, cards_text(fits.Header([("LAST", True)])))
    hdus = read_back(tmp_path / "x.fits", one, ImageExtension("TWO", None))
    names = [name for name in hdus[0].header if name not in ("XTENSION", "BITPIX", "PCOUNT", "GCOUNT")]
    assert [name for name in names if not name.startswith("NAXIS")] == [
        *("FIRST", "BUNIT", "WHY", "EXTNAME", "LAST", "LONGSTRN", "CHECKSUM", "DATASUM")
    ]
    assert hdus[0].header["WHY"] == "x" * 100
    assert "LONGSTRN" not in hdus[1].header and hdus[1].data is None
    fitsverify(tmp_path / "x.fits")


def test_sums_are_those_of_astropy():
    """Every letter that must not occur is among those of the bytes."""
    reference = fits.PrimaryHDU()
    for value in [*range(0, 2**32, 2**24 + 2**16 + 257), 0, 2**32 - 1]:
        assert checksum_text(value) == reference._char_encode(value)


def test_a_name_in_gz_is_compressed(tmp_path):
    (hdu,) = read_back(tmp_path / "x.fits.gz", ImageExtension("ONE", np.arange(6.0)))
    assert (tmp_path / "x.fits.gz").read_bytes().startswith(b"\x1f\x8b")
    np.testing.assert_array_equal(hdu.data, np.arange(6.0))


def test_a_card_that_fits_cannot_hold_is_refused(tmp_path):
    with pytest.raises((ValueError, VerifyWarning)):
        ImageExtension("ONE", None, fits.Header([("BUNIT", "\N{MICRO SIGN}Jy")])).content()
