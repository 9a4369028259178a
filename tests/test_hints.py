"""What a user knows of a lens beside its image: its radius, its place, its field."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from lenssr import SIE, InputError, Sersic, SuperResolver, render
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, Observation
from lenssr.model.fit import Constraints
from lenssr.model.initial_guess import radii_starts
from lenssr.model.scene import Scene
from lenssr.reconstruction.lens_search import unknown_lens

SCALE, THETA_E, NOISE = 0.1, 1.0, 0.02
GIVEN = {"psf": 0.15 * u.arcsec, "noise": NOISE}
MIDDLE = SkyCoord(150.1 * u.deg, 2.2 * u.deg)


def frame(shape=(60, 80), centre=(0.0, 0.0), seed=3):
    """An image with a ring, (x, y) arcsec from its middle, in an HDU."""
    x_0, y_0 = centre
    lens = SIE(THETA_E, e1=0.1, e2=0.05, x_0=x_0, y_0=y_0)
    source = Sersic(10.0, 0.2, 1.0, x_0=x_0 + 0.1, y_0=y_0 + 0.05)
    psf = PSF.from_fwhm(0.15 * u.arcsec)
    image = render(PixelGrid(shape, SCALE), lens=lens, source=source, psf=psf)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-SCALE / 3600, SCALE / 3600]
    wcs.wcs.crval, wcs.wcs.crpix = [MIDDLE.ra.deg, MIDDLE.dec.deg], [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    header = wcs.to_header()
    header["BUNIT"] = "electron/s"
    noise = np.random.default_rng(seed).normal(0, NOISE, shape)
    return fits.PrimaryHDU(np.asarray(getattr(image, "value", image)) + noise, header)


def place(x, y):
    """Where x and y arcsec from the middle of the frame lie on the sky; x grows to the west."""
    return MIDDLE.spherical_offsets_by(-x * u.arcsec, y * u.arcsec)


@pytest.mark.parametrize(
    ("centre", "shape"), [((0.0, 0.0), (60, 80)), ((1.0, 0.0), (60, 60)), ((0.0, -0.5), (50, 80))]
)
def test_a_centre_becomes_the_middle_of_what_is_fitted(centre, shape):
    seen = Observation.from_any(frame(), centre=place(*centre), **GIVEN)
    assert seen.shape == shape
    middle = seen.grid.wcs.pixel_to_world((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    assert middle.separation(place(*centre)) < 0.01 * u.arcsec
    whole = Observation.from_any(frame(), centre=place(*centre), middle=False, **GIVEN)
    assert whole.shape == (60, 80)


def test_a_radius_is_that_of_the_field():
    seen = Observation.from_any(frame(), radius=2 * u.arcsec, **GIVEN)
    # Half as much again on all sides, for sky and lens light.
    assert seen.shape == (60, 60) and seen.meta["hints"] == {"radius": "2.0 arcsec"}
    middle = seen.grid.wcs.pixel_to_world(29.5, 29.5)
    assert middle.separation(MIDDLE) < 0.01 * u.arcsec
    seen = Observation.from_any(frame(), centre=place(1.0, 0.5), radius=1, **GIVEN)
    assert seen.shape == (30, 30)
    assert seen.grid.wcs.pixel_to_world(14.5, 14.5).separation(place(1.0, 0.5)) < 0.01 * u.arcsec


def test_hints_of_the_field_are_refused_where_they_cannot_be_used():
    with pytest.raises(InputError, match="size = 3.0 arcsec and radius = 2.0 arcsec: give one of them"):
        Observation.from_any(frame(), centre=MIDDLE, size=3 * u.arcsec, radius=2 * u.arcsec, **GIVEN)
    with pytest.raises(InputError, match="radius = 2, but the image has no celestial WCS: cut it yourself"):
        Observation.from_any(frame().data, radius=2, pixel_scale=SCALE, **GIVEN)


def test_a_lens_off_the_middle_is_found_where_it_is():
    """The offset is beyond `decisions.CENTRE_BOUND`, within which a lens is looked for without a hint."""
    image = frame(centre=(0.8, -0.3))
    result = SuperResolver(source="sersic")(image, centre=place(0.8, -0.3), **GIVEN)
    assert result.ok and abs(result.R_E.value / THETA_E - 1) < 0.02
    assert result.meta["hints"]["centre"] == str(place(0.8, -0.3))


def test_an_expected_radius_is_where_the_search_begins_and_a_prior():
    scene = Scene(lens=unknown_lens(6.0), lens_free=True, lens_light=0, sky=False, extent=3.0, theta_E=1.2)
    constraints = Constraints.of(scene, 1).centred_on(scene, torch.zeros(1, 2).double(), 0.3)
    assert constraints.mean[0, scene.radius] == 1.2
    assert constraints.stiffness[0, scene.radius].item() == pytest.approx((0.2 * 1.2) ** -2)
    radii = radii_starts(scene, PixelGrid((60, 60), SCALE), constraints.mean, np.random.default_rng(0), 8)
    radii = radii[0, :, scene.radius]
    assert radii.min() > 0.8 and radii.max() < 1.8 and (radii < 1.2).any() and (radii > 1.2).any()
    assert scene.without("source").theta_E == scene.with_plain_light().theta_E == 1.2


def test_an_expected_radius_is_recorded_and_images_are_found_as_without():
    resolver, image = SuperResolver(source="sersic"), frame()
    free = resolver(image, **GIVEN)
    some = resolver.map([image, image], theta_E=[1.1 * u.arcsec, None], **GIVEN)
    assert some[0].meta["hints"] == {"theta_E": 1.1} and "hints" not in some[1].meta
    for result in some:
        assert abs(result.R_E - free.R_E) < 0.1 * free.R_E_error


@pytest.mark.parametrize(
    ("options", "theta_E", "why"),
    [
        ({"lens": SIE(1.0)}, 1.0, r"theta_E = 1.0, but lens= gives the lens: leave one of them out"),
        ({"source": "interpolation"}, 1.0, "theta_E = 1.0, but source='interpolation' looks for no lens"),
        ({}, -1.0, "theta_E = -1.0 is not a positive number: give one in arcsec"),
        ({}, 3 * u.s, "theta_E = 3.0 s is not convertible to arcsec"),
    ],
)
def test_an_expected_radius_is_refused_where_it_says_nothing(options, theta_E, why):
    with pytest.raises(InputError, match=why):
        SuperResolver(**options)(frame(), theta_E=theta_E, **GIVEN)
