"""Lenses to dictionaries and YAML, and back."""

import astropy.units as u
import numpy as np
import pytest
import yaml

from lenssr.exceptions import InputError
from lenssr.mass import (
    DPIE,
    EPL,
    NFW,
    SIE,
    SIS,
    ConvergenceSheet,
    CoredPowerLaw,
    EllipticalMultipole,
    EllipticalNFW,
    GaussianMass,
    MassModel,
    MassSystem,
    Multipole,
    Parameter,
    PixelatedDeflection,
    PointMass,
    SersicMass,
    Shear,
    TruncatedNFW,
    from_dict,
)

MAP = np.arange(30.0).reshape(5, 6) / 100


@pytest.mark.parametrize(
    "lens",
    [
        SIS(1.0),
        SIE(1.2, 0.1, 0.05),
        EPL(1.2, 2.1),
        NFW(2.0, 1.0),
        PointMass(1.0),
        ConvergenceSheet(0.1),
        SIE(1.2) + Shear(0.1, 0.0),
        EllipticalNFW(2.0, 1.0, 0.1),
        TruncatedNFW(2.0, 1.0, 3.0),
        DPIE(1.2, 0.1, 3.0, 0.1),
        CoredPowerLaw(1.2, 2.1, 0.1, 0.1),
        SersicMass(0.4, 1.0, 3.5, 0.1, mass_to_light=2.0),
        GaussianMass(0.4, 1.0, 0.1) + Multipole(3, 0.05, 0.02) + EllipticalMultipole(4, 0.05, 0.02, 0.1),
        PixelatedDeflection(MAP, MAP**2, 0.05),
        PixelatedDeflection.from_potential(MAP, 0.05),
    ],
)
def test_yaml_round_trip(lens):
    again = from_dict(yaml.safe_load(yaml.safe_dump(lens.to_dict())))
    assert repr(again) == repr(lens)
    np.testing.assert_array_equal(again.deflection(0.03, 0.04), lens.deflection(0.03, 0.04))


def test_fixed_and_bounds_survive():
    lens = SIE(1.2) + Shear(0.1, 0.0)
    lens[0].x_0.fixed = True
    lens[1].x_0.fixed = False
    lens[0].theta_E.bounds = (0.5, None)
    again = from_dict(lens.to_dict())
    assert [p.fixed for p in again.parameters] == [p.fixed for p in lens.parameters]
    assert again.theta_E.bounds == (0.5, None)


def test_errors_and_covariances_survive():
    lens = SIE(1.2, 0.1) + Shear(0.1, 0.0)
    half = np.random.default_rng(1).normal(size=(9, 9)) * 1e-3
    lens = lens.with_vector(lens.vector, covariance=half @ half.T)
    lens[1].x_0.std = None  # it is fixed, and its 0 in a covariance is not an error
    for one in (lens, lens[0]):
        again = from_dict(yaml.safe_load(yaml.safe_dump(one.to_dict())))
        np.testing.assert_array_equal(again.covariance, one.covariance)
        assert [p.std for p in again.parameters] == [p.std for p in one.parameters]
    again = from_dict(lens.to_dict())
    np.testing.assert_array_equal(again[1].covariance, lens[1].covariance)
    *components, last = lens.to_dict()
    again = from_dict({"MassSystem": {"components": components, **last}})
    np.testing.assert_array_equal(again.covariance, lens.covariance)


def test_a_system_of_one_stays_a_system():
    again = from_dict(MassSystem(SIE(1.2)).to_dict())
    assert isinstance(again, MassSystem) and len(again) == 1


def test_a_model_without_a_constructor_of_its_own():
    class Sheet(MassModel):
        kappa = Parameter("convergence")

    assert from_dict({"Sheet": {"kappa": 0.2}}).kappa.value == 0.2
    with pytest.raises(InputError, match="Sheet has no parameter 'k': give kappa"):
        from_dict({"Sheet": {"k": 0.2}})


def test_arguments_by_keyword_alone_survive():
    class Table(MassModel):
        theta_E = Parameter("Einstein radius")

        def __init__(self, theta_E, *, step):
            super().__init__(theta_E=theta_E)
            self.step = step

    assert from_dict(Table(1.0, step=3).to_dict()).step == 3


def test_what_a_model_does_not_keep_cannot_be_described():
    class Forgetful(MassModel):
        theta_E = Parameter("Einstein radius")

        def __init__(self, theta_E, table):
            super().__init__(theta_E=theta_E)

    with pytest.raises(InputError, match="a Forgetful does not keep its argument table"):
        Forgetful(1.0, [1, 2]).to_dict()


def test_units_and_angles():
    lens = from_dict(
        yaml.safe_load("SIE: {theta_E: 1200 mas, q: 0.7, phi: 30 deg, bounds: {theta_E: [0.5, 2]}}")
    )
    assert lens.theta_E.value == pytest.approx(1.2)
    assert lens.q == pytest.approx(0.7) and lens.phi.to_value(u.deg) == pytest.approx(30)


@pytest.mark.parametrize(
    "description, match",
    [
        ({"SIEE": {}}, "'SIEE' is not a mass model: give one of .*SIE"),
        ({"SIE": {"thetaE": 1.0}}, "no parameter 'thetaE'"),
        ({"SIE": {}}, "theta_E"),
        ({"SIE": 1.2}, "give a dictionary"),
        ({"SIE": {"theta_E": 1.0, "fixed": ["g"]}}, "no parameter 'g'"),
        ({"SIE": {"theta_E": 1.0, "std": {"g": 1.0}}}, "no parameter 'g'"),
        ({"SIE": {"theta_E": "broad"}}, "neither a number nor a quantity"),
        ({"SIE": {"theta_E": 1.0, "q": 0.5}}, "phi"),
        ([], "describes no lens"),
        ("SIE", "describes no lens"),
    ],
)
def test_refused(description, match):
    with pytest.raises(InputError, match=match):
        from_dict(description)
