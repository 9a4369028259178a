"""Distortions are measured over the image, and taken where they move no pixel by more than 0.02."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData
from astropy.wcs import WCS, DistortionLookupTable
from astropy.wcs.wcsapi import BaseLowLevelWCS, HighLevelWCSMixin

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import Observation
from lenssr.imaging.image_file import wcs_of
from lenssr.imaging.tnx import as_tpv

pytestmark = pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
SCALE, SIDE = 0.05, 65


def header(code="TAN", **more):
    cards = {"CTYPE1": f"RA---{code}", "CTYPE2": f"DEC--{code}", "CRVAL1": 150.0, "CRVAL2": 2.0}
    cards |= {"CRPIX1": 33.0, "CRPIX2": 33.0, "CD1_1": -SCALE / 3600, "CD2_2": SCALE / 3600}
    return fits.Header(cards | {"CD1_2": 0.0, "CD2_1": 0.0, "BUNIT": "nJy"} | more)


def tnx(kind, terms, crossed=2.0, order=3):
    """Cards of IRAF's TNX: a surface of (xi, eta) in degrees, added to xi."""
    limits = "-0.1 0.1 -0.1 0.1"
    numbers = " ".join(map(str, terms))
    texts = {
        1: f'wtype=tnx axtype=ra lngcor = "{kind}. {order}. {order}. {crossed} {limits} {numbers}"',
        2: "wtype=tnx axtype=dec",
    }
    cards = {"WAT0_001": "system=image"}
    for axis, text in texts.items():
        cards |= {f"WAT{axis}_{i // 68 + 1:03d}": text[i : i + 68] for i in range(0, len(text), 68)}
    return header("TNX", **cards)


def sip(size):
    return header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=size, B_0_2=size)


def tpv(size):
    return header("TPV", PV1_1=1.0, PV2_1=1.0, PV1_4=size)


# A quadratic term is at its worst 2/3 of its value at the edge from the best line through it, in the mean.
SMALL = {"SIP": sip(1e-5), "TPV": tpv(0.5), "TNX": tnx(3, [0, 0, 0.5, 0, 0, 0])}
LARGE = {"SIP": sip(1e-3), "TPV": tpv(200.0), "TNX": tnx(3, [0, 0, 200.0, 0, 0, 0])}


@pytest.mark.parametrize("kind", SMALL)
def test_small_distortions_are_taken(kind):
    wcs = wcs_of(SMALL[kind])
    grid = PixelGrid.from_wcs(wcs, (SIDE, SIDE))
    corners = np.array([[0, 0], [SIDE - 1, 0], [0, SIDE - 1], [SIDE - 1, SIDE - 1], [32, 32]])
    true, flat = wcs.all_pix2world(corners, 0), grid.wcs.wcs_pix2world(corners, 0)
    moved = np.abs(true - flat).max() * 3600 / SCALE
    assert 1e-6 < moved < 0.02


@pytest.mark.parametrize("kind", LARGE)
def test_large_distortions_are_refused_with_the_number(kind):
    with pytest.raises(
        InputError, match=r"distortions .* move pixels by up to [\d.]+ .* reproject to plain TAN"
    ):
        PixelGrid.from_wcs(wcs_of(LARGE[kind]), (SIDE, SIDE))


def test_the_number_is_right():
    """The largest deviation of a x^2 on a line from its best straight line, by numpy's polyfit."""
    wcs = wcs_of(header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-4))
    with pytest.raises(InputError) as refused:
        PixelGrid.from_wcs(wcs, (SIDE, SIDE))
    x = np.linspace(-SIDE / 2, SIDE / 2, 9)
    worst = np.abs(1e-4 * x**2 - np.polyval(np.polyfit(x, 1e-4 * x**2, 1), x)).max()
    assert float(str(refused.value).split("up to ")[1].split()[0]) == pytest.approx(worst, rel=0.02)


def test_lookup_tables_are_measured():
    wcs = WCS(header())
    x = np.linspace(-1, 1, 9, dtype=np.float32)
    table = (0.01 * x**2 * np.ones((9, 1))).astype(np.float32)
    wcs.cpdis1 = DistortionLookupTable(table, (1.0, 1.0), (1.0, 1.0), (8.0, 8.0))
    assert PixelGrid.from_wcs(wcs, (SIDE, SIDE)).pixel_scale == pytest.approx(SCALE, rel=1e-3)
    wcs.cpdis1 = DistortionLookupTable(50 * table, (1.0, 1.0), (1.0, 1.0), (8.0, 8.0))
    with pytest.raises(InputError, match="distortion tables .CPDIS.*move pixels by up to"):
        PixelGrid.from_wcs(wcs, (SIDE, SIDE))


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_tnx_against_its_definition(kind):
    """Chebyshev, Legendre and plain polynomials of the normalised coordinates, added to xi by hand."""
    from numpy.polynomial import chebyshev, legendre, polynomial

    terms = [0.001, 0.02, 0.3, -0.01, 0.4, 0.2]
    card = tnx(kind, terms)
    places = np.array([[0.0, 0.0], [64.0, 10.0], [30.0, 50.0]]) * 40
    xi, eta = (places + 1 - 33).T * np.array([[-SCALE], [SCALE]]) / 3600
    basis = {1: chebyshev.chebval2d, 2: legendre.legval2d, 3: polynomial.polyval2d}[kind]
    table = np.zeros((3, 3))
    for value, place in zip(terms, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)], strict=True):
        table[place] = value
    span = 1 if kind == 3 else 0.1
    moved = xi + basis(xi / span, eta / span, table)
    plain = WCS(header())
    pixels = np.column_stack([moved * 3600 / -SCALE, eta * 3600 / SCALE]) + 33 - 1
    expected = plain.wcs_pix2world(pixels, 0)
    np.testing.assert_allclose(WCS(as_tpv(card)).wcs_pix2world(places, 0), expected, atol=1e-10)


def test_zpx_is_refused():
    with pytest.raises(InputError, match="ZPX.*reproject"):
        wcs_of(header("ZPX"))


def test_a_cutout_far_from_the_tangent_point_is_taken():
    """Half a degree off: pixels there are 8e-5 larger, which astropy says too."""
    far = header(CRPIX1=36000.0)
    seen = Observation.from_any((np.random.default_rng(0).normal(size=(SIDE, SIDE)), far), noise=1.0)
    left, right = (WCS(far).pixel_to_world(x, 32) for x in (0, 64))
    assert seen.pixel_scale == pytest.approx(left.separation(right).to_value(u.arcsec) / 64, rel=1e-4)


@pytest.mark.parametrize("cards", [{}, {"CDELT1": 0.0, "CDELT2": 0.0}], ids=["missing", "zero"])
def test_a_missing_scale_is_refused_by_name(cards):
    bare = header(**cards)
    for name in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        del bare[name]
    data = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    with pytest.raises(InputError, match="the WCS has no scale.*give pixel_scale="):
        Observation.from_any((data, bare))
    seen = Observation.from_any((data, bare), pixel_scale=0.05, noise=1.0)
    assert seen.pixel_scale == 0.05 and seen.grid.wcs is None


@pytest.mark.parametrize("given", [{"pixel_scale": 0.05 * u.deg}, {"pixel_scale": 3600.0}])
def test_absurd_scales_are_refused(given):
    with pytest.raises(InputError, match="more than 60"):
        Observation.from_any(np.ones((20, 20)), psf=0.1 * u.arcsec, **given)


@pytest.mark.parametrize("scale", [1e-6, 20.0])
def test_a_psf_of_another_scale_is_refused(scale):
    with pytest.raises(InputError, match="FWHM of 0.1 arcsec, the image.*check pixel_scale= and psf="):
        Observation.from_any(np.ones((20, 20)), psf=0.1 * u.arcsec, pixel_scale=scale)


class OtherWCS(BaseLowLevelWCS, HighLevelWCSMixin):
    """A WCS that is not astropy's, as gwcs makes them."""

    pixel_n_dim = world_n_dim = 2
    world_axis_physical_types = ("pos.eq.ra", "pos.eq.dec")
    world_axis_units = ("deg", "deg")
    world_axis_object_components = world_axis_object_classes = None
    bend = 0.0

    def __init__(self, bend=0.0):
        self.bend, self.inner = bend, WCS(header())

    def pixel_to_world_values(self, x, y):
        return self.inner.pixel_to_world_values(x + self.bend * x**2, y)

    def world_to_pixel_values(self, *world):
        raise NotImplementedError


def test_any_wcs_becomes_an_affine_one():
    data = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    seen = Observation.from_any(NDData(data, wcs=OtherWCS(), unit="nJy"))
    assert seen.pixel_scale == pytest.approx(SCALE, rel=1e-6)
    np.testing.assert_allclose(
        seen.grid.wcs.wcs_pix2world([[0, 0], [64, 9]], 0), WCS(header()).wcs_pix2world([[0, 0], [64, 9]], 0)
    )
    with pytest.raises(InputError, match="OtherWCS.*move pixels"):
        Observation.from_any(NDData(data, wcs=OtherWCS(1e-3), unit="nJy"))
