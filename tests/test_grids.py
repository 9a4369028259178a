"""Pixel grids: positions, skies, resampled headers, and what is refused."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, Sip
from hypothesis import given
from hypothesis import strategies as st

from lenssr._wcs import scale_matrix
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid, conserves_sum, resampling_factor, wcs_of_resampled

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


def test_rounding_of_a_header_leaves_squares():
    grid = PixelGrid.from_wcs(make_wcs(matrix=[[-1.0000002, 1e-7], [0, 1]]), SHAPE)
    assert grid.is_square and grid.matrix[0, 0] == grid.pixel_scale == pytest.approx(0.05, rel=1e-6)


# Sides that differ by 0.01 % and 1 %; sides that meet at 88.9 degrees; both.
STRETCHES = [
    [[1.0001, 0], [0, 1]],
    [[1.01, 0], [0, 1]],
    [[1.0, 0.02], [0.0, 1.0]],
    [[1.015, -0.015], [-0.015, 0.985]],
]


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 20.0, 110.0])
def test_the_frame_of_stretched_pixels_is_a_tangent_plane(stretch, flip, angle):
    """Distances and angles between any two positions of the frame are those on the sky."""
    wcs = make_wcs(angle, flip)
    wcs.wcs.cd = wcs.wcs.cd @ np.array(stretch)
    wcs.wcs.set()
    grid = PixelGrid.from_wcs(wcs, SHAPE)
    assert not grid.is_square
    assert np.allclose(grid.matrix, grid.matrix.T, rtol=1e-12)
    assert grid.pixel_area == pytest.approx(0.05**2 * abs(np.linalg.det(stretch)), rel=1e-6)
    phi = np.radians([0.0, 40.0, 90.0, 200.0])
    around = grid.to_sky(0.8 * np.cos(phi), 0.8 * np.sin(phi))
    centre = grid.to_sky(0.0, 0.0)
    assert np.allclose(centre.separation(around).to_value(u.arcsec), 0.8, rtol=1e-6)
    turn = centre.position_angle(around).to_value(u.deg) - grid.position_angle(phi * u.rad).to_value(u.deg)
    assert np.allclose((turn + 180) % 360 - 180, 0, atol=1e-3)
    again = grid.image_angle(grid.position_angle(phi * u.rad)).radian
    assert np.allclose(np.exp(1j * again), np.exp(1j * phi), atol=1e-9)
    column, row = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    there = [axis.to_value(u.arcsec) for axis in grid.from_sky(wcs.pixel_to_world(column, row))]
    assert np.allclose(there, [grid.x, grid.y], atol=1e-7)
    assert np.allclose(grid.to_pixel(grid.x, grid.y), [column, row], atol=1e-9)


@pytest.mark.parametrize("stretch", STRETCHES)
def test_finer_pixels_of_stretched_ones(stretch):
    wcs = make_wcs(20.0)
    wcs.wcs.cd = wcs.wcs.cd @ np.array(stretch)
    wcs.wcs.set()
    grid = PixelGrid.from_wcs(wcs, (4, 5))
    fine = grid.upsample(3)
    assert np.allclose(fine.x.reshape(4, 3, 5, 3).mean(axis=(1, 3)), grid.x)
    assert np.allclose(fine.y.reshape(4, 3, 5, 3).mean(axis=(1, 3)), grid.y)
    assert np.allclose(fine.extent, grid.extent)
    assert fine.pixel_area == pytest.approx(grid.pixel_area / 9)
    # The finer WCS makes the same grid by itself.
    assert np.allclose(PixelGrid.from_wcs(fine.wcs, fine.shape).matrix, fine.matrix, rtol=1e-8)
    assert fine.to_sky(0.1, 0.2).separation(grid.to_sky(0.1, 0.2)).to_value(u.arcsec) < 1e-7


def test_a_projection_that_stretches_is_measured_at_the_image():
    """CAR off its equator: a degree along the axis of longitudes is shorter there."""
    wcs = make_wcs(projection="CAR", crval=(150.0, 0.0))
    wcs.wcs.crpix = 12, -10 * 3600 / 0.05
    wcs.wcs.set()
    grid = PixelGrid.from_wcs(wcs, SHAPE)
    assert np.allclose(grid.matrix, [[0.05 * np.cos(np.radians(10)), 0], [0, 0.05]], atol=1e-6)
    across = grid.to_sky(-1.0, 0.0).separation(grid.to_sky(1.0, 0.0)).to_value(u.arcsec)
    assert across == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("stretch", [np.eye(2), *STRETCHES])
def test_exposures_in_one_frame(flip, stretch):
    """A turned, dithered, perhaps mirrored exposure: the same as through the sky."""
    reference = PixelGrid.from_wcs(make_wcs(0.0, crval=(150.0, 60.0)), SHAPE)
    wcs = make_wcs(20.0, flip, 0.04, crval=(150.0, 60.0))
    wcs.wcs.cd = wcs.wcs.cd @ np.array(stretch)
    wcs.wcs.crpix = 13.0, 30.5
    wcs.wcs.set()
    own = PixelGrid.from_wcs(wcs, (30, 36))
    grid = own.seen_from(reference)
    column, row = np.meshgrid(np.arange(36), np.arange(30))
    through = [axis.to_value(u.arcsec) for axis in reference.from_sky(wcs.pixel_to_world(column, row))]
    assert np.allclose([grid.x, grid.y], through, atol=1e-6, rtol=0)
    assert grid.pixel_area == pytest.approx(own.pixel_area, rel=1e-6)
    assert np.allclose(grid.to_pixel(grid.x, grid.y), [column, row], atol=1e-9)
    fine = grid.upsample(2)
    assert np.allclose(fine.x.reshape(30, 2, 36, 2).mean((1, 3)), grid.x)
    back = grid.seen_from(own)
    assert np.allclose([back.x, back.y], [own.x, own.y], atol=1e-6, rtol=0)
    assert reference.seen_from(reference) is reference


def test_exposures_that_are_bent_against_each_other_are_refused():
    wcs = make_wcs(projection="CAR", crval=(150.0, 0.0), scale=3.0)
    wcs.wcs.crpix = 250, -12000
    wcs.wcs.set()
    with pytest.raises(InputError, match="distorted by .* pixels: drizzle"):
        grid = PixelGrid.from_wcs(make_wcs(scale=3.0, crval=(150.0, 10.0)), (500, 500))
        grid.seen_from(PixelGrid.from_wcs(wcs, SHAPE))


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        ([[-1.06, 0], [0, 1]], "0.053 x 0.05 arcsec whose sides meet at 90 degrees, stretched by 6 %"),
        ([[-1, 0.08], [0, 0.9998]], "sides meet at 85.43 degrees, stretched by 8.33 %: resample"),
    ],
)
def test_pixels_that_are_too_far_from_square_are_refused(matrix, match):
    with pytest.raises(InputError, match=match):
        PixelGrid.from_wcs(make_wcs(matrix=matrix), SHAPE)


def test_distortions_are_refused():
    wcs = make_wcs()
    zero = np.zeros((3, 3))
    bent = zero.copy()
    bent[2, 0] = 1e-3
    wcs.sip = Sip(bent, zero, None, None, wcs.wcs.crpix)
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
        (lambda: PixelGrid((3, 3), 0), "pixel_scale = 0 is not a positive number"),
        (lambda: PixelGrid((3, 3), np.nan), "pixel_scale = nan"),
        (lambda: PixelGrid((3, 3), [0.1, 0.2]), "not one number"),
        (lambda: PixelGrid((3, 3)), "give pixel_scale=, matrix= or wcs="),
        (lambda: PixelGrid((3, 3), 0.1, matrix=np.eye(2)), "give one of them"),
        (lambda: PixelGrid((3, 3), matrix=[0.1, 0.1]), r"matrix has shape \(2,\)"),
        (lambda: PixelGrid((3, 3), matrix=np.ones((2, 2))), "correct it"),
        (lambda: PixelGrid((3, 3), matrix=np.diag([0.1, np.nan])), "correct it"),
        (lambda: PixelGrid((3, 3), 0.1).seen_from(PixelGrid((3, 3), 0.1)), "no celestial WCS"),
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
