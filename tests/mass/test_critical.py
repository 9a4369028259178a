"""Critical curves, caustics, Einstein radius and images."""

import astropy.units as u
import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lenssr.exceptions import InputError
from lenssr.mass import EPL, NFW, SIE, SIS, ConvergenceSheet, PointMass, Shear

LENSES = [
    SIE(1.2, 0.2, 0.1, 0.3, 0.1),
    SIE(1.2, 0.2, 0.1) + Shear(0.05, 0.02),
    EPL(1.0, 1.7, 0.1, 0.1),
    PointMass(1.3) + Shear(0.1, 0.0),
    NFW(5.0, 1.8),
    SIS(1.0, 1.0) + SIS(1.0, -1.0),
]


@pytest.mark.parametrize("lens", LENSES)
def test_determinant_vanishes_on_critical_curves(lens):
    curves = lens.critical_curves()
    assert curves
    for x, y in curves:
        assert np.abs(np.linalg.det(lens.jacobian(x, y))).max() < 1e-9


@pytest.mark.parametrize(
    "lens, tangential, radial", [(LENSES[0], 1, 0), (LENSES[2], 1, 1), (LENSES[4], 1, 1)]
)
def test_kinds(lens, tangential, radial):
    assert len(lens.critical_curves(kind="tangential")) == tangential
    assert len(lens.critical_curves(kind="radial")) == radial
    assert len(lens.caustics()) == tangential + radial


def test_unit_of_extent_is_unit_of_curves():
    [(x, y)] = SIS(1.0).critical_curves(2 * u.arcsec)
    assert x.unit == u.arcsec
    np.testing.assert_allclose(np.hypot(x, y).value, 1, rtol=1e-12)


def test_caustic_of_a_round_lens_is_a_point():
    [(x, y)] = SIS(1.0, 0.2, -0.1).caustics()
    np.testing.assert_allclose(x, 0.2, atol=1e-12)
    np.testing.assert_allclose(y, -0.1, atol=1e-12)


@pytest.mark.parametrize(
    "lens, expected",
    [
        (SIE(1.2, 0.0, 0.0, 0.3), 1.2),
        (SIE(1.2, 0.2, 0.1, 0.3), 1.2),
        (SIE(0.5, -0.5, 0.1), 0.5),
        (EPL(1.4, 2.3), 1.4),
        (SIS(1.0) + ConvergenceSheet(0.1), 1 / 0.9),
        (PointMass(0.7), 0.7),
    ],
)
def test_einstein_radius(lens, expected):
    assert lens.einstein_radius().to_value(u.arcsec) == pytest.approx(expected, rel=1e-7)


def test_no_einstein_radius_without_a_lens():
    with pytest.raises(InputError, match="no closed tangential critical curve"):
        Shear(0.05, 0.0).einstein_radius()


@pytest.mark.parametrize(
    "source", [(0.02, 0.01), (0.1, -0.05), (0.25, 0.1), (-0.5, 0.3), (1.2, 0.4), (0.0, 0.0)]
)
def test_images_equal_lenstronomy(source):
    lens = SIE(1.2, 0.2, 0.1, 0.05, 0.02) + Shear(0.05, 0.02)
    model = LensModel(["EPL", "SHEAR"])
    kwargs = [
        {"theta_E": 1.2, "gamma": 2.0, "e1": 0.2, "e2": 0.1, "center_x": 0.05, "center_y": 0.02},
        {"gamma1": 0.05, "gamma2": 0.02},
    ]
    theirs = LensEquationSolver(model).image_position_from_source(
        *source, kwargs, search_window=6, min_distance=0.02, precision_limit=1e-12, num_iter_max=200
    )
    ours = lens.image_positions(*source)
    assert len(ours[0]) == len(theirs[0])
    np.testing.assert_allclose(np.sort(ours[0]), np.sort(theirs[0]), atol=1e-9)
    np.testing.assert_allclose(np.sort(ours[1]), np.sort(theirs[1]), atol=1e-9)


@pytest.mark.parametrize("lens", LENSES)
def test_images_solve_the_lens_equation(lens):
    for source in np.random.default_rng(2).normal(scale=0.4, size=(4, 2)):
        x, y = lens.image_positions(*source)
        ax, ay = lens.deflection(x, y)
        assert len(x) > 0
        assert np.hypot(x - ax - source[0], y - ay - source[1]).max() < 1e-10
        assert (np.diff(np.abs(lens.magnification(x, y))) <= 0).all()


def test_point_mass_images():
    x, y = PointMass(1.0).image_positions(0.5, 0.0)
    np.testing.assert_allclose(x, [0.25 + np.sqrt(0.0625 + 1), 0.25 - np.sqrt(0.0625 + 1)], atol=1e-12)
    np.testing.assert_allclose(y, 0, atol=1e-12)


def test_faint_image_near_the_centre_is_found():
    # the second image of an isothermal sphere sits 1e-3 from its centre
    x, _ = SIS(1.0).image_positions(0.999, 0.0)
    np.testing.assert_allclose(x, [1.999, -0.001], atol=1e-10)


def test_images_keep_the_kind():
    x, _ = SIS(1.0).image_positions(200 * u.mas, 0 * u.arcsec)
    assert isinstance(x, u.Quantity) and x.unit == u.arcsec
    x, _ = SIS(1.0).image_positions(torch.tensor(0.2), torch.tensor(0.0))
    assert isinstance(x, torch.Tensor)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda lens: lens.image_positions([0.1, 0.2], [0.1, 0.2]), "one source position"),
        (lambda lens: lens.image_positions(np.nan, 0.0), "finite"),
        (lambda lens: lens.critical_curves(-1.0), "extent = -1.0"),
        (lambda lens: lens.critical_curves(kind="round"), "kind = 'round'"),
    ],
)
def test_refused(call, match):
    with pytest.raises(InputError, match=match):
        call(SIS(1.0))
