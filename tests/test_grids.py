"""Pixel grids: positions, skies, resampled headers, and what is refused."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, Sip
from hypothesis import given
from hypothesis import strategies as st

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid, conserves_sum, resampling_factor, scale_matrix, wcs_of_resampled

SHAPE = (40, 50)


def make_wcs(angle=0.0, flip=False, scale=0.05, matrix=None, crval=(150.0, 2.0), projection="TAN"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = crval
    wcs.wcs.crpix = 12.5, 31.0
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    if matrix is None:
        matrix = np.array([[c, -s], [s, c]]) @ np.diag([1.0 if flip else -1.0, 1.0])
    wcs.wcs.cd = np.asarray(matrix) * scale / 3600
    wcs.wcs.set()
    return wcs


def test_positions_are_pixel_centres_about_the_image_centre():
    grid = PixelGrid((4, 5), 0.1)
    assert np.allclose(grid.x[0], [-0.2, -0.1, 0, 0.1, 0.2])
    assert np.allclose(grid.y[:, 0], [-0.15, -0.05, 0.05, 0.15])
    assert grid.x.shape == grid.y.shape == (4, 5)
    assert grid.pixel_area == pytest.approx(0.01)
    assert np.allclose(grid.extent, (-0.25, 0.25, -0.2, 0.2))


def test_upsampled_pixels_fill_the_old_ones():
    grid = PixelGrid((4, 5), 0.1)
    fine = grid.upsample(3)
    assert fine.shape == (12, 15)
    assert np.allclose(fine.x.reshape(4, 3, 5, 3).mean(axis=(1, 3)), grid.x)
    assert np.allclose(fine.extent, grid.extent)


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_pixels_and_back(x, y):
    grid = PixelGrid(SHAPE, 0.07 * u.arcsec)
    assert np.allclose(grid.from_pixel(*grid.to_pixel(x * u.arcsec, y)), (x, y), atol=1e-12)


wcs_settings = dict(
    angle=st.floats(0, 360),
    flip=st.booleans(),
    scale=st.floats(0.01, 1),
    declination=st.sampled_from([-89.9, -50.0, 0.0, 30.0, 89.9]),
)


@given(x=st.floats(-2, 2), y=st.floats(-2, 2), **wcs_settings)
def test_sky_and_back(x, y, angle, flip, scale, declination):
    grid = PixelGrid.from_wcs(make_wcs(angle, flip, scale, crval=(0.0, declination)), SHAPE)
    assert grid.pixel_scale == pytest.approx(scale, rel=1e-9)
    back = grid.from_sky(grid.to_sky(x, y))
    assert np.allclose([value.to_value(u.arcsec) for value in back], (x, y), atol=1e-6)


@given(phi=st.floats(0, 360), **wcs_settings)
def test_position_angle_is_that_between_two_skies(phi, angle, flip, scale, declination):
    grid = PixelGrid.from_wcs(make_wcs(angle, flip, scale, crval=(20.0, declination)), SHAPE)
    step = 5 * np.array([np.cos(np.radians(phi)), np.sin(np.radians(phi))])
    expected = grid.to_sky(0, 0).position_angle(grid.to_sky(*step)).to_value(u.deg)
    found = grid.position_angle(phi * u.deg).to_value(u.deg)
    assert abs((found - expected + 180) % 360 - 180) < 0.1
    back = grid.image_angle(found * u.deg).to_value(u.deg)
    assert abs((back - phi + 180) % 360 - 180) < 1e-6


@pytest.mark.parametrize(("flip", "expected"), [(False, 270), (True, 90)])
def test_x_points_west_in_a_common_image(flip, expected):
    grid = PixelGrid.from_wcs(make_wcs(flip=flip, crval=(150.0, 0.0)), SHAPE)
    assert grid.position_angle(0 * u.deg).to_value(u.deg) == pytest.approx(expected, abs=0.01)
    assert grid.position_angle(90 * u.deg).wrap_at(180 * u.deg).to_value(u.deg) == pytest.approx(0, abs=0.01)


@given(factor=st.integers(1, 5), column=st.floats(-5, 60), row=st.floats(-5, 60), **wcs_settings)
def test_resampled_wcs_says_the_same_sky(factor, column, row, angle, flip, scale, declination):
    wcs = make_wcs(angle, flip, scale, crval=(33.0, declination))
    fine = wcs_of_resampled(wcs, factor)
    assert fine.wcs.has_cd() and not fine.wcs.has_pc()
    moved = [(value + 0.5) * factor - 0.5 for value in (column, row)]
    there, here = (
        SkyCoord(*w.wcs_pix2world(*p, 0), unit="deg") for w, p in ((fine, moved), (wcs, (column, row)))
    )
    assert here.separation(there).to_value(u.arcsec) < 1e-6


def test_resampled_wcs_survives_a_header():
    wcs = make_wcs(30, True)
    wcs.wcs.radesys = "FK5"
    wcs.wcs.equinox = 2000.0
    wcs.pixel_shape = SHAPE[::-1]
    fine = PixelGrid.from_wcs(wcs, SHAPE).upsample(2).wcs
    assert fine.pixel_shape == (100, 80)
    header = fine.to_header()
    assert header["RADESYS"] == "FK5"
    again = WCS(header)
    assert np.allclose(scale_matrix(again), scale_matrix(wcs) / 2)
    assert np.allclose(again.wcs.crpix, (np.array([12.5, 31.0]) - 0.5) * 2 + 0.5)


def test_header_with_cd_and_pc_together():
    header = fits.Header(
        dict(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=10.0, CRVAL2=-5.0, CRPIX1=3.0, CRPIX2=4.0)
    )
    header.update(CUNIT1="deg", CUNIT2="deg", CDELT1=1.0, CDELT2=1.0)
    for key in ("CD", "PC"):
        header.update({f"{key}1_1": -0.1 / 3600, f"{key}2_2": 0.1 / 3600})
    grid = PixelGrid.from_wcs(WCS(header), SHAPE)
    assert grid.pixel_scale == pytest.approx(0.1, rel=1e-9)
    again = WCS(grid.upsample(4).wcs.to_header())
    assert np.allclose(scale_matrix(again) * 3600, [[-0.025, 0], [0, 0.025]])


def test_linear_wcs_in_arcsec():
    wcs = WCS(naxis=2)
    wcs.wcs.cunit = ["arcsec", "arcsec"]
    wcs.wcs.cdelt = 0.2, 0.2
    grid = PixelGrid.from_wcs(wcs, SHAPE)
    assert grid.pixel_scale == pytest.approx(0.2)
    with pytest.raises(InputError, match="no celestial WCS"):
        grid.to_sky(0, 0)


def test_nearly_square_pixels_pass():
    grid = PixelGrid.from_wcs(make_wcs(matrix=[[-1.0001, 0], [0, 1]]), SHAPE)
    assert grid.pixel_scale == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        ([[-1.01, 0], [0, 1]], "unequal sides, 0.0505 x 0.05 arcsec"),
        ([[-1, 0.02], [0, 0.9998]], "skewed, their sides meet at 88.85 degrees"),
    ],
)
def test_pixels_that_are_not_square_are_refused(matrix, match):
    with pytest.raises(InputError, match=match):
        PixelGrid.from_wcs(make_wcs(matrix=matrix), SHAPE)


def test_distortions_are_refused():
    wcs = make_wcs()
    zero = np.zeros((3, 3))
    wcs.sip = Sip(zero + 1e-6, zero, None, None, wcs.wcs.crpix)
    with pytest.raises(InputError, match="SIP polynomials.*drizzle or reproject"):
        PixelGrid.from_wcs(wcs, SHAPE)
    header = make_wcs().to_header()
    header.update(CTYPE1="RA---TPV", CTYPE2="DEC--TPV", PV1_1=1.0, PV2_1=1.0, PV1_4=200.0)
    with pytest.raises(InputError, match="TPV"):
        PixelGrid.from_wcs(WCS(header), SHAPE)


def test_stretched_projection_is_refused():
    wcs = make_wcs(projection="CAR", crval=(150.0, 0.0))
    assert PixelGrid.from_wcs(wcs, SHAPE).pixel_scale == pytest.approx(0.05)
    wcs.wcs.crpix = 12, -60 * 3600 / 0.05
    wcs.wcs.set()
    with pytest.raises(InputError, match="CAR"):
        PixelGrid.from_wcs(wcs, SHAPE)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PixelGrid((3, 3, 3), 0.1), r"shape = \(3, 3, 3\)"),
        (lambda: PixelGrid((3, 0), 0.1), r"shape = \(3, 0\)"),
        (lambda: PixelGrid((3, 3), 0), "pixel_scale = 0 is not positive"),
        (lambda: PixelGrid((3, 3), np.nan), "pixel_scale = nan"),
        (lambda: PixelGrid((3, 3), [0.1, 0.2]), "not one number"),
        (lambda: PixelGrid((3, 3), 0.1 * u.s), "not convertible"),
        (lambda: PixelGrid(SHAPE, 0.06, make_wcs()), "0.06 arcsec, but the WCS says 0.05"),
        (lambda: PixelGrid((3, 3), 0.1).upsample(1.5), "factor = 1.5"),
        (lambda: PixelGrid((3, 3), 0.1).to_sky(0, 0), "no celestial WCS"),
        (lambda: PixelGrid.from_wcs(make_wcs(), SHAPE).position_angle(0.3), "has no unit"),
    ],
)
def test_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


@pytest.mark.parametrize("unit", ["electron", "electron/s", "adu", "DN", "nJy", "ct", "", "Jy/pix"])
def test_per_pixel_units_keep_the_sum(unit):
    assert conserves_sum(unit)
    assert resampling_factor(unit, 3) == pytest.approx(1 / 9)


@pytest.mark.parametrize("unit", ["MJy/sr", "nJy/arcsec2", "electron/(s arcsec2)", "Jy/deg2", "Jy/beam"])
def test_surface_brightness_keeps_the_mean(unit):
    assert not conserves_sum(unit)
    assert resampling_factor(unit, 3) == 1


@pytest.mark.parametrize("unit", [u.mag, u.ABmag, u.mag / u.arcsec**2, u.dex])
def test_logarithms_are_refused(unit):
    with pytest.raises(InputError, match="logarithmic"):
        conserves_sum(unit)
