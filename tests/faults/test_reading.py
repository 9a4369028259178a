"""Files that announce what they do not hold, and those that hold more than memory."""

import bz2
import gzip
import io
import os

import numpy as np
import pytest
from astropy.io import fits

from lenssr import SIE, InputError, PixelGrid, Sersic, SuperResolver
from lenssr._limits import check_unit_text, limited, memory_size
from lenssr._yaml import read_yaml
from lenssr.exceptions import short_line
from lenssr.imaging import PSF, Observation, render
from lenssr.imaging.archive_units import parse_unit


def write(path, **changes):
    """A file of an image and its errors, cards changed after it was written."""
    data = np.random.default_rng(1).normal(1, 0.1, (24, 24))
    header = fits.Header({"BUNIT": "electron/s"})
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(data, header, name) for name in ("SCI", "ERR"))]
    fits.HDUList(hdus).writeto(path)
    raw = path.read_bytes()
    for name, value in changes.items():
        place = raw.index(f"{name:8}=".encode(), 2880)
        raw = raw[:place] + f"{name:8}= {value:>20}".ljust(80).encode() + raw[place + 80 :]
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NAXIS1": "-64"}, "NAXIS1 = -64"),
        ({"NAXIS": "1000000000"}, "NAXIS = 1000000000"),
        ({"PCOUNT": "-2304"}, "PCOUNT = -2304"),
        ({"BITPIX": "12"}, "BITPIX = 12"),
        ({"NAXIS": "1"}, "as there is NAXIS2"),
        ({"NAXIS2": "48"}, "truncated|damaged"),
        ({"NAXIS2": "99999999"}, "truncated"),
        ({"BUNIT": "'10**99999999 Jy'"}, "exponent"),
        ({"XTENSION": "'IMAGF'"}, "no (two-dimensional )?image"),
    ],
)
def test_headers_are_checked_first(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        Observation.from_any(write(tmp_path / "a.fits", **changes), pixel_scale=0.05)


@pytest.mark.parametrize("share", [0.4, 0.7, 0.98])
def test_a_stream_that_ends_early_is_refused(tmp_path, share):
    whole = gzip.compress(write(tmp_path / "a.fits").read_bytes())
    path = tmp_path / "a.fits.gz"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="truncated"):
        Observation.from_any(path, pixel_scale=0.05)
    path.write_bytes(whole)
    assert Observation.from_any(path, pixel_scale=0.05).error is not None


@pytest.mark.parametrize("packed", [False, True])
def test_open_files_are_checked_as_others(tmp_path, packed):
    raw = write(tmp_path / "a.fits").read_bytes()
    whole, half = (gzip.compress(one) if packed else one for one in (raw, raw[: len(raw) // 2 + 100]))
    half = whole[: len(whole) // 2] if packed else half
    with pytest.raises(InputError, match="truncated"):
        Observation.from_any(io.BytesIO(half), pixel_scale=0.05)
    behind = io.BytesIO(b"something before" + whole)
    behind.seek(16)
    assert Observation.from_any(behind, pixel_scale=0.05).error is not None
    with open(write(tmp_path / "b.fits", NAXIS1="-64"), "rb") as file:
        with pytest.raises(InputError, match="NAXIS1 = -64"):
            Observation.from_any(file, pixel_scale=0.05)
    with open(tmp_path / "a.fits", encoding="latin-1") as file:
        with pytest.raises(InputError, match="binary mode"):
            Observation.from_any(file, pixel_scale=0.05)


def test_sums_are_verified(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.ones((20, 20))).writeto(path, checksum=True)
    Observation.from_any(path, pixel_scale=0.05, noise=1.0)
    raw = bytearray(path.read_bytes())
    raw[3000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="DATASUM of HDU 0 differs"):
        Observation.from_any(path, pixel_scale=0.05, noise=1.0)


def test_a_plane_by_name_without_an_image_is_refused(tmp_path):
    path = tmp_path / "a.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])], name="ERR")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((20, 20)), name="SCI"), table]).writeto(path)
    with pytest.raises(InputError, match="HDU ERR holds no image"):
        Observation.from_any(path, pixel_scale=0.05)


def test_a_small_file_of_a_large_image_is_refused_before_it_is_read(tmp_path):
    cards = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "2", "NAXIS1": "20000", "NAXIS2": "20000"}
    header = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items()) + "END"
    packed = bz2.compress(header.ljust(2880).encode())
    path = tmp_path / "a.fits.bz2"
    path.write_bytes(packed)  # the pixels would follow
    with (
        limited(memory=1e9),
        pytest.raises(InputError, match="needs about .* GB of memory, the limit is 1 GB"),
    ):
        SuperResolver(source="interpolation")(path, pixel_scale=0.05)


def test_draws_and_grids_that_memory_does_not_hold_are_refused():
    grid = PixelGrid((40, 40), 0.05)
    image = render(grid, lens=SIE(0.5), source=Sersic(10.0, r_eff=0.1, x_0=0.05))
    result = SuperResolver(source="sersic", lens=SIE(0.5))(image, pixel_scale=0.05, noise=image.max() / 30)
    for draw in (result.sample, result.sample_posterior):
        with pytest.raises(InputError, match=r"n = 1000000000 draws of .* needs about"):
            draw(10**9)
    with pytest.raises(InputError, match="100000 x 100000 pixels needs about"):
        render(PixelGrid((100_000, 100_000), 0.05), source=Sersic(1.0, r_eff=1.0))


def test_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="a FIFO"):
        Observation.from_any(tmp_path / "fifo")


@pytest.mark.parametrize("name", ["a.fits", "a.asdf"])
def test_addresses_are_refused(name):
    with pytest.raises(InputError, match="is an address: download"):
        Observation.from_any(f"http://localhost/{name}")


@pytest.mark.parametrize("text", ["10**99999999 Jy", "(" * 20 + "m" + ")" * 20, "m^12345", "J" * 200])
def test_units_that_never_end_are_refused(text):
    with pytest.raises(InputError):
        check_unit_text(text, "unit")
    with pytest.raises(InputError):
        parse_unit(text)


@pytest.mark.parametrize(
    "text", ["electron/s", "1e-20 erg/s/cm^2", "10**-3 Jy", "MJy/sr", "1.2 arcsec", "nJy"]
)
def test_usual_units_pass(text):
    check_unit_text(text, "unit")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("012", "012"),
        ("12", 12),
        ("-1.5e3", -1500.0),
        ("~", None),
        ("true", True),
    ],
)
def test_words_of_yaml(text, value):
    found = read_yaml(f"a: {text}", "x")["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["a: &b [1]\nc: *b", "a: 1\na: 2", "- !!int 3", "[" * 500, "a: 1e999", "---\na\n---\nb"]
)
def test_yaml_that_is_refused(text):
    with pytest.raises(InputError):
        read_yaml(text, "x")


def test_sizes_of_memory():
    assert (memory_size("2GB"), memory_size("1.5GiB"), memory_size("500M")) == (2e9, 1.5 * 2**30, 5e8)
    with pytest.raises(InputError, match="give a size such as 2GB"):
        memory_size("much")


def test_messages_are_short_lines():
    message = str(InputError("a" * 1000 + "\n" + "b" * 1000))
    assert len(message) < 420 and "\n" not in message and message.endswith("b" * 200)
    assert short_line("one\ntwo\x1b") == "one two\\x1b"


def test_a_large_psf_is_measured_around_its_peak():
    y, x = np.indices((801, 801))
    psf = PSF(np.exp(-0.5 * ((x - 400.02) ** 2 + (y - 399.99) ** 2) / 4))
    assert psf.offset == pytest.approx((0.02, -0.01), abs=1e-3)
    assert psf.fwhm_at(0.1) == pytest.approx(0.1 * 2 * 2.3548, rel=0.01)


def test_a_wide_psf_is_cut_as_it_is_made():
    import astropy.units as u

    psf = PSF.from_fwhm(1 * u.arcsec)
    whole, cut = psf.kernel(0.1), psf.kernel(0.1, shape=(20, 31))
    middle = whole[len(whole) // 2 - 9 : len(whole) // 2 + 10, len(whole) // 2 - 15 : len(whole) // 2 + 16]
    assert cut == pytest.approx(middle / middle.sum(), rel=1e-12)
