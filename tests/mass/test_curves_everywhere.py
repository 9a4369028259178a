"""Curves that a single grid loses or spoils: small, nearly isothermal and open ones; and their areas."""

import astropy.units as u
import numpy as np
import pytest
from skimage.measure import find_contours

from lenssr.exceptions import InputError
from lenssr.mass import (
    EPL,
    NFW,
    SIE,
    SIS,
    ConvergenceSheet,
    MassSystem,
    PixelatedDeflection,
    PointMass,
    Shear,
)
from lenssr.mass.critical import curves_of
from lenssr.mass.point_images import image_positions
from lenssr.mass.rays import Rays, rays_of


def polygon_area(curve):
    x, y = curve
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


@pytest.mark.parametrize("gamma", [1.5, 1.9, 1.985, 1.999, 1.99999])
def test_radial_caustic_of_a_round_power_law(gamma):
    r = (2 - gamma) ** (1 / (gamma - 1))
    right = np.pi * (r - r ** (2 - gamma)) ** 2
    [curve] = EPL(1.0, gamma).caustics(kind="radial")
    assert polygon_area(curve) == pytest.approx(right, rel=3e-5)
    assert EPL(1.0, gamma).caustic_areas(kind="radial")[0].value == pytest.approx(right, rel=1e-7)


@pytest.mark.parametrize("small", [0.02, 0.003, 1e-4, 1e-6])
@pytest.mark.parametrize("distance", [2.0, 3.0])
def test_small_companion_keeps_its_curve(small, distance):
    # In the shear and convergence of the main lens, 1.2 / (2 d) each, its radius at the angle phi from the
    # main lens is small (cos^2 / s + sin^2), s = 1 - 1.2 / d; that is exact for a vanishing companion.
    s = 1 - 1.2 / distance
    right = small * np.sqrt(3 / 8 * (1 + 1 / s**2) + 1 / (4 * s))
    curves = (SIS(1.2) + SIS(small, 0.0, distance)).critical_curves(kind="tangential")
    [found] = [c for c in curves if np.hypot(c[0].mean(), c[1].mean() - distance) < 0.3]
    assert np.sqrt(polygon_area(found) / np.pi) == pytest.approx(
        right, rel=1e-4 + 30 * (small / distance) ** 2
    )


@pytest.mark.slow
def test_curves_of_a_group_equal_contours_of_a_fine_grid():
    places = np.random.default_rng(8).normal(0, 1.0, (5, 2))
    lens = MassSystem(*(SIE(0.4, 0.1, -0.05, *place) for place in places), Shear(0.03, 0.02))
    grid = np.linspace(-4, 4, 1001)
    jacobian = lens.jacobian(*np.meshgrid(grid, grid))
    mean, gamma = np.trace(jacobian, axis1=-2, axis2=-1) / 2, jacobian[..., 0, 1]
    root = np.hypot((jacobian[..., 0, 0] - jacobian[..., 1, 1]) / 2, gamma)
    for kind, values in (("tangential", mean - root), ("radial", mean + root)):
        contours = [c * 0.008 - 4 for c in find_contours(values / (1 + np.abs(values)), 0)]
        right = sorted(polygon_area(c[:, ::-1].T) for c in contours if np.ptp(c) > 0.1)
        ours = sorted(polygon_area(c) for c in lens.critical_curves(kind=kind) if np.ptp(c) > 0.1)
        np.testing.assert_allclose(ours, right, atol=4e-3)


@pytest.mark.parametrize(
    "lens, number",
    [(PointMass(1.0) + Shear(1.05, 0.0), 2), (PointMass(1.0) + Shear(0.55, 0) + ConvergenceSheet(0.55), 2)],
)
def test_curves_in_front_of_a_saddle(lens, number):
    curves = lens.critical_curves()
    assert len(curves) == number == len(lens.critical_curves(4.0))
    for curve in curves:
        assert (curve[0][0], curve[1][0]) == (curve[0][-1], curve[1][-1])


def test_chords_are_as_close_as_said():
    [(x, y)] = SIE(1.2, 0.25, 0.1).critical_curves()
    middle = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
    # On the critical curve of an SIE the convergence is 1/2.
    radius = 1.2 / (2 * SIE(1.2, 0.25, 0.1).convergence(*middle))
    np.testing.assert_allclose(radius, 1.2, rtol=3e-6)


def test_cut_of_an_isothermal_ellipsoid():
    # Kormann, Schneider & Bartelmann 1994, equation 29, in the frame of the axes.
    q, theta_E = 0.6, 1.3
    e = (1 - q) / (1 + q)
    [(x, y)] = SIE(theta_E, e, 0.0, 0.2, -0.1).pseudo_caustics()
    f = np.sqrt(1 - q * q)
    scale = theta_E * np.sqrt(q) / f
    angle = np.linspace(0, 2 * np.pi, 2881)
    delta = np.hypot(q * np.cos(angle), np.sin(angle))
    right_x = -scale * np.arctan(f / q * q * np.cos(angle) / delta)
    right_y = -scale * np.arctanh(f * np.sin(angle) / delta)
    np.testing.assert_allclose(x - 0.2, right_x, atol=1e-9)
    np.testing.assert_allclose(y + 0.1, right_y, atol=1e-9)


@pytest.mark.parametrize(
    "lens", [EPL(1.0, 1.999), EPL(1.0, 2.05), NFW(5.0, 2.0), PointMass(1.0), Shear(0.1, 0.0)]
)
def test_other_slopes_have_no_cut(lens):
    assert lens.pseudo_caustics() == []


def test_cuts_of_two_lenses_are_where_their_centres_map():
    lens = SIE(1.0, 0.1) + SIS(0.1, 1.5, 0.3) + EPL(0.5, 1.8, 0.0, 0.0, -1.0)
    main, small = sorted(lens.pseudo_caustics(), key=lambda curve: -np.ptp(curve[0]))
    ax, ay = (SIE(1.0, 0.1) + EPL(0.5, 1.8, 0.0, 0.0, -1.0)).deflection(1.5, 0.3)
    np.testing.assert_allclose(np.hypot(small[0] - 1.5 + ax, small[1] - 0.3 + ay), 0.1, atol=1e-9)
    assert np.ptp(main[0]) > 1.5


@pytest.mark.parametrize(
    "lens, least, right",
    [
        (SIS(1.2), 2, np.pi * 1.44),
        (SIS(1.2), 3, 0.0),
        (EPL(1.0, 1.8), 3, np.pi * (0.2**1.25 - 0.2**0.25) ** 2),
        (PointMass(1.0), 2, np.inf),
    ],
)
def test_cross_section(lens, least, right):
    assert lens.cross_section(least).value == pytest.approx(right, rel=2e-5, abs=1e-12)


@pytest.mark.slow
def test_cross_section_is_where_so_many_images_are_found():
    lens = SIE(1.0, 0.3) + SIS(0.3, 1.0, 0.4) + Shear(0.05, 0.0)
    sources = np.random.default_rng(3).uniform(-1.3, 1.3, (60, 2)) + (0.1, 0.05)
    numbers = np.array([len(lens.image_positions(*source)[0]) for source in sources])
    for least in (2, 3, 4, 5):
        share = (numbers >= least).mean()
        error = np.sqrt(max(share * (1 - share), 0.01) / len(sources))
        assert lens.cross_section(least).value / 2.6**2 == pytest.approx(share, abs=3 * error)


def test_map_is_searched_along_its_longer_side():
    y, x = np.mgrid[-30:31, -120:121] * 0.05
    # Nothing isothermal: splines of its singular centre have curves of their own.
    truth = NFW(2.0, 1.5, -3.0) + NFW(2.0, 1.0, 3.0)
    lens = PixelatedDeflection(*truth.deflection(x, y), 0.05)
    ours, right = (sorted(t.critical_areas(kind="tangential").value) for t in (lens, truth))
    np.testing.assert_allclose(ours, right, rtol=1e-4)
    places = [sorted(zip(*t.image_positions(-2.7, 0.05), strict=True)) for t in (lens, truth)]
    np.testing.assert_allclose(*places, atol=2e-3)


def test_extent_of_a_map_is_honoured():
    y, x = np.mgrid[-40:41, -80:81] * 0.05
    lens = PixelatedDeflection(*SIS(1.0, 0.3).deflection(x, y), 0.05)
    curves = lens.critical_curves(0.9, kind="tangential")
    assert max(np.abs(curve).max() for curve in curves) == pytest.approx(0.9, abs=1e-3)
    assert np.isnan(lens.critical_areas(0.9 * u.arcsec, kind="tangential").value).any()
    with pytest.raises(InputError, match="leave the field"):
        lens.cross_section(extent=0.9)


class OwnLens:
    """A lens of which nothing is known but where rays land; its Jacobian need not be symmetric."""

    def __init__(self, lens):
        self.deflection, self.jacobian = lens.deflection, lens.jacobian


def test_curves_and_images_of_any_map_of_rays():
    lens = EPL(1.0, 1.7, 0.1, 0.1) + Shear(0.05, 0.0)
    rays = rays_of(OwnLens(lens))
    for kind in ("tangential", "radial"):
        [ours] = curves_of(rays, kind=kind)
        [right] = lens.critical_curves(kind=kind)
        assert polygon_area(ours.points) == pytest.approx(polygon_area(right), rel=1e-5)
    np.testing.assert_allclose(image_positions(rays, (0.1, 0.05)), lens.image_positions(0.1, 0.05), atol=1e-9)


def test_map_with_a_curl_has_the_same_determinant():
    # Turning the source plane moves no curve, but makes the Jacobian unsymmetric.
    lens = SIE(1.2, 0.2, 0.1) + Shear(0.05, 0.02)
    rays, c, s = rays_of(lens), np.cos(0.3), np.sin(0.3)

    def trace(x, y):
        bx, by = rays.trace(x, y)
        return c * bx - s * by, s * bx + c * by

    def jacobian(x, y):
        xx, xy, yx, yy = rays.jacobian(x, y)
        return c * xx - s * yx, c * xy - s * yy, s * xx + c * yx, s * xy + c * yy

    turned = Rays(trace, jacobian, rays.centres, symmetric=False)
    [ours], [right] = curves_of(turned), lens.critical_curves()
    assert polygon_area(ours.points) == pytest.approx(polygon_area(right), rel=1e-5)
    source = c * 0.1 + s * 0.05, s * 0.1 - c * 0.05
    np.testing.assert_allclose(image_positions(turned, source), lens.image_positions(0.1, -0.05), atol=1e-9)
