"""Stacks of images: the model and its derivatives behind the telescope, binning, selecting."""

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from lenssr import SIE, Sersic, Shear
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, DeepLenseNoise, GaussianNoise, PoissonNoise, render
from lenssr.model import image_stack
from lenssr.model.fit import fit_known_lens
from lenssr.model.image_stack import ImageStack, bin_kernel
from lenssr.model.initial_guess import light_start, source_start, without_light
from lenssr.model.scene import Scene

GRID = PixelGrid((24, 30), 0.1)
KERNEL = PSF.from_fwhm(0.25 * u.arcsec).kernel(0.1)
LENS = SIE(0.8, 0.1, -0.05) + Shear(0.02, 0.01)
SOURCE = Sersic(20.0, r_eff=0.2, n=1.2, x_0=0.1, y_0=-0.05, e1=0.1, e2=0.0)
LIGHT = Sersic(30.0, r_eff=0.3, n=2.0, e1=0.1, e2=0.0)


def stack_of(data=None, *, count=1, valid=None, noise=None, grid=GRID, kernel=KERNEL, **options):
    data = np.zeros((count, *grid.shape)) if data is None else np.asarray(data)
    valid = np.ones(data.shape, dtype=bool) if valid is None else valid
    noise = [GaussianNoise(0.1)] * len(data) if noise is None else noise
    return ImageStack(data, valid, noise, grid, kernel, **options)


def scene_of(*, free=True, light=1, sky=True):
    return Scene(lens=LENS, lens_free=free, lens_light=light, sky=sky, extent=1.5)


def physical_of(scene):
    parts = [LENS.vector, SOURCE.vector] + [LIGHT.vector] * len(scene.lights)
    parts += [torch.tensor([0.03], dtype=torch.float64)] if scene["sky"] else []
    return torch.cat(parts).unsqueeze(0)


@pytest.mark.parametrize(
    "noise",
    [GaussianNoise(0.1), PoissonNoise(1000, 0.01), DeepLenseNoise(1000, 0.01)],
    ids=lambda n: type(n).__name__,
)
@pytest.mark.parametrize("surface_brightness", [False, True])
@pytest.mark.parametrize("free", [True, False], ids=["free", "fixed"])
def test_jacobian_equals_finite_differences(noise, surface_brightness, free):
    scene = scene_of(free=free)
    physical = physical_of(scene)
    stack = stack_of(noise=[noise], surface_brightness=surface_brightness, oversampling=3)
    model = stack.model(scene, physical)
    index = torch.zeros(1, dtype=torch.long)
    fit = scene.to_fit(physical)
    value, jacobian = model(fit, index)
    torch.testing.assert_close(value, stack.expected(scene, physical))
    for k in range(fit.shape[1]):
        shift = torch.zeros_like(fit)
        shift[:, k] = 1e-6
        numeric = (model(fit + shift, index)[0] - model(fit - shift, index)[0]) / 2e-6
        largest = float(numeric.abs().max())
        torch.testing.assert_close(jacobian[:, k], numeric, rtol=1e-4, atol=2e-5 * largest)


@pytest.mark.parametrize(
    "options",
    [{"oversampling": 2}, {"oversampling": 3, "kernel_subsampling": 3, "includes_pixel": True}],
    ids=["pixels", "cells"],
)
@pytest.mark.parametrize("noise", [GaussianNoise(0.1), DeepLenseNoise(np.full(GRID.shape, 1e3), 0.01)])
def test_strips_of_a_large_image_add_up_to_the_whole(monkeypatch, noise, options):
    scene = scene_of()
    physical, index = physical_of(scene), torch.zeros(1, dtype=torch.long)
    fine = PSF.from_fwhm(0.25 * u.arcsec).kernel(0.1, subsampling=options.get("kernel_subsampling", 1))
    stack = stack_of(noise=[noise], kernel=fine, **options)
    fit = scene.to_fit(physical)
    whole, slopes = stack.model(scene, physical)(fit, index)
    image = stack.image(scene, physical)
    monkeypatch.setattr(image_stack, "MOST_VALUES", 0)
    monkeypatch.setattr(image_stack, "STRIP_VALUES", 0)
    strips = list(stack.model(scene, physical)(fit, index))
    assert len(strips) > 1 and strips[0][0].start == 0
    torch.testing.assert_close(torch.cat([one[1] for one in strips], 1), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.cat([one[2] for one in strips], 2), slopes, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(stack.image(scene, physical), image, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("surface_brightness", [False, True])
def test_image_equals_the_renderer(surface_brightness):
    scene = scene_of()
    image = stack_of(surface_brightness=surface_brightness, oversampling=4).image(scene, physical_of(scene))
    expected = render(GRID, lens=LENS, source=SOURCE, lens_light=LIGHT, psf=PSF(KERNEL), oversampling=4)
    expected = expected / GRID.pixel_area if surface_brightness else expected
    image, expected = image.reshape(GRID.shape).numpy(), expected + 0.03
    # At the edge the renderer has more of the light from beyond.
    np.testing.assert_allclose(image, expected, rtol=0.01)
    inside = (slice(len(KERNEL), -len(KERNEL)),) * 2
    np.testing.assert_allclose(image[inside], expected[inside], rtol=1e-10)


def test_images_of_a_batch_do_not_mix():
    scene = scene_of()
    physical = physical_of(scene).repeat(3, 1) * torch.tensor([[1.0], [1.02], [0.97]])
    stack = stack_of(count=3, oversampling=2)
    together = stack.image(scene, physical)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], stack.image(scene, physical[k : k + 1]))


def test_masked_pixels_have_no_weight(rng):
    valid = rng.uniform(size=(1, *GRID.shape)) > 0.3
    weight = stack_of(valid=valid).weights(torch.zeros(1, GRID.shape[0] * GRID.shape[1], dtype=torch.float64))
    np.testing.assert_allclose(weight.numpy().reshape(valid.shape), np.where(valid, 100.0, 0.0))


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_binning_conserves_flux(factor, rng):
    data = rng.uniform(1, 2, (2, *GRID.shape))
    coarse = stack_of(data).binned(factor)
    ny, nx = (side // factor for side in GRID.shape)
    assert coarse.grid.shape == (ny, nx) and coarse.grid.pixel_scale == pytest.approx(0.1 * factor)
    # What does not fill a block is cut off evenly from both sides.
    y, x = ((side - factor * n) // 2 for side, n in zip(GRID.shape, (ny, nx), strict=True))
    inner = data[:, y : y + ny * factor, x : x + nx * factor]
    np.testing.assert_allclose(coarse.data.sum(1), inner.sum((1, 2)))
    np.testing.assert_allclose(coarse.weights(coarse.data), 100 / factor**2)


def test_binning_surface_brightness_conserves_the_mean(rng):
    data = rng.uniform(1, 2, (1, *GRID.shape))
    coarse = stack_of(data, surface_brightness=True).binned(2)
    assert float(coarse.data.mean()) == pytest.approx(data.mean())
    np.testing.assert_allclose(coarse.weights(coarse.data), 400)


def test_masked_pixels_are_filled_by_their_block(rng):
    data = np.full((1, *GRID.shape), 3.0)
    valid = rng.uniform(size=data.shape) > 0.2
    coarse = stack_of(np.where(valid, data, 1e6), valid=valid).binned(2)
    number = valid.reshape(1, 12, 2, 15, 2).sum((2, 4))
    assert np.array_equal(coarse.valid.numpy().reshape(number.shape), number >= 2)
    kept = coarse.data.numpy().reshape(number.shape)[number >= 2]
    np.testing.assert_allclose(kept, 12.0)
    # The fewer pixels there were, the larger the error.
    weight = coarse.weights(coarse.data).numpy().reshape(number.shape)
    np.testing.assert_allclose(weight[number >= 2], (100 * number / 16)[number >= 2])


def test_binned_model_sees_the_binned_scene():
    scene = scene_of(light=0, sky=False)
    fine = stack_of(oversampling=4)
    data = fine.image(scene, physical_of(scene)).reshape(1, *GRID.shape)
    coarse = stack_of(data.numpy(), oversampling=4).binned(2)
    model = coarse.image(scene, physical_of(scene))
    # A coarse kernel takes light to be flat within pixels: good enough to search, not to measure.
    assert float((model - coarse.data).abs().max()) < 0.1 * float(coarse.data.max())
    assert float(model.sum()) == pytest.approx(float(coarse.data.sum()), rel=1e-2)


def test_binning_by_one_changes_nothing():
    stack = stack_of()
    assert stack.binned(1) is stack


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(7, 7), (11, 5), (21, 21)])
def test_binned_kernels_keep_their_sum(factor, shape, rng):
    kernel = rng.uniform(size=shape)
    coarse = bin_kernel(kernel, factor)
    assert all(side % 2 == 1 for side in coarse.shape)
    assert coarse.sum() == pytest.approx(kernel.sum())


@pytest.mark.parametrize("factor", [2, 3])
def test_binned_kernel_acts_as_the_fine_one_on_flat_blocks(factor, rng):
    kernel = PSF.from_fwhm(0.3 * u.arcsec).kernel(0.1)
    flat = rng.uniform(size=(20, 20))
    fine = fftconvolve(np.kron(flat, np.ones((factor, factor))), kernel, mode="same")
    fine = fine.reshape(20, factor, 20, factor).mean((1, 3))
    coarse = fftconvolve(flat, bin_kernel(kernel, factor), mode="same")
    np.testing.assert_allclose(coarse, fine, atol=1e-10)


def test_select_takes_images_in_order(rng):
    data = rng.uniform(size=(3, *GRID.shape))
    valid = rng.uniform(size=data.shape) > 0.1
    stack = stack_of(data, valid=valid, noise=[GaussianNoise(s) for s in (0.1, 0.2, 0.5)], oversampling=2)
    chosen = stack.select([2, 0, 2])
    assert len(chosen) == 3
    np.testing.assert_array_equal(chosen.data.reshape(data.shape), data[[2, 0, 2]])
    np.testing.assert_array_equal(chosen.valid.reshape(data.shape), valid[[2, 0, 2]])
    assert chosen.noise.sigma.flatten().tolist() == [0.5, 0.1, 0.5]
    scene = scene_of()
    torch.testing.assert_close(
        chosen.image(scene, physical_of(scene)), stack.image(scene, physical_of(scene))
    )


def test_first_guess_is_the_mean_of_valid_neighbours(rng):
    data = rng.uniform(size=(1, *GRID.shape))
    valid = np.ones(data.shape, dtype=bool)
    valid[0, 5, 5] = False
    guess = stack_of(np.where(valid, data, 1e9), valid=valid).first_guess().reshape(GRID.shape).numpy()
    block = data[0, 4:7, 4:7].ravel()
    assert guess[5, 5] == pytest.approx(np.delete(block, 4).mean())
    assert guess[0, 0] == pytest.approx(data[0, :2, :2].mean())


SIMULATED = PixelGrid((50, 50), 0.08)


def simulated(rng, *, light):
    scene = Scene(lens=LENS, lens_free=True, lens_light=light, sky=True, extent=2.0)
    kernel = PSF.from_fwhm(0.2 * u.arcsec).kernel(0.08)
    image = stack_of(grid=SIMULATED, kernel=kernel).image(scene, physical_of(scene))
    data = image.reshape(1, *SIMULATED.shape).numpy() + rng.normal(0, 0.005, (1, *SIMULATED.shape))
    return scene, stack_of(data, noise=[GaussianNoise(0.005)], grid=SIMULATED, kernel=kernel)


@pytest.mark.parametrize("light", [0, 1])
def test_source_starts_near_the_truth_behind_the_true_lens(light, rng):
    scene, stack = simulated(rng, light=light)
    template = physical_of(scene).clone()
    source = scene["source"]
    template[:, source.start :] = 1.0
    if light:
        template[:, scene.lights[0].slice] = LIGHT.vector
    below = (
        torch.cat([LIGHT.vector, torch.tensor([0.03], dtype=torch.float64)]).unsqueeze(0) if light else None
    )
    weight = stack.weights(stack.first_guess())
    found = source_start(stack, scene, template, without_light(stack, scene, below), weight)
    amplitude, r_eff, n, x_0, y_0, e1, e2 = found[0, source.slice].tolist()
    assert np.hypot(x_0 - 0.1, y_0 + 0.05) < 0.05
    assert 0.5 < r_eff / 0.2 < 2 and (n, e1, e2) == (1.0, 0.0, 0.0)
    flux = stack.image(scene, found, roles=("source",)).sum()
    true_flux = stack.image(scene, physical_of(scene), roles=("source",)).sum()
    assert 0.5 < float(flux / true_flux) < 1.5
    assert float(found[0, -1]) == pytest.approx(0.03, abs=0.03)


def test_light_starts_near_the_lens_galaxy(rng):
    scene, stack = simulated(rng, light=1)
    light = light_start(stack, scene)
    assert np.hypot(*light[0, 3:5].tolist()) < 0.03
    galaxy = Scene(lens=None, lens_free=False, lens_light=1, sky=True, source=0, extent=2.0)
    flux = stack.image(galaxy, light, roles=("lens_light",)).sum()
    true_flux = stack.image(scene, physical_of(scene), roles=("lens_light",)).sum()
    assert 0.5 < float(flux / true_flux) < 2
    assert light_start(stack, Scene(lens=LENS, lens_free=True, lens_light=0, sky=True, extent=2.0)) is None


@pytest.fixture
def no_copies(monkeypatch):
    """Forbid whatever would carry a tensor to the CPU."""

    def refuse(self, *args, **kwargs):
        raise AssertionError("a tensor was carried to the CPU")

    def forbid():
        for name in ("cpu", "numpy", "__array__"):
            monkeypatch.setattr(torch.Tensor, name, refuse)

    return forbid


@pytest.mark.parametrize(
    "noise", [GaussianNoise(np.full(SIMULATED.shape, 0.005)), PoissonNoise(1000, 0.005)], ids=["map", "model"]
)
def test_tensors_of_a_fit_stay_on_their_device(noise, rng, no_copies):
    scene, one = simulated(rng, light=1)
    data = one.data.reshape(1, *SIMULATED.shape).repeat(2, 1, 1)
    stack = ImageStack(data, torch.ones_like(data, dtype=torch.bool), [noise, noise], SIMULATED, one.kernel)
    assert stack.data.data_ptr() == data.data_ptr()
    template = physical_of(scene).repeat(2, 1)
    start = scene.to_fit(template)
    stack.model(scene, template)(start, torch.arange(2))  # tables of b_n are made once
    no_copies()
    coarse = stack.binned(2)
    many = coarse.select(torch.tensor([0, 0, 1]))
    many.model(scene, template[[0, 0, 1]])(start, torch.tensor([0, 2]))
    stack.select([1], refine=lambda x, y: scene.brightness(x, y, template)[0]).single()
    fits = fit_known_lens(stack, scene, template[:, scene["lens"].slice])
    assert all(fit.converged for fit in fits)
