"""Lights that are much smaller than pixels keep their flux."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr.grids import PixelGrid
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.psf import PSF
from lenssr.imaging.quadrature import CompactLights, KnownLights
from lenssr.imaging.render_scene import render
from lenssr.light import Sersic
from lenssr.mass import SIE, Shear

SCALE = 0.05
PSF_ = PSF.from_fwhm(0.1 * u.arcsec)
GRID = PixelGrid((41, 41), SCALE)
HOST = Sersic(3, 0.4, 1.0)
LENS = SIE(1.2, 0.12, 0.05) + Shear(0.03, -0.02)


def star(size, n, x, y, flux, **shape):
    unit = Sersic(1.0, size, n, x, y, **shape)
    return Sersic(flux / unit.flux, size, n, x, y, **shape)


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("size", [0.3, 0.05, 0.01])
@pytest.mark.parametrize("role", ["source", "lens_light"])
def test_a_star_beside_a_galaxy_keeps_its_flux_anywhere_in_a_pixel(n, size, role):
    alone, rng = render(GRID, source=HOST, psf=PSF_), np.random.default_rng(0)
    for x, y in rng.uniform(-0.5, 0.5, (8, 2)):
        small = star(size * SCALE, n, x, y, 0.1 * HOST.flux, e1=0.2)
        lights = {"source": [HOST, small]} if role == "source" else {"source": HOST, "lens_light": small}
        gain = (render(GRID, **lights, psf=PSF_) - alone).sum()
        # The wings of n = 4 reach beyond the frame only where they are wide.
        assert gain == pytest.approx(small.flux, rel=0.01)


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.025, 0.1), (0.025, 0.025), (0.99, 0.0)])
def test_a_star_on_the_seams_of_pixels_keeps_its_flux(place):
    small = star(0.0003, 0.5, *place, 1.0)
    image = render(GRID, source=small, psf=PSF_)
    wide = render(GRID.padded(20), source=small, psf=PSF_)
    assert wide.sum() == pytest.approx(1.0, rel=2e-3)
    np.testing.assert_allclose(image, wide[20:-20, 20:-20], atol=1e-3 * image.max())


@pytest.mark.parametrize("size", [2e-3, 5e-4, 2e-4])
@pytest.mark.parametrize("place", [(0.07, 0.11), (-0.21, 0.02), (0.02, 0.0)])
@pytest.mark.parametrize("host", [None, HOST])
def test_each_image_of_a_lensed_quasar_has_flux_times_magnification(size, place, host):
    grid, quasar = PixelGrid((80, 80), SCALE), star(size, 0.5, *place, 1.0)
    behind = render(grid, lens=LENS, source=host, psf=PSF_) if host else 0
    lights = [quasar] if host is None else [quasar, host]
    image = render(grid, lens=LENS, source=lights, psf=PSF_) - behind
    x, y = LENS.image_positions(*place)
    magnification = np.abs(np.array(LENS.magnification(x, y)))
    assert image.sum() == pytest.approx(magnification.sum(), rel=0.02)
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 10 * np.eye(len(x))
    for column, row, expected, gap in zip(x, y, magnification, apart.min(1), strict=True):
        if gap > 0.7:
            seen = image[np.hypot(grid.x - column, grid.y - row) < 0.35].sum()
            assert seen == pytest.approx(expected, rel=0.02)


def test_lights_that_rays_see_anyway_change_nothing():
    lights = (
        CompactLights(*(torch.tensor([v]).double() for v in (0.0, 0.0, 0.2, 0.2)), lambda x, y: (x, y)),
    )

    def light(x, y):
        return torch.exp(-(x**2 + y**2) / 0.08)

    known = KnownLights(light, lights)
    assert known.compact(SCALE) is None and known.compact(0.5) is not None
    plain, same = (ImagingOperator(GRID, refine=refine) for refine in (light, known))
    assert torch.equal(plain.x, same.x)


def test_a_point_takes_few_rays():
    place = torch.tensor([0.0712]).double()
    size = torch.full_like(place, 1e-4)

    def light(x, y):
        return 1 + 1e6 * torch.exp(-((x - place) ** 2 + (y - place) ** 2) / size**2)

    known = KnownLights(light, (CompactLights(place, place, size, size, lambda x, y: (x, y)),))
    missed, found = (ImagingOperator(GRID, refine=refine) for refine in (light, known))
    assert len(missed.x) == 4 * 41**2
    assert len(found.x) < 4 * 41**2 + 1500
    assert found(light(found.x, found.y)).sum().item() == pytest.approx(
        GRID.pixel_area * 41**2 + torch.pi * 1e-2, 1e-5
    )
