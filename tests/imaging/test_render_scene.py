"""Rendered scenes against lenstronomy and against brute force."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.modeling.models import Gaussian2D

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.psf import PSF
from lenssr.imaging.render_scene import render
from lenssr.light import PixelatedSource, Sersic, sersic_from_lenstronomy
from lenssr.mass import SIE, Shear

SCALE = 0.05
# lenstronomy's convolution calls numpy's FFT in a way that numpy 2 warns of.
OLD_NUMPY_CALL = pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")
LENS = SIE(0.9, 0.1, -0.05, 0.01, 0.02) + Shear(0.03, -0.02)
SOURCE = {
    "amp": 20.0,
    "R_sersic": 0.25,
    "n_sersic": 1.0,
    "e1": -0.1,
    "e2": 0.1,
    "center_x": 0.1,
    "center_y": 0.05,
}
LIGHT = {
    "amp": 5.0,
    "R_sersic": 0.5,
    "n_sersic": 4.0,
    "e1": 0.05,
    "e2": 0.1,
    "center_x": 0.012,
    "center_y": 0.021,
}


def converted(kwargs):
    """The Sersic that lenstronomy's keywords mean."""
    n = kwargs["n_sersic"]
    amplitude, r_eff_circ = sersic_from_lenstronomy(kwargs["amp"], kwargs["R_sersic"], n)
    rest = [kwargs[name] for name in ("center_x", "center_y", "e1", "e2")]
    return Sersic.from_vector([amplitude, r_eff_circ, n, *rest])


def asymmetric_psf():
    kernel = np.exp(-0.5 * ((np.mgrid[-7:8, -7:8] / 1.4) ** 2).sum(0))
    kernel[5, 7] *= 1.05
    kernel[9, 7] *= 1.05
    return kernel / kernel.sum()


def lenstronomy_image(size, psf, supersampling, subsampled):
    from lenstronomy.Data.pixel_grid import PixelGrid as Pixels
    from lenstronomy.Data.psf import PSF as Kernel
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    corner = -(size - 1) / 2 * SCALE
    pixels = Pixels(size, size, np.eye(2) * SCALE, corner, corner)
    kernel = Kernel("NONE")
    if psf is not None:
        factor = supersampling if subsampled else 1
        kernel = Kernel("PIXEL", kernel_point_source=psf, point_source_supersampling_factor=factor)
    model = ImageModel(
        pixels,
        kernel,
        LensModel(["EPL", "SHEAR"]),
        LightModel(["SERSIC_ELLIPSE"]),
        LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": supersampling, "supersampling_convolution": subsampled},
    )
    sie = {"theta_E": 0.9, "gamma": 2.0, "e1": 0.1, "e2": -0.05, "center_x": 0.01, "center_y": 0.02}
    shear = {"gamma1": 0.03, "gamma2": -0.02, "ra_0": 0.0, "dec_0": 0.0}
    return model.image([sie, shear], [SOURCE], [LIGHT])


@OLD_NUMPY_CALL
@pytest.mark.parametrize("size", [50, 51])
@pytest.mark.parametrize("supersampling", [1, 3])
@pytest.mark.parametrize("kernel", [None, asymmetric_psf()], ids=["none", "psf"])
def test_equals_lenstronomy_at_the_same_sampling(size, supersampling, kernel):
    # What is wider by half a kernel has all the light that reaches the image.
    rim = 0 if kernel is None else max(kernel.shape) // 2
    expected = lenstronomy_image(size + 2 * rim, kernel, supersampling, False)
    options = {
        "lens": LENS,
        "source": converted(SOURCE),
        "lens_light": converted(LIGHT),
        "psf": None if kernel is None else PSF(kernel),
        "oversampling": supersampling,
    }
    grid, inner = PixelGrid((size, size), SCALE), slice(rim, rim + size)
    wide = render(grid.padded(rim), **options)
    np.testing.assert_allclose(wide[inner, inner], expected[inner, inner], rtol=1e-9)
    np.testing.assert_allclose(render(grid, **options), expected[inner, inner], rtol=1e-3)


@OLD_NUMPY_CALL
def test_oversampled_psf_equals_lenstronomy():
    rim = max(asymmetric_psf().shape) // 2
    expected = lenstronomy_image(50 + 2 * rim, asymmetric_psf(), 3, True)[rim:-rim, rim:-rim]
    psf = PSF(asymmetric_psf(), oversampling=3)
    lights = {"source": converted(SOURCE), "lens_light": converted(LIGHT)}
    image = render(PixelGrid((50 + 2 * rim,) * 2, SCALE), lens=LENS, **lights, psf=psf, oversampling=3)
    np.testing.assert_allclose(image[rim:-rim, rim:-rim], expected, rtol=1e-6)


def brute_force(brightness, grid):
    """Integrals over pixels, each by dense midpoint sums and division until they agree to 5e-5.

    Nothing is shared with the operator: another rule, another test, and 320 samples where that has 20.
    """

    def means(x, y, side, number):
        nodes = ((np.arange(number) + 0.5) / number - 0.5) * side
        rays = (x[:, None, None] + nodes, y[:, None, None] + nodes[:, None])
        rays = (torch.tensor(ray).reshape(-1) for ray in np.broadcast_arrays(*rays))
        return brightness(*rays).numpy().reshape(len(x), -1).mean(1)

    x, y, side = grid.x.ravel(), grid.y.ravel(), grid.pixel_scale
    total, owner, share = np.zeros(x.size), np.arange(x.size), 1.0
    reference = None
    while len(x) and share > 4**-14:
        coarse, fine = means(x, y, side, 8), means(x, y, side, 16)
        reference = fine if reference is None else reference
        allowed = 5e-5 * np.maximum(reference, 0.005 * reference.max())
        settled = np.abs(fine - coarse) * share < 0.1 * allowed[owner]
        np.add.at(total, owner[settled], fine[settled] * share)
        x = (x[~settled, None] + np.array([-0.25, 0.25, -0.25, 0.25]) * side).ravel()
        y = (y[~settled, None] + np.array([-0.25, -0.25, 0.25, 0.25]) * side).ravel()
        owner = owner[~settled].repeat(4)
        side, share = side / 2, share / 4
    return total.reshape(grid.shape) * grid.pixel_area


# Centres inside a pixel, on an edge, on a corner and at the middle of one.
CENTRES = [(0.013, -0.008), (0.0, 0.017), (0.025, 0.025), (0.0, 0.0)]
SMALL = SIE(0.4, 0.15, 0.05, 0.003, -0.002)


@pytest.mark.parametrize(
    "n, r_eff", [(0.5, 0.1), (1.0, 0.15), (2.5, 0.1), (4.0, 0.1), (4.0, 0.3), (6.0, 0.15)]
)
@pytest.mark.parametrize("x_0, y_0", CENTRES)
def test_every_bright_pixel_is_right(n, r_eff, x_0, y_0):
    grid, light = PixelGrid((15, 16), SCALE), Sersic(1.0, r_eff, n, x_0, y_0, 0.2, -0.1)
    image = render(grid, lens_light=light)
    truth = brute_force(lambda x, y: torch.tensor(light(x.numpy(), y.numpy())), grid)
    bright = truth > 0.01 * truth.max()
    np.testing.assert_allclose(image[bright], truth[bright], rtol=5e-4)


@pytest.mark.parametrize("n, r_eff", [(1.0, 0.1), (4.0, 0.1), (4.0, 0.3)])
@pytest.mark.parametrize("x_0, y_0", [(0.083, -0.028), (0.21, 0.117)])
def test_every_bright_lensed_pixel_is_right(n, r_eff, x_0, y_0):
    grid, source = PixelGrid((25, 25), SCALE), Sersic(1.0, r_eff, n, x_0, y_0, 0.2, -0.1)

    def brightness(x, y):
        ax, ay = SMALL.deflection(x, y)
        return torch.tensor(source((x - ax).numpy(), (y - ay).numpy()))

    image, truth = render(grid, lens=SMALL, source=source), brute_force(brightness, grid)
    bright = truth > 0.01 * truth.max()
    np.testing.assert_allclose(image[bright], truth[bright], rtol=5e-4)


def test_finer_pixels_hold_the_same_light():
    grid = PixelGrid((30, 32), SCALE)
    options = {"lens": SMALL, "source": Sersic(1.0, 0.3, 1.0, 0.1, 0.05), "sky": 0.01}
    fine = render(grid, **options, scale=2)
    assert fine.shape == (60, 64)
    np.testing.assert_allclose(fine.reshape(30, 2, 32, 2).sum((1, 3)), render(grid, **options), rtol=5e-4)


def test_narrow_gaussian_psf_is_sampled_finely_enough():
    light = Gaussian2D(1.0, 0.03, -0.02, 0.1, 0.1)
    grid = PixelGrid((25, 25), 0.1)
    image = render(grid, source=light, psf=PSF.from_fwhm(0.08 * u.arcsec))
    sigma = np.hypot(0.1, 0.08 / np.sqrt(8 * np.log(2)))
    blurred = Gaussian2D((0.1 / sigma) ** 2, 0.03, -0.02, sigma, sigma)
    truth = brute_force(lambda x, y: torch.tensor(blurred(x.numpy(), y.numpy())), grid)
    np.testing.assert_allclose(image, truth, atol=1e-3 * truth.max())


def test_lights_add():
    grid = PixelGrid((20, 20), SCALE)
    one, two = Sersic(1.0, 0.2, 1.0), Sersic(0.5, 0.3, 2.0, 0.1)
    both = render(grid, lens=SMALL, source=[one, two], lens_light=[two, one])
    parts = [render(grid, lens=SMALL, source=light) + render(grid, lens_light=light) for light in (one, two)]
    np.testing.assert_allclose(both, sum(parts), rtol=1e-3)


@pytest.mark.parametrize("kind", ["sersic", "astropy", "function"])
def test_kinds_of_light_agree(kind):
    model = Sersic(2.0, 0.3, 1.0, 0.1, 0.0, 0.1, 0.2)
    lights = {
        "sersic": model,
        "astropy": model.to_sersic2d(),
        "function": lambda x, y: torch.tensor(model(x.numpy(), y.numpy())),
    }
    grid = PixelGrid((20, 20), SCALE)
    expected = render(grid, lens=SMALL, source=model, oversampling=2)
    np.testing.assert_allclose(
        render(grid, lens=SMALL, source=lights[kind], oversampling=2), expected, rtol=1e-9
    )


def test_pixelated_source_keeps_its_flux():
    y, x = np.mgrid[-1:1:41j, -1:1:41j]
    stamp = np.exp(-(x**2 + y**2) / 0.1)
    source = PixelatedSource(stamp * u.electron, pixel_scale=0.05)
    image = render(PixelGrid((50, 50), SCALE), source=source)
    assert image.unit == u.electron
    assert image.sum().value == pytest.approx(stamp.sum(), rel=1e-4)


def test_units_go_through():
    light = Sersic(2 * u.nJy / u.arcsec**2, 300 * u.mas, 1.0)
    image = render(PixelGrid((80, 80), SCALE), lens_light=light, sky=0.1 * u.nJy)
    assert image.unit == u.nJy
    assert image.sum().value == pytest.approx(light.flux.to_value(u.nJy) + 640, rel=1e-3)


def test_units_per_steradian_are_converted():
    light = Sersic(2 * u.MJy / u.sr, 0.3, 1.0)
    image = render(PixelGrid((80, 80), SCALE), lens_light=light)
    bare = render(PixelGrid((80, 80), SCALE), lens_light=Sersic(2.0, 0.3, 1.0))
    np.testing.assert_allclose(image.to_value(u.MJy), bare * (1 * u.arcsec**2).to_value(u.sr))


@pytest.mark.parametrize(
    "options, match",
    [
        ({}, "no light"),
        ({"source": 3.0}, "is not a light"),
        ({"source": Sersic(1 * u.Jy / u.arcsec**2), "lens_light": Sersic(1.0)}, "different units"),
        ({"source": Sersic(1 * u.Jy)}, "not a surface brightness"),
        ({"source": Sersic(1.0), "sky": 1 * u.Jy}, "a unit or neither"),
        ({"source": Sersic(1 * u.Jy / u.arcsec**2), "sky": 1.0}, "a unit or neither"),
    ],
)
def test_refused(options, match):
    with pytest.raises(InputError, match=match):
        render(PixelGrid((4, 4), SCALE), **options)
