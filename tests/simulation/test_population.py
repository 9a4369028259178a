"""The population of mixed lenses, and the spoiled images."""

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy import ndimage

from lenssr.exceptions import InputError
from lenssr.imaging import GaussianNoise
from lenssr.light import Sersic
from lenssr.simulation import SPOILED_KINDS, LensPopulation, spoiled

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


@pytest.mark.parametrize("kind", SPOILED_KINDS)
def test_spoiled_is_seeded(kind):
    first, again, other = (spoiled(kind, seed).image.data for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert np.all(np.isfinite(first))


def test_star_is_a_point_at_the_centre():
    image = spoiled("star", 1).image.data
    rows, columns = np.nonzero(image > image.max() / 2)
    assert len(rows) <= 9
    assert np.hypot(rows.mean() - 49.5, columns.mean() - 49.5) < 4


def test_noise_has_no_light():
    case = spoiled("noise", 1)
    assert case.image.data.std() == pytest.approx(0.01, rel=0.05)
    assert abs(case.image.data.mean()) < 0.001


def test_constant_is_constant():
    assert np.ptp(spoiled("constant", 1).image.data) == 0


def test_spiral_has_arms():
    image = spoiled("spiral", 4).image.data
    assert np.sqrt(np.sum(image**2)) / 0.01 > 100
    bright = image > 0.05
    # Two arms look the same turned by half, but wind the other way in a mirror.
    turned, mirrored = (
        np.corrcoef(image[bright], other[bright])[0, 1] for other in (np.rot90(image, 2), np.fliplr(image))
    )
    assert turned > 0.95 and turned > mirrored + 0.01


def test_psf_wide_is_twice_too_wide():
    case = spoiled("psf_wide", 0)
    assert case.given["psf"].fwhm == 2 * case.item.psf.fwhm
    assert case.given["noise"] is case.item.noise


def test_errors_are_a_third():
    case = spoiled("errors_third", 0)
    model = torch.linspace(0.1, 5, 7, dtype=torch.float64)
    ratio = (case.item.noise.moments(model)[2] / case.given["noise"].moments(model)[2]).sqrt()
    assert ratio.numpy() == pytest.approx(3)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_wrong_lens_is_off_by_ten_to_twenty_percent(seed):
    case = spoiled("wrong_lens", seed)
    ratio = case.settings["lens"][0].theta_E.value / case.item.lens[0].theta_E.value
    assert 0.1 <= abs(ratio - 1) <= 0.2


@pytest.mark.parametrize("kind", ["psf_wide", "errors_third", "wrong_lens"])
def test_lens_light_is_asked_for_where_there_is_some(kind):
    for seed in (0, 1):
        case = spoiled(kind, seed)
        assert ("lens_light" in case.settings) == isinstance(case.item.lens_light, Sersic)
        assert not isinstance(case.given["noise"], GaussianNoise)


def test_unknown_kind():
    with pytest.raises(InputError, match="'galaxy' is not known"):
        spoiled("galaxy")
