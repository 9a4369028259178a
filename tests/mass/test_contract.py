"""What every model promises: kinds of input, units, shapes, parameters, sums, refusals."""

import copy
import math
import pickle

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

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
    MassSystem,
    Multipole,
    PointMass,
    SersicMass,
    Shear,
    TruncatedNFW,
)

MODELS = [
    SIS(1.0),
    SIE(1.2, 0.1, 0.05),
    EPL(1.2, 2.1, 0.1, 0.05),
    PointMass(0.8),
    NFW(2.0, 1.0),
    Shear(0.05, 0.02),
    ConvergenceSheet(0.1),
    SIE(1.2, 0.1) + Shear(0.05, 0.02),
    EllipticalNFW(2.0, 1.0, 0.1, 0.05),
    TruncatedNFW(2.0, 1.0, 3.0),
    DPIE(1.2, 0.1, 3.0, 0.1, 0.05),
    CoredPowerLaw(1.2, 2.1, 0.1, 0.1, 0.05),
    SersicMass(0.4, 1.0, 3.5, 0.1, 0.05, mass_to_light=2.0),
    GaussianMass(0.4, 1.0, 0.1, 0.05),
    Multipole(3, 0.05, 0.02),
    EllipticalMultipole(3, 0.05, 0.02, 0.1, 0.05),
]
CLASSES = {
    type(part).__name__: type(part) for model in MODELS for part in getattr(model, "components", (model,))
}
QUANTITIES = {
    "potential": u.arcsec**2,
    "deflection": u.arcsec,
    "convergence": u.one,
    "shear": u.one,
    "jacobian": u.one,
    "magnification": u.one,
}


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name, unit", QUANTITIES.items())
def test_quantity_in_quantity_out(model, name, unit):
    result = first(getattr(model, name)(500 * u.mas, [0.3, 0.4] * u.arcsec))
    assert isinstance(result, u.Quantity) and result.unit == unit
    bare = first(getattr(model, name)(0.5, np.array([0.3, 0.4])))
    assert isinstance(bare, np.ndarray)
    np.testing.assert_allclose(result.value, bare, rtol=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", QUANTITIES)
def test_shapes_broadcast(model, name):
    x, y = torch.full((3, 1), 0.4, dtype=torch.float64), torch.full((5,), 0.7, dtype=torch.float64)
    result = first(getattr(model, name)(x, y))
    assert isinstance(result, torch.Tensor)
    assert result.shape == ((3, 5, 2, 2) if name == "jacobian" else (3, 5))


@pytest.mark.parametrize("model", MODELS)
def test_batches_equal_single_models(model):
    params = torch.stack((model.vector, model.vector * 0.9))
    x, y = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ax, ay = model.deflection_at(x, y, params)
    assert ax.shape == (2, 40)
    for k, vector in enumerate(params):
        bx, by = model.with_vector(vector).deflection(x, y)
        torch.testing.assert_close(ax[k], bx, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(ay[k], by, rtol=1e-11, atol=1e-13)
    assert model.potential_at(x, y, params).shape == (2, 40)
    assert all(part.shape == (2, 40) for part in model.hessian_at(x, y, params))


@pytest.mark.parametrize("model", MODELS)
def test_potential_deflection_and_hessian_agree(model):
    x = torch.tensor([0.5, -0.8], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(model.potential(x, y).sum(), (x, y))
    ax, ay = model.deflection(x, y)
    torch.testing.assert_close(gradient, (ax, ay), rtol=1e-10, atol=1e-12)
    xx, xy = torch.autograd.grad(ax.sum(), (x, y), retain_graph=True, materialize_grads=True)
    _, yy = torch.autograd.grad(ay.sum(), (x, y), materialize_grads=True)
    torch.testing.assert_close(model.convergence(x, y), (xx + yy) / 2, rtol=1e-9, atol=1e-12)
    g1, g2 = model.shear(x, y)
    torch.testing.assert_close(g1, (xx - yy) / 2, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(g2, xy, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_large_arrays_equal_small_ones(model):
    x, y = np.random.default_rng(0).normal(size=(2, 300, 301))
    whole = model.deflection(x, y)
    part = model.deflection(x[:2], y[:2])
    np.testing.assert_allclose(whole[0][:2], part[0], rtol=1e-12)
    assert whole[1].shape == x.shape


@pytest.mark.parametrize("model", MODELS)
def test_positions_are_left_alone(model):
    x, y = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = x.clone(), y.clone()
    model.deflection(x, y)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


@pytest.mark.parametrize("model", MODELS)
def test_no_positions(model):
    none = np.zeros((2, 0))
    assert all(alpha.shape == (2, 0) for alpha in model.deflection(none, none))


@pytest.mark.parametrize("model", MODELS)
def test_repr_can_be_pasted(model):
    again = eval(repr(model), dict(CLASSES))
    assert repr(again) == repr(model)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(model, duplicate):
    assert repr(duplicate(model)) == repr(model)


def test_with_vector_keeps_settings_and_sets_errors():
    lens = SIE(1.2) + Shear(0.0, 0.0)
    lens[0].x_0.fixed = True
    lens.theta_E.bounds = (0.5, 2 * u.arcsec)
    covariance = np.diag(np.arange(1, 10) ** 2.0)
    fitted = lens.with_vector(lens.vector + 0.1, covariance=covariance)
    assert fitted.theta_E.value == pytest.approx(1.3) and lens.theta_E.value == 1.2
    assert fitted.gamma2.std == 7 and fitted.theta_E.bounds == (0.5, 2.0) and fitted[0].x_0.fixed
    np.testing.assert_array_equal(fitted.covariance, covariance)
    np.testing.assert_array_equal(fitted[1].covariance, covariance[5:, 5:])


def test_parameters_speak_astropy():
    lens = SIE(1.2 * u.arcsec, x_0=100 * u.mas)
    assert lens.param_names == ("theta_E", "e1", "e2", "x_0", "y_0")
    assert lens.theta_E.quantity == 1.2 * u.arcsec and lens.x_0.value == pytest.approx(0.1)
    lens.theta_E = 1500 * u.mas
    assert lens.theta_E.value == 1.5 and lens.theta_E.unit == u.arcsec
    assert lens.theta_E.std is None and lens.theta_E.description
    lens.e1.fixed = True
    assert not SIE(1.0).e1.fixed


def test_shear_origin_is_fixed():
    shear = Shear(0.1, 0.0)
    assert shear.x_0.fixed and shear.y_0.fixed and not shear.gamma1.fixed


def test_system_names_and_components():
    system = SIE(1.0) + Shear(0.1, 0.0) + SIS(0.3, 1.0)
    assert isinstance(system, MassSystem) and len(system) == 3
    assert system.param_names[:2] == ("theta_E_0", "e1_0") and system.param_names[-1] == "y_0_2"
    assert system.gamma1 is system[1].gamma1 and system.theta_E_2 is system[2].theta_E
    with pytest.raises(AttributeError, match="theta_E_0, theta_E_2"):
        _ = system.theta_E
    system.theta_E_2 = 0.4
    assert system[2].theta_E.value == 0.4
    with pytest.raises(AttributeError, match="kappa"):
        _ = system.kappa


def test_sheet_needs_a_prior():
    assert ConvergenceSheet(0.1).needs_prior and (SIS(1.0) + ConvergenceSheet(0.1)).needs_prior
    assert not (SIS(1.0) + Shear(0.1, 0)).needs_prior


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: SIE(0.0), "theta_E = 0.0"),
        (lambda: SIE(math.nan), "theta_E = nan"),
        (lambda: SIS(-1.0), "theta_E = -1.0"),
        (lambda: SIE(1.0, 0.8, 0.7), "modulus 1.06"),
        (lambda: SIE(1.0, 1.0), "e1 = 1.0"),
        (lambda: EPL(1.0, gamma=3.0), "between 1 and 3"),
        (lambda: SIE(1.0 * u.kg), "give it in arcsec"),
        (lambda: SIE([1.0, 2.0]), "not one number"),
        (lambda: SIE.from_q_phi(1.0, q=1.2, phi=0 * u.deg), "q = 1.2"),
        (lambda: SIE.from_q_phi(1.0, q=0.8, phi=30.0), "no unit"),
        (lambda: NFW(math.inf, 1.0), "r_s = inf"),
        (lambda: DPIE(1.0, core=1.0, edge=0.5), "give core < edge"),
        (lambda: CoredPowerLaw(1.0, 2.0, core=0.0), "core = 0.0"),
        (lambda: SersicMass(1.0, 1.0, n=20.0), "n = 20.0"),
        (lambda: Multipole(0, 0.1, 0.1), "m = 0"),
        (lambda: Multipole(3.5, 0.1, 0.1), "m = 3.5"),
        (lambda: Multipole.from_amplitude(4, 0.1, 30.0), "no unit"),
        (lambda: Shear(math.nan, 0), "gamma1 = nan"),
        (lambda: MassSystem(), "nothing"),
        (lambda: MassSystem(SIS(1.0), "SIE"), "not a mass model"),
        (lambda: SIS(1.0).with_vector([1.0]), "give 3 values"),
        (lambda: SIS(1.0).with_vector([1.0, 0, 0], covariance=np.eye(2)), r"give \(3, 3\)"),
        (lambda: setattr(SIS(1.0).theta_E, "bounds", (2, 1)), "lower must be below"),
        (lambda: setattr(SIS(1.0).theta_E, "bounds", 2), "give a pair"),
        (lambda: setattr(SIE(1.0, 0.8), "e2", 0.8), "modulus"),
        (lambda: SIS(1.0).deflection(1 * u.kg, 0), "position"),
    ],
)
def test_refused(build, match):
    with pytest.raises(InputError, match=match):
        build()


@given(st.floats(0.05, 0.999), st.floats(-89, 89))
def test_q_phi_round_trip(q, phi):
    lens = SIE.from_q_phi(1.0, q=q, phi=phi * u.deg)
    assert lens.q == pytest.approx(q, rel=1e-9)
    if q < 0.99:
        assert lens.phi.deg == pytest.approx(phi, abs=1e-6)


@pytest.mark.parametrize("flip, rotation", [(-1, 0), (-1, 30), (1, 0), (1, -70)])
def test_position_angle(flip, rotation):
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [50.0, 50.0]
    wcs.wcs.cd = turn @ np.diag([flip, 1]) * 0.05 / 3600
    lens = SIE.from_q_phi(1.0, q=0.7, phi=20 * u.deg)
    step = np.radians(20)
    sky = wcs.pixel_to_world([49, 49 + 10 * np.cos(step)], [49, 49 + 10 * np.sin(step)])
    expected = sky[0].position_angle(sky[1]).deg % 180
    assert lens.position_angle(wcs).deg == pytest.approx(expected, abs=1e-3)


def test_velocity_dispersion_and_mass():
    lens = SIE.from_velocity_dispersion(250 * u.km / u.s, 0.5, 2.0, e1=0.1)
    assert lens.e1.value == 0.1 and lens.theta_E.value == pytest.approx(1.1415515, rel=1e-4)
    point = PointMass.from_mass(1e12 * u.Msun, 0.5, 2.0, x_0=0.2)
    assert point.x_0.value == 0.2 and point.theta_E.value > 1
