"""What people hold in Python is read with all that it says, or refused with the reason."""

import io
import subprocess
import sys
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D, NDDataRef
from astropy.utils.masked import Masked
from astropy.wcs import WCS

from lenssr.exceptions import InputError
from lenssr.imaging import Observation

DATA = np.random.default_rng(1).normal(size=(64, 64))
CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 20.0}
CARDS |= {"CRPIX2": 30.0, "CD1_1": -0.05 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.05 / 3600}
HEADER = fits.Header(CARDS | {"BUNIT": "nJy", "FILTER": "r", "EXPTIME": 100.0})
SKY = WCS(HEADER)
LENS = SkyCoord(150.1, 2.2, unit="deg")


def hdu():
    return fits.ImageHDU(DATA, HEADER, name="SCI")


def in_memory():
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu()]).writeto(file)
    file.seek(0)
    return file


WHOLE = {
    "(data, header)": lambda: (DATA, HEADER),
    "(data, WCS)": lambda: (DATA * u.nJy, SKY),
    "HDU": hdu,
    "primary HDU": lambda: fits.PrimaryHDU(DATA, HEADER),
    "compressed HDU": lambda: fits.CompImageHDU(DATA, HEADER),
    "open file": in_memory,
    "like an NDCube": lambda: SimpleNamespace(
        data=DATA, wcs=SKY, unit=u.nJy, mask=None, uncertainty=None, meta=dict(HEADER)
    ),
    "dict of one band": lambda: {"r": CCDData(DATA, unit="nJy", wcs=SKY)},
    "Observation": lambda: Observation.from_any((DATA, HEADER)),
    "axes of length 1": lambda: fits.PrimaryHDU(DATA[None, None], HEADER),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_the_whole_image(kind):
    seen = Observation.from_any(WHOLE[kind](), noise=1.0)
    np.testing.assert_allclose(seen.data, DATA, atol=1.0 if kind == "compressed HDU" else 0)
    assert seen.unit == u.nJy
    assert seen.grid.wcs.pixel_to_world(19, 29).separation(LENS) < 1e-6 * u.arcsec


CUT = {
    "NDDataRef": lambda: NDDataRef(DATA, wcs=SKY, unit="nJy")[10:60, 5:60],
    "CCDData": lambda: CCDData(DATA, wcs=SKY, unit="nJy")[10:60, 5:60],
    "Cutout2D": lambda: Cutout2D(DATA, (32, 34.5), (50, 55), wcs=SKY),
}


@pytest.mark.parametrize("kind", CUT)
def test_cutouts_keep_their_place(kind):
    seen = Observation.from_any(CUT[kind](), noise=1.0, unit="nJy")
    np.testing.assert_array_equal(seen.data, DATA[10:60, 5:60])
    assert seen.grid.wcs.pixel_to_world(14, 19).separation(LENS) < 1e-6 * u.arcsec


@pytest.mark.parametrize("kind", [Masked, np.ma.MaskedArray], ids=["Masked", "numpy"])
def test_masks_of_arrays(kind):
    bad = np.zeros(DATA.shape, bool)
    bad[3, 4:7] = True
    values = np.where(bad, 1e6, DATA)
    image = Masked(values * u.nJy, mask=bad) if kind is Masked else np.ma.MaskedArray(values, bad)
    seen = Observation.from_any(image, pixel_scale=0.05, unit="nJy", noise=1.0)
    assert seen.mask.sum() == 3 and seen.data.max() < 10


def test_a_dict_of_bands_needs_a_choice():
    bands = {"g": (DATA, HEADER), "r": (2 * DATA, HEADER)}
    with pytest.raises(InputError, match=r"dict of bands \(g, r\): choose one by band="):
        Observation.from_any(bands)
    np.testing.assert_array_equal(Observation.from_any(bands, band="R").data, 2 * DATA)


def test_an_observation_with_another_psf_and_noise():
    first = Observation.from_any((DATA, HEADER))
    again = Observation.from_any(first, psf=0.1 * u.arcsec, noise=2.0, mask=DATA > 2)
    assert again.psf_fwhm == 0.1 and np.all(again.error == 2.0)
    assert again.mask.sum() == (DATA > 2).sum() and first.psf is None


@pytest.mark.parametrize(
    "centre",
    [
        LENS,
        "150.1 2.2",
        "10:00:24 +02:12:00",
        "10h00m24s 2d12m00s",
        (150.1, 2.2),
        (150.1 * u.deg, 2.2 * u.deg),
    ],
)
@pytest.mark.parametrize("kind", ["(data, header)", "HDU", "open file"])
def test_a_cutout_about_a_place(centre, kind):
    seen = Observation.from_any(WHOLE[kind](), centre=centre, size=(0.5, 1.0) * u.arcsec, noise=1.0)
    np.testing.assert_array_equal(seen.data, DATA[24:34, 9:29])
    assert seen.grid.wcs.pixel_to_world(10, 5).separation(LENS) < 1e-6 * u.arcsec


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"centre": "here"}, "centre = 'here' is no place on the sky: give"),
        ({"centre": "150.2 2.2", "size": 1.0}, "lies outside the image, whose centre is at"),
        ({"centre": LENS, "size": -1.0}, "size = -1.0: give a positive angle"),
        ({"size": 1.0}, "without centre: give centre="),
        ({"most_pixels": 1000}, "64 x 64 pixels, more than 1000 .*: cut it by centre= and size="),
        ({"weight_kind": "exposure"}, "weight_kind = 'exposure', but there is no weight: leave it out"),
        ({"mask_bits": "SAT"}, "mask_bits = 'SAT', but there is no mask: leave it out"),
        ({"psf_oversampling": 4}, "psf_oversampling: only a PSF that is an array or a file needs it"),
        (
            {"psf_includes_pixel": True, "psf": 0.1 * u.arcsec},
            "psf_includes_pixel: only a PSF that is an arr",
        ),
        ({"weight_kind": "heavy"}, "weight_kind = 'heavy': give one of 'exposure'"),
    ],
)
def test_refused(given, match):
    with pytest.raises(InputError, match=match):
        Observation.from_any(hdu(), **given)


def test_a_frame_is_refused_before_it_is_read(tmp_path):
    """The header alone says how large it is; the pixels of this file are not even there."""
    path = tmp_path / "large.fits"
    header = fits.Header(
        CARDS | {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 40000, "NAXIS2": 40000}
    )
    ordered = fits.Header([(k, header[k]) for k in ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", *CARDS)])
    with open(path, "wb") as file:
        file.write(ordered.tostring().encode())
        file.truncate(file.tell() + 4 * 40000**2 + 2880 - 4 * 40000**2 % 2880)
    with pytest.raises(InputError, match="40000 x 40000 pixels.*--centre"):
        Observation.from_any(path, most_pixels=1024**2)
    seen = Observation.from_any(path, centre=LENS, size=1.0 * u.arcsec, noise=1.0, unit="nJy")
    assert seen.shape == (20, 20)


CUTTING = """
import pathlib, re, sys, time
import lenssr.imaging
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
before = peak()
started = time.process_time()
seen = lenssr.imaging.Observation.from_any(sys.argv[1], centre="150.1 2.2", size=1.0, noise=1.0)
spent = time.process_time() - started
print(*seen.shape, spent, peak() - before)
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sizes of processes are in other units elsewhere")
def test_a_cut_of_a_mosaic_costs_no_more_than_the_cut(tmp_path):
    path, side = tmp_path / "mosaic.fits", 16384
    names = {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": side, "NAXIS2": side}
    with open(path, "wb") as file:
        file.write(fits.Header(list((names | CARDS | {"BUNIT": "nJy"}).items())).tostring().encode())
        file.truncate(file.tell() + 4 * side**2 + -(4 * side**2) % 2880)
    # Parts of scipy that take 40 MB, which reading does without.
    parts = ["scipy.signal", "scipy.interpolate", "scipy.spatial", "scipy.stats"]
    command = [sys.executable, "-c", CUTTING, str(path), *parts]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    height, width, seconds, grown = map(float, told[0].split())
    assert (height, width) == (20, 20)
    assert seconds < 2 and grown < 50 and told[1] == ""


def test_asdf_needs_its_package(tmp_path):
    path = tmp_path / "image.asdf"
    path.write_bytes(b"#ASDF 1.0.0\n")
    with pytest.raises(
        InputError, match=r"ASDF file: (install lenssr\[jwst\]|needs|give)|not a readable ASDF|has no"
    ):
        Observation.from_any(path)


def test_roman_asdf(tmp_path):
    asdf, gwcs = pytest.importorskip("asdf"), pytest.importorskip("gwcs")
    pytest.importorskip("asdf_astropy")
    from astropy.coordinates import ICRS
    from astropy.modeling import models

    scale = 0.11 / 3600
    shift = models.Shift(-31.5) & models.Shift(-31.5)
    sky = models.Pix2Sky_TAN() | models.RotateNative2Celestial(150.1, 2.2, 180.0)
    frames = gwcs.coordinate_frames
    detector = frames.Frame2D(name="detector", unit=(u.pix, u.pix))
    world = frames.CelestialFrame(reference_frame=ICRS(), name="icrs", unit=(u.deg, u.deg))
    wcs = gwcs.WCS([(detector, shift | (models.Scale(-scale) & models.Scale(scale)) | sky), (world, None)])
    tree = {"data": DATA, "err": np.ones((64, 64)), "dq": np.eye(64, dtype="u4"), "meta": {"wcs": wcs}}
    asdf.AsdfFile({"roman": tree}).write_to(tmp_path / "r.asdf")
    seen = Observation.from_any(tmp_path / "r.asdf", unit="DN/s")
    assert seen.pixel_scale == pytest.approx(0.11, rel=1e-6)
    assert seen.mask.sum() == 64 and np.all(seen.error == 1)


def test_planes_of_the_whole_frame_are_cut_too():
    rows, columns = np.indices(DATA.shape)
    given = {"mask": columns == 10, "centre": LENS, "size": 1 * u.arcsec}
    seen = Observation.from_any((DATA, HEADER), error=1.0 + rows, **given)
    assert seen.error[0, 0] == 1 + 19
    assert seen.mask[:, 1].all() and seen.mask.sum() == 20
    assert Observation.from_any((DATA, HEADER), noise=2.0 + rows, **given).error[0, 0] == 2 + 19
