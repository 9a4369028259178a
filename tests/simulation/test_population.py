"""The population of mixed lenses."""

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy import ndimage

from lenssr.simulation import LensPopulation

SIZE = 8


@pytest.fixture(scope="module")
def items():
    return list(LensPopulation(size=SIZE, seed=5))


def test_lenses_are_in_the_ranges_of_the_docs(items):
    for item in items:
        galaxy, shear = item.lens[0], item.lens[1]
        assert 0.5 <= galaxy.theta_E.value <= 2
        assert 0.6 <= galaxy.q <= 1
        assert np.hypot(shear.gamma1.value, shear.gamma2.value) <= 0.08
        assert max(abs(galaxy.x_0.value), abs(galaxy.y_0.value)) <= 0.2
        assert 0.5 <= item.source.n.value <= 4
        assert 0.5 <= item.source.q <= 1
        assert item.source.r_eff.value >= 0.06 - 1e-12


def test_half_of_them_shine_like_the_mass(items):
    shining = [item for item in items if item.lens_light is not None]
    assert len(shining) == SIZE // 2
    for item in shining:
        galaxy, light = item.lens[0], item.lens_light
        assert (light.x_0.value, light.y_0.value) == (galaxy.x_0.value, galaxy.y_0.value)
        assert 2 <= light.n.value <= 5
        assert 0.5 <= light.r_eff.value / galaxy.theta_E.value <= 1.5


@pytest.mark.parametrize("lens_light", [True, False])
def test_lens_light_can_be_chosen(lens_light):
    data = LensPopulation(size=2, seed=5, lens_light=lens_light)
    assert all((data[index].lens_light is not None) == lens_light for index in range(2))


def test_field_spans_five_einstein_radii(items):
    for item in items:
        side = item.low.shape[0]
        assert item.low.shape == (side, side) and item.high.shape == (2 * side, 2 * side)
        assert side * 0.05 >= 5 * item.lens[0].theta_E.value


def test_low_truth_is_the_binned_truth(items):
    for item in items:
        ny, nx = item.low.shape
        assert item.low_truth.data == pytest.approx(item.truth.data.reshape(ny, 2, nx, 2).sum((1, 3)))


@pytest.mark.parametrize("shines", [False, True])
def test_truth_against_brute_force(items, shines):
    """Many rays a pixel, and the Gaussian PSF as a filter; steep sources would need still more rays."""
    fits = (item for item in items if (item.lens_light is not None) == shines and item.source.n.value < 3)
    item, fine = next(item for item in fits if item.low.shape == (100, 100)), 8
    side = item.truth.shape[0] * fine
    positions = (np.arange(side) - (side - 1) / 2) * 0.025 / fine
    x, y = (torch.as_tensor(axis.ravel())[None] for axis in np.meshgrid(positions, positions))
    alpha_x, alpha_y = item.lens.deflection_at(x, y, item.lens.vector[None])
    beta = ((x - alpha_x).numpy() * u.arcsec, (y - alpha_y).numpy() * u.arcsec)
    flux = item.source(*beta)
    if item.lens_light is not None:
        flux = flux + item.lens_light(x.numpy() * u.arcsec, y.numpy() * u.arcsec)
    flux = flux.value.reshape(side // fine, fine, side // fine, fine).mean((1, 3)) * 0.025**2
    sigma = 0.1 / np.sqrt(8 * np.log(2)) / 0.025
    image = ndimage.gaussian_filter(flux, sigma, mode="constant", truncate=5)
    bright = image > 0.01 * image.max()
    assert item.truth.data[bright] == pytest.approx(image[bright], rel=1e-3)


def test_arcs_have_the_signal_to_noise_of_the_settings(items):
    for item in items:
        if item.lens_light is None:
            variance = item.noise.moments(torch.as_tensor(item.low_truth.data))[2].numpy()
            assert np.sqrt(np.sum(item.low_truth.data**2 / variance)) == pytest.approx(
                item.settings["snr"], rel=1e-3
            )
        assert 150 <= item.settings["snr"] <= 500


def test_sources_have_several_images(items):
    for item in items:
        x_0, y_0 = item.source.x_0.value, item.source.y_0.value
        galaxy, shear = item.lens[0], item.lens[1]
        centre = galaxy.x_0.value, galaxy.y_0.value
        alpha = shear.deflection(*centre)
        offset = np.hypot(x_0 - centre[0] + alpha[0], y_0 - centre[1] + alpha[1])
        assert offset <= 0.35 * galaxy.theta_E.value + 1e-12


def test_noise_models_describe_the_images(items):
    for item in items:
        for image, truth, noise in (
            (item.low, item.low_truth, item.noise),
            (item.high, item.truth, item.high_noise),
        ):
            variance = noise.moments(torch.as_tensor(truth.data))[2].numpy()
            pull = (image.data - truth.data) / np.sqrt(variance)
            assert pull.var() == pytest.approx(1, abs=6 * np.sqrt(2 / pull.size))


def test_item_is_the_same_in_any_order():
    data = LensPopulation(size=3, seed=1)
    first = data[2].low.data
    data[0]
    assert np.array_equal(LensPopulation(size=30, seed=1)[2].low.data, first)
    assert np.array_equal(data[2].low.data, first)


def test_given_is_what_an_observer_knows(items):
    assert set(items[0].given) == {"psf", "noise"}
