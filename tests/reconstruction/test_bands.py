"""Several bands and exposures of a lens that lenstronomy bends: in one frame, fitted together, left out."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter

from lenssr import SIE, PixelGrid, Shear, SuperResolver
from lenssr.exceptions import InputError
from lenssr.imaging import Observation
from lenssr.reconstruction.bands import BandsReconstruction, Group, place, with_light_shown
from lenssr.reconstruction.registration import offset_between

SCALE, SIGMA, FINE = 0.12, 0.02, 5
MASS = [
    {"theta_E": 0.8, "gamma": 2.0, "e1": 0.1, "e2": -0.05, "center_x": 0.0, "center_y": 0.0},
    {"gamma1": 0.02, "gamma2": 0.01},
]
START = SIE(0.79, 0.08, -0.03) + Shear(0.01, 0.0)
SERSIC = ("amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y")
BLUE = (15.0, 0.15, 1.0, 0.1, 0.0, 0.1, -0.05)
RED = (22.0, 0.12, 1.2, -0.1, 0.1, 0.12, -0.03)


def turn_by(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def wcs_of(shape, turn, shift, wrong):
    """WCS of pixels that are turned against a frame with east to the left, and shifted in it (arcsec)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    middle = (np.array(shape[::-1]) + 1) / 2
    wcs.wcs.crpix = middle - np.linalg.inv(turn) @ shift / SCALE + wrong
    wcs.wcs.cd = SCALE / 3600 * np.diag([-1.0, 1.0]) @ turn
    wcs.wcs.set()
    return wcs


def exposure(source, seed, *, angle=0.0, shape=(26, 26), shift=(0.0, 0.0), wrong=(0.0, 0.0), told=None):
    """A noisy image; its WCS is off by ``wrong`` pixels, and says that it is turned by ``told`` degrees."""
    turn, margin = turn_by(angle), 6
    wide = [(side + 2 * margin) * FINE for side in shape]
    row, column = np.indices(wide)
    places = [
        SCALE / FINE * (axis - (size - 1) / 2) for axis, size in zip((column, row), wide[::-1], strict=True)
    ]
    x, y = (turn @ np.stack([axis.ravel() for axis in places])) + np.reshape(shift, (2, 1))
    rays = LensModel(["EPL", "SHEAR"]).ray_shooting(x, y, MASS)
    keywords = [dict(zip(SERSIC, source, strict=True))]
    light = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(*rays, keywords).reshape(wide)
    seen = gaussian_filter(light, 0.25 / 2.3548 / SCALE * FINE) * (SCALE / FINE) ** 2
    data = seen.reshape(shape[0] + 2 * margin, FINE, shape[1] + 2 * margin, FINE).sum((1, 3))
    data = data[margin:-margin, margin:-margin] + np.random.default_rng(seed).normal(0, SIGMA, shape)
    wcs = wcs_of(shape, turn_by(angle if told is None else told), np.array(shift), np.array(wrong))
    error = StdDevUncertainty(np.full(shape, SIGMA))
    return CCDData(data, unit="electron/s", wcs=wcs, uncertainty=error)


TURNED = {"angle": 35.0, "shape": (28, 26), "shift": (0.05, -0.1)}
WRONG = (1.2, -0.8)


def resolver(**options):
    lens = {} if "start" in options else {"lens": START, "fit_lens": True}
    return SuperResolver(source="pixelated", psf=0.25 * u.arcsec, scale=1, **lens, **options)


@pytest.fixture(scope="module")
def blue():
    return exposure(BLUE, 1)


@pytest.fixture(scope="module")
def red():
    """The second band, turned, its WCS off by 1.4 pixels."""
    return exposure(RED, 2, wrong=WRONG, **TURNED)


@pytest.fixture(scope="module")
def both(blue, red):
    return resolver()({"blue": blue, "red": red})


# ---------------------------------------------------------------- one frame


def observed(image):
    return Observation.from_any(image, psf=0.25 * u.arcsec)


def test_images_are_put_into_the_frame_of_the_first(blue):
    right = exposure(RED, 2, **TURNED)
    placed = place(Group({"blue": [observed(blue)], "red": [observed(right)]}))
    (first,), (second,) = placed["blue"], placed["red"]
    assert first.offset == (0.0, 0.0)
    np.testing.assert_allclose(second.observation.grid.matrix, SCALE * turn_by(35.0), atol=1e-6)
    np.testing.assert_allclose(
        np.subtract(second.observation.grid.origin, second.offset), TURNED["shift"], atol=1e-5
    )
    # Sources of other places and shapes: half a pixel.
    assert np.hypot(*second.offset) < 0.5 * SCALE


@pytest.mark.parametrize("wrong", [(0.0, 0.0), (2.3, -1.6)])
def test_what_images_show_corrects_their_wcs(blue, wrong):
    other = exposure(BLUE, 5, wrong=wrong, **TURNED)
    reference = observed(blue)
    grid = observed(other).grid.seen_from(reference.grid)
    moved = replace(observed(other), grid=grid)
    expected = SCALE * turn_by(35.0) @ wrong
    np.testing.assert_allclose(offset_between(moved, reference), expected, atol=0.3 * SCALE)


def test_images_of_other_places_are_refused(blue):
    far = exposure(RED, 2, shift=(8.0, 0.0))
    with pytest.raises(InputError, match=r"lies 8 arcsec from the first image, whose field is 3\.12"):
        resolver()({"blue": blue, "red": far})


def test_images_with_and_without_a_place_are_refused(blue):
    plain = CCDData(blue.data, unit=blue.unit, uncertainty=StdDevUncertainty(np.full(blue.shape, SIGMA)))
    with pytest.raises(InputError, match="image 1 of red has no WCS, the first image a WCS"):
        resolver()({"blue": blue, "red": plain}, pixel_scale=SCALE)


@pytest.mark.parametrize("source", ["sersic", "network", "perturbed_sersic"])
def test_other_sources_take_one_image(blue, red, source):
    with pytest.raises(InputError, match=f"source = '{source}' takes one image"):
        SuperResolver(source=source)({"blue": blue, "red": red})


def test_light_is_what_the_bands_show(blue, red):
    settings = SuperResolver(source="auto", lens_light="auto").settings
    assert BandsReconstruction(settings).settings.source == "pixelated"
    assert with_light_shown(settings, [observed(blue), observed(red)]).lens_light is None
    middle = np.hypot(*(np.indices(blue.shape) - (np.array(blue.shape).reshape(2, 1, 1) - 1) / 2))
    lit = CCDData(blue, uncertainty=blue.uncertainty)
    lit.data = blue.data + 5 * np.exp(-middle / 2)
    assert with_light_shown(settings, [observed(lit), observed(red)]).lens_light == ["mge", "mge"]


# ---------------------------------------------------------------- two bands


def test_two_bands_share_their_lens(both):
    assert list(both.bands) == ["blue", "red"]
    assert both.ok, both.flags
    assert both["blue"].lens is both.lens is both["red"].lens
    for name, truth in (("theta_E", 0.8), ("e1", 0.1), ("e2", -0.05), ("x_0", 0.0), ("y_0", 0.0)):
        found = getattr(both.lens[0], name)
        assert abs(found.value - truth) < 3.5 * found.std, name
    assert both.lens[0].theta_E.std < 0.005
    assert both.reduced_chi2 == pytest.approx(1, abs=0.1)


def test_each_band_has_a_source_of_its_own(both):
    for name, (_, _, _, _, _, x_0, y_0) in (("blue", BLUE), ("red", RED)):
        source = both[name].source
        scale, (ny, nx) = source.meta["pixel_scale"], source.shape
        x = source.meta["x_0"] + scale * (np.arange(nx) - (nx - 1) / 2)
        y = source.meta["y_0"] + scale * (np.arange(ny) - (ny - 1) / 2)
        row, column = np.unravel_index(source.data.argmax(), source.shape)
        assert np.hypot(x[column] - x_0, y[row] - y_0) < 0.04, name
        # By the WCS of the source the same place.
        sky = source.wcs.pixel_to_world(column, row)
        frame = PixelGrid.from_wcs(both["blue"].data.wcs, both["blue"].data.shape).from_sky(sky)
        place = [axis.to_value(u.arcsec) for axis in frame]
        if name == "blue":
            np.testing.assert_allclose(place, [x[column], y[row]], atol=1e-6)
        else:  # whose WCS is off
            off = SCALE * turn_by(35.0) @ WRONG
            np.testing.assert_allclose(np.add(place, off), [x[column], y[row]], atol=0.3 * SCALE)


def test_a_pointing_that_is_off_is_fitted_and_said(both):
    (told,) = both["red"].meta["exposures"]
    expected = SCALE * turn_by(35.0) @ WRONG
    error = np.array(told["offset_error"])
    assert (error < 0.1 * SCALE).all()
    assert (np.abs(told["offset"] - expected) < 3.5 * error).all()
    assert told["offset_pixels"] == pytest.approx(np.hypot(*WRONG), abs=0.3)


def test_errors_of_a_band_know_the_lens_of_all(both):
    """The magnification is almost the lens's alone."""
    table = both["red"].parameters
    radius = table[table["name"] == "theta_E_0"][0]
    assert radius["value"] == both.lens[0].theta_E.value
    assert radius["error"] == both.lens[0].theta_E.std
    draws = both["red"].sample(4)
    assert draws.image.shape == (4, 28, 26)


@pytest.mark.slow
def test_two_bands_are_the_product_of_both(both, blue, red):
    """Where the second band points is not known: what it says of the lens is marginal over the centre."""
    shapes = ["theta_E_0", "e1_0", "e2_0", "gamma1_1", "gamma2_1"]
    alone = []
    for image in (blue, red):
        one = resolver()(image)
        names = [name.removeprefix("lens.") for name in one.covariance_names]
        rows = [names.index(name) for name in shapes]
        values = {row["name"]: row["value"] for row in one.parameters}
        alone.append((np.array([values[name] for name in shapes]), one.covariance[np.ix_(rows, rows)]))
    # The second band's shapes in the frame of the first: turned by 35 degrees.
    values, covariance = alone[1]
    spin = np.eye(5)
    spin[1:3, 1:3] = spin[3:5, 3:5] = turn_by(70.0)
    alone[1] = spin @ values, spin @ covariance @ spin.T
    precision = sum(np.linalg.inv(c) for _, c in alone)
    mean = np.linalg.solve(precision, sum(np.linalg.inv(c) @ v for v, c in alone))
    error = np.sqrt(np.diagonal(np.linalg.inv(precision)))
    found = both.lens[0].theta_E
    assert abs(found.value - mean[0]) < 0.3 * error[0]
    assert found.std == pytest.approx(error[0], rel=0.15)
    single = [np.sqrt(c[0, 0]) for _, c in alone]
    assert found.std < 0.9 * min(single)


# ---------------------------------------------------------------- bands that do not fit, and exposures


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("family", ["epl", "auto"])
def test_bands_share_a_slope(blue, red, family):
    """Nothing is told of the lens, whose slope is 2: free, it is found within its error; "auto" keeps it."""
    result = SuperResolver(source="pixelated", psf=0.25 * u.arcsec, scale=1, lens=family)(
        {"blue": blue, "red": red}
    )
    slope = result.lens[0].gamma
    assert result.R_E.value == pytest.approx(0.8, rel=0.02)
    if family == "auto":
        assert slope.fixed and slope.value == 2.0
    else:
        assert abs(slope.value - 2.0) < 4 * slope.std and 0 < slope.std < 0.2


def test_a_band_that_is_turned_wrongly_is_left_out(blue):
    """Its WCS says 35 degrees where it is turned by 5: no shift makes up for that."""
    wrong = exposure(RED, 2, angle=5.0, told=35.0)
    result = resolver()({"blue": blue, "red": wrong})
    (name,) = result.left_out  # one of two that are as bright: nothing says which is right
    assert f"{name}: left_out" in result.flags
    assert not result[name].ok
    assert not result.ok
    assert abs(result.lens[0].theta_E.value - 0.8) < 0.02


@pytest.mark.slow
def test_exposures_share_source_and_light(blue, both):
    other = exposure(BLUE, 3, **TURNED)
    result = resolver()({"blue": [blue, other]})
    assert list(result.bands) == ["blue"]
    assert result.image is result["blue"].image
    assert result.ok, result.flags
    first, second = result["blue"].meta["exposures"]
    assert first["offset"] == [0.0, 0.0]
    assert first["chi2_per_pixel"] == pytest.approx(1, abs=0.15)
    assert second["chi2_per_pixel"] == pytest.approx(1, abs=0.15)
    assert (np.abs(second["offset"]) < 3.5 * np.array(second["offset_error"])).all()
    assert (np.array(second["offset_error"]) < 0.05 * SCALE).all()
    assert abs(result.lens[0].theta_E.value - 0.8) < 3.5 * result.lens[0].theta_E.std
