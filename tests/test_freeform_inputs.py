"""Hard images for the free-form source: each gives the right answer, or is flagged."""

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import SIE, Sersic, Shear, SuperResolver
from lenssr.exceptions import LensSRWarning
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, render

ELECTRON = u.electron / u.s
SIGMA = 0.02
LENS = SIE(0.8, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01)
FIRST = Sersic(20.0, r_eff=0.15, n=1.2, x_0=0.08, y_0=-0.05, e1=0.1, e2=0.0)
SECOND = Sersic(15.0, r_eff=0.08, n=1.0, x_0=-0.3, y_0=0.25, e1=0.0, e2=0.1)
FAR = Sersic(40.0, r_eff=0.08, n=1.0, x_0=-0.9, y_0=0.6, e1=0.0, e2=0.1)
GALAXY = Sersic(30.0, r_eff=0.5, n=3.0, x_0=0.02, y_0=0.0, e1=0.1, e2=-0.05)
BLUR = PSF.from_fwhm(0.25 * u.arcsec)
SHAPE = (36, 36)


def scene(*sources, shape=SHAPE, scale=1, **options):
    """Noise-free image, sampled at the centres of its pixels; without a source, the light of the lens."""
    lens = LENS if sources else None
    source = list(sources) or None
    return render(PixelGrid(shape, 0.1), lens=lens, source=source, scale=scale, oversampling=1, **options)


def noisy(image, seed=0):
    return image + np.random.default_rng(seed).normal(0, SIGMA, image.shape)


def solve(image, *, noise=SIGMA, psf=None, mask=None, pixel_scale=0.1, **settings):
    settings = {"source": "pixelated", "lens": LENS, "oversampling": 1, "prior": "curvature"} | settings
    image = image if isinstance(image, u.Quantity) else image * ELECTRON
    resolver = SuperResolver(mask=mask, **settings)
    return resolver(image, noise=noise, psf=psf, pixel_scale=pixel_scale)


def psnr(result, truth):
    return 10 * np.log10(truth.max() ** 2 / np.mean((result.image.data - truth) ** 2))


def inside_critical_curve():
    """Pixels that see images of negative parity, and those beside them: no lens fits to a pixel."""
    grid = PixelGrid(SHAPE, 0.1)
    x, y = (torch.as_tensor(axis.ravel()) for axis in (grid.x, grid.y))
    xx, xy, yy = LENS.hessian_at(x, y, LENS.vector[None])
    return ((1 - xx) * (1 - yy) - xy**2 < 0.1).numpy().reshape(SHAPE)


def peak_near(result, x, y):
    """Brightness of the source at a place over that of its brightest pixel."""
    meta, source = result.source.meta, result.source.data
    half = (np.array(source.shape) - 1) / 2
    row = round((y - meta["y_0"]) / meta["pixel_scale"] + half[0])
    column = round((x - meta["x_0"]) / meta["pixel_scale"] + half[1])
    return source[row - 1 : row + 2, column - 1 : column + 2].max() / source.max()


class TestRight:
    """Images whose answer is right, and knows it."""

    @pytest.mark.parametrize("lens", [LENS, None])
    def test_a_plain_lens(self, lens):
        result = solve(noisy(scene(FIRST)), lens=lens)
        assert result.ok and psnr(result, scene(FIRST, scale=2)) > 40, result.flags
        assert abs(result.reduced_chi2 - 1) < 0.15

    @pytest.mark.parametrize("lens", [LENS, None])
    def test_arcs_cut_by_the_edge(self, lens):
        shape = (36, 20)
        result = solve(noisy(scene(FIRST, shape=shape)), lens=lens)
        assert result.ok and psnr(result, scene(FIRST, shape=shape, scale=2)) > 40, result.flags

    def test_two_sources_are_both_found(self):
        result = solve(noisy(scene(FIRST, SECOND)))
        assert result.ok and psnr(result, scene(FIRST, SECOND, scale=2)) > 40, result.flags
        assert peak_near(result, 0.08, -0.05) > 0.3 and peak_near(result, -0.3, 0.25) > 0.3
        assert peak_near(result, -0.1, -0.25) < 0.1

    @pytest.mark.parametrize("light", ["sersic", "mge"])
    def test_light_of_the_lens(self, light):
        truth = scene(FIRST, lens_light=GALAXY, psf=BLUR)
        result = solve(noisy(truth), psf=BLUR, lens_light=light)
        assert result.ok, result.flags
        arcs = result.lensed_source.data.reshape(36, 2, 36, 2).sum((1, 3))
        assert np.abs(arcs - scene(FIRST, psf=BLUR)).max() < 5 * SIGMA

    @pytest.mark.parametrize("source", ["perturbed_sersic", "auto"])
    def test_other_sources(self, source):
        result = solve(noisy(scene(FIRST)), source=source)
        assert result.ok and psnr(result, scene(FIRST, scale=2)) > 45, result.flags

    @pytest.mark.parametrize(
        "options",
        [{"positive": False}, {"prior": "gradient"}, {"prior": "laplacian3"}],
    )
    def test_every_prior(self, options):
        result = solve(noisy(scene(FIRST)), **options)
        assert psnr(result, scene(FIRST, scale=2)) > 35
        assert result.meta["prior"] == options.get("prior", "curvature")
        assert (result.source.data.min() < 0) == (options.get("positive") is False)

    @pytest.mark.parametrize("scale", [1, 3])
    def test_scales(self, scale):
        result = solve(noisy(scene(FIRST)), scale=scale)
        assert result.image.shape == (36 * scale, 36 * scale)
        assert psnr(result, scene(FIRST, scale=scale)) > 40

    def test_no_sky(self):
        result = solve(noisy(scene(FIRST)), sky=None)
        assert result.ok and result.sky.value == 0 and psnr(result, scene(FIRST, scale=2)) > 40

    def test_pixels_that_are_no_numbers(self):
        data = noisy(scene(FIRST))
        data[3, 4] = data[12, 20] = np.nan
        data[10:12, 17:20] = np.inf
        with pytest.warns(LensSRWarning, match="8 of 1296 pixels are not finite"):
            result = solve(data)
        assert np.isfinite(result.image.data).all() and psnr(result, scene(FIRST, scale=2)) > 40

    def test_surface_brightness_gives_the_same_source(self):
        data = noisy(scene(FIRST))
        flux, brightness = solve(data), solve(data / 0.01 * u.MJy / u.sr, noise=SIGMA / 0.01)
        np.testing.assert_allclose(brightness.source.data, flux.source.data, rtol=1e-6, atol=1e-6)
        assert brightness.source.unit == u.MJy / u.sr

    def test_a_mirrored_image_has_a_mirrored_source(self):
        data = noisy(scene(FIRST))
        mirror = SIE(0.8, 0.1, 0.05, -0.02, 0.0) + Shear(0.02, -0.01)
        plain, mirrored = solve(data), solve(data[:, ::-1].copy(), lens=mirror)
        np.testing.assert_allclose(mirrored.image.data[:, ::-1], plain.image.data, atol=0.1 * SIGMA)


class TestFlagged:
    """Images whose answer is wrong or empty, and that say so."""

    @pytest.mark.parametrize("lens", [LENS, None])
    def test_a_hidden_counter_image(self, lens):
        result = solve(noisy(scene(FIRST)), lens=lens, mask=inside_critical_curve())
        assert "not_multiply_imaged" in result.flags and not result.ok

    @pytest.mark.parametrize(("lens", "light"), [(LENS, None), (None, None), (None, "sersic")])
    def test_no_arcs(self, lens, light):
        empty = scene(lens_light=GALAXY) if light else np.zeros(SHAPE)
        result = solve(noisy(empty), lens=lens, lens_light=light)
        assert "no_arcs" in result.flags and not result.ok

    def test_a_second_source_that_the_grid_does_not_hold(self):
        result = solve(noisy(scene(FIRST, FAR)))
        assert {"source_off_grid", "bad_field_chi2"} <= set(result.flags) and not result.ok

    def test_a_saturated_core(self):
        image = np.minimum(noisy(scene(FIRST, lens_light=GALAXY, psf=BLUR)), 1.5)
        full = solve(image, psf=BLUR, lens_light="sersic")
        assert "saturated" in full.flags
        masked = solve(image, psf=BLUR, lens_light="sersic", mask=image == image.max())
        assert "saturated" not in masked.flags and masked.ok

    def test_a_psf_twice_too_wide(self):
        wide = PSF.from_fwhm(0.5 * u.arcsec)
        result = solve(noisy(scene(FIRST, psf=BLUR)), psf=wide)
        assert {"bad_arc_chi2", "residual_structure"} & set(result.flags) and not result.ok

    @pytest.mark.parametrize("psf", [None, BLUR])
    def test_errors_that_are_too_small_are_not_followed(self, psf):
        data = noisy(scene(FIRST, psf=psf))
        result, honest = (solve(data, noise=noise, psf=psf) for noise in (SIGMA / 3, SIGMA))
        assert {"errors_too_small", "bad_chi2", "bad_arc_chi2", "bad_field_chi2"} <= set(result.flags)
        assert result.reduced_chi2 == pytest.approx(9 * honest.reduced_chi2, rel=0.1)
        assert result.meta["measures"]["bad_arc_chi2"][0] > 6
        # The source is the one of honest errors, and so are its own errors.
        assert np.abs(result.image.data - honest.image.data).max() < SIGMA
        ratio = result.image.uncertainty.array / honest.image.uncertainty.array
        assert 0.8 < np.median(ratio) < 1.25

    @pytest.mark.parametrize("lens", [LENS, None])
    def test_a_star(self, lens):
        y, x = np.indices(SHAPE) - 17.6
        result = solve(noisy(5 * np.exp(-0.5 * (x**2 + y**2) / 1.06**2)), lens=lens)
        assert not result.ok

    @pytest.mark.parametrize("value", [0.0, 0.3])
    def test_a_constant(self, value):
        result = solve(np.full(SHAPE, value), lens=None)
        assert "constant_image" in result.flags and not result.ok
        np.testing.assert_allclose(result.image.data, value / 4, atol=1e-3)

    def test_a_wrong_lens(self):
        result = solve(noisy(scene(FIRST)), lens=SIE(0.9, 0.1, -0.05, 0.02, 0.0) + Shear(0.02, 0.01))
        assert {"bad_arc_chi2", "residual_structure"} & set(result.flags) and not result.ok

    def test_eight_by_eight(self):
        grid = PixelGrid((8, 8), 0.4)
        low = render(grid, lens=LENS, source=FIRST, oversampling=1)
        result = solve(noisy(low), pixel_scale=0.4)
        assert "small_image" in result.flags and np.isfinite(result.image.data).all()
