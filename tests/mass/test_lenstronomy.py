"""Every model against an independent code, in float64."""

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel

from lenssr.mass import EPL, NFW, SIE, SIS, ConvergenceSheet, PointMass, Shear

CENTRE = {"center_x": 0.1, "center_y": -0.2}


def elliptical(cls, theta_E, e1, e2, **extra):
    theirs = {"theta_E": theta_E, "gamma": 2.0, "e1": e1, "e2": e2, **CENTRE, **extra}
    return cls(theta_E=theta_E, e1=e1, e2=e2, x_0=0.1, y_0=-0.2, **extra), ["EPL"], [theirs]


CASES = {
    "SIS": (SIS(1.1, 0.1, -0.2), ["SIS"], [{"theta_E": 1.1, **CENTRE}]),
    "SIE": elliptical(SIE, 1.2, 0.15, -0.1),
    "SIE, flat": elliptical(SIE, 1.2, -0.6, 0.4),
    "SIE, nearly round": elliptical(SIE, 1.2, 0.01, 0.005),
    "SIE, round": elliptical(SIE, 1.2, 0.0, 0.0),
    "EPL, shallow": elliptical(EPL, 1.2, 0.15, -0.1, gamma=1.3),
    "EPL, steep": elliptical(EPL, 0.7, -0.3, 0.2, gamma=2.7),
    "EPL, round": elliptical(EPL, 0.7, 0.0, 0.0, gamma=2.2),
    "PointMass": (PointMass(0.9, 0.1, -0.2), ["POINT_MASS"], [{"theta_E": 0.9, **CENTRE}]),
    "NFW": (NFW(2.0, 1.3, 0.1, -0.2), ["NFW"], [{"Rs": 2.0, "alpha_Rs": 1.3, **CENTRE}]),
    "Shear": (
        Shear(0.05, -0.03, 0.1, 0.2),
        ["SHEAR"],
        [{"gamma1": 0.05, "gamma2": -0.03, "ra_0": 0.1, "dec_0": 0.2}],
    ),
    "ConvergenceSheet": (ConvergenceSheet(0.2), ["CONVERGENCE"], [{"kappa": 0.2}]),
    "SIE + Shear": (
        SIE(1.2, 0.15, -0.1, 0.1, -0.2) + Shear(0.05, -0.03),
        ["EPL", "SHEAR"],
        [{"theta_E": 1.2, "gamma": 2.0, "e1": 0.15, "e2": -0.1, **CENTRE}, {"gamma1": 0.05, "gamma2": -0.03}],
    ),
}


@pytest.fixture
def positions():
    return np.random.default_rng(5).normal(scale=1.5, size=(2, 200))


@pytest.fixture(params=CASES)
def case(request):
    ours, names, kwargs = CASES[request.param]
    return ours, LensModel(names), kwargs


def close(ours, theirs):
    scale = np.max(np.abs(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * scale)


def test_potential(case, positions):
    ours, theirs, kwargs = case
    close(ours.potential(*positions), theirs.potential(*positions, kwargs))


def test_deflection(case, positions):
    ours, theirs, kwargs = case
    close(ours.deflection(*positions), theirs.alpha(*positions, kwargs))


def test_convergence(case, positions):
    ours, theirs, kwargs = case
    close(ours.convergence(*positions), theirs.kappa(*positions, kwargs))


def test_shear(case, positions):
    ours, theirs, kwargs = case
    close(ours.shear(*positions), theirs.gamma(*positions, kwargs))


def test_jacobian(case, positions):
    ours, theirs, kwargs = case
    xx, xy, yx, yy = theirs.hessian(*positions, kwargs)
    close(ours.jacobian(*positions), np.moveaxis([[1 - xx, -xy], [-yx, 1 - yy]], 2, 0))


def test_magnification(case, positions):
    ours, theirs, kwargs = case
    np.testing.assert_allclose(
        1 / ours.magnification(*positions), 1 / theirs.magnification(*positions, kwargs), rtol=1e-8, atol=1e-9
    )
