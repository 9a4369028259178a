"""The multi-Gaussian expansion against lenstronomy, quadrature, the Sérsic and its own derivatives."""

import pickle

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.modeling.fitting import LevMarLSQFitter
from hypothesis import given
from hypothesis import strategies as st

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging import render
from lenssr.light import (
    MultiGaussian,
    Sersic,
    gaussian_widths,
    gaussians_brightness,
    gaussians_brightness_jacobian,
    gaussians_from_sersic,
)

SIGMA = [0.05, 0.2, 0.7]
FLUX = [1.0, 3.0, 2.0]
SHAPES = [(0.0, 0.0), (0.3, 0.0), (-0.1, 0.25), (0.0, -0.5)]


def positions(number=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(2, number, dtype=torch.float64, generator=generator)


def galaxy(e1=0.1, e2=-0.2, **kwargs):
    return MultiGaussian(SIGMA, FLUX, 0.1, -0.05, e1, e2, **kwargs)


@pytest.mark.parametrize("e1, e2", SHAPES)
def test_brightness_equals_lenstronomy(e1, e2):
    from lenstronomy.LightModel.Profiles.gaussian import MultiGaussianEllipse

    x, y = positions().numpy()
    reference = MultiGaussianEllipse().function(x, y, np.array(FLUX), np.array(SIGMA), e1, e2, 0.1, -0.05)
    np.testing.assert_allclose(galaxy(e1, e2)(x, y), reference, rtol=1e-12)


@pytest.mark.parametrize("e1, e2", SHAPES)
def test_the_sum_of_an_image_is_the_flux(e1, e2):
    image = render(PixelGrid((120, 120), 0.1), lens_light=galaxy(e1, e2))
    assert image.sum() == pytest.approx(6.0, rel=1e-3)
    assert galaxy(e1, e2).flux == pytest.approx(6.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("centre", [(0.1, -0.05), (0.0, 0.0)])
def test_gradients(shape, centre):
    x, y = positions(4)
    x[0], y[0] = centre  # exactly in the middle
    values = [x, y, torch.tensor(SIGMA), torch.tensor([FLUX, FLUX]), *centre, *shape]
    arguments = [torch.as_tensor(value, dtype=torch.float64).requires_grad_() for value in values]
    arguments[3:] = [arguments[3], *(a.reshape(1, 1).detach().requires_grad_() for a in arguments[4:])]
    assert torch.autograd.gradcheck(gaussians_brightness, arguments)


@pytest.mark.parametrize("e1, e2", SHAPES)
def test_derivatives_by_hand_equal_autograd(e1, e2):
    x, y = positions(30)
    flux = torch.tensor([FLUX, FLUX[::-1]], dtype=torch.float64)
    shape = [torch.full((2, 1), value, dtype=torch.float64) for value in (0.1, -0.05, e1, e2)]
    value, d_dx, d_dy, d_dp = gaussians_brightness_jacobian(x, y, SIGMA, flux, *shape)
    sigma = torch.tensor(SIGMA, dtype=torch.float64)

    def brightness(x, y, flux, *shape):
        return gaussians_brightness(x, y, sigma, flux, *shape)

    torch.testing.assert_close(value, brightness(x, y, flux, *shape), rtol=1e-13, atol=0)
    pieces = torch.autograd.functional.jacobian(brightness, (x, y, flux, *shape))
    torch.testing.assert_close(d_dx, torch.einsum("brr->br", pieces[0]))
    torch.testing.assert_close(d_dy, torch.einsum("brr->br", pieces[1]))
    torch.testing.assert_close(d_dp[:, :3], torch.einsum("brbk->bkr", pieces[2]))
    for k, piece in enumerate(pieces[3:]):
        torch.testing.assert_close(d_dp[:, 3 + k], torch.einsum("brbi->br", piece))


@pytest.mark.parametrize("n", [0.7, 1.0, 2.5, 4.0])
def test_it_follows_a_sersic(n):
    sersic = Sersic(1.0, 0.5, n, 0.02, 0.01, 0.1, 0.05)
    expanded = MultiGaussian.from_sersic(sersic, gaussian_widths(0.05, 4.0))
    x = np.linspace(0.1, 1.2, 12) + 0.02
    np.testing.assert_allclose(expanded(x, 0.01 + 0 * x), sersic(x, 0.01 + 0 * x), rtol=0.03)
    assert (expanded.q, expanded.phi) == (pytest.approx(sersic.q), sersic.phi)


def test_every_start_is_bright_enough_to_move():
    sersic = torch.tensor([[2.0, 0.3, 0.5, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 8.0, 0.0, 0.0, 0.1, 0.0]])
    flux = gaussians_from_sersic(sersic, gaussian_widths(0.05, 3.0))
    assert bool((flux > 1e-4 * flux.sum(1, keepdim=True)).all())


@pytest.mark.parametrize("pixel_scale, extent", [(0.04, 2.6), (0.1, 3.0), (1.0, 0.5)])
def test_widths_reach_from_a_pixel_to_the_field(pixel_scale, extent):
    sigma = gaussian_widths(pixel_scale, extent)
    assert sigma[0] == pytest.approx(0.4 * pixel_scale) and sigma[-1] == pytest.approx(
        max(extent, pixel_scale)
    )
    assert (sigma[1:] / sigma[:-1]).max() <= 1.6 + 1e-9


@given(
    length=st.sampled_from(["mas", "arcsec", "arcmin", "deg"]),
    flux=st.sampled_from(["nJy", "mJy"]),
    scale=st.floats(0.01, 10),
)
def test_units_do_not_matter(length, flux, scale):
    widths, centre = scale * np.array(SIGMA) * u.arcsec, [0.1, -0.05] * u.arcsec
    model = MultiGaussian(widths.to(length), (FLUX * u.nJy).to(flux), *centre.to(length), 0.1, 0.2)
    bare = MultiGaussian(scale * np.array(SIGMA), FLUX, 0.1, -0.05, 0.1, 0.2)
    value = model((0.4 * u.arcsec).to(length), (-0.1 * u.arcsec).to(length))
    expected = bare(0.4, -0.1)
    assert value.to_value(u.nJy / u.arcsec**2) == pytest.approx(expected, rel=1e-9, abs=1e-280)
    assert model.flux.to_value(u.nJy) == pytest.approx(bare.flux)
    np.testing.assert_allclose(model.vector[3:], bare.vector[3:], rtol=1e-12)


def test_shape_of_the_positions_is_kept():
    y, x = np.mgrid[:3, :4]
    assert galaxy()(x, y).shape == (3, 4)


def test_parameters_of_one_model_are_its_own():
    one, two = galaxy(fixed={"flux_1": True}), MultiGaussian([0.1], [5.0])
    one.flux_0 = 7.0
    assert two.param_names == ("flux_0", "x_0", "y_0", "e1", "e2") and two.flux_0.value == 5.0
    assert one.flux_1.fixed and not galaxy().flux_1.fixed


@pytest.mark.parametrize(
    "copy", [lambda model: model.copy(), lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_are_complete(copy):
    model = galaxy(bounds={"flux_2": (1.0, 4.0)})
    model.e1.std = 0.03
    twin = copy(model)
    np.testing.assert_array_equal(twin.parameters, model.parameters)
    assert twin.e1.std == 0.03 and twin.flux_2.bounds == (1.0, 4.0)
    assert twin(0.1, 0.2) == model(0.1, 0.2)


def test_it_adds_to_other_models():
    both = galaxy() + Sersic(1.0, 0.3, 2.0)
    assert both(0.1, 0.2) == pytest.approx(galaxy()(0.1, 0.2) + Sersic(1.0, 0.3, 2.0)(0.1, 0.2))


@pytest.mark.parametrize("unit", [None, "electron"])
def test_vector_round_trip(unit):
    covariance = np.diag(np.arange(1.0, 8.0))
    model = MultiGaussian.from_vector(galaxy().vector, SIGMA, covariance=covariance, unit=unit)
    torch.testing.assert_close(model.vector, galaxy().vector, rtol=0, atol=0)
    assert model.flux_0.unit == (None if unit is None else u.electron)
    assert model.flux_2.std == pytest.approx(3**0.5) and model.e2.std == pytest.approx(7**0.5)


def test_astropy_fits_it():
    y, x = np.mgrid[-1:1:25j, -1:1:25j]
    start = MultiGaussian(SIGMA, 1.5, 0.05, 0.0, 0.05, 0.0)
    fitted = LevMarLSQFitter()(start, x, y, galaxy()(x, y))
    np.testing.assert_allclose(fitted.parameters, galaxy().parameters, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"sigma": []}, "widths"),
        ({"sigma": [0.1, 0.0]}, "positive"),
        ({"sigma": [0.1, 0.2], "flux": [1.0, 2.0, 3.0]}, "3 values of flux for 2"),
        ({"sigma": [0.1], "flux": [-1.0]}, "negative"),
        ({"sigma": [0.1], "e1": 0.8, "e2": 0.7}, "not an ellipse"),
        ({"sigma": [0.1] * u.s}, "not convertible"),
    ],
)
def test_impossible_models_are_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        MultiGaussian(**arguments)
