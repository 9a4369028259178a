"""Deflection maps: interpolation, potential, and what they refuse."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr.exceptions import InputError
from lenssr.mass import NFW, PixelatedDeflection, Shear
from lenssr.mass.pixelated import potential_from_deflection, spline_coefficients, spline_values

SCALE = 0.05
Y, X = (np.mgrid[:81, :101] - np.array([40, 50])[:, None, None]) * SCALE
TRUTH = NFW(5.0, 1.8) + Shear(0.05, -0.02)
LENSES = {
    "deflection": PixelatedDeflection(*TRUTH.deflection(X, Y), SCALE),
    "potential": PixelatedDeflection.from_potential(TRUTH.potential(X, Y) * u.arcsec**2, SCALE * u.arcsec),
}


@pytest.fixture
def positions():
    x, y = np.random.default_rng(1).uniform(-1, 1, size=(2, 300)) * [[2.4], [1.9]]
    far = np.hypot(x, y) > 0.3
    return x[far], y[far]


TOLERANCES = {
    "deflection": {"deflection": 1e-5, "convergence": 1e-3, "shear": 1e-3},
    "potential": {"deflection": 1e-4, "convergence": 5e-3, "shear": 5e-3},
}


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("name", ["deflection", "convergence", "shear"])
def test_interpolates_a_smooth_lens(kind, name, positions):
    ours, truth = (getattr(lens, name)(*positions) for lens in (LENSES[kind], TRUTH))
    np.testing.assert_allclose(ours, truth, atol=TOLERANCES[kind][name])


@pytest.mark.parametrize("kind", LENSES)
def test_potential_up_to_a_constant(kind, positions):
    assert np.ptp(LENSES[kind].potential(*positions) - TRUTH.potential(*positions)) < 3e-4


def test_map_itself_is_returned_at_pixel_centres():
    lens = LENSES["deflection"]
    np.testing.assert_allclose(lens.deflection(X, Y), TRUTH.deflection(X, Y), atol=1e-12)


def test_cubic_fields_are_exact():
    # a cubic spline with not-a-knot ends reproduces cubics, also beyond the outermost centres
    lens = PixelatedDeflection(X**3 - Y, Y**3 - X, SCALE)
    edge = 2.5 + 0.6 * SCALE
    np.testing.assert_allclose(lens.deflection(edge, 0.3)[0], edge**3 - 0.3, rtol=1e-10)
    np.testing.assert_allclose(
        lens.potential(1.0, 0.5) - lens.potential(0.0, 0.0), 0.25 + 1 / 64 - 0.5, atol=1e-5
    )


def test_gradients():
    values = torch.randn(
        7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    x = torch.tensor([1.3, 5.2], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([2.6, 0.4], dtype=torch.float64, requires_grad=True)
    for orders in ((0, 0), (1, 0), (0, 1), (1, 1)):
        assert torch.autograd.gradcheck(
            lambda v, a, b, o=orders: spline_values(
                spline_coefficients(v), a, b, column_order=o[0], row_order=o[1]
            ),
            (values, x, y),
        )


def test_a_curl_has_no_potential():
    # a flow along the lines of a function that vanishes at the edges
    kx, ky = np.pi / 5, np.pi / 4
    along_x = ky * np.cos(kx * X) * -np.sin(ky * Y)
    along_y = kx * np.sin(kx * X) * np.cos(ky * Y)
    potential = potential_from_deflection(torch.tensor(along_x), torch.tensor(along_y), SCALE)
    assert potential.abs().max() < 2e-2 * np.abs(along_x).max()


def test_fits_see_no_parameters():
    system = LENSES["deflection"] + Shear(0.05, 0.0)
    assert LENSES["deflection"].vector.shape == (0,) and system.vector.shape == (4,)
    x = torch.rand(1, 30, dtype=torch.float64)
    ax, _, dax, _ = system.deflection_jacobian_at(x, x, system.vector.repeat(3, 1))
    assert ax.shape == (3, 30) and dax.shape == (3, 4, 30)


def test_finds_images_and_einstein_radius():
    for lens in LENSES.values():
        assert lens.einstein_radius(1.9).value == pytest.approx(TRUTH.einstein_radius(1.9).value, rel=2e-4)
        assert len(lens.image_positions(0.3, 0.1)[0]) == len(TRUTH.image_positions(0.3, 0.1)[0])


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: LENSES["deflection"].deflection(2.6, 0.0), r"\|x\| > 2.55 arcsec: give a wider map"),
        (lambda: LENSES["deflection"].deflection(0.0, np.nan), "wider map"),
        (lambda: PixelatedDeflection(X, Y[1:], SCALE), "give one shape"),
        (lambda: PixelatedDeflection(X, np.where(X == 0, np.nan, Y), SCALE), "81 non-finite"),
        (lambda: PixelatedDeflection(X, Y, 0.0), "pixel_scale = 0.0"),
        (lambda: PixelatedDeflection(X[0], Y[0], SCALE), "5 x 5"),
    ],
)
def test_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
