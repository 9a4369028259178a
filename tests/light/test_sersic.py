"""The Sérsic profile against astropy, lenstronomy, quadrature and its own derivatives."""

import math

import astropy.units as u
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import torch
from astropy.modeling.fitting import LevMarLSQFitter
from hypothesis import given
from hypothesis import strategies as st

from lenssr._tensors import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.light import (
    Sersic,
    sersic_b,
    sersic_brightness,
    sersic_brightness_jacobian,
    sersic_flux,
    sersic_from_lenstronomy,
    sersic_to_lenstronomy,
)

PARAMETERS = torch.tensor(
    [
        [2.0, 0.3, 1.7, 0.1, -0.05, 0.1, -0.2],
        [1.0, 0.6, 4.0, 0.0, 0.0, 0.0, 0.0],
        [5.0, 0.2, 0.5, -0.3, 0.2, -0.4, 0.3],
        [0.7, 1.5, 7.0, 0.01, 0.02, 0.05, 0.0],
    ],
    dtype=torch.float64,
)
ELLIPSES = [(0.0, 0.0), (0.3, 0.0), (-0.1, 0.25), (0.0, -0.5)]


def positions(number=50, dtype=torch.float64, seed=0):
    return torch.randn(2, number, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def columns(vectors):
    return vectors.unsqueeze(-1).unbind(-2)


def test_b_is_the_half_light_solution():
    n = np.concatenate([np.geomspace(0.1, 12, 400), [0.1, 12.0]])
    np.testing.assert_allclose(sersic_b(n), scipy.special.gammaincinv(2 * n, 0.5), rtol=1e-11, atol=0)


@pytest.mark.parametrize("n", [0.1, 0.5, 1.0, 4.0, 11.9])
def test_b_has_the_right_slope(n):
    tensor = torch.tensor(n, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sersic_b(tensor), tensor)
    step = 1e-4 * n
    stencil = np.array([1, -8, 8, -1]) / (12 * step)
    nodes = n + step * np.array([-2, -1, 1, 2])
    reference = stencil @ scipy.special.gammaincinv(2 * nodes, 0.5)
    assert slope.item() == pytest.approx(reference, rel=1e-8)


@pytest.mark.parametrize("n", [0.05, 12.5, math.nan])
def test_b_refuses_an_index_out_of_range(n):
    with pytest.raises(InputError, match="outside 0.1 to 12"):
        sersic_b(n)


def test_brightness_is_not_a_number_where_the_index_is_out_of_range():
    n = torch.tensor([[1.0], [20.0]], dtype=torch.float64)
    brightness = sersic_brightness(*positions(), 1.0, 1.0, n, 0.0, 0.0, 0.0, 0.0)
    assert brightness[0].isfinite().all()
    assert brightness[1].isnan().all()


@pytest.mark.parametrize("e1, e2", ELLIPSES)
@pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 8.0])
def test_model_equals_astropy(n, e1, e2):
    model = Sersic(amplitude=3.0, r_eff=0.7, n=n, x_0=0.1, y_0=-0.2, e1=e1, e2=e2)
    x, y = positions().numpy()
    np.testing.assert_allclose(model(x, y), model.to_sersic2d()(x, y), rtol=1e-10)


@pytest.mark.parametrize("e1, e2", ELLIPSES)
def test_astropy_round_trip(e1, e2):
    model = Sersic(amplitude=3.0, r_eff=0.7, n=2.5, x_0=0.1, y_0=-0.2, e1=e1, e2=e2)
    back = Sersic.from_sersic2d(model.to_sersic2d())
    np.testing.assert_allclose(back.parameters, model.parameters, atol=1e-15)


def test_astropy_round_trip_keeps_units():
    model = Sersic(3 * u.nJy / u.arcsec**2, 0.7 * u.arcsec, 2.5, 0.1 * u.arcsec, -200 * u.mas, 0.1, 0.2)
    back = Sersic.from_sersic2d(model.to_sersic2d())
    assert back.amplitude.unit == u.nJy / u.arcsec**2
    assert back.y_0.unit == u.mas
    np.testing.assert_allclose(back.parameters, model.parameters, atol=1e-15)


@pytest.mark.parametrize("e1, e2", ELLIPSES)
@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
def test_brightness_equals_lenstronomy_after_conversion(n, e1, e2):
    from lenstronomy.LightModel.Profiles.sersic import SersicElliptic

    x, y = positions()
    reference = SersicElliptic().function(x.numpy(), y.numpy(), 20.0, 0.25, n, e1, e2, 0.1, -0.2)
    amplitude, r_eff_circ = sersic_from_lenstronomy(20.0, 0.25, n)
    brightness = sersic_brightness(x, y, amplitude, r_eff_circ, n, 0.1, -0.2, e1, e2)
    np.testing.assert_allclose(brightness.numpy(), reference, rtol=2e-11)


def test_conversion_to_lenstronomy_inverts():
    amplitude, r_eff_circ = sersic_from_lenstronomy(20.0, 0.25, 0.5)
    np.testing.assert_allclose(sersic_to_lenstronomy(amplitude, r_eff_circ, 0.5), (20.0, 0.25), rtol=1e-13)


def test_conversion_refuses_an_index_without_approximation():
    with pytest.raises(InputError, match="not positive"):
        sersic_from_lenstronomy(1.0, 1.0, 0.15)


# The first forward-mode derivative of a process makes torch script its own helpers.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 2e-5)])
def test_jacobian_equals_forward_mode(dtype, tolerance):
    x, y = positions(300, dtype)
    vectors = PARAMETERS.to(dtype)
    expected, slopes = forward_jacobian(lambda *p: sersic_brightness(x, y, *p), vectors)
    brightness, d_dx, d_dy, d_dp = sersic_brightness_jacobian(x, y, *columns(vectors))
    assert d_dp.shape == (4, 7, 300)
    assert d_dp.dtype == d_dx.dtype == dtype
    torch.testing.assert_close(brightness, expected, rtol=tolerance, atol=tolerance)
    scale = slopes.abs().amax(-1, keepdim=True)
    torch.testing.assert_close(d_dp / scale, slopes / scale, rtol=0, atol=tolerance)
    torch.testing.assert_close(d_dx, -d_dp[:, 3])
    torch.testing.assert_close(d_dy, -d_dp[:, 4])


def test_gradcheck_of_positions_and_parameters():
    x, y = positions(6)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, y, *PARAMETERS[0])]
    assert torch.autograd.gradcheck(sersic_brightness, inputs)


def test_gradcheck_of_a_round_profile():
    inputs = [tensor.clone().requires_grad_() for tensor in (*positions(6), *PARAMETERS[1])]
    assert torch.autograd.gradcheck(sersic_brightness, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0.3, 0.5, 1.0, 4.0, 10.0])
def test_centre_is_finite(n, dtype):
    zero = torch.zeros(1, dtype=dtype)
    inputs = [zero.clone().requires_grad_() for _ in range(2)]
    parameters = torch.tensor([1.0, 0.5, n, 0.0, 0.0, 0.1, 0.2], dtype=dtype)
    brightness = sersic_brightness(*inputs, *parameters)
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(brightness.sum(), inputs))
    assert brightness.item() == pytest.approx(
        math.exp(sersic_b(n)), rel=1e-6 if dtype == torch.float64 else 0.3
    )
    results = sersic_brightness_jacobian(zero, zero, *parameters)
    assert all(result.isfinite().all() for result in results)
    assert results[1].item() == results[2].item() == 0


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
def test_flux_equals_the_integral(n):
    # In the logarithm of the radius the integrand is smooth; half of the flux lies within r_eff.
    def ring(log_r):
        r = torch.tensor(math.exp(log_r), dtype=torch.float64)
        return 2 * math.pi * r.item() ** 2 * sersic_brightness(r, 0.0, 2.0, 0.5, n, 0.0, 0.0, 0.0, 0.0).item()

    total = scipy.integrate.quad(ring, -25, math.log(0.5), epsabs=1e-12)[0]
    assert sersic_flux(2.0, 0.5, n).item() == pytest.approx(2 * total, rel=1e-8)


def test_flux_does_not_depend_on_the_ellipticity_at_fixed_circular_radius():
    round_one = Sersic(amplitude=1.0, r_eff=0.5, n=2.0)
    flat = Sersic.from_axis_ratio(1.0, 0.5 / math.sqrt(0.4), 2.0, q=0.4, phi=30 * u.deg)
    assert flat.flux == pytest.approx(round_one.flux, rel=1e-13)


def test_shape_properties():
    model = Sersic.from_axis_ratio(r_eff=2.0, q=0.25, phi=70 * u.deg)
    assert model.q == pytest.approx(0.25)
    assert model.phi.to_value(u.deg) == pytest.approx(70)
    assert model.r_eff_circ == pytest.approx(1.0)
    # r_eff is the end of the long axis
    angle = math.radians(70)
    assert model(2 * math.cos(angle), 2 * math.sin(angle)) == pytest.approx(1.0)


def test_quantities_go_in_and_come_out():
    model = Sersic(2 * u.electron / u.arcsec**2, 300 * u.mas, 1.0, 100 * u.mas, 0 * u.arcsec)
    value = model(0.4 * u.arcsec, 0 * u.mas)
    assert value.unit == u.electron / u.arcsec**2
    assert value.value == pytest.approx(2.0)
    assert model.flux.to_value(u.electron) == pytest.approx(sersic_flux(2.0, 0.3, 1.0).item())


def test_wrong_unit_is_refused():
    with pytest.raises((u.UnitsError, InputError)):
        Sersic(r_eff=1 * u.arcsec)(1 * u.kg, 0 * u.kg)


@pytest.mark.parametrize(
    "wrong, match",
    [({"r_eff": -1.0}, "r_eff"), ({"n": 20.0}, "outside"), ({"e1": 0.8, "e2": 0.7}, "not an ellipse")],
)
def test_impossible_shape_is_refused_when_built(wrong, match):
    with pytest.raises(InputError, match=match):
        Sersic(**wrong)


@pytest.mark.parametrize("q, phi, match", [(0.0, 0 * u.deg, "minor over major"), (0.5, 30.0, "no unit")])
def test_axis_ratio_is_checked(q, phi, match):
    with pytest.raises(InputError, match=match):
        Sersic.from_axis_ratio(q=q, phi=phi)


def test_shape_of_the_positions_is_kept():
    y, x = np.mgrid[:3, :4]
    assert Sersic()(x, y).shape == (3, 4)


def test_fit_deriv_equals_finite_differences():
    model = Sersic(2.0, 0.6, 1.5, 0.1, 0.2, 0.15, -0.1)
    x, y = positions().numpy()
    values = model.parameters
    for k, derivative in enumerate(model.fit_deriv(x, y, *values)):
        step = np.zeros(7)
        step[k] = 1e-6
        reference = (model.evaluate(x, y, *(values + step)) - model.evaluate(x, y, *(values - step))) / 2e-6
        np.testing.assert_allclose(derivative, reference, atol=1e-6)


def test_astropy_fits_it():
    truth = Sersic(2.0, 0.6, 1.5, 0.1, 0.2, 0.15, -0.1)
    y, x = np.mgrid[-2:2:30j, -2:2:30j]
    start = Sersic(1.0, 0.8, 1.0, 0.0, 0.0, 0.05, 0.0)
    fitted = LevMarLSQFitter()(start, x, y, truth(x, y))
    np.testing.assert_allclose(fitted.parameters, truth.parameters, rtol=1e-5)


@pytest.mark.parametrize("unit", [None, "electron"])
def test_vector_round_trip(unit):
    vector = PARAMETERS[0]
    model = Sersic.from_vector(vector, unit=unit)
    torch.testing.assert_close(model.vector, vector, rtol=1e-14, atol=0)
    assert model.r_eff.unit == (None if unit is None else u.arcsec)


def test_vector_is_what_the_pure_function_takes():
    model = Sersic(2.0, 0.6, 1.5, 0.1, 0.2, 0.15, -0.1)
    x, y = positions()
    np.testing.assert_allclose(sersic_brightness(x, y, *model.vector).numpy(), model(x.numpy(), y.numpy()))


def test_vector_converts_lengths_to_arcsec():
    model = Sersic(2 * u.Jy / u.arcsec**2, 600 * u.mas, 1.0, 100 * u.mas, 0.2 * u.arcsec)
    np.testing.assert_allclose(model.vector.numpy(), [2, 0.6, 1, 0.1, 0.2, 0, 0])


def test_covariance_is_carried_to_the_parameters():
    rng = np.random.default_rng(3)
    scale = np.array([0.1, 0.01, 0.1, 0.01, 0.01, 0.01, 0.01]) * 0.01
    root = rng.normal(size=(7, 7)) * scale[:, None]
    vector = PARAMETERS[0].numpy()
    model = Sersic.from_vector(vector, covariance=root @ root.T)
    draws = vector + rng.normal(size=(20000, 7)) @ root.T
    modulus = np.hypot(draws[:, 5], draws[:, 6])
    r_eff = draws[:, 1] * np.sqrt((1 + modulus) / (1 - modulus))
    assert model.r_eff.std == pytest.approx(r_eff.std(), rel=0.03)
    assert model.n.std == pytest.approx(math.sqrt((root @ root.T)[2, 2]))
    assert model.covariance[1, 5] == pytest.approx(np.cov(r_eff, draws[:, 5])[0, 1], rel=0.05)


def test_covariance_is_finite_for_a_round_galaxy():
    model = Sersic.from_vector(PARAMETERS[1], covariance=np.eye(7) * 1e-4)
    assert np.isfinite(model.covariance).all()
    assert model.r_eff.std == pytest.approx(0.01)


@given(q=st.floats(0.05, 0.999), phi=st.floats(-89.9, 89.9), r_eff=st.floats(1e-3, 1e3), n=st.floats(0.1, 12))
def test_axis_ratio_round_trip(q, phi, r_eff, n):
    model = Sersic.from_axis_ratio(1.0, r_eff, n, q=q, phi=phi * u.deg)
    back = Sersic.from_vector(model.vector)
    assert back.q == pytest.approx(q, rel=1e-9)
    assert (back.phi.to_value(u.deg) - phi + 90) % 180 == pytest.approx(90, abs=1e-6 / (1 - q))
    assert back.r_eff.value == pytest.approx(r_eff, rel=1e-12)


@given(unit=st.sampled_from(["mas", "arcsec", "arcmin", "deg", "uas"]), r_eff=st.floats(0.01, 10))
def test_units_of_length_do_not_matter(unit, r_eff):
    model = Sersic(
        2 * u.nJy / u.arcsec**2, (r_eff * u.arcsec).to(unit), 1.3, 0 * u.Unit(unit), 0 * u.Unit(unit)
    )
    bare = Sersic(2.0, r_eff, 1.3)
    value = model((0.4 * u.arcsec).to(unit), (-0.1 * u.arcsec).to(unit))
    assert value.to_value(u.nJy / u.arcsec**2) == pytest.approx(bare(0.4, -0.1), rel=1e-10)
    assert model.flux.to_value(u.nJy) == pytest.approx(bare.flux, rel=1e-10)
